"""A spool without a daemon: the store on real files, with an uploader, a worker and a stranger who act on command."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.core.job import Failure, Job, Result, Signature
from whisperd.core.options import OutputOptions
from whisperd.output.formats import render
from whisperd.spool import names, publish, store
from whisperd.spool.layout import Layout
from whisperd.spool.recover import Recovery, recover

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import pytest

    from whisperd.core.transcript import Transcript

FORMATS = ("txt", "json")
SEEN_AT = "2026-01-02T03:04:05.678Z"
FAILURE = Failure("no_audio", "there is no sound in it", "send another file", stage="decoding")


def result(formats: tuple[str, ...] = FORMATS, **changes: object) -> Result:
    """What a worker reports of a recording of 12.5 s."""
    fields = {
        "duration_seconds": 12.5,
        "processing_seconds": 2.5,
        "sha256": "0" * 64,
        "language": "de",
        "language_probability": 0.9,
        "languages": ((0.0, 12.0, "de"),),
        "engine": "scripted",
        "model": "base",
        "device": "cpu",
        "outputs": formats,
    }
    return Result(**fields | changes)


class Spool:
    """One spool in a directory that may be new.

    Attributes:
        store: the one in charge; `restart` replaces it, as a new daemon would.
        announce: what the next store does with the notifications of a job's end; by default nothing.
    """

    announce: store.Announce = staticmethod(lambda *_: None)

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.layout.create()
        self.store = store.Store(self.layout, self.announce)

    def upload(self, name: str, content: bytes | None = None) -> Path:
        """What a user does: write a file into the inbox; by default its content is its name."""
        return self.put(f"inbox/{name}", os.fsencode(name) if content is None else content)

    def put(self, path: str, content: bytes = b"a stranger's") -> Path:
        """Write a file anywhere below the root."""
        target = self.layout.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def seen(self, name: str) -> Signature:
        """What the inbox would say of a file that has settled."""
        return Signature.of(os.lstat(self.layout.inbox / name))

    def claim(self, name: str, formats: tuple[str, ...] = FORMATS) -> Job:
        """Claim a file as it is now."""
        return self.store.claim(name, self.seen(name), formats, created_at=SEEN_AT)

    def take(self, name: str, content: bytes | None = None) -> Job:
        """Upload and claim."""
        self.upload(name, content)
        return self.claim(name)

    def render(self, job: Job, formats: tuple[str, ...] = FORMATS) -> Result:
        """What a worker does: leave the transcripts in the directory of the job."""
        outputs = self.layout.job_directory(job.id) / "outputs"
        outputs.mkdir(exist_ok=True)
        for kind in formats:
            (outputs / kind).write_bytes(text(job.id, kind))
        return result(formats)

    def finish(self, job: Job) -> Job:
        """Render and publish."""
        return self.store.finish(job, self.render(job))

    def complete(self, name: str, transcript: Transcript, formats: tuple[str, ...] = FORMATS, **changes: object) -> Job:
        """Upload a recording, transcribe it as a worker does, and publish."""
        job = self.take(name)
        outputs = self.layout.job_directory(job.id) / "outputs"
        outputs.mkdir()
        files = render(transcript, OutputOptions(formats=formats))
        for kind, content in files.items():
            (outputs / kind).write_bytes(content)
        digests = {kind: hashlib.sha256(content).hexdigest() for kind, content in files.items()}
        return self.store.finish(job, result(formats, **{"digests": digests} | changes))

    def restart(self, max_attempts: int = 3) -> Recovery:
        """What a new daemon does first."""
        self.store = store.Store(self.layout, self.announce)
        return recover(self.store, max_attempts=max_attempts)

    def sidecar(self, place: str) -> dict:
        """The status of the job at a place."""
        folders, file = names.split(place)
        return json.loads((self.layout.outbox / names.join(folders, names.status_file(file))).read_bytes())

    def files(self, room: str) -> dict[str, bytes]:
        """Every file in a room, sidecars aside: path in the room -> content; a symlink counts as what it says."""
        found = {}
        for folder, _, entries in os.walk(self.layout.root / room):
            for entry in entries:
                path = Path(folder, entry)
                content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
                if not entry.endswith(names.STATUS_SUFFIX):
                    found[str(path.relative_to(self.layout.root / room))] = content
        return found

    def jobs(self) -> set[str]:
        """The ids of the jobs that have a directory."""
        return {entry for entry in os.listdir(self.layout.work) if not entry.startswith(".")}


def text(job_id: str, kind: str) -> bytes:
    """The transcript of a job in one format, which no other job's equals."""
    return f"{kind} of {job_id}\n".encode()


def at(monkeypatch: pytest.MonkeyPatch, **acts: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Let somebody act in the middle of a transition: failpoint, with `__` for its dot -> what happens the first time."""
    waiting = {name.replace("__", "."): act for name, act in acts.items()}
    for module in (store, publish):
        monkeypatch.setattr(module, "failpoint", lambda reached: waiting.pop(reached, lambda: None)())
    return waiting


def breaking(monkeypatch: pytest.MonkeyPatch, call: str, code: int, module: ModuleType = store) -> None:
    """Let a step of the store fail, once."""
    real = getattr(module, call)
    failed = []

    def step(*arguments, **options):
        if not failed:
            failed.append(call)
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(module, call, step)


def nest(top: Path, depth: int, file: str | None = None) -> None:
    """Make folders in folders, deeper than any path may be long."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    if file:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
