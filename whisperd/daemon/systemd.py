"""What the service manager hears of us: sd_notify(3) through the sdnotify package."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import sdnotify

from whisperd.daemon.loop import NEVER, Part

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS_EVERY_SECONDS = 1.0


class Notifier:
    """Speaks to NOTIFY_SOCKET where there is one, and is silent elsewhere.

    The socket's address is taken out of the environment: workers and ffmpeg must not be able to speak for the service.
    """

    def __init__(self) -> None:
        self._systemd = _connect()
        self._owed: list[str] = []
        self._is_ready = False
        os.environ.pop("NOTIFY_SOCKET", None)
        interval = int(os.environ.pop("WATCHDOG_USEC", "0") or 0)
        owner = os.environ.pop("WATCHDOG_PID", "")
        self.watchdog_seconds = interval / 1e6 / 2 if interval and owner in {"", str(os.getpid())} else None
        self._pinged_at = float("-inf")
        self._status = ""
        self._status_at = float("-inf")

    def ready(self) -> None:
        """A worker is ready and the inbox is watched."""
        self._is_ready = True
        self._owe("READY=1")

    def reloading(self) -> None:
        """A reload begins; `reloaded` ends it."""
        self._owe(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """A reload is over, whatever came of it; before the first `ready` that one says so."""
        if self._is_ready:
            self._owe("READY=1")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._owe("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Start or stop takes longer: give it this much from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self, now: float) -> None:
        """Ping the watchdog at half its interval; called by the loop, so that a stuck loop is noticed."""
        self._pay()
        if self.watchdog_seconds is not None and now - self._pinged_at >= self.watchdog_seconds:
            self._pinged_at = now
            self._send("WATCHDOG=1")

    def status(self, text: str, now: float) -> float | None:
        """One line for `systemctl status`; ASCII, since sdnotify drops what Latin-1 cannot hold.

        Returns when to call again, if it was too soon after the last line.
        """
        if text == self._status:
            return None
        due = self._status_at + STATUS_EVERY_SECONDS
        if now < due:
            return due
        self._status_at = now
        if not self._send("STATUS=" + text.encode("ascii", "backslashreplace").decode("ascii")):
            return now + STATUS_EVERY_SECONDS
        self._status = text
        return None

    def _owe(self, state: str) -> None:
        """Say something that must arrive, now or later."""
        self._owed.append(state)
        self._pay()

    def _pay(self) -> None:
        while self._owed and self._send(self._owed[0]):
            del self._owed[0]

    def _send(self, state: str) -> bool:
        """Whether it is said; not so if the manager's queue is full."""
        if self._systemd is None:
            return True
        try:
            self._systemd.notify(state)
        except BlockingIOError:
            return False
        except OSError:
            return True  # nobody is there to hear it, nor will be
        return True


class ServiceStatus(Part):
    """Keeps the service manager informed: the watchdog, and one line about what the daemon does.

    Args:
        notifier: the way to the service manager.
        text: gives the line.
    """

    def __init__(self, notifier: Notifier, text: Callable[[], str]) -> None:
        self._notifier = notifier
        self._text = text

    def tick(self, now: float) -> float:
        """Ping the watchdog, which only a loop that turns does, and show what has changed."""
        self._notifier.alive(now)
        due = self._notifier.status(self._text(), now)
        watchdog = self._notifier.watchdog_seconds
        return min(NEVER if due is None else due, NEVER if watchdog is None else now + watchdog / 2)


def _connect() -> Any:
    """The line to the service manager; None where there is nobody to speak to, since sdnotify leaves a socket open."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    line = sdnotify.SystemdNotifier()
    if line.socket is None:
        return None
    line.debug = True  # raises what it would swallow, a full queue among it
    line.socket.setblocking(False)  # a manager that does not read must not stop the loop
    return line
