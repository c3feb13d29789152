"""What a daemon that died left in `.work`, and what becomes of each piece."""

import contextlib
import ctypes
import dataclasses
import errno
import os

import pytest
from support.spool import FAILURE, Spool

from whisperd.spool import durable, job_directory
from whisperd.spool.durable import Folder
from whisperd.spool.store import Store


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def own(spool, job):
    return spool.layout.job_directory(job.id)


def summary(recovery):
    """How many are queued, to finish, to fail, removed."""
    return len(recovery.queued), len(recovery.to_finish), len(recovery.to_fail), recovery.removed


def test_an_empty_spool_needs_no_recovery(spool):
    """As at the first start."""
    assert summary(spool.restart()) == (0, 0, 0, 0)


def test_claimed_jobs_are_queued_in_the_order_of_their_claims(spool):
    """First come, first served, across a crash too."""
    jobs = [spool.take(name) for name in ("c.mp3", "a.mp3", "b.mp3")]

    assert spool.restart().queued == jobs


def test_a_job_that_was_running_is_a_suspect(spool):
    """It may be what killed the daemon: it runs alone next time."""
    waiting, running = spool.take("a.mp3"), spool.store.start(spool.take("b.mp3"))

    assert [job.suspect for job in spool.restart().queued] == [False, True]
    assert spool.restart().queued == [waiting, running]


@pytest.mark.parametrize(("attempts", "fails"), [(2, False), (3, True)])
def test_a_job_that_was_running_each_time_the_daemon_died_fails(spool, attempts, fails):
    """The attempts were counted before the work started."""
    job = spool.take("a.mp3")
    for _ in range(attempts):
        job = spool.store.start(job)
    recovery = spool.restart(max_attempts=3)

    assert summary(recovery) == ((0, 0, 1, 0) if fails else (1, 0, 0, 0))
    assert [failure.code for _, failure in recovery.to_fail] == ["worker_died"] * fails


def test_a_claim_that_did_not_get_to_the_upload_is_forgotten(spool):
    """The upload is still in the inbox."""
    (spool.layout.work / "20260101T000000000000-aaaaaa").mkdir()
    job = spool.take("a.mp3")
    os.rename(own(spool, job) / job.original, spool.layout.inbox / "a.mp3")

    assert summary(spool.restart()) == (0, 0, 0, 2)
    assert spool.jobs() == set()
    assert spool.files("inbox") == {"a.mp3": b"a.mp3"}


def test_an_end_that_was_reached_is_swept_up(spool):
    """The original is in done/, the directory is not gone yet: with whatever is left in it."""
    job = spool.take("a.mp3")
    rendered = spool.render(job)
    spool.store._remove_directory = lambda _: None
    spool.store.finish(job, rendered)
    (own(spool, job) / "job.json").unlink()

    assert summary(spool.restart()) == (0, 0, 0, 1)
    assert spool.jobs() == set()
    assert spool.files("done") == {"a.mp3": b"a.mp3"}


def written_on(path):
    with path.open("ab") as file:
        file.write(b" and more")


def replaced_by_symlink(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def replaced_by_a_copy(path):
    content, status = path.read_bytes(), path.stat()
    path.rename(path.with_name("kept"))  # so that its number is not used again
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [written_on, replaced_by_symlink, replaced_by_a_copy], ids=lambda act: act.__name__)
def test_what_is_not_what_had_settled_goes_back_to_the_inbox(spool, change):
    """The daemon may have died between the rename and its look at what the rename had brought."""
    job = spool.take("b/a.mp3")
    change(own(spool, job) / job.original)
    recovery = spool.restart()

    assert (summary(recovery), recovery.returned) == ((0, 0, 0, 0), [(job, "b/a.mp3")])
    assert os.path.lexists(spool.layout.inbox / "b/a.mp3")
    assert spool.jobs() == set()


def test_what_changed_after_a_worker_had_it_is_queued(spool):
    """It is compared with what the worker read, which is on record since."""
    job = spool.store.start(spool.take("a.mp3"))
    written_on(own(spool, job) / job.original)

    assert spool.restart().queued == [job]


