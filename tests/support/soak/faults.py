"""What goes wrong during a run: each fault a generator that begins it, yields while it lasts, and ends it.

A fault ends with True if it has struck; a worker may have no ffmpeg just when it is to be killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import whisperd
from whisperd.bench.systems import tree

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Generator

    from support.daemon import Daemon
    from support.soak.disk import Disk

    Fault = Generator[None, None, bool]

# What ends a process, which then has no time to show that it grows.
DEADLY = frozenset(
    {
        *("worker killed", "supervisor killed", "supervisor killed at a step", "stopped and started"),
        *("stopped in a hurry", "engine out of memory", "engine exits", "engine hangs"),
    }
)
PATIENCE_SECONDS = 20.0
READY_SECONDS = 180.0
STALL_SECONDS = 1.0
FULL_SECONDS = (1.0, 6.0)


class Ground:
    """What faults act on.

    Args:
        daemon: a running one.
        disk: which the spool is on.
        script: the file that steers the scripted engine; None: a real one.
        rng: decides which worker, which step, how long.
    """

    def __init__(self, daemon: Daemon, disk: Disk, script: Path | None, rng: random.Random) -> None:
        self.daemon = daemon
        self.disk = disk
        self.script = script
        self.rng = rng
        self.is_stopping = False  # its end is expected
        self.starts = 1

    def start(self, step: str = "") -> None:
        """Start the daemon again, to die at a step if one is given."""
        self.daemon.environment = {**self.daemon.environment, "WHISPERD_FAILPOINT": step}
        self.daemon.start()
        self.starts += 1

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        with contextlib.suppress(OSError):
            return self.daemon.workers()
        return []

    def is_dead(self) -> bool:
        """Whether the daemon has ended, by itself or not."""
        return self.daemon.process is None or self.daemon.process.poll() is not None

    def tell_engine(self, action: str) -> None:
        """Change the script in one step: a worker reads it at every call."""
        assert self.script is not None
        beside = self.script.with_suffix(".new")
        beside.write_text(f"{action}\n")
        beside.rename(self.script)


def kinds(ground: Ground) -> dict[str, Callable[[Ground], Fault]]:
    """The faults that can be made here, by what the report calls them."""
    found: dict[str, Callable[[Ground], Fault]] = {
        "worker killed": worker_killed,
        "supervisor killed": supervisor_killed,
        "supervisor killed at a step": supervisor_killed_at_a_step,
        "stopped and started": lambda ground: stopped(ground, signal.SIGTERM),
        "stopped in a hurry": lambda ground: stopped(ground, signal.SIGQUIT),
        "supervisor stalled": supervisor_stalled,
        "ffmpeg killed": ffmpeg_killed,
        "reloaded": reloaded,
        "bad configuration": bad_configuration,
    }
    if ground.script is not None:
        found |= {
            "engine error": lambda ground: engine(ground, "raise:engine", "broken, says the script"),
            "engine out of memory": lambda ground: engine(ground, "raise:oom", "out of memory, says the script"),
            "engine bug": lambda ground: engine(ground, "raise:bug", "a bug, says the script"),
            "engine exits": lambda ground: engine(ground, "exit:9", "exited with status 9"),
            "engine hangs": lambda ground: engine(ground, "hang", "no sign of progress"),
        }
    if ground.disk.can_fill:
        found["disk full"] = disk_full
    return found


def worker_killed(ground: Ground) -> Fault:
    """As the kernel does it when memory runs out."""
    workers = yield from _awaited(ground.workers)
    return bool(workers) and _killed(ground.rng.choice(workers))


def ffmpeg_killed(ground: Ground) -> Fault:
    """The decoder of a job."""

    def decoders() -> list[int]:
        return [child for worker in ground.workers() for child in tree(worker)[1:] if "ffmpeg" in _name(child)]

    running = yield from _awaited(decoders)
    return bool(running) and _killed(ground.rng.choice(running))


def supervisor_killed(ground: Ground) -> Fault:
    """As a power cut would, but for what the disk forgets; then it is started again."""
    ground.daemon.kill()
    ground.start()
    yield from is_ready(ground)
    return True


def supervisor_killed_at_a_step(ground: Ground) -> Fault:
    """Between two renames of its choice, by its own hand; see `durable.failpoint`."""
    source = "".join(path.read_text() for path in Path(whisperd.__file__).parent.rglob("*.py"))
    steps = re.findall(r'failpoint\("((?:claim|publish|fail)\.[^"]+)"\)', source)  # every upload comes by some of these
    ground.daemon.kill()
    ground.start(f"{ground.rng.choice(sorted(steps))}:{ground.rng.randint(1, 5)}")
    ground.is_stopping = True
    died = yield from _awaited(ground.is_dead)
    ground.is_stopping = False
    ground.daemon.kill()  # it may not have come by there
    ground.start()
    yield from is_ready(ground)
    return bool(died)


def stopped(ground: Ground, number: signal.Signals) -> Fault:
    """By the service manager, and started again."""
    ground.is_stopping = True
    ground.daemon.process.send_signal(number)
    ended = yield from _awaited(ground.is_dead, 2 * PATIENCE_SECONDS)
    ground.is_stopping = False
    assert ended, "the daemon does not stop"
    status = ground.daemon.wait_exit()
    assert status == 0, f"stopped with status {status}"
    ground.start()
    yield from is_ready(ground)
    return True


def supervisor_stalled(ground: Ground) -> Fault:
    """Suspended for a moment, as a virtual machine may be."""
    process = ground.daemon.process
    process.send_signal(signal.SIGSTOP)
    yield from paused(STALL_SECONDS)
    process.send_signal(signal.SIGCONT)
    return True


def reloaded(ground: Ground) -> Fault:
    """A new configuration, which matters to the uploads that follow."""
    other = {"process": "skip", "skip": "process"}[ground.daemon.settings["intake"].get("duplicates", "process")]
    ground.daemon.configure({"intake": {"duplicates": other}})
    return (yield from _said_after_reload(ground, "the new configuration is in use"))


def bad_configuration(ground: Ground) -> Fault:
    """It is refused, and the old one stays."""
    good = ground.daemon.config.read_text()
    ground.daemon.config.write_text("no: such key\n")
    refused = yield from _said_after_reload(ground, "is refused, the old one stays")
    ground.daemon.config.write_text(good)
    return refused


def disk_full(ground: Ground) -> Fault:
    """Not a byte of room for a while."""
    ground.disk.fill()
    yield from paused(ground.rng.uniform(*FULL_SECONDS))
    ground.disk.free()
    return True


def engine(ground: Ground, action: str, proof: str) -> Fault:
    """The engine misbehaves until the journal shows it."""
    lines, mark = ground.daemon.lines, len(ground.daemon.lines)
    ground.tell_engine(action)
    struck = yield from _awaited(lambda: any(proof in line for line in lines[mark:]))
    ground.tell_engine("ok")
    return bool(struck)


def is_ready(ground: Ground) -> Fault:
    """Wait for READY=1 of a daemon just started."""
    ready = yield from _awaited(lambda: "READY=1" in ground.daemon.notices or ground.is_dead(), READY_SECONDS)
    assert ready, "the daemon does not get ready"
    return True


def paused(seconds: float) -> Generator[None, None, None]:
    """Let time pass."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield


def _awaited(question: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> Generator[None, None, object]:
    """Ask until the answer is true, or it has taken too long; returns the answer."""
    until = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < until:
        yield
    return answer


def _said_after_reload(ground: Ground, text: str) -> Fault:
    lines, mark = ground.daemon.lines, len(ground.daemon.lines)
    ground.daemon.process.send_signal(signal.SIGHUP)
    said = yield from _awaited(lambda: any(text in line for line in lines[mark:]))
    return bool(said)


def _killed(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
