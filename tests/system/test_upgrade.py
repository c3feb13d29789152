"""Upgrades and rollbacks by install.sh, with real virtual environments and pip, and kills in the middle."""

import functools
import hashlib
import http.server
import re
import shlex
import shutil
import threading
from pathlib import Path

import pytest
from support.service import PREFIX, PYTHON, REPOSITORY, Service, program_binds
from support.systemd_lab import Bind, SystemdLab
from support.wheels import make_stub, make_wheels, public_version

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(1200)]

WHEELS = Path("/opt/wheels-of-the-test")
RELEASES = Path("/opt/releases")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A folder of wheels as `--make-wheels` makes it."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheels(folder)
    return folder


class Releases:
    """Versions of the clone, beside each other."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, version, *, needs="", code=""):
        """A version with another dependency, or with code that its daemon runs at the start."""
        clone = self.folder / version
        clone.mkdir()
        for name in ("whisperd", "systemd", "config", ".github"):
            shutil.copytree(REPOSITORY / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(REPOSITORY / name, clone / name)
        self._edit(clone / "whisperd/__init__.py", '__version__ = "', f'__version__ = "{version}"  # "')
        if needs:
            self._edit(clone / "pyproject.toml", "dependencies = [\n", f'dependencies = [\n  "{needs}",\n')
        if code:
            self._edit(clone / "whisperd/cli/run.py", "    def reload()", f"    {code}\n\n    def reload()")

    def _edit(self, path, old, new):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.fixture
def releases(tmp_path):
    """`1.0`, which is good, and room for more."""
    folder = tmp_path / "releases"
    folder.mkdir()
    releases = Releases(folder)
    releases.make("1.0")
    return releases


@pytest.fixture
def machine(_bootable, releases, wheels):
    """A machine with the releases, the wheels, and nothing installed."""
    binds = (*program_binds(), Bind(releases.folder, RELEASES), Bind(wheels, WHEELS))
    with SystemdLab(binds) as lab:
        lab.host_path("/etc/ld.so.conf.d/000-python.conf").write_text(f"{PYTHON}/lib\n")
        lab.run("ldconfig")
        yield lab


@pytest.fixture
def service(machine):
    """whisperd.service of that machine, not yet installed."""
    service = Service(machine)
    service.configure()
    return service


def install(machine, version, *options, check=True, **environment):
    """Run the install.sh of a release."""
    script = RELEASES / version / "systemd/install.sh"
    command = [script, "--wheels", WHEELS, "--python", PYTHON / "bin/python3", *options]
    return machine.run(*command, check=check, timeout_seconds=600, **environment)


def rollback(machine, *, check=True):
    """Return to the program before."""
    return machine.run(RELEASES / "1.0/systemd/install.sh", "--rollback", check=check, timeout_seconds=100)


def version(machine):
    """That of the program on the path, which is the one of the prefix."""
    return machine.run("whisperd", "--version").stdout.split()[-1]


def program_of(service):
    """The environment whose program the service runs."""
    command = service.lab.run("cat", f"/proc/{service.main_pid}/cmdline").stdout.split("\0")
    return Path(command[0]).parents[1]


def environments(machine):
    """All that lie beside the prefix."""
    return sorted(
        Path(line) for line in machine.run("find", "/opt", "-maxdepth", "1", "-name", "whisperd-*").stdout.split()
    )


def current(machine):
    """The one in use."""
    return Path(machine.run("readlink", PREFIX).stdout.strip())


def test_an_upgrade_and_a_rollback_with_a_job_running(machine, service, releases):
    """Each program runs from an environment of its own; the job is released and resumed both times, and loses nothing."""
    releases.make("2.0")
    service.script("slow:1")
    service.configure(script="@/etc/whisperd/script")
    install(machine, "1.0", "--extras", "docx")
    first = current(machine)
    service.drop("talk.wav", seconds=60)
    service.wait_running("talk.wav")
    install(machine, "2.0", "--upgrade")
    second, upgraded = current(machine), version(machine)
    ran = program_of(service)
    service.wait_running("talk.wav")
    service.script("ok")
    rollback(machine)
    returned = version(machine)
    status = service.wait_status("talk.wav", "completed", timeout_seconds=60)

    assert (upgraded, returned) == ("2.0", "1.0")
    assert (ran, program_of(service), current(machine)) == (second, first, first)
    assert environments(machine) == [first, second]
    assert status["attempts"] == 1
    assert machine.journal("--priority=err") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"needs": "no-such-package==1"}, "no-such-package", id="pip"),
        pytest.param({"code": 'sys.exit("broken")'}, "the one before is in use again", id="start"),
    ],
)
def test_a_failed_upgrade_changes_nothing(machine, service, releases, change, reason):
    """Neither one whose packages are missing nor one whose daemon does not start."""
    releases.make("2.0", **change)
    install(machine, "1.0")
    first = current(machine)
    result = install(machine, "2.0", "--upgrade", check=False)
    service.drop("talk.wav")
    service.wait_status("talk.wav", "completed")

    assert result.returncode == 1
    assert reason in result.stdout + result.stderr
    assert (current(machine), version(machine), program_of(service)) == (first, "1.0", first)


def test_an_upgrade_that_refuses_the_configuration_does_not_interrupt_the_service(machine, service):
    """The configuration is examined before anything is switched; the daemon keeps its process."""
    install(machine, "1.0")
    pid = service.main_pid
    service.configure(pool={"workers": 0})
    result = install(machine, "1.0", "--upgrade", check=False)

    assert result.returncode == 1
    assert "pool.workers" in result.stderr
    assert service.main_pid == pid
    assert environments(machine) == [current(machine)]


STEPS = {  # in the order of install.sh: the beginning of the command before which it dies, and whether the new one is in use
    '"$python" -m pip install --no-input': False,
    "cp -r": False,
    "mv -T": False,
    'sed "s|/opt/whisperd|': True,
    "systemctl restart": True,
}
KILLER = """
if [[ $0 == */install.sh ]]; then
  set -o functrace
  death={step}
  trap 'case $BASH_COMMAND in "$death"*) kill -KILL $$ ;; esac' DEBUG
