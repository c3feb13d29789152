"""The documentation is held to the code: commands, keys, exit codes and fields, links, and every example that people copy."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from pydantic import BaseModel
from support import generate_docs
from support.spool import FAILURE, Spool
from support.status_schema import StatusFile, schema_errors

from whisperd import cli
from whisperd.cli.config import Sources, tickets_of
from whisperd.cli.status import describe, gather
from whisperd.core import errors
from whisperd.core.correction import is_correction
from whisperd.core.events import DeviceVitals
from whisperd.core.job import Phase, Progress
from whisperd.core.options import FORMATS
from whisperd.daemon import cancel
from whisperd.intake.ignore import DEFAULT_PATTERNS, NO_RECORDINGS, UNFINISHED, Ignore
from whisperd.intake.ticket import parse
from whisperd.listeners import metrics
from whisperd.listeners.device_report import DeviceReport
from whisperd.settings import config
from whisperd.settings.correction import parse as parse_correction
from whisperd.settings.profiles import resolve
from whisperd.spool import status_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCS = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / ".github/docs").glob("*.md"))}
PAGES = {
    ROOT / "README.md": README,
    **{ROOT / f".github/docs/{name}.md": text for name, text in DOCS.items()},
    **{
        ROOT / f".github/{name}.md": (ROOT / f".github/{name}.md").read_text("utf-8")
        for name in ("SECURITY", "CONTRIBUTING")
    },
}
README_LINES_MAX = 160
PICTURE_BYTES_MAX = 150_000
MARKDOWN = MarkdownIt("commonmark").enable("table")


def tokens(text):
    """All tokens of a page, those within paragraphs and cells too."""
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def examples(language):
    """Each code block in one language, as `(page, text)`."""
    for path, text in PAGES.items():
        for token in tokens(text):
            if token.type == "fence" and token.info == language:
                yield pytest.param(token.content, id=f"{path.stem}-{token.map[0] if token.map else 0}")


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    found = MARKDOWN.parse(text)
    for heading, inline in pairwise(found):
        if heading.type == "heading_open":
            words = "".join(child.content for child in inline.children)
            yield re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")


def links():
    """Each link and picture that leads to a file or a heading of this repository."""
    for path, text in PAGES.items():
        for token in tokens(text):
            target = token.attrs.get("href") or token.attrs.get("src")
            if target and not re.match(r"https?:", target):
                yield pytest.param(path, target, id=f"{path.stem}-{target}")


@pytest.mark.parametrize(("path", "target"), list(links()))
def test_every_link_leads_somewhere(path, target):
    """To a file, and to a heading of it where one is named."""
    file, _, anchor = target.partition("#")
    found = (path.parent / file).resolve() if file else path

    assert found.exists()
    assert not anchor or anchor in anchors(found.read_text("utf-8"))


def test_the_readme_is_short_and_leads_to_every_page():
    """A newcomer reads it whole; the rest is a page for each question."""
    assert len(README.splitlines()) <= README_LINES_MAX
    assert [name for name in DOCS if f"(.github/docs/{name}.md)" not in README] == []


def test_the_formats_are_listed():
    """In the order of the schema, and each with a row."""
    page = DOCS["formats"]
    rows = re.findall(r"^\| (`.*?`) \|", page.split("## Layout")[0], re.MULTILINE)

    assert f": {', '.join(FORMATS)}." in page
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(FORMATS)


def test_pictures_are_small():
    """A clone stays small, and the README appears at once."""
    sizes = {path.name: path.stat().st_size for path in (ROOT / ".github/docs").glob("*.png")}

    assert sizes
    assert {name: size for name, size in sizes.items() if size > PICTURE_BYTES_MAX} == {}


def test_the_generated_pages_are_those_of_the_schema():
    """Tables of keys and fields, and the JSON Schema files."""
    names = [path.name for path in generate_docs.out_of_date()]

    assert names == [], f"out of date; run: {generate_docs.COMMAND}"


def simple_commands(line):
    """Each command of a line of shell, as words, without sudo."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in (*lexer, ";"):
        if set(word) <= set("();<>|&"):
            yield words
            words = []
        else:
            words.append(word)


def of_whisperd(words):
    """The arguments of whisperd in a simple command; None for another program."""
    words = words[1:] if words[:1] == ["sudo"] else words
    words = words[2:] if words[:1] == ["-u"] else words
    return words[1:] if words and words[0].rpartition("/")[2] == "whisperd" else None


