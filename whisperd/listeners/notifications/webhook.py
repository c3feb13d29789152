"""Webhooks: `python -m whisperd.listeners.notifications.webhook` posts the status file on standard input, signed.

The address is in `WHISPERD_WEBHOOK_URL` and the place of the secret in `WHISPERD_WEBHOOK_SECRET`: the address of a chat has a
token in it, and everybody on the machine can read the arguments of a process.

It runs as a process of its own, so that a slow name server or host delays nothing else. Signature and headers are those of
the Standard Webhooks specification 1.0.0 (https://github.com/standard-webhooks/standard-webhooks). Redirects are not
followed, proxies are not used, and certificates are verified.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import whisperd
from whisperd.listeners.notifications.channel import Channel, sender
from whisperd.listeners.notifications.credential import SecretError, read_credential

if TYPE_CHECKING:
    import http.client

    from whisperd.settings.sections import NotificationOptions

REQUEST_SECONDS = 15.0  # for connecting, and for each part of the answer
URL, SECRET = "WHISPERD_WEBHOOK_URL", "WHISPERD_WEBHOOK_SECRET"
PREFIX = "whsec_"
KEY_BYTES = (24, 64)


def channels(settings: NotificationOptions) -> dict[str, Channel]:
    """Return a channel `webhook-<name>` for each webhook that is configured."""
    return {
        f"webhook-{name}": sender(
            "webhook", webhook.events, environment={URL: webhook.url, SECRET: str(webhook.secret)}
        )
        for name, webhook in settings.webhooks.items()
    }


def read_secret(path: Path) -> bytes:
    """Read the key of a webhook from a file or a systemd credential.

    Raises:
        SecretError: it is missing, or not written as `whsec_` and 24 to 64 bytes in base64.
    """
    text = read_credential(path)
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:  # also of text that is not ASCII
        key = b""
    if not text.startswith(PREFIX) or not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        title = f"the secret {path}" if path.is_absolute() else "the systemd credential"
        raise SecretError(f"{title} must be {PREFIX} and 24 to 64 random bytes in base64")
    return key


def headers(key: bytes, job_id: str, body: bytes, *, at: int) -> dict[str, str]:
    """Return the headers of a request: id, time of this attempt and signature."""
    signed = hmac.digest(key, f"{job_id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": job_id,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(signed).decode("ascii"),
        "content-type": "application/json",
        "user-agent": f"whisperd/{whisperd.__version__}",
    }


def post(url: str, body: bytes, sent_headers: dict[str, str]) -> int:
    """Make one request and return the status of the answer.

    Raises:
        OSError: no connection, a certificate that cannot be trusted, no answer in time, or one that is not HTTP.
    """
    # several MB, which the supervisor, to which this module only names its channels, need not hold
    import http.client  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    parts = urlsplit(url)
    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=REQUEST_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=REQUEST_SECONDS)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, sent_headers)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def main() -> int:
    """Send the webhook; if that fails print the reason in one line, and tell by the exit status whether another try can help."""
    body, url = sys.stdin.buffer.read(), os.environ[URL]
    try:
        key = read_secret(Path(os.environ[SECRET]))
        status = post(url, body, headers(key, os.environ["WHISPERD_ID"], body, at=int(time.time())))
    except SecretError as error:
        print(error)
        return os.EX_TEMPFAIL
    except OSError as error:
        print(f"{urlsplit(url).hostname}: {error or type(error).__name__}")
        return os.EX_TEMPFAIL
    print(f"{urlsplit(url).hostname} answered {status}")
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return os.EX_OK
    return os.EX_UNAVAILABLE if status == HTTPStatus.GONE else os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main())
