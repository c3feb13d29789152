"""Renders the overview page, `outbox/index.html`: what runs, waits, has failed and is done, for people with a browser.

The page has no script and needs no template engine, which would use more memory than the rest of the supervisor. It asks the
browser to reload it; its policy (CSP) allows its one style sheet and nothing else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

from whisperd.core.display import one_line

MARK = '<meta name="generator" content="whisperd index">'  # by which the supervisor recognises its own page
SHOWN = 50  # rows of each list
REFRESH_SECONDS, IDLE_REFRESH_SECONDS = 2, 15


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a list on the page; every text is shown as it is.

    Attributes:
        name: the name of the upload.
        facts: a short text at the end of the line.
        note: why the upload waits, or failed.
        hint: what to do about it.
        percent: the progress from 0 to 100, if it runs.
        links: text and relative URL of each link; the first is also the link of the name.
        at: the end of the job, UTC, ISO 8601.
    """

    name: str
    facts: str = ""
    note: str = ""
    hint: str = ""
    percent: float | None = None
    links: tuple[tuple[str, str], ...] = ()
    at: str | None = None


@dataclass(frozen=True, slots=True)
class RowList:
    """One list of the page: the rows that are shown, and how many there are in all."""

    rows: tuple[Row, ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that the page shows; `state` and `warning` are sentences."""

    state: str
    warning: str = ""
    running: RowList = RowList()
    waiting: RowList = RowList()
    failed: RowList = RowList()
    done: RowList = RowList()

    @property
    def is_busy(self) -> bool:
        """Whether changes are expected soon."""
        return bool(self.running.total or self.waiting.total)


def render(overview: Overview, *, at: str) -> bytes:
    """Return the page in UTF-8; `at` is the time of the page, UTC, ISO 8601."""
    parts = {
        "running": ("Running", overview.running),
        "waiting": ("Waiting", overview.waiting),
        "failed": ("Failed", overview.failed),
        "done": ("Done", overview.done),
    }
    sums = "".join(
        f'<li><a href="#{key}"{_bad(key, part)}><b>{part.total:,}</b> {key}</a></li>\n'
        for key, (_, part) in parts.items()
        if part.total
    )
    lists = "".join(_part(key, title, part) for key, (title, part) in parts.items() if part.total)
    if not lists:
        lists = (
            "<p>Nothing is here yet. Copy recordings into <b>inbox</b>; their transcripts appear on this page.</p>\n"
        )
    warning = f'<p class="banner" role="status">{_escaped(overview.warning)}</p>\n' if overview.warning else ""
    refresh = REFRESH_SECONDS if overview.is_busy else IDLE_REFRESH_SECONDS
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}
<meta http-equiv="Content-Security-Policy" content="{html.escape(_policy())}">
<meta http-equiv="refresh" content="{refresh}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{_title(overview)}</title>
<style>{_style()}</style>
</head>
<body>
<header>
<h1>Transcripts</h1>
<p class="soft">{_escaped(overview.state)}, as of {_time(at, "%d %B %Y, %H:%M:%S %Z")}</p>
{warning}<ul class="sums">
{sums}</ul>
</header>
<main>
{lists}</main>
<footer>whisperd writes this page; it reloads itself every {refresh} seconds.</footer>
</body>
</html>
"""
    return page.encode("utf-8", "replace")


def _part(key: str, title: str, part: RowList) -> str:
    rows = "".join(_row(row) for row in part.rows[:SHOWN])
    hidden = part.total - min(len(part.rows), SHOWN)
    more = f'<p class="more">and {hidden:,} more</p>\n' if hidden > 0 else ""
    return (
        f'<section id="{key}" class="{key}" aria-labelledby="{key}-title">\n<h2 id="{key}-title">{title}</h2>\n'
        f'<ul class="rows">\n{rows}</ul>\n{more}</section>\n'
    )


def _row(row: Row) -> str:
    name = f"<bdi>{_escaped(row.name)}</bdi>"
    if row.links:
        name = f'<a href="{html.escape(row.links[0][1])}">{name}</a>'
    facts = [_escaped(row.facts)] if row.facts else []
    if row.at:
        facts.append(_time(row.at, "%d %b %H:%M"))
    shown = f'<span class="name">{name}</span><span class="facts">{" · ".join(facts)}</span>'
    if row.percent is not None:
        shown += f'<progress max="100" value="{row.percent:.1f}" aria-label="{_escaped(row.name)}"></progress>'
    for kind in ("note", "hint"):
        if text := getattr(row, kind):
            shown += f'<span class="{kind}" dir="auto">{_escaped(text)}</span>'
    if len(row.links) > 1:
        links = "".join(f'<a href="{html.escape(url)}">{_escaped(label)}</a>' for label, url in row.links)
        shown += f'<span class="note links">{links}</span>'
    return f"<li>{shown}</li>\n"


def _bad(key: str, part: RowList) -> str:
    return ' class="bad"' if key == "failed" and part.total else ""


def _title(overview: Overview) -> str:
    if overview.running.total:
        percents = [row.percent or 0.0 for row in overview.running.rows]
        return f"{sum(percents) / max(1, len(percents)):.0f} % · {overview.running.total} running · Transcripts"
    return f"{overview.waiting.total} waiting · Transcripts" if overview.waiting.total else "Transcripts"


def _time(at: str, form: str) -> str:
    """Format a time in the zone of this machine."""
    try:
        shown = datetime.fromisoformat(at).astimezone().strftime(form).removeprefix("0")
    except ValueError:  # somebody has edited a status file
        shown = at
    return f'<time datetime="{html.escape(at)}">{_escaped(shown)}</time>'


def _escaped(text: str) -> str:
    return html.escape(one_line(text))


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@functools.cache
def _style() -> str:
    return (resources.files("whisperd.listeners") / "overview.css").read_text("utf-8")
