"""Lines for the journal carry their priority, so that `journalctl -p err` shows all errors."""

import os
import subprocess
import sys

import pytest

RAISE = {
    "the program": "raise ValueError('odd')",
    "a thread": "import threading\nthread = threading.Thread(target=int, args=('odd',))\nthread.start(); thread.join()",
}


@pytest.mark.parametrize("code", RAISE.values(), ids=RAISE)
def test_what_nobody_caught_is_an_error(code):
    """Each line of the traceback has the priority of an error: to the journal, plain lines are mere information."""
    command = [sys.executable, "-c", f"from whisperd.core import log_lines\nlog_lines.setup()\n{code}"]
    environment = os.environ | {"JOURNAL_STREAM": "8:1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = done.stderr.splitlines()

    assert any("ValueError" in line for line in lines)
    assert [line for line in lines if not line.startswith("<2>")] == []
