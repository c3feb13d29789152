"""What comes of natural speech and real weights: `base` in five languages, `tiny.en` in English."""

import functools
import re
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import pytest
import whisper
from pytest_audioeval.samples.registry import SampleRegistry
from support.options import options
from whisper.normalizers import BasicTextNormalizer

from whisperd.core.errors import BootError
from whisperd.core.options import EngineOptions
from whisperd.engine.api import SAMPLE_RATE, create
from whisperd.engine.whisper_sequential import arguments_of

pytestmark = pytest.mark.model

OPTIONS = options(
    language=None,
    condition_on_previous_text=True,
    temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    compression_ratio_threshold=2.4,
    logprob_threshold=-1.0,
    no_speech_threshold=0.6,
)
PAUSE = np.zeros(SAMPLE_RATE // 2, dtype=np.int16)
COUNTING = {"en_counting", "es_conteo", "fr_comptage", "it_conteggio", "pt_contagem"}


@functools.cache
def engine(model):
    try:
        return create(
            EngineOptions(
                "openai-whisper", model, Path("no-models-here"), device="cpu", threads=2, decoding="sequential"
            )
        )
    except BootError as error:
        pytest.skip(f"no weights: {error}")


@functools.cache
def speech(*names):
    """Clips of the package `pytest-audioeval`, one after the other: samples and text."""
    catalog = SampleRegistry()
    clips = [getattr(catalog, name) for name in names]
    pieces = [piece for clip in clips for piece in ((clip.audio_numpy() * 32767).astype(np.int16), PAUSE)]
    return np.concatenate(pieces), " ".join(clip.reference_text for clip in clips)


@functools.cache
def heard(*names):
    """Language detected, words timed."""
    audio, _ = speech(*names)
    options = OPTIONS.evolve(word_timestamps=True)
    return engine("base").transcribe(audio, options, lambda seconds: None)


def words_of(text):
    """As WER counts them: no case, no punctuation, numbers up to ten as digits, whether written out or not."""
    digits = {}
    for name in COUNTING:
        _, count = speech(name)
        digits |= {word.strip(".").lower(): str(number) for number, word in enumerate(count.split(), 1)}
    words = BasicTextNormalizer()(text).split()
    return " ".join(digits.get(word, word) for word in words)


SPEECH = [
    # Measured with `base`, greedy, fp32: 0.00, 0.19, 0.17, 0.05, 0.05. The clips are short and the pangrams full of
    # rare words. English without its counting, which comes out as one number: 12345678910.
    pytest.param("en", ("en_hello_world", "en_quick_brown_fox"), 0.10, id="en"),
    pytest.param("es", ("es_conteo", "es_hola_mundo", "es_pangrama"), 0.30, id="es"),
    pytest.param("fr", ("fr_bonjour_monde", "fr_comptage", "fr_pangrama"), 0.30, id="fr"),
    pytest.param("it", ("it_ciao_mondo", "it_conteggio", "it_pangrama"), 0.20, id="it"),
    pytest.param("pt", ("pt_contagem", "pt_ola_mundo", "pt_pangrama"), 0.20, id="pt"),
]


@pytest.mark.parametrize(("language", "clips", "bound"), SPEECH)
def test_speech_becomes_its_text(language, clips, bound):
    """The language is found, and few words are wrong."""
    _, reference = speech(*clips)
    transcript = heard(*clips)
    rate = jiwer.wer(words_of(reference), words_of(transcript.text))

    assert transcript.language == language
    assert transcript.language_probability > 0.9
    assert rate <= bound, transcript.text
    assert "".join(segment.text for segment in transcript.segments) == transcript.text


@pytest.mark.parametrize(("language", "clips", "bound"), SPEECH)
def test_words_have_times(language, clips, bound):
    """In order, inside their segment, inside the audio, and together the segment's text."""
    audio, _ = speech(*clips)
    segments = heard(*clips).segments
    words = [word for segment in segments for word in segment.words]

    assert len(words) > 8
    assert all(word.start <= word.end and 0 < word.probability <= 1 for word in words)
    assert all(before.end <= after.start for before, after in pairwise(words))
    assert words[-1].end <= len(audio) / SAMPLE_RATE
    for segment in segments:
        assert all(segment.start <= word.start and word.end <= segment.end for word in segment.words)
        assert "".join(word.text for word in segment.words) == segment.text


def test_words_are_where_they_were_spoken():
    """To a fifth of a second: the second clip begins after the first one and its pause."""
    first, _ = speech("en_hello_world")
    words = {
        re.sub(r"\W", "", word.text).lower(): word for s in heard(*SPEECH[0].values[1]).segments for word in s.words
    }

    assert words["world"].end < len(first) / SAMPLE_RATE
    assert len(first) / SAMPLE_RATE - 0.2 < words["quick"].start < words["dog"].end


def test_translation_gives_english():
    """The words of another language, in English."""
    audio, _ = speech("fr_bonjour_monde", "fr_comptage", "fr_pangrama")

    transcript = engine("base").transcribe(audio, OPTIONS.evolve(language="fr", task="translate"), lambda seconds: None)

    assert "hello world" in words_of(transcript.text)
    assert "judge" in words_of(transcript.text)
    assert transcript.language == "fr"


def test_silence_is_skipped_where_the_thresholds_say_so():
    """And counts as done. With its default of -1.0 `base` is sure enough of one " you" in 30 s of nothing."""
    options = OPTIONS.evolve(language="en", logprob_threshold=-0.5)
    reports = []

    transcript = engine("base").transcribe(np.zeros(31 * SAMPLE_RATE, dtype=np.int16), options, reports.append)

    assert (transcript.text, transcript.segments) == ("", ())
    assert [seconds for seconds in dict.fromkeys(reports) if seconds] == [30.0, 31.0]


def test_the_result_is_openai_whispers_own():
    """Token for token and word for word what `whisper.transcribe` makes of the same samples, over several windows."""
    words, _ = speech("en_hello_world", "en_quick_brown_fox")
    audio = np.concatenate([words, np.zeros(24 * SAMPLE_RATE, dtype=np.int16), words])
    english = engine("tiny.en")
    options = OPTIONS.evolve(language="en", word_timestamps=True, temperature=(0.0,))
    transcript = english.transcribe(audio, options, lambda seconds: None)

    expected = whisper.transcribe(
        english._model, audio.astype(np.float32) / 32768.0, fp16=False, **arguments_of(options)
    )

    assert len({segment.seek for segment in transcript.segments}) > 1
    assert transcript.text == expected["text"]
    assert [(list(s.tokens), s.seek) for s in transcript.segments] == [
        (s["tokens"], s["seek"]) for s in expected["segments"]
    ]
    assert [(w.text, w.start, w.end) for s in transcript.segments for w in s.words] == [
        (w["word"], w["start"], w["end"]) for s in expected["segments"] for w in s["words"]
    ]


def test_an_english_model_hears_english():
    """`tiny.en`, without detection."""
    audio, reference = speech("en_hello_world", "en_quick_brown_fox")

    transcript = engine("tiny.en").transcribe(audio, OPTIONS, lambda seconds: None)

    assert transcript.language == "en"
    assert jiwer.wer(words_of(reference), words_of(transcript.text)) <= 0.1, transcript.text