def shown_commands():
    """Each call of whisperd in the documentation, in a code block or in a sentence."""
    for path, text in PAGES.items():
        for token in tokens(text):
            lines = token.content.splitlines() if token.type == "fence" and token.info == "sh" else []
            if token.type == "code_inline" and not set("[]<") & set(token.content) and "..." not in token.content:
                lines = [token.content] if re.match(r"(sudo (-u \w+ )?)?whisperd ", token.content) else []
            for line in lines:
                for words in simple_commands(line):
                    if (arguments := of_whisperd(words)) is not None:
                        yield pytest.param(arguments, id=f"{path.stem}: {' '.join(words)}")


@pytest.mark.parametrize("arguments", list(shown_commands()))
def test_every_command_that_is_shown_can_be_given(arguments):
    """The real parser takes it; a sentence may name a command alone."""
    if tuple(arguments) in set(commands(cli.parser())):
        return
    try:
        cli.parser().parse_args(arguments)
    except SystemExit as end:
        assert end.code == 0  # noqa: PT017  # argparse ends the program: with 0 after --version


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_option_of_the_installer_that_is_shown_exists(path):
    """`install.sh --help` lists it."""
    usage = (ROOT / "systemd/install.sh").read_text("utf-8").split("Usage:")[1].split("\nUSAGE\n")[0]
    named = re.findall(r"install\.sh((?: +--?[\w-]+(?: [\w,-]+)?)+)", PAGES[path])

    assert {option for options in named for option in re.findall(r"--[\w-]+", options)} - set(
        re.findall(r"--[\w-]+", usage)
    ) - {"--help"} == set()


@pytest.mark.parametrize("text", list(examples("yaml")))
def test_every_example_of_a_configuration_a_ticket_or_a_correction_is_a_good_one(text):
    """People begin with a copy of it; its first line names the file."""
    (name,) = re.findall(r"\A# (\S+\.yaml)\n", text)
    if name == "whisperd.yaml":
        settings = config.validate(yaml.safe_load(text), source=name)
        assert resolve(settings, "calls/a.mp3", []).model
        return
    settings, ticket = config.validate({}, source="the defaults"), parse(name, text.encode())
    assert ticket.problems == ()
    if is_correction(ticket.values):
        assert parse_correction(settings, ticket.values, by=name, allowed=settings.tickets.allow)
    else:
        assert resolve(settings, name.removesuffix(".yaml"), [ticket]).changes


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_test_and_script_that_is_named_exists(path):
    """A claim is worth what shows it."""
    for named in set(re.findall(r"tests/[\w/]+\.(?:py|sh)(?:::\w+)?", PAGES[path])):
        file, _, function = named.partition("::")
        assert (ROOT / file).exists(), named
        assert not function or f"def {function}(" in (ROOT / file).read_text("utf-8"), named


def test_real_status_files_are_as_the_json_schema_says(tmp_path):
    """Of an upload that waits, and of jobs that run, are completed and failed; the schema has their fields and no others."""
    spool = Spool(tmp_path / "spool")
    running = spool.take("a.mp3")
    spool.finish(spool.take("b.mp3"))
    spool.store.fail(spool.take("c.mp3"), FAILURE)
    spool.store.status_files.explain("d.mp3", 5, "still open for writing")
    under_way = Progress(Phase.TRANSCRIBING, 12.5, 100.0, 20.0, 4.4)
    spool.store.status_files.write("a.mp3", status_file.of_job(running, now=running.created_at, progress=under_way))
    documents = [json.loads(path.read_bytes()) for path in sorted(spool.layout.outbox.glob("*.status.json"))]

    assert [document["status"] for document in documents] == ["in_progress", "completed", "failed", "pending"]
    for document in documents:
        assert schema_errors(document) == []
        assert list(document) == [field.alias or name for name, field in StatusFile.model_fields.items()]
    assert schema_errors(documents[0] | {"progress": "much"})


def commands(parser, prefix=()):
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for name, below in action.choices.items():
                nested = list(commands(below, (*prefix, name)))
                yield from nested or [(*prefix, name)]


@pytest.mark.parametrize("words", list(commands(cli.parser())), ids=" ".join)
def test_every_command_is_described(words):
    """A command that the documentation does not name does not exist for its reader."""
    assert f"`whisperd {' '.join(words)}" in DOCS["commands"]


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
    section = DOCS["commands"].split("\n## ")[0]
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
    section = DOCS["operations"].split("## Error codes")[1]

    assert sorted(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)) == sorted({*job_error_codes(), cancel.CODE})


def test_the_profiles_and_the_ticket_of_the_documentation_are_good_ones():
    """People begin with a copy of them."""
    profiles, ticket = re.findall(r"```yaml\n(.*?)```", DOCS["options"], re.DOTALL)
    settings = config.validate(yaml.safe_load(profiles), source="options.md")
    spec = resolve(settings, "calls/a.mp3", [parse("calls/a.mp3.yaml", ticket.encode())])

    assert len(settings.profiles) == 6
    assert (spec.transcribe.task, spec.output.formats, spec.media.channels) == ("translate", ("srt", "txt"), "split")


