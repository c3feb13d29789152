"""A filesystem that fails on command: FUSE hands every operation on to a directory, but for those that were told to fail.

The kernel hands renameat2(2) with its flags to libfuse 3 (FUSE_RENAME2), and so does this; mfusepy alone would drop the
flags and overwrite. Without `noreplace` the flags are refused, as by NFS and sshfs. Inode numbers are made up by libfuse, as
on sshfs. Nothing is cached, so that each operation gets here.

Run as a program it is the filesystem; `FaultyFs` starts that and commands it through a file.
"""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from ctypes.util import find_library
from pathlib import Path

OPERATIONS = (
    "stat",
    "open",
    "read",
    "write",
    "close",
    "fsync",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "readdir",
)
HANG = 0  # in place of an errno


def unavailable() -> str:
    """Why it cannot be mounted here; empty when it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse"
    missing = {
        "fusermount3": shutil.which("fusermount3"),
        "libfuse3": find_library("fuse3"),
        "mfusepy": importlib.util.find_spec("mfusepy"),
    }
    return ", ".join(f"no {what}" for what, found in missing.items() if found is None)


class FaultyFs:
    """A mount in a directory that may be new; a context manager.

    Attributes:
        root: what is mounted.
        behind: the same tree, where nothing fails; what is made there is as if another machine had made it.
    """

    def __init__(self, ground: Path, *, noreplace: bool = True) -> None:
        self.root, self.behind = ground / "spool", ground / "behind"
        self._control, self._log = ground / "rules.json", ground / "hits"
        self._said = ground / "said"
        self._noreplace = str(int(noreplace))

    def __enter__(self):
        for folder in (self.root, self.behind):
            folder.mkdir(parents=True)
        self._log.touch()
        self.heal()
        command = [sys.executable, __file__, self.behind, self.root, self._control, self._log, self._noreplace]
        environment = {**os.environ, "FUSE_LIBRARY_PATH": str(find_library("fuse3"))}
        with self._said.open("w") as said:
            self._process = subprocess.Popen(command, env=environment, stderr=said)
        deadline = time.monotonic() + 30.0
        while not self.root.is_mount():
            assert self._process.poll() is None, f"the filesystem ended: {self._said.read_text()}"
            assert time.monotonic() < deadline, "the filesystem is not mounted"
            time.sleep(0.02)
        return self

    def __exit__(self, *error):
        self.heal()
        subprocess.run(["fusermount3", "-u", "-z", self.root], check=True)
        self._process.wait(timeout=30)

    def fail(self, operation: str, error: int = errno.EIO, path: str = "*", *, skip: int = 0, times: int = -1) -> None:
        """From now on, and until `heal`.

        Args:
            operation: one of OPERATIONS, or opendir.
            error: what it fails with; HANG: it does not return.
            path: a glob over paths below the root, such as `/.work/*`.
            skip: how many go well before.
            times: how many fail; -1: all.
        """
        self._command([{"operation": operation, "path": path, "error": error, "skip": skip, "times": times}])

    def heal(self) -> None:
        """Nothing fails any more, and what hangs goes on."""
        self._command([])

    def hits(self) -> list[str]:
        """Operation and path of everything that was made to fail so far."""
        return self._log.read_text().splitlines()

    def _command(self, rules: list[dict]) -> None:
        temporary = self._control.with_suffix(".new")
        temporary.write_text(json.dumps(rules))
        temporary.rename(self._control)


class Rules:
    """What is to fail, as the file says now."""

    def __init__(self, control: str, log: str) -> None:
        self._control, self._log = control, log
        self._seen: tuple[int, int] | None = None
        self._rules: list[dict] = []
        self._lock = threading.Lock()

    def meet(self, operation: str, path: str) -> None:
        """Fail, hang or do nothing."""
        while True:
            error = self._due(operation, path)
            if error is None:
                return
            if error != HANG:
                raise OSError(error, os.strerror(error))
            time.sleep(0.02)

    def _due(self, operation: str, path: str) -> int | None:
        with self._lock:
            status = os.stat(self._control)
            if self._seen != (status.st_ino, status.st_mtime_ns):
                self._seen = status.st_ino, status.st_mtime_ns
                self._rules = json.loads(Path(self._control).read_text())
            for rule in self._rules:
                if rule["operation"] != operation or not fnmatch.fnmatch(path, rule["path"]) or not rule["times"]:
                    continue
                if rule["skip"]:
                    rule["skip"] -= 1
                    continue
                rule["times"] -= 1
                with open(self._log, "a", encoding="ascii") as log:
                    log.write(f"{operation} {path!a}\n")
                return rule["error"]
        return None


def main(behind: str, root: str, control: str, log: str, noreplace: str) -> None:
    """Serve the mount until it is taken away."""
    from mfusepy import FUSE, Operations  # noqa: PLC0415

    rules = Rules(control, log)
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2

    class Handed(Operations):
        use_ns = True

        def at(self, operation: str, path: str) -> str:
            rules.meet(operation, path)
            return behind + path

        def getattr(self, path, fh=None):
            status = os.lstat(self.at("stat", path)) if fh is None else os.fstat(fh)
            times = {key: getattr(status, f"{key}_ns") for key in ("st_atime", "st_mtime", "st_ctime")}
            keys = ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_rdev")
            return {key: getattr(status, key) for key in keys} | times

        def opendir(self, path):
            self.at("opendir", path)
            return 0

        def readdir(self, path, fh):
            return [".", "..", *os.listdir(self.at("readdir", path))]

        def open(self, path, flags):
            return os.open(self.at("open", path), flags & ~os.O_NOFOLLOW)

        def create(self, path, mode, flags):
            return os.open(self.at("open", path), flags | os.O_CREAT, mode)

        def read(self, path, size, offset, fh):
            self.at("read", path)
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            self.at("write", path)
            return os.pwrite(fh, data, offset)

        def flush(self, path, fh):
            self.at("close", path)

        def release(self, path, fh):
            os.close(fh)

        def fsync(self, path, datasync, fh):
            self.at("fsync", path)

        def fsyncdir(self, path, datasync, fh):
            self.at("fsync", path)

        def truncate(self, path, length, fh=None):
            os.truncate(behind + path if fh is None else fh, length)

        def rename(self, old, new, flags=0):
            if flags and noreplace == "0":
                raise OSError(errno.EINVAL, "flags")
            source, target = self.at("rename", old), self.at("rename", new)
            if renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
                raise OSError(ctypes.get_errno(), "renameat2")

        def link(self, target, source):
            os.link(behind + source, self.at("link", target), follow_symlinks=False)

        def unlink(self, path):
            os.unlink(self.at("unlink", path))

        def mkdir(self, path, mode):
            os.mkdir(self.at("mkdir", path), mode)

        def rmdir(self, path):
            os.rmdir(self.at("rmdir", path))

        def chmod(self, path, mode):
            os.chmod(behind + path, mode)

        def chown(self, path, uid, gid):
            os.chown(behind + path, uid, gid)

        def utimens(self, path, times=None):
            os.utime(behind + path, ns=times)

        def statfs(self, path):
            status = os.statvfs(behind)
            return {key: getattr(status, key) for key in dir(status) if key.startswith("f_")}

    class Mount(FUSE):
        def rename_fuse_3(self, old, new, flags):
            return self.operations.rename(os.fsdecode(old), os.fsdecode(new), flags)

    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    Mount(Handed(), root, foreground=True, hard_remove=True, encoding="utf-8", **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
