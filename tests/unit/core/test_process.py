"""Lines for the journal carry their priority, so that `journalctl -p err` shows all errors; free memory goes back."""

import itertools
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from whisperd.core import process

RAISE = {
    "the program": "raise ValueError('odd')",
    "a thread": "import threading\nthread = threading.Thread(target=int, args=('odd',))\nthread.start(); thread.join()",
}
needs_glibc = pytest.mark.skipif(process._malloc_trim is None, reason="the C library is not glibc")


@pytest.mark.parametrize("code", RAISE.values(), ids=RAISE)
def test_what_nobody_caught_is_an_error(code):
    """Each line of the traceback has the priority of an error: to the journal, plain lines are mere information."""
    command = [sys.executable, "-c", f"from whisperd.core import process\nprocess.set_up_logging()\n{code}"]
    environment = os.environ | {"JOURNAL_STREAM": "8:1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = done.stderr.splitlines()

    assert any("ValueError" in line for line in lines)
    assert [line for line in lines if not line.startswith("<2>")] == []


def test_what_is_logged_about_a_job_names_it_in_the_journal(tmp_path):
    """As the field `WHISPERD_JOB`, in systemd's own protocol; all else, and what the journal does not take, goes to stderr."""
    program = f"""
import logging, os
from whisperd.core import process
process.JOURNAL = {str(tmp_path / "journal")!r}
process.set_up_logging()
log = logging.getLogger("whisperd")
log.info("the daemon")
log.warning("one\\ntwo", extra={{"job": "7"}})
os.unlink(process.JOURNAL)
log.info("late", extra={{"job": "7"}})
"""
    reading, writing = os.pipe()
    status = os.fstat(writing)
    environment = os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, open(reading) as stderr:
        journal.bind(str(tmp_path / "journal"))
        subprocess.run([sys.executable, "-c", program], check=True, env=environment, stderr=writing)
        os.close(writing)
        received = journal.recv(10_000)

        assert stderr.read() == "<6>the daemon\n<6>late\n"
    assert b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\n" in received
    assert b"WHISPERD_JOB\n\x01\0\0\0\0\0\0\0007\n" in received
    assert b"PRIORITY\n\x01\0\0\0\0\0\0\0004\n" in received


def resident_kb():
    """Of this process, proc(5)."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.fixture
def clock(monkeypatch):
    """A minute passes with each look."""
    minutes = itertools.count(step=process.TRIM_SECONDS)
    monkeypatch.setattr(process.time, "monotonic", lambda: next(minutes))


@needs_glibc
@pytest.mark.usefixtures("clock")
def test_holes_between_what_is_in_use_go_back():
    """One block in a hundred stays: malloc alone would keep the rest."""
    trimmer = process.Trimmer()
    blocks = [bytes(2000) for _ in range(50_000)]
    kept = blocks[::100]
    del blocks
    before = resident_kb()

    trimmer.tick()

    assert before - resident_kb() > 50_000
    assert len(kept) == 500


@needs_glibc
def test_it_happens_once_a_minute_at_most(monkeypatch):
    """It costs milliseconds, and what is in use by turns must be faulted in again."""
    calls = []
    monkeypatch.setattr(process, "_malloc_trim", calls.append)
    now = iter(
        [0.0, process.TRIM_SECONDS - 1, process.TRIM_SECONDS, process.TRIM_SECONDS + 1, 2 * process.TRIM_SECONDS]
    )
    monkeypatch.setattr(process.time, "monotonic", lambda: next(now))
    trimmer = process.Trimmer()

    for _ in range(4):
        trimmer.tick()

    assert len(calls) == 2


@pytest.fixture
def machine(tmp_path):
    """4 MiB available, 1 MiB of swap, and this process in a group within a group, both without a limit."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4096 kB\nSwapFree: 1024 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/whisperd.service\n")
    for group in ("cgroup/system.slice/whisperd.service", "cgroup/system.slice"):
        limit(tmp_path / group, "max")
    return tmp_path


def limit(group, maximum, current=0, cached=0):
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{maximum}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")


def free(machine):
    return process.free_memory_bytes(machine / "proc", machine / "cgroup")


def test_free_memory_is_what_the_machine_has_left(machine):
    """With its swap, where no group has a limit."""
    assert free(machine) == 5 << 20


@pytest.mark.parametrize("group", ["system.slice/whisperd.service", "system.slice"])
def test_a_control_group_leaves_less(machine, group):
    """Of its own or of one around it; files that are only cached count as free."""
    limit(machine / "cgroup" / group, 3 << 20, current=2 << 20, cached=1 << 19)

    assert free(machine) == 3 << 19


def test_a_group_beyond_its_limit_has_nothing_left(machine):
    """The limit may have been lowered since."""
    limit(machine / "cgroup/system.slice", 1 << 20, current=2 << 20)

    assert free(machine) == 0


def test_a_kernel_that_does_not_say(tmp_path):
    """A container may hide it; then nothing is refused."""
    assert free(tmp_path) is None


def test_this_machine_has_memory_left():
    """The real files can be read."""
    assert process.free_memory_bytes() > 1 << 20
