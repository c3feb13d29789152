"""The inbox on a real directory, with a clock that the test owns and notes kept in memory."""

import contextlib
import dataclasses
import errno
import os
import sys
import types

import pytest
from support.daemon import tone
from support.options import INTAKE as OPTIONS

from whisperd.core import events
from whisperd.intake import upload as upload_module
from whisperd.intake import watch_health
from whisperd.intake.inbox import Inbox
from whisperd.intake.upload import UploadState
from whisperd.intake.watch import Hints, Watch
from whisperd.intake.writers import Sessions
from whisperd.spool.durable import Folder


class Notes:
    """Where a file waits and why, as a dictionary."""

    def __init__(self):
        self.now = {}
        self.written = 0

    def explain(self, name, size_bytes, reason):
        self.written += 1
        self.now[name] = (size_bytes, reason)
        return name

    def unexplain(self, place):
        self.now.pop(place, None)

    def explanation_of(self, name):
        return name if name in self.now else None

    def stale_explanations(self):
        return iter(())


class Play:
    """An inbox and the time that passes over it."""

    def __init__(self, path, options=OPTIONS):
        self.path = path
        self.now = 1000.0
        self.notes = Notes()
        self.told = []
        emitter = events.Emitter()
        emitter.subscribe(self.told.append)
        self.inbox = Inbox(path, options, self.notes, emitter)
        self.inbox.start()

    def pass_time(self, seconds, step=0.25):
        """Let time pass in steps; returns what was taken, by name."""
        taken = []
        for _ in range(round(seconds / step) + 1):
            self.inbox.tick(self.now)
            while (upload := self.inbox.take(self.now)) is not None:
                (self.path / upload.name).unlink()
                self.inbox.claimed(upload.name)
                taken.append(upload.name)
            self.now += step
        return taken

    def events(self, kind):
        return [event for event in self.told if isinstance(event, kind)]

    def reason(self, name):
        return self.notes.now.get(name, (None, None))[1]


@pytest.fixture(autouse=True)
def nobody_is_connected(monkeypatch):
    """Whoever runs these tests over SSH owns the uploads."""
    monkeypatch.setattr(Sessions, "is_connected", lambda self, uid: False)


@pytest.fixture
def play(tmp_path):
    (tmp_path / "inbox").mkdir()
    playing = Play(tmp_path / "inbox")
    yield playing
    playing.inbox.stop()


def test_folders_take_turns_and_within_one_the_first_comes_first(play):
    """Whoever drops a thousand files delays the others by one each."""
    for name in ("alice/1.wav", "alice/2.wav", "alice/3.wav", "bob/1.wav"):
        tone(play.path / name, 0.1)

    assert play.pass_time(1.0) == ["alice/1.wav", "bob/1.wav", "alice/2.wav", "alice/3.wav"]


def test_a_note_follows_after_two_seconds_and_goes_with_the_file(play):
    """Not at once: most files are taken before anybody could read it."""
    with tone(play.path / "a.wav").open("r+b"):
        play.pass_time(1.5)
        assert play.notes.now == {}
        play.pass_time(1.0)
        assert play.reason("a.wav") == "still open for writing"

    assert play.pass_time(31.0) == ["a.wav"]
    assert play.notes.now == {}


def test_a_ticket_is_known_while_it_is_there(play):
    """In whatever case: by an event and by the scan, and forgotten by either."""
    (play.path / "_Whisperd.YML").write_text("language: fr\n")
    (play.path / "a.wav.YAML").write_text("language: fr\n")
    play.pass_time(3.0)
    assert set(play.inbox.tickets) == {"_Whisperd.YML", "a.wav.YAML"}
    assert set(play.notes.now) == {"a.wav.YAML"}

    (play.path / "a.wav.YAML").unlink()
    play.pass_time(0.25)
    assert set(play.inbox.tickets) == {"_Whisperd.YML"}

    play.inbox.stop()  # from here on nothing but the scan tells of anything
    (play.path / "_Whisperd.YML").rename(play.path / "_whisperd.YML")
    play.pass_time(31.0)
    assert set(play.inbox.tickets) == {"_whisperd.YML"}


