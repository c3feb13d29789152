"""Every system call of a job's life fails once, and then all of them for a while: nothing is lost, doubled or stuck.

In one process, with the time given, since the pauses of a real daemon would take hours; `test_faulty_filesystem` shows a
few of these with everything real.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import shutil

import pytest
from support.invariants import check_spool, digest
from support.spool import FAILURE, SEEN_AT, Spool, result

from whisperd.core import events
from whisperd.core.errors import ClaimLost, SpoolFull
from whisperd.daemon.jobs import Jobs
from whisperd.spool import durable

CALLS = ("open", "mkdir", "stat", "fstat", "fsync", "rename", "link", "unlink", "listdir", "scandir", "rmdir", "read")
ERRORS = (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT)
NAME = "b/a.wav"
CONTENT = b"sound"
PATIENCE = 60  # turns of the loop, each later than the longest pause


class Faults:
    """Lets calls fail: the one with this number, counted over all, and as many after it as told."""

    def __init__(self, patch):
        self.count = self.first = self.last = 0
        self.error = errno.EIO
        self.armed = self.hit = False
        for name in CALLS:
            patch.setattr(os, name, self.failing(getattr(os, name)))
        patch.setattr(durable, "_libc", self)
        patch.setattr(durable, "_noreplace", {})
        self.has_noreplace = True
        self.real = ctypes.CDLL(None, use_errno=True).renameat2

    def failing(self, call):
        def call_or_fail(*arguments, **options):
            if self.is_due():
                raise OSError(self.error, os.strerror(self.error))
            return call(*arguments, **options)

        return call_or_fail

    def renameat2(self, *arguments):
        if self.is_due():
            ctypes.set_errno(self.error)
            return -1
        if self.has_noreplace:
            return self.real(*arguments)
        _, _, target, new_name, _ = arguments
        ctypes.set_errno(
            errno.EEXIST if os.path.lexists(f"/proc/self/fd/{target}/{os.fsdecode(new_name)}") else errno.EINVAL
        )
        return -1

    def is_due(self):
        if not self.armed:
            return False
        number, self.count = self.count, self.count + 1
        due = self.first <= number < self.last
        self.hit |= due
        return due

    def arm(self, first, length, error):
        self.count, self.first, self.last, self.error = 0, first, first + length, error
        self.armed, self.hit = True, False

    @contextlib.contextmanager
    def disarmed(self):
        armed, self.armed = self.armed, False
        yield
        self.armed = armed


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # what it is for cannot be had here, and it takes its time
    return Faults(monkeypatch)


class Life:
    """A daemon without processes: it does what the supervisor does, with a worker that is done at once."""

    def __init__(self, spool, act):
        self.spool = spool
        self.emitter = events.Emitter()
        self.jobs = Jobs(spool.store, self.emitter, max_attempts=3, retry_seconds=1.0)
        self.act = act
        self.content = CONTENT
        self.now = 0.0

    def claim(self):
        for _ in range(PATIENCE):
            try:
                for job, failure in self.spool.store.repair_claims():
                    self.receive(job, failure)
                seen = self.spool.seen(NAME)
            except FileNotFoundError:
                return
            except (OSError, SpoolFull):
                continue
            failure = FAILURE if self.act is reject else None
            try:
                job = self.spool.store.claim(NAME, seen, ("txt", "json"), created_at=SEEN_AT, failure=failure)
            except (SpoolFull, ClaimLost):
                continue
            self.receive(job, failure)
            return

    def receive(self, job, failure):
        self.jobs.receive(job) if failure is None else self.jobs.reject(job, failure, self.now)

    def work(self):
        for _ in range(PATIENCE):
            self.now = now = self.now + 4000.0
            self.jobs.tick(now)
            if entry := next(self.jobs.registry.candidates(), None):
                job = entry.job
                try:
                    job = self.jobs.start(job, 1, now)
                except OSError:
                    self.jobs.forget_gone(job)
                    continue
                self.act(self, job, now)
            if not len(self.jobs):
                return


def finish(life, job, now, more=b""):
    with life.spool.faults.disarmed():  # the worker has troubles of its own
        original = life.spool.layout.job_directory(job.id) / job.original
        life.content = original.read_bytes()
        life.spool.render(job)
        original.write_bytes(life.content + more) if more else None
    life.jobs.finished(job.id, result(sha256=digest(life.content)), now)
    life.content += more


def fail(life, job, now):
    life.jobs.attempt_failed(job.id, FAILURE, now)


def give_back(life, job, now):
    finish(life, job, now, more=b" and more")


def reject(life, job, now):
    raise AssertionError("it was refused as it was taken, and is worked on")


ENDS = {
    "finish": (finish, "completed"),
    "fail": (fail, "failed"),
    "give_back": (give_back, "completed"),
    "reject": (reject, "failed"),
}


def restarted(spool, act):
    """A new daemon, which takes up what the old one left, and then what is in the inbox."""
    recovery = spool.restart()
    life = Life(spool, act)
    life.jobs.restore(recovery, 0.0)
    life.work()
    life.claim()
    life.work()
    return life


def story(root, faults, act, when):
    """One job's life with faults, and a restart; what is wrong then."""
    spool = Spool(root)
    spool.faults = faults
    (root / ".work/.lock").touch()  # a spool that is there
    spool.upload(NAME, CONTENT)
    life = Life(spool, act)
    faults.arm(*when)
    life.claim()
    life.work()
    faults.armed = False
    problems = [f"{len(life.jobs)} jobs are stuck"] if len(life.jobs) else []
    uploads = {NAME: life.content}
    problems += check_spool(root, uploads, settled=False)
    problems += [f"{path} is stuck until a restart" for path in (root / ".work").glob("*/original*")]
    restarted(spool, act if act in {fail, reject} else finish)
    problems += check_spool(root, uploads)
    return problems


