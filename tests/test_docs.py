"""The README is held to the code: every command, key, exit code and field stands in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel

from whisperd import cli, config, errors
from whisperd.spool import sidecar

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def commands(parser, prefix=()):
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for name, below in action.choices.items():
                nested = list(commands(below, (*prefix, name)))
                yield from nested or [(*prefix, name)]


@pytest.mark.parametrize("words", list(commands(cli.parser())), ids=" ".join)
def test_every_command_is_described(words):
    """A command that the README does not name does not exist for its reader."""
    assert f"`whisperd {' '.join(words)}" in README


def keys(model, prefix=""):
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from keys(type(default), f"{prefix}{name}.")
        elif name != "script":  # for tests
            yield f"{prefix}{name}", field.description


@pytest.mark.parametrize(("key", "description"), list(keys(config.Config)), ids=lambda value: value.split()[0])
def test_every_configuration_key_is_described(key, description):
    """With the very words of the schema."""
    assert re.search(rf"^\| `{re.escape(key)}` \| `[^`]*` \| {re.escape(description)} \|$", README, re.MULTILINE)


@pytest.mark.parametrize("field", sidecar.FIELDS)
def test_every_field_of_the_sidecar_is_described(field):
    """The schema of the status file is the README's table."""
    section = README.split("## The status file")[1].split("\n## ")[0]

    assert f"`{field}`" in section


@pytest.mark.parametrize("name", [name for name in dir(errors) if name.startswith("EXIT_")])
def test_every_exit_code_is_described(name):
    """So that a unit file or a script can rely on it."""
    section = README.split("### Exit codes")[1].split("\n## ")[0]

    assert f"\n| {getattr(errors, name)} |" in section


def test_the_sample_configuration_of_the_readme_exists():
    """Relative links lead somewhere."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_ci_runs_the_test_command_of_the_readme():
    """What the README promises is what is checked."""
    (line,) = re.findall(r"^(python3 -m venv .*pytest)$", README, re.MULTILINE)
    ci = (ROOT / ".ci/run").read_text("utf-8")

    for step in line.split(" && "):
        assert step in ci


def test_nothing_but_the_agreed_stands_at_the_top_level():
    """whisperd/ config/ systemd/ tests/ pyproject.toml README.md and dot-files."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {path.split("/")[0] for path in listed if path}

    assert {name for name in top if not name.startswith(".")} == {
        "README.md", "config", "pyproject.toml", "systemd", "tests", "whisperd",
    }  # fmt: skip
