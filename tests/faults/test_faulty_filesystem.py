"""Whole daemons on a filesystem that fails, by errno, operation and place: they wait, and everything ends as if it had not."""

import contextlib
import dataclasses
import errno
import os
import signal

import pytest
from support.daemon import Daemon, at_work, tone
from support.faulty_fs import HANG, OPERATIONS, FaultyFs, unavailable
from support.invariants import check_spool

from whisperd.spool import status_file

reason = unavailable()
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)

ERRORS = (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT)
PLACES = {"anywhere": "*", "of the worker": "/.work/*/[ao]*"}  # audio.s16le, original.wav, outputs
SETTINGS = {"intake": {"poll_seconds": 0.3, "rescan_seconds": 600.0}}
WITHIN_SECONDS = 60.0


@dataclasses.dataclass
class Lane:
    """One daemon on a mount of its own, what fails there, and what was uploaded."""

    fs: FaultyFs
    daemon: Daemon
    error: int
    path: str
    uploads: dict

    def upload(self, name):
        """As another machine would: it has its own way to the disk."""
        path = tone(self.fs.behind / "inbox" / f".{name}", 0.3, frequency=200.0 + 7 * len(self.uploads))
        self.uploads[name] = path.read_bytes()
        path.rename(path.with_name(name))

    def sidecar(self, name):
        with contextlib.suppress(FileNotFoundError):
            return status_file.decode((self.fs.behind / f"outbox/{name}.status.json").read_bytes())

    def is_done(self, name):
        return (self.fs.behind / "done" / name).exists() and not at_work(self.fs.behind)

    def await_done(self, name):
        self.daemon.wait(lambda: self.is_done(name), within_seconds=WITHIN_SECONDS, what=f"{name} in done/, {self}")

    def __str__(self):
        return f"with {errno.errorcode.get(self.error)} at {self.path}"


@contextlib.contextmanager
def lane(ground, error=0, path="*", *, noreplace=True, environment=None, settings=SETTINGS):
    with FaultyFs(ground, noreplace=noreplace) as fs, Daemon(fs.root, settings, environment) as daemon:
        yield Lane(fs, daemon, error, path, {})


@pytest.fixture(scope="module")
def lanes(tmp_path_factory):
    """One for each errno and each place, since most of a fault is waiting."""
    with contextlib.ExitStack() as stack:
        ground = tmp_path_factory.mktemp("lanes")
        lanes = [
            stack.enter_context(lane(ground / f"{errno.errorcode[error]}-{number}", error, path))
            for error in ERRORS
            for number, path in enumerate(PLACES.values())
        ]
        for each in lanes:
            each.daemon.wait_ready()
        yield lanes


def is_met(each, operation):
    """Whether the daemon came upon what fails; a worker makes no links and reads no directories."""
    return any(hit.startswith(operation) for hit in each.fs.hits()) or each.is_done(f"{operation}.wav")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_fails_for_a_while_costs_no_job_an_attempt(lanes, operation):
    """The upload waits where it is, is tried again once nothing fails, and is completed by one attempt that counts."""
    name = f"{operation}.wav"
    for each in lanes:
        each.fs.fail(operation, each.error, each.path)
        each.upload(name)
    for each in lanes:
        each.daemon.wait(lambda each=each: is_met(each, operation), what=f"{operation} {each}")
    for each in lanes:
        each.fs.heal()
    for each in lanes:
        each.await_done(name)

    assert [(str(each), each.sidecar(name)["attempts"]) for each in lanes] == [(str(each), 1) for each in lanes]
    assert [each.daemon.process.poll() for each in lanes] == [None] * len(lanes)


def test_a_filesystem_that_hangs_is_waited_for(lanes):
    """As a hard NFS mount does while its server is away; the service manager's watchdog sees to a wait without end."""
    for each in lanes:
        each.fs.fail("write", HANG, each.path)
        each.upload("hang.wav")
    for each in lanes:
        each.daemon.wait(lambda each=each: is_met(each, "write"), what=f"the hang {each}")
        each.fs.heal()
    for each in lanes:
        each.await_done("hang.wav")


