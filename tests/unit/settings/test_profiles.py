"""From configuration, profiles and tickets to an order."""

import re

import pytest

from whisperd.core.display import Position
from whisperd.core.errors import ConfigError, InputError
from whisperd.core.job import Ticket
from whisperd.core.options import DiarizationOptions, OutputOptions, TranscribeOptions, VadOptions
from whisperd.settings import config
from whisperd.settings.profiles import matches, models, resolve, wants_diarization
from whisperd.settings.sections import SETTABLE


def settings(**changes):
    return config.validate(changes, source="test")


@pytest.mark.parametrize(
    ("glob", "name", "matched"),
    [
        ("french/**", "french/a.mp3", True),
        ("french/**", "french/x/y/a.mp3", True),
        ("french/**", "frenchman/a.mp3", False),
        ("french/**", "x/french/a.mp3", False),
        ("french/*", "french/a.mp3", True),
        ("french/*", "french/x/a.mp3", False),
        ("**/french/**", "x/y/french/a.mp3", True),
        ("**/french/**", "french/a.mp3", True),
        ("**/*.mp3", "a.mp3", True),
        ("*.mp3", "x/a.mp3", False),
        ("a?.[mp3]", "ab.[mp3]", True),
        ("**", "x/\udcff\n.mp3", True),
    ],
)
def test_globs_are_those_of_a_path(glob, name, matched):
    """`*` stays within a folder, `**` goes through any; everything else is itself."""
    assert matches(glob, name) is matched


def test_a_vocabulary_reaches_every_window_in_the_way_of_the_engine():
    """As hotwords where there are any, else before the prompt, which is then carried."""
    changes = {"transcription": {"vocabulary": ["Åsa", "Bodø"], "initial_prompt": "Hello."}}

    whisper = resolve(settings(**changes), "a").transcribe
    faster = resolve(settings(engine="faster-whisper", **changes), "a").transcribe

    assert (whisper.initial_prompt, whisper.carry_initial_prompt, whisper.hotwords) == ("Åsa, Bodø. Hello.", True, None)
    assert (faster.initial_prompt, faster.carry_initial_prompt, faster.hotwords) == ("Hello.", False, "Åsa, Bodø")


def test_hotwords_and_vocabulary_add_up():
    """For faster-whisper, which has both."""
    changes = {"engine": "faster-whisper", "transcription": {"hotwords": "one two", "vocabulary": ["three"]}}

    assert resolve(settings(**changes), "a").transcribe.hotwords == "one two, three"


@pytest.mark.parametrize("output", [{"max_line_width": 42}, {"max_words_per_line": 3}, {"highlight_words": True}])
def test_subtitles_that_are_shaped_have_words(output):
    """Shaping does nothing without times of words, and nobody should have to know that."""
    assert resolve(settings(output=output), "a").transcribe.word_timestamps


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"transcription": {"word_timestamps": False}}, False),
        ({"transcription": {"task": "translate"}}, False),
        ({"decoding": "sequential"}, False),
        ({"decoding": "sequential", "transcription": {"word_timestamps": True}}, True),
        ({"engine": "faster-whisper"}, False),
        ({"engine": "faster-whisper", "output": {"highlight_words": True}}, True),
    ],
)
def test_words_have_times_where_these_cost_next_to_nothing(changes, expected):
    """Elsewhere they are made if somebody asks for them, or for subtitles that need them."""
    assert resolve(settings(**changes), "a").transcribe.word_timestamps is expected


def test_profiles_that_contradict_each_other_fail_the_upload():
    """Each is right by itself; together they are not, and which would be left out is not ours to guess."""
    both = settings(profiles={"**": {"beam_size": 5, "patience": 2.0}, "a/**": {"beam_size": None}})

    with pytest.raises(
        InputError, match=r"profiles \*\*, a/\*\* contradict each other: patience: needs beam_size"
    ) as caught:
        resolve(both, "a/x.mp3")

    assert caught.value.job_code == "bad_options"
    assert resolve(both, "b/x.mp3").transcribe.patience == 2.0


