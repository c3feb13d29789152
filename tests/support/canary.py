"""Baits, and who took them: a file whose every opening is seen, and a server that counts connections."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Self

from watchdog.observers.inotify_c import InotifyConstants, inotify_add_watch, inotify_init

SECRET = "canary-7f3a91"


class Canary:
    """A file with a known text; a context manager."""

    def __init__(self, path: Path) -> None:
        path.write_text(f"{SECRET}\n" * 40)
        self.path = path

    def __enter__(self) -> Self:
        self._fd = inotify_init()
        os.set_blocking(self._fd, False)
        watched = InotifyConstants.IN_OPEN | InotifyConstants.IN_ACCESS | InotifyConstants.IN_MOVE_SELF
        assert inotify_add_watch(self._fd, os.fsencode(self.path), watched | InotifyConstants.IN_DELETE_SELF) >= 0
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)

    def was_touched(self, how: int = 0xFFFF_FFFF) -> bool:
        """Whether anybody opened, read or moved it since the last call; or one of these, by its mask of inotify(7)."""
        try:
            told = os.read(self._fd, 1 << 20)
        except BlockingIOError:
            return False
        return any(mask & how for _, mask, _ in struct.iter_unpack("iI8s", told))  # of a file: without a name


class Server:
    """Counts connections, and hangs up; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


def holding(root: Path, text: str) -> list[Path]:
    """The files below a directory that hold a text, in their names or in what is in them."""
    wanted = text.encode()
    found = []
    for folder, _, files in os.walk(root):
        for path in (Path(folder, file) for file in files):
            is_plain = path.is_file() and not path.is_symlink()  # to follow one would be to do what must not be done
            with contextlib.suppress(FileNotFoundError):  # a job ends meanwhile
                if wanted in os.fsencode(path.name) or (is_plain and wanted in path.read_bytes()):
                    found.append(path)
    return found
