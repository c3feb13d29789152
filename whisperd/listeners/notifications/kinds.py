"""The kinds of notification, and the channels that are configured. A new kind is registered in `KINDS`.

A kind is a module with `channels(settings)`, which names its channels `<kind>` or `<kind>-<name>`, and with a `main` that
sends what comes on standard input. Only the operator's own commands (`hook`) need no program of ours and are defined here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.core.job import Status
from whisperd.listeners.notifications import mail, webhook
from whisperd.listeners.notifications.channel import Channel

if TYPE_CHECKING:
    from whisperd.settings.sections import NotificationOptions

HOOK = "hook"


def _hooks(settings: NotificationOptions) -> dict[str, Channel]:
    commands = {Status.COMPLETED: settings.on_completed, Status.FAILED: settings.on_failed}
    return {
        f"on_{event}": Channel(HOOK, (event,), command, settings.hook_timeout_seconds, is_repeatable=False)
        for event, command in commands.items()
        if command
    }


KINDS = (_hooks, webhook.channels, mail.channels)


def channels(settings: NotificationOptions) -> dict[str, Channel]:
    """Return all channels that are configured, by name."""
    return {name: channel for kind in KINDS for name, channel in kind(settings).items()}


def kind_of(name: str) -> str:
    """Return the kind of a channel from its name, also when the channel is not configured any more."""
    return HOOK if name.startswith("on_") else name.partition("-")[0]
