"""Mail: `python -m whisperd.listeners.notifications.mail SENDMAIL FROM TO...` sends one about the status file on standard input.

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
from typing import TYPE_CHECKING, Any

from whisperd.core.display import one_line
from whisperd.listeners.notifications.channel import Channel, sender

if TYPE_CHECKING:
    from whisperd.settings.sections import NotificationOptions

SENDMAIL_SECONDS = 25.0
SUBJECT_CHARACTERS = 150


def channels(settings: NotificationOptions) -> dict[str, Channel]:
    """Return the channel `mail`, if there is somebody to send mail to."""
    if not settings.mail_to:
        return {}
    arguments = (str(settings.sendmail), settings.mail_from or "", *settings.mail_to)
    return {"mail": sender("mail", settings.mail_events, *arguments)}


def compose(document: dict[str, Any], author: str, recipients: list[str]) -> EmailMessage:
    """Return the mail about a final status file; its Message-ID is the same however often it is sent."""
    error = document["error"]
    subject = f"{document['name']}: {document['status']}" + (f", {error['message']}" if error else "")
    message = EmailMessage()
    if author:
        message["From"] = author
    message["To"] = ", ".join(recipients)
    message["Subject"] = one_line(subject)[:SUBJECT_CHARACTERS]
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{document['id']}@whisperd.invalid>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic answers
    lines = [f"{document['name']}: {document['status']}", ""]
    if error:
        lines += [f"reason: {error['message']}", f"remedy: {error['hint']}"]
    lines += [f"{kind}: {path}" for kind, path in document["outputs"].items()]
    lines += [f"original: {document['original']}"]
    message.set_content("\n".join(lines) + "\n")
    return message


def main(sendmail: str, author: str, *recipients: str) -> int:
    """Give the mail to sendmail; whatever fails, another try may help."""
    message = compose(json.load(sys.stdin), author, list(recipients))
    command = [sendmail, "-t", "-i", *(("-f", author) if author else ())]
    try:
        done = subprocess.run(command, input=message.as_bytes(), timeout=SENDMAIL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(error)
        return os.EX_TEMPFAIL
    return os.EX_OK if done.returncode == 0 else os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