def test_a_note_that_stays_true_is_not_written_again(play):
    """A storm of files must not become a storm of notes."""
    with tone(play.path / "a.wav").open("r+b"):
        play.pass_time(60.0)

    assert play.notes.written == 1


def test_of_many_files_a_bounded_number_of_notes_is_written_a_turn(play, monkeypatch):
    """The rest follow in the turns after."""
    monkeypatch.setattr("whisperd.intake.explain.WRITTEN_PER_TICK", 3)
    for number in range(8):
        (play.path / f"{number}.wav").write_bytes(tone(play.path / ".x.wav").read_bytes()[:500])
    play.inbox.tick(play.now)
    counts = []
    for turn in range(4):
        play.inbox.tick(play.now + 2.5 + turn)
        counts.append(play.notes.written)

    assert counts == [3, 6, 8, 8]


def test_complete_files_say_what_holds_them(play):
    """The queue is full, or the disk."""
    tone(play.path / "a.wav")
    for _ in range(12):
        play.inbox.tick(play.now)
        play.inbox.hold("the queue is full, 100 before it")
        play.now += 0.25

    assert play.reason("a.wav") == "the queue is full, 100 before it"
    assert play.pass_time(0.0) == ["a.wav"]


def test_what_cannot_be_taken_is_said_once(play):
    """A symlink is named in one event and in a note for as long as it is there."""
    (play.path / "a.wav").symlink_to("/etc/hostname")
    play.pass_time(100.0, step=1.0)
    assert len(play.events(events.UploadRefused)) == 1
    assert "symlink" in play.reason("a.wav")

    (play.path / "a.wav").unlink()
    play.pass_time(1.0)
    assert play.notes.now == {}


def test_what_is_no_recording_stays_and_its_note_goes_with_it(play):
    """It is named in one event, and keeps nobody from ending: nothing about it will change by itself."""
    (play.path / "notes.txt").write_text("Ask her about the budget.")
    taken = play.pass_time(100.0, step=1.0)

    assert (taken, len(play.events(events.UploadRefused))) == ([], 1)
    assert "no recording" in play.reason("notes.txt")
    assert play.inbox.is_empty()

    (play.path / "notes.txt").rename(play.path / "pages.txt")
    play.pass_time(3.0)
    assert list(play.notes.now) == ["pages.txt"]
    (play.path / "pages.txt").unlink()
    play.pass_time(1.0)
    assert play.notes.now == {}


def test_a_folder_named_like_a_recording_is_said_once(play):
    """It is no upload; what is in it is."""
    (play.path / "a.wav").mkdir()
    tone(play.path / "a.wav/b.wav")
    taken = play.pass_time(100.0, step=1.0)

    assert (taken, len(play.events(events.UploadRefused))) == (["a.wav/b.wav"], 1)


def test_a_stalled_upload_is_named_once(play):
    """After ten minutes without a byte."""
    whole = tone(play.path / ".whole.wav").read_bytes()
    (play.path / "a.wav").write_bytes(whole[:9000])
    play.pass_time(1800.0, step=5.0)

    (stalled,) = play.events(events.UploadStalled)
    assert (stalled.name, stalled.reason) == ("a.wav", "header promises 32 kB, 9.0 kB here")
    assert 600 <= stalled.quiet_seconds < 660


def test_a_reload_is_no_reason_to_poll(play):
    """The first scan afterwards meets files afresh that were told of before: here three that go on waiting."""
    with contextlib.ExitStack() as writers:
        for name in ("a.wav", "b.wav", "c.wav"):
            writers.enter_context(tone(play.path / name).open("r+b"))
        play.pass_time(1.0)
        play.inbox.configure(OPTIONS.evolve(rescan_seconds=OPTIONS.rescan_seconds + 1))
        play.pass_time(40.0)

        assert play.events(events.PollingStarted) == []


