"""Batched decoding with real weights and real speech, against openai-whisper's own decoding."""

from itertools import pairwise

import jiwer
import numpy as np
import pytest
import torch
import whisper
from pytest_audioeval.samples.registry import SampleRegistry
from support.options import options
from support.precision import precision
from whisper.decoding import DecodingOptions
from whisper.normalizers import BasicTextNormalizer
from whisper.timing import add_word_timestamps
from whisper.tokenizer import get_tokenizer

from whisperd.engine.weights.checkpoint import load
from whisperd.engine.weights.find import find
from whisperd.engine.whisper_batched.decoder import BatchedDecoder
from whisperd.engine.whisper_batched.window import BatchWindow

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),  # openai-whisper's beam search
    pytest.mark.filterwarnings("ignore:unclosed file .*whisper:ResourceWarning"),  # openai-whisper's own tables
]

CPU = torch.device("cpu")
THRESHOLDS = {"compression_ratio_threshold": 2.4, "logprob_threshold": -1.0, "no_speech_threshold": 0.6}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load(find("base", tmp_path_factory.mktemp("models")), "cpu").eval()


@pytest.fixture(scope="module")
def tiny_en(tmp_path_factory):
    return load(find("tiny.en", tmp_path_factory.mktemp("models")), "cpu").eval()


def clips():
    """(language, float32 samples, what is said), in an order that mixes the languages."""
    found = sorted(SampleRegistry().all(), key=lambda sample: (sample.name, sample.lang))
    return [(str(sample.lang), sample.audio_numpy(), sample.reference_text) for sample in found]


def recordings():
    """Sixteen windows of 1 to 30 s in nine languages: single clips, and clips of one language after each other."""
    found = clips()
    single = [(language, audio) for language, audio, _ in found[:10]]
    joined = []
    for language in ("en", "fr", "ja", "es", "pl", "hi"):
        pieces = [audio for spoken, audio, _ in found if spoken == language]
        joined.append((language, np.concatenate(pieces * 4)[: 16000 * 30]))
    return [*joined, *single]


def full_mel(audio):
    return whisper.log_mel_spectrogram(whisper.pad_or_trim(audio))


@pytest.fixture(scope="module")
def windows():
    return [(language, full_mel(audio)) for language, audio in recordings()]


def by_whisper(model, windows, **changes):
    return [model.decode(mel, DecodingOptions(language=language, fp16=False, **changes)) for language, mel in windows]


@pytest.fixture(scope="module")
def greedy(base, windows):
    return by_whisper(base, windows)


def assert_same(decoded, expected):
    assert [one.text for one in decoded] == [one.text for one in expected]
    assert [one.tokens for one in decoded] == [tuple(one.tokens) for one in expected]
    assert [one.avg_logprob for one in decoded] == pytest.approx([one.avg_logprob for one in expected], abs=1e-3)
    assert [one.no_speech_prob for one in decoded] == pytest.approx([one.no_speech_prob for one in expected], abs=1e-3)


@pytest.mark.parametrize("count", [1, 5, 16])
def test_greedy_tokens_are_those_of_openai_whisper(base, windows, greedy, count):
    """In fp32, real speech in mixed languages and lengths gives the same tokens in any batch."""
    which = {1: slice(4, 8), 5: slice(4, 14), 16: slice(16)}[count]
    decoder = BatchedDecoder(base, CPU, precision("fp32"), max_batch=count)

    decoded = decoder.decode([BatchWindow(options(language=language), mel=mel) for language, mel in windows[which]])

    assert_same(decoded, greedy[which])


def test_beam_tokens_are_those_of_openai_whisper(base, windows):
    """Five beams in a batch give the tokens that openai-whisper's give one window after the other."""
    some = windows[4:7]
    decoder = BatchedDecoder(base, CPU, precision("fp32"), max_batch=2)

    decoded = decoder.decode([BatchWindow(options(language=language, beam_size=5), mel=mel) for language, mel in some])

    assert_same(decoded, by_whisper(base, some, beam_size=5))


def test_an_english_only_model_works_the_same(tiny_en, windows):
    """Its start has neither language nor task, and another vocabulary."""
    some = [window for window in windows if window[0] == "en"]

    decoded = BatchedDecoder(tiny_en, CPU, precision("fp32")).decode(
        [BatchWindow(options(language=None), mel=mel) for _, mel in some]
    )

    assert_same(decoded, by_whisper(tiny_en, some))


