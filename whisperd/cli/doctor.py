"""The examinations of `whisperd check`: each looks at one thing and yields findings.

The daemon examines its models when it starts, so this module imports nothing large.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import whisperd
from whisperd.core.display import mebibytes, without_secrets
from whisperd.core.errors import BootError
from whisperd.daemon.arrangement import Arrangement
from whisperd.engine.weights.find import OFFICIAL, canonical, find, find_ct2
from whisperd.engine.weights.speakers import verify_speakers
from whisperd.intake.ignore import Ignore
from whisperd.intake.scan import scan
from whisperd.intake.watch import REMEDY, BindingError, Watch
from whisperd.listeners.notifications import apprise
from whisperd.listeners.notifications.credential import SecretError, read_credential
from whisperd.listeners.notifications.dispatch import channels
from whisperd.listeners.notifications.webhook import read_secret
from whisperd.media.ffmpeg import find_ffmpeg
from whisperd.settings import profiles
from whisperd.spool.layout import Layout, files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from whisperd.core.devices import Place
    from whisperd.settings.config import Config
    from whisperd.settings.sections import NotificationOptions

WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
WATCHES_USUAL = 524_288
DEVICE = """
import sys
from pathlib import Path
from whisperd.engine.whisper_batched.precision import choose
from whisperd.engine.whisper_batched.timings import timings
from whisperd.engine.limits import find_device
from whisperd.engine.threads import limit_threads
from whisperd.core.errors import BootError
asked, decoding, compute_type, threads, directory = sys.argv[1:]
try:
    device = find_device(asked)
    if decoding != "batched":  # other engines choose the type themselves
        print(device)
    else:
        limit_threads(int(threads))
        measured = {} if device.type == "cuda" else timings(Path(directory), keep=False)
        print(device, "in", choose(device, compute_type, measured))