def test_after_all_of_it_every_spool_is_in_order(lanes):
    """One upload in one place, with its transcripts; the journal has named each error, and says that it is waited for."""
    for each in lanes:
        assert each.daemon.stop() == 0
        each.daemon.once = True
        each.daemon.start()  # what could not be removed goes now
    for each in lanes:
        assert each.daemon.wait_exit() == 0

    assert {str(each): check_spool(each.fs.behind, each.uploads) for each in lanes} == {str(each): [] for each in lanes}
    for each in lanes:
        said = "\n".join(line for line in each.daemon.lines if os.strerror(each.error) in line)
        assert "no attempt is counted" in said or "claiming then continues" in said


def test_a_move_by_link_and_unlink_that_is_cut_off_doubles_nothing(tmp_path):
    """As on sshfs, without RENAME_NOREPLACE and without inode numbers: of a claim, of either transcript, of the end."""
    moves = ("claim", "first transcript", "second transcript", "original")
    with contextlib.ExitStack() as stack:
        lanes = [
            stack.enter_context(
                lane(
                    tmp_path / str(n),
                    noreplace=False,
                    environment={"WHISPERD_FAILPOINT": f"move.after_link:{n}"},
                    settings=SETTINGS | {"pages": {"index": False}},  # which would be the first to be moved
                )
            )
            for n in range(1, len(moves) + 1)
        ]
        for each in lanes:
            each.daemon.wait_ready()
            each.upload("a.wav")
        for each in lanes:
            assert each.daemon.wait_exit() == -signal.SIGKILL
            each.daemon.environment = {}
            each.daemon.start()
        for each in lanes:
            each.await_done("a.wav")
            each.daemon.stop()

        problems = [check_spool(each.fs.behind, each.uploads) for each in lanes]
        assert dict(zip(moves, problems, strict=True)) == {move: [] for move in moves}


FOLDER_FAULTS = [
    (operation, error, is_first)
    for operation, error in (
        ("opendir", errno.EIO),
        ("readdir", errno.EIO),
        ("readdir", errno.ESTALE),
        ("stat", errno.EIO),
    )
    for is_first in (True, False)
]


def banner_of(each):
    """What the overview page warns of."""
    with contextlib.suppress(FileNotFoundError):
        page = (each.fs.behind / "outbox/index.html").read_text()
        return page.partition('class="banner"')[2].partition("</p>")[0]
    return ""


def test_a_folder_that_cannot_be_read_holds_up_nothing_else(tmp_path):
    """There at the start it ended each scan of the inbox, arriving later the daemon: it is named, and tried again."""
    with contextlib.ExitStack() as stack:
        lanes = []
        for number, (operation, error, is_first) in enumerate(FOLDER_FAULTS):
            fs = stack.enter_context(FaultyFs(tmp_path / str(number)))
            daemon = Daemon(fs.root, SETTINGS | {"intake": {"poll_seconds": 0.3, "rescan_seconds": 1.0}})
            each = Lane(fs, daemon, error, operation, {})
            if is_first:
                (fs.behind / "inbox/bad").mkdir(parents=True)
                fs.fail(operation, error, "/inbox/bad*")
            stack.enter_context(daemon)
            lanes.append((each, is_first))
        for each, is_first in lanes:
            each.daemon.wait_ready()
            if not is_first:
                each.fs.fail(each.path, each.error, "/inbox/bad*")
                (each.fs.behind / "inbox/bad").mkdir()
            each.upload("good.wav")
            tone(each.fs.behind / "inbox/bad/late.wav", 0.3)
        for each, _ in lanes:
            each.await_done("good.wav")
            each.daemon.wait(lambda each=each: "inbox/bad:" in banner_of(each), what=f"the name on the page, {each}")
            assert os.strerror(each.error) in banner_of(each)
            each.daemon.wait(lambda each=each: each.sidecar("bad"), what=f"the status file {each}")
            assert os.strerror(each.error) in each.sidecar("bad")["reason"]
            each.daemon.wait(lambda each=each: len(each.fs.hits()) > 3, what=f"more tries {each}")
            each.fs.heal()
        for each, _ in lanes:
            each.await_done("bad/late.wav")
            each.daemon.wait(lambda each=each: not banner_of(each), what=f"the end of the warning {each}")
            named = [line for line in each.daemon.lines if os.strerror(each.error) in line]
            assert len(named) == 1
            assert f"bad: not claimed, it cannot be read: {os.strerror(each.error)}; look into its disk" in named[0]
            assert each.daemon.logged("bad: it can be read again")
            assert each.daemon.process.poll() is None
