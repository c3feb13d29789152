"""Sets up logging to stderr, alike in supervisor and workers.

Under systemd each line starts with `<N>`, its syslog priority (sd-daemon(3)), so that `journalctl -p err` shows exactly
what a person must act on.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class PrefixFormatter(logging.Formatter):
    """Puts the priority before each line for the journal (`<3>message`), so that no line of a traceback counts as info."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record as lines for the journal."""
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


def setup(level: str = "info") -> None:
    """Send log records to stderr: with priorities for the journal, with the time for a terminal or a file.

    An uncaught exception becomes a record too, since the journal would not show Python's own traceback as an error.
    """
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ or "NOTIFY_SOCKET" in os.environ:
        handler.setFormatter(PrefixFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("watchdog").propagate = False  # whisperd logs what matters of its warnings itself
    logging.getLogger("whisperd").setLevel(level.upper())
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit):  # a thread that ends with SystemExit is no error
        logging.getLogger("whisperd").critical("unexpected error", exc_info=(kind, error, traceback))
