"""Trees of folders made to keep the daemon busy, and links to what is somebody else's."""

import os
import stat
import subprocess
import sys

import pytest
from support.daemon import tone
from support.options import INTAKE as OPTIONS
from support.spool import nest

from whisperd.container import Source, Unknown, inspect
from whisperd.core import events, slices
from whisperd.core.job import Signature
from whisperd.intake import inbox as inbox_module
from whisperd.intake import upload as upload_module
from whisperd.intake.complete import Refuse, Take, Wait, judge
from whisperd.intake.ignore import Ignore
from whisperd.intake.inbox import Inbox
from whisperd.intake.scan import scan
from whisperd.intake.writers import Leases, Sessions
from whisperd.spool import names
from whisperd.spool.durable import Folder
from whisperd.spool.layout import DEPTH_MAX


@pytest.fixture
def nested():
    """Folders in folders, deeper than any path may be long."""
    tops = []

    def build(top, depth, file=None):
        tops.append(top)
        nest(top, depth, file)

    yield build
    # shutil.rmtree, by which pytest removes what earlier runs have left, recurses: it would fail, and that later run with it
    subprocess.run(["rm", "-rf", *(top / "d" for top in tops)], check=True)


def test_folders_nested_beyond_the_bound_are_refused_with_the_reason(tmp_path, nested):
    """Each level costs an open for every folder below: a chain of some thousands would stop the loop for minutes."""
    nested(tmp_path, 1500, file="unreached.wav")

    (found,) = filter(None, scan(tmp_path, Ignore()))
    assert found.name == "/".join("d" * (DEPTH_MAX + 1))
    assert found.refusal is not None
    assert "nested" in found.refusal


def test_folders_nested_up_to_the_bound_are_read(tmp_path, nested):
    """The bound itself is allowed, also for a folder that is walked by itself because it just arrived."""
    nested(tmp_path, DEPTH_MAX, file="a.wav")
    parts = ("d",) * DEPTH_MAX

    assert [found.name for found in scan(tmp_path, Ignore()) if found] == [names.join(parts, "a.wav")]
    assert [found.name for found in scan(tmp_path, Ignore(), parts) if found] == [names.join(parts, "a.wav")]
    assert [bool(found.refusal) for found in scan(tmp_path, Ignore(), (*parts, "d")) if found] == [True]


def test_a_walk_can_pause_between_folders_that_hold_nothing(tmp_path):
    """Slices of time are counted in what the scan gives: a hundred thousand empty folders must give something."""
    for number in range(50):
        (tmp_path / str(number)).mkdir()

    assert list(scan(tmp_path, Ignore())) == [None] * 51


@pytest.mark.parametrize(
    ("mode", "group_of_the_inbox", "taken"),
    [
        pytest.param(0o644, False, True, id="everybody may read it"),
        pytest.param(0o640, True, True, id="the inbox's group may"),
        pytest.param(0o640, False, False, id="another group may, as of /etc/shadow"),
        pytest.param(0o600, True, False, id="its owner alone may"),
    ],
)
def test_a_hard_link_is_taken_only_if_who_reads_results_may_read_the_file(mode, group_of_the_inbox, taken, tmp_path):
    """Where the kernel does not guard links (fs.protected_hardlinks), or for root, a name proves nothing about its maker."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another group")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    os.chown(inbox, -1, 4321)
    foreign = tone(tmp_path / "foreign.wav")
    os.chown(foreign, -1, 4321 if group_of_the_inbox else 42)
    foreign.chmod(mode)
    (inbox / "a.wav").hardlink_to(foreign)

    with Folder(inbox) as folder:
        seen = Signature.of(os.lstat(inbox / "a.wav"))
        verdict = judge(
            folder, "a.wav", seen, quiet_seconds=100.0, options=OPTIONS, leases=Leases(), sessions=Sessions()
        )

    assert verdict == Take() if taken else isinstance(verdict, Refuse)
    assert taken or "hard link" in verdict.reason


def test_a_private_file_of_one_name_is_taken(tmp_path):
    """Who may rename a file into the inbox gives it away."""
    tone(tmp_path / "a.wav").chmod(stat.S_IRUSR)

    with Folder(tmp_path) as folder:
        seen = Signature.of(os.lstat(tmp_path / "a.wav"))
        assert (
            judge(folder, "a.wav", seen, quiet_seconds=100.0, options=OPTIONS, leases=Leases(), sessions=Sessions())
            == Take()
        )


SLOW_TO_READ = (
    b"fLaC\x80\0\0\x22\x10\0\x10\0" + bytes(6) + b"\x0a\xc4\x40\xff\xff\xff\xff\xff" + bytes(16) + b"\xff\xf8" * 32_768
)


def test_a_container_made_to_be_slow_is_read_in_bounded_steps():
    """Each look that seems to start a frame costs a checksum."""
    source = Source(SLOW_TO_READ)
    lines = 0

    def count(_frame, event, _argument):
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        promise = inspect(source)
    finally:
        sys.settrace(None)

    assert promise == Unknown()
    assert lines < 200_000


def test_a_turn_is_short_however_long_a_look_takes(tmp_path, monkeypatch):
    """Workers, signals and the watchdog get their turn between files that are slow to read."""
    clock = [0.0]
    monkeypatch.setattr(slices.time, "monotonic", lambda: clock[0])
    looked = []

    def slow(_folder, file, *_arguments, **_keywords):
        looked.append(file)
        clock[0] += 0.1
        return Wait("it is slow", 30.0)

    monkeypatch.setattr(inbox_module, "judge", slow)
    for number in range(20):
        tone(tmp_path / f"{number}.wav", 0.01)
    inbox = Inbox(tmp_path, OPTIONS, Notes(), events.Emitter())
    inbox.start()
    try:
        for now in (0.0, 0.1, 0.3):
            inbox.tick(now)
        assert inbox.take(0.3) is None
        assert 1 <= len(looked) <= 4
        assert inbox.has_more()
        while inbox.has_more():
            inbox.tick(0.3)
            inbox.take(0.3)
    finally:
        inbox.stop()

    assert sorted(looked) == sorted(f"{number}.wav" for number in range(20))


def test_what_cannot_be_taken_is_remembered_up_to_a_bound(tmp_path, monkeypatch):
    """A million symlinks must not fill the memory; a recording beside them is seen."""
    monkeypatch.setattr(upload_module, "TRACKED_MAX", 5)
    for number in range(20):
        (tmp_path / f"{number}.wav").symlink_to("/etc/hostname")
    tone(tmp_path / "real.wav", 0.01)
    told = []
    emitter = events.Emitter()
    emitter.subscribe(told.append)
    inbox = Inbox(tmp_path, OPTIONS, Notes(), emitter)
    inbox.start()
    try:
        for now in (0.0, 0.1, 0.5):
            inbox.tick(now)
        upload = inbox.take(0.5)
    finally:
        inbox.stop()

    assert upload is not None
    assert upload.name == "real.wav"
    assert len(told) == 5


class Notes:
    """Nobody reads them."""

    def explain(self, name, size_bytes, reason):
        return name

    def unexplain(self, place):
        pass

    def stale_explanations(self):
        return iter(())