def test_everything_that_is_wrong_with_a_ticket_is_said_at_once():
    """In the order of its lines; a rule between two keys is told at the one that breaks it."""
    ticket = Ticket(
        "a.yaml",
        values={
            "patience": 1.0,
            "task": "sing",
            "formats": ("txt", "pdf"),
            "speakers": ("a\nb",),
            "language": "klingon",
        },
        positions={
            key: Position(number, 1)
            for number, key in enumerate(("patience", "task", "formats", "speakers", "language"), 1)
        },
    )
    with pytest.raises(InputError) as caught:
        resolve(settings(tickets={"allow": ["patience", "task", "formats", "speakers", "language"]}), "a", [ticket])

    said = caught.value.message.removeprefix("ticket a.yaml: ").split("; ")
    assert [reason.split(": ")[:2] for reason in said] == [
        ["line 1, column 1", "patience"], ["line 2, column 1", "task"], ["line 3, column 1", "formats.1"],
        ["line 4, column 1", "speakers.0"], ["line 5, column 1", "language"],
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["initial_prompt", "vocabulary"])
def test_a_prompt_holds_no_words_that_steer_the_model(key):
    """openai-whisper's tokenizer raises on them, in the middle of a batch."""
    value = "<|endoftext|>" if key == "initial_prompt" else ("<|nospeech|>",)

    with pytest.raises(InputError, match=f"{key}.*must not contain"):
        resolve(settings(), "a", [Ticket("a.yaml", values={key: value})])


A = "a/x.mp3"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "turbo"}, lambda spec: spec.model),
        ({"language": "fr"}, lambda spec: spec.transcribe.language),
        ({"task": "translate"}, lambda spec: spec.transcribe.task),
        ({"beam_size": 5}, lambda spec: spec.transcribe.beam_size),
        ({"initial_prompt": "Dear Sir,"}, lambda spec: spec.transcribe.initial_prompt),
        ({"vocabulary": ["Bodø"]}, lambda spec: spec.transcribe.initial_prompt),
        ({"vad.enabled": False}, lambda spec: spec.vad.enabled),
        ({"vad.threshold": 0.6}, lambda spec: spec.vad.threshold),
        ({"word_timestamps": False}, lambda spec: spec.transcribe.word_timestamps),
        ({"formats": ["srt"]}, lambda spec: spec.output.formats),
        ({"max_line_width": 42}, lambda spec: spec.output.max_line_width),
        ({"max_line_count": 2, "max_line_width": 42}, lambda spec: spec.output.max_line_count),
        ({"max_words_per_line": 7}, lambda spec: spec.output.max_words_per_line),
        ({"highlight_words": True}, lambda spec: spec.output.highlight_words),
        ({"channels": "split"}, lambda spec: spec.media.channels),
        ({"tracks": "all"}, lambda spec: spec.media.tracks),
        ({"tracks": 2}, lambda spec: spec.media.tracks),
        ({"speakers": ["Ann"]}, lambda spec: spec.media.speakers),
        ({"diarization.enabled": True}, lambda spec: spec.diarization.enabled),
        ({"diarization.speakers": 2}, lambda spec: spec.diarization.bounds),
        ({"diarization.max_speakers": 3}, lambda spec: spec.diarization.bounds),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_changes_a_transcript_can_be_set_by_a_profile(changes, told):
    """For its folder alone, and it is what the worker is told."""
    config = settings(profiles={"a/**": changes})
    here, elsewhere = resolve(config, A), resolve(config, "b/x.mp3")

    assert told(here) != told(elsewhere)
    assert resolve(settings(), A).changes == elsewhere.changes == {}