def test_the_corrections_of_the_documentation_are_good_ones():
    """And nobody can take them for tickets of an upload."""
    ticket, of_page = re.findall(r"```yaml\n(.*?)```", DOCS["corrections"], re.DOTALL)
    values = parse("interview.mp3.yaml", ticket.encode()).values
    settings = config.validate({}, source="the defaults")
    correction = parse_correction(settings, values, by="corrections.md", allowed=settings.tickets.allow)

    assert is_correction(values)
    assert (correction.speakers, correction.formats) == ({"Speaker 1": "Anna", "Speaker 2": "Ben"}, ("srt",))
    values = parse("interview.mp3.correction.yaml", of_page.encode()).values
    correction = parse_correction(settings, values, by="corrections.md", allowed=settings.tickets.allow)
    assert is_correction(values)
    assert [(each.first, each.last) for each in correction.segments] == [(3, 3), (4, 5), (6, 6), (6, 6), (7, 7)]


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
    spool.finish(spool.take("d.mp3"))
    spool.upload("c.mp3")
    DeviceReport(spool.layout, lambda: (DeviceVitals("cuda:0", "GPU", 1),)).tick(0.0)
    with spool.layout.lock():
        report = gather(spool.layout, Ignore(), wanted_bytes=0)
    section = DOCS["status-file"].split("<!-- generated: status-report -->")[1].split("<!-- end -->")[0]

    assert {field for field in re.findall(r"`([a-z_0-9]+)`", section) if field != "root"} | {"root"} == set(
        fields_of(report)
    )
    assert schema_errors(report, "status-report") == []


def test_every_field_of_the_report_on_one_upload_is_described(tmp_path):
    """`status NAME --json`, of a job that has options and has failed before."""
    spool = Spool(tmp_path / "spool")
    (spool.layout.inbox / "a.mp3.yaml").write_text("language: fr")
    spool.upload("a.mp3")
    settings = Sources(None, spool.layout.root)
    spec = resolve(settings.settings, "a.mp3", tickets_of(settings.settings, "a.mp3"))
    job = spool.take("b.mp3").evolve(spec=spec).after(FAILURE, counted=True)
    spool.store.fail(job, FAILURE)
    found = set(fields_of(describe(settings, spool.layout, Ignore(), "b.mp3")))
    paragraph = DOCS["status-file"].split("`whisperd status NAME --json` is")[1].split("\n\n")[0]

    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == found - {"txt", "json"}


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
    assert re.search(
        rf"^\| `{re.escape(key)}` \| `[^`]*` \| {re.escape(description)} \|$", DOCS["configuration"], re.MULTILINE
    )


@pytest.mark.parametrize("pattern", [*UNFINISHED, *set(DEFAULT_PATTERNS[len(UNFINISHED) :]) - {"Icon\r"}])
def test_every_name_that_is_never_an_upload_is_named(pattern):
    """Whoever wonders why a file is not taken finds its name."""
    assert f"`{pattern}`" in DOCS["uploads"]


def test_every_extension_of_no_recording_is_named():
    """The list is that of the source, and nobody has to try."""
    paragraph = DOCS["uploads"].split("Documents, subtitles, pictures,")[1].split("\n\n")[0]

    assert set(re.findall(r"`(\.\w+)`", paragraph)) == NO_RECORDINGS


@pytest.mark.parametrize("field", status_file.FIELDS)
def test_every_field_of_the_status_file_is_described(field):
    """The schema of the status file is the table of its page."""
    section = DOCS["status-file"].split("## The status file")[1].split("\n## ")[0]

    assert f"`{field}`" in section


def test_the_table_of_metrics_is_what_the_code_has():
    """Every metric with its type and help text, and no other."""
    families = metrics.Metrics("/spool", started_at=0.0).registry.collect()
    section = DOCS["operations"].split("## Metrics")[1].split("\n## ")[0]
    total = {"counter": "_total"}

    assert re.findall(r"^\| `(whisperd_\w+)` \| (\w+) \| (.+) \|$", section, re.MULTILINE) == [
        (each.name + total.get(each.type, ""), each.type, each.documentation) for each in families
    ]


@pytest.mark.parametrize("name", [name for name in dir(errors) if name.startswith("EXIT_")])
def test_every_exit_code_is_described(name):
    """So that a unit file or a script can rely on it."""
    section = DOCS["commands"].split("## Exit codes")[1].split("\n## ")[0]

    assert f"\n| {getattr(errors, name)} |" in section


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
