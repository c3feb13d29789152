"""What becomes of jobs whose worker ended: who loses an attempt, who is tried again, and who runs alone."""

import pytest
from support.spool import Spool

from whisperd.core import events
from whisperd.core.job import FAILED_ATTEMPTS_MAX, Failure
from whisperd.daemon.devices import Blame
from whisperd.daemon.jobs import UNPAID_MAX, Jobs
from whisperd.daemon.registry import JobState
from whisperd.spool.durable import Folder
from whisperd.spool.job_directory import load_job
from whisperd.spool.layout import LOCK

BROKEN = Failure("engine", "CUDA error", "look at the device", retryable=True)


class Desk:
    """The jobs of a spool, and a worker that can be told to fail."""

    def __init__(self, tmp_path, names, max_attempts):
        self.spool = Spool(tmp_path)
        (self.spool.layout.work / LOCK).touch()
        self.heard = []
        emitter = events.Emitter()
        emitter.subscribe(self.heard.append)
        self.jobs = Jobs(self.spool.store, emitter, max_attempts=max_attempts, retry_seconds=1.0)
        for name in names:
            self.jobs.receive(self.spool.take(name))

    def start(self):
        """Start all that may run now; their names."""
        started = []
        while (entry := next(self.jobs.registry.candidates(), None)) is not None:
            self.jobs.start(entry.job, 1, 0.0)
            started.append(entry.job.name)
        return started

    def id_of(self, name):
        return next(entry.job.id for entry, _ in self.jobs.registry.attempts() if entry.job.name == name)

    def interrupt(self, name, blame, device=""):
        self.jobs.interrupted(self.id_of(name), BROKEN, blame, 0.0, device)

    def on_disk(self, name):
        """Attempts, and whether it is a suspect, as the next daemon would read them."""
        waiting = [*self.jobs.registry.queue(), *self.jobs.registry.of(JobState.DELAYED)]
        job_id = next(entry.job.id for entry in waiting if entry.job.name == name)
        with Folder(self.spool.layout.job_directory(job_id)) as own:
            job = load_job(own)
        return job.attempts, job.suspect


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, ["a", "b", "c"], max_attempts=1)


def test_suspects_lose_no_attempt_and_share_no_worker(desk):
    """Durably: the next daemon knows it too. Other workers have jobs meanwhile."""
    assert desk.start() == ["a", "b", "c"]
    desk.interrupt("a", Blame.SUSPECT)
    desk.interrupt("b", Blame.SUSPECT)

    assert [desk.on_disk(name) for name in "ab"] == [(0, True)] * 2
    assert {entry.job.name: entry.must_be_alone for entry in desk.jobs.registry.candidates()} == {"a": True, "b": True}
    assert [event.counted for event in desk.heard if isinstance(event, events.JobRetried)] == [False] * 2


def test_suspects_of_an_earlier_daemon_run_one_by_one(desk):
    """What ended the daemon may have been any of them, in whatever worker."""
    desk.start()
    for name in "abc":
        desk.interrupt(name, Blame.SUSPECT)
    jobs = Jobs(desk.spool.store, events.Emitter(), max_attempts=1, retry_seconds=1.0)
    jobs.restore(desk.spool.restart(max_attempts=1), 0.0)
    first = next(jobs.registry.candidates())
    jobs.start(first.job, 1, 0.0)

    assert (first.job.name, first.must_be_alone, list(jobs.registry.candidates())) == ("a", False, [])


def test_who_was_not_in_the_batch_is_no_suspect(desk):
    """It loses no attempt, and runs in company."""
    desk.start()
    for name in "abc":
        desk.interrupt(name, Blame.NONE)

    assert [desk.on_disk(name) for name in "abc"] == [(0, False)] * 3
    assert not any(entry.must_be_alone for entry in desk.jobs.registry.candidates())
    assert desk.start() == ["a", "b", "c"]


