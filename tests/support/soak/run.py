"""The run itself: one loop that uploads, breaks things, measures, and checks whenever all is quiet."""

from __future__ import annotations

import collections
import contextlib
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.daemon import Daemon
from support.soak import faults
from support.soak.book import Book
from support.soak.disk import small_disk
from support.soak.gauges import Gauges
from support.soak.mix import Mix, Noise, Speech
from support.soak.ways import WAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.soak.disk import Disk
    from support.soak.mix import Upload

TICK_SECONDS = 0.02
COUNT_SECONDS = 0.2
LOOK_SECONDS = 1.0
STUCK_SECONDS = 300.0  # in which not a single job came to its end
BACKLOG = 60  # uploads that have not ended, at any time: several times what the queue takes
ROUND_JOBS = 1000  # then all must come to rest and is checked; it also keeps the disk from filling up by itself
QUEUE = 20
LINES_AFTER = 30  # of the journal, shown of what nobody foresaw

SETTINGS: dict[str, dict[str, Any]] = {
    "scripted": {
        "engine": "scripted",
        # A good recording must never fail for faults alone: attempts are many, what hangs is noticed soon.
        "pool": {"workers": 2, "queue_size": QUEUE, "max_attempts": 100, "heartbeat_seconds": 5.0},
    },
    "openai-whisper": {
        "engine": "openai-whisper",
        "model": "tiny.en",
        "decoding": "batched",
        "batch_size": 8,
        # One thread: on a busy machine two would wait for each other.
        "pool": {"threads": 1, "queue_size": QUEUE, "max_attempts": 100},
    },
}
# What the journal may show as an error while such faults are made; the lines of a traceback follow the line that says why.
FORESEEN = re.compile(
    r"claiming is paused|its end cannot be written|is refused, the old one stays|: .*, says the script"
    r"|the engine failed, and this worker ends|^<3>(  |Traceback)"
)


@dataclass(frozen=True)
class Plan:
    """What a run shall do.

    Attributes:
        jobs: how many uploads; or
        seconds: for how long to upload.
        engine: `scripted` or `openai-whisper`.
        seed: of everything that is chosen.
        jobs_per_fault: how often something breaks.
        only: the kinds of faults to make; empty: all.
        each: go on, for five times as many jobs at most, until each kind of fault has struck: how many fit beside so
            many jobs depends on the machine.
    """

    seed: int
    jobs: int | None = None
    seconds: float | None = None
    engine: str = "scripted"
    jobs_per_fault: int = 20
    only: frozenset[str] = frozenset()
    each: bool = False

    def goes_on(self, uploaded: int, seconds: float) -> bool:
        """Whether there is more to upload."""
        return uploaded < self.jobs if self.jobs is not None else seconds < (self.seconds or 0.0)


