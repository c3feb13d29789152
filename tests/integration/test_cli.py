"""The commands, each run as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from support.daemon import QUICK, Daemon, tone

from whisperd.cli.doctor import examine_spool
from whisperd.settings import config

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture
def spool(tmp_path):
    """A spool with its configuration, and the way to call whisperd for it."""
    root = tmp_path / "spool"
    for room in ("inbox", "outbox", "done", "failed", ".work/.staging"):
        (root / room).mkdir(parents=True)
    (tmp_path / "spool.yaml").write_text(yaml.safe_dump({"root": str(root), **QUICK}))
    return root


def whisperd(root, *arguments, code=0):
    """Run a command for a spool; returns what it printed."""
    command = [sys.executable, "-m", "whisperd", arguments[0], "--config", f"{root}.yaml", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_check_finds_nothing_wrong(spool):
    """All is ok, exit 0, and nothing was started or left behind."""
    said = whisperd(spool, "check")

    assert "writable, on one filesystem" in said
    assert "ffmpeg: " in said
    assert "error" not in said
    assert sorted(path.name for path in spool.rglob("*")) == [".staging", ".work", "done", "failed", "inbox", "outbox"]


@pytest.mark.parametrize(
    ("settings", "finding", "mend"),
    [
        (
            {"engine": "openai-whisper", "model": "small", "models_directory": "/nowhere"},
            "no weights",
            "models fetch small",
        ),
        ({"engine": "openai-whisper", "device": "cuda:7"}, "device cuda:7", "device: cpu"),
        ({"media": {"ffmpeg": "/nowhere/ffmpeg"}}, "ffmpeg", "ffmpeg"),
        ({"root": "/proc/whisperd"}, "cannot be created", "create it"),
    ],
    ids=["model", "device", "ffmpeg", "root"],
)
def test_check_says_what_is_wrong_and_what_mends_it(spool, settings, finding, mend):
    """One line a finding, and the remedy under it; exit 3."""
    (spool.parent / "spool.yaml").write_text(yaml.safe_dump({"root": str(spool), **QUICK, **settings}))
    said = whisperd(spool, "check", code=3)
    wrong = said[said.index("error ") :]

    assert finding in wrong
    assert mend in wrong


def test_check_reports_a_nearly_full_disk(spool):
    """A warning, since it is no reason not to start."""
    settings = {**QUICK, "intake": {"min_free": "1000T"}}
    (spool.parent / "spool.yaml").write_text(yaml.safe_dump({"root": str(spool), **settings}))

    said = whisperd(spool, "check", code=1)

    assert "warning  " in said
    assert "-> free disk space, or lower intake.min_free" in said


def found(spool, **settings):
    """What the doctor finds in a spool, without what is well: (level, text, hint)."""
    findings = examine_spool(config.validate({"root": str(spool), **QUICK, **settings}, source="test"))
    return [(finding.level, finding.text, finding.hint) for finding in findings if finding.level != "ok"]


def test_check_sees_that_people_cannot_upload(spool, monkeypatch):
    """The inbox's group has members, and the inbox is closed to them, or not setgid; a group of one needs nothing."""
    assert found(spool) == []
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_name="whisperd", gr_mem=["alice"]))
    ((level, text, hint),) = found(spool)
    subprocess.run(hint, shell=True, check=True)

    assert (level, "whisperd" in text, hint) == ("warning", True, f"chmod g+rwxs {spool}/inbox")
    assert found(spool) == []


def test_check_sees_jobs_that_nobody_works_on(spool):
    """A daemon died, and nobody has started another."""
    (spool / ".work/20260101T000000000000-aaaaaa").mkdir()

    ((_, text, hint),) = found(spool)
    assert "1 jobs are unfinished" in text
    assert "systemctl start whisperd" in hint


def test_check_sees_the_limit_of_watches(spool, monkeypatch):
    """Before it is reached, with a command that raises it far enough."""
    limit = spool.parent / "max_user_watches"
    limit.write_text("8\n")
    monkeypatch.setattr("whisperd.cli.doctor.WATCHES", limit)
    for name in "abcd":
        (spool / "inbox" / name).mkdir()

    ((_, text, hint),) = found(spool)
    assert text.startswith("5 folders in the inbox, but all programs of a user can watch only 8")
    assert hint == "sysctl -w fs.inotify.max_user_watches=524288"