def test_a_suspect_that_fails_alone_in_a_used_worker_gets_a_fresh_one(desk):
    """It may have met what another one left; there it loses nothing yet."""
    desk.start()
    for name in "ab":
        desk.interrupt(name, Blame.SUSPECT)
    desk.start()
    for name in "ab":
        assert not desk.jobs.registry.get(desk.id_of(name)).needs_fresh_worker
    desk.interrupt("a", Blame.SUSPECT)

    (entry,) = desk.jobs.registry.queue()
    assert desk.on_disk("a") == (0, True)
    assert entry.needs_fresh_worker


def test_the_guilty_one_pays_and_stays_alone_until_its_end(tmp_path):
    """It does not get into the company of others again."""
    desk = Desk(tmp_path, ["a"], max_attempts=2)
    desk.start()
    desk.interrupt("a", Blame.GUILTY)
    assert desk.on_disk("a") == (1, True)
    desk.jobs.tick(1.0)
    (entry,) = desk.jobs.registry.candidates()
    assert entry.must_be_alone
    assert entry.needs_fresh_worker

    desk.start()
    desk.interrupt("a", Blame.GUILTY)
    assert desk.jobs.failed == 1
    assert (desk.spool.layout.root / "failed/a").exists()
    assert desk.jobs.registry.get(entry.job.id) is None


def test_a_cancelled_job_ends_when_its_worker_does(tmp_path):
    """As cancelled, whoever is to blame."""
    desk = Desk(tmp_path, list("abcd"), max_attempts=1)
    desk.start()
    for name, blame in zip("abcd", Blame, strict=True):
        job = desk.jobs.registry.get(desk.id_of(name)).job
        assert not desk.jobs.cancel(job, Failure("cancelled", "cancelled by you"), 0.0)
        desk.interrupt(name, blame)

    ends = [event.failure.code for event in desk.heard if isinstance(event, events.JobFailed)]
    assert ends == ["cancelled"] * 4


def test_a_job_that_a_device_may_have_failed_loses_nothing_but_not_for_ever(tmp_path):
    """It gets fresh workers elsewhere, durably without an attempt; one that ends them all pays."""
    desk = Desk(tmp_path, ["a"], max_attempts=1)
    for number in range(UNPAID_MAX):
        assert desk.start() == ["a"]
        desk.interrupt("a", Blame.DEVICE, f"cuda:{number}")
        assert desk.on_disk("a") == (0, True)
    (entry,) = desk.jobs.registry.queue()
    assert entry.needs_fresh_worker
    assert entry.failed_on == [f"cuda:{number}" for number in range(UNPAID_MAX)]

    desk.start()
    desk.interrupt("a", Blame.DEVICE, "cuda:0")
    assert desk.jobs.failed == 1


@pytest.mark.parametrize(("code", "counted"), [("engine", True), ("spool_full", False)])
def test_each_attempt_that_failed_is_on_record(tmp_path, code, counted):
    """For people, with its error; the next daemon and the status file know it too."""
    desk = Desk(tmp_path, ["a"], max_attempts=2)
    desk.start()
    desk.jobs.attempt_failed(desk.id_of("a"), Failure(code, "why", "what to do", retryable=True), 0.0)
    (entry,) = desk.jobs.registry.of(JobState.DELAYED)
    with Folder(desk.spool.layout.job_directory(entry.job.id)) as own:
        (recorded,) = load_job(own).failed_attempts
    (shown,) = desk.spool.sidecar("a")["failed_attempts"]

    assert (recorded.code, recorded.message, recorded.hint, recorded.counted) == (code, "why", "what to do", counted)
    assert (shown["code"], shown["counted"], shown["at"]) == (code, counted, recorded.at)


def test_an_attempt_that_was_interrupted_is_on_record_too(desk):
    """It costs nothing, but somebody may ask why the job took so long; the latest are kept."""
    for _ in range(FAILED_ATTEMPTS_MAX + 2):
        desk.start()
        desk.interrupt("a", Blame.NONE)
    (job,) = [entry.job for entry in desk.jobs.registry.queue() if entry.job.name == "a"]

    assert [each.counted for each in job.failed_attempts] == [False] * FAILED_ATTEMPTS_MAX
