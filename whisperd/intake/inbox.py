"""The inbox as the supervisor sees it: what is complete, in which order it is taken, and why the rest is not.

Nothing here takes long: whatever grows with the number of files is done in slices of the loop's time.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.fair import FairQueue, top_folder
from whisperd.core.job import Signature
from whisperd.core.slices import Slice, advance, drained
from whisperd.intake.complete import LOOK_AGAIN_SECONDS, Changed, Refuse, Take, Verdict, Wait, judge
from whisperd.intake.ignore import Ignore
from whisperd.intake.lease import Leases, ignore_lease_breaks
from whisperd.intake.requests import Requests
from whisperd.intake.scan import Found, is_gone, look, remove
from whisperd.intake.sessions import Sessions
from whisperd.intake.settle import NEVER, TRACKED_MAX, Settle, Settling
from whisperd.intake.sight import Sight
from whisperd.intake.ticket import Tickets, is_folder_ticket, is_ticket, reason
from whisperd.intake.upload import Upload
from whisperd.intake.waiting import Notes, Waiting
from whisperd.intake.walk import Walker
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.options import IntakeOptions

DUE_PER_TURN = 2000
STALLED_SECONDS = 600.0  # an upload that stands still for so long is named in the log


class Inbox:
    """Feeds events and scans into the settle machine, judges what has settled, and explains what waits.

    Args:
        path: the directory.
        options: when an upload counts as complete.
        notes: where it is explained why a file waits.
        emitter: hears of files that cannot be taken or that stall, and of changes to the watch.
    """

    def __init__(self, path: Path, options: IntakeOptions, notes: Notes, emitter: events.Emitter) -> None:
        self._path = path
        self._emit = emitter.emit
        self._leases = Leases()
        self._sessions = Sessions()
        self._waiting = Waiting(notes, self._describe)
        self._sight = Sight(path, emitter)
        self._refused: dict[str, str] = {}
        self.requests = Requests(path)
        self.tickets = Tickets(path)
        self._unread: set[str] = set()  # mostly folders: what could not be read
        self._met: set[str] = set()  # of what cannot be taken, by the scan under way
        self._held = ""
        self._options, self._ignore = options, Ignore(options.ignored)
        self._settle = Settle(options.first_look_seconds)
        self._quiet: FairQueue[str] = FairQueue()  # they have been quiet for long enough to be looked at
        self._hints: OrderedDict[str, None] = OrderedDict()
        self._unmet: OrderedDict[str, None] = OrderedDict()  # known, and not found by the last scan
        self._reconsidering: Iterator[None] | None = None  # what is known, under new options
        self._walker = Walker(path, self._ignore, self._sight.enter)
        self._is_scanned = False
        self._rescan_at = 0.0
        self._notes_at = 0.0
        self.scanned_at: float | None = None  # monotonic: when a scan came to its end
        self._generation = 0

    def configure(self, options: IntakeOptions) -> None:
        """Use these options from now on; how long each file has been quiet stays known."""
        if options == self._options:
            return  # a reload every few seconds must not keep a scan from its end
        self._options, self._ignore = options, Ignore(options.ignored)
        self._settle.quiet_seconds = options.first_look_seconds
        self._reconsidering = self._reconsider()
        self._walker = Walker(self._path, self._ignore, self._sight.enter)
        self._is_scanned = False
        self._rescan_at = 0.0

    def start(self) -> None:
        """Watch first, then scan: a file that arrives between the two is seen by one of them.

        Raises:
            OSError: the inbox cannot be read.
        """
        ignore_lease_breaks()
        self._sight.open()
        self._waiting.sweep()

    def stop(self) -> None:
        """Stop watching."""
        self._sight.close()

    def waitables(self) -> list[Any]:
        """What becomes readable when something happens in the inbox."""
        return self._sight.waitables()

    def __len__(self) -> int:
        """How many files are waiting here, complete or not."""
        return len(self._settle)

    def is_empty(self) -> bool:
        """Whether nothing that a scan found could be claimed, however long one waited."""
        if not self._is_scanned or self._is_behind:
            return False
        return all(known.held_back or name in self._refused for name, known in self._settle.items())

    def tick(self, now: float) -> None:
        """Take in what happened since the last call."""
        self._look_around(now)
        self._walk(now)
        for name in drained(self._hints):
            self._settle.touch(name, now)
            self.tickets.touch(name, now)
            self._look_again(name, now)
        if not self._hints:
            for name in drained(self._unmet):
                self._look_again(name, now)
        if self._reconsidering is not None and not advance(self._reconsidering):
            self._reconsidering = None
        for name in self._settle.due(now, DUE_PER_TURN):
            self._quiet.push(name, top_folder(name), name)
        self._notes_at = self._waiting.tick(now)

    def next_at(self, now: float) -> float:
        """When `tick` has something to do again, if no event comes before."""
        if self._is_behind:
            return now
        due = self._settle.next_due()
        due = due if due is not None else self._rescan_at
        return min(self._rescan_at, self._notes_at, self._sight.next_at(now), self.requests.next_at(), due)

    def take(self, now: float, share: Slice | None = None) -> Upload | None:
        """The next upload to claim: folders in turn, first come first served within one.

        None also where the slice was over before one was found: `has_more`.
        """
        self._held = ""
        share = share or Slice()
        while (name := self._quiet.pop()) is not None:
            upload = self._examine(name, now)
            if upload is not None:
                return upload
            if share.is_used_up():
                break
        return None

    def has_more(self) -> bool:
        """Whether `take` stopped for this turn, not for lack of files."""
        return len(self._quiet) > 0

    def hold(self, reason: str) -> None:
        """Complete files are not taken for now: say so of each."""
        self._held = reason

    def put_back(self, upload: Upload, now: float) -> None:
        """Keep an upload that could not be claimed for lack of room: it is the next again."""
        self._track(upload.name, upload.signature, now).first_seen = upload.first_seen
        self._quiet.push_front(upload.name, top_folder(upload.name), upload.name)

    def see_again(self, name: str, now: float) -> None:
        """Let a file whose claim was lost, or that came back, settle once more."""
        self._settle.touch(name, now)
        self._hints[name] = None

    def refuse(self, name: str, reason: str, now: float) -> None:
        """Remember that a file cannot be taken, until it is, or is gone; each scan lets it be tried again."""
        if self._refused.get(name) != reason:
            self._refused[name] = reason
            if not is_ticket(name):  # that is where it should be
                self._emit(events.UploadRefused(name, reason, is_unread=name in self._unread))
        self._waiting.watch(name, now)
        self._settle.postpone(name, now + self._options.rescan_seconds, reason)

    def claimed(self, name: str) -> None:
        """The file is no longer in the inbox, and nothing is held against its name."""
        self._forget(name)
        if self._options.done_marker:  # it must not vouch for the next upload of this name
            with contextlib.suppress(OSError):
                remove(self._path, name + self._options.done_marker)

    def seize(self, name: str, now: float) -> Upload | str | None:
        """An upload that is to be cancelled, complete or not; or why it cannot be had yet; None where there is none."""
        known = self._settle.get(name)
        needed = self._sight.slowed(self._options).settle_seconds
        is_quiet = known is not None and now - known.quiet_since >= needed
        reached = self.requests.reach(name, self._leases, is_quiet=is_quiet)
        if not isinstance(reached, Signature):
            return reached
        self._settle.forget(name)
        self._quiet.remove(name)
        return Upload(name, reached, known.first_seen if known is not None else now)

    @property
    def _is_behind(self) -> bool:
        """Whether `tick` has more to do at once."""
        return self._walker.is_busy or bool(self._hints or self._unmet) or self._reconsidering is not None

    def _reconsider(self) -> Iterator[None]:
        """Apply new options to what is known, one by one: forget what is ignored now, look early at the rest."""
        for name in [name for name, _ in self._settle.items()]:
            if any(map(self._ignore, name.split("/"))):
                self._forget(name)
            else:
                self._settle.reconsider(name)
            yield

    def _look_around(self, now: float) -> None:
        """Take what the watch tells, and see to it that it tells."""
        hints = self._sight.drain(now)
        if hints.lost or hints.broken or hints.folder_gone:
            self._rescan_at = now
        if hints.broken:
            self._leases.forget()
            self._walker.abandon()
        self._hints.update(dict.fromkeys(sorted(hints.files)))
        for name in sorted(hints.folders):
            self._walker.add(name)

    def _walk(self, now: float) -> None:
        """Walk a little further; a whole scan that ends says which files are gone."""
        for found in self._walker.arrived():
            self._see(found, now)
        if not self._walker.is_scanning:
            if now < self._rescan_at:
                return
            self._rescan_at = NEVER
            self._generation += 1
            self._met.clear()
            self._sight.scan_begins()
            self._walker.begin()
        try:
            for found in self._walker.scanned():
                is_known = found.name in self._settle or found.name in self._refused or found.name in self._hints
                self._see(found, now)
                is_new = self._is_scanned and not is_known  # the first scan meets everything for the first time
                if is_new and found.name in self._settle and not self._walker.has_arrivals:
                    self._sight.met(found.name, now)
        except OSError as error:
            self._sight.report(f"cannot read the inbox {self._path}: {error.strerror}")
        else:
            if self._walker.is_scanning:
                return
            self._reconcile(now)
        options = self._options
        pause = options.poll_seconds if self._sight.is_polling else options.rescan_seconds
        self._rescan_at = min(self._rescan_at, now + pause)  # what was lost meanwhile may have made it due already

    def _reconcile(self, now: float) -> None:
        """A whole scan has ended: what it did not meet is gone."""
        self._sight.report("")
        self._is_scanned = True
        self.scanned_at = now
        self._sight.prove(now)
        for name, known in self._settle.items():
            if known.generation != self._generation:
                self._unmet[name] = None  # readdir(3) may miss what is renamed meanwhile
        for name in (*self._refused, *self.tickets):
            if name not in self._settle and name not in self._met:
                self._unmet[name] = None

    def _see(self, seen: Found, now: float) -> None:
        if (found := self.requests.sift(seen, now)) is None:
            return
        name = found.name
        if found.is_unread and (known := self._settle.get(name)) is not None:
            known.generation = self._generation  # it is still there, and its clocks must not start again
            return
        if is_ticket(name) and not found.is_unread:
            self.tickets.observe(name, found.signature, now)
            self._met.add(name)
            if is_folder_ticket(name):
                return
        if found.signature is None or is_ticket(name):
            if name in self._settle:
                self._forget(name)
            if name not in self._refused and len(self._refused) >= TRACKED_MAX:
                return
            self._met.add(name)
            if found.is_unread:
                self._unread.add(name)
            self.refuse(name, found.refusal or reason(self._path, name, enabled=self._options.tickets), now)
            return
        if self._settle.has_room(name):
            self._track(name, found.signature, now).generation = self._generation

    def _track(self, name: str, signature: Signature, now: float) -> Settling:
        if name not in self._settle:
            self._waiting.watch(name, now)
        return self._settle.observe(name, signature, now)

    def _look_again(self, name: str, now: float) -> None:
        try:
            found = look(self._path, name, self._ignore)
        except OSError:
            return  # its folder fails: nothing is known of it, and its clocks must not start again
        if found is not None:
            self._see(found, now)
        else:
            self._forget(name)

    def _examine(self, name: str, now: float) -> Upload | None:
        """Judge one file that has been quiet; if it is complete, it is out of the settle machine."""
        known = self._settle.get(name)
        if known is None:
            return None
        if self._reconsidering is not None and any(map(self._ignore, name.split("/"))):
            self._forget(name)
            return None
        verdict = self._judged(name, known, now)
        if isinstance(verdict, Take):
            self._settle.forget(name)
            return Upload(name, known.signature, known.first_seen, verdict.failure)
        return None

    def _judged(self, name: str, known: Settling, now: float) -> Verdict:
        folders, file = names.split(name)
        quiet = now - known.quiet_since
        try:
            with Folder(self._path, folders) as folder:
                options = self._sight.slowed(self._options)
                verdict = judge(
                    folder,
                    file,
                    known.signature,
                    quiet_seconds=quiet,
                    options=options,
                    leases=self._leases,
                    sessions=self._sessions,
                )
            if isinstance(verdict, Take) and (why := self.tickets.unsettled(name, now, options, self._leases)):
                verdict = Wait(why, LOOK_AGAIN_SECONDS[0])
        except OSError as error:
            verdict = Changed() if is_gone(error) else Wait(f"cannot be read: {error.strerror}", LOOK_AGAIN_SECONDS[-1])
        match verdict:
            case Wait(reason, seconds, held_back):
                self._refused.pop(name, None)
                self._settle.postpone(name, now + seconds, reason)
                known.held_back = held_back
                self._tell_of_stall(name, known, quiet)
            case Refuse(reason):
                self.refuse(name, reason, now)
            case Changed():
                self._look_again(name, now)
                self._settle.touch(name, now)
            case _:
                pass
        return verdict

    def _tell_of_stall(self, name: str, known: Settling, quiet_seconds: float) -> None:
        if quiet_seconds >= STALLED_SECONDS and not known.stall_told:
            known.stall_told = True
            self._emit(events.UploadStalled(name, known.reason, quiet_seconds))

    def _describe(self, name: str, now: float) -> tuple[int | None, str] | None:
        """The size of a file that waits, and why it does."""
        known = self._settle.get(name)
        if known is None:
            return (None, self._refused[name]) if name in self._refused else None
        if name in self._refused:
            return known.signature.size, self._refused[name]
        if name in self._quiet:
            if isinstance(self._judged(name, known, now), Take):
                return known.signature.size, self._held or "it is taken next"
            self._quiet.remove(name)
            known = self._settle.get(name)
            if known is None:
                return None
        quiet = f"changed {now - known.quiet_since:.0f} s ago"
        return known.signature.size, self._refused.get(name) or known.reason or quiet

    def _forget(self, name: str) -> None:
        self._settle.forget(name)
        self._quiet.remove(name)
        self._refused.pop(name, None)
        self.requests.forget(name)
        self.tickets.forget(name)
        self._waiting.over(name)
        if name in self._unread:
            self._unread.remove(name)
            self._emit(events.ReadableAgain(name))