@pytest.mark.parametrize("noreplace", [True, False], ids=["renameat2", "link"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("length", [1, 30], ids=["once", "a while"])
def test_whatever_fails_the_job_comes_to_its_end(tmp_path, faults, end, length, noreplace):
    """As soon as nothing fails any more, without a restart; and after one all is as it would have been."""
    act, status = ENDS[end]
    faults.has_noreplace = noreplace
    wrong = []
    for first in itertools.count():
        error = ERRORS[first % len(ERRORS)]
        root = tmp_path / f"{first}"
        problems = story(root, faults, act, (first, length, error))
        problems += [f"the end is not {status}"] * (Spool(root).sidecar(NAME)["status"] != status)
        wrong += [f"call {first} {errno.errorcode[error]}: {problem}" for problem in problems]
        shutil.rmtree(root)
        if not faults.hit:
            break

    assert first > 50
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("moment", ["queued", "running"])
def test_a_job_whose_files_somebody_removed_is_forgotten(tmp_path, faults, moment):
    """Said once, and the next job goes on; but not while all of `.work` is away, which may come back."""
    spool = Spool(tmp_path)
    spool.faults = faults
    spool.upload(NAME, CONTENT)
    gone = []
    life = Life(spool, finish)
    life.emitter.subscribe(lambda event: gone.append(event) if isinstance(event, events.JobGone) else None)
    life.claim()
    (job,) = (entry.job for entry in life.jobs.registry.queue())
    if moment == "running":
        job = life.jobs.start(job, 1, 0.0)
        spool.render(job)
    shutil.rmtree(spool.layout.job_directory(job.id))
    end = (lambda: life.jobs.finished(job.id, result(), 0.0)) if moment == "running" else (lambda: None)
    end()
    life.work()
    assert (len(life.jobs), gone) == (1, [])

    (tmp_path / ".work/.lock").touch()
    life.work()
    spool.upload(NAME, CONTENT)
    life.claim()
    life.work()

    assert [event.job.id for event in gone] == [job.id]
    assert check_spool(tmp_path, {NAME: CONTENT}) == []
