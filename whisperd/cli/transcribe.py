"""`whisperd transcribe FILE...`: transcribes files without the daemon, in a worker process like the daemon's."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whisperd.cli import add_spool_arguments
from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.errors import EXIT_FAILED, EXIT_OK, BootError, ConfigError
from whisperd.core.job import Failure, Result
from whisperd.daemon.pool import Blame, Interrupted, Pool
from whisperd.protocol import Failed, Finished, Heartbeat, Work
from whisperd.settings import config, profiles
from whisperd.settings.sections import SETTABLE
from whisperd.spool import names
from whisperd.spool.durable import Folder, move

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from whisperd.settings.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `transcribe`."""
    add_spool_arguments(parser)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--output-dir", type=Path, default=Path(), metavar="DIR", help="where to write the transcripts (default: here)"
    )
    parser.add_argument("--profile", metavar="GLOB", help="use the options of this profile of the configuration")
    parser.add_argument("--model", metavar="NAME")
    parser.add_argument("--language", metavar="CODE")
    parser.add_argument("--task", choices=("transcribe", "translate"))
    parser.add_argument("--formats", metavar="LIST", help="such as txt,srt")


def main(arguments: argparse.Namespace) -> int:
    """Transcribe each file; exit 1 if one failed."""
    settings = _settings(arguments)
    code = EXIT_OK
    try:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".whisperd-", dir=arguments.output_dir))
    except OSError as error:
        raise BootError(
            f"cannot write into {arguments.output_dir}: {error.strerror}", hint="choose another --output-dir"
        ) from error
    session = Session(settings)
    try:
        for number, file in enumerate(arguments.files):
            directory = scratch / str(number)
            directory.mkdir()
            shown = printable(str(file))
            with _progress(shown) as show:
                link = quote(os.fsencode(os.path.relpath(file, arguments.output_dir)))
                outcome = session.transcribe(file.absolute(), directory, link, show)
            if isinstance(outcome, Failure):
                print(
                    f"whisperd: {shown}: {outcome.message}" + (f" ({outcome.hint})" if outcome.hint else ""),
                    file=sys.stderr,
                )
                code = EXIT_FAILED
            else:
                for path in _place(directory / "outputs", outcome, file.name, arguments.output_dir):
                    print(path)
    finally:
        session.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return code


class Session:
    """One worker process, which transcribes one file after the other."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings
        options = settings.pool.evolve(workers=1, jobs_per_worker=1, idle_unload_seconds=0.0, max_memory=None)
        self._spec = profiles.resolve(settings, "")
        self._engine = settings.engine_options()
        self._pool = Pool(options, self._engine, events.Emitter())

    def transcribe(
        self, source: Path, directory: Path, link: str, show: Callable[[float, float | None], None]
    ) -> Result | Failure:
        """Transcribe one file; `show` is called with the audio seconds done and in all.

        `link` is the URL of the recording relative to the page, if html is among the formats.

        Raises:
            BootError: the model cannot be loaded.
        """
        assigned = False
        while True:
            now = time.monotonic()
            for message in self._pool.collect(now):
                if isinstance(message, Finished):
                    return message.result
                if isinstance(message, Failed) or (isinstance(message, Interrupted) and message.blame is Blame.GUILTY):
                    return message.failure
                if isinstance(message, Interrupted):
                    assigned = False  # the engine failed after other files: a fresh worker tells whether it is this one
                if isinstance(message, Heartbeat):
                    show(message.processed_seconds, message.duration_seconds)
            self._pool.tick(now)
            if trouble := self._pool.trouble:  # the daemon would keep trying, but here a person waits
                raise BootError(trouble.message, hint=trouble.hint)
            if not assigned and (child := self._pool.free(self._engine)) is not None:
                work = Work(directory.name, directory, source, self._spec, printable(source.name), link)
                self._pool.assign(child, work, now)
                assigned = True
            wait(self._pool.waitables(), timeout=1.0)

    def close(self) -> None:
        """End the worker."""
        self._pool.kill_all()


def _settings(arguments: argparse.Namespace) -> Config:
    settings = config.load(arguments.config, root=arguments.root)
    values: dict[str, Any] = settings.model_dump()
    chosen = settings.profiles.get(arguments.profile, {})
    if arguments.profile is not None and arguments.profile not in settings.profiles:
        known = ", ".join(settings.profiles) or "there is none"
        raise ConfigError("command line", [f"--profile: no such profile: {arguments.profile} (known: {known})"])
    for key, value in chosen.items():
        section, field = SETTABLE.get(key, ("", key))
        (values[section] if section else values)[field] = value
    values["profiles"] = {}
    if arguments.model:
        values["model"] = arguments.model
    for key in ("language", "task"):
        if getattr(arguments, key):
            values["transcription"][key] = getattr(arguments, key)
    if arguments.formats:
        values["output"]["formats"] = tuple(arguments.formats.split(","))
    values["pool"]["workers"] = 1
    return config.validate(values, source="command line")


def _place(outputs: Path, result: Result, file: str, target: Path) -> list[Path]:
    """Move the transcripts to names that are free: if one is taken, all get the same number."""
    with Folder(outputs) as source, Folder(target) as folder:
        for number in itertools.count(1):
            wanted = {kind: names.output(names.numbered(file, number), kind) for kind in result.outputs}
            if not any(folder.exists(name) for name in wanted.values()):
                for kind, name in wanted.items():
                    move(source, kind, folder, name)
                return [target / name for name in wanted.values()]
    raise AssertionError


class _progress:  # noqa: N801  # used like a function
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, description: str) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        text = TextColumn("{task.description}", markup=False)
        self._bar = Progress(
            text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), disable=not sys.stderr.isatty()
        )
        self._task = self._bar.add_task(description, total=None)

    def __enter__(self) -> Callable[[float, float | None], None]:
        self._bar.start()
        return lambda done, total: self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
