"""The configuration: one schema, every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from whisperd.core.errors import ConfigError
from whisperd.settings import config

SAMPLE = Path(__file__).parents[3] / "config/whisperd.yaml"


def problems(tmp_path, text):
    path = tmp_path / "whisperd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return caught.value.problems


def keys(model, prefix=""):
    """Every dotted key of the schema, with its default."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from keys(type(default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default


def test_every_problem_is_reported_at_once_with_its_key(tmp_path):
    """An operator mends a file once, not once per line."""
    found = problems(
        tmp_path,
        """
        root: relative
        surprise: 1
        intake: {settle_seconds: -1, min_free: lots}
        pool: {workers: many}
        transcription: {patience: 2.0, temperature: [0, 5], language: french english}
        output: {formats: [txt, doc], max_line_count: 2}
        """,
    )

    assert [problem.split(":")[0] for problem in found] == [
        "root",
        "intake.settle_seconds",
        "intake.min_free",
        "pool.workers",
        "transcription.language",
        "transcription.patience",
        "transcription.temperature.1",
        "output.formats.1",
        "output.max_line_count",
        "surprise",
    ]


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("pool: {workers: 0}", "pool.workers", "greater than or equal to 1"),
        ("pool: {workers: '2'}", "pool.workers", "valid integer"),
        ("device: gpu", "device", "match pattern"),
        ("intake: {ignore: '*.x'}", "intake.ignore", "valid tuple"),
        ("output: {formats: []}", "output.formats", "at least 1"),
        ("output: {formats: [txt, txt]}", "output.formats", "twice"),
        ("transcription: {hallucination_silence_threshold: 2.0}", "transcription.hallucination", "word_timestamps"),
        ("intake: {settle_seconds: .nan}", "intake.settle_seconds", "finite"),
        ("pool: 3", "pool", "valid dictionary"),
    ],
)
def test_each_problem_names_key_and_reason(tmp_path, text, key, reason):
    """Wrong types, bad ranges, contradictions."""
    (problem,) = problems(tmp_path, text)

    assert problem.startswith(key)
    assert reason in problem


@pytest.mark.parametrize(
    "text", ["pool: {", "- a\n- b", "a: 1\na: 2", "\tx: 1"], ids=["open brace", "a list", "key twice", "tab"]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    """YAML errors are configuration errors, a key that stands twice is one too."""
    assert len(problems(tmp_path, text)) == 1


def test_a_missing_file_is_refused(tmp_path):
    """A file that was named must be there."""
    with pytest.raises(ConfigError, match="cannot be read: No such file") as caught:
        config.load(tmp_path / "none.yaml")

    assert caught.value.exit_code == 78


def test_an_empty_file_is_all_defaults(tmp_path):
    """Nothing must be set."""
    path = tmp_path / "whisperd.yaml"
    path.write_text("# nothing\n")

    assert config.load(path) == config.Config()


def test_root_on_the_command_line_wins(tmp_path):
    """--root replaces what the file says; alone it reads no file at all."""
    path = tmp_path / "whisperd.yaml"
    path.write_text("root: /elsewhere\nmodel: tiny\n")

    assert config.load(path, root=tmp_path).root == tmp_path
    assert config.load(path, root=tmp_path).model == "tiny"
    assert config.load(root=tmp_path).model == "base"


@pytest.mark.parametrize(
    ("given", "bytes_"), [("2G", 2 << 30), ("500M", 500 << 20), ("1.5k", 1536), ("10 MiB", 10 << 20), (7, 7)], ids=str
)
def test_sizes_have_units(tmp_path, given, bytes_):
    """`min_free: 2G`."""
    path = tmp_path / "whisperd.yaml"
    path.write_text(yaml.safe_dump({"intake": {"min_free": given}}))

    assert config.load(path).intake.min_free == bytes_


def test_the_sample_holds_every_key_with_its_default():
    """config/whisperd.yaml is documentation: it must not drift from the schema."""
    expected = dict(keys(config.Config))
    del expected["script"]  # for tests
    expected["models_directory"] = Path("/var/lib/whisperd/models")
    loaded = config.load(SAMPLE)
    raw = yaml.safe_load(SAMPLE.read_text())
    found = {}
    for name, value in raw.items():
        found |= {f"{name}.{key}": None for key in value} if value and isinstance(value, dict) else {name: None}

    assert list(found) == list(expected)
    assert dict(keys_of(loaded)) | {"script": "ok"} == expected | {"script": "ok"}


def keys_of(instance, prefix=""):
    for name in type(instance).model_fields:
        value = getattr(instance, name)
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_every_key_of_the_sample_is_commented():
    """A line that sets something says what it is for."""
    lines = [line for line in SAMPLE.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]

    assert all("  # " in line or line.rstrip().endswith(":") for line in lines)


def test_every_key_is_described():
    """The description in the schema feeds the sample and the README."""

    def undescribed(model):
        for name, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                yield from undescribed(type(default))
            elif not field.description:
                yield name

    assert list(undescribed(config.Config)) == []


def test_a_configuration_cannot_be_changed_in_passing():
    """Frozen: a reload replaces it whole."""
    with pytest.raises(ValueError, match="frozen"):
        config.Config().pool.workers = 3
