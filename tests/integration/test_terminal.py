"""What people see: commands in a real terminal, through a pipe, in a real shell, and rendered by the real man."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pexpect
import pyte
import pytest
from support.daemon import Daemon, tone
from support.spool import FAILURE, Spool

from whisperd.cli.status import gather
from whisperd.core.job import Failure, Phase, Progress

WHISPERD = [sys.executable, "-m", "whisperd"]
HOSTILE = "evil\x1b[31m\n\u202egpj[bold].wav"


class Terminal:
    """A program in a pty, and the screen that a person would see."""

    def __init__(self, arguments, rows=24, columns=100, **environment):
        plain = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS", "LINES"}}
        self.screen = pyte.HistoryScreen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.process = pexpect.spawn(
            arguments[0],
            [str(argument) for argument in arguments[1:]],
            dimensions=(rows, columns),
            env={**plain, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.close(force=True)

    def read(self):
        with contextlib.suppress(pexpect.TIMEOUT, pexpect.EOF):
            data = self.process.read_nonblocking(65536, timeout=0.1)
            self.raw += data
            self.stream.feed(data)
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, text, within_seconds=20.0):
        """Wait until the screen shows a text; returns all that it shows."""
        deadline = time.monotonic() + within_seconds
        while text not in (shown := self.read()):
            assert time.monotonic() < deadline, shown
        return shown

    def end(self):
        """Wait for the end of the program; returns its exit status."""
        deadline = time.monotonic() + 20.0
        while self.process.isalive():
            assert time.monotonic() < deadline, self.read()
            self.read()
        self.read()
        return self.process.exitstatus


@pytest.fixture
def spool(tmp_path):
    """A spool as a daemon leaves it: one running, one queued, one that waits, one failed; with hostile names."""
    spool = Spool(tmp_path / "spool")
    running = spool.store.start(spool.take("alice/interview.mp3"))
    progress = Progress(Phase.TRANSCRIBING, 43.0, 100.0, speed=12.3, eta_seconds=130.0)
    spool.store.show(running, progress=progress)
    spool.store.show(spool.take(HOSTILE), progress=Progress(queue_position=1))
    spool.upload("late.wav")
    spool.store.status_files.explain("late.wav", 8, "still open for writing \x1b]0;title\x07")
    spool.store.fail(spool.take("bad.mp3"), FAILURE)
    return spool


def status(spool, *options):
    return [*WHISPERD, "status", "--root", spool.layout.root, *options]


def test_the_table_tells_all(spool):
    """Names are escaped, markup in them is none, no control character of a name or a reason gets through."""
    with Terminal(status(spool), columns=160) as terminal:
        assert terminal.end() == 0
        shown = terminal.read()

    lines = {line.split()[0]: line for line in shown.splitlines() if line}
    assert "1 in progress, 1 queued, 1 in the inbox, 0 done, 1 failed" in shown
    assert re.search(r"transcribing +━+╸?━* +43 % +x12.3 +2:10 +continues at the next start", shown)
    assert "1. in the queue" in lines["evil\\x1b[31m\\n\\u202egpj[bold].wav"]
    assert "still open for writing \\x1b]0;title\\x07" in lines["late.wav"]
    assert "there is no sound in it" in lines["bad.mp3"]
    assert "-> send another file" in shown
    assert "free" in shown
    assert b"\x1b]0;" not in terminal.raw
    assert b"\x07" not in terminal.raw


def test_a_narrow_terminal_shows_a_list(spool):
    """Forty columns: nothing is cut off, and nothing but what is too long for a line is broken."""
    with Terminal(status(spool), rows=40, columns=40) as terminal:
        assert terminal.end() == 0
        lines = [line.strip() for line in terminal.screen.display]

    for expected in ("alice/interview.mp3", "transcribing x12.3 2:10 left", "late.wav", "-> send another file"):
        assert expected in lines
    assert any(line.endswith("43 %") for line in lines)


def test_watching_follows_and_leaves_the_terminal_as_it_was(spool):
    """Progress appears within a second or so; after Ctrl-C the shell's screen is back and the cursor is seen."""
    with Terminal(status(spool, "--watch")) as terminal:
        terminal.wait("43 %")
        (job,) = [job for job in spool.restart().queued if job.name.startswith("alice")]
        spool.store.show(job, progress=Progress(Phase.TRANSCRIBING, 77.0, 100.0))
        terminal.wait("77 %")
        terminal.process.setwinsize(12, 40)
        terminal.screen.resize(12, 40)
        terminal.wait("77 %")
        terminal.process.sendintr()
        code = terminal.end()

    assert code == 0
    assert terminal.raw.count(b"\x1b[?1049h") == terminal.raw.count(b"\x1b[?1049l") == 1
    assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")
    assert b"Traceback" not in terminal.raw


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watching_through_a_pipe_prints_each_state_once(spool, number):
    """Without control sequences; nothing changes, so nothing is printed again; a signal is its normal end."""
    with subprocess.Popen(status(spool, "--watch", "--json"), stdout=subprocess.PIPE, text=True) as process:
        first = json.loads(process.stdout.readline())
        spool.upload("new.wav")
        second = json.loads(process.stdout.readline())
        process.send_signal(number)
        rest = process.stdout.read()

    assert [upload["name"] for upload in first["inbox"]] == ["late.wav"]
    assert [upload["name"] for upload in second["inbox"]] == ["late.wav", "new.wav"]
    assert rest == ""
    assert process.returncode == 0


