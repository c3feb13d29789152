"""Uploads and results over Samba: a real smbd with the shipped share, smbclient, and a client that does as Explorer does."""

import contextlib
import os
import stat
import time

import pytest
import smbclient
from smbprotocol.exceptions import SMBResponseException
from support.arrivals import PAUSE_SECONDS, claims, fed, not_taken, recording, taken_once
from support.explorer import keep_for_oneself, set_date
from support.shared_spool import SharedSpool, needs, run
from support.smbd import Smbd

pytestmark = needs("smbd", "smbclient", "smbpasswd", "testparm")

INBOX = "cd inbox"
UNC = r"\\127.0.0.1\whisperd"


@pytest.fixture(scope="module")
def spool():
    with SharedSpool() as spool:
        yield spool


@pytest.fixture(scope="module")
def smbd(spool):
    with Smbd(spool) as smbd:
        smbd.admit(spool.member)
        yield smbd


@pytest.fixture(scope="module")
def daemon(spool, smbd):
    return spool.daemon


@pytest.fixture
def alice(spool, smbd):
    return spool.member


@pytest.fixture
def sound(alice, request):
    return recording(alice.home / f"{request.node.name}.wav", seconds=4.0)


@pytest.fixture
def name(sound):
    return sound.path.name


def test_put(daemon, smbd, alice, sound, name):
    """An ordinary upload of a file that is complete when it is closed."""
    smbd.client(alice, INBOX, f"put {name}")

    assert taken_once(daemon, name, sound)


@pytest.mark.parametrize("streamed", [False, True], ids=["sized", "streamed"])
def test_slow_put(daemon, smbd, alice, streamed):
    """A client that gets its bytes from a pipe, with pauses: not taken while smbd has it open, whatever its header says."""
    name = f"slow-{streamed}.wav"
    sound = recording(alice.home / name, seconds=10.0, streamed=streamed)
    client = smbd.start_client(alice, INBOX, f"put - {name}")
    with client:
        fed(client.stdin, sound.data, 4, lambda: not_taken(daemon, name, "still open for writing"))

    assert taken_once(daemon, name, sound)


def test_aborted_put(daemon, smbd, alice, name):
    """The client dies: what came so far is never taken as a whole recording, and a second try is."""
    sound = recording(alice.home / name, seconds=10.0)
    with smbd.start_client(alice, INBOX, f"put - {name}") as client:
        client.stdin.write(sound.data[:200_000])
        client.stdin.flush()
        assert not_taken(daemon, name, "still open for writing")
        client.kill()
    assert not_taken(daemon, name, "header promises 320 kB")

    smbd.client(alice, INBOX, f"put {name}")
    assert taken_once(daemon, name, sound)


@pytest.mark.parametrize("temporary", [".upload", "upload.part", "~$upload"])
def test_put_and_rename(daemon, smbd, alice, temporary):
    """Programs that upload under a name of their own: it is taken under its last name only."""
    sound = recording(alice.home / "upload.wav")
    final = f"final{len(temporary)}.wav"
    smbd.client(alice, INBOX, f'put upload.wav "{temporary}"')
    time.sleep(PAUSE_SECONDS)
    assert claims(daemon, temporary) == 0
    smbd.client(alice, INBOX, f'rename "{temporary}" {final}')

    assert taken_once(daemon, final, sound)


def test_put_of_a_whole_folder(daemon, smbd, alice):
    """Folders are made and filled at once: nothing in them is missed, at any depth."""
    names = ["mput/1.wav", "mput/2.wav", "mput/a/3.wav", "mput/a/b/c/4.wav"]
    sounds = {name: recording(alice.home / name) for name in names}
    smbd.client(alice, INBOX, "recurse", "prompt", "mput mput")

    for name, sound in sounds.items():
        assert taken_once(daemon, name, sound)


@pytest.mark.parametrize("when", ["in_progress", "completed"])
def test_put_of_the_same_name_again(spool, daemon, smbd, alice, when):
    """Another recording under a name that was used before is another job; the first one is not disturbed."""
    name = f"again-{when}.wav"
    spool.set_engine("slow:1" if when == "in_progress" else "ok")
    first, second = (recording(alice.home / f"{part}.wav") for part in ("first", "second"))
    smbd.client(alice, INBOX, f"put first.wav {name}")
    daemon.wait(lambda: daemon.status(name) == when, what=f"the first one {when}")
    smbd.client(alice, INBOX, f"put second.wav {name}")
    spool.set_engine("ok")

    assert taken_once(daemon, name, second, as_name=name.replace(".wav", "-2.wav"))
    assert daemon.sidecar(name)["sha256"] == first.sha256
    assert daemon.status(name) == "completed"


def test_overwritten_before_it_is_taken(daemon, smbd, alice, name, sound):
    """A broken upload is repeated: the file in the inbox gets new content, and only that is taken."""
    (alice.home / "broken.wav").write_bytes(recording(alice.home / "broken.wav", seconds=9.0).data[:50_000])
    smbd.client(alice, INBOX, f"put broken.wav {name}")
    assert not_taken(daemon, name, "header promises 288 kB, 50 kB here")
    smbd.client(alice, INBOX, f"put {name}")

    assert taken_once(daemon, name, sound)


