"""Mail: `python -m whisperd.listeners.notifications.mail WAY` sends one about the status file on standard input.

WAY is a `Way` as JSON: through an SMTP server (RFC 5321) or through sendmail. Without recipients in it the transcripts are
attached, and go to those that the options of the recording name. Recipients come from the configuration, or from tickets where
it allows that. A file name with a line break cannot add a header: names are shown escaped, and `email.message` refuses line breaks in headers
(RFC 5322, section 2.2).
"""

from __future__ import annotations

import base64
import errno
import json
import mimetypes
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from email import policy
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisperd.core.display import one_line
from whisperd.listeners.notifications.channel import Channel, sender
from whisperd.listeners.notifications.credential import SecretError, read_credential
from whisperd.listeners.notifications.notification import MAIL_TRANSCRIPT_TO, summary
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    import smtplib
    from collections.abc import Mapping, Sequence

    from whisperd.settings.sections import NotificationOptions

SENDMAIL_SECONDS = 25.0
SMTP_SECONDS = 15.0  # for connecting, and for each answer
LOGGED_IN = 235  # RFC 4954
PERMANENT = 500  # RFC 5321, section 4.2.1: from here on the same mail is refused again
SUBJECT_CHARACTERS = 150
ATTACHED_BYTES_MAX = 7_000_000  # base64 makes 9.6 MB of it; a usual server takes 10
# An old server may know nothing of 8 bits (RFC 6152), so text that is not ASCII is encoded.
POLICY = policy.default.clone(cte_type="7bit")


class MailRefusedError(Exception):
    """The server refuses this mail for good; the message is its answer."""


@dataclass(frozen=True, slots=True)
class Way:
    """How mail leaves: through a server if there is a host, otherwise through sendmail.

    Attributes:
        author: the sender; empty: the default of sendmail.
        recipients: addresses; none: those of the recording's `mail_transcript_to`.
        sendmail: path of the program.
        host: of the server; empty: none.
        port: of the server.
        security: starttls, tls or none.
        user: for login; empty: no login.
        password: where the password is, see `read_credential`.
    """

    author: str
    recipients: tuple[str, ...]
    sendmail: str = ""
    host: str = ""
    port: int = 0
    security: str = "starttls"
    user: str = ""
    password: str = ""

    @classmethod
    def of(cls, settings: NotificationOptions, recipients: tuple[str, ...]) -> Way:
        """Take the way from the configuration."""
        return cls(
            author=settings.mail_from or "",
            recipients=recipients,
            sendmail=str(settings.sendmail),
            host=settings.smtp_host or "",
            port=settings.smtp_port or SMTP_PORTS[settings.smtp_security],
            security=settings.smtp_security,
            user=settings.smtp_user or "",
            password=str(settings.smtp_password or ""),
        )

    def encode(self) -> str:
        """Return the argument from which `decode` makes it again."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Way:
        """Make it from the argument of the program."""
        values = json.loads(text)
        return cls(**values | {"recipients": tuple(values["recipients"])})


SMTP_PORTS = {"starttls": 587, "tls": 465, "none": 25}  # RFC 6409 and RFC 8314


def channels(settings: NotificationOptions) -> dict[str, Channel]:
    """Return the channel `mail`, if there is somebody to send mail to, and `mail-transcript`, which any profile may use."""
    to_recording = Way.of(settings, ()).encode()
    found = {"mail-transcript": sender("mail", ("completed",), to_recording, needs=MAIL_TRANSCRIPT_TO)}
    if settings.mail_to:
        found["mail"] = sender("mail", settings.mail_events, Way.of(settings, settings.mail_to).encode())
    return found


def compose(document: dict[str, Any], author: str, recipients: Sequence[str]) -> EmailMessage:
    """Return the mail about a final status file; its Message-ID is the same however often it is sent."""
    subject, text = summary(document)
    message = EmailMessage(POLICY)
    if author:
        message["From"] = author
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject[:SUBJECT_CHARACTERS]
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{document['id']}@whisperd.invalid>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic answers
    message.set_content(text)
    return message


def attach(message: EmailMessage, document: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Turn the mail about a status file into one with the transcripts; those that cannot be attached are named in its text.

    The json, which is for programs, is attached only where there is nothing else.

    Args:
        message: from `compose`; a second mail about the job, so it gets a Message-ID of its own.
        document: the status file.
        environment: with the root of the spool, and the paths of the transcripts as they are on disk.
    """
    kinds = [kind for kind in document["outputs"] if kind != "json"] or list(document["outputs"])
    attached, left, reasons = [], ATTACHED_BYTES_MAX, []
    for kind in kinds:
        try:
            data = _read(environment["WHISPERD_SPOOL"], environment[f"WHISPERD_OUTPUT_{kind.upper()}"], left)
        except OSError as error:
            reasons.append(f"not attached: {document['outputs'][kind]}: {error.strerror}")
            continue
        attached.append((kind, data))
        left -= len(data)
    message.replace_header("Subject", one_line(f"{document['name']}: transcript")[:SUBJECT_CHARACTERS])
    message.replace_header("Message-ID", f"<{document['id']}.transcript@whisperd.invalid>")
    if reasons:
        message.set_content(message.get_content() + "\n".join(reasons) + "\n")
    for kind, data in attached:
        name = one_line(os.path.basename(document["outputs"][kind]))
        mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
        main, sub = mime.split("/")
        parameters = {"charset": "utf-8"} if main == "text" else {}
        message.add_attachment(data, maintype=main, subtype=sub, filename=name, params=parameters)