except BootError as error:
    print(error.hint)
    sys.exit(error.message)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one examination: a level (`ok`, `warning` or `error`), what was found, and a command or advice."""

    level: str
    text: str
    hint: str = ""


def examine(settings: Config) -> Iterator[Finding]:
    """Examine everything that the daemon needs."""
    yield from examine_spool(settings)
    yield _ffmpeg(settings)
    if settings.engine != "scripted":
        yield from examine_models(settings)
    places = _arranged(settings)
    yield from (_device(settings, own) for _, own in _by_device(places))
    cores, wanted = len(os.sched_getaffinity(0)), sum(place.threads for place in places)
    if wanted > cores:
        yield Finding("warning", f"workers use {wanted} threads on {cores} cores", "lower pool.workers or pool.threads")


def examine_spool(settings: Config) -> Iterator[Finding]:
    """Examine everything in the spool; if the root is missing that is the only finding."""
    layout = Layout(settings.root)
    if not layout.root.is_dir():
        yield _missing_root(layout)
        return
    rooms = (layout.inbox, layout.outbox, layout.done, layout.failed, layout.work)
    missing = [path.name for path in rooms if not path.is_dir()]
    try:
        is_locked = layout.is_locked()
    except PermissionError:
        owner = pwd.getpwuid(layout.work.stat().st_uid).pw_name
        hint = f"sudo -u {owner} whisperd check"
        yield Finding("warning", f"root {layout.root}: belongs to {owner}, and only that user can check it", hint)
        return
    if is_locked:
        yield _running_daemon(layout)
    elif missing:
        can = os.access(layout.root, os.W_OK | os.X_OK)
        hint = "" if can else f"chown {os.geteuid()} {_quoted(layout.root)}"
        yield Finding("ok" if can else "error", f"root {layout.root}: {', '.join(missing)} will be created", hint)
    else:
        yield _folders(layout)
    yield _disk_space(layout, settings)
    if not missing:
        yield from _unfinished(layout, is_locked=is_locked)
        yield from _people(layout)
        yield from _refused(layout, settings)
        yield _watches(layout)


def examine_models(settings: Config) -> Iterator[Finding]:
    """Look for the weights of every model that a job may ask for."""
    for model in profiles.models(settings):
        yield _model(settings.model_copy(update={"model": model}))
    if profiles.wants_diarization(settings):
        yield _speakers(settings)
        given = (settings.diarization.voices, *(each.get("diarization.voices") for each in settings.profiles.values()))
        yield from map(_voices, sorted({str(directory) for directory in given if directory}))


def examine_service(settings: Config, config: Path | None) -> Iterator[Finding]:
    """Examine commands, secrets, network and packages where the configuration needs them."""
    for name, channel in channels(settings.notices).items():
        if channel.kind == "hook":
            yield _notification_command(f"notices.{name}", Path(channel.command[0]))
    for name, webhook in settings.notices.webhooks.items():
        yield from _webhook(name, webhook.url, webhook.secret)
    if settings.notices.mail_to:
        yield _mail(settings.notices, "notices.mail_to")
    elif profiles.wants_transcript_mail(settings):
        yield _mail(settings.notices, "mail_transcript_to")
    for address in settings.notices.apprise:
        yield _service(address)
    wanting = [
        ("notices.webhooks", bool(settings.notices.webhooks)),
        ("notices.smtp_host", settings.notices.smtp_host is not None),
        ("notices.apprise", bool(settings.notices.apprise)),
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


def _missing_root(layout: Layout) -> Finding:
    parent = next(parent for parent in layout.root.parents if parent.is_dir())
    try:  # access(2) would report even /proc as writable for root
        with tempfile.TemporaryDirectory(prefix=".whisperd-", dir=parent):
            return Finding("ok", f"root {layout.root} does not exist yet, it will be created")
    except OSError:
        hint = f"create it, writable for uid {os.geteuid()}: install -d -o {os.geteuid()} {_quoted(layout.root)}"
        return Finding("error", f"root {layout.root} does not exist and cannot be created", hint)


def _running_daemon(layout: Layout) -> Finding:
    version = layout.owner_version()
    if version not in {None, whisperd.__version__}:
        text = f"root {layout.root}: the running whisperd is version {version}, this one is {whisperd.__version__}"
        return Finding("warning", text, "systemctl restart whisperd")
    return Finding("ok", f"root {layout.root}: a whisperd is running")


def _folders(layout: Layout) -> Finding:
    try:
        layout.check()
    except BootError as error:
        return Finding("error", error.message, error.hint)
    return Finding("ok", f"root {layout.root}: writable, on one filesystem")


def _disk_space(layout: Layout, settings: Config) -> Finding:
    free, wanted = layout.free_bytes(), settings.intake.min_free
    text = f"{mebibytes(free)} free, {mebibytes(wanted)} wanted"
    if free >= wanted:
        return Finding("ok", text)
    hint = (
        f"free disk space, or lower intake.min_free; until then nothing is claimed: du -xh -d1 {_quoted(layout.root)}"
    )
    return Finding("warning", text, hint)


def _unfinished(layout: Layout, *, is_locked: bool) -> Iterator[Finding]:
    jobs = [entry for entry in os.listdir(layout.work) if not entry.startswith(".")]
    if jobs and not is_locked:
        yield Finding(
            "warning",
            f"{len(jobs)} jobs are unfinished, and no whisperd is running",
            "the next start continues them: systemctl start whisperd",
        )


def _people(layout: Layout) -> Iterator[Finding]:
    """Examine whether the members of the inbox's group can use it, if it has members besides the owner."""
    status = layout.inbox.stat()
    try:
        group, owner = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:  # a group id without a name has no members
        return
    if not set(group.gr_mem) - {owner.pw_name}:
        return
    wanted = stat.S_IRWXG | stat.S_ISGID
    if status.st_mode & wanted == wanted:
        yield Finding("ok", f"the group {group.gr_name} may upload into the inbox")
    else:
        text = f"the group {group.gr_name} has members who cannot use the inbox, or whose uploads will belong to another group"
        yield Finding("warning", text, f"chmod g+rwxs {_quoted(layout.inbox)}")