def test_a_client_that_reserves_the_full_size_first(daemon, smbd, alice):
    """As Explorer copies: the size from the first moment, then the data, and the old date of the file before it is closed."""
    name = "explorer.wav"
    sound = recording(alice.home / name, seconds=10.0, streamed=True)
    path = rf"{UNC}\inbox\{name}"
    with smbclient.open_file(path, mode="wb", share_access="r", **smbd.login(alice)) as file:
        file.truncate(len(sound.data))
        file.seek(0)
        assert not_taken(daemon, name, "still open for writing")
        assert (daemon.inbox / name).stat().st_size == len(sound.data)
        fed(file, sound.data, 4, lambda: not_taken(daemon, name, "still open for writing"))
        set_date(file, 1_000_000_000)
        assert not_taken(daemon, name, "still open for writing")

    assert taken_once(daemon, name, sound)
    assert (daemon.done / name).stat().st_mtime == 1e9


def test_results_can_be_read_and_deleted(daemon, smbd, alice):
    """Whoever may upload may also take and remove transcripts, in folders too."""
    sound = recording(alice.home / "mine/results.wav")
    smbd.client(alice, INBOX, "recurse", "prompt", "mput mine")
    assert taken_once(daemon, "mine/results.wav", sound)
    smbd.client(alice, r"cd outbox\mine", "get results.txt")

    assert (alice.home / "results.txt").read_text().strip() == sound.text
    smbd.client(alice, r"cd outbox\mine", "del results.*", "cd ..", "rmdir mine")
    assert not (daemon.outbox / "mine").exists()


def test_originals_can_be_read_and_deleted(daemon, smbd, alice, name, sound):
    """Those that were transcribed and those that failed; a read-only one too, as it comes from a memory card."""
    (alice.home / "nonsense.wav").write_bytes(b"nonsense" * 1000)
    smbd.client(alice, INBOX, f"put {name}", f"setmode {name} +r", "put nonsense.wav")
    assert taken_once(daemon, name, sound)
    daemon.wait((daemon.failed / "nonsense.wav").exists, what="a failure")
    smbd.client(alice, "cd done", f"get {name} back.wav", f"del {name}", r"cd ..\failed", "get nonsense.wav back.txt")

    assert (alice.home / "back.wav").read_bytes() == sound.data
    assert (alice.home / "back.txt").read_bytes() == b"nonsense" * 1000
    assert not (daemon.done / name).exists()


def test_the_private_room_of_the_daemon(spool, smbd, alice):
    """`.work` neither shows nor opens, and the machine's own permissions say the same to an account with a shell."""
    assert ".work" not in smbd.client(alice, "ls")
    assert "NT_STATUS" in smbd.client(alice, "cd .work", check=False)
    assert "NT_STATUS" in smbd.client(alice, "mkdir .work/mine", check=False)
    assert "Permission denied" in alice.run("ls", spool.root / ".work", check=False).stdout


@pytest.mark.parametrize("command", ["put top.wav", "mkdir top", "rename inbox elsewhere", "rmdir done"])
def test_the_folders_themselves_stay_as_they_are(spool, smbd, alice, command):
    """Nobody can add to the top of the share, or take away from it."""
    recording(alice.home / "top.wav")
    before = sorted(os.listdir(spool.root))

    assert "NT_STATUS" in smbd.client(alice, command, check=False)
    assert sorted(os.listdir(spool.root)) == before


def test_what_arrives_is_open_to_the_group(daemon, spool, smbd, alice):
    """The daemon can read each file and take it out of each folder, however private it was on the client."""
    recording(alice.home / "private.wav").path.chmod(0o600)
    smbd.client(alice, INBOX, "mkdir ours", r"put private.wav ours\kept.part")
    arrived = [(daemon.inbox / name).stat() for name in ("ours", "ours/kept.part")]

    assert [f"{stat.S_IMODE(status.st_mode):o}" for status in arrived] == ["2770", "660"]
    assert {status.st_gid for status in arrived} == {spool.root.stat().st_gid}


def test_a_client_that_sets_permissions(daemon, smbd, alice):
    """As robocopy /COPYALL does: they do not shut the daemon out."""
    recording(alice.home / "mine.wav")
    smbd.client(alice, INBOX, "put mine.wav mine.part")
    path = daemon.inbox / "mine.part"
    with contextlib.suppress(SMBResponseException):
        keep_for_oneself(rf"{UNC}\inbox\mine.part", path.stat().st_uid, **smbd.login(alice))

    assert f"{stat.S_IMODE(path.stat().st_mode):o}" == "660"


def test_somebody_who_is_not_in_the_group(spool, smbd):
    """A Samba password alone does not open the share."""
    stranger = smbd.admit(spool.add_person("eve"))

    assert "NT_STATUS_ACCESS_DENIED" in smbd.client(stranger, "ls", check=False)


def test_samba_finds_nothing_to_complain_of(spool, smbd):
    """Its checker knows every parameter of the share and no combination that has no effect."""
    result = run("testparm", "-s", spool.ground / "smb.conf")

    assert "Loaded services file OK" in result.stdout
    assert not {"Unknown", "Invalid", "Ignoring", "deprecated"} & set(result.stdout.split())


def test_nothing_is_left_behind(daemon):
    """After all of that the daemon has had no error to report."""
    assert daemon.errors() == []
