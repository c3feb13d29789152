"""The engine faster-whisper with real weights and real speech."""

from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import pytest
import whisper
from pytest_audioeval.samples.registry import SampleRegistry
from support.options import options
from whisper.normalizers import BasicTextNormalizer

from whisperd.core.errors import InputError
from whisperd.core.options import EngineOptions
from whisperd.engine.api import AudioWindow, create
from whisperd.engine.weights.checkpoint import load
from whisperd.engine.weights.find import find

pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]

LANGUAGES = ("en", "es", "fr", "it", "pt")


def engine(model, **changes):
    return create(EngineOptions("faster-whisper", model, Path("no-models-here"), "cpu", threads=1, **changes))


@pytest.fixture(scope="module")
def base():
    return engine("base", batch_size=6)


@pytest.fixture(scope="module")
def tiny_en():
    return engine("tiny.en")


@pytest.fixture(scope="module")
def clips():
    """One clip a language: (language, int16 samples, what is said), the longest there is."""
    longest = {}
    for sample in SampleRegistry().all():
        language, audio = str(sample.lang), (sample.audio_numpy() * 32767).astype(np.int16)
        if language in LANGUAGES and len(audio) > len(longest.get(language, ("", ()))[1]):
            longest[language] = (language, audio, sample.reference_text)
    return [longest[language] for language in LANGUAGES]


def decode(engine, windows):
    """All windows in the order given."""
    handles = [engine.submit(window) for window in windows]
    results = {}
    while engine.pending:
        results.update(engine.step())
    return [results[handle] for handle in handles]


def text(decoded):
    return "".join(segment.text for segment in decoded.segments).strip()


def test_windows_of_several_languages_and_tasks_share_a_batch(base, clips):
    """Each in the language that is heard in it, with few errors; and one of them into English besides."""
    windows = [AudioWindow(audio, options(language=None), None) for _, audio, _ in clips]
    spanish = clips[1]
    windows.append(AudioWindow(spanish[1], options(task="translate"), "es"))

    *decoded, translated = decode(base, windows)

    normal = BasicTextNormalizer()
    texts = [(text(one), reference) for one, (_, _, reference) in zip(decoded, clips, strict=True)]
    # On some processors it writes "one", on others "1": what is counted aloud compares nothing.
    kept = [(heard, reference) for heard, reference in texts if not any(letter.isdigit() for letter in heard)]
    rates = [jiwer.cer(normal(reference), normal(heard)) for heard, reference in kept]
    assert [one.language for one in decoded] == list(LANGUAGES)
    assert rates
    assert max(rates) < 0.3, texts
    assert text(translated)
    assert text(translated) != text(decoded[1])
    assert translated.language_probability is None


def test_parts_of_a_window_are_heard_in_their_own_languages(base, clips):
    """The encoder hears both; what is not accepted is not decoded, and only the language is told where no more is asked."""
    pause = np.zeros(8_000, np.int16)
    (first, one, _), (second, other, _) = clips[:2]
    audio = np.concatenate([one, pause, other])
    parts = ((0, len(one)), (len(one) + len(pause), len(audio)))
    either = options(language=None, languages=(first, second))
    windows = [
        AudioWindow(audio, either, first, parts),
        AudioWindow(audio, either, first, parts, lambda _: False),
        AudioWindow(other, either, None, only_language=True),
    ]

    decoded, refused, heard = decode(base, windows)

    assert [max(chances, key=chances.get) for chances in decoded.heard] == [first, second]
    assert [one.is_decoded for one in (decoded, refused, heard)] == [True, False, False]
    assert refused.heard == decoded.heard
    assert heard.heard[0][second] > 0.8
    assert set(heard.heard[0]) <= {first, second}


def test_a_window_does_not_depend_on_the_others(base, clips):
    """Alone or in company, the text is the same."""
    windows = [AudioWindow(audio, options(), language) for language, audio, _ in clips]

    together = [text(one) for one in decode(base, windows)]

    assert [text(decode(base, [window])[0]) for window in windows] == together


