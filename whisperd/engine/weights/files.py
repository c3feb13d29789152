"""Writes and hashes files of weights, so that a file appears complete or not at all, with a record beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from whisperd.core.errors import BootError
from whisperd.spool import durable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedRandom
    from pathlib import Path

CHUNK_BYTES = 1 << 20
READABLE = "whisperd's user must be able to read it"
WRITABLE = "it needs room on the disk and permission to write"
ABANDONED_SECONDS = 3600.0  # a writer that lives writes far more often


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a checkpoint that whisperd wrote: the file `<name>.pt.json` beside it."""

    sha256: str
    source: str  # for people


def sha256_of(paths: Iterable[Path]) -> str:
    """Compute the SHA-256 of files joined, in hexadecimal; it takes about a second per gigabyte and little memory.

    Raises:
        BootError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise BootError(f"cannot read {path}: {error.strerror}", hint=READABLE) from error
    return digest.hexdigest()


def is_file(path: Path) -> bool:
    """Whether the path is a regular file.

    Raises:
        BootError: nobody may look, so that "not there" would be a lie.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise BootError(f"cannot look at {path}: {error.strerror}", hint=READABLE) from error


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[BufferedRandom]:
    """Open a temporary file that gets the name `target` when the block succeeds; it never replaces another file.

    Two writers of one target do not meet: each has a temporary file of its own, and the first to finish wins.

    Raises:
        FileExistsError: another file took the name meanwhile; it is untouched.
        BootError: the file cannot be written.
    """
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        durable.make_directory(target.parent)
        _remove_abandoned(target)
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with durable.Folder(target.parent) as folder:
            durable.move(folder, temporary.name, folder, target.name)
    except FileExistsError:
        raise
    except OSError as error:
        raise BootError(f"cannot write {target}: {error.strerror}", hint=WRITABLE) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary files of killed writers, which can be gigabytes."""
    for part in target.parent.glob(f"{target.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()


def write_record(checkpoint: Path, record: Record) -> None:
    """Write the record of a checkpoint; it replaces that of an earlier one with the same name.

    Raises:
        BootError: it cannot be written.
    """
    name = f"{checkpoint.name}.json"
    try:
        with durable.Folder(checkpoint.parent) as folder:
            durable.write(folder, name, json.dumps(asdict(record), indent=2).encode() + b"\n")
    except OSError as error:
        raise BootError(f"cannot write {checkpoint.parent / name}: {error.strerror}", hint=WRITABLE) from error


def read_record(checkpoint: Path) -> Record | None:
    """Read the record of a checkpoint; None if it is missing or damaged, since the weights may still be good."""
    try:
        return Record(**json.loads(checkpoint.with_name(f"{checkpoint.name}.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
