"""Writes the overview page, `outbox/index.html`, at most once a second, from events and snapshots.

The page is no state: it is replaced without fsync, and after a start all is read anew from the status files.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whisperd.core import events
from whisperd.core.display import printable, readable_duration
from whisperd.core.job import Phase, Progress, utc_now
from whisperd.core.slices import advance
from whisperd.listeners.overview_html import MARK, SHOWN, Overview, Row, RowList, render
from whisperd.spool import names, status_file
from whisperd.spool.durable import Folder, write
from whisperd.spool.names import OVERVIEW_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from whisperd.core.job import Job
    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout

EVERY_SECONDS = 1.0
AFTER_ERROR_SECONDS = 10.0
ARRIVALS_KEPT = 1000  # reasons remembered; of a hundred thousand waiting files the rest is counted only
NEVER = float("inf")
_FILE = OVERVIEW_PAGE.partition("/")[2]
_HEAD_BYTES = 4096  # the mark is in there
_PHASES = {Phase.DECODING: "reading the recording", Phase.PUBLISHING: "publishing"}

_log = logging.getLogger(__name__)


class Latest:
    """The newest rows of a list, by place, and the number of all rows."""

    def __init__(self) -> None:
        self.total = 0
        self._rows: dict[str, Row] = {}

    def add(self, place: str, row: Row) -> None:
        """Add a row."""
        self.total += place not in self._rows
        self._rows[place] = row
        if len(self._rows) > 2 * SHOWN:
            self._rows = dict(sorted(self._rows.items(), key=_end, reverse=True)[:SHOWN])

    def remove(self, place: str) -> None:
        """Remove a row; one that is not shown any more is counted until the next start."""
        if self._rows.pop(place, None) is not None:
            self.total -= 1

    def part(self) -> RowList:
        """Return the rows, newest first."""
        rows = sorted(self._rows.items(), key=_end, reverse=True)[:SHOWN]
        return RowList(tuple(row for _, row in rows), self.total)


def _end(item: tuple[str, Row]) -> str:
    return item[1].at or ""


class Warnings:
    """The warnings at the top of the page: what prevents uploads from being claimed."""

    def __init__(self) -> None:
        self._pause = ""
        self._unread: dict[str, str] = {}  # what cannot be read in the inbox, mostly folders, and why
        self._refusal = ""

    def hear(self, event: events.Event) -> None:
        """Remember an event that needs a person's action, until it is over."""
        match event:
            case events.UploadRefused(name, reason, is_unread=True):
                self._unread[name] = reason
            case events.ReadableAgain(name):
                self._unread.pop(name, None)
            case events.ClaimsPaused(reason, hint):
                self._pause = f"Nothing is taken for now: {reason}; {hint}."
            case events.ClaimsResumed():
                self._pause = ""
            case events.ConfigRefused():
                self._refusal = (
                    "A changed configuration was refused, the old one is in use; the journal gives the reason."
                )
            case events.ConfigApplied():
                self._refusal = ""

    def text(self) -> str:
        """Return all warnings as sentences."""
        named = [f"inbox/{printable(name)}: {reason}." for name, reason in itertools.islice(self._unread.items(), 3)]
        more = len(self._unread) - len(named)
        rest = [f"{more} more cannot be read."] if more else []
        return " ".join(filter(None, (self._pause, *named, *rest, self._refusal)))


