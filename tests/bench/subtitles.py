"""Counts how many subtitles break each rule, for the layouts raw and readable.

    whisperd transcribe --formats json --output-dir out talk.mp3 && python tests/bench/subtitles.py out/*.json

The subtitles are read back from srt by pysubs2. A rule of speed counts as broken only where the subtitle could be shown for
longer: where the next one does not follow at once.
"""

from __future__ import annotations

import argparse
import collections
from itertools import pairwise
from pathlib import Path

import pysubs2

from whisperd.core.options import OutputOptions
from whisperd.output.formats import render
from whisperd.output.json import read
from whisperd.output.phrases import binding_words
from whisperd.output.subtitles import GAP
from whisperd.output.units import columns, is_wide

RULES = (
    "more than two lines",
    "line too long",
    "shorter than 5/6 s",
    "longer than 7 s",
    "too fast, though there is time",
    "less than two frames to the next",
    "ends after an article or preposition",
    "line ends after an article or preposition",
    "too fast, as it was spoken",
)


def broken(content: str, language: str) -> tuple[int, collections.Counter[str]]:
    """How many subtitles there are, and how many of them break each rule."""
    found: collections.Counter[str] = collections.Counter()
    cues = list(pysubs2.SSAFile.from_string(content, format_="srt", keep_html_tags=True))
    small = binding_words(language)
    for cue, following in pairwise([*cues, None]):
        lines = cue.text.split(r"\N")
        seconds = (cue.end - cue.start) / 1000
        speed = (sum(map(columns, lines)) + len(lines) - 1) / max(seconds, 0.001)
        pause = following.start - cue.end if following else 10_000
        ends = [line.split()[-1].casefold() for line in lines if line.split()]
        found["more than two lines"] += len(lines) > 2
        found["line too long"] += any(columns(line) > (32 if is_wide(line) else 42) for line in lines)
        found["shorter than 5/6 s"] += seconds < 0.833
        found["longer than 7 s"] += seconds > 7.0
        found["too fast, though there is time"] += speed > 20.2 and pause > GAP and seconds < 7
        found["too fast, as it was spoken"] += speed > 20.2 and pause <= GAP
        found["less than two frames to the next"] += pause < 83
        found["ends after an article or preposition"] += bool(ends) and ends[-1] in small and following is not None
        found["line ends after an article or preposition"] += any(end in small for end in ends[:-1])
    return len(cues), found


def main() -> None:
    """Print a table for all files together, or for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--each", action="store_true", help="a table for each file")
    arguments = parser.parse_args()
    for files in [[file] for file in arguments.files] if arguments.each else [arguments.files]:
        print("\n" + ", ".join(file.stem for file in files))  # noqa: T201
        results = {}
        for layout in ("raw", "readable"):
            count, found = 0, collections.Counter[str]()
            for file in files:
                transcript, _ = read(file.read_bytes())
                content = render(transcript, OutputOptions(formats=("srt",), layout=layout))["srt"].decode()
                more, rules = broken(content, transcript.language)
                count += more
                found += rules
            results[layout] = (count, found)
        print(f"{'':44}{'raw':>8}{'readable':>10}")  # noqa: T201
        print(f"{'subtitles':44}{results['raw'][0]:8}{results['readable'][0]:10}")  # noqa: T201
        for rule in RULES:
            shares = [100 * found[rule] / max(count, 1) for count, found in results.values()]
            print(f"{rule:44}{shares[0]:7.1f}%{shares[1]:9.1f}%")  # noqa: T201


if __name__ == "__main__":
    main()
