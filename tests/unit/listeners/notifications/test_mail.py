"""The mail about the end of a job."""

import json

from whisperd.listeners.notifications import mail


def test_no_line_break_gets_into_a_header():
    """Whatever a status file says."""
    error = {"message": "bad\r\nBcc: eve@example.org", "hint": ""}
    document = {"id": "1", "name": "a\nb", "status": "failed", "error": error, "outputs": {}, "original": "x"}
    message = mail.compose(document, "", ["root"])

    assert message["Bcc"] is None
    assert message["Subject"] == "a b: failed, bad  Bcc: eve@example.org"
    assert json.dumps(message.keys()).count("To") == 1
