"""The inbox as the supervisor sees it: which uploads are complete, in which order they are claimed, and why others wait.

Nothing here takes long: whatever grows with the number of files is done in slices of the loop's time.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.job import Signature
from whisperd.core.slices import Slice, drained
from whisperd.intake.cancel_requests import CancelRequests
from whisperd.intake.complete import LOOK_AGAIN_SECONDS, Changed, Refuse, Take, Verdict, Wait, judge
from whisperd.intake.explain import Explainer, Explanations
from whisperd.intake.ignore import Ignore
from whisperd.intake.scan import Found, Walker, is_gone, look, remove
from whisperd.intake.ticket import Tickets, is_folder_ticket, is_ticket, reason
from whisperd.intake.upload import Upload, Uploads, UploadState
from whisperd.intake.watch_health import WatchHealth
from whisperd.intake.writers import Leases, Sessions, ignore_lease_breaks
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.core.job import Ticket
    from whisperd.settings.sections import IntakeOptions

DUE_PER_TURN = 2000
STALLED_SECONDS = 600.0  # an upload that does not change for this long is logged


class Inbox:
    """Updates the record of each upload by events and scans, judges quiet ones, and explains why the others wait.

    Args:
        path: the directory.
        options: when an upload counts as complete.
        explainer: where it is explained why a file waits.
        emitter: hears of files that cannot be taken or that stall, and of changes to the watch.
        tickets: whether they are followed.

    Attributes:
        cancel_requests: the files that ask for the end of a job.
        tickets: the files of options beside the uploads.
    """

    def __init__(
        self,
        path: Path,
        options: IntakeOptions,
        explainer: Explainer,
        emitter: events.Emitter,
        *,
        tickets: bool = True,
    ) -> None:
        self._path = path
        self._options = options
        self._emit = emitter.emit
        self._uploads = Uploads(options.first_look_seconds)
        self._explanations = Explanations(explainer, self._describe)
        self._watch = WatchHealth(path, emitter)
        self._walker = Walker(path, Ignore(options.ignored), self._watch.enter)
        self.cancel_requests = CancelRequests(path)
        self.tickets = Tickets(path, enabled=tickets)
        self._leases = Leases()
        self._sessions = Sessions()
        self._hints: OrderedDict[str, None] = OrderedDict()  # names that events told of
        self._doubtful: OrderedDict[str, None] = OrderedDict()  # not met by the last scan, or under new options
        self._held = ""  # why no complete upload is taken for now

    def configure(self, options: IntakeOptions, *, tickets: bool = True) -> None:
        """Use these options from now on; how long each file has been quiet stays known."""
        self.tickets.enabled = tickets
        if options == self._options:
            return  # a reload every few seconds must not keep a scan from its end
        self._options = options
        self._uploads.quiet_seconds = options.first_look_seconds
        self._doubtful.update((upload.name, None) for upload in self._uploads)
        self._walker.restart(Ignore(options.ignored))

    def start(self) -> None:
        """Start to watch the inbox, then to scan it, so that a file that arrives in between is not missed.

        Raises:
            OSError: the inbox cannot be read.
        """
        ignore_lease_breaks()
        self._watch.open()
        self._explanations.sweep()

    def stop(self) -> None:
        """Stop watching."""
        self._watch.close()

    def waitables(self) -> list[Any]:
        """Return the descriptors that become readable when something happens in the inbox."""
        return self._watch.waitables()

    @property
    def scanned_at(self) -> float | None:
        """The time at which the last scan ended, on the monotonic clock."""
        return self._walker.scanned_at

    def __len__(self) -> int:
        """Return how many files wait, complete or not."""
        return len(self._uploads)

    def is_empty(self) -> bool:
        """Whether the inbox has nothing that could be claimed, even after waiting."""
        return self._walker.is_scanned and not self._is_behind and not self._uploads.has_hope

    def tick(self, now: float) -> None:
        """Process what happened since the last call."""
        self._look_around(now)
        self._walk(now)
        for name in drained(self._hints):
            self._uploads.touch(name, now)
            self.tickets.touch(name, now)
            self._look_again(name, now)
        if not self._hints:
            for name in drained(self._doubtful):
                self._uploads.reconsider(name)
                self._look_again(name, now)
        self._uploads.due(now, DUE_PER_TURN)
        self._explanations.tick(now)

    def next_at(self, now: float) -> float:
        """Return the time when `tick` has something to do again, unless an event comes before."""
        if self._is_behind:
            return now
        due = self._uploads.next_due()
        return min(
            self._walker.due_at if due is None else due,
            self._walker.due_at,
            self._explanations.next_at(),
            self._watch.next_at(now),
            self.cancel_requests.next_at(),
        )

    def take(self, now: float, share: Slice | None = None) -> Upload | None:
        """Return the next upload to claim: folders take turns, and within one the first upload is the first.

        None also where the slice was over before one was found: `has_more`. What becomes of it is told by `claimed`,
        `put_back`, `see_again` or `refuse`.
        """
        self._held = ""
        share = share or Slice()
        while (upload := self._uploads.next_ready()) is not None:
            if self._is_complete(upload, now):
                return upload
            if share.is_used_up():
                break
        return None

    def has_more(self) -> bool:
        """Whether `take` stopped because its slice of time was over, not for lack of uploads."""
        return self._uploads.has_ready

    def hold(self, reason: str) -> None:
        """Set the reason why complete uploads are not claimed for now, which their status files then show."""
        self._held = reason

    def put_back(self, upload: Upload) -> None:
        """Put back an upload that could not be claimed for lack of disk space, as the next one."""
        self._uploads.put_first(upload)

    def see_again(self, name: str, now: float) -> None:
        """Let a file settle again whose claim was lost, or that came back."""
        self._uploads.touch(name, now)
        self._hints[name] = None

    def refuse(self, name: str, reason: str, now: float, *, is_unread: bool = False) -> None:
        """Record that a file cannot be claimed; each scan tries it again."""
        known = self._uploads.get(name)
        is_news = known is None or known.refusal != reason
        upload = self._uploads.refuse(name, reason, now, until=now + self._options.rescan_seconds)
        upload.is_unread |= is_unread
        upload.scan = self._walker.scan_number
        if is_news and not is_ticket(name):  # a ticket is where it should be
            self._emit(events.UploadRefused(name, reason, is_unread=upload.is_unread))
        self._explanations.watch(upload, now)

    def claimed(self, name: str) -> None:
        """Forget an upload that was claimed, and everything about its name."""
        self._forget(name)
        if self._options.done_marker:  # it must not vouch for the next upload of this name
            with contextlib.suppress(OSError):
                remove(self._path, name + self._options.done_marker)

    def corrections(self, now: float) -> Iterator[Ticket | None]:
        """Yield the tickets that correct completed jobs; None for other steps. What is wrong with one is told by `judge`."""
        return self.tickets.corrections(now, self._watch.slowed(self._options), self._leases)

    def judge(self, ticket: str, verdict: str, *, again_at: float | None = None, is_early: bool = False) -> None:
        """Record what is wrong with a ticket, and explain it in its status file."""
        self.tickets.judge(ticket, verdict, again_at=again_at, is_early=is_early)
        self._hints[ticket] = None

    def seize(self, name: str, now: float) -> Upload | str | None:
        """Return an upload that is to be cancelled, complete or not, or the reason why it cannot be moved yet; None if there is none."""
        known = self._uploads.get(name)
        needed = self._watch.slowed(self._options).settle_seconds
        is_quiet = known is not None and now - known.quiet_since >= needed
        reached = self.cancel_requests.reach(name, self._leases, is_quiet=is_quiet)
        if not isinstance(reached, Signature):
            return reached
        if known is not None:
            self._uploads.step_out(known)
        return Upload(name, reached, now if known is None else known.first_seen, now)

    @property
    def _is_behind(self) -> bool:
        """Whether `tick` has more to do at once."""
        return self._walker.is_busy or bool(self._hints or self._doubtful)

    def _look_around(self, now: float) -> None:
        """Process the events of the watch, and check that it works."""
        hints = self._watch.drain(now)
        if hints.lost or hints.broken or hints.folder_gone:
            self._walker.due_at = now
        if hints.broken:
            self._leases.forget()
            self._walker.abandon()
        self._hints.update(dict.fromkeys(sorted(hints.files)))
        for name in sorted(hints.folders):
            self._walker.add(name)

    def _walk(self, now: float) -> None:
        """Continue the scan for a slice of time; at its end, find the files that are gone."""
        for found in self._walker.arrived():
            self._see(found, now)
        if not self._walker.is_scanning:
            if now < self._walker.due_at:
                return
            self._watch.scan_begins()
            self._walker.begin()
        try:
            for found in self._walker.scanned():
                is_known = found.name in self._uploads or found.name in self._hints
                upload = self._see(found, now)
                is_new = self._walker.is_scanned and not is_known  # the first scan meets everything for the first time
                if is_new and upload is not None and not self._walker.has_arrivals:
                    self._watch.met(found.name, now)
        except OSError as error:
            self._watch.report(f"cannot read the inbox {self._path}: {error.strerror}")
        else:
            if self._walker.is_scanning:
                return
            self._reconcile(now)
        options = self._options
        pause = options.poll_seconds if self._watch.is_polling else options.rescan_seconds
        # what was lost meanwhile may have made it due already
        self._walker.due_at = min(self._walker.due_at, now + pause)

    def _reconcile(self, now: float) -> None:
        """Look again at files that a whole scan did not meet, since readdir(3) may miss files that are renamed meanwhile."""
        self._watch.report("")
        self._walker.is_scanned = True
        self._walker.scanned_at = now
        self._watch.prove(now)
        for upload in self._uploads:
            if upload.scan != self._walker.scan_number:
                self._doubtful[upload.name] = None
        for name in self.tickets:
            if name not in self._uploads:
                self._doubtful[name] = None

    def _see(self, seen: Found, now: float) -> Upload | None:
        """Record an entry of the inbox; returns its record if it is an upload."""
        if (found := self.cancel_requests.sift(seen, now)) is None:
            return None
        name, upload = found.name, self._uploads.get(found.name)
        is_file = upload is not None and upload.signature is not None
        if found.is_unread and upload is not None and is_file:
            upload.scan = self._walker.scan_number  # it is still there, and its clocks must not start again
            return None
        if is_ticket(name) and not found.is_unread:
            self.tickets.observe(name, found.signature, now)
            if is_folder_ticket(name):
                return None
        if found.signature is None or is_ticket(name):
            if is_file:
                self._forget(name)
            if self._uploads.has_room(name, is_file=False):
                verdict = self.tickets.verdict(name) if self.tickets.enabled else ""
                why = found.refusal or verdict or reason(self._path, name, enabled=self.tickets.enabled)
                self.refuse(name, why, now, is_unread=found.is_unread)
            return None
        if not self._uploads.has_room(name):
            return None
        if upload is not None and not is_file:
            self._forget(name)
        upload = self._uploads.observe(name, found.signature, now)
        upload.scan = self._walker.scan_number
        self._explanations.watch(upload, now)
        return upload

    def _look_again(self, name: str, now: float) -> None:
        try:
            found = look(self._path, name, self._walker.ignore)
        except OSError:
            return  # its folder fails: nothing is known of it, and its clocks must not start again
        if found is not None:
            self._see(found, now)
        else:
            self._forget(name)

    def _is_complete(self, upload: Upload, now: float) -> bool:
        """Judge an upload that has been quiet, and act on the verdict."""
        if self._doubtful and any(map(self._walker.ignore, upload.name.split("/"))):
            self._forget(upload.name)  # since a reload
            return False
        match self._verdict(upload, now):
            case Take(failure):
                upload.failure = failure
                return True
            case Wait(reason, seconds, held_back):
                self._uploads.postpone(upload.name, now + seconds, reason, is_held=held_back)
                self._tell_of_stall(upload, now - upload.quiet_since)
            case Refuse(reason):
                self.refuse(upload.name, reason, now)
            case Changed():
                self._look_again(upload.name, now)
                self._uploads.touch(upload.name, now)
        return False

    def _verdict(self, upload: Upload, now: float) -> Verdict:
        """Judge whether an upload is complete."""
        assert upload.signature is not None
        folders, file = names.split(upload.name)
        options = self._watch.slowed(self._options)
        try:
            with Folder(self._path, folders) as folder:
                verdict = judge(
                    folder,
                    file,
                    upload.signature,
                    quiet_seconds=now - upload.quiet_since,
                    options=options,
                    leases=self._leases,
                    sessions=self._sessions,
                )
            if isinstance(verdict, Take) and (why := self.tickets.unsettled(upload.name, now, options, self._leases)):
                return Wait(why, LOOK_AGAIN_SECONDS[0])
        except OSError as error:
            return Changed() if is_gone(error) else Wait(f"cannot be read: {error.strerror}", LOOK_AGAIN_SECONDS[-1])
        return verdict

    def _tell_of_stall(self, upload: Upload, quiet_seconds: float) -> None:
        if quiet_seconds >= STALLED_SECONDS and not upload.is_stall_told:
            upload.is_stall_told = True
            self._emit(events.UploadStalled(upload.name, upload.reason, quiet_seconds))

    def _describe(self, upload: Upload, now: float) -> tuple[int | None, str]:
        """Return the size of a waiting upload and the reason; a ready one is examined for this and stays ready."""
        if upload.signature is None:
            return None, upload.refusal
        why = upload.refusal or upload.reason
        if upload.state is UploadState.READY and not upload.refusal:
            match self._verdict(upload, now):
                case Take():
                    why = self._held or "it is taken next"
                case Wait(reason) | Refuse(reason):
                    why = reason
        return upload.signature.size, why or f"changed {now - upload.quiet_since:.0f} s ago"

    def _forget(self, name: str) -> None:
        upload = self._uploads.forget(name)
        self.cancel_requests.forget(name)
        self.tickets.forget(name)
        if upload is not None:
            self._explanations.over(upload)
            if upload.is_unread:
                self._emit(events.ReadableAgain(name))