def test_what_a_scan_alone_finds_switches_to_polling(play, monkeypatch):
    """Files made on another machine give no event here: a few are proof enough, and the log says so."""
    play.pass_time(1.0)
    monkeypatch.setattr(Watch, "drain", lambda self: Hints())
    monkeypatch.setattr(Watch, "is_proven", lambda self, now: True)
    for number in range(3):
        tone(play.path / f"{number}.wav")
    play.pass_time(60.0, step=1.0)

    (polling,) = play.events(events.PollingStarted)
    assert "no event told of" in polling.reason
    tone(play.path / "late.wav")
    assert play.pass_time(20.0, step=1.0) == ["late.wav"]


def test_files_that_events_tell_of_are_no_reason_to_poll(play):
    """However the scan and the events race."""
    for turn in range(40):
        tone(play.path / f"{turn}/{turn}.wav", 0.01)
        play.pass_time(3.0, step=1.0)

    assert play.told == []


def test_a_watch_without_proof_of_life_is_replaced_and_then_given_up(play, monkeypatch):
    """Once may be chance."""
    play.pass_time(1.0)
    monkeypatch.setattr(Watch, "is_proven", lambda self, now: False)
    play.pass_time(10.0)

    assert play.told == [
        events.WatchRearmed("no event came for a file made there"),
        events.PollingStarted("its events do not arrive"),
    ]


def test_a_network_filesystem_is_polled_from_the_start_and_needs_more_quiet(tmp_path, monkeypatch):
    """Neither events nor leases tell of what another machine does."""
    monkeypatch.setattr(watch_health, "remote_name", lambda path: "NFS")
    playing = Play(tmp_path)
    tone(tmp_path / "a.wav")

    assert playing.pass_time(9.5) == []
    assert playing.pass_time(6.0) == ["a.wav"]
    (polling,) = playing.events(events.PollingStarted)
    assert "on NFS" in polling.reason
    assert playing.inbox.waitables() == []


def test_without_a_free_inotify_instance_the_inbox_is_polled(tmp_path, monkeypatch):
    """Many programs share fs.inotify.max_user_instances; that is no reason not to start."""

    def full(inbox):
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(watch_health, "Watch", full)
    playing = Play(tmp_path)
    tone(tmp_path / "a.wav")

    assert playing.pass_time(16.0) == ["a.wav"]
    (polling,) = playing.events(events.PollingStarted)
    assert "max_user_instances" in polling.reason


def test_past_the_bound_files_wait_unseen_but_nobody_is_shut_out(play, monkeypatch):
    """Memory is bounded; a folder with few files is seen however many another has."""
    monkeypatch.setattr(upload_module, "TRACKED_MAX", 5)
    monkeypatch.setattr(upload_module, "FOLDER_SHARE", 2)
    for number in range(20):
        tone(play.path / f"alice/{number:02}.wav", 0.01)
    tone(play.path / "bob/1.wav", 0.01)
    play.inbox.tick(play.now)
    assert len(play.inbox) <= 6

    taken = play.pass_time(200.0, step=1.0)
    assert len(taken) == 21
    assert "bob/1.wav" in taken[:2]


def test_nothing_is_left_to_wait_for_when_only_held_back_files_remain(play):
    """What `run --once` asks: a file that is open, or has a companion, could keep it for ever."""
    (play.path / "a.wav.part").touch()
    tone(play.path / "a.wav")
    play.inbox.tick(play.now)
    assert not play.inbox.is_empty()

    play.pass_time(1.0)
    assert play.inbox.is_empty()


