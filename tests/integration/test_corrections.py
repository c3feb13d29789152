"""Completed transcripts put right: by a ticket while the daemon runs, by a command with and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave

import numpy as np
import pytest
from support.daemon import Daemon, originals
from support.spool import Spool
from support.status_schema import schema_errors

SPLIT = {"media": {"channels": "split"}, "output": {"formats": ["txt", "srt", "json"]}}
ANNA = "correction: true\nspeakers: {Speaker 1: Anna}\nreplacements: {scripted: written}\nformats: [vtt]\n"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def stereo(path, seconds=0.5):
    """Two different channels, so two speakers."""
    at = np.arange(int(seconds * 16_000)) / 16_000
    samples = np.stack([np.sin(2 * np.pi * 440 * at), np.sin(2 * np.pi * 550 * at)], axis=1) * 12_000
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.astype("<i2").tobytes())


def whisperd(root, *arguments):
    command = [sys.executable, "-m", "whisperd", arguments[0], "--config", f"{root}.yaml", *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def transcribe(daemon, name="b/a.wav"):
    stereo(daemon.inbox / name)
    daemon.wait(lambda: daemon.status(name) == "completed", what="the end")
    daemon.wait((daemon.done / name).exists, what="the original in done/")


def corrected(daemon, name="b/a.wav", count=1):
    """The status file of a job after this many corrections."""
    return daemon.wait(
        lambda: (found := daemon.sidecar(name)) and len(found["corrections"]) == count and found, what="the correction"
    )


def refusal(daemon, ticket, reason):
    """The status file of a ticket that says why it is not followed."""
    return daemon.wait(
        lambda: (found := daemon.sidecar(ticket)) and reason in (found["reason"] or "") and found, what=reason
    )


def test_a_ticket_corrects_a_completed_recording(root):
    """All formats are written again, a file that somebody has changed stays, the ticket goes to done/."""
    with Daemon(root, SPLIT) as daemon:
        transcribe(daemon)
        workers = daemon.workers()
        (daemon.outbox / "b/a.srt").write_text("mine")
        (daemon.inbox / "b/a.wav.yaml").write_text(ANNA)
        document = corrected(daemon)
        daemon.wait((daemon.done / "b/a.wav.yaml").exists, what="the ticket in done/")

        assert (daemon.outbox / "b/a.txt").read_text().startswith("Anna: written 0.50 s")
        assert (daemon.outbox / "b/a.srt").read_text() == "mine"
        assert "Anna: written" in (daemon.outbox / "b/a-2.srt").read_text()
        assert "<v Anna>" in (daemon.outbox / "b/a.vtt").read_text()
        assert document["outputs"]["srt"] == "outbox/b/a-2.srt"
        assert schema_errors(document) == []
        (entry,) = document["corrections"]
        assert (entry["by"], entry["kept"]) == ("b/a.wav.yaml", {"srt": "outbox/b/a.srt"})
        assert entry["replacements"] == [{"wrong": "scripted", "right": "written", "count": 2}]
        assert json.loads((daemon.outbox / "b/a.json").read_bytes())["replacements"] == entry["replacements"]
        daemon.wait(lambda: not list((root / ".work").glob(".correct-*")), what="the end of its directory")
        line = "b/a.wav: rendered again for b/a.wav.yaml; stays, because somebody had changed it: a.srt"
        daemon.wait(lambda: daemon.logged(line), what="the line of it")
        assert (daemon.workers(), daemon.errors()) == (workers, [])
        assert daemon.sidecar("b/a.wav.yaml") is None
        assert daemon.stop() == 0
    assert {place: len(found) for place, found in originals(root).items()} == {
        "inbox": 0, "done": 2, "failed": 0, ".work": 0,
    }  # fmt: skip


def test_a_correction_that_cannot_be_made_says_why_and_a_better_one_is_made(root):
    """Nothing is changed meanwhile; the corrected ticket is followed at once."""
    with Daemon(root, SPLIT) as daemon:
        transcribe(daemon)
        before = {path.name: path.read_bytes() for path in (daemon.outbox / "b").iterdir()}
        ticket = daemon.inbox / "b/a.wav.yaml"
        for content, reason in [
            ("speakers: {Bob: Anna}\n", "nobody is called Bob in this transcript (speakers: Speaker 1, Speaker 2)"),
            (f"correction: {'0a' * 32}\n", "neither that of the recording nor that of its transcript as it is now"),
        ]:
            ticket.write_text(content)
            document = refusal(daemon, "b/a.wav.yaml", reason)
            assert document["status"] == "pending"
            assert ticket.read_text() == content
        (daemon.outbox / "b/a.wav.yaml.status.json").unlink()
        assert {path.name: path.read_bytes() for path in (daemon.outbox / "b").iterdir()} == before
        ticket.write_text(f"correction: {daemon.sidecar('b/a.wav')['sha256'].upper()}\nspeakers: {{Speaker 2: Ben}}\n")
        corrected(daemon)

        assert "Ben: scripted" in (daemon.outbox / "b/a.txt").read_text()
        assert daemon.stop() == 0


def test_a_correction_never_counts_for_an_upload(root):
    """One that comes before its recording waits for the end of the job, which knows nothing of it; and another ticket does not correct."""
    settings = SPLIT | {"script": "echo"}
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav.yaml").write_text("correction: true\nspeakers: {Speaker 1: Anna}\n")
        refusal(daemon, "a.wav.yaml", "this correction is not made: no completed job is called a.wav")
        stereo(daemon.inbox / "a.wav")
        document = corrected(daemon, "a.wav")
        assert (document["tickets"], document["options"]) == ([], {})
        assert (daemon.outbox / "a.txt").read_text().startswith("Anna: ")

        (daemon.inbox / "a.wav.yaml").write_text("formats: [vtt]\n")
        refusal(daemon, "a.wav.yaml", "it counts for the next upload of that name")
        assert "add the line `correction: true`" in daemon.sidecar("a.wav.yaml")["reason"]
        stereo(daemon.inbox / "a.wav", seconds=0.7)
        daemon.wait(lambda: daemon.status("a-2.wav") == "completed", what="the second upload")
        assert (daemon.sidecar("a-2.wav")["tickets"], set(daemon.sidecar("a-2.wav")["outputs"])) == (
            ["a.wav.yaml"],
            {"vtt"},
        )
        assert len(daemon.sidecar("a.wav")["corrections"]) == 1
        assert daemon.stop() == 0


def test_once_makes_corrections_before_it_ends(root):
    """Those of recordings that are transcribed in the same run too."""
    stereo(root / "inbox/a.wav")
    (root / "inbox/a.wav.yaml").write_text("speakers: {Speaker 1: Anna}\n")
    with Daemon(root, SPLIT, once=True) as daemon:
        assert daemon.wait_exit() == 0

    assert (root / "outbox/a.txt").read_text().startswith("Anna: ")


def test_the_command_works_with_a_daemon_and_without(root):
    """The same options, the same outcome; what is wrong is said at once, and exit code 1 tells of it."""
    rename = ["--speaker", "Speaker 1=Anna", "--replace", "/s.*d (?=\\d)/=written ", "--formats", "vtt"]
    with Daemon(root, SPLIT) as daemon:
        for name in ("with.wav", "without.wav"):
            transcribe(daemon, name)
        wrong = whisperd(root, "render", "with.wav", "--speaker", "Bob=Anna")
        assert (wrong.returncode, os.listdir(daemon.inbox)) == (1, [])
        assert "with.wav: nobody is called Bob" in wrong.stderr
        ran = whisperd(root, "render", "with.wav", "done/nobody.wav", *rename)
        assert ran.returncode == 1
        assert ran.stdout == "with.wav: rendered again: txt, srt, vtt, json\n"
        assert "nobody.wav: no completed job is called nobody.wav" in ran.stderr
        assert daemon.stop() == 0
    (root / "outbox/without.srt").write_text("mine")
    ran = whisperd(root, "render", "without.wav", *rename)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "without-2.srt" in ran.stdout
    assert "stays, because somebody had changed it: without.srt" in ran.stdout
    for kind in ("txt", "vtt"):
        texts = {(root / f"outbox/{name}.{kind}").read_text() for name in ("with", "without")}
        assert len(texts) == 1
        assert "written 0.50 s" in texts.pop()
    assert sorted(os.listdir(root / ".work")) == [".lock", ".staging"]


@pytest.mark.parametrize("arguments", [["--speaker", "Anna"], ["--replace", "=x"], ["--replace", "/a=b/"]])
def test_a_command_line_that_makes_no_sense_is_refused(root, arguments):
    """Before anything is looked at."""
    Daemon(root)
    ran = whisperd(root, "render", "a.wav", *arguments)

    assert ran.returncode == 78
    assert "must be two texts with = between them" in ran.stderr


def test_a_completed_recording_is_transcribed_again_and_keeps_its_first_result(root):
    """With the options of its ticket and those of the command; nothing of the first result is touched, and no space is lost."""
    settings = {"script": "echo", "output": {"formats": ["txt"]}, "intake": {"duplicates": "skip"}}
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav.yaml").write_text("vocabulary: [Anna]\n")
        stereo(daemon.inbox / "a.wav")
        daemon.wait((daemon.done / "a.wav").exists, what="the first end")
        first = {path.name: path.read_bytes() for path in daemon.outbox.iterdir() if path.name != "index.html"}
        same = whisperd(root, "retry", "--done", "a.wav")
        other = whisperd(root, "retry", "--done", "a.wav", "--model", "large-v3")
        assert (same.returncode, other.returncode, os.listdir(daemon.inbox)) == (1, 1, [])
        assert "it was transcribed with the same options, and intake.duplicates is skip" in same.stderr
        assert "model: may not be set by a ticket (tickets.allow)" in other.stderr

        ran = whisperd(root, "retry", "--done", "a.wav", "nobody.wav", "--language", "fr")
        assert (ran.returncode, ran.stdout) == (1, "a.wav: in the inbox again; the first result stays\n")
        assert "nobody.wav: no such file in done/" in ran.stderr
        daemon.wait((daemon.done / "a-2.wav").exists, what="the second end")

        told = json.loads(next(line for line in (daemon.outbox / "a-2.txt").read_text().splitlines() if line[0] == "{"))
        assert (told["language"], told["initial_prompt"]) == ("fr", "Anna.")
        assert daemon.sidecar("a-2.wav")["duplicate_of"] is None
        assert {name: (daemon.outbox / name).read_bytes() for name in first} == first
        assert (daemon.done / "a.wav").samefile(daemon.done / "a-2.wav")
        assert (daemon.done / "a.wav.yaml").read_text() == "vocabulary: [Anna]\n"
        assert daemon.stop() == 0


def test_options_of_a_second_transcription_need_done(root):
    """They would be lost otherwise."""
    Daemon(root)
    ran = whisperd(root, "retry", "a.wav", "--language", "fr")

    assert (ran.returncode, "--language: only with --done" in ran.stderr) == (78, True)


def test_a_second_transcription_that_cannot_begin_changes_nothing(root):
    """The reason is said at once; in the inbox the recording would be refused, or would have another's ticket."""
    spool = Spool(root)
    Daemon(root)
    for name in ("private.wav", "there.wav", "ticket.wav"):
        spool.put(f"done/{name}")
    (root / "done/private.wav").chmod(0o600)
    (root / "done/link.wav").symlink_to(root / "done/there.wav")
    spool.put("inbox/there.wav")
    spool.put("inbox/ticket.wav.yml")
    before = spool.files("inbox")

    ran = whisperd(root, "retry", "--done", "private.wav", "there.wav", "ticket.wav", "link.wav", "--language", "fr")

    assert (ran.returncode, spool.files("inbox")) == (1, before)
    reasons = [line.split(": ", 2)[2] for line in ran.stderr.splitlines()]
    assert reasons == [
        "its group may not read it: chmod g+r, or copy it into the inbox",
        "the inbox has a file or a ticket of that name",
        "the inbox has a file or a ticket of that name",
        "no such file in done/",
    ]
