"""Logs events: the one place where an event becomes a line in the journal."""

from __future__ import annotations

import logging

from whisperd.core import events
from whisperd.core.display import mebibytes, printable, readable_size
from whisperd.core.job import Failure, Job, Result

SILENT = (events.UploadExplained, events.ExplanationRemoved)  # one for each file that waits, every few seconds
STALL_SECONDS = 5.0  # a step of the loop that takes this long is named

_log = logging.getLogger("whisperd")


def log_event(event: events.Event) -> None:
    """Write an event as one line, at the level that fits: error only where a person must act."""
    if isinstance(event, SILENT):
        return
    if isinstance(event, events.LoopTurned) and max(event.step_seconds, default=0.0) < STALL_SECONDS:
        return  # several times a second
    level, action, text = _sentence(event)
    job = getattr(event, "job", None)
    job_id = job.id if isinstance(job, Job) else getattr(event, "job_id", None)
    _log.log(level, "%s", text, extra={"action": action, "job": job_id})


def _sentence(event: events.Event) -> tuple[int, str, str]:
    match event:
        case events.JobClaimed(job, waited):
            return (
                logging.INFO,
                "claim",
                f"{_name(job)}: claimed, {readable_size(job.signature.size)}, {waited:.1f} s after it was first seen",
            )
        case events.JobStarted(job, worker):
            return logging.INFO, "start", f"{_name(job)}: attempt {job.attempts} starts on worker {worker}"
        case events.JobFinished(job, result) if result.duplicate_of is not None:
            earlier = printable(result.duplicate_of)
            return logging.INFO, "skip", f"{_name(job)}: not transcribed again, its content is that of {earlier}"
        case events.JobFinished(job, result) if flaws := _flaws(job, result):
            return logging.WARNING, "finish", f"{_name(job)}: completed, but {'; '.join(flaws)}"
        case events.JobFinished(job, result):
            speed = f", x{result.speed:.1f}" if result.speed else ""
            length = f"{result.duration_seconds:.1f} s of audio in {result.processing_seconds:.1f} s{speed}"
            return logging.INFO, "finish", f"{_name(job)}: completed, {length}, language {result.language}"
        case events.JobFailed(job, failure) if failure.code == "cancelled":
            return (
                logging.INFO,
                "cancel",
                f"{_name(job)}: {failure.message}; the file is in failed/{printable(job.place)}",
            )
        case events.JobFailed(job, failure):
            return (
                logging.WARNING,
                "fail",
                f"{_name(job)}: failed, {_reason(failure)}; the file is in failed/{printable(job.place)}",
            )
        case events.JobRetried(job, failure, delay, counted):
            attempt = f"attempt {job.attempts} failed" if counted else "interrupted, no attempt is counted"
            return logging.WARNING, "retry", f"{_name(job)}: {attempt}, {_reason(failure)}; again in {delay:.0f} s"
        case events.JobReleased(job):
            return logging.INFO, "release", f"{_name(job)}: released, the next start of the daemon continues it"
        case events.JobRecovered(job):
            return logging.INFO, "recover", f"{_name(job)}: found unfinished, {job.attempts} attempt(s) so far"
        case events.UploadRefused(name, reason):
            return logging.WARNING, "refuse", f"{printable(name)}: not claimed, {reason}"
        case events.ReadableAgain(name):
            return logging.INFO, "readable", f"{printable(name)}: it can be read again, or was removed"
        case events.UploadStalled(name, reason, quiet):
            return (
                logging.WARNING,
                "stall",
                f"{printable(name)}: has not grown for {quiet / 60:.0f} min, {reason}",
            )
        case events.CorrectionMade(place, by, kept, _):
            return logging.INFO, "correct", f"{printable(place)}: rendered again for {printable(by)}{_kept(kept)}"
        case events.CorrectionDenied(ticket, reason):
            return logging.WARNING, "correct", f"{printable(ticket)}: this correction is not made, {reason}"
        case events.UploadGivenBack(_, name):
            return (
                logging.WARNING,
                "give_back",
                f"{printable(name)}: changed after it was claimed; it is not transcribed now, and settles again in the inbox",
            )
        case events.WatchRearmed(reason):
            return logging.WARNING, "rearm", f"the inbox is watched again: {reason}"
        case events.PollingStarted(reason):
            return logging.WARNING, "poll", f"the inbox is polled: {reason}"
        case events.ClaimsPaused(reason, hint):
            return logging.ERROR, "pause", f"claiming is paused: {reason}; {hint}"
        case events.ClaimsResumed():
            return logging.INFO, "resume", "claiming continues"
        case events.TransitionDelayed(job, message, delay):
            return (
                logging.ERROR,
                "delay",
                f"{_name(job)}: its end cannot be written, {message}; again in {delay:.0f} s, nothing is lost",
            )
        case events.JobGone(job):
            return (
                logging.ERROR,
                "gone",
                f"{_name(job)}: its files were removed from .work/{job.id}; upload it again",
            )
        case events.WorkerReady(worker, pid, model, device, load):
            return (
                logging.INFO,
                "worker_ready",
                f"worker {worker} (pid {pid}) is ready: {model} on {device}, loaded in {load:.1f} s",
            )
        case events.WorkerEnded(worker, pid, how, expected, restart):
            again = f"; a new one starts in {restart:.0f} s" if restart is not None else ""
            return (
                (logging.INFO if expected else logging.WARNING),
                "worker_end",
                f"worker {worker} (pid {pid}) {how}{again}",
            )
        case events.WorkerStopped(worker, pid, rung, reason):
            return logging.WARNING, "worker_stop", f"worker {worker} (pid {pid}): {reason}; {rung}"
        case events.NotificationDelivered(_, channel, _, name, seconds, said):
            output = f"; it printed: {said}" if said else ""
            return logging.INFO, "notice", f"{name}: notified {channel} in {seconds:.1f} s{output}"
        case events.NotificationDelayed(_, channel, _, name, reason, delay):
            return (
                logging.WARNING,
                "notice_delay",
                f"{name}: could not notify {channel}, {reason}; again in {delay:.0f} s",
            )
        case events.NotificationsUnreadable(path, reason):
            return logging.WARNING, "notices_unreadable", f"cannot read the notifications waiting in {path}: {reason}"
        case events.NotificationDropped(_, channel, _, name, reason):
            return logging.WARNING, "notice_drop", f"{name}: {channel} was not notified, {reason}"
        case events.FilesPruned(room, files, freed):
            return logging.INFO, "prune", f"{room}/: removed the {files} oldest files, {readable_size(freed)}"
        case events.JunkRemoved(count, example):
            others = f" and {count - 1} more of its kind" if count > 1 else ""
            return logging.INFO, "junk", f"inbox/: removed {example}{others}, which no person made (intake.remove_junk)"
        case events.WorkerWorn(worker, pid, held, most):
            message = (
                f"holds {mebibytes(held)} after a job, more than pool.max_memory, {mebibytes(most)}: it is replaced"
            )
            return logging.WARNING, "worker_worn", f"worker {worker} (pid {pid}) {message}"
        case events.ReloadTried(model, device):
            return (
                logging.INFO,
                "reload",
                f"a new configuration was read: it is applied once a worker has loaded {model} (device: {device}), or refused",
            )
        case events.ConfigApplied():
            return logging.INFO, "reload", "the new configuration is in use"
        case events.ConfigRefused(reason, hint):
            remedy = f" ({hint})" if hint else ""
            return logging.ERROR, "refuse", f"the new configuration is refused, the old one stays: {reason}{remedy}"
        case events.WorkerRetired(worker, pid, failure, jobs):
            message = f"is replaced, because its engine failed: {_reason(failure)}; jobs that go back: {jobs}"
            return logging.WARNING, "worker_retired", f"worker {worker} (pid {pid}) {message}"
        case events.LoopTurned(step_seconds):
            text = f"the daemon was blocked for {max(step_seconds):.0f} s: a disk or a mount did not answer, or the machine was overloaded"
            return logging.WARNING, "stall", f"{text}; see the journal of the kernel"
        case _:
            return _sentence_on_devices(event)