def test_a_file_first_seen_empty_and_filled_later_is_taken_after_the_usual_time(play):
    """The long wait is for what stays empty; a browser's placeholder that gets its data is an upload like any other."""
    (play.path / "a.wav").touch()
    assert play.pass_time(10.0) == []
    assert "still empty" in play.reason("a.wav")

    tone(play.path / "a.wav")
    assert play.pass_time(0.5) == ["a.wav"]


def test_reloads_do_not_keep_an_upload_from_being_taken(play):
    """With a reload every second, each of which began the quiet time anew, nothing was ever taken."""
    play.inbox.configure(OPTIONS.evolve(settle_seconds=3.0, settle_seconds_proven=3.0))
    tone(play.path / "a.wav")

    taken = []
    for turn in range(8):
        taken += play.pass_time(0.75)
        changed = 3.0 + (turn % 2) / 10
        play.inbox.configure(OPTIONS.evolve(settle_seconds=changed, settle_seconds_proven=changed))

    assert taken == ["a.wav"]


def test_reloads_do_not_keep_a_truncated_upload_from_failing(play):
    """It counts as abandoned after a time without a change, and a reload is no change."""
    (play.path / "a.wav").write_bytes(tone(play.path.parent / "whole.wav").read_bytes()[:9000])
    taken = []
    for turn in range(60):
        taken += play.pass_time(OPTIONS.truncated_seconds / 40, OPTIONS.truncated_seconds / 40)
        play.inbox.configure(OPTIONS.evolve(rescan_seconds=OPTIONS.rescan_seconds + turn % 2))

    assert taken == ["a.wav"]


def test_a_file_that_a_reload_makes_ignored_is_not_taken(play):
    """Though it was about to be: it is forgotten at once, not by the next scan."""
    with tone(play.path / "a.wav").open("r+b"):
        play.pass_time(3.0)
        play.inbox.configure(OPTIONS.evolve(ignore=("a.*",)))

    assert play.pass_time(5.0) == []
    assert len(play.inbox) == 0
    assert play.reason("a.wav") is None


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(None, id="gone"),
        pytest.param(types.SimpleNamespace(), id="without its functions"),
        pytest.param(types.SimpleNamespace(inotify_init=lambda flags: flags), id="with another signature"),
    ],
)
def test_a_watchdog_that_has_changed_leaves_the_scan(tmp_path, monkeypatch, module):
    """Its binding to inotify is private: without it uploads come in by polling, and one line says what to do."""
    monkeypatch.setitem(sys.modules, "watchdog.observers.inotify_c", module)
    (tmp_path / "inbox").mkdir()
    playing = Play(tmp_path / "inbox")
    tone(playing.path / "a.wav")

    assert playing.pass_time(30.0) == ["a.wav"]
    (told,) = playing.events(events.PollingStarted)
    assert "pip install 'watchdog" in told.reason
    playing.inbox.stop()


def test_a_folder_that_cannot_be_read_stops_no_other(play, monkeypatch):
    """An I/O error in one folder ended each scan of the whole inbox; it is named once, and tried again."""
    (play.path / "bad").mkdir()
    (play.path / "good").mkdir()
    bad, scandir = (play.path / "bad").stat().st_ino, os.scandir

    def faulty(fd):
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", faulty)
        patch.setattr(Watch, "drain", lambda self: Hints())
        tone(play.path / "good/a.wav")
        assert play.pass_time(70.0) == ["good/a.wav"]
        assert [event.name for event in play.events(events.UploadRefused)] == ["bad"]

    tone(play.path / "bad/b.wav")
    assert play.pass_time(70.0) == ["bad/b.wav"]
    assert play.reason("bad") is None
    assert [event.name for event in play.events(events.ReadableAgain)] == ["bad"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN], ids=errno.errorcode.get)
