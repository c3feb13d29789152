"""`python -m whisperd.listeners.notifications.mail SENDMAIL FROM TO...`: one mail about the end that comes on standard input.

Recipients come from the configuration alone. A file name with a line break cannot add a header: names are shown escaped,
and `email.message` refuses line breaks in headers (RFC 5322, section 2.2).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from whisperd.core.display import one_line

SENDMAIL_SECONDS = 25.0
SUBJECT_CHARACTERS = 150


def compose(document: dict[str, Any], sender: str, recipients: list[str]) -> EmailMessage:
    """The mail on a final status file; its Message-ID is the same however often it is sent."""
    error = document["error"]
    subject = f"{document['name']}: {document['status']}" + (f", {error['message']}" if error else "")
    message = EmailMessage()
    if sender:
        message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = one_line(subject)[:SUBJECT_CHARACTERS]
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{document['id']}@whisperd.invalid>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: holiday notices stay away
    lines = [f"{document['name']}: {document['status']}", ""]
    if error:
        lines += [f"reason: {error['message']}", f"remedy: {error['hint']}"]
    lines += [f"{kind}: {path}" for kind, path in document["outputs"].items()]
    lines += [f"original: {document['original']}"]
    message.set_content("\n".join(lines) + "\n")
    return message


def main(sendmail: str, sender: str, *recipients: str) -> int:
    """Hand it to sendmail; whatever is wrong, another try may help."""
    message = compose(json.load(sys.stdin), sender, list(recipients))
    command = [sendmail, "-t", "-i", *(("-f", sender) if sender else ())]
    try:
        done = subprocess.run(command, input=message.as_bytes(), timeout=SENDMAIL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(error)
        return os.EX_TEMPFAIL
    return os.EX_OK if done.returncode == 0 else os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