def _refused(layout: Layout, settings: Config) -> Iterator[Finding]:
    """Look for uploads that the user who runs this, usually that of the daemon, may not read or move."""
    for found in filter(None, scan(layout.inbox, Ignore(settings.intake.ignore))):
        folder = layout.inbox / Path(found.name).parent
        if found.signature is not None and not (
            os.access(layout.inbox / found.name, os.R_OK) and os.access(folder, os.W_OK | os.X_OK)
        ):
            hint = f"chmod -R g+rwX {_quoted(layout.inbox)}"
            yield Finding(
                "warning",
                "the daemon may not read some uploads in the inbox, or not move them out of their folder",
                hint,
            )
            return


def _watches(layout: Layout) -> Finding:
    try:
        Watch(layout.inbox).close()
    except BindingError as error:
        return Finding("warning", f"the inbox cannot be watched and will be polled: {error.strerror}", REMEDY)
    except OSError as error:
        text = f"the inbox cannot be watched and will be polled: {error.strerror}"
        return Finding("warning", text, "sysctl -w fs.inotify.max_user_instances=1024")
    folders = sum(found is None for found in files(layout.inbox))
    limit = int(WATCHES.read_bytes())
    if 2 * folders > limit:
        text = f"{folders} folders in the inbox, but all programs of a user can watch only {limit}"
        wanted = max(WATCHES_USUAL, 4 * folders)
        return Finding("warning", text, f"sysctl -w fs.inotify.max_user_watches={wanted}")
    return Finding("ok", f"{folders} folders in the inbox to watch, {limit} are possible")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _ffmpeg(settings: Config) -> Finding:
    try:
        return Finding("ok", f"ffmpeg: {find_ffmpeg(settings.media.ffmpeg)}")
    except BootError as error:
        return Finding("error", error.message, error.hint)


def _arranged(settings: Config) -> list[Place]:
    """List where the daemon would run its workers; asks the driver for GPUs as the daemon does."""
    arrangement = Arrangement(settings.pool_options(), settings.engine_options())
    try:
        arrangement.tick(time.monotonic())
        while not arrangement.by_number:
            wait(arrangement.waitables(), timeout=1.0)
            arrangement.tick(time.monotonic())
        return list(arrangement.by_number.values())
    finally:
        arrangement.close()


def _by_device(places: list[Place]) -> Iterator[tuple[str, list[Place]]]:
    for name in dict.fromkeys(place.device.name for place in places):
        yield name, [place for place in places if place.device.name == name]


def _device(settings: Config, places: list[Place]) -> Finding:
    """Try one device, and say how many workers run on it."""
    device, options = places[0].device, settings.engine_options()
    workers = f"{len(places)} workers" if len(places) > 1 else "1 worker"
    use = f": {workers}, threads: {' or '.join(sorted({str(place.threads) for place in places}))}"
    use += ", divided between NUMA nodes" if len({place.cpus for place in places}) > 1 else ""
    model = f" ({device.model})" if device.model else ""
    if settings.engine == "scripted":
        return Finding("ok", f"device: {device.name}{model}{use}")
    asked = [
        device.asked or device.name,
        options.decoding,
        options.compute_type,
        str(places[0].threads),
        str(options.models_directory),
    ]
    # a separate process, since a broken driver can kill it
    command = [sys.executable, "-P", "-c", DEVICE, *asked]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device.visible} if device.visible else None
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = done.stdout.strip().splitlines()
    if done.returncode == 0 and said:
        found = said[-1]
        if device.visible:
            found = f"{device.name}{found.removeprefix(device.asked)}"
        return Finding("ok", f"device: {found}{model}{use}")
    why = "\n".join(done.stderr.strip().splitlines()[-1:]) or f"torch ended with status {done.returncode}"
    hint = said[-1] if said else "check the driver with nvidia-smi, or set device: cpu"
    return Finding("error", f"device {device.name}: {why}", hint)


def _model(settings: Config) -> Finding:
    if settings.engine == "faster-whisper":
        return _ct2_model(settings)
    try:
        weights = find(settings.model, settings.models_directory)
    except BootError as error:
        fetchable = canonical(settings.model) in OFFICIAL
        return Finding("error", error.message + (" (it can be fetched)" if fetchable else ""), error.hint)
    return Finding("ok", f"model {settings.model}: {weights.source}")


