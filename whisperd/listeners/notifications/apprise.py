"""Chats, phones and more than a hundred services by the library Apprise: `python -m whisperd.listeners.notifications.apprise`.

It sends a short text about the status file on standard input to the addresses in `WHISPERD_APPRISE`. These hold tokens, so they
are no arguments, which everybody on the machine can read, and what Apprise says is logged without any part of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from whisperd.core.display import one_line
from whisperd.listeners.notifications.channel import Channel, sender
from whisperd.listeners.notifications.credential import SecretError, read_credential
from whisperd.listeners.notifications.notification import summary

if TYPE_CHECKING:
    import apprise

    from whisperd.settings.sections import NotificationOptions

ADDRESS = "WHISPERD_APPRISE"
HIDDEN_CHARACTERS_MIN = 4  # of a part of an address: shorter ones are no secrets, and occur in any text


def channels(settings: NotificationOptions) -> dict[str, Channel]:
    """Return a channel for each address, with a name that stays the same when others come and go."""
    found = {}
    for address in settings.apprise:
        scheme = re.sub("[^a-z0-9]", "", address.partition("://")[0].lower()) if "://" in address else "file"
        name = f"apprise-{scheme}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"
        found[name] = sender("apprise", settings.apprise_events, environment={ADDRESS: address})
    return found


def read_addresses(address: str) -> list[str]:
    """Return the address, or those in a file or systemd credential, one a line.

    Raises:
        SecretError: the file cannot be read, or is empty.
    """
    if "://" in address:
        return [address]
    lines = [line.strip() for line in read_credential(Path(address)).splitlines()]
    if found := [line for line in lines if line and not line.startswith("#")]:
        return found
    title = address if address.startswith("/") else "the systemd credential"
    raise SecretError(f"{title} must have an address such as ntfy://topic in each line")


def services(addresses: list[str]) -> apprise.Apprise | None:
    """Return the services of these addresses; None if Apprise does not understand one."""
    import apprise  # noqa: PLC0415  # half a second, and many MB

    # As with webhooks, only hosts that the configuration names are told; nothing is kept on the disk.
    asset = apprise.AppriseAsset(app_id="whisperd", http_redirects=False, pem_autogen=False, pgp_autogen=False)
    found = apprise.Apprise(asset=asset)
    return found if all(found.add(address) for address in addresses) else None


def compose(document: dict[str, Any]) -> tuple[str, str]:
    """Return title and text about a status file; no name in it can call everybody of a chat (`@everyone`, `<!channel>`)."""
    title, text = summary(document)
    return _harmless(title), _harmless(text)


def _harmless(text: str) -> str:
    return re.sub("(?<=[@<])", "\N{ZERO WIDTH SPACE}", text)


def hidden(text: str, addresses: list[str]) -> str:
    """Return a text without the parts of the addresses, which may be tokens."""
    parts = {part for address in addresses for part in re.split(r"[/:@?&=,]+", address.partition("://")[2])}
    parts |= {unquote(part) for part in parts}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= HIDDEN_CHARACTERS_MIN:
            text = text.replace(part, "****")
    return text


def main() -> int:
    """Send it; if that fails print the reason in one line, and tell by the exit status whether another try can help."""
    document = json.load(sys.stdin)
    title, text = compose(document)
    kind = "success" if document["status"] == "completed" else "failure"
    try:
        addresses = read_addresses(os.environ[ADDRESS])
    except SecretError as error:
        print(error)
        return os.EX_TEMPFAIL
    log = io.StringIO()
    logging.getLogger("apprise").addHandler(logging.StreamHandler(log))
    logging.getLogger("apprise").setLevel(logging.WARNING)
    try:
        found = services(addresses)
    except ImportError as error:
        print(f"{error}; run `pip install 'whisperd[apprise]'`")
        return os.EX_TEMPFAIL
    is_sent = found is not None and bool(found.notify(text, title, notify_type=kind, body_format="text"))
    reasons = hidden(one_line(log.getvalue()).strip(), addresses)
    if found is None:
        print(f"Apprise does not understand an address: {reasons}")
        return os.EX_UNAVAILABLE
    print(reasons)
    return os.EX_OK if is_sent else os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main())