@pytest.mark.parametrize("options", [(), ("alice/interview.mp3",)])
def test_colours_are_for_terminals_whose_user_wants_them(spool, options):
    """As https://no-color.org has it."""
    spool.store.fail(spool.take("cancelled.mp3"), Failure("cancelled", "somebody cancelled it"))
    raw = {}
    for wants in (True, False):
        with Terminal(status(spool, *options), **({} if wants else {"NO_COLOR": "1"})) as terminal:
            assert terminal.end() == 0
        raw[wants] = terminal.raw
    colour = rb"\x1b\[(\d+;)*(3[0-7]|9[0-7]|38;[0-9;]+)m"

    assert (re.search(colour, raw[True]) is None, re.search(colour, raw[False]) is None) == (False, True)
    if not options:
        assert b"\x1b[35mcancelled" in raw[True]
        assert b"\x1b[31mfailed" in raw[True]


def test_a_pipe_gets_plain_text(spool):
    """`whisperd status | cat` has neither colours nor a progress bar that is full at 43 %."""
    done = subprocess.run(status(spool), capture_output=True, text=True, check=True)

    assert "\x1b" not in done.stdout
    assert "43 %" in done.stdout


def test_sidecars_that_somebody_wrote_are_not_believed(spool):
    """People can write into the outbox: a wrong type or a control sequence is no way into a terminal."""
    path = spool.layout.outbox / "alice/interview.mp3.status.json"
    forged = {
        "progress": "\x1b[2J",
        "speed": [],
        "eta_seconds": {},
        "phase": 7,
        "reason": "\x9b2J",
        "queue_position": "",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | forged))
    done = subprocess.run(status(spool), capture_output=True, text=True, check=True)
    (job, _) = json.loads(subprocess.run(status(spool, "--json"), capture_output=True, check=True).stdout)["jobs"]

    assert "\x1b" not in done.stdout
    assert "\x9b" not in done.stdout
    assert (job["progress"], job["speed"], job["phase"], job["reason"]) == (None, None, None, "\\u009b2J")


def test_who_may_not_look_into_the_work_reads_the_sidecars(spool, monkeypatch):
    """Members of the group see the same jobs; only whether a daemon is at work stays unknown to them."""
    before = gather(spool.layout, lambda name: False, wanted_bytes=0)
    listdir = os.listdir

    def forbidden(path, *arguments):
        if path == spool.layout.work or str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path, *arguments)

    monkeypatch.setattr(os, "listdir", forbidden)
    monkeypatch.setattr(type(spool.layout), "is_locked", lambda layout: forbidden(layout.work))
    after = gather(spool.layout, lambda name: False, wanted_bytes=0)

    assert after["daemon_running"] is None
    assert after["jobs"] == before["jobs"]
    assert len(after["jobs"]) == 2


def test_a_running_daemon_is_named_with_its_version(tmp_path):
    """The lock says so, and the doctor says when it is not this version."""
    with Daemon(tmp_path / "spool", {"script": "slow:1"}) as daemon:
        daemon.wait_ready()
        tone(daemon.inbox / "a.wav", 60.0)
        daemon.wait(lambda: daemon.status("a.wav") == "in_progress", what="the start")
        command = [*WHISPERD, "status", "--config", str(daemon.config)]
        with Terminal(command, columns=160) as terminal:
            terminal.end()
            shown = terminal.read()
        (daemon.work / ".lock").write_text("0.0.1")
        check = subprocess.run(
            [*WHISPERD, "check", "--config", daemon.config], capture_output=True, text=True, check=False
        )
        daemon.stop(signal.SIGQUIT)

    assert re.search(r"whisperd \d[\w.]* is running in ", shown)
    assert "continues at the next start" not in shown
    assert check.returncode == 1
    assert "the running whisperd is version 0.0.1" in check.stdout
    assert "-> systemctl restart whisperd" in check.stdout


