"""Options without a shell: folders and tickets dropped into a real daemon, whose engine writes down what it was told."""

from __future__ import annotations

import array
import contextlib
import json
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from support.audio import encode
from support.daemon import Daemon, tone

ECHO = {"script": "echo"}
PROFILES = {
    "french/**": {"language": "fr"},
    "french/English/**": {"language": "en", "formats": ["txt", "srt"]},
    "subtitles/**": {"formats": ["srt"], "layout": "raw", "max_line_width": 42, "max_line_count": 2},
    "clever/**": {"model": "clever"},
}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@contextlib.contextmanager
def scripted(root, first):
    """A daemon whose engine reads at every call from a file what to do."""
    script = root.parent / "script"
    script.write_text(f"{first}\n")
    with Daemon(root, {"script": f"@{script}", "profiles": PROFILES}) as daemon:
        yield script, daemon


def upload(daemon, name, ticket=None, seconds=0.3):
    """The natural order: first the ticket, then the recording."""
    path = daemon.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if ticket is not None:
        path.with_name(f"{path.name}.yaml").write_text(ticket)
    tone(path, seconds)


def ended(daemon, name):
    """Its sidecar once the original has reached its room."""
    document = daemon.wait(
        lambda: (found := daemon.sidecar(name)) and found["status"] in {"completed", "failed"} and found,
        what=f"the end of {name}",
    )
    daemon.wait((daemon.root / document["original"]).exists, what=f"the original of {name}")
    return document


def told(daemon, name):
    """What the engine was told, for a recording that is transcribed now."""
    document = ended(daemon, name)
    assert document["status"] == "completed", document["error"]
    path = next(iter(document["outputs"].values()))
    return json.loads(next(line for line in (daemon.root / path).read_text().splitlines() if line.startswith("{")))