def test_a_file_below_a_folder_that_fails_keeps_its_clocks(play, monkeypatch, error):
    """Each scan forgot it, and each look counted as a change: it had to settle again, and its note was removed."""
    play.inbox.configure(OPTIONS.evolve(rescan_seconds=5.0))
    (play.path / "bad").mkdir()
    with tone(play.path / "bad/a.wav").open("r+b"):
        play.pass_time(20.0)
        known = play.inbox._uploads.get("bad/a.wav")
        before = known.first_seen, known.quiet_since
        bad, folder = (play.path / "bad").stat().st_ino, Folder.__init__

        def failing(self, root, parts=(), **options):
            folder(self, root, parts, **options)
            if os.fstat(self.fd).st_ino == bad:
                os.close(self.fd)
                raise OSError(error, os.strerror(error))

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "__init__", failing)
            play.pass_time(30.0)
            assert [(event.name, event.is_unread) for event in play.events(events.UploadRefused)] == [("bad", True)]
            assert play.reason("bad/a.wav") is not None

        play.pass_time(10.0)
        known = play.inbox._uploads.get("bad/a.wav")
        assert (known.first_seen, known.quiet_since) == before
    assert play.pass_time(20.0) == ["bad/a.wav"]


def state_of(play, name):
    return play.inbox._uploads.get(name).state


def test_each_upload_is_one_record_with_a_state(play):
    """From first sight until it is claimed, and why it is not."""
    whole = tone(play.path.parent / "whole.wav").read_bytes()
    (play.path / "link.wav").symlink_to("/etc/hostname")
    (play.path / "short.wav").write_bytes(whole[:9000])
    (play.path / "whole.wav").write_bytes(whole)
    with (play.path / "open.wav").open("wb") as file:
        file.write(whole)
        file.flush()
        play.inbox.tick(play.now)
        assert state_of(play, "whole.wav") is UploadState.SEEN
        assert state_of(play, "link.wav") is UploadState.REFUSED
        play.now += 1.0
        play.inbox.tick(play.now)
        assert state_of(play, "whole.wav") is UploadState.READY
        assert play.pass_time(1.0) == ["whole.wav"]
        assert "whole.wav" not in play.inbox._uploads
        assert state_of(play, "short.wav") is UploadState.SETTLING
        assert state_of(play, "open.wav") is UploadState.HELD


def test_to_explain_why_a_file_waits_changes_nothing(play):
    """While the queue is full each that is ready is looked at for its status file, and stays ready."""
    tone(play.path / "whole.wav")
    (play.path / "short.wav").write_bytes(tone(play.path.parent / "whole.wav").read_bytes()[:9000])
    play.inbox.tick(play.now)
    play.now += 1.0
    play.inbox.tick(play.now)
    play.inbox.hold("the queue is full")
    before = [dataclasses.replace(upload, explanation=None) for upload in play.inbox._uploads]
    described = {upload.name: play.inbox._describe(upload, play.now)[1] for upload in play.inbox._uploads}
    after = [dataclasses.replace(upload, explanation=None) for upload in play.inbox._uploads]

    assert described["whole.wav"] == "the queue is full"
    assert described["short.wav"].startswith("header promises")
    assert list(map(dataclasses.astuple, before)) == list(map(dataclasses.astuple, after))
    assert all(upload.state is UploadState.READY for upload in play.inbox._uploads)


def test_samples_of_known_voices_stay_where_they_are(play):
    """In whatever folder and case; nothing waits for them, and nobody is told that they wait."""
    for name in ("_voices/Anna.wav", "alice/_Voices/Ben.wav", "alice/_voices/old/Eve.wav", "alice/a.wav"):
        (play.path / name).parent.mkdir(parents=True, exist_ok=True)
        tone(play.path / name, 0.1)

    assert play.pass_time(40.0) == ["alice/a.wav"]
    tone(play.path / "_voices/Zoe.wav", 0.1)
    assert play.pass_time(40.0) == []
    assert sorted(path.name for path in play.path.rglob("*.wav")) == ["Anna.wav", "Ben.wav", "Eve.wav", "Zoe.wav"]
    assert play.notes.now == {}
    assert play.inbox.is_empty()
