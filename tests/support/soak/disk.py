"""The disk that a run works on: a small filesystem of its own where one can be mounted, to be filled at will."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE_BYTES = 512 << 20


class Disk:
    """A directory; `can_fill` tells whether it is a filesystem of its own."""

    def __init__(self, path: Path, *, can_fill: bool) -> None:
        self.path = path
        self.can_fill = can_fill
        self._ballast = path / "somebody-elses"

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("ab") as file:
            for _ in range(3):  # what somebody freed meanwhile too
                status = os.statvfs(self.path)
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.tell(), max(1, status.f_bavail * status.f_frsize))
                file.seek(0, os.SEEK_END)

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    """Half a gigabyte in memory; a plain directory where this process may not mount."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "whisperd-soak", path]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield Disk(path, can_fill=mounted)
    finally:
        if mounted:  # lazily: a worker of a killed daemon needs a moment to end
            subprocess.run(["umount", "--lazy", path], check=True)