def test_words_are_in_order_and_inside_their_segment(base, clips):
    """And they are those of the text."""
    language, audio, _ = clips[0]
    (decoded,) = decode(base, [AudioWindow(audio, options(word_timestamps=True), language)])

    words = [word for segment in decoded.segments for word in segment.words]
    assert "".join(word.text for word in words).strip() == text(decoded)
    assert all(word.start <= word.end for word in words)
    assert all(first.end <= second.start for first, second in pairwise(words))
    for segment in decoded.segments:
        assert 0 <= segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end <= len(audio) / 16_000


def test_only_windows_that_fail_are_decoded_again(base, clips):
    """A threshold that nothing meets takes all temperatures; the other window of the batch takes one."""
    (language, audio, _), (other, clear, _) = clips[:2]
    doomed = options(logprob_threshold=-1e-6, temperature=(0.0, 0.2, 0.4))
    fine = options(temperature=(0.0, 0.2, 0.4))

    failed, passed = decode(base, [AudioWindow(audio, doomed, language), AudioWindow(clear, fine, other)])

    assert (failed.attempts, passed.attempts) == (3, 1)
    assert passed.temperature == 0.0


def test_improbable_text_over_silence_is_dropped(base):
    """By the two thresholds together, and all of the window counts as dealt with."""
    wanted = options(no_speech_threshold=0.6, logprob_threshold=-0.5, temperature=(0.0, 0.4))

    (decoded,) = decode(base, [AudioWindow(np.zeros(16_000 * 20, np.int16), wanted, "en")])

    assert (decoded.silent, decoded.segments, decoded.covered_seconds) == (True, (), 20.0)


@pytest.mark.filterwarnings("ignore:unclosed file .*tiktoken:ResourceWarning")
def test_in_fp32_it_is_openai_whisper(clips):
    """Text, mean log-probability and probability of silence are those of `decode`: spectrogram, prompt and rules agree."""
    audio = clips[0][1]
    model = load(find("tiny.en", Path("no-models-here")), "cpu")
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(audio.astype(np.float32) / 32768))
    expected = model.decode(mel, whisper.DecodingOptions(language="en", fp16=False))

    (decoded,) = decode(engine("tiny.en", compute_type="fp32"), [AudioWindow(audio, options(), "en")])

    assert text(decoded) == expected.text
    assert decoded.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)
    assert decoded.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-3)


def test_hotwords_and_prompt_reach_the_window(tiny_en, clips):
    """What is expected is heard: the spelling of the prompt is that of the text."""
    audio = clips[0][1]
    (plain,) = decode(tiny_en, [AudioWindow(audio, options(), "en")])
    wanted = options(initial_prompt="ALL IS WRITTEN IN CAPITALS HERE. " * 3)
    (shouted,) = decode(tiny_en, [AudioWindow(audio, wanted, "en")])
    wanted = options(hotwords="ALL IS WRITTEN IN CAPITALS HERE. " * 3)
    (hot,) = decode(tiny_en, [AudioWindow(audio, wanted, "en")])

    assert text(shouted) != text(plain)
    assert text(hot) == text(shouted)


def test_a_withdrawn_window_is_forgotten(tiny_en, clips):
    """The job went back to the supervisor."""
    audio = clips[0][1]
    gone, kept = (tiny_en.submit(AudioWindow(audio, options(), "en")) for _ in range(2))
    tiny_en.withdraw(gone)
    given = []
    while tiny_en.pending:
        given += [handle for handle, _ in tiny_en.step()]

    assert given == [kept]


def test_an_english_model_refuses_other_languages(tiny_en):
    """Before any audio is decoded."""
    with pytest.raises(InputError, match=r"tiny\.en does not know"):
        tiny_en.check(options(language="fr"))
    with pytest.raises(InputError, match="not in this model's vocabulary"):
        tiny_en.check(options(suppress_tokens="99999999"))


def test_it_says_what_it_is(base):
    """As sidecar and logs will name it."""
    info = base.info

    assert (info.engine, info.model, info.device, info.compute_type) == ("faster-whisper", "base", "cpu", "int8")
    assert base.capacity == 6