def test_files_that_a_remount_has_numbered_anew_are_what_they_were(spool):
    """Size and time tell; else every waiting job went back to the inbox after a boot."""
    job = spool.take("a.mp3")
    before = dataclasses.replace(job.signature, device=job.signature.device + 1, inode=job.signature.inode + 1)
    job = spool.store.record(job.evolve(signature=before))

    assert spool.restart().queued == [job]


def test_what_cannot_go_back_is_queued(spool):
    """A worker finds out what it is; one upload must not keep the daemon from starting."""
    job = spool.take("b/a.mp3")
    written_on(own(spool, job) / job.original)
    (spool.layout.inbox / "b").rmdir()
    (spool.layout.inbox / "b").write_bytes(b"a stranger's")

    assert spool.restart().queued == [job]


def test_a_job_with_a_result_is_published(spool):
    """Its transcripts are there: the work is not done twice."""
    job = spool.store.start(spool.take("a.mp3"))
    result = spool.render(job)
    with Folder(own(spool, job)) as directory:
        job_directory.save(directory, job_directory.RESULT, result)

    assert spool.restart().to_finish == [(job, result)]


def test_a_job_with_a_failure_fails_with_it(spool):
    """The reason is not lost."""
    job = spool.store.start(spool.take("a.mp3"))
    with Folder(own(spool, job)) as directory:
        job_directory.save(directory, job_directory.FAILURE, FAILURE)

    assert spool.restart().to_fail == [(job, FAILURE)]


def test_a_torn_result_is_no_result(spool):
    """The job runs again: what it would publish may be torn as well."""
    job = spool.store.start(spool.take("a.mp3"))
    (own(spool, job) / "result.json").write_bytes(b'{"duration_seconds": 12.5, "outp')

    assert spool.restart().queued == [job]


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b'{"id": "x", "na')],
    ids=["missing", "empty", "torn"],
)
def test_an_original_without_a_record_is_kept_in_failed(spool, damage):
    """Its name is lost, its content is not, and the status file says so."""
    job = spool.take("alice/a.mp3", b"sound")
    damage(own(spool, job) / "job.json")
    ((rescued, failure),) = spool.restart().to_fail
    spool.store.fail(rescued, failure)

    assert spool.files("failed") == {f"recovered-{job.id}.mp3": b"sound"}
    assert spool.sidecar(f"recovered-{job.id}.mp3")["error"]["code"] == "record_damaged"
    assert spool.jobs() == set()


