"""A storm: thousands of small files and whole folders at once, with room for a few events only in the kernel's queue."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest
from support.arrivals import recording
from support.daemon import Daemon, at_work

FILES = int(os.environ.get("WHISPERD_TEST_STORM_FILES", "1000"))  # 10000 take some minutes
FOLDERS = 20
EVENTS_QUEUED = Path("/proc/sys/fs/inotify/max_queued_events")
SETTINGS = {"pool": {"workers": 2, "queue_size": 100}, "intake": {"rescan_seconds": 5.0}}


@pytest.fixture
def short_queue():
    """The kernel keeps 16 events for each watch that is set up from now on; it has 16384 otherwise."""
    if not os.access(EVENTS_QUEUED, os.W_OK):
        pytest.skip("fs.inotify.max_queued_events cannot be set here")
    before = EVENTS_QUEUED.read_text()
    EVENTS_QUEUED.write_text("16")
    yield
    EVENTS_QUEUED.write_text(before)


def digests(folder):
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.timeout(60 + FILES)
def test_every_file_of_a_storm_is_done_once(tmp_path, short_queue):
    """Half come as files, half in folders that are moved in, some of them from one place in the inbox to another."""
    sound = recording(tmp_path / "sound.wav", seconds=0.1)
    contents = [sound.data[:-4] + number.to_bytes(4, "little") for number in range(FILES)]
    expected = Counter(hashlib.sha256(content).hexdigest() for content in contents)
    with Daemon(tmp_path / "spool", SETTINGS) as daemon:
        daemon.wait_ready()
        for number, content in enumerate(contents[: FILES // 2]):
            (daemon.inbox / f"{number}.wav").write_bytes(content)
        for number, content in enumerate(contents[FILES // 2 :]):
            folder = tmp_path / f"outside/{number % FOLDERS}/deep"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.wav").write_bytes(content)
        for number in range(FOLDERS):
            moved = (tmp_path / f"outside/{number}").rename(daemon.inbox / f"folder-{number}")
            if number % 2:
                moved.rename(daemon.inbox / f"renamed-{number}")
        daemon.wait(
            lambda: sum(len(files) for _, _, files in os.walk(daemon.done)) >= FILES,
            within_seconds=float(FILES),
            what="all in done/",
        )

        assert digests(daemon.done) == expected
        assert digests(daemon.inbox) == digests(daemon.failed) == Counter()
        daemon.wait(lambda: not at_work(daemon.root), what="an empty .work")
        assert sum(": claimed," in line for line in daemon.lines) == FILES
        assert daemon.logged("events were lost")
        assert daemon.errors() == []