def _sentence_on_devices(event: events.Event) -> tuple[int, str, str]:
    match event:
        case events.WorkersFail(failure, delay, device, is_out):
            out = f"device {device} is out of service, " if is_out else f"device {device}: "
            again = f"it is tried again in {delay:.0f} s, later every 5 min; jobs wait, or go to other devices"
            return logging.ERROR, "workers_fail", f"{out}a worker cannot be used: {_reason(failure)}; {again}"
        case events.WorkersWork(device, all_work):
            everywhere = "; all workers can be used again" if all_work else ""
            return logging.INFO, "workers_work", f"device {device} is in service again{everywhere}"
        case _:
            raise TypeError(event)


def _kept(files: tuple[str, ...]) -> str:
    return f"; stays, because somebody had changed it: {', '.join(files)}" if files else ""


def _name(job: Job) -> str:
    return printable(job.name)


def _flaws(job: Job, result: Result) -> list[str]:
    """Name what an operator should know about a completed job."""
    unusable = result.voices.unusable if result.voices else ()
    samples = f"samples of known voices cannot be used: {'; '.join(unusable)}" if unusable else None
    return list(filter(None, (_missing(job, result), samples)))


def _missing(job: Job, result: Result) -> str | None:
    """Say how much of the speech has no text that can be trusted; None if it is not more than the configuration allows."""
    share = result.quality.get("gap_share")
    if job.spec is None or not isinstance(share, int | float) or share <= job.spec.quality.max_gap_share:
        return None
    return (
        f"{share:.0%} of its speech has no text that can be trusted (quality.gaps of the status file names it: listen to it "
        "there, and set the language or a larger model)"
    )


def _reason(failure: Failure) -> str:
    return f"{failure.message} ({failure.hint})" if failure.hint else failure.message
