"""Draws a recording as SVG for the html page: how loud it is, who speaks where, and where the model was unsure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

WIDTH, HEIGHT = 1200, 100  # units of the view box
BARS = 240  # where no heights are given
_SPEECH_HEIGHT, _SILENCE_HEIGHT = 45, 6  # where the loudness is not known
_GAP = 0.35  # of a bar
_STRIP = 5  # height of the line below the bars that marks unsure places


def draw(
    regions: Sequence[tuple[float, float, str]],
    doubts: Sequence[tuple[float, float]],
    heights: Sequence[int],
    duration_seconds: float,
) -> str:
    """Return an `<svg>` whose size does not depend on the length of the recording.

    Args:
        regions: start and end in seconds of each spoken text, and a class name: `said`, or that of the speaker.
        doubts: start and end in seconds of unsure places.
        heights: 0-100, one for each bar; empty: not known.
        duration_seconds: of the recording.
    """
    count = len(heights) or BARS
    kinds = _spread(regions, count, duration_seconds)
    if not heights:
        heights = [_SPEECH_HEIGHT if kind else _SILENCE_HEIGHT for kind in kinds]
    bars: dict[str, list[str]] = {}
    for index, (kind, height) in enumerate(zip(kinds, heights, strict=True)):
        bars.setdefault(kind, []).append(_bar(index, count, height))
    paths = [f'<path class="{f"wave {kind}".strip()}" d="{"".join(drawn)}"/>' for kind, drawn in sorted(bars.items())]
    if doubts:
        marked = _spread([(start, end, "x") for start, end in doubts], WIDTH // 2, duration_seconds)
        strips = (
            f"M{start * 2} {HEIGHT - _STRIP}h{(end - start) * 2}v{_STRIP}h-{(end - start) * 2}z"
            for start, end in _runs(marked)
        )
        paths.append(f'<path class="doubts" d="{"".join(strips)}"/>')
    label = "Loudness along the recording; what is spoken is darker, unsure places are underlined"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{''.join(paths)}</svg>"
    )


def _spread(regions: Iterable[tuple[float, float, str]], count: int, duration_seconds: float) -> list[str]:
    """For each of `count` equal parts of the recording, the class of a region that touches it, or an empty string."""
    parts = [""] * count
    if duration_seconds > 0:
        for start, end, kind in regions:
            first = min(max(0, int(start / duration_seconds * count)), count - 1)
            last = min(max(first, int(end / duration_seconds * count - 1e-9)), count - 1)
            parts[first : last + 1] = [kind] * (last + 1 - first)
    return parts


def _runs(parts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of marked parts."""
    start = None
    for index, part in enumerate([*parts, ""]):
        if part and start is None:
            start = index
        elif not part and start is not None:
            yield start, index
            start = None


def _bar(index: int, count: int, height: int) -> str:
    width = WIDTH / count
    tall = max(2.0, height / 100 * (HEIGHT - 2 * _STRIP - 4))
    top = (HEIGHT - 2 * _STRIP - tall) / 2 + 2
    return f"M{index * width:g} {top:g}h{width * (1 - _GAP):g}v{tall:g}h-{width * (1 - _GAP):g}z"