class OverviewPage:
    """The part of the loop that collects what the overview page shows and writes it.

    Args:
        layout: the spool.
        emitter: heard for what happens.
        jobs_now: gives the jobs that have not ended.
        devices_now: gives the state of each device.
    """

    def __init__(
        self,
        layout: Layout,
        emitter: events.Emitter,
        jobs_now: Callable[[], events.JobsNow],
        devices_now: Callable[[], tuple[events.DeviceVitals, ...]] = tuple,
    ) -> None:
        self._layout = layout
        self._jobs_now = jobs_now
        self._devices_now = devices_now
        self._is_on = False
        self._done, self._failed = Latest(), Latest()
        self._reading: Iterator[None] | None = None
        self._arrivals: dict[str, Row] = {}  # by the place of the status file
        self._setbacks: dict[str, Row] = {}  # by job: an attempt failed, an end cannot be written
        self._warnings = Warnings()
        self._state = "whisperd is loading its model"
        self._is_due = True
        self._write_at = 0.0
        self._told = ""
        emitter.subscribe(self.hear)

    def configure(self, config: Config) -> None:
        """Turn the page on or off."""
        on = config.pages.index
        if on and not self._is_on:
            self._done, self._failed = Latest(), Latest()
            self._reading = self._read(utc_now())
        elif not on:
            self._reading = None
        self._is_on, self._is_due = on, True

    # what happens

    def hear(self, event: events.Event) -> None:
        """Remember an event that the page shows."""
        self._warnings.hear(event)
        self._is_due |= not isinstance(event, events.LoopTurned)
        match event:
            case events.JobFinished(job, result):
                self._ended(job, status_file.of_job(job, now=utc_now(), result=result))
            case events.JobFailed(job, failure):
                self._ended(job, status_file.of_job(job, now=utc_now(), failure=failure))
            case events.JobClaimed(job, _):
                self._failed.remove(job.place)  # moved back to be tried again
            case events.JobStarted(job, _) | events.UploadGivenBack(job, _):
                self._setbacks.pop(job.id, None)
            case events.JobRetried(job, failure, _, _):
                note = f"attempt failed, {failure.message}; it is tried again"
                self._setbacks[job.id] = Row(printable(job.name), note=note, hint=failure.hint)
            case events.TransitionDelayed(job, message, _):
                note = f"its end cannot be written, {message}; it is tried again"
                self._setbacks[job.id] = Row(printable(job.name), note=note)
            case events.UploadExplained(name, reason, place):
                if place in self._arrivals or len(self._arrivals) < ARRIVALS_KEPT:
                    self._arrivals[place] = Row(printable(name), note=reason)
            case events.ExplanationRemoved(place):
                self._arrivals.pop(place, None)
            case events.WorkerReady(model=model):
                self._state = f"whisperd runs with the model {os.path.basename(model)}"

    def _ended(self, job: Job, document: dict[str, Any]) -> None:
        self._setbacks.pop(job.id, None)
        self._add(job.place, document)

    def _add(self, place: str, document: dict[str, Any]) -> None:
        self._failed.remove(place)
        if document["status"] == "failed":
            self._failed.add(place, _failed_row(document))
        else:
            self._done.add(place, _done_row(place, document))

    # the page

    def tick(self, now: float) -> float:
        """After a start read the status files, then write the page if something changed; returns the time of the next call."""
        if not self._is_on:
            return NEVER
        if self._reading is not None:
            self._read_on(self._reading)
            return now
        if now >= self._write_at:
            jobs = self._jobs_now()
            if self._is_due or jobs.running_total:
                self._write(now, self._overview(jobs))
        return self._write_at if self._is_due else NEVER

    def waitables(self) -> list[Any]:
        """Return nothing to wait for."""
        return []

    def close(self) -> None:
        """Write the page for the last time: the daemon does not run."""
        self._state = "whisperd is not running"
        if self._is_on and self._reading is None:
            self._write(time.monotonic(), self._overview(self._jobs_now()))

    def _overview(self, jobs: events.JobsNow) -> Overview:
        running = [_running_row(job, progress) for job, progress in jobs.running[:SHOWN]]
        queued = [
            self._setbacks.get(job.id) or Row(printable(job.name), note=f"{position}. in the queue")
            for position, job in enumerate(jobs.queued[:SHOWN], start=1)
        ]
        shown = {row.name for row in (*running, *queued)}
        setbacks = [row for row in self._setbacks.values() if row.name not in shown]
        waiting = (*queued, *setbacks, *itertools.islice(self._arrivals.values(), SHOWN))
        return Overview(
            self._state,
            " ".join(filter(None, (self._warnings.text(), *map(_device_warning, self._devices_now())))),
            RowList(tuple(running), jobs.running_total),
            RowList(waiting, max(jobs.waiting_total, len(waiting))),
            self._failed.part(),
            self._done.part(),
        )

    def _write(self, now: float, overview: Overview) -> None:
        layout = self._layout
        try:
            with Folder(layout.outbox) as outbox, Folder(layout.staging) as staging:
                stands = outbox.exists(_FILE)
                if stands and MARK.encode() not in outbox.read(_FILE, _HEAD_BYTES):
                    raise FileExistsError(0, "a file of another origin has this name")
                write(outbox, _FILE, render(overview, at=utc_now()), staging=staging, sync=False, replace=stands)
        except OSError as error:
            self._write_at = now + AFTER_ERROR_SECONDS
            if self._told != error.strerror:
                self._told = str(error.strerror)
                _log.warning("%s cannot be kept: %s", OVERVIEW_PAGE, error.strerror)
            return
        self._told, self._is_due, self._write_at = "", False, now + EVERY_SECONDS

    # what earlier daemons did

    def _read(self, before: str) -> Iterator[None]:
        """Read the status files of jobs that ended before a time, one step at a time."""
        for found in status_file.find_all(self._layout):
            yield
            if found is None:
                continue
            folders, file = found
            try:
                with Folder(self._layout.outbox, folders) as outbox:
                    document = status_file.decode(outbox.read(file))
                if document and document["status"] in {"completed", "failed"} and document["finished_at"] < before:
                    self._add(names.join(folders, file.removesuffix(names.STATUS_SUFFIX)), document)
            except (OSError, KeyError, TypeError, ValueError, AttributeError):
                continue  # a person has edited it, or taken it away

    def _read_on(self, reading: Iterator[None]) -> None:
        try:
            if not advance(reading):
                self._reading = None
        except OSError:
            self._reading = None