fi
"""


def test_a_kill_leaves_the_program_before_or_the_new_one(machine, service, releases):
    """Wherever install.sh dies, what is on the disk starts and works, and the next run completes the upgrade."""
    install(machine, "1.0")
    before = "1.0"
    for number, (step, switched) in enumerate(STEPS.items(), start=2):
        new = f"{number}.0"
        releases.make(new)
        machine.host_path("/etc/killer").write_text(KILLER.replace("{step}", shlex.quote(step)))
        killed = install(machine, new, "--upgrade", check=False, BASH_ENV="/etc/killer")
        machine.systemctl("restart", service.unit)
        found = version(machine)
        if found == before:
            install(machine, new, "--upgrade")
        service.drop(f"{new}.wav")
        service.wait_status(f"{new}.wav", "completed")

        assert (killed.returncode, found) == (-9, new if switched else before), step
        assert version(machine) == new
        assert switched or len(environments(machine)) == 2
        before = new
    install(machine, before, "--upgrade")

    assert version(machine) == before
    assert len(environments(machine)) == 2


def test_an_environment_at_the_prefix_itself_becomes_the_one_before(machine, service, releases):
    """As earlier releases made it; it changes names with the new one in one step, and can be returned to."""
    releases.make("2.0")
    install(machine, "1.0")
    old = current(machine)
    machine.run("rm", PREFIX)
    machine.run(PYTHON / "bin/python3", "-m", "venv", PREFIX, timeout_seconds=100)
    pip = [PREFIX / "bin/python", "-m", "pip", "install", "--no-index", "--find-links", WHEELS, RELEASES / "1.0"]
    machine.run(*pip, timeout_seconds=600, PIP_CONFIG_FILE="/dev/null")
    machine.run("touch", PREFIX / ".made-by-install.sh")
    machine.run("rm", "-r", old)
    machine.systemctl("restart", service.unit)
    install(machine, "2.0", "--upgrade")
    upgraded = version(machine)
    rollback(machine)

    assert (upgraded, version(machine)) == ("2.0", "1.0")
    assert service.state("ActiveState") == "active"


def test_a_first_installation_that_fails_leaves_nothing(machine, service):
    """A second one succeeds, and --uninstall removes all environments."""
    machine.run("mkdir", "/opt/empty")
    failed = install(machine, "1.0", "--wheels", "/opt/empty", check=False)
    left = environments(machine)
    install(machine, "1.0")
    state = service.state("ActiveState")
    install(machine, "1.0", "--upgrade")
    machine.run(RELEASES / "1.0/systemd/install.sh", "--uninstall")

    assert failed.returncode == 1
    assert (left, environments(machine)) == ([], [])
    assert state == "active"
    assert not machine.host_path(PREFIX).is_symlink()


def test_old_environments_are_removed_and_extras_are_kept(machine, service):
    """The program in use and the one before stay; `--extras` is not needed again."""
    install(machine, "1.0", "--extras", "")
    first = current(machine)
    install(machine, "1.0", "--extras", "docx,metrics")
    second = current(machine)
    install(machine, "1.0", "--upgrade")
    names = machine.run("ls", current(machine) / "lib/python3.11/site-packages").stdout

    assert environments(machine) == [second, current(machine)]
    assert first not in environments(machine)
    assert {"python_docx-", "prometheus_client-"} <= {re.split(r"(?<=-)", line)[0] for line in names.splitlines()}


class Index(http.server.SimpleHTTPRequestHandler):
    """A folder as a web server shows it."""

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def torch_index(tmp_path):
    """The address of an index that has a CPU build of torch and nothing else."""
    page = tmp_path / "index/torch"
    page.mkdir(parents=True)
    make_stub(page, "torch", f"{public_version('torch')}+cpu", packages=True)
    handler = functools.partial(Index, directory=tmp_path / "index")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def install_online(machine, *options, check=True):
    """Install `1.0` from several places, as with the public index: the wheels are the usual one."""
    command = [RELEASES / "1.0/systemd/install.sh", "--python", PYTHON / "bin/python3", *options]
    places = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(WHEELS)}
    return machine.run(*command, check=check, timeout_seconds=600, **places)


def version_of_torch(machine):
    """That in the environment in use."""
    code = "import importlib.metadata as m; print(next(m.distributions(name='torch')).version)"
    return machine.run(PREFIX / "bin/python", "-c", code).stdout.strip()


def test_torch_comes_from_the_index_of_cpu_builds(machine, service, torch_index):
    """Its build is preferred to that of the usual index, and sizes are said before anything is installed."""
    output = install_online(machine, "--torch-index", torch_index).stdout

    assert version_of_torch(machine) == f"{public_version('torch')}+cpu"
    assert re.search(r"\d+ packages, [\d.,]+ MB\n", output).start() < output.index("Installing collected")


def test_an_index_of_cpu_builds_that_cannot_be_reached(machine, service):
    """The usual index is used then, and what that means is said."""
    output = install_online(machine, "--torch-index", "http://127.0.0.1:1").stdout

    assert "http://127.0.0.1:1/torch/ cannot be reached" in output
    assert "gigabytes of CUDA" in output
    assert version_of_torch(machine) == public_version("torch")


def test_who_has_an_index_of_their_own_is_not_sent_to_another(machine, service):
    """Without `--torch-index` and with PIP_NO_INDEX, the address of PyTorch is not asked."""
    output = install_online(machine).stdout

    assert "cannot be reached" not in output
    assert version_of_torch(machine) == public_version("torch")


def lock_of(folder, wrong=""):
    """A lock file of all wheels in a folder; of the one that is named, with the hash of something else."""
    lines = []
    for wheel in sorted(folder.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(b"" if name == wrong else wheel.read_bytes()).hexdigest()
        lines.append(f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}\n")
    return "".join(lines)


def test_a_locked_installation_takes_what_the_lock_says_or_nothing(machine, service, releases, wheels):
    """A file that is not the one of the lock ends it; the packages of other extras are not needed."""
    lock = releases.folder / "1.0/systemd/requirements.lock"
    lock.write_text(lock_of(wheels, wrong="pydantic"))
    refused = install_online(machine, "--locked", "--extras", "docx", check=False)
    lock.write_text(lock_of(wheels))
    install_online(machine, "--locked", "--extras", "docx")

    assert refused.returncode == 1
    assert "pydantic" in refused.stderr
    assert service.state("ActiveState") == "active"
    assert "--hash" in machine.host_path(current(machine) / "locked.txt").read_text()


def test_a_folder_of_wheels_is_made_and_is_enough(machine, service):
    """Somebody without privileges makes it from an index; another machine, which has none, installs from it."""
    machine.run("useradd", "--create-home", "alice")
    made = "/home/alice/wheels"
    make = [
        RELEASES / "1.0/systemd/install.sh",
        "--make-wheels",
        made,
        "--extras",
        "docx",
        "--python",
        PYTHON / "bin/python3",
    ]
    places = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(WHEELS)}
    output = machine.run("runuser", "--user=alice", "--", *make, timeout_seconds=600, **places).stdout
    install(machine, "1.0", "--wheels", made, "--extras", "docx")
    names = machine.run("ls", made).stdout

    assert "--extras 'docx'" in output
    assert "python_docx-" in names
    assert "apprise-" not in names
    assert service.state("ActiveState") == "active"
