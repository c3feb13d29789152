"""What the service manager hears of us: sd_notify(3) through the sdnotify package."""

from __future__ import annotations

import os
import time

import sdnotify

STATUS_EVERY_SECONDS = 1.0


class Notifier:
    """Speaks to NOTIFY_SOCKET where there is one, and is silent elsewhere.

    The socket's address is taken out of the environment: workers and ffmpeg must not be able to speak for the service.
    """

    def __init__(self) -> None:
        # sdnotify leaves an open socket behind when there is nobody to speak to
        self._systemd = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        os.environ.pop("NOTIFY_SOCKET", None)
        interval = int(os.environ.pop("WATCHDOG_USEC", "0") or 0)
        owner = os.environ.pop("WATCHDOG_PID", "")
        self.watchdog_seconds = interval / 1e6 / 2 if interval and owner in {"", str(os.getpid())} else None
        self._pinged_at = float("-inf")
        self._status = ""
        self._status_at = float("-inf")

    def ready(self) -> None:
        """A worker is ready and the inbox is watched."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Start or stop takes longer: give it this much from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self, now: float) -> None:
        """Ping the watchdog at half its interval; called by the loop, so that a stuck loop is noticed."""
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
        self._status, self._status_at = text, now
        self._send("STATUS=" + text.encode("ascii", "backslashreplace").decode("ascii"))
        return None

    def _send(self, state: str) -> None:
        if self._systemd is not None:
            self._systemd.notify(state)