def whisperd(root, *arguments):
    command = [sys.executable, "-m", "whisperd", arguments[0], "--config", f"{root}.yaml", *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_folder_has_the_options_of_its_profiles(root):
    """All profiles that match count, later ones win key by key; what is not said stays as configured."""
    with Daemon(root, {**ECHO, "profiles": PROFILES}) as daemon:
        for name in ("plain.wav", "french/a.wav", "french/English/x/a.wav", "subtitles/a.wav"):
            upload(daemon, name)
        plain, french = told(daemon, "plain.wav"), told(daemon, "french/a.wav")
        english, subtitles = told(daemon, "french/English/x/a.wav"), told(daemon, "subtitles/a.wav")

        assert [each["language"] for each in (plain, french, english)] == [None, "fr", "en"]
        assert {**french, "language": None} == plain
        assert (plain["word_timestamps"], subtitles["word_timestamps"]) == (False, True)
        assert daemon.sidecar("plain.wav")["profile"] is None
        document = daemon.sidecar("french/English/x/a.wav")
        assert document["profile"] == "french/**, french/English/**"
        assert document["options"] == {"language": "en", "formats": ["txt", "srt"]}
        assert set(document["outputs"]) == {"txt", "srt"}
        assert [path.name for path in (root / "outbox/subtitles").iterdir() if "status" not in path.name] == ["a.srt"]


def test_a_ticket_counts_for_the_upload_beside_it(root):
    """It goes where the recording goes, and is no upload itself; the sidecar says that it was followed."""
    with Daemon(root, {**ECHO, "profiles": PROFILES}) as daemon:
        upload(daemon, "french/a.wav", "language: no\nvocabulary: [Åsa, Bodø]\nformats: [txt]\n")
        upload(daemon, "french/b.wav")
        first, second = told(daemon, "french/a.wav"), told(daemon, "french/b.wav")

        assert (first["language"], first["initial_prompt"]) == ("no", "Åsa, Bodø.")
        assert (second["language"], second["initial_prompt"]) == ("fr", None)
        assert daemon.sidecar("french/a.wav")["tickets"] == ["french/a.wav.yaml"]
        assert daemon.sidecar("french/b.wav")["tickets"] == []
        assert sorted(path.name for path in (root / "done/french").iterdir()) == ["a.wav", "a.wav.yaml", "b.wav"]
        assert list((root / "inbox/french").iterdir()) == []
        report = json.loads(whisperd(root, "status", "--json").stdout)
        assert (report["done"], report["inbox"]) == (2, [])


def test_the_ticket_of_a_folder_counts_for_the_folders_in_it_and_stays(root):
    """Nearer ones win, key by key, and the recording's own wins over all."""
    with Daemon(root, ECHO) as daemon:
        (root / "inbox/a/b").mkdir(parents=True)
        (root / "inbox/_whisperd.yaml").write_text("language: de\ntask: translate\nbeam_size: 2\n")
        (root / "inbox/a/b/_whisperd.yml").write_text("language: fr\n")
        upload(daemon, "a/b/x.wav", "beam_size: 3\n")
        upload(daemon, "y.wav")
        inner, outer = told(daemon, "a/b/x.wav"), told(daemon, "y.wav")

        assert (inner["language"], inner["task"], inner["beam_size"]) == ("fr", "translate", 3)
        assert (outer["language"], outer["task"], outer["beam_size"]) == ("de", "translate", 2)
        assert daemon.sidecar("a/b/x.wav")["tickets"] == ["_whisperd.yaml", "a/b/_whisperd.yml", "a/b/x.wav.yaml"]
        assert (root / "inbox/_whisperd.yaml").exists()
        assert (root / "inbox/a/b/_whisperd.yml").exists()


def test_a_bad_ticket_fails_its_recording_alone_and_a_retry_takes_it_along(root):
    """Before any work, with line and key of everything that is wrong; mended, it counts."""
    with Daemon(root, {**ECHO, "profiles": PROFILES}) as daemon:
        upload(daemon, "a.wav", "# mine\nlangage: fr\nbeam_size: many\nmodel: /etc/passwd\n")
        upload(daemon, "b.wav", "language: fr\n")
        document = ended(daemon, "a.wav")

        assert told(daemon, "b.wav")["language"] == "fr"
        assert (document["status"], document["attempts"], document["error"]["code"]) == ("failed", 0, "bad_ticket")
        message = document["error"]["message"]
        assert (
            "a.wav.yaml: line 2, column 1: langage: unknown key (did you mean language?); line 3, column 1: beam_size: "
            in message
        )
        assert "line 4, column 1: model: may not be set by a ticket" in message
        assert (root / "failed/a.wav.yaml").read_text().startswith("# mine")
        report = json.loads(whisperd(root, "status", "--json").stdout)
        assert [failure["name"] for failure in report["failed"]] == ["a.wav"]

        (root / "failed/a.wav.yaml").write_text("language: fi\n")
        assert whisperd(root, "retry", "a.wav").returncode == 0
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the second try")
        assert told(daemon, "a.wav")["language"] == "fi"
        assert sorted(
            path.name for path in root.glob("*/a.wav*") if path.parent.name in {"done", "failed", "inbox"}
        ) == [
            "a.wav",
            "a.wav.yaml",
        ]


def test_tickets_count_as_windows_and_phones_spell_them(root):
    """With capitals, and .yml; each goes with its recording, and a retry brings it back."""
    with Daemon(root, ECHO) as daemon:
        (root / "inbox/a").mkdir(parents=True)
        (root / "inbox/a/_Whisperd.yml").write_text("task: translate\n")
        (root / "inbox/a/talk.wav.YAML").write_text("language: fr\n")
        (root / "inbox/a/INTERVIEW.wav.Yml").write_text("langage: fr\n")
        upload(daemon, "a/talk.wav")
        upload(daemon, "a/Interview.WAV")

        assert (told(daemon, "a/talk.wav")["language"], told(daemon, "a/talk.wav")["task"]) == ("fr", "translate")
        assert daemon.sidecar("a/talk.wav")["tickets"] == ["a/_Whisperd.yml", "a/talk.wav.YAML"]
        assert (root / "done/a/talk.wav.YAML").exists()
        assert ended(daemon, "a/Interview.WAV")["error"]["code"] == "bad_ticket"
        assert [path.name for path in (root / "inbox/a").iterdir()] == ["_Whisperd.yml"]

        (root / "failed/a/Interview.WAV.Yml").write_text("language: fi\n")
        assert whisperd(root, "retry", "a/Interview.WAV").returncode == 0
        daemon.wait(lambda: daemon.status("a/Interview.WAV") == "completed", what="the second try")
        assert told(daemon, "a/Interview.WAV")["language"] == "fi"
        report = json.loads(whisperd(root, "status", "--json").stdout)
        assert (report["done"], report["failed"], report["inbox"]) == (2, [], [])


def test_two_tickets_for_one_recording_are_refused(root):
    """Both stay in the inbox, and the status file says which they are; with one of them gone the other counts."""
    with Daemon(root, ECHO) as daemon:
        daemon.wait_ready()
        (root / "inbox/a.wav.YAML").write_text("language: fr\n")
        upload(daemon, "a.wav", "language: de\n")
        error = ended(daemon, "a.wav")["error"]

        assert error["code"] == "bad_ticket"
        assert error["message"].startswith("ticket a.wav.YAML: the same recording has the ticket a.wav.yaml as well")
        assert "keep one of them in the inbox" in error["hint"]

        (root / "inbox/a.wav.YAML").unlink()
        assert whisperd(root, "retry", "a.wav").returncode == 0
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the second try")
        assert told(daemon, "a.wav")["language"] == "de"
        assert (root / "done/a.wav.yaml").exists()


def test_a_ticket_without_its_recording_stays_and_says_why(root):
    """Too late, or not yet: it is no upload, and counts for the next recording of its name."""
    with Daemon(root, ECHO) as daemon:
        upload(daemon, "a.wav")
        assert told(daemon, "a.wav")["language"] is None
        (root / "inbox/a.wav.yaml").write_text("language: fr\n")
        note = daemon.wait(lambda: daemon.sidecar("a.wav.yaml"), what="the note")

        assert note["status"] == "pending"
        assert "this is a ticket for a.wav, which is not in the inbox" in note["reason"]
        assert not any(line.startswith("<4>") for line in daemon.lines)

        (root / "done/a.wav").rename(root / "inbox/a.wav")
        assert told(daemon, "a-2.wav")["language"] == "fr"
        daemon.wait(lambda: daemon.sidecar("a.wav.yaml") is None, what="the end of the note")
        assert (root / "done/a-2.wav.yaml").exists()


def test_a_recording_waits_for_a_ticket_that_is_being_written(root):
    """Half a ticket would be followed, or fail the job."""
    with Daemon(root, ECHO) as daemon:
        daemon.wait_ready()
        with (root / "inbox/a.wav.yaml").open("w") as ticket:
            ticket.write("language: f")
            ticket.flush()
            tone(root / "inbox/a.wav", 0.3)
            note = daemon.wait(lambda: daemon.sidecar("a.wav"), what="the note")
            assert note["reason"] == "waiting for its ticket a.wav.yaml, which is being written"
            ticket.write("i\n")

        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")
        assert told(daemon, "a.wav")["language"] == "fi"


def test_tickets_that_are_turned_off_are_followed_by_nobody(root):
    """Nor are they uploads."""
    with Daemon(root, {**ECHO, "tickets": {"enabled": False}}) as daemon:
        upload(daemon, "a.wav", "language: fr\n")

        assert told(daemon, "a.wav")["language"] is None
        assert (root / "inbox/a.wav.yaml").exists()
        daemon.wait(lambda: "turned off" in ((daemon.sidecar("a.wav.yaml") or {}).get("reason") or ""), what="the note")


def test_a_ticket_may_choose_among_the_models_of_the_configuration_where_that_is_allowed(root):
    """And no other, whatever it is called."""
    settings = {**ECHO, "profiles": PROFILES, "tickets": {"allow": ["model"]}}
    with Daemon(root, settings) as daemon:
        upload(daemon, "a.wav", "model: clever\n")
        upload(daemon, "b.wav", "model: ../../secret.pt\n")
        bad = ended(daemon, "b.wav")

        assert told(daemon, "a.wav")["model"] == "clever"
        assert "line 1, column 1: model: must be one of base, clever" in bad["error"]["message"]


def test_each_job_gets_a_worker_with_its_model(root):
    """The one worker there is is replaced when it is idle and a job asks for another model, and back."""
    with Daemon(root, {**ECHO, "profiles": PROFILES}) as daemon:
        for name in ("a.wav", "clever/b.wav"):
            upload(daemon, name)
        models = [told(daemon, name)["model"] for name in ("a.wav", "clever/b.wav")]
        upload(daemon, "c.wav")

        assert [*models, told(daemon, "c.wav")["model"]] == ["base", "clever", "base"]
        assert daemon.sidecar("clever/b.wav")["model"] == "clever"
        assert daemon.stop() == 0
        assert sum("is ready" in line for line in daemon.lines) == 3
        assert daemon.errors() == []


def test_jobs_for_the_loaded_model_go_first_for_a_while(root):
    """Or a mixed queue would load a model for each job."""
    names = ("clever/a.wav", "b.wav", "clever/c.wav", "d.wav")
    with scripted(root, "wait") as (script, daemon):
        daemon.wait_ready()
        upload(daemon, "first.wav")
        daemon.wait(lambda: daemon.status("first.wav") == "in_progress", what="the start")
        for name in names:
            upload(daemon, name)
        daemon.wait(lambda: all((daemon.sidecar(name) or {}).get("id") for name in names), what="all in the queue")
        script.write_text("ok\n")
        documents = [ended(daemon, name) for name in names]

        assert [document["model"] for document in documents] == ["clever", "base", "clever", "base"]
        assert sum("is ready" in line for line in daemon.lines) == 2


def test_a_model_that_does_not_load_fails_its_jobs_alone(root):
    """The daemon goes on with the usual one, and says what is wrong where it matters."""
    with scripted(root, "ok") as (script, daemon):
        daemon.wait_ready()
        script.write_text("boot:fail\n")
        upload(daemon, "clever/a.wav")
        document = ended(daemon, "clever/a.wav")
        script.write_text("ok\n")
        upload(daemon, "b.wav")

        assert ended(daemon, "b.wav")["status"] == "completed"
        assert (document["status"], document["error"]["code"]) == ("failed", "model")
        assert "does not start, says the script" in document["error"]["message"]
        assert daemon.stop() == 0


def test_what_was_ordered_when_a_recording_was_taken_holds_for_every_attempt(root):
    """Though the daemon is killed and comes back with another configuration, and somebody else's ticket lies there."""
    with scripted(root, "slow:1") as (script, daemon):
        daemon.wait_ready()
        upload(daemon, "first.wav", seconds=20.0)
        daemon.wait(lambda: daemon.status("first.wav") == "in_progress", what="the start")
        upload(daemon, "french/a.wav", "task: translate\n")
        daemon.wait(lambda: daemon.sidecar("french/a.wav"), what="the claim")
        daemon.kill()
        script.write_text("echo\n")
        daemon.configure({"profiles": {"french/**": {"language": "de"}}})
        (root / "inbox/french/a.wav.yaml").write_text("task: transcribe\n")
        daemon.start()
        upload(daemon, "french/b.wav")
        before, after = told(daemon, "french/a.wav"), told(daemon, "french/b.wav")

        assert (before["language"], before["task"]) == ("fr", "translate")
        assert (after["language"], after["task"]) == ("de", "transcribe")
        assert (root / "done/french/a.wav.yaml").read_text() == "task: translate\n"
        assert (root / "inbox/french/a.wav.yaml").read_text() == "task: transcribe\n"


@pytest.mark.parametrize(
    "point",
    [
        "claim.after_record",
        "claim.after_move",
        "claim.after_ticket",
        "publish.after_status_file",
        "publish.after_original",
    ],
)
def test_a_ticket_is_followed_and_kept_whenever_the_daemon_dies(root, point):
    """It goes where its recording goes, and does not count for the next one of that name."""
    with Daemon(root, ECHO, {"WHISPERD_FAILPOINT": point}) as daemon:
        upload(daemon, "a.wav", "language: fr\n")
        daemon.wait_exit()
    with Daemon(root, ECHO, once=True) as daemon:
        assert daemon.wait_exit() == 0

        assert told(daemon, "a.wav")["language"] == "fr"
        assert [str(path.relative_to(root)) for path in root.rglob("*.yaml")] == ["done/a.wav.yaml"]
        assert not list(root.glob(".work/2*"))


def test_the_same_content_with_other_options_is_no_duplicate(root):
    """A translation is not answered with the transcript."""
    with Daemon(root, {**ECHO, "intake": {"duplicates": "skip"}}) as daemon:
        upload(daemon, "a.wav")
        assert told(daemon, "a.wav")["task"] == "transcribe"
        upload(daemon, "b.wav", "task: translate\n")
        upload(daemon, "c.wav")
        translated, same = ended(daemon, "b.wav"), ended(daemon, "c.wav")

        assert told(daemon, "b.wav")["task"] == "translate"
        assert (translated["duplicate_of"], same["duplicate_of"]) == (None, "a.wav")


def stereo(path: Path, *channels: tuple[int, ...], rate=16_000):
    """A WAV with a constant-valued second for each number of a channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = array.array("h")
    for values in zip(*channels, strict=True):
        samples.extend(array.array("h", values) * rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def test_channels_become_speakers_who_are_named_in_every_format(root):
    """Each channel is heard by itself; those that are the same are one recording."""
    formats = {"formats": ["txt", "srt", "vtt", "tsv", "json", "html"]}
    profiles = {"calls/**": {"channels": "split", "speakers": ["Agent & <Co>"]}}
    with Daemon(root, {"script": "ok", "output": formats, "profiles": profiles}) as daemon:
        stereo(root / "inbox/calls/a.wav", (5, 6), (7, 8), (9, 10))
        stereo(root / "inbox/calls/same.wav", (5, 6), (5, 6))
        stereo(root / "inbox/mixed.wav", (5, 6), (7, 8))
        assert ended(daemon, "calls/a.wav")["duration_seconds"] == 2.0
        ended(daemon, "calls/same.wav")
        ended(daemon, "mixed.wav")

    out = root / "outbox/calls"
    lines = (out / "a.txt").read_text().splitlines()[::2]  # paragraphs
    assert [line.partition(": ")[0] for line in lines] == ["Agent & <Co>", "Speaker 2", "Speaker 3"]
    assert len({line.rpartition(" ")[2] for line in lines}) == 3  # three sums of what was heard
    assert "\n- Speaker 2: scripted 2.00 s" in (out / "a.srt").read_text()
    assert "\n<v Agent &amp; &lt;Co&gt;>scripted 2.00 s" in (out / "a.vtt").read_text()
    assert [line.split("\t")[3] for line in (out / "a.tsv").read_text().splitlines()] == [
        "speaker", "Agent & <Co>", "Speaker 2", "Speaker 3",
    ]  # fmt: skip
    assert [each["speaker"] for each in json.loads((out / "a.json").read_text())["segments"]][1] == "Speaker 2"
    page = (out / "a.html").read_text()
    assert re.findall(r'<h2 class="who .*?>(.*)</h2>', page) == ["Agent &amp; &lt;Co&gt;", "Speaker 2", "Speaker 3"]
    assert 'max="2"' in page  # seconds, however many channels
    same = (out / "same.txt").read_text()
    assert same.startswith("scripted 2.00 s")
    assert same.split()[-1] == lines[0].split()[-1]
    assert (root / "outbox/mixed.txt").read_text().startswith("scripted 2.00 s")


def several(path: Path, *tracks: tuple[int, ...], arguments=()):
    """A Matroska with a sound track for each, of a constant-valued second for each number."""
    sources = []
    for number, values in enumerate(tracks):
        sources.append(path.parent / "_" / f"{path.stem}{number}.wav")
        stereo(sources[-1], values)
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = [each for source in sources for each in ("-i", source)]
    maps = [each for number in range(len(sources)) for each in ("-map", number)]
    return encode(path, *inputs, *maps, "-c:a", "pcm_s16le", *arguments)


def test_tracks_become_speakers_who_are_named_in_every_format(root, tmp_path):
    """By folder or ticket: each track by itself, named by its title or language, or one of them, or channels of each too."""
    titles = ("-metadata:s:a:0", "title=Studio & <Co>", "-metadata:s:a:1", "language=fra", "-metadata:s:a:2", "title=")
    three = several(tmp_path / "three.mkv", (5, 6), (7, 8, 9), (9, 10, 11, 12), arguments=titles)
    same = several(tmp_path / "same.mkv", (5, 6), (5, 6))
    formats = {"formats": ["txt", "srt", "vtt", "tsv", "json", "html"]}
    profiles = {"films/**": {"tracks": "all"}, "second/**": {"tracks": 2}, "ninth/**": {"tracks": 9}}
    with Daemon(root, {"script": "ok", "output": formats, "profiles": profiles}) as daemon:
        names = ("films/a.mkv", "films/same.mkv", "second/a.mkv", "ninth/a.mkv", "first.mkv", "named.mkv")
        daemon.wait(daemon.inbox.exists, what="the inbox")
        (root / "inbox/named.mkv.yaml").write_text("tracks: all\nspeakers: [Ann, Ben]\n")
        for name in names:
            (root / "inbox" / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(same if "same" in name else three, root / "inbox" / name)
        documents = {name: ended(daemon, name) for name in names}

    error = documents.pop("ninth/a.mkv")
    assert (error["attempts"], error["error"]["code"], error["error"]["retryable"]) == (1, "no_track", False)
    assert error["error"]["message"] == "the recording has 3 sound tracks, so there is no track 9"
    assert {document["status"] for document in documents.values()} == {"completed"}
    lengths = {name: document["duration_seconds"] for name, document in documents.items()}
    assert list(lengths.values()) == pytest.approx([4.0, 2.0, 3.0, 2.0, 4.0])
    out = root / "outbox/films"
    lines = (out / "a.txt").read_text().splitlines()[::2]  # paragraphs
    assert [line.partition(": ")[0] for line in lines] == ["Studio & <Co>", "fra", "Track 3"]
    assert [re.search(r"scripted (\S+) s ", line)[1] for line in lines] == ["2.00", "3.00", "4.00"]
    assert "\n- fra: scripted 3.00 s" in (out / "a.srt").read_text()
    assert "\n<v Studio &amp; &lt;Co&gt;>scripted 2.00 s" in (out / "a.vtt").read_text()
    assert [line.split("\t")[3] for line in (out / "a.tsv").read_text().splitlines()[1:]] == [
        "Studio & <Co>", "fra", "Track 3",
    ]  # fmt: skip
    assert [each["speaker"] for each in json.loads((out / "a.json").read_text())["segments"]][1] == "fra"
    page = (out / "a.html").read_text()
    assert re.findall(r'<h2 class="who .*?>(.*)</h2>', page) == ["Studio &amp; &lt;Co&gt;", "fra", "Track 3"]
    assert 'max="4"' in page
    assert (out / "same.txt").read_text().startswith("scripted 2.00 s")
    second, first = (root / "outbox/second/a.txt").read_text(), (root / "outbox/first.txt").read_text()
    assert second.split() == lines[1].split()[1:]
    assert first.split() == lines[0].partition(": ")[2].split()
    named = [line.partition(": ")[0] for line in (root / "outbox/named.txt").read_text().splitlines()[::2]]
    assert named == ["Ann", "Ben", "Track 3"]


def test_channels_of_tracks_become_speakers(root):
    """With both options; a track whose channels are the same is one speaker."""
    media = {"channels": "split", "tracks": "all"}
    with Daemon(root, {"script": "ok", "media": media, "output": {"formats": ["txt"]}}) as daemon:
        both = root.parent / "both"
        stereo(both / "two.wav", (5, 6), (7, 8))
        stereo(both / "one.wav", (9, 9, 9), (9, 9, 9))
        maps = ("-map", "0", "-map", "1", "-c:a", "pcm_s16le", "-metadata:s:a:0", "title=Call")
        made = encode(both / "a.mkv", "-i", both / "two.wav", "-i", both / "one.wav", *maps)
        daemon.wait(daemon.inbox.exists, what="the inbox")
        shutil.copyfile(made, root / "inbox/a.mkv")
        ended(daemon, "a.mkv")

    lines = (root / "outbox/a.txt").read_text().splitlines()[::2]
    assert [line.partition(": ")[0] for line in lines] == ["Call, channel 1", "Call, channel 2", "Track 2"]


def test_more_channels_than_can_be_told_apart_are_refused(root):
    """With what to do instead."""
    with Daemon(root, {**ECHO, "media": {"channels": "split"}}, once=True) as daemon:
        stereo(root / "inbox/a.wav", *[(n, n) for n in range(9)])
        daemon.wait_exit()

        error = daemon.sidecar("a.wav")["error"]
        assert (error["code"], error["hint"]) == ("unsupported", "use channels: mix")


def test_a_profile_is_checked_before_anything_starts(root):
    """Its keys with the configuration, all at once; the weights of its model by `check` and by `run`."""
    config = Path(f"{root}.yaml")
    config.write_text(f"root: {root}\nprofiles: {{a/**: {{langage: fr}}, b/**: {{beam_size: 0}}}}\n")
    bad = whisperd(root, "check")
    config.write_text(f"root: {root}\nprofiles: {{a/**: {{model: nowhere}}}}\n")
    check, run = whisperd(root, "check"), whisperd(root, "run", "--once")

    assert bad.returncode == 78
    assert "profiles.a/**.langage: unknown key" in bad.stderr
    assert "profiles.b/**.beam_size: " in bad.stderr
    assert (check.returncode, run.returncode) == (3, 3)
    for said in (check.stdout, run.stderr):
        assert "no weights for the model 'nowhere'" in said


def test_transcribe_takes_the_options_of_a_profile(root):
    """By its glob; one that does not exist is an error that names those that do."""
    Path(f"{root}.yaml").write_text(json.dumps({"engine": "scripted", **ECHO, "root": str(root), "profiles": PROFILES}))
    tone(root / "a.wav", 0.3)

    ran = whisperd(
        root, "transcribe", "--profile", "french/**", "--formats", "txt", "--output-dir", str(root), str(root / "a.wav")
    )
    wrong = whisperd(root, "transcribe", "--profile", "nobody", str(root / "a.wav"))

    assert ran.returncode == 0, ran.stderr
    assert json.loads((root / "a.txt").read_text())["language"] == "fr"
    assert wrong.returncode == 78
    assert "french/**" in wrong.stderr