class Soak:
    """One run; `finish` returns with everything checked.

    Args:
        plan: what to do.
        daemon: running.
        disk: it is on.
        scratch: the directory of its temporary files.
        script: of the scripted engine.
        say: hears how it goes.
    """

    def __init__(
        self, plan: Plan, daemon: Daemon, disk: Disk, *, scratch: Path, script: Path | None, say: Callable[[str], None]
    ) -> None:
        rng = random.Random(plan.seed)
        voice = Noise() if plan.engine == "scripted" else Speech()
        self.plan = plan
        self.daemon = daemon
        self.ground = faults.Ground(daemon, disk, script, rng)
        self.book = Book(daemon.root, voice)
        self.gauges = Gauges(daemon.root, scratch)
        self._kinds = faults.kinds(self.ground)
        self.injected = dict.fromkeys((name for name in self._kinds if name in (plan.only or self._kinds)), 0)
        self.ways: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.seconds = 0.0
        self._rng = rng
        self._mix = Mix(rng, voice)
        self._staging = disk.path / "staging"
        self._staging.mkdir()
        self._say = say
        self._uploading: list[tuple[Upload, Iterator[None]]] = []
        self._possible: list[str] = []
        self._bag: list[str] = []
        self._faults: dict[str, faults.Fault] = {}
        self._fault_at = plan.jobs_per_fault
        self._begun = 0
        self._ended = 0
        self._ended_at = self._counted_at = self._looked_at = self._started = time.monotonic()

    def finish(self) -> None:
        """Run to the end, or to the first round that shows a problem."""
        while not self.problems and self._goes_on():
            self._round()
        self.seconds = time.monotonic() - self._started

    def _goes_on(self) -> bool:
        if self.plan.goes_on(self._begun, time.monotonic() - self._started):
            return True
        return self.plan.each and 0 in self.injected.values() and self._begun < 5 * (self.plan.jobs or 0)

    def _round(self) -> None:
        # In every other round processes live long enough to be measured.
        is_calm = self._begun // ROUND_JOBS % 2 == 1
        self._possible = [name for name in self.injected if not (is_calm and name in faults.DEADLY)]
        self._bag.clear()
        until = self._begun + ROUND_JOBS
        try:
            while True:
                is_open = self._begun < until and self._goes_on()
                is_over = not is_open and not self._uploading and not self._faults and self._ended == self._begun
                if is_over and self.book.is_settled():
                    break
                self._tick(is_open=is_open)
        except AssertionError as error:
            self.problems += [f"{error}", *(f"journal: {line}" for line in self.daemon.lines[-20:])]
            return
        self.book.close_round()
        self.problems += self.book.problems
        self.problems += _unforeseen(self.daemon.lines)
        del self.daemon.lines[:]
        self._say(f"{self._ended} jobs, {sum(self.injected.values())} faults, {len(self.problems)} problems")

    def _tick(self, *, is_open: bool) -> None:
        now = time.monotonic()
        self._upload(is_open=is_open)
        self._break()
        if self.ground.is_dead() and not self.ground.is_stopping:
            raise AssertionError(f"the daemon ended by itself with status {self.daemon.wait_exit()}")
        if now - self._counted_at >= COUNT_SECONDS:
            self._counted_at = now
            ended = self.book.ended()
            if ended != self._ended:
                self._ended, self._ended_at = ended, now
        assert now - self._ended_at < STUCK_SECONDS, f"no job came to its end for {STUCK_SECONDS:.0f} s"
        if now - self._looked_at >= LOOK_SECONDS and not self.ground.is_stopping:
            self._looked_at = now
            self.gauges.look(self.daemon.process.pid, self.ground.workers(), self._ended)
        time.sleep(TICK_SECONDS)

    def _upload(self, *, is_open: bool) -> None:
        if is_open and self._begun - self._ended < BACKLOG:
            upload = self._mix.next()
            # A `.part` beside a file of its name holds that up, and waits for it: nobody can win.
            way = self._rng.choice([name for name in WAYS if (name, upload.kind) != ("part", "same name")])
            self._begun += 1
            self.ways[way] += 1
            steps = WAYS[way](self.daemon.inbox / upload.name, upload.data, self._staging / f"{self._begun}")
            self._uploading.append((upload, steps))
        for upload, steps in tuple(self._uploading):
            try:
                next(steps)
            except StopIteration:
                self.book.note(upload, time.time())
                self._uploading.remove((upload, steps))

    def _break(self) -> None:
        """One fault after the other; a full disk stands beside the rest, which must work on that too."""
        if self._possible and self._ended >= self._fault_at and not self._faults.keys() - {"disk full"}:
            self._bag = self._bag or self._rng.sample(self._possible, len(self._possible))
            name = self._bag.pop()
            if name not in self._faults:
                self._fault_at = self._ended + self.plan.jobs_per_fault
                self._faults[name] = self._kinds[name](self.ground)
        for name, fault in tuple(self._faults.items()):
            try:
                next(fault)
            except StopIteration as end:
                del self._faults[name]
                if end.value:
                    self.injected[name] += 1
                else:
                    self._bag.insert(0, name)  # it found nothing to strike: later again


@contextlib.contextmanager
def ground_for(plan: Plan, place: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[Soak]:
    """A daemon over a small disk in a directory, ready, and a run that has not begun."""
    scratch, script = place / "tmp", place / "script"
    scratch.mkdir()
    script.write_text("ok\n")
    settings = dict(SETTINGS[plan.engine])
    is_scripted = plan.engine == "scripted"
    if is_scripted:
        settings["script"] = f"@{script}"
    with (
        small_disk(place / "disk") as disk,
        # JOURNAL_STREAM: workers too then say how bad each line is
        Daemon(disk.path / "spool", settings, {"TMPDIR": str(scratch), "JOURNAL_STREAM": "0:0"}) as daemon,
    ):
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=faults.READY_SECONDS, what="READY=1")
        yield Soak(plan, daemon, disk, scratch=scratch, script=script if is_scripted else None, say=say)


def _unforeseen(lines: list[str]) -> Iterator[str]:
    """What the journal shows that no fault explains, with what is said next."""
    for number, line in enumerate(lines):
        is_error = line.startswith(("<3>", "<2>")) and not FORESEEN.search(line)
        if is_error or line.startswith("Traceback") or "is polled" in line:
            yield "\n".join(["unforeseen:", *lines[number : number + LINES_AFTER]])
    surprises = sum("the engine failed, and this worker ends" in line for line in lines)
    if surprises > sum(re.search(r"^<3>\S+: .*, says the script", line) is not None for line in lines):
        yield "unforeseen: an exception that the script did not raise"
