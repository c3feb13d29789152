"""whisperd on a lab machine: installed there by its own install.sh, driven through systemctl, looked at from outside."""

from __future__ import annotations

import json
import os
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING

from support.systemd_lab import Bind, SystemdLab

if TYPE_CHECKING:
    from subprocess import CompletedProcess

REPOSITORY = Path(__file__).parents[2]
CLONE = Path("/opt/clone")
INSTALL = CLONE / "systemd/install.sh"
PREFIX = Path("/opt/whisperd")
PYTHON = Path("/opt/python")
PACKAGES = Path("/opt/packages")
SAMPLE_RATE = 16_000
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"lib/python{VERSION}/site-packages"
QUICK = {
    "engine": "scripted",
    "script": "ok",
    "intake": {"settle_seconds": 0.2, "rescan_seconds": 1},
    "pool": {"stop_grace_seconds": 1, "retry_seconds": 0.1},
}
SCRIPT = "/etc/whisperd/script"  # what the scripted engine does next; see whisperd.engine.scripted


def program_binds() -> tuple[Bind, ...]:
    """What the lab needs to run the code under test with the very interpreter and packages that run the tests."""
    packages = [Path(entry) for entry in sys.path if Path(entry).name in {"site-packages", "dist-packages"}]
    binds = [Bind(package, PACKAGES / str(number)) for number, package in enumerate(packages)]
    return Bind(REPOSITORY, CLONE), Bind(Path(sys.base_prefix), PYTHON), *binds


def provide_program(lab: SystemdLab) -> None:
    """Lay a virtual environment with whisperd at the default prefix, as if pip had made it."""
    lay_program(lab.host_path(PREFIX), lab.binds)
    # an interpreter that is a shared library names it by its own path, which may lie in a home: another one would do for
    # the start, and not for `ssl`
    lab.host_path("/etc/ld.so.conf.d/000-python.conf").write_text(f"{PYTHON}/lib\n")
    lab.run("ldconfig")


def lay_program(prefix: Path, binds: tuple[Bind, ...]) -> None:
    """Make the virtual environment in a directory of the host.

    The interpreter is a view of the one that runs the tests: that may lie in a home directory, where no service sees it.
    """
    (prefix / SITE).mkdir(parents=True)
    (prefix / SITE / "clone.pth").write_text(str(CLONE))
    lay_packages(prefix, binds)
    (prefix / "pyvenv.cfg").write_text(f"home = {PYTHON}/bin\ninclude-system-site-packages = false\n")
    (prefix / "bin").mkdir()
    (prefix / "bin/python").symlink_to(PYTHON / f"bin/python{VERSION}")
    program = prefix / "bin/whisperd"
    program.write_text(f"#!{PREFIX}/bin/python\nimport sys\nfrom whisperd.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)


def lay_packages(prefix: Path, binds: tuple[Bind, ...]) -> None:
    """Let a virtual environment see the packages that the tests use."""
    packages = [str(bind.target) for bind in binds if bind.target.parent == PACKAGES]
    (prefix / SITE / "packages.pth").write_text("\n".join(packages))


class Service:
    """One service: `whisperd`, or `whisperd@INSTANCE`."""

    def __init__(self, lab: SystemdLab, instance: str = "") -> None:
        name = instance or "whisperd"
        self.lab = lab
        self.instance = instance
        self.unit = f"whisperd@{instance}.service" if instance else "whisperd.service"
        self.root = f"/var/spool/whisperd-{instance}" if instance else "/var/spool/whisperd"
        self.config = f"/etc/whisperd/{name}.yaml"

    @property
    def spool(self) -> Path:
        """Its root as the host sees it."""
        return self.lab.host_path(self.root)

    def configure(self, **changes: object) -> None:
        """Write its configuration: a quick one with the scripted engine, with changes of whole top-level keys."""
        path = self.lab.host_path(self.config)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"root": self.root} | QUICK | changes))  # JSON is YAML

    def script(self, action: str) -> None:
        """What the scripted engine does from its next call on, where the configuration says `script: @SCRIPT`."""
        path = self.lab.host_path(SCRIPT)
        path.parent.mkdir(exist_ok=True)
        path.write_text(action)

    def start_jobs(self, *names: str, workers: int = 1) -> None:
        """Install it and bring recordings so far that the engine is busy with them, and will be for a minute."""
        self.script("slow:1")
        self.configure(script=f"@{SCRIPT}", pool=QUICK["pool"] | {"workers": workers})
        self.install()
        for name in names:
            self.drop(name, seconds=60)
        self.wait_running(*names[:workers])

    def wait_running(self, *names: str) -> None:
        """Wait until the engine is busy with all of these recordings at once."""
        phases = lambda: {self.sidecar(name).get("phase") for name in names}  # noqa: E731
        self.lab.wait_until(f"all run: {names}", lambda: phases() == {"transcribing"})

    def override(self, **settings: str) -> None:
        """Change settings of the [Service] section, as `systemctl edit` does."""
        folder = self.lab.host_path(f"/etc/systemd/system/{self.unit}.d")
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key}={value}\n" for key, value in settings.items()]
        (folder / "test.conf").write_text("[Service]\n" + "".join(lines))
        self.lab.systemctl("daemon-reload")

    def install(self, *options: str, check: bool = True) -> CompletedProcess[str]:
        """Run install.sh for it, with the program that is there already; this starts it."""
        instance = ["--instance", self.instance] if self.instance else []
        return self.lab.run(INSTALL, "--no-pip", *instance, *options, check=check, timeout_seconds=120)

    def state(self, name: str) -> str:
        """One property of the unit; empty where systemd does not show it."""
        return self.lab.properties(self.unit).get(name, "")

    @property
    def main_pid(self) -> int:
        """The supervisor, as the lab sees it."""
        return int(self.state("MainPID"))

    def workers(self) -> list[int]:
        """The workers, as the lab sees them."""
        children = self.lab.run("ps", "-o", "pid=,args=", "--ppid", str(self.main_pid), check=False).stdout.splitlines()
        return [int(line.split()[0]) for line in children if "resource_tracker" not in line]

    def drop(self, name: str, seconds: float = 1.0) -> None:
        """Upload a recording with a sound in it."""
        path = self.spool / "inbox" / name
        with path.open("wb") as file, wave.open(file, "wb") as sound:
            sound.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            sound.writeframes(os.urandom(int(seconds * SAMPLE_RATE) * 2))

    def sidecar(self, name: str) -> dict:
        """What the sidecar of a recording says; empty before there is one."""
        path = self.spool / "outbox" / f"{name}.status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def wait_status(self, name: str, *statuses: str, timeout_seconds: float = 30) -> dict:
        """Wait until the sidecar of a recording has one of these statuses, and return it."""

        def reached():
            sidecar = self.sidecar(name)
            return sidecar if sidecar.get("status") in statuses else None

        return self.lab.wait_until(f"{name}: {' or '.join(statuses)}", reached, timeout_seconds)

    def places(self, name: str) -> list[str]:
        """In which directories of the spool there is an original with the suffix of this name."""
        found = [path.relative_to(self.spool) for path in self.spool.rglob(f"*{Path(name).suffix}") if path.is_file()]
        return sorted(path.parts[0] for path in found)

    def messages(self, *arguments: str) -> list[str]:
        """What the service itself wrote to the journal, without systemd's remarks about it."""
        return [entry["MESSAGE"] for entry in self.lab.journal(f"_SYSTEMD_UNIT={self.unit}", *arguments)]
