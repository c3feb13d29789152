"""Metrics for Prometheus, counted from events; they need the extra `whisperd[metrics]`.

Names and units are those of Prometheus (https://prometheus.io/docs/practices/naming/). No label has an unbounded number
of values: no file names, and a limited number of error codes.
"""

from __future__ import annotations

import platform
from datetime import datetime
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.registry import Collector

import whisperd
from whisperd.core import events
from whisperd.core.transcript import GAP_REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from whisperd.core.job import Result

CODES_MAX = 50
WAIT_SECONDS = (0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
SPEEDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of time series


class Metrics:
    """All metrics of one spool: `heard` counts events, and `update` sets the gauges.

    Args:
        spool: the root, a label of every metric, since several daemons of a machine share one node_exporter.
        started_at: when the daemon started, in seconds since 1970.
    """

    def __init__(self, spool: str, *, started_at: float) -> None:
        own = CollectorRegistry()
        self.registry = CollectorRegistry()
        self.registry.register(_Labelled(own, {"spool": spool}))
        self._codes: set[str] = set()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"whisperd_{name}", text, labels, registry=own)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"whisperd_{name}", text, labels, registry=own)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"whisperd_{name}", text, registry=own, buckets=buckets)

        build = gauge("build_info", "always 1; the labels say what runs", "version", "python")
        build.labels(whisperd.__version__, platform.python_version()).set(1)
        gauge("start_time_seconds", "when the daemon started, since 1970").set(started_at)
        self._jobs = gauge("jobs", "uploads by state: arriving, queued, running, ending", "state")
        self._ended = counter(
            "jobs_ended_total", "ended jobs by result: completed, skipped, or an error code", "result"
        )
        self._retries = counter("retries_total", "attempts that failed and are repeated, by error code", "code")
        self._audio = counter("audio_seconds_total", "length of the recordings transcribed")
        self._processing = counter("processing_seconds_total", "time that workers needed for them")
        self._dropped = counter("vad_dropped_seconds_total", "audio without speech, which is not given to the model")
        self._gaps = counter("gap_seconds_total", "speech without text that can be trusted, by reason", "why")
        for why in GAP_REASONS:
            self._gaps.labels(why)
        self._speed = histogram("speed_ratio", "audio seconds per second of work, per job", SPEEDS)
        self._settle_wait = histogram(
            "settle_wait_seconds", "from the first sight of an upload to its claim", WAIT_SECONDS
        )
        self._queue_wait = histogram(
            "queue_wait_seconds", "from the claim to the start of the first attempt", WAIT_SECONDS
        )
        self._loop_step = histogram(
            "loop_step_seconds", "how long each step of the supervisor's loop took, waiting excluded", STEP_SECONDS
        )
        self._restarts = counter("worker_restarts_total", "worker processes that ended unexpectedly")
        self._notices = counter(
            "notices_total", "notifications by kind (hook, webhook, mail, apprise) and result of an attempt: told, delayed, dropped",
            "kind", "result",
        )  # fmt: skip
        self._notices_waiting = gauge("notices_waiting", "notifications that are not delivered yet")
        self._paused = gauge("claims_paused", "1 while nothing is claimed because the disk is full")
        self._free = gauge("disk_free_bytes", "free space for the daemon in the filesystem of the spool")
        self._total = gauge("disk_size_bytes", "size of that filesystem")
        self._scanned = gauge("last_scan_time_seconds", "when the inbox was last scanned completely, since 1970")
        self._workers = gauge("workers", "worker processes by device", "device")
        self._failing = gauge("workers_failing", "workers that cannot be started or cannot load; they are tried again")
        self._up = gauge(
            "device_up", "1 while a device is in service, 0 while none of its workers can be used", "device"
        )
        self._device_speed = gauge(
            "device_speed_ratio", "audio seconds per second of work, over the last jobs of a device", "device"
        )
        self._reloads = counter("reloads_total", "configurations read on SIGHUP, by result: applied, refused", "result")
        self._resident = gauge("worker_memory_bytes", "main memory of the workers, by device", "device")
        self._device = gauge("device_memory_bytes", "memory in use on a GPU, by any process", "device")
        for state in ("arriving", "queued", "running", "ending"):
            self._jobs.labels(state)
        for result in ("completed", "skipped"):
            self._ended.labels(result)
        for result in ("applied", "refused"):
            self._reloads.labels(result)

    def update(self, vitals: events.Vitals) -> None:
        """Set all gauges to the current values."""
        for state in ("arriving", "queued", "running", "ending"):
            self._jobs.labels(state).set(getattr(vitals, state))
        self._failing.set(vitals.workers_failing)
        self._notices_waiting.set(vitals.notices)
        self._free.set(vitals.free_bytes)
        self._total.set(vitals.total_bytes)
        if vitals.scanned_at is not None:
            self._scanned.set(vitals.scanned_at)
        for each in (self._workers, self._resident, self._device, self._up, self._device_speed):
            each.clear()
        for device in vitals.devices:
            self._up.labels(device.name).set(0 if device.reason else 1)
            if device.speed is not None:
                self._device_speed.labels(device.name).set(device.speed)
        for worker in vitals.workers:
            self._workers.labels(worker.device).inc()
            self._resident.labels(worker.device).inc(worker.resident_bytes)
            if worker.device_bytes is not None:
                self._device.labels(worker.device).set(worker.device_bytes)

    def heard(self, event: events.Event) -> None:
        """Count an event."""
        match event:
            case events.LoopTurned(step_seconds):
                for seconds in step_seconds:
                    self._loop_step.observe(seconds)
            case events.JobClaimed(_, waited):
                self._settle_wait.observe(max(0.0, waited))
            case events.JobStarted(job, _) if job.attempts == 1 and job.started_at is not None:
                self._queue_wait.observe(max(0.0, _seconds_between(job.claimed_at, job.started_at)))
            case events.JobFinished(_, result):
                self._finished(result)
            case events.JobFailed(_, failure):
                self._ended.labels(self._code(failure.code)).inc()
            case events.JobRetried(_, failure):
                self._retries.labels(self._code(failure.code)).inc()
            case events.ClaimsPaused():
                self._paused.set(1)
            case events.ClaimsResumed():
                self._paused.set(0)
            case events.WorkerEnded(expected=False):
                self._restarts.inc()
            case events.ConfigApplied():
                self._reloads.labels("applied").inc()
            case events.ConfigRefused():
                self._reloads.labels("refused").inc()
            case events.NotificationDelivered(kind=kind):
                self._notices.labels(kind, "told").inc()
            case events.NotificationDelayed(kind=kind):
                self._notices.labels(kind, "delayed").inc()
            case events.NotificationDropped(kind=kind):
                self._notices.labels(kind, "dropped").inc()

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return prometheus_client.generate_latest(self.registry)

    def _finished(self, result: Result) -> None:
        if result.duplicate_of is not None:
            self._ended.labels("skipped").inc()
            return
        self._ended.labels("completed").inc()
        self._audio.inc(result.duration_seconds)
        self._processing.inc(result.processing_seconds)
        dropped = result.quality.get("dropped_seconds")
        if isinstance(dropped, int | float):  # a worker may say anything
            self._dropped.inc(max(0.0, dropped))
        for gap in result.quality.get("gaps", ()):
            self._gaps.labels(gap["why"]).inc(gap["to"] - gap["from"])
        if result.speed is not None:
            self._speed.observe(result.speed)

    def _code(self, code: str) -> str:
        """Return an error code as a label, or `other` if there are too many: a bad worker must not fill the database of Prometheus."""
        if code not in self._codes and len(self._codes) >= CODES_MAX:
            return "other"
        self._codes.add(code)
        return code


class _Labelled(Collector):
    """Collects the metrics of another registry and adds labels to them."""

    def __init__(self, registry: CollectorRegistry, labels: dict[str, str]) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self._labels}) for sample in metric.samples]
            yield metric


def _seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
