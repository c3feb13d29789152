"""Examines the spool: folders, permissions, disk space, unfinished jobs and the limit of inotify."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import whisperd
from whisperd.cli.doctor import Finding
from whisperd.core.display import mebibytes
from whisperd.core.errors import BootError
from whisperd.intake.ignore import Ignore
from whisperd.intake.scan import scan
from whisperd.intake.watch import REMEDY, BindingError, Watch
from whisperd.spool.layout import Layout, files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.settings.config import Config

WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
WATCHES_USUAL = 524_288


def examine_spool(settings: Config) -> Iterator[Finding]:
    """Examine everything in the spool; if the root is missing that is the only finding."""
    layout = Layout(settings.root)
    if not layout.root.is_dir():
        yield _missing_root(layout)
        return
    rooms = (layout.inbox, layout.outbox, layout.done, layout.failed, layout.work)
    missing = [path.name for path in rooms if not path.is_dir()]
    try:
        is_locked = layout.is_locked()
    except PermissionError:
        owner = pwd.getpwuid(layout.work.stat().st_uid).pw_name
        hint = f"sudo -u {owner} whisperd check"
        yield Finding("warning", f"root {layout.root}: belongs to {owner}, and only that user can check it", hint)
        return
    if is_locked:
        yield _daemon(layout)
    elif missing:
        can = os.access(layout.root, os.W_OK | os.X_OK)
        hint = "" if can else f"chown {os.geteuid()} {_quoted(layout.root)}"
        yield Finding("ok" if can else "error", f"root {layout.root}: {', '.join(missing)} will be created", hint)
    else:
        yield _folders(layout)
    yield _room(layout, settings)
    if not missing:
        yield from _unfinished(layout, is_locked=is_locked)
        yield from _people(layout)
        yield from _refused(layout, settings)
        yield _watches(layout)


def _missing_root(layout: Layout) -> Finding:
    parent = next(parent for parent in layout.root.parents if parent.is_dir())
    try:  # access(2) would report even /proc as writable for root
        with tempfile.TemporaryDirectory(prefix=".whisperd-", dir=parent):
            return Finding("ok", f"root {layout.root} does not exist yet, it will be created")
    except OSError:
        hint = f"create it, writable for uid {os.geteuid()}: install -d -o {os.geteuid()} {_quoted(layout.root)}"
        return Finding("error", f"root {layout.root} does not exist and cannot be created", hint)


def _daemon(layout: Layout) -> Finding:
    version = layout.owner_version()
    if version not in {None, whisperd.__version__}:
        text = f"root {layout.root}: the running whisperd is version {version}, this one is {whisperd.__version__}"
        return Finding("warning", text, "systemctl restart whisperd")
    return Finding("ok", f"root {layout.root}: a whisperd is running")


def _folders(layout: Layout) -> Finding:
    try:
        layout.check()
    except BootError as error:
        return Finding("error", error.message, error.hint)
    return Finding("ok", f"root {layout.root}: writable, on one filesystem")


def _room(layout: Layout, settings: Config) -> Finding:
    free, wanted = layout.free_bytes(), settings.intake.min_free
    text = f"{mebibytes(free)} free, {mebibytes(wanted)} wanted"
    if free >= wanted:
        return Finding("ok", text)
    hint = (
        f"free disk space, or lower intake.min_free; until then nothing is claimed: du -xh -d1 {_quoted(layout.root)}"
    )
    return Finding("warning", text, hint)


def _unfinished(layout: Layout, *, is_locked: bool) -> Iterator[Finding]:
    jobs = [entry for entry in os.listdir(layout.work) if not entry.startswith(".")]
    if jobs and not is_locked:
        yield Finding(
            "warning",
            f"{len(jobs)} jobs are unfinished, and no whisperd is running",
            "the next start continues them: systemctl start whisperd",
        )


def _people(layout: Layout) -> Iterator[Finding]:
    """Examine whether the members of the inbox's group can use it, if it has members besides the owner."""
    status = layout.inbox.stat()
    try:
        group, owner = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:  # a group id without a name has no members
        return
    if not set(group.gr_mem) - {owner.pw_name}:
        return
    wanted = stat.S_IRWXG | stat.S_ISGID
    if status.st_mode & wanted == wanted:
        yield Finding("ok", f"the group {group.gr_name} may upload into the inbox")
    else:
        text = f"the group {group.gr_name} has members who cannot use the inbox, or whose uploads will belong to another group"
        yield Finding("warning", text, f"chmod g+rwxs {_quoted(layout.inbox)}")


def _refused(layout: Layout, settings: Config) -> Iterator[Finding]:
    """Look for uploads that the user who runs this, usually that of the daemon, may not read or move."""
    for found in filter(None, scan(layout.inbox, Ignore(settings.intake.ignore))):
        folder = layout.inbox / Path(found.name).parent
        if found.signature is not None and not (
            os.access(layout.inbox / found.name, os.R_OK) and os.access(folder, os.W_OK | os.X_OK)
        ):
            hint = f"chmod -R g+rwX {_quoted(layout.inbox)}"
            yield Finding(
                "warning",
                "the daemon may not read some uploads in the inbox, or not move them out of their folder",
                hint,
            )
            return


def _watches(layout: Layout) -> Finding:
    try:
        Watch(layout.inbox).close()
    except BindingError as error:
        return Finding("warning", f"the inbox cannot be watched and will be polled: {error.strerror}", REMEDY)
    except OSError as error:
        text = f"the inbox cannot be watched and will be polled: {error.strerror}"
        return Finding("warning", text, "sysctl -w fs.inotify.max_user_instances=1024")
    folders = sum(found is None for found in files(layout.inbox))
    limit = int(WATCHES.read_bytes())
    if 2 * folders > limit:
        text = f"{folders} folders in the inbox, but all programs of a user can watch only {limit}"
        wanted = max(WATCHES_USUAL, 4 * folders)
        return Finding("warning", text, f"sysctl -w fs.inotify.max_user_watches={wanted}")
    return Finding("ok", f"{folders} folders in the inbox to watch, {limit} are possible")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
