"""Examines what notifications and metrics need: commands, secrets, the network and packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from whisperd.cli.doctor import Finding
from whisperd.listeners.notifications.kinds import channels
from whisperd.listeners.notifications.webhook import SecretError, read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.settings.config import Config


def examine_service(settings: Config, config: Path | None) -> Iterator[Finding]:
    """Examine commands, secrets, network and packages where the configuration needs them."""
    for name, channel in channels(settings.notices).items():
        if channel.kind == "hook":
            yield _command(f"notices.{name}", Path(channel.command[0]))
    for name, webhook in settings.notices.webhooks.items():
        yield from _webhook(name, webhook.url, webhook.secret)
    if settings.notices.mail_to:
        yield _sendmail(settings.notices.sendmail)
    wanting = [
        ("notices.webhooks", bool(settings.notices.webhooks)),
        ("metrics.port", settings.metrics.port is not None),
    ]
    wanting_keys = [key for key, wants in wanting if wants]
    if wanting_keys and _has_no_network(config):
        text = f"the service has no network, which {' and '.join(wanting_keys)} need"
        yield Finding("warning", text, "see systemd/network.conf, a drop-in for the unit")
    if settings.metrics.textfile or settings.metrics.port:
        if importlib.util.find_spec("prometheus_client") is None:
            yield Finding(
                "error", "the metrics need the package prometheus-client", "run `pip install 'whisperd[metrics]'`"
            )
        else:
            yield Finding("ok", "metrics: prometheus-client is installed", "")


def _command(key: str, path: Path) -> Finding:
    if shutil.which(path):
        return Finding("ok", f"{key}: {path}", "")
    return Finding(
        "warning",
        f"{key}: {path} does not exist or is not executable",
        "install it; until then its notifications are not sent",
    )


def _webhook(name: str, url: str, secret: Path) -> Iterator[Finding]:
    key = f"notices.webhooks.{name}"
    if urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname or ""):
        yield Finding("warning", f"{key}: everybody on the network path can read what is sent to {url}", "use https")
    if not secret.is_absolute():
        yield Finding("ok", f"{key}: its secret is the systemd credential {secret}", "")
        return
    try:
        read_secret(secret)
        is_open = secret.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)
    except (SecretError, OSError) as error:
        yield Finding("warning", f"{key}: {error}", 'make a secret: echo "whsec_$(head -c 32 /dev/urandom | base64)"')
        return
    if is_open:
        yield Finding("warning", f"{key}: everybody on this machine can read {secret}", f"chmod o= {secret}")
    else:
        yield Finding("ok", f"{key}: {url}, signed", "")


def _sendmail(path: Path) -> Finding:
    if not shutil.which(path):
        return Finding("warning", f"notices.mail_to: {path} does not exist", "install a sendmail, such as msmtp-mta")
    if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
        text = f"notices.mail_to: {path} is setuid or setgid, which the sandbox of the service forbids"
        return Finding("warning", text, "use another one, such as msmtp-mta")
    return Finding("ok", f"notices.mail_to: {path}", "")


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _has_no_network(config: Path | None) -> bool:
    """Whether systemd runs the service of this configuration without network."""
    name = config.stem if config is not None else "whisperd"
    unit = "whisperd.service" if name == "whisperd" else f"whisperd@{name}.service"
    command = ["systemctl", "show", "--property=PrivateNetwork", "--value", unit]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "yes"
