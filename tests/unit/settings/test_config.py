"""The configuration: one schema, every problem at once."""

from __future__ import annotations

import re
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
        output: {formats: [txt, doc], layout: raw, max_line_count: 2}
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
        ("device: gpu", "device", "cuda:N"),
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


def message(tmp_path, text):
    path = tmp_path / "whisperd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return str(caught.value).replace(str(path), "whisperd.yaml").splitlines()


def test_six_mistakes_are_said_at_once_each_with_its_place_and_the_key_that_was_meant(tmp_path):
    """In the order of the file: a section, a key, a value, a key of another section, of a profile, and one there twice."""
    said = message(
        tmp_path,
        "model: base\n"
        "transcripton:\n"
        "  language: fr\n"
        "pool: {worker: 2, threads: -1}\n"
        "output:\n"
        "  beam_size: 5\n"
        "  formats: [txt, srtt]\n"
        "profiles:\n"
        "  french/**:\n"
        "    langage: fr\n"
        "model: tiny\n",
    )

    assert said == [
        "whisperd.yaml: 7 problems",
        "  line 2, column 1: transcripton: unknown key (did you mean transcription?)",
        "  line 4, column 8: pool.worker: unknown key (did you mean pool.workers?)",
        "  line 4, column 28: pool.threads: input should be greater than or equal to 1 (given: -1)",
        "  line 6, column 3: output.beam_size: unknown key (did you mean transcription.beam_size?)",
        *[line for line in said if line.startswith("  line 7, column 18: output.formats.1: input should be 'txt', ")],
        "  line 10, column 5: profiles.french/**.langage: unknown key (did you mean language?)",
        "  line 11, column 1: model: is there twice",
    ]
    assert said[5].endswith("(given: 'srtt') (did you mean srt?)")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pool:\n  workers: 1\n bad: 2\n", "  line 3, column 2: not valid YAML: "),
        ("pool: &a\n  workers: &b [*b]\n", "  line 2, column 12: not valid YAML: this contains itself"),
        ("a: !!python/object/apply:os.system [ls]\n", "  line 1, column 4: not valid YAML: could not determine"),
        ("profiles:\n  a/**: {formats: [txt, doc]}\n", "  line 2, column 19: profiles.a/**.formats.1: "),
        ("transcription: {language: frensh}\n", "  line 1, column 27: transcription.language: must be a language"),
        ("1: x\n? [a, b]\n: y\n", "  line 2, column 3: not valid YAML: found unhashable key"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_line_and_column(tmp_path, text, place):
    """Whatever it is that is wrong, and however it is written."""
    assert message(tmp_path, text)[1].startswith(place)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("wokers: 2", "pool.workers"),
        ("workers: 2", "pool.workers"),
        ("pool: {Workers: 2}", "pool.workers"),
        ("language: fr", "transcription.language"),
        ("vad: {treshold: 0.5}", "vad.threshold"),
        ("vad: {enable: true}", "vad.enabled"),
        ("transcription: {language: frensh}", "french"),
        ("transcription: {task: Translate}", "translate"),
    ],
)
def test_what_was_meant_is_named(tmp_path, wrong, meant):
    """The same key of another section, or the most similar word."""
    (problem,) = problems(tmp_path, wrong)

    assert f"(did you mean {meant}?)" in problem


def test_nothing_is_suggested_for_what_is_like_no_key(tmp_path):
    """A wrong guess would be worse than none."""
    assert problems(tmp_path, "zzyzx: 1") == ["zzyzx: unknown key"]


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


def uncommented(text):
    """The sample with every key set; what is prose has a space and a word after its #."""
    return re.sub(r"(?m)^#(?! \S)", "", text)


def test_the_sample_holds_every_key_with_its_default(tmp_path):
    """config/whisperd.yaml is documentation: it must not drift from the schema."""
    expected = dict(keys(config.Config))
    del expected["script"]  # for tests
    expected["models_directory"] = Path("/var/lib/whisperd/models")
    path = tmp_path / "whisperd.yaml"
    path.write_text(uncommented(SAMPLE.read_text()))
    loaded = config.load(path)
    raw = yaml.safe_load(path.read_text())
    found = {}
    for name, value in raw.items():
        found |= {f"{name}.{key}": None for key in value} if value and isinstance(value, dict) else {name: None}

    assert list(found) == list(expected)
    assert dict(keys_of(loaded)) | {"script": "ok"} == expected | {"script": "ok"}


def test_the_sample_sets_nothing():
    """Whoever leaves it as it is follows the defaults of later versions."""
    assert config.read(SAMPLE).values == {}


def keys_of(instance, prefix=""):
    for name in type(instance).model_fields:
        value = getattr(instance, name)
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_every_key_of_the_sample_is_commented():
    """A line that sets something says what it is for."""
    text = uncommented(SAMPLE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    assert all("  # " in line or line.rstrip().endswith(":") for line in lines)


@pytest.mark.parametrize(
    "notices",
    [
        "apprise: ['tgram://bot-token/chat extra']",
        "apprise: tgram://bot-token/chat",
        "apprise: [-bot-token]",
        "apprise: ['tgram:/bot-token chat']",
        "apprise: [{tgram://bot-token/chat: x}]",
        "apprise: {tgram://bot-token/chat: x}",
        "'tgram://bot-token/chat': x",
        "webhooks: {x: {url: 'ftp://host/bot-token', secret: /s}}",
        "webhooks: {x: {url: 'https://me:bot-token@host/', secret: /s}}",
        "webhooks: {x: {url: 'https://host/a b?bot-token', secret: /s}}",
        "webhooks: {x: bot-token}",
        "webhooks: [bot-token]",
        "webhooks: [{url: 'https://host/bot-token'}]",
        "webhooks: {'https://host/bot-token': {url: 'https://host/', secret: /s}}",
        "webhooks: {x: {url: 'https://host/', secret: [bot-token]}}",
        "smtp_host: 'smtp://me:bot-token@host'",
        "smtp_password: bot-token",
        "{smtp_host: h, mail_from: a@b.org, smtp_security: none, smtp_user: me, smtp_password: bot-token}",
        "on_failed: [curl, -H, 'Authorization: bot-token']",
        "on_failed: curl -H 'Authorization: bot-token'",
        "[bot-token]",
        "bot-token",
    ],
)
def test_no_mistake_prints_a_token(tmp_path, notices):
    """The errors are in the journal and on the screens of those who help."""
    written = notices if notices[0] in "{[b" else f"{{{notices}}}"
    found = problems(tmp_path, f"notices: {written}")

    assert found != []
    assert "bot-token" not in str(found)


def test_what_a_mistake_is_about_is_still_told(tmp_path):
    """The scheme and host of an address, the program, and the words to choose from."""
    written = "apprise: ['tgram://bot-token/chat extra'], on_failed: [curl, x], webhooks: {x: {url: 'https://host/ ', secret: /s, events: [complete]}}"
    found = problems(tmp_path, f"notices: {{{written}}}")

    for given in ("'tgram://***'", "('curl', '***')", "'https://host/***'", "'complete') (did you mean completed?)"):
        assert any(given in problem for problem in found), given


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
