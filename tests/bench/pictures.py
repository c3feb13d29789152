"""Makes the pictures of the README from a real run: `python tests/bench/pictures.py RECORDING`.

The daemon transcribes the recording with the model `base` and tells its speakers apart; chromium takes a picture of the
transcript page. Then it gets longer recordings, made from the same one, a file that is no recording, and an upload that is not
complete; what `whisperd status` prints meanwhile is the second picture.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `support`

from support.browser import Sight, chromium
from support.daemon import Daemon

from whisperd.core.job import Status
from whisperd.media.ffmpeg import find_ffmpeg

PICTURES = Path(__file__).parents[2] / ".github/docs"
COLUMNS = 112
SETTINGS = {
    "engine": "openai-whisper",
    "intake": {"truncated_seconds": 600.0, "empty_seconds": 600.0},
    "pool": {"threads": None, "jobs_per_worker": 2},
    "profiles": {"alice/**": {"diarization.enabled": True}},
    "output": {"formats": ["txt", "srt", "html", "json"]},
}
LONG = {"lectures/week-3.mp3": 20, "lectures/week-4.mp3": 15, "ben/interview.mp3": 12, "board-meeting.mp3": 40}
WELL_UNDER_WAY = 20.0  # percent


def main(recording: Path) -> None:
    """Run the daemon and take both pictures."""
    with tempfile.TemporaryDirectory(prefix="whisperd-") as directory:
        root = Path(directory) / "spool"
        with Daemon(root, SETTINGS) as daemon, chromium() as browser:
            name = f"alice/{recording.name}"
            upload(daemon, name, recording.read_bytes())
            daemon.wait(
                lambda: daemon.status(name) in {Status.COMPLETED, Status.FAILED}, what="the end", within_seconds=200
            )
            take_page(browser, (daemon.outbox / name).with_suffix(".html"))
            upload(daemon, "alice/scan.mp3", b"%PDF-1.7 this is no recording\n" * 100)
            daemon.wait(
                lambda: daemon.status("alice/scan.mp3") == Status.FAILED, what="the failure", within_seconds=200
            )
            for long_name, times in LONG.items():
                upload(daemon, long_name, repeated(recording, times))
            whole = repeated(recording, times=5)
            with (daemon.inbox / "holiday.mp3").open("wb") as unfinished:
                unfinished.write(whole[: len(whole) // 3])
                unfinished.flush()
                daemon.wait(lambda: under_way(daemon), what="progress", within_seconds=200)
                take_status(browser, root)


def upload(daemon: Daemon, name: str, content: bytes) -> None:
    """Put a file into the inbox."""
    target = daemon.inbox / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def repeated(recording: Path, times: int) -> bytes:
    """A recording many times over, as MP3."""
    command = [find_ffmpeg(None), "-v", "error", "-stream_loop", str(times - 1), "-i", recording]
    command += ["-ac", "1", "-b:a", "48k", "-f", "mp3", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def under_way(daemon: Daemon) -> bool:
    """Whether one of the long recordings is well under way."""
    found = [daemon.sidecar(name) or {} for name in LONG]
    return any(each.get("status") == Status.IN_PROGRESS and each["progress"] > WELL_UNDER_WAY for each in found)


def take_page(browser, page: Path) -> None:
    """Take a picture of a transcript page that plays."""
    with Sight(browser, page, viewport={"width": 1000, "height": 620}, device_scale_factor=1.5) as sight:
        sight.until("document.getElementById('media').readyState > 0")
        sight.page.locator(".q").nth(1).click()
        sight.until("document.querySelector('.q.at span.now')")
        save(sight.page.screenshot(), "transcript-page.png")


def take_status(browser, root: Path) -> None:
    """Take a picture of what `whisperd status` prints on a terminal with colours."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "whisperd", "status", "--root", root]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(printed.rstrip()))
    drawing = root / "status.html"
    style = "<style>body { margin: 0 } svg { display: block; width: 100% }</style>"
    drawing.write_text(f"{style}{console.export_svg(title='whisperd status')}", "utf-8")
    with Sight(browser, drawing, viewport={"width": 1300, "height": 700}) as sight:
        save(sight.page.locator("svg").first.screenshot(), "status.png")


def save(picture: bytes, name: str) -> None:
    """Keep a picture with the 256 colours that it needs most, which makes it small."""
    colours = "split[a][b];[a]palettegen[colours];[b][colours]paletteuse=dither=none"
    command = [find_ffmpeg(None), "-v", "error", "-y", "-f", "png_pipe", "-i", "-", "-vf", colours, PICTURES / name]
    subprocess.run(command, input=picture, check=True)
    print(f"{name}: {(PICTURES / name).stat().st_size // 1024} kB")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