@pytest.mark.parametrize("result", ["text", "files"])
def test_transcribe_shows_progress_on_a_terminal_and_ctrl_c_leaves_nothing(tmp_path, result):
    """The model that is loaded, then each file with its share and the time left; no part of a transcript stays."""
    configuration = tmp_path / "whisperd.yaml"
    configuration.write_text("engine: scripted\nscript: slow:0.5\n")
    here = tmp_path / "here"
    here.mkdir()
    recording = tone(tmp_path / "[bold]interview.wav", 60.0)
    options = {"text": [], "files": ["--output-dir", here]}[result]
    command = [*WHISPERD, "transcribe", "--config", configuration, *options, recording]
    with Terminal(command, columns=160, TMPDIR=str(here)) as terminal:
        terminal.wait("loading the model base")
        shown = terminal.wait("[bold]interview.wav")
        terminal.wait(" 2%")
        during = list(here.iterdir())
        terminal.process.sendintr()
        code = terminal.end()

    assert re.search(r"interview\.wav .* left", shown)
    assert len(during) == 1
    assert list(here.iterdir()) == []
    assert code == 1
    assert b"Traceback" not in terminal.raw


def test_transcribe_mixes_nothing_into_its_standard_output(tmp_path):
    """Where standard error is a terminal, the bar goes there, and the text alone to the file."""
    configuration = tmp_path / "whisperd.yaml"
    configuration.write_text("engine: scripted\n")
    recording = tone(tmp_path / "a.wav")
    program = 'out=$1; shift; exec "$@" >"$out"'
    command = [*WHISPERD, "transcribe", "--config", configuration, recording]
    with Terminal(["sh", "-c", program, "sh", tmp_path / "out", *command]) as terminal:
        terminal.wait("loading the model base")
        assert terminal.end() == 0

    assert (tmp_path / "out").read_text().startswith("scripted 1.00 s sum ")
    assert "\x1b" not in (tmp_path / "out").read_text()


def test_bash_completes_commands_options_and_values(tmp_path):
    """In a real bash, with the script that the command prints."""
    script = tmp_path / "whisperd.bash"
    script.write_bytes(subprocess.run([*WHISPERD, "completion", "bash"], capture_output=True, check=True).stdout)
    (tmp_path / "interview.mp3").touch()
    asked = [
        "whisperd ca",
        "whisperd models ve",
        "whisperd status --wa",
        "whisperd transcribe --task tra",
        "whisperd transcribe int",
    ]
    program = f"""
        source {script}
        for line in "$@"; do
          COMP_WORDS=($line) COMP_LINE=$line COMP_POINT=${{#line}} COMP_CWORD=$(( $(wc -w <<< "$line") - 1 )) COMPREPLY=()
          _shtab_whisperd
          echo "${{COMPREPLY[*]}}"
        done
    """
    command = ["bash", "--norc", "-c", program, "bash", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)

    assert done.stdout.splitlines() == ["cancel", "verify", "--watch", "transcribe translate", "interview.mp3"]


def test_zsh_reads_its_completion(tmp_path):
    """No syntax error in it."""
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    script = subprocess.run([*WHISPERD, "completion", "zsh"], capture_output=True, check=True).stdout
    done = subprocess.run(["zsh", "-n"], input=script, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("1", ["whisperd cancel [-h]", "--watch", "Exit", "78", "X.cancel"]),
        ("5", ["pool.workers", "transcription.temperature", "0.2"]),
    ],
)
def test_the_man_pages_are_rendered_without_a_warning(tmp_path, section, words):
    """By the man of this machine; every command and key is in them."""
    if shutil.which("man") is None:
        pytest.skip("no man here")
    page = tmp_path / f"whisperd.{section}"
    page.write_bytes(
        subprocess.run([sys.executable, "-m", "whisperd.cli.man", section], capture_output=True, check=True).stdout
    )
    environment = {**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"}
    command = ["man", "--warnings=w", "--local-file", page]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    text = re.sub(r".\x08", "", done.stdout)

    assert done.stderr == ""
    for word in words:
        assert word.lower() in text.lower()
