"""Sends messages to the service manager: sd_notify(3) through the package sdnotify."""

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
    """Sends messages to NOTIFY_SOCKET if there is one.

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
        """Send READY: a worker is ready and the inbox is watched."""
        self._is_ready = True
        self._owe("READY=1")

    def reloading(self) -> None:
        """Send RELOADING: a reload begins; `reloaded` ends it."""
        self._owe(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Send READY after a reload, whatever its result; before the first `ready` nothing is sent."""
        if self._is_ready:
            self._owe("READY=1")

    def stopping(self) -> None:
        """Send STOPPING: the daemon stops."""
        self._owe("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop, from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self, now: float) -> None:
        """Ping the watchdog at half its interval; called by the loop, so that a loop that hangs is noticed."""
        self._pay()
        if self.watchdog_seconds is not None and now - self._pinged_at >= self.watchdog_seconds:
            self._pinged_at = now
            self._send("WATCHDOG=1")

    def status(self, text: str, now: float) -> float | None:
        """Send one line for `systemctl status`, in ASCII, since sdnotify drops what is not Latin-1.

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
        """Send a message that must arrive, now or later."""
        self._owed.append(state)
        self._pay()

    def _pay(self) -> None:
        while self._owed and self._send(self._owed[0]):
            del self._owed[0]

    def _send(self, state: str) -> bool:
        """Send a message; False if the queue of the service manager is full."""
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
    """The part of the loop that pings the watchdog of systemd and updates the status line.

    Args:
        notifier: the way to the service manager.
        text: gives the line.
    """

    def __init__(self, notifier: Notifier, text: Callable[[], str]) -> None:
        self._notifier = notifier
        self._text = text

    def tick(self, now: float) -> float:
        """Ping the watchdog, and send the status line if it has changed."""
        self._notifier.alive(now)
        due = self._notifier.status(self._text(), now)
        watchdog = self._notifier.watchdog_seconds
        return min(NEVER if due is None else due, NEVER if watchdog is None else now + watchdog / 2)


def _connect() -> Any:
    """Connect to the service manager; None if there is none, since sdnotify would leave a socket open."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    line = sdnotify.SystemdNotifier()
    if line.socket is None:
        return None
    line.debug = True  # raises what it would swallow, a full queue among it
    line.socket.setblocking(False)  # a manager that does not read must not stop the loop
    return line
