"""What can be said about systemd/ without booting anything."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from whisperd.core import errors
from whisperd.settings.config import SYSTEM_CONFIG, Config

REPOSITORY = Path(__file__).parents[2]
SYSTEMD = REPOSITORY / "systemd"
UNITS = ["whisperd.service", "whisperd@.service"]
SCRIPTS = [SYSTEMD / "install.sh", REPOSITORY / "tests/support/systemd_lab.sh"]
LARGEST_EXPOSURE = 2.0


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def directives(file):
    """The lines of a unit file that say something: (key, value) in order."""
    lines = file.read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if line and line[0] not in "#["]


def values(file, key):
    return [word for found, value in directives(file) if found == key for word in value.split()]


def tmpfiles():
    """Path to mode of the directories in whisperd.tmpfiles."""
    lines = (SYSTEMD / "whisperd.tmpfiles").read_text().splitlines()
    return {Path(line.split()[1]): line.split()[2] for line in lines if line.startswith("d ")}


@pytest.fixture(params=["plain", "gpu", "offers"])
def installed(request, tmp_path):
    """The units as install.sh lays them out, with a program that exists; `offers`: with what they offer in comments."""

    def lay(source, target):
        text = source.read_text().replace("/opt/whisperd/bin/whisperd", "/bin/true")
        if request.param == "offers":
            text = re.sub(r"(?m)^#(?=[A-Z][A-Za-z]+=)", "", text)
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)

    for unit in UNITS:
        lay(SYSTEMD / unit, tmp_path / unit)
        if request.param != "plain":
            lay(SYSTEMD / "gpu.conf", tmp_path / f"{unit}.d/gpu.conf")
    return tmp_path


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line_of_the_units(installed, unit):
    """systemd-analyze warns of unknown keys and bad values on stderr only: its exit status is 0 then."""
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed / unit], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line_of_the_drop_in_for_the_network(installed, unit):
    """Those that are commented out, too."""
    (installed / f"{unit}.d").mkdir(exist_ok=True)
    lines = (SYSTEMD / "network.conf").read_text()
    (installed / f"{unit}.d/network.conf").write_text(re.sub("^#(?=[A-Z][A-Za-z]+=)", "", lines, flags=re.MULTILINE))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed / unit], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_is_tight(installed, unit):
    """The exposure that systemd-analyze computes stays low, with access to GPUs too."""
    command = ["systemd-analyze", "security", "--offline=true", installed / unit]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)[1])

    assert exposure <= LARGEST_EXPOSURE


def test_the_template_says_what_the_service_says():
    """whisperd@.service differs from whisperd.service in the name of the instance and in nothing else."""
    template = [(key, value.replace("-%i", "").replace(" (%i)", "")) for key, value in directives(SYSTEMD / UNITS[1])]
    template = [(key, value.replace("/%i.yaml", "/whisperd.yaml")) for key, value in template]

    assert template == directives(SYSTEMD / UNITS[0])


def test_unit_and_configuration_name_the_same_paths():
    """Spool, weights and configuration file are where the unit lets the daemon read and write."""
    unit = SYSTEMD / UNITS[0]
    sample = (REPOSITORY / "config/whisperd.yaml").read_text()
    root, models = (Path(re.search(rf"(?m)^#{key}: (\S+)", sample)[1]) for key in ("root", "models_directory"))

    assert [root] == [Path(path) for path in values(unit, "ReadWritePaths")]
    assert [root] == [Path(path) for path in values(unit, "RequiresMountsFor")]
    assert models in {Path("/var/lib") / name for name in values(unit, "StateDirectory")}
    assert values(unit, "ExecStart")[-2:] == ["--config", str(SYSTEM_CONFIG)]
    assert {root / name for name in ("", "inbox", "outbox", "done", "failed", ".work")} == set(tmpfiles())


def test_only_the_group_gets_into_the_spool():
    """No directory of the spool is open to others, and the root hands its group down."""
    modes = tmpfiles()

    assert all(mode.endswith("0") for mode in modes.values())
    assert modes[Config().root] == "2750"


def test_the_root_of_the_spool_can_be_the_root_of_an_sftp_account():
    """A chroot that is not root's own is refused by sshd."""
    (owner,) = re.findall(
        rf"^d {re.escape(str(Config().root))} +\d+ +(\w+)", (SYSTEMD / "whisperd.tmpfiles").read_text(), re.MULTILINE
    )

    assert owner == "root"


def test_no_restart_without_hope():
    """The exits that a restart cannot cure are those of house rule and no others."""
    codes = {errors.EXIT_BOOT, errors.EXIT_LOCKED, errors.EXIT_CONFIG}

    assert {int(code) for code in values(SYSTEMD / UNITS[0], "RestartPreventExitStatus")} == codes


def test_systemd_waits_longer_than_the_daemon():
    """The patience of systemd with a stop is greater than the time that running jobs are given."""
    (timeout,) = values(SYSTEMD / UNITS[0], "TimeoutStopSec")

    assert float(timeout.removesuffix("s")) > Config().pool.stop_grace_seconds + 15


@needs("shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shell_scripts_have_no_known_mistakes(script):
    """Shellcheck finds nothing."""
    result = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)

    assert result.stdout == ""


def test_the_lock_has_a_hash_for_every_package_that_the_project_names():
    """In a version that it allows; torch comes from one of two indexes and has none."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), start=[])]  # noqa: RUF017
    lock = (SYSTEMD / "requirements.lock").read_text()
    entries = {
        name: (version, body) for name, version, body in re.findall(r"(?ms)^([\w.-]+)==(\S+)(.*?)(?=^\w|\Z)", lock)
    }
    for needed in map(Requirement, lines):
        if needed.name != "torch":
            version, body = entries[needed.name]
            assert needed.specifier.contains(version), needed
            assert "--hash=sha256:" in body
