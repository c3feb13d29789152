"""`intake.duplicates: skip` in a real daemon, over restarts."""

import pytest
from support.daemon import Daemon, originals, tone

SKIP = {"intake": {"duplicates": "skip"}}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def sound(tmp_path):
    return tone(tmp_path / "sound.wav").read_bytes()


def drop(daemon, name, content):
    """Upload, and wait for the end; returns the sidecar."""
    (daemon.inbox / name).write_bytes(content)
    daemon.wait((daemon.done / name).exists, what=f"{name} in done/")
    daemon.wait(lambda: not any(path.is_dir() and path.name[0] != "." for path in daemon.work.iterdir()), what="rest")
    return daemon.sidecar(name)


def starts(daemon):
    """How often a worker was given something."""
    return sum("starts on worker" in line for line in daemon.lines)


def test_the_same_content_is_transcribed_once_even_over_a_crash(root, sound):
    """The second upload, before and after a SIGKILL, points to the transcripts of the first."""
    with Daemon(root, SKIP) as daemon:
        daemon.wait_ready()
        first = drop(daemon, "a.wav", sound)
        second = drop(daemon, "b.wav", sound)
        daemon.wait(lambda: daemon.logged("b.wav: not transcribed again, its content is that of a.wav"), what="a line")
        daemon.kill()
        daemon.start()
        third = drop(daemon, "c.wav", sound)

        assert [each["status"] for each in (first, second, third)] == ["completed"] * 3
        assert [each["duplicate_of"] for each in (first, second, third)] == [None, "a.wav", "a.wav"]
        assert first["outputs"] == second["outputs"] == third["outputs"]
        assert starts(daemon) == 1
        assert len(originals(root)["done"]) == 3
        assert not list(daemon.outbox.glob("[bc].txt"))


@pytest.mark.parametrize("point", ["publish.after_result", "publish.after_status_file", "publish.after_original"])
def test_a_daemon_killed_while_it_ends_a_duplicate(root, sound, point):
    """The next one comes to the same end; here each point is met the second time, the first recording being through."""
    with Daemon(root, SKIP, {"WHISPERD_FAILPOINT": f"{point}:2"}) as daemon:
        daemon.wait_ready()
        drop(daemon, "a.wav", sound)
        (daemon.inbox / "b.wav").write_bytes(sound)
        assert daemon.wait_exit() == -9
        daemon.environment.clear()
        daemon.start()

        daemon.wait((daemon.done / "b.wav").exists, what="the end")
        assert daemon.sidecar("b.wav")["duplicate_of"] == "a.wav"
        assert starts(daemon) == 1
        assert len(originals(root)["done"]) == 2


def test_a_transcript_that_was_removed_is_made_again(root, sound):
    """And the next copy points to the new one."""
    with Daemon(root, SKIP) as daemon:
        daemon.wait_ready()
        drop(daemon, "a.wav", sound)
        (daemon.outbox / "a.txt").unlink()

        assert drop(daemon, "b.wav", sound)["duplicate_of"] is None
        assert drop(daemon, "c.wav", sound)["duplicate_of"] == "b.wav"


def test_by_default_everything_is_transcribed_until_a_reload_says_otherwise(root, sound):
    """What was completed before the reload is known after it."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        drop(daemon, "a.wav", sound)
        assert drop(daemon, "b.wav", sound)["duplicate_of"] is None
        daemon.configure(SKIP)
        daemon.process.send_signal(1)
        daemon.wait(lambda: daemon.logged("the new configuration is in use"), what="the reload")

        assert drop(daemon, "c.wav", sound)["duplicate_of"] in {"a.wav", "b.wav"}
        assert starts(daemon) == 2
