"""The README is held to the code: every command, key, exit code and field stands in it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from support.spool import FAILURE, Spool

from whisperd import cli
from whisperd.cli import report
from whisperd.core import errors
from whisperd.daemon import cancel
from whisperd.intake.ignore import DEFAULT_PATTERNS, UNFINISHED, Ignore
from whisperd.intake.ticket import parse
from whisperd.listeners import metrics
from whisperd.settings import config
from whisperd.settings.profiles import resolve
from whisperd.spool import status_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SECURITY = (ROOT / ".github/SECURITY.md").read_text("utf-8")


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


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (parser.prog, option)
        for parser in cli.parsers(cli.parser())
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    ],
)
def test_every_option_is_described(words, option):
    """In the row of its command, or where it is said which commands take it."""
    section = README.split("## Commands")[1].split("\n### ")[0]
    rows = [line for line in section.splitlines() if line.startswith(f"| `{words}")]
    prose = [line for line in section.splitlines() if not line.startswith("| `whisperd ")]

    assert any(re.search(rf"{option}\b", line) for line in (*rows, *prose))


def job_error_codes():
    """What `error.code` of a status file, or the label of a metric, can be, as the source names it.

    The codes of the errors that end an attempt, and every constant given as `code`, by name or in its place, also to a
    function that passes it on.
    """
    kinds = [errors.JobError, *errors.JobError.__subclasses__()]
    kinds += [below for kind in kinds for below in kind.__subclasses__()]
    yield from (kind.code for kind in kinds if kind not in {errors.JobError, errors.InputError})
    for path in (ROOT / "whisperd").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        takers = {"Failure", "cls"} | {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].arg == "code"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                first = node.args[:1] if ast.unparse(node.func) in takers else []
                for value in (*first, *(keyword.value for keyword in node.keywords if keyword.arg == "code")):
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield value.value
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and path.parent.name in {"media", "worker"}
            ):
                kind = getattr(
                    errors, ast.unparse(node.exc.func), None
                )  # of an error that is not a job's own, such as BootError
                if kind is not None and not issubclass(kind, errors.JobError):
                    yield kind.code


def test_the_error_codes_are_those_of_the_source():
    """A program that reads a status file finds the meaning of each, or at least its name, and none that does not exist."""
    section = README.split("Error codes:")[1].split("\n\n")[0]

    assert sorted(set(re.findall(r"`([a-z_]+)`", section))) == sorted({*job_error_codes(), cancel.CODE})


def test_the_profiles_and_the_ticket_of_the_readme_are_good_ones():
    """People begin with a copy of them."""
    section = README.split("### Profiles and tickets")[1].split("\n## ")[0]
    profiles, ticket = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    settings = config.validate(yaml.safe_load(profiles), source="README")
    spec = resolve(settings, "calls/a.mp3", [parse("calls/a.mp3.yaml", ticket.encode())])

    assert len(settings.profiles) == 6
    assert (spec.transcribe.task, spec.output.formats, spec.media.channels) == ("translate", ("srt", "txt"), "split")


def fields_of(value):
    for key, below in value.items():
        yield key
        yield from fields_of(below) if isinstance(below, dict) else ()
        if isinstance(below, list) and below:
            yield from fields_of(below[0])


def test_every_field_of_the_report_for_programs_is_described(tmp_path):
    """`status --json` of a spool with one of each; nothing is described that is not there."""
    spool = Spool(tmp_path / "spool")
    spool.take("a.mp3")
    spool.store.fail(spool.take("b.mp3"), FAILURE)
    spool.upload("c.mp3")
    found = set(fields_of(report.gather(spool.layout, Ignore(), wanted_bytes=0)))
    section = README.split("`whisperd status --json` is")[1].split("\n\n## ")[0].split("\n\nModels")[0]

    assert {field for field in re.findall(r"`([a-z_0-9]+)`", section) if field != "root"} | {"root"} == found


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


@pytest.mark.parametrize("pattern", [*UNFINISHED, *set(DEFAULT_PATTERNS[len(UNFINISHED) :]) - {"Icon\r"}])
def test_every_name_that_is_never_an_upload_is_named(pattern):
    """Whoever wonders why a file is not taken finds its name."""
    assert f"`{pattern}`" in README


@pytest.mark.parametrize("field", status_file.FIELDS)
def test_every_field_of_the_sidecar_is_described(field):
    """The schema of the status file is the README's table."""
    section = README.split("## The status file")[1].split("\n## ")[0]

    assert f"`{field}`" in section


def test_the_table_of_metrics_is_what_the_code_has():
    """Every metric with its type and help text, and no other."""
    families = metrics.Metrics("/spool", started_at=0.0).registry.collect()
    section = README.split("## Metrics")[1].split("\n## ")[0]
    total = {"counter": "_total"}

    assert re.findall(r"^\| `(whisperd_\w+)` \| (\w+) \| (.+) \|$", section, re.MULTILINE) == [
        (each.name + total.get(each.type, ""), each.type, each.documentation) for each in families
    ]


@pytest.mark.parametrize("name", [name for name in dir(errors) if name.startswith("EXIT_")])
def test_every_exit_code_is_described(name):
    """So that a unit file or a script can rely on it."""
    section = README.split("### Exit codes")[1].split("\n## ")[0]

    assert f"\n| {getattr(errors, name)} |" in section


def test_the_sample_configuration_of_the_readme_exists():
    """Relative links lead somewhere."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("named", sorted(set(re.findall(r"tests/[\w/]+\.py(?:::\w+)?", SECURITY))))
def test_every_test_that_the_threat_model_names_exists(named):
    """A claim about security is worth what shows it."""
    path, _, function = named.partition("::")

    assert f"def {function}(" in (ROOT / path).read_text("utf-8") if function else (ROOT / path).exists()


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
