"""`whisperd logs NAME`: prints what was logged about one job, from the journal of systemd or from a file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments, lookup
from whisperd.core.display import printable
from whisperd.core.errors import EXIT_OK, SpoolError, WhisperdError
from whisperd.core.process import JOB_FIELD, JOURNAL
from whisperd.intake.ignore import Ignore
from whisperd.settings import config
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse

WITHOUT_JOURNAL = "run whisperd as a service, or keep its log by `whisperd run 2>>FILE` and read it by `whisperd logs NAME --file FILE`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `logs`."""
    add_spool_arguments(parser)
    parser.add_argument("name", metavar="NAME", help="as under inbox/, with or without its folder, or the id of a job")
    parser.add_argument("--follow", action="store_true", help="keep printing until Ctrl-C")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="a file with the standard error of the daemon, instead of the journal"
    )


def main(arguments: argparse.Namespace) -> int:
    """Print the lines; exit 1 if there is no such job or nothing was logged about it."""
    settings = config.load(arguments.config, root=arguments.root)
    layout = Layout(settings.root)
    try:
        entry = lookup.find(layout, Ignore(settings.intake.ignored), arguments.name)
    except OSError as error:
        raise SpoolError(f"cannot read {error.filename}: {error.strerror}") from error
    job_id = lookup.id_of(layout, entry)
    if arguments.file:
        return _from_file(arguments.file, entry, job_id)
    if job_id is None:
        reason = "it waits in the inbox and is no job yet" if entry.room == "inbox" else "its status file is missing"
        hint = f"whisperd status {printable(entry.path)} says why; all that is logged: journalctl -u whisperd"
        raise WhisperdError(f"{printable(entry.path)}: {reason}", hint=hint)
    journalctl = shutil.which("journalctl")
    if journalctl is None or not Path(JOURNAL).exists():
        raise WhisperdError("this machine has no journal of systemd", hint=WITHOUT_JOURNAL)
    command = [journalctl, "--quiet", "--no-pager", "--output=short-iso", f"{JOB_FIELD}={job_id}"]
    if arguments.follow:
        return subprocess.run([*command, "--follow", "--lines=all"], check=False).returncode
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode == 0 and done.stdout:
        sys.stdout.buffer.write(done.stdout)
        return EXIT_OK
    raise WhisperdError(
        f"{printable(entry.path)}: the journal that this user may read has nothing about job {job_id}",
        hint=f"try it as root; if whisperd was started by hand, {WITHOUT_JOURNAL}",
    )


def _from_file(path: Path, entry: lookup.Located, job_id: str | None) -> int:
    """Print the lines that begin with the name of the upload, after time and level, or name its job."""
    marks = [f" {printable(entry.job.name if entry.job else entry.place)}: ", *filter(None, [job_id])]
    try:
        with path.open(encoding="utf-8", errors="replace") as log:
            found = [line.rstrip("\n") for line in log if any(mark in f" {line}" for mark in marks)]
    except OSError as error:
        raise WhisperdError(f"cannot read {path}: {error.strerror}") from error
    if not found:
        raise WhisperdError(f"{path} has nothing about {printable(entry.path)}")
    print(*(printable(line).replace("\\\\", "\\") for line in found), sep="\n")
    return EXIT_OK
