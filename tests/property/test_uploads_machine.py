"""The table of uploads under any sequence of writes, events, renames, deletions and looks, against a plain model of it.

What it may never do: hand out a file that changed within the quiet time. What it must do: hand out every other one.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from whisperd.core.job import Signature
from whisperd.intake.upload import Uploads

QUIET_SECONDS = 5.0
ROUNDING_SECONDS = 1e-9  # of sums of floats
NAMES = st.sampled_from(["a", "b", "alice/a", "alice/b"])


class UploadsMachine(RuleBasedStateMachine):
    """`files` is the truth: signature and the time of the last thing that the machine was told of each file."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self.uploads = Uploads(QUIET_SECONDS)
        self.files: dict[str, Signature] = {}
        self.quiet_since: dict[str, float] = {}
        self.known: set[str] = set()
        self.version = 0

    def signature(self):
        self.version += 1
        return Signature(1, self.version, self.version % 7, self.version, self.version, 8)

    @rule(name=NAMES)
    def write(self, name):
        """Somebody writes; nobody says so."""
        self.files[name] = self.signature()

    @rule(name=NAMES)
    def write_with_event(self, name):
        """Somebody writes, and the event comes with a look."""
        self.files[name] = self.signature()
        self.look(name)

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def look_at_any(self, data):
        """A scan meets the file."""
        self.look(data.draw(st.sampled_from(sorted(self.files))))

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def touch(self, data):
        """An event names a file whose stat shows no change, a write through mmap for one."""
        name = data.draw(st.sampled_from(sorted(self.files)))
        self.uploads.touch(name, self.now)
        if name in self.known:
            self.quiet_since[name] = self.now

    @precondition(lambda self: self.files)
    @rule(data=st.data(), target_name=NAMES)
    def rename(self, data, target_name):
        """A file moves within the inbox, perhaps over another one; the scan sees both ends."""
        name = data.draw(st.sampled_from(sorted(self.files)))
        if name == target_name:
            return
        self.files[target_name] = self.files.pop(name)
        self.forget(name)
        self.look(target_name)

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def delete(self, data):
        """A file goes."""
        name = data.draw(st.sampled_from(sorted(self.files)))
        del self.files[name]
        self.forget(name)

    @rule(seconds=st.floats(0.01, 12.0))
    def tick(self, seconds):
        """Time passes; what is due is looked at, and taken if it is as it was."""
        self.now += seconds
        for name in self.uploads.due(self.now, limit=100):
            known = self.uploads.get(name)
            assert known is not None
            assert self.now - self.quiet_since[name] >= QUIET_SECONDS - ROUNDING_SECONDS, (
                f"{name} was handed out too early"
            )
            if self.files[name] == known.signature:
                self.forget(name)
                del self.files[name]  # taken
            else:
                self.look(name)

    def look(self, name):
        known = self.uploads.get(name)
        changed = known is None or known.signature != self.files[name]
        self.uploads.observe(name, self.files[name], self.now)
        self.known.add(name)
        if changed:
            self.quiet_since[name] = self.now

    def forget(self, name):
        self.uploads.forget(name)
        self.known.discard(name)
        self.quiet_since.pop(name, None)

    @invariant()
    def no_quiet_file_is_forgotten(self):
        """Whoever waits until the next due time sees every quiet file, and waits for none of them too long."""
        due_at = self.uploads.next_due()
        if self.known:
            assert due_at is not None
            assert due_at <= min(self.quiet_since[name] for name in self.known) + QUIET_SECONDS + 1e-6

    @invariant()
    def it_knows_what_it_was_told_and_no_more(self):
        """Memory is bounded by what is in the inbox."""
        assert {upload.name for upload in self.uploads} == self.known


TestUploadsMachine = UploadsMachine.TestCase
TestUploadsMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