def _device_warning(device: events.DeviceVitals) -> str:
    """Return a sentence about a device that is out of service; empty for others."""
    if not device.reason:
        return ""
    return f"The device {device.name} is out of service: {device.reason}; it is tried again, and other devices do its work."


def _running_row(job: Job, progress: Progress) -> Row:
    facts = [_PHASES.get(progress.phase, f"{progress.percent:.0f} %")]
    if progress.speed:
        facts.append(f"x{progress.speed:.1f}")
    if progress.eta_seconds is not None:
        facts.append(f"{readable_duration(progress.eta_seconds)} left")
    return Row(printable(job.name), facts=" · ".join(facts), percent=progress.percent)


def _failed_row(document: dict[str, Any]) -> Row:
    error = document["error"]
    return Row(
        str(document["name"]), note=str(error["message"]), hint=str(error["hint"] or ""), at=document["finished_at"]
    )


def _done_row(place: str, document: dict[str, Any]) -> Row:
    length, language = document["duration_seconds"], document["language"]
    facts = [readable_duration(length)] if length else []
    facts += [str(language)] if language else []
    outputs = sorted(document["outputs"].items(), key=lambda output: output[0] != "html")
    links = tuple((kind, url) for kind, shown in outputs if (url := _url(place, kind, str(shown))))
    twin = document.get("duplicate_of")
    note = f"the same recording as {twin}" if twin else ""
    return Row(str(document["name"]), " · ".join(facts), note, links=links, at=document["finished_at"])


def _url(place: str, kind: str, shown: str) -> str:
    """Return the URL of a transcript relative to the outbox; empty if its name cannot be recovered from the status file."""
    if "\\" in shown:  # what is shown is not the name itself
        folders, file = names.split(place)
        name = f"outbox/{names.join(folders, names.output(file, kind))}"
        if printable(name) != shown:
            return ""
        shown = name
    return quote(os.fsencode(shown.removeprefix("outbox/")))