def test_check_by_another_user_says_as_whom_to_look(spool):
    """Who may not look into .work is told the command, and sees no traceback; uploads that cannot be read are named."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    code = "import os, sys, whisperd.cli.check; os.setgid(65534); os.setuid(65534); sys.exit(whisperd.cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "check", "--config", f"{spool}.yaml"]
    for folder in [*spool.parents][:3]:
        folder.chmod(0o755)
    (spool / ".work").chmod(0o700)
    (spool / ".work/.lock").touch(0o600)
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    subprocess.run(
        ["chown", "-R", "65534:65534", spool / ".work", *(spool / n for n in ("outbox", "done", "failed"))], check=True
    )
    (spool / "inbox/a.wav").touch(0o600)
    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)

    assert elsewhere.returncode == 1, elsewhere.stderr
    assert "-> sudo -u root whisperd check" in elsewhere.stdout
    assert "the daemon may not read some uploads in the inbox" in refused.stdout
    assert f"-> chmod -R g+rwX {spool}/inbox" in refused.stdout


def test_a_wrong_configuration_starts_nothing(spool):
    """Exit 78 with every problem, for every command that reads it."""
    (spool.parent / "spool.yaml").write_text("pool: {workers: 0}\nnonsense: 1\n")
    for command in ("run", "check", "status"):
        said = whisperd(spool, command, code=78)

        assert "pool.workers" in said
        assert "nonsense" in said


def test_status_is_true_with_and_without_a_daemon(spool):
    """Running, waiting, failed: read off the disk."""
    assert "not running" in whisperd(spool, "status")
    with Daemon(spool, {"script": "slow:1", "pool": {"stop_grace_seconds": 0}}) as daemon:
        daemon.wait_ready()
        (spool / "inbox/bad.mp3").write_text("no music")
        daemon.wait(lambda: daemon.status("bad.mp3") == "failed", what="the failure")
        for name in ("a.wav", "b\n.wav"):
            tone(spool / "inbox" / name, seconds=60.0)
        daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("progress", 0) > 0, what="progress")
        daemon.wait(lambda: daemon.sidecar("b\n.wav"), what="the second in the queue")
        report = json.loads(whisperd(spool, "status", "--json"))
        shown = whisperd(spool, "status")
        daemon.stop()

    assert report["daemon_running"] is True
    assert [(job["name"], job["phase"]) for job in report["jobs"]] == [
        ("a.wav", "transcribing"),
        ("b\\n.wav", "queued"),
    ]
    assert report["failed"][0]["code"] == "not_media"
    assert "1 in progress, 1 queued, 0 in the inbox, 0 done, 1 failed" in shown
    assert "b\\n.wav" in shown
    assert "2 queued" in whisperd(spool, "status")


def test_status_of_no_spool_is_one_line(tmp_path):
    """A wrong root is said, not a traceback."""
    said = subprocess.run(
        [sys.executable, "-m", "whisperd", "status", "--root", tmp_path / "none"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 1
    assert said.stderr.startswith("whisperd: cannot read ")


def test_retry_moves_a_file_back_and_the_daemon_tries_again(spool):
    """The second time it works; the transcript has the plain name, and the old status is replaced."""
    with Daemon(spool, {"script": "raise:input"}) as daemon:
        daemon.wait_ready()
        tone(spool / "inbox/sub/a.wav")
        daemon.wait((spool / "failed/sub/a.wav").exists, what="the original in failed/")
        daemon.configure({"script": "ok"})
        daemon.stop()
        whisperd(spool, "retry", "sub/a.wav")
        daemon.start()
        daemon.wait(lambda: daemon.status("sub/a.wav") == "completed", what="the transcript")
        daemon.stop()

    assert (spool / "outbox/sub/a.txt").exists()
    assert not (spool / "failed/sub/a.wav").exists()
    assert sorted(path.name for path in (spool / "outbox/sub").iterdir()) == ["a.json", "a.txt", "a.wav.status.json"]


def test_retry_of_what_is_not_there_says_so(spool):
    """Exit 1; a name that would leave failed/ is not there either."""
    (spool / "failed/a.wav").touch()
    (spool / "inbox/a.wav").touch()

    assert "the inbox has a file of that name" in whisperd(spool, "retry", "a.wav", code=1)
    assert "no such file" in whisperd(spool, "retry", "b.wav", code=1)
    assert "no such file" in whisperd(spool, "retry", "../inbox/a.wav", code=1)


def test_retry_leaves_the_ticket_where_its_recording_has_to_stay(spool):
    """In the inbox it would count for the recording that lies there."""
    for room in ("failed", "inbox"):
        (spool / room / "a.wav").touch()
    (spool / "failed/a.wav.yaml").touch()

    assert "the inbox has a file of that name" in whisperd(spool, "retry", "a.wav", code=1)
    assert [path.name for path in (spool / "inbox").iterdir()] == ["a.wav"]
    assert (spool / "failed/a.wav.yaml").exists()


def test_models_are_listed_and_verified(spool):
    """What is here, and what can be fetched."""
    command = [sys.executable, "-m", "whisperd", "models"]
    listed = subprocess.run([*command, "list", "--root", spool], capture_output=True, text=True, check=True).stdout

    assert "large-v3" in listed
    failed = subprocess.run(
        [*command, "verify", "medium", "--root", spool], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 3
    assert "models fetch medium" in failed.stderr


def test_transcribe_writes_next_to_where_it_is_called(spool, tmp_path):
    """The files stay, transcripts appear, a second run overwrites nothing, a bad file is an exit code."""
    tone(tmp_path / "a.wav")
    (tmp_path / "bad.mp3").write_text("no music")
    out = tmp_path / "out"
    arguments = ("transcribe", str(tmp_path / "a.wav"), "--output-dir", str(out), "--formats", "txt,srt")
    whisperd(spool, *arguments)
    whisperd(spool, *arguments)
    said = whisperd(spool, "transcribe", str(tmp_path / "bad.mp3"), "--output-dir", str(out), code=1)

    assert "bad.mp3: " in said
    assert (tmp_path / "a.wav").exists()
    assert sorted(path.name for path in out.iterdir()) == ["a-2.srt", "a-2.txt", "a.srt", "a.txt"]


def transcribe(spool, *arguments, **options):
    """Run `whisperd transcribe` in an empty folder; whatever it leaves in there, or among temporary files, is named."""
    here = spool.parent / "here"
    here.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "whisperd", "transcribe", "--config", f"{spool}.yaml", *map(str, arguments)]
    environment = {**ENVIRONMENT, "TMPDIR": str(here)}
    ran = subprocess.run(command, capture_output=True, check=False, env=environment, cwd=here, **options)
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode(), sorted(path.name for path in here.iterdir())


def configure(spool, script, **settings):
    (spool.parent / "spool.yaml").write_text(
        yaml.safe_dump({"root": str(spool), **QUICK, "script": script, **settings})
    )


def test_the_text_of_one_file_goes_to_standard_output(spool, tmp_path):
    """Of a file and of standard input, in one format; nothing else is printed, and no file is written."""
    recording = tone(tmp_path / "a.wav")
    text = "scripted 1.00 s"

    from_file = transcribe(spool, recording)
    piped = transcribe(spool, "-", input=recording.read_bytes())
    subtitles = transcribe(spool, recording, "--formats", "srt")

    assert (from_file[0], *from_file[2:]) == (0, "", [])
    assert from_file[1].startswith(text)
    assert piped == from_file
    assert subtitles[1].startswith("1\n00:00:00,000 --> ")
    assert subtitles[3] == []


def test_several_formats_of_one_file_are_files(spool, tmp_path):
    """In the current folder, and their names are printed."""
    ran = transcribe(spool, tone(tmp_path / "a.wav"), "--formats", "txt,srt")

    assert ran == (0, "a.txt\na.srt\n", "", ["a.srt", "a.txt"])


def test_standard_input_has_a_name_in_the_output_folder(spool, tmp_path):
    """`stdin`, for want of a better one."""
    _, said, _, left = transcribe(spool, "-", "--output-dir", ".", input=tone(tmp_path / "a.wav").read_bytes())

    assert (said, left) == ("stdin.txt\nstdin.json\n", ["stdin.json", "stdin.txt"])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("none.wav", "whisperd: none.wav: there is no such file ("),
        ("..", "whisperd: ..: is a folder ("),
        ("https://example.org/a.mp3", "whisperd: https://example.org/a.mp3: this is a URL, and whisperd fetches no"),
    ],
)
def test_a_name_that_is_no_file_is_refused_before_the_model_is_loaded(spool, given, reason):
    """In one line with the reason; the engine, which cannot be loaded here, was not asked."""
    configure(spool, "boot:fail")

    code, said, error, left = transcribe(spool, given)

    assert (code, said, left) == (1, "", [])
    assert error.startswith(reason)
    assert error.count("\n") == 1


def test_one_file_that_is_missing_does_not_stop_the_others(spool, tmp_path):
    """Exit 1 says that something failed."""
    code, said, error, left = transcribe(spool, "none.wav", tone(tmp_path / "a.wav"), tmp_path / "b.wav")

    assert (code, said, left) == (1, "a.txt\na.json\n", ["a.json", "a.txt"])
    assert error.count("there is no such file") == 2


def test_several_files_share_a_model_and_its_batches(spool, tmp_path):
    """A short file does not wait for the long one that was named first."""
    configure(spool, "windows,slow:0.02")
    long, short = tone(tmp_path / "long.wav", 150.0), tone(tmp_path / "short.wav")

    code, said, error, _ = transcribe(spool, "--formats", "txt", long, short)

    assert (code, said, error) == (0, "short.txt\nlong.txt\n", "")


def test_a_file_that_breaks_the_engine_fails_alone(spool, tmp_path):
    """Those that shared its batch are transcribed after all, by a fresh worker."""
    configure(spool, "windows,poison:3", vad={"enabled": False})
    files = [tone(tmp_path / f"{name}.wav", seconds) for name, seconds in (("a", 1.0), ("bad", 3.0), ("c", 2.0))]

    code, said, error, left = transcribe(spool, "--formats", "txt", *files)

    assert (code, sorted(said.split()), left) == (1, ["a.txt", "c.txt"], ["a.txt", "c.txt"])
    assert [line.split(" (")[0] for line in error.splitlines() if line.startswith("whisperd: ")] == [
        f"whisperd: {files[1]}: broken for good, says the script"
    ]


def test_usage_errors_are_not_boot_errors():
    """Exit 2, as argparse does."""
    assert subprocess.run([sys.executable, "-m", "whisperd", "dance"], capture_output=True, check=False).returncode == 2
