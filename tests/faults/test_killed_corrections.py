"""Corrections killed at every named step: the old transcripts or the new ones, and what a user has changed stays."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.spool import Spool

import whisperd
from whisperd.core.options import OutputOptions
from whisperd.core.transcript import Segment, Transcript
from whisperd.output.formats import render

NAME = "b/a.wav"
FORMATS = ("txt", "srt", "tsv", "json")
TALK = Transcript(" Hello.", (Segment(0.0, 1.0, " Hello.", speaker="Left"),), "en")
FILES = render(TALK, OutputOptions(formats=FORMATS))


def every_point():
    """The failpoints of corrections as the source names them, and the second file; only the daemon has the first one."""
    source = "".join(path.read_text() for path in Path(whisperd.__file__).parent.rglob("*.py"))
    points = set(re.findall(r'failpoint\("(correct\.[^"]+)"\)', source))
    return [*sorted(points - {"correct.after_rendering"}), "correct.after_output:2"]


@pytest.fixture
def root(tmp_path):
    """A spool with a completed job, of whose files somebody has changed one."""
    root = tmp_path / "spool"
    Spool(root).complete(NAME, TALK, FORMATS)
    (root / "outbox/b/a.srt").write_text("mine")
    return root


def outbox(root):
    return {path.name: path.read_text() for path in (root / "outbox/b").iterdir() if "status" not in path.name}


def assert_old(root):
    """Nothing has happened."""
    assert outbox(root) == {f"a.{kind}": FILES[kind].decode() for kind in FORMATS} | {"a.srt": "mine"}


def assert_new(root, daemon):
    """Everything has happened, once."""
    found = outbox(root)
    assert set(found) == {"a.txt", "a.srt", "a-2.srt", "a.tsv", "a.json"}
    assert (found["a.txt"], found["a.srt"]) == ("Anna: Hello.\n", "mine")
    assert "Anna: Hello." in found["a-2.srt"]
    assert found["a.tsv"].endswith("\tAnna\n")
    (entry,) = daemon.sidecar(NAME)["corrections"]
    assert entry["kept"] == {"srt": "outbox/b/a.srt"}
    assert sorted(os.listdir(root / ".work")) == [".lock", ".staging"]
    assert not list((root / "inbox").rglob("*.yaml"))


def work_off(root):
    daemon = Daemon(root, once=True)
    with daemon:
        assert daemon.wait_exit() == 0
    return daemon


@pytest.mark.parametrize("point", every_point())
def test_a_command_that_is_killed_leaves_the_old_files_or_the_new_ones(root, point):
    """The next daemon publishes what was planned, and forgets what was not."""
    command = [sys.executable, "-m", "whisperd", "render", "--root", str(root), NAME, "--speaker", "Left=Anna"]
    environment = {**os.environ, "WHISPERD_FAILPOINT": point}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL

    assert_new(root, work_off(root))


@pytest.mark.parametrize("point", ["correct.after_rendering", "correct.after_removal", "correct.after_status_file"])
def test_a_daemon_that_is_killed_makes_the_correction_after_all(root, point):
    """Its ticket asks for it until it is made."""
    ticket = root / "inbox/b/a.wav.yaml"
    ticket.parent.mkdir(exist_ok=True)
    ticket.write_text("speakers: {Left: Anna}\n")
    with Daemon(root, environment={"WHISPERD_FAILPOINT": point}) as daemon:
        assert daemon.wait_exit() == -signal.SIGKILL
    if point == "correct.after_rendering":
        assert_old(root)

    assert_new(root, work_off(root))
    assert (root / "done/b/a.wav.yaml").read_text() == "speakers: {Left: Anna}\n"
