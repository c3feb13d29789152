"""A disk that takes its time, on a scripted clock: what a daemon does on it is measured without waiting for it."""

from __future__ import annotations

import os

CALLS = ("open", "stat", "lstat", "listdir", "mkdir", "rmdir", "unlink", "link", "rename", "fsync")


class SlowDisk:
    """Every call to the filesystem, and nothing else, moves the clock on.

    Attributes:
        now: what `time.monotonic` gives.
        is_met: whether calls cost time; the test's own are free.
    """

    def __init__(self, monkeypatch, *, call_seconds: float, bytes_per_second: float = 10e6) -> None:
        self.now = 1000.0
        self.is_met = False
        self.call_seconds = call_seconds
        self._bytes_per_second = bytes_per_second
        self._pread, self._scandir = os.pread, os.scandir
        for name in CALLS:
            monkeypatch.setattr(os, name, self._slow(getattr(os, name)))
        monkeypatch.setattr(os, "pread", self._slow_pread)
        monkeypatch.setattr(os, "scandir", lambda folder: Listing(self, self._scandir(folder)))
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def pass_call(self, more_seconds: float = 0.0) -> None:
        """One call to the filesystem has come back."""
        if self.is_met:
            self.now += self.call_seconds + more_seconds

    def _slow(self, function):
        def slow(*arguments, **keywords):
            self.pass_call()
            return function(*arguments, **keywords)

        return slow

    def _slow_pread(self, fd, length, at):
        block = self._pread(fd, length, at)
        self.pass_call(len(block) / self._bytes_per_second)
        return block


class Listing:
    """What scandir(3) gives; each entry that is looked at is a call."""

    def __init__(self, disk: SlowDisk, entries) -> None:
        self._disk = disk
        self._entries = entries

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._entries.close()

    def __iter__(self):
        return self

    def __next__(self):
        return Entry(self._disk, next(self._entries))

    def close(self):
        self._entries.close()


class Entry:
    """One of them; its type comes with the listing."""

    def __init__(self, disk: SlowDisk, entry) -> None:
        self._disk = disk
        self._entry = entry
        self.name = entry.name
        self.is_dir = entry.is_dir

    def stat(self, **keywords):
        self._disk.pass_call()
        return self._entry.stat(**keywords)
