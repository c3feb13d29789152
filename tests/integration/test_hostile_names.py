"""Names made to deceive, through the whole daemon: each works, and is shown escaped wherever it is shown."""

import json
import os
import subprocess
import sys

from support.daemon import Daemon, tone

NAMES = [
    "..wav",
    "...wav",
    "..%2f..%2fhidden.wav",
    "a..%2f..%2fetc%2fpasswd.wav",
    "a\\..\\..\\windows.wav",
    "a\n<3>whisperd: forged line.wav",
    "a\r\noverwritten.wav",
    "<script>alert(1)<\N{DIVISION SLASH}script>.wav",
    "<img src=x onerror=alert(1)>.wav",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred.wav",
    "\x9b2Jc1.wav",
    "tab\tand\x0bvertical\x0cfeed\x7fdelete.wav",
    "".join(map(chr, range(1, 32))) + ".wav",
    "abc\u202egnp.wav",
    "\u2066isolated\u2069\u200fmark\u200b.wav",
    "line\u2028separator\u2029.wav",
    "$(reboot)`id`;'\"&|.wav",
    "%s%n%d.wav",
    "[bold red]markup[reset].wav",
    "name.wav.status.json.wav",
    "x" * 251 + ".wav",
    "\u9332" * 83 + "ab.wav",
    os.fsdecode(b"\xff\xfe\xc0\xaf..\xc0\xaf.wav"),
    os.fsdecode(bytes([0xFE]) * 251 + b".wav"),
    "-rf.wav",
    "CON.wav",
    "trailing .wav ",
]
HIDDEN = {name for name in NAMES if name.startswith(".")}  # these are no uploads
FOLDER = "fol\x1b[31mder\n\u202e<b>\udcff"


def test_every_name_is_taken_as_it_is_and_shown_escaped(tmp_path):
    """In the sidecar, the journal, the status line and `whisperd status`, while it waits, once it failed, once it is done."""
    sound = tone(tmp_path / "plain.wav").read_bytes()
    with Daemon(tmp_path / "spool", {"script": "ok"}) as daemon:
        daemon.wait_ready()
        (daemon.inbox / FOLDER).mkdir()
        (daemon.inbox / "bad").mkdir()
        (daemon.inbox / "waiting").mkdir()
        held = []
        for name in NAMES:
            (daemon.inbox / FOLDER / name).write_bytes(sound)
            (daemon.inbox / "bad" / name).write_bytes(b"Dear diary,\n" * 100)
            held.append((daemon.inbox / "waiting" / name).open("wb"))
            held[-1].write(sound)
        taken = sorted(set(NAMES) - HIDDEN)
        daemon.wait(
            lambda: len(list((daemon.done / FOLDER).glob("*"))) == len(taken), within_seconds=90, what="all done"
        )
        daemon.wait(
            lambda: len(list((daemon.failed / "bad").glob("*"))) == len(taken), within_seconds=90, what="all failed"
        )
        waiting = daemon.outbox / "waiting"
        daemon.wait(lambda: len(list(waiting.glob("*"))) == len(taken), what="a note on each that waits")
        command = [sys.executable, "-m", "whisperd", "status", "--config", str(daemon.config)]
        plain = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        report = subprocess.run([*command, "--json"], capture_output=True, check=True).stdout.decode()
        for file in held:
            file.close()

        assert sorted(os.listdir(daemon.done / FOLDER)) == sorted(os.listdir(daemon.failed / "bad")) == taken
        assert all((daemon.done / FOLDER / name).read_bytes() == sound for name in taken)
        sidecars = [path.read_text() for path in daemon.outbox.rglob("*.status.json")]
        assert len(sidecars) >= 3 * len(taken)
        shown = [json.loads(text)[field] for text in sidecars for field in ("name", "source")]
        assert all(text.isprintable() for text in shown)
        assert len({*shown}) == 2 * len(sidecars)
        for text in (plain, report, *sidecars):
            assert all(char.isprintable() or char == "\n" for char in text), text
        assert "[bold" in plain
        assert all(line.startswith("<") and line.isprintable() for line in daemon.lines)
        assert not [line for line in daemon.lines if line.startswith("<3>")]
        assert all(notice.isprintable() and notice.isascii() for notice in daemon.notices)
        assert sorted(os.listdir(daemon.inbox / FOLDER)) == sorted(HIDDEN)
        assert len([path for path in daemon.root.parent.iterdir() if path.name.endswith(".wav")]) == 1
        json.loads(report)