def _read(root: str, path: str, limit: int) -> bytes:
    """Read a transcript, and nothing to which a link in the outbox may lead: the outbox is open to its group.

    Raises:
        OSError: it is gone, no regular file, or larger than the limit.
    """
    *folders, file = os.path.relpath(path, root).split("/")
    with Folder(Path(root), folders) as folder:
        data = folder.read(file, limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, "too large for a mail")
    return data


def send_by_sendmail(way: Way, message: EmailMessage) -> None:
    """Give the mail to sendmail, whose output goes into the log.

    Raises:
        OSError: sendmail cannot be run, or says that it failed.
        subprocess.TimeoutExpired: it does not end.
    """
    command = [way.sendmail, "-t", "-i", *(("-f", way.author) if way.author else ())]
    done = subprocess.run(command, input=message.as_bytes(), timeout=SENDMAIL_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{way.sendmail} ended with exit status {done.returncode}")


def send_by_smtp(way: Way, message: EmailMessage) -> str:
    """Give the mail to the server in one transaction; returns what to log.

    A server that refuses some recipients for now gets the mail again for all of them: twice is allowed, never is not.

    Raises:
        MailRefusedError: it is refused for good, for every recipient.
        OSError: no connection, no trusted certificate, no login, or the server refuses for now (`smtplib.SMTPException`).
        SecretError: the password cannot be read.
    """
    # several MB, which the supervisor, to which this module only names its channels, need not hold
    import smtplib  # noqa: PLC0415

    with _connect(way) as server:
        if way.user:
            _log_in(server, way.user, read_credential(Path(way.password)))
        try:
            refused = server.send_message(message, way.author, way.recipients)
        except smtplib.SMTPRecipientsRefused as error:
            _raise_unless_permanent(error.recipients)
            raise MailRefusedError(_answers(error.recipients)) from error
        except smtplib.SMTPDataError as error:
            if error.smtp_code >= PERMANENT:
                raise MailRefusedError(_answer(error.smtp_code, error.smtp_error)) from error
            raise
    _raise_unless_permanent(refused)
    return f"{way.host} took it" + (f", but refused {_answers(refused)}" if refused else "")


def _connect(way: Way) -> smtplib.SMTP:
    import smtplib  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    context = ssl.create_default_context()
    if way.security == "tls":
        return smtplib.SMTP_SSL(way.host, way.port, timeout=SMTP_SECONDS, context=context)
    server = smtplib.SMTP(way.host, way.port, timeout=SMTP_SECONDS)
    try:
        if way.security == "starttls":
            server.starttls(context=context)  # raises if the server does not offer it: nothing is sent in clear
    except BaseException:
        server.close()
        raise
    return server


def _log_in(server: smtplib.SMTP, user: str, password: str) -> None:
    import smtplib  # noqa: PLC0415

    if user.isascii() and password.isascii():
        server.login(user, password)
        return
    # smtplib can send no other letters; RFC 4616 has UTF-8
    server.ehlo_or_helo_if_needed()
    code, answer = server.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode("ascii"))
    if code != LOGGED_IN:
        raise smtplib.SMTPAuthenticationError(code, answer)


Refusals = dict[str, tuple[int, bytes]]  # recipient -> code and text of the answer


def _raise_unless_permanent(refused: Refusals) -> None:
    """Raise an error that leads to another try if a refusal is only for now, such as that of a greylist."""
    if any(code < PERMANENT for code, _ in refused.values()):
        raise OSError(f"for now the server refuses {_answers(refused)}")


def _answers(refused: Refusals) -> str:
    return "; ".join(f"{recipient}: {_answer(*answer)}" for recipient, answer in refused.items())


def _reason(error: OSError | subprocess.TimeoutExpired) -> str:
    code, text = getattr(error, "smtp_code", None), getattr(error, "smtp_error", b"")
    return str(error) or type(error).__name__ if code is None else _answer(code, text)


def _answer(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"


def main(way_as_json: str) -> int:
    """Send the mail; if that fails print the reason in one line, and tell by the exit status whether another try can help."""
    way = Way.decode(way_as_json)
    document = json.load(sys.stdin)
    if way.recipients:
        message = compose(document, way.author, way.recipients)
    else:
        way = replace(way, recipients=tuple(os.environ[MAIL_TRANSCRIPT_TO].split()))
        message = compose(document, way.author, way.recipients)
        attach(message, document, os.environ)
    try:
        if way.host:
            print(send_by_smtp(way, message))
        else:
            send_by_sendmail(way, message)
    except MailRefusedError as error:
        print(f"{way.host} refuses it: {error}")
        return os.EX_UNAVAILABLE
    except SecretError as error:
        print(error)
        return os.EX_TEMPFAIL
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{way.host or way.sendmail}: {_reason(error)}")
        return os.EX_TEMPFAIL
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