def _speakers(settings: Config) -> Finding:
    try:
        return Finding("ok", f"diarization: {verify_speakers(settings.models_directory).source}")
    except BootError as error:
        return Finding("error", error.message, error.hint)


def _voices(directory: str) -> Finding:
    if Path(directory).is_dir() and os.access(directory, os.R_OK | os.X_OK):
        return Finding("ok", f"diarization.voices: {directory}")
    hint = "create it, readable for the user that runs whisperd, and not in /home, which the service does not see"
    return Finding("warning", f"diarization.voices: {directory} cannot be read, so its samples name nobody", hint)


def _ct2_model(settings: Config) -> Finding:
    if importlib.util.find_spec("faster_whisper") is None:
        return Finding(
            "error", "the engine faster-whisper is not installed", "run `pip install 'whisperd[faster-whisper]'`"
        )
    try:
        weights = find_ct2(settings.model, settings.models_directory)
    except BootError as error:
        return Finding("error", error.message, error.hint)
    return Finding("ok", f"model {settings.model}: {weights.source}")


def _notification_command(key: str, path: Path) -> Finding:
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
        yield Finding(
            "warning",
            f"{key}: everybody on the network path can read what is sent to {without_secrets(url)}",
            "use https",
        )
    hint = 'make a secret: echo "whsec_$(head -c 32 /dev/urandom | base64)"'
    yield _secret(key, secret, read_secret, hint, f"{key}: {without_secrets(url)}, signed")


def _secret(key: str, secret: Path, read: Callable[[Path], object], hint: str, good: str) -> Finding:
    """Try a secret, which nobody else may read; a systemd credential is there only while the service runs."""
    if not secret.is_absolute():
        return Finding("ok", f"{key}: its secret is a systemd credential, which only the service can read", "")
    try:
        read(secret)
        is_open = secret.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)
    except (SecretError, OSError) as error:
        return Finding("warning", f"{key}: {error}", hint)
    if is_open:
        return Finding("warning", f"{key}: everybody on this machine can read {secret}", f"chmod o= {secret}")
    return Finding("ok", good, "")


def _mail(notices: NotificationOptions, key: str) -> Finding:
    if notices.smtp_host is None:
        return _sendmail(key, notices.sendmail)
    good = f"notices.smtp_host: {notices.smtp_host}, {notices.smtp_security}"
    if notices.smtp_password is not None:
        hint = "write the password into this file, or set notices.smtp_password to the file that has it"
        return _secret("notices.smtp_password", notices.smtp_password, read_credential, hint, good)
    if notices.smtp_security == "none" and not _is_loopback(notices.smtp_host):
        text = f"notices.smtp_host: everybody on the network path can read what is sent to {notices.smtp_host}"
        return Finding("warning", text, "set notices.smtp_security to starttls or tls")
    return Finding("ok", good, "")


def _sendmail(key: str, path: Path) -> Finding:
    if not shutil.which(path):
        return Finding(
            "warning",
            f"{key}: {path} does not exist",
            "install a sendmail, such as msmtp-mta, or set notices.smtp_host",
        )
    if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
        text = f"{key}: {path} is setuid or setgid, which the sandbox of the service forbids"
        return Finding("warning", text, "use another one, such as msmtp-mta, or set notices.smtp_host")
    return Finding("ok", f"{key}: {path}", "")


def _service(address: str) -> Finding:
    """Try an address of Apprise, or the file with some; the addresses, which have tokens, are not shown."""
    key = "notices.apprise"
    if "://" not in address:
        hint = "write addresses such as ntfy://topic into it, one a line"
        return _secret(key, Path(address), lambda _: _understood(address), hint, f"{key}: {address}")
    scheme = address.partition("://")[0]
    try:
        _understood(address)
    except SecretError as error:
        return Finding("warning", f"{key}: {scheme}://...: {error}", "correct it; Apprise's documentation lists them")
    return Finding("ok", f"{key}: {scheme}://...", "")


def _understood(address: str) -> None:
    if apprise.services(apprise.read_addresses(address)) is None:
        raise SecretError("Apprise does not understand an address")


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
