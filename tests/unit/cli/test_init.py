"""`whisperd init --user`: what it writes, and that it rewrites nothing."""

import shutil
import subprocess

import pytest

from whisperd import cli
from whisperd.core.errors import EXIT_BOOT
from whisperd.settings import config


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home directory of somebody who likes odd names."""
    home = tmp_path / "Al ice 100% $HOME"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


def test_the_configuration_names_a_spool_in_the_home_directory(home, capsys):
    """And the way to it is printed."""
    assert cli.main(["init", "--user"]) == 0
    settings = config.load(home / ".config/whisperd/whisperd.yaml")

    assert settings.root == home / "Transcripts"
    assert f"{home}/Transcripts/inbox/" in capsys.readouterr().out


def test_another_spool(home, tmp_path):
    """`--root` chooses it."""
    cli.main(["init", "--user", "--root", str(tmp_path / "spool")])

    assert config.load(home / ".config/whisperd/whisperd.yaml").root == tmp_path / "spool"


def test_what_is_there_is_kept(home, capsys):
    """A second run changes neither file, and says so."""
    cli.main(["init", "--user"])
    files = [home / ".config/whisperd/whisperd.yaml", home / ".config/systemd/user/whisperd.service"]
    for file in files:
        file.write_text("mine")
    capsys.readouterr()
    cli.main(["init", "--user"])
    said = capsys.readouterr().out

    assert [file.read_text() for file in files] == ["mine", "mine"]
    assert all(f"kept {file}" in said for file in files)


def test_a_directory_that_is_none(home, capsys):
    """The reason is one line."""
    (home / ".config").write_text("a file")

    assert cli.main(["init", "--user"]) == EXIT_BOOT
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_every_line_of_the_unit(home, tmp_path):
    """Whatever characters the paths have."""
    cli.main(["init", "--user"])
    text = (home / ".config/systemd/user/whisperd.service").read_text()
    (tmp_path / "whisperd.service").write_text(text)  # systemd-analyze itself does not like the path
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "whisperd.service"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert "100%% $$HOME/.config/whisperd/whisperd.yaml" in text
