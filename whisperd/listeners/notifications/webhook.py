"""`python -m whisperd.listeners.notifications.webhook URL SECRET`: one signed HTTP request with what comes on standard input.

A process of its own, so that slow names, hosts and certificates keep nobody else waiting. Signature and headers are those
of the Standard Webhooks specification 1.0.0 (https://github.com/standard-webhooks/standard-webhooks); redirects are not
followed, proxies not asked, and certificates verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import os
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import whisperd

REQUEST_SECONDS = 15.0  # for connecting, and for each part of the answer
PREFIX = "whsec_"
KEY_BYTES = (24, 64)
GONE = 410


class SecretError(ValueError):
    """The secret cannot be used; says why."""


def read_secret(path: Path) -> bytes:
    """The key in a file; a relative path is the name of a systemd credential (systemd.exec(5), LoadCredential=).

    Raises:
        SecretError: it is missing, or not written as `whsec_` and 24 to 64 bytes in base64.
    """
    if not path.is_absolute():
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise SecretError(f"there is no systemd credential {path}: give the path of a file, or see LoadCredential=")
        path = Path(directory) / path
    try:
        text = path.read_text("ascii").strip()
    except OSError as error:
        raise SecretError(f"the secret {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        text = ""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise SecretError(f"the secret {path} must be {PREFIX} and 24 to 64 random bytes in base64")
    return key


def headers(key: bytes, notice_id: str, body: bytes, *, at: int) -> dict[str, str]:
    """Id, time of this attempt and signature of a request."""
    signed = hmac.digest(key, f"{notice_id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(signed).decode("ascii"),
        "content-type": "application/json",
        "user-agent": f"whisperd/{whisperd.__version__}",
    }


def post(url: str, body: bytes, sent_headers: dict[str, str]) -> int:
    """One request; returns the status of the answer.

    Raises:
        OSError: no connection, no trust in its certificate, or no answer in time.
        http.client.HTTPException: the answer is not HTTP.
    """
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
    finally:
        connection.close()


def main(url: str, secret: str) -> int:
    """Send it; says why not, in one line, and whether another try can help."""
    body = sys.stdin.buffer.read()
    try:
        key = read_secret(Path(secret))
        status = post(url, body, headers(key, os.environ["WHISPERD_ID"], body, at=int(time.time())))
    except SecretError as error:
        print(error)
        return os.EX_TEMPFAIL
    except (OSError, http.client.HTTPException) as error:
        print(f"{urlsplit(url).hostname}: {error or type(error).__name__}")
        return os.EX_TEMPFAIL
    print(f"{urlsplit(url).hostname} answered {status}")
    if http.client.OK <= status < http.client.MULTIPLE_CHOICES:
        return os.EX_OK
    return os.EX_UNAVAILABLE if status == GONE else os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