@pytest.mark.parametrize("step", ["save", "show", "move"])
def test_a_rescue_that_was_cut_off_is_a_rescue_again(spool, monkeypatch, step):
    """It must not turn into a job that is transcribed under the name of a rescued file."""
    job = spool.take("a.mp3", b"sound")
    (own(spool, job) / "job.json").unlink()
    rescued = spool.restart().to_fail[0]

    def cut(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr({"save": job_directory, "show": Store, "move": job_directory}[step], step, cut)
        with pytest.raises(KeyboardInterrupt):
            spool.store.fail(*rescued)
    (again,) = spool.restart().to_fail
    spool.store.fail(*again)

    assert again[0].place == f"recovered-{job.id}.mp3"
    assert spool.files("failed") == {f"recovered-{job.id}.mp3": b"sound"}


def test_recovered_jobs_hold_their_names(spool):
    """A new upload of the same name keeps out of the way of one that is still under way."""
    spool.take("a.mp3")
    spool.restart()

    assert spool.take("a.mp3").place == "a-2.mp3"


def test_leftovers_of_half_written_files_go(spool):
    """In staging; and one in the directory of a job does not matter."""
    job = spool.take("a.mp3")
    spool.put(".work/.staging/.0123456789abcdef.tmp", b"half")
    spool.put(f".work/{job.id}/.0123456789abcdef.tmp", b"half")

    assert spool.restart().queued == [job]
    assert os.listdir(spool.layout.staging) == []


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_what_is_no_directory_in_work_is_left_alone(spool, kind):
    """Somebody who looked for a recording may have left it; it must not keep the daemon from starting."""
    stray = spool.layout.work / "notes"
    stray.write_bytes(b"x") if kind == "file" else stray.symlink_to(spool.layout.inbox)

    assert summary(spool.restart()) == (0, 0, 0, 0)
    assert os.path.lexists(stray)


def test_a_claim_by_link_that_was_cut_off_leaves_no_second_upload(spool):
    """On a filesystem without RENAME_NOREPLACE a crash between link and unlink leaves the file in both places."""
    job = spool.take("alice/a.mp3", b"sound")
    os.link(own(spool, job) / job.original, spool.layout.inbox / "alice/a.mp3")

    assert spool.restart().queued == [job]
    assert spool.files("inbox") == {}
    assert (own(spool, job) / job.original).read_bytes() == b"sound"


def test_another_upload_of_the_same_name_is_not_touched(spool):
    """Nor is one that merely has the same content."""
    spool.take("a.mp3", b"sound")
    spool.upload("a.mp3", b"sound")
    spool.restart()

    assert spool.files("inbox") == {"a.mp3": b"sound"}


class PowerCut(BaseException):
    """Nothing after it happens."""


@pytest.fixture
def power_cut(monkeypatch):
    """No rename without overwriting, no links: a move keeps the name with an empty file first, and then the power is cut.

    As on a share where fs.protected_hardlinks forbids the link.
    """

    class Libc:
        @staticmethod
        def renameat2(*arguments):
            ctypes.set_errno(errno.EINVAL)
            return -1

    def refuse(*arguments, **options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(durable, "_libc", Libc)
    monkeypatch.setattr(durable, "_noreplace", {})
    monkeypatch.setattr(os, "link", refuse)

    @contextlib.contextmanager
    def cut(at):
        """While the file of this new name is moved."""
        rename, unlink = os.rename, os.unlink
        is_off = False

        def lose(old, new, **options):
            nonlocal is_off
            is_off |= new == at
            if is_off:
                raise PowerCut
            return rename(old, new, **options)

        def leave(*arguments, **options):
            if is_off:
                raise PowerCut
            unlink(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", lose)
            patch.setattr(os, "unlink", leave)
            with pytest.raises(PowerCut):
                yield

    return cut


def test_a_claim_that_was_cut_off_before_the_upload_moved_leaves_no_phantom(spool, power_cut):
    """The empty file that kept the name was taken for the original, given back, and failed as an empty upload."""
    with power_cut("original.mp3"):
        spool.take("a.mp3", b"sound")

    assert summary(spool.restart()) == (0, 0, 0, 1)
    assert spool.files("inbox") == {"a.mp3": b"sound"}
    assert spool.jobs() == set()


@pytest.mark.parametrize("at", ["a.txt", "a.json", "a.mp3"])
def test_an_end_that_was_cut_off_in_a_move_leaves_no_phantom(spool, power_cut, at):
    """The empty file stayed beside the transcripts or in done/ for good, and the job's names got a number."""
    job = spool.take("a.mp3", b"sound")
    rendered = spool.render(job)
    with power_cut(at):
        spool.store.finish(job, rendered)
    for job, result in spool.restart().to_finish:
        spool.store.finish(job, result)

    assert sorted(spool.files("outbox")) == ["a.json", "a.txt"]
    assert all(spool.files("outbox").values())
    assert spool.files("done") == {"a.mp3": b"sound"}


def test_an_upload_that_is_given_back_leaves_no_phantom(spool, power_cut):
    """In the inbox it would be an upload of its own."""
    job = spool.take("a.mp3", b"sound")
    with power_cut("a.mp3"):
        spool.store.release(job)
    (job,) = spool.restart().queued
    spool.store.release(job)

    assert spool.files("inbox") == {"a.mp3": b"sound"}


def test_an_empty_file_of_somebody_else_is_not_taken_for_a_reservation(spool, power_cut):
    """Nothing is ever overwritten."""
    job = spool.take("a.mp3", b"sound")
    stranger = spool.put("done/a.mp3", b"")
    stranger.chmod(0o400)
    spool.finish(job)

    assert spool.files("done") == {"a.mp3": b"", "a-2.mp3": b"sound"}
