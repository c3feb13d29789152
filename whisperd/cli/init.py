"""`whisperd init --user`: prepares a service of one's own, run by `systemctl --user`, with its spool in ~/Transcripts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.core.errors import BootError
from whisperd.spool.durable import Folder, write

if TYPE_CHECKING:
    import argparse

UNIT = """\
# One's own whisperd, made by `whisperd init --user`. `systemctl --user edit whisperd` adds to it.

[Unit]
Description=whisperd, transcribes the recordings dropped into a folder
# Five crashes in five minutes are not cured by a sixth start.
StartLimitIntervalSec=5min
StartLimitBurst=5

[Service]
# READY=1 comes when a model is loaded and the inbox is watched.
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
TimeoutStartSec=2min
# Must exceed `pool.stop_grace_seconds`, or running jobs are killed instead of released.
TimeoutStopSec=60s
WatchdogSec=30s
KillMode=mixed
OOMPolicy=continue
Restart=on-failure
RestartSec=5s
# Somebody has to act before a start can succeed.
RestartPreventExitStatus=3 75 78
# Recordings and transcripts are for their owner.
UMask=0077
NoNewPrivileges=yes
LimitCORE=0
# Whoever works on this machine comes first.
Nice=10

[Install]
WantedBy=default.target
"""
CONFIG = """\
# One's own whisperd; `python -m whisperd.cli.man 5` lists all keys. After a change: systemctl --user reload whisperd

root: {root}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `init`."""
    parser.add_argument("--user", action="store_true", required=True, help="a service of your own, without root")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the spool (default: ~/Transcripts)")


def main(arguments: argparse.Namespace) -> int:
    """Write what is missing and say what to do next."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    config, unit = home / "whisperd/whisperd.yaml", home / "systemd/user/whisperd.service"
    root = (arguments.root or Path.home() / "Transcripts").absolute()
    _write(config, CONFIG.format(root=json.dumps(str(root), ensure_ascii=False)))  # a JSON string is one of YAML
    command = " ".join(map(_quoted, [*_program(), "run", "--config", str(config)]))
    _write(unit, UNIT.format(command=command))
    print(
        f"\nWhat now:\n"
        f"  start it, now and at each login   systemctl --user daemon-reload && systemctl --user enable --now whisperd\n"
        f"  keep it running without a login   loginctl enable-linger\n"
        f"  transcribe a recording            cp interview.mp3 {root}/inbox/    (the text appears in {root}/outbox/)\n"
        f"  see what it does                  whisperd status --config {config}; journalctl --user -u whisperd"
    )
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Folder(path.parent) as folder:
            write(folder, path.name, text.encode(), replace=False)
    except FileExistsError:
        print(f"kept {path}")
    except OSError as error:
        raise BootError(f"cannot write {path}: {error.strerror}", hint="make the directory writable") from error
    else:
        print(f"wrote {path}")


def _program() -> list[str]:
    """The command as it was called, so that a link to a program stays one: an upgrade replaces the link."""
    called = shutil.which(sys.argv[0])
    if called and Path(called).name == "whisperd":
        return [os.path.abspath(called)]
    return [sys.executable, "-m", "whisperd"]


def _quoted(word: str) -> str:
    """One word of a command in a unit file (systemd.syntax(7), systemd.unit(5))."""
    for old, new in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(old, new)
    return f'"{word}"'