def test_every_key_of_the_sections_that_shape_a_transcript_can_be_set_by_a_profile():
    """One that is added later as well."""
    fields = {
        *TranscribeOptions.model_fields,
        *OutputOptions.model_fields,
        *(f"vad.{field}" for field in VadOptions.model_fields),
        *(f"diarization.{field}" for field in DiarizationOptions.model_fields),
    }

    assert fields < SETTABLE.keys()


def test_a_ticket_says_no_more_than_the_configuration_allows():
    """What it may set, and which models there are, is the operator's to say."""
    config = settings(profiles={"b/**": {"model": "turbo"}}, tickets={"allow": ["model"]})

    with pytest.raises(InputError, match=r"model: must be one of base, turbo; task: may not be set by a ticket"):
        resolve(config, A, [Ticket("a.yaml", values={"model": "large-v3", "task": "translate"})])
    assert resolve(config, A, [Ticket("a.yaml", values={"model": "turbo"})]).model == "turbo"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"min_speakers": 3, "max_speakers": 2}, "max_speakers: must be at least min_speakers, which is 3 (given: 2)"),
        ({"speakers": 0}, "speakers: input should be greater than or equal to 1 (given: 0)"),
        ({"speakers": 21}, "speakers: input should be less than or equal to 20 (given: 21)"),
        ({"speakers": "two"}, "speakers: input should be a valid integer (given: 'two')"),
        ({"speakers": 4, "max_speakers": 3}, "speakers: must be within min_speakers and max_speakers"),
        ({"speakers": 1, "min_speakers": 2}, "speakers: must be within min_speakers and max_speakers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_number_of_people_that_cannot_be_is_refused(values, reason):
    """With the key, what is wrong, and what was given."""
    ticket = Ticket("a.yaml", values={f"diarization.{key}": value for key, value in values.items()})

    with pytest.raises(InputError, match=re.escape(f"diarization.{reason}")):
        resolve(settings(), "a", [ticket])


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ({}, (1, None)),
        ({"min_speakers": 2}, (2, None)),
        ({"min_speakers": 2, "max_speakers": 4}, (2, 4)),
        ({"min_speakers": 2, "max_speakers": 4, "speakers": 3}, (3, 3)),
    ],
    ids=str,
)
def test_the_exact_number_of_people_wins_over_bounds(values, bounds):
    """A ticket can be more exact than its folder."""
    assert DiarizationOptions(**values).bounds == bounds


@pytest.mark.parametrize(
    ("sections", "wanted"),
    [
        ({}, False),
        ({"diarization": {"enabled": True}}, True),
        ({"profiles": {"talks/**": {"diarization.enabled": True}}}, True),
        ({"profiles": {"talks/**": {"diarization.enabled": False}}}, False),
    ],
)
def test_the_weights_of_diarization_are_wanted_where_it_may_be_used(sections, wanted):
    """By the configuration or by one of its profiles."""
    assert wants_diarization(settings(**sections)) is wanted


def test_the_models_are_those_that_the_configuration_names():
    """Each once, the usual one first."""
    named = settings(profiles={"a/**": {"model": "turbo"}, "b/**": {"model": "base"}, "c/**": {"model": "turbo"}})

    assert models(named) == ("base", "turbo")


def test_problems_of_profiles_are_told_beside_those_of_other_sections():
    """One look at the file mends all of it."""
    with pytest.raises(ConfigError) as caught:
        settings(pool={"workers": 0}, profiles={"/a": {}, "b/**": {"model": ""}, "c/**": {"vad.threshold": 2}})

    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        "pool.workers", "profiles./a", "profiles.b/**.model", "profiles.c/**.vad.threshold",
    ]  # fmt: skip


def test_no_key_of_a_ticket_can_talk_to_a_terminal_or_fill_the_log():
    """It is shown escaped and cut."""
    with pytest.raises(InputError) as caught:
        resolve(settings(), "a", [Ticket("a.yaml", values={"\x1b[2J" + "x" * 5000: 1})])

    assert "\\x1b[2J" in caught.value.message
    assert len(caught.value.message) < 200