@pytest.fixture(scope="module")
def heard_by_whisper(base):
    """What openai-whisper makes of each clip: (text, whether it came from sampling at a higher temperature)."""
    heard = [
        whisper.transcribe(base, audio, language=language, fp16=False, **THRESHOLDS) for language, audio, _ in clips()
    ]
    return [(one["text"], any(segment["temperature"] > 0 for segment in one["segments"])) for one in heard]


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_half_precision_short_encoder_and_fallback_cost_no_accuracy(base, heard_by_whisper, kind):
    """As it runs in production, the character error rate in all languages is near to that of openai-whisper."""
    found = clips()
    wanted = options(language=None, temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), **THRESHOLDS)
    decoder = BatchedDecoder(base, CPU, precision(kind), max_batch=16)

    decoded = decoder.decode([BatchWindow(wanted, audio=audio, language=language) for language, audio, _ in found])

    ours = [" ".join(segment.text for segment in one.segments) for one in decoded]
    theirs = [text for text, _ in heard_by_whisper]
    ours_sampled = [any(segment.temperature > 0 for segment in one.segments) for one in decoded]
    theirs_sampled = [sampled for _, sampled in heard_by_whisper]
    assert sum(ours_sampled) <= sum(theirs_sampled) + 2
    # Two texts are compared only if neither is a random sample (a clip that the model does not understand gives 1 or
    # 100 wrong letters by chance), and if neither has digits: one writes "one", another "1".
    kept = [
        n
        for n in range(len(found))
        if not ours_sampled[n] and not theirs_sampled[n] and not any(letter.isdigit() for letter in ours[n] + theirs[n])
    ]
    spoken = [found[n][2] for n in kept]
    assert len(kept) > 12
    assert (
        character_errors(spoken, [ours[n] for n in kept]) <= character_errors(spoken, [theirs[n] for n in kept]) + 0.03
    )


def character_errors(references, texts):
    normal = BasicTextNormalizer()
    return jiwer.cer([normal(reference) for reference in references], [normal(text) for text in texts])


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_silence_and_hum_give_no_text(base, kind):
    """Where nobody speaks, nothing is written."""
    seconds = np.arange(16000 * 20) / 16000
    quiet = [
        np.zeros(16000 * 30, np.float32),
        np.zeros(16000 * 5, np.int16),
        (0.001 * np.random.default_rng(1).standard_normal(16000 * 20)).astype(np.float32),
        (0.1 * np.sin(2 * np.pi * 50 * seconds)).astype(np.float32),
    ]
    wanted = options(temperature=(0.0, 0.4, 0.8), **THRESHOLDS)

    decoded = BatchedDecoder(base, CPU, precision(kind)).decode([BatchWindow(wanted, audio=audio) for audio in quiet])

    assert [one.segments for one in decoded] == [()] * len(quiet)


@pytest.mark.parametrize("beams", [None, 2])
def test_words_are_those_of_openai_whisper(base, windows, beams):
    """Start and end of each word are those of `add_word_timestamps`; they are in order and inside.

    The rows show where they looked while they were decoded, with timestamps among the text, so single words differ.
    """
    moved, differences = [], []
    for language, mel in (windows[n] for n in (0, 2, 3)):
        wanted = [options(language=language, word_timestamps=words, beam_size=beams) for words in (True, False)]
        decoder = BatchedDecoder(base, CPU, precision("fp32"))
        timed, plain = decoder.decode([BatchWindow(each, mel=mel) for each in wanted])
        words, expected = (
            [word for segment in timed.segments for word in segment.words],
            aligned(base, language, mel, plain),
        )
        assert len(words) > 10
        assert [word.text for word in words] == [each["word"] for each in expected]
        for word, each in zip(words, expected, strict=True):
            moved += [abs(word.start - each["start"]), abs(word.end - each["end"])]
            differences.append(abs(word.probability - each["probability"]))
        assert all(word.start <= word.end for word in words)
        assert all(first.end <= second.start for first, second in pairwise(words))
        for segment in timed.segments:
            assert segment.start <= segment.words[0].start
            assert segment.words[-1].end <= segment.end <= 30.0
    moved.sort()
    assert moved[len(moved) // 2] <= 0.021
    assert moved[len(moved) * 9 // 10] <= 0.1
    assert float(np.mean(differences)) <= 0.1


def aligned(model, language, mel, decoded):
    """The words that openai-whisper finds in a window that was decoded without them."""
    segments = [
        {"seek": 0, "start": each.start, "end": each.end, "text": each.text, "tokens": list(each.tokens)}
        for each in decoded.segments
    ]
    tokenizer = get_tokenizer(multilingual=True, num_languages=99, language=language, task="transcribe")
    add_word_timestamps(
        segments=segments, model=model, tokenizer=tokenizer, mel=mel, num_frames=3000, last_speech_timestamp=0.0
    )
    return [word for segment in segments for word in segment["words"]]
