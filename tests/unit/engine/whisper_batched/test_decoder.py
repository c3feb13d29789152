"""Batched decoding on a tiny random model, against openai-whisper's own decoding of one window after the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.options import options
from support.precision import precision
from support.tiny_model import tiny_model
from whisper.decoding import DecodingOptions

from whisperd.core.errors import InputError, OutOfMemory
from whisperd.engine.whisper_batched.decoder import BatchedDecoder
from whisperd.engine.whisper_batched.window import BatchWindow

# openai-whisper's own beam search, under a new numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")

CPU = torch.device("cpu")
LANGUAGES = ("en", "de", "ja", "sw", "fr")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """These products are too small to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model():
    return tiny_model(text_context=32)


def mel(seed, frames=100):
    return torch.randn(80, frames, generator=torch.Generator().manual_seed(seed))


def mixed(count, **changes):
    """Windows of different languages, tasks and prompt lengths."""
    return [
        BatchWindow(
            options(language=LANGUAGES[n % 5], task="translate" if n % 3 == 1 else "transcribe", **changes),
            mel=mel(n),
            prompt=tuple(range(1000, 1000 + 4 * (n % 4))),
        )
        for n in range(count)
    ]


def by_whisper(model, window):
    """What openai-whisper makes of one window."""
    wanted = window.options
    return model.decode(
        window.mel,
        DecodingOptions(
            language=wanted.language,
            task=wanted.task,
            beam_size=wanted.beam_size,
            patience=wanted.patience,
            length_penalty=wanted.length_penalty,
            prompt=list(window.prompt),
            prefix=list(window.prefix),
            fp16=False,
        ),
    )


def assert_same(decoded, expected):
    assert [one.tokens for one in decoded] == [tuple(one.tokens) for one in expected]
    assert [one.text for one in decoded] == [one.text for one in expected]
    for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
        ours, theirs = ([getattr(one, name) for one in each] for each in (decoded, expected))
        assert ours == pytest.approx(theirs, abs=1e-4), name


@pytest.mark.parametrize("count", [1, 5, 16])
def test_greedy_decoding_is_that_of_openai_whisper(model, count):
    """Same tokens, text and figures for windows of mixed languages, tasks and prompts in one batch."""
    windows = mixed(count)

    decoded = BatchedDecoder(model, CPU, precision("fp32"), max_batch=count).decode(windows)

    assert_same(decoded, [by_whisper(model, window) for window in windows])


@pytest.mark.parametrize(
    "changes",
    [
        {"beam_size": 1},
        {"beam_size": 5},
        {"beam_size": 3, "patience": 2.0},
        {"beam_size": 4, "patience": 0.5},
        {"beam_size": 5, "length_penalty": 0.8},
    ],
    ids=["one beam", "five", "patient", "impatient", "length penalty"],
)
def test_beam_search_is_that_of_openai_whisper(model, changes):
    """Same tokens for beams, patience and length penalty, in a batch that openai-whisper cannot decode at all."""
    windows = mixed(5, **changes)

    decoded = BatchedDecoder(model, CPU, precision("fp32"), max_batch=4).decode(windows)

    assert_same(decoded, [by_whisper(model, window) for window in windows])


def test_a_prefix_begins_the_text(model):
    """Given tokens stand before what is sampled, and are not part of it, as in openai-whisper."""
    window = BatchWindow(options(), mel=mel(1), prefix=(400, 500, 600))

    decoded = BatchedDecoder(model, CPU, precision("fp32")).decode([window])

    assert_same(decoded, [by_whisper(model, window)])


def test_languages_are_detected_window_by_window(model):
    """Language and probability are those of openai-whisper's `detect_language`, for transcription too."""
    windows = [BatchWindow(options(language=None), mel=mel(n)) for n in range(4)]
    decoder = BatchedDecoder(model, CPU, precision("fp32"))

    decoded = decoder.decode(windows)

    _, expected = model.detect_language(torch.stack([window.mel for window in windows]))
    assert [one.language for one in decoded] == [max(chances, key=chances.get) for chances in expected]
    assert [one.language_probability for one in decoded] == pytest.approx([max(c.values()) for c in expected], abs=1e-5)
    for ours, theirs in zip(decoder.detect_languages(windows), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_language_of_a_part_is_that_of_its_frames_alone(model):
    """A part of all frames is heard as the whole window; the text is the same as if nobody had listened."""
    whole = 16000
    plain = [BatchWindow(options(language="de"), mel=mel(n)) for n in range(2)]
    listening = [replace(window, parts=((0, whole), (0, whole // 3))) for window in plain]
    decoder = BatchedDecoder(model, CPU, precision("fp32"))

    decoded = decoder.decode(listening)

    for one, expected, bare in zip(decoded, decoder.detect_languages(plain), decoder.decode(plain), strict=True):
        heard, part = one.heard
        assert heard == {code: pytest.approx(chance, abs=1e-3) for code, chance in expected.items() if chance >= 0.01}
        assert part != heard
        assert replace(one, heard=()) == bare


def test_what_is_not_accepted_is_not_decoded(model):
    """The others of the batch are decoded as if they were alone."""
    asked = []

    def refuse(heard):
        asked.append(heard)
        return False

    windows = mixed(4)
    windows[1] = replace(windows[1], parts=((0, 16000),), accepts=refuse)
    decoder = BatchedDecoder(model, CPU, precision("fp32"))

    decoded = decoder.decode(windows)

    assert [one.is_decoded for one in decoded] == [True, False, True, True]
    assert asked == [decoded[1].heard]
    assert decoded[1].segments == ()
    assert_same([decoded[0], *decoded[2:]], [by_whisper(model, windows[n]) for n in (0, 2, 3)])


def test_only_the_language_is_told_where_no_more_is_asked(model):
    """Nothing is decoded; a window that was withdrawn is not told of; after a restart nothing is lost."""
    decoder = BatchedDecoder(model, CPU, precision("fp32"), max_batch=2)
    windows = [BatchWindow(options(language=None), mel=mel(n), only_language=True) for n in range(4)]
    handles = [decoder.submit(window) for window in windows]
    decoder.withdraw(handles[1])
    decoder.restart()
    results = {}
    while decoder.pending:
        results.update(decoder.step())

    assert sorted(results) == [handles[0], *handles[2:]]
    for handle, window in zip(handles, windows, strict=True):
        if handle in results:
            (expected,) = decoder.detect_languages([window])
            (heard,) = results[handle].heard
            assert heard == {code: pytest.approx(p, abs=1e-3) for code, p in expected.items() if p >= 0.01}
            assert not results[handle].is_decoded


def test_only_languages_of_the_list_are_detected(model):
    """By code or by name; the probabilities are those among them."""
    window = BatchWindow(options(language=None, languages=("Swahili", "ja")), mel=mel(1), parts=((0, 16000),))
    decoder = BatchedDecoder(model, CPU, precision("fp32"))

    (decoded,) = decoder.decode([window])

    (chances,) = decoder.detect_languages([window])
    assert decoded.language == max(("sw", "ja"), key=chances.__getitem__)
    assert decoded.language_probability == pytest.approx(
        chances[decoded.language] / (chances["sw"] + chances["ja"]), abs=1e-4
    )
    assert set(decoded.heard[0]) <= {"sw", "ja"}
    assert sum(decoded.heard[0].values()) == pytest.approx(1.0, abs=0.02)


MIXTURE = [
    *mixed(4),
    *mixed(3, beam_size=3),
    *mixed(3, temperature=(0.7,), best_of=2),
    *mixed(2, temperature=(0.3,), suppress_tokens=""),
]


@pytest.mark.parametrize("max_batch", [1, 3, 16])
def test_a_window_does_not_depend_on_the_others(model, max_batch):
    """Greedy, sampled and beam windows come out the same alone, and while others join and leave."""
    alone = [BatchedDecoder(model, CPU, precision("fp32")).decode([window])[0].tokens for window in MIXTURE]
    decoder = BatchedDecoder(model, CPU, precision("fp32"), max_batch=max_batch)
    waiting, handles, results = list(MIXTURE), [], {}

    while waiting or decoder.pending:
        if waiting:
            handles.append(decoder.submit(waiting.pop(0)))
        results.update(decoder.step())

    assert [results[handle].tokens for handle in handles] == alone


def test_windows_of_different_length_share_a_batch(model):
    """A shorter encoder output is masked, not padded: the window comes out as it does alone."""
    windows = [BatchWindow(options(), mel=mel(n, frames)) for n, frames in enumerate((40, 100, 60, 100, 20))]
    decoder = BatchedDecoder(model, CPU, precision("fp32"), max_batch=5)

    together = [one.tokens for one in decoder.decode(windows)]

    assert together == [decoder.decode([window])[0].tokens for window in windows]


def test_a_withdrawn_window_is_never_given_out(model):
    """Waiting or under way, it leaves, and the others are not disturbed."""
    windows = mixed(4)
    expected = [one.tokens for one in BatchedDecoder(model, CPU, precision("fp32")).decode(windows)]
    decoder = BatchedDecoder(model, CPU, precision("fp32"), max_batch=2)
    handles = [decoder.submit(window) for window in windows]
    results = dict(decoder.step())

    decoder.withdraw(handles[0])
    decoder.withdraw(handles[3])
    while decoder.pending:
        results.update(decoder.step())

    assert {handle: one.tokens for handle, one in results.items()} == dict(
        zip(handles[1:3], expected[1:3], strict=True)
    )


def test_the_last_window_may_be_withdrawn(model):
    """A batch that is left empty does not get in the way of the next window."""
    decoder = BatchedDecoder(model, CPU, precision("fp32"))
    window = mixed(1)[0]
    handle = decoder.submit(window)
    decoder.step()

    decoder.withdraw(handle)

    assert decoder.step() == []
    assert decoder.decode([window])[0].tokens


def test_a_restart_begins_again_with_what_is_open(model):
    """After an error with a smaller batch, every window that was not given out is decoded, with the same result."""
    windows = mixed(5)
    expected = [one.tokens for one in BatchedDecoder(model, CPU, precision("fp32")).decode(windows)]
    decoder = BatchedDecoder(model, CPU, precision("fp32"), max_batch=4)
    handles = [decoder.submit(window) for window in windows]
    results = {}
    for _ in range(3):
        results.update(decoder.step())

    decoder.max_batch = 1
    decoder.restart()
    while decoder.pending:
        results.update(decoder.step())

    assert [results[handle].tokens for handle in handles] == expected


def test_only_rows_that_fail_fall_back_and_the_encoder_runs_once(model):
    """A row below the threshold goes through the temperatures; the encoder's output serves all attempts."""
    windows = mixed(6)
    scores = sorted(one.avg_logprob for one in BatchedDecoder(model, CPU, precision("fp32")).decode(windows))
    threshold = (scores[2] + scores[3]) / 2
    decoder = BatchedDecoder(model, CPU, precision("fp32"), max_batch=4)
    encoder, encoded = decoder._admission._encoder, []
    decoder._admission._encoder = lambda batch: encoded.append(len(batch)) or encoder(batch)

    decoded = decoder.decode(mixed(6, logprob_threshold=threshold, temperature=(0.0, 0.1, 3.0), best_of=2))

    kept = [one for one in decoded if one.attempts == 1]
    assert len(kept) == 3
    assert all(one.avg_logprob >= threshold for one in kept)
    assert all(one.temperature in (0.1, 3.0) for one in decoded if one.attempts > 1)
    assert sum(encoded) == len(windows)


@pytest.mark.parametrize("best_of", [None, 2])
def test_temperatures_that_are_tried_at_once_give_what_they_give_one_after_the_other(model, best_of):
    """The lowest temperature that passes wins, with the same tokens; the others leave the batch."""
    temperatures = (0.0, 0.2, 0.5, 1.0, 2.0)
    scores = {
        temperature: sorted(
            one.avg_logprob
            for one in BatchedDecoder(model, CPU, precision("fp32")).decode(
                mixed(6, temperature=(temperature,), best_of=best_of)
            )
        )
        for temperature in temperatures
    }
    between = [(ordered[2] + ordered[3]) / 2 for ordered in scores.values()]  # rounding decides nothing there
    results = []
    for threshold in (*between[:3], 0.0):
        wanted = {"logprob_threshold": threshold, "temperature": temperatures, "best_of": best_of}
        one_by_one = BatchedDecoder(model, CPU, precision("fp32"), max_batch=1).decode(mixed(6, **wanted))
        decoder = BatchedDecoder(model, CPU, precision("fp32"), max_batch=24)
        most, decoded = 0, {}
        handles = [decoder.submit(window) for window in mixed(6, **wanted)]
        while decoder.pending:
            decoded.update(decoder.step())
            most = max(most, *(batch.active for batch in decoder._batches.values()), 0)
        results += one_by_one
        for handle, expected in zip(handles, one_by_one, strict=True):
            found = decoded[handle]
            assert (found.tokens, found.temperature, found.attempts) == (
                expected.tokens,
                expected.temperature,
                expected.attempts,
            )
        assert not decoder._batches
        assert not decoder._fallbacks
    assert len({one.temperature for one in results}) > (1 if best_of is None else 2)
    assert most > 6


def test_silence_is_not_tried_again_and_has_no_segments(model):
    """Improbable text where the model hears no speech is dropped, as `whisper.transcribe` drops it."""
    wanted = options(no_speech_threshold=-1.0, logprob_threshold=0.0, temperature=(0.0, 1.0))

    (decoded,) = BatchedDecoder(model, CPU, precision("fp32")).decode([BatchWindow(wanted, mel=mel(0))])

    assert decoded.silent
    assert decoded.segments == ()
    assert decoded.attempts == 1
    assert decoded.covered_seconds == 1.0


@pytest.mark.parametrize("loudest", [0, 3, 4])
def test_what_nobody_can_hear_has_no_segments(loudest):
    """Digital silence is silence, however sure the model is of what it heard there."""
    audio = np.zeros(16000, np.int16)
    audio[8000] = -loudest

    (decoded,) = BatchedDecoder(tiny_model(audio_context=1500, text_context=32), CPU, precision("fp32")).decode(
        [BatchWindow(options(), audio=audio)]
    )

    assert decoded.silent is (loudest < 4)
    assert (decoded.segments == ()) is decoded.silent


def test_a_row_without_end_says_what_it_left_uncovered(model):
    """When a row has no room left, the caller learns from where the audio is still to be decoded."""
    decoded = BatchedDecoder(model, CPU, precision("fp32")).decode(mixed(8))

    cut_off = [one for one in decoded if len(one.tokens) == 16]
    assert cut_off
    assert all(0 <= one.covered_seconds <= 1.0 for one in decoded)


def test_short_audio_runs_a_short_encoder_and_is_decoded_again_in_full():
    """The encoder sees the audio and a margin; if the result fails the thresholds, it sees 30 s before all else."""
    decoder = BatchedDecoder(tiny_model(audio_context=1500), CPU, precision("fp32"), max_batch=4)
    encoder, frames = decoder._admission._encoder, []
    decoder._admission._encoder = lambda batch: frames.append(batch.shape[-1]) or encoder(batch)
    noise = np.random.default_rng(1).integers(-9000, 9000, 16000 * 28, dtype=np.int16)
    good, bad = options(), options(logprob_threshold=0.0)

    decoded = decoder.decode(
        [BatchWindow(good, audio=noise[:80000]), BatchWindow(bad, audio=noise[:80000]), BatchWindow(good, audio=noise)]
    )

    assert frames == [800, 3000, 3000]
    assert [one.attempts for one in decoded] == [1, 2, 1]


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (BatchWindow(options(language="xx"), mel=mel(0)), "language 'xx'"),
        (BatchWindow(options(suppress_tokens="x"), mel=mel(0)), "suppress_tokens"),
        (BatchWindow(options(), audio=np.zeros(16000 * 31, np.int16)), "31.0 s"),
        (BatchWindow(options(), audio=np.zeros(0, np.int16)), "0.0 s"),
    ],
    ids=["language", "suppressed tokens", "too long", "empty"],
)
def test_what_cannot_be_done_is_refused_at_once(model, window, reason):
    """A window that the model cannot decode never gets into a batch with others."""
    decoder = BatchedDecoder(model, CPU, precision("fp32"))

    with pytest.raises(InputError, match=reason):
        decoder.submit(window)

    assert decoder.pending == 0


def test_no_memory_is_an_error_of_the_house(model):
    """CUDA's and the allocator's words become OutOfMemory, and the open windows can be decoded afterwards."""
    decoder = BatchedDecoder(model, CPU, precision("fp32"))
    decoder.submit(mixed(1)[0])
    encoder = decoder._admission._encoder

    def refuse(_batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    decoder._admission._encoder = refuse
    with pytest.raises(OutOfMemory, match="Tried to allocate"):
        decoder.step()

    decoder._admission._encoder = encoder
    decoder.restart()
    while decoder.pending:
        finished = decoder.step()
    assert len(finished) == 1


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_smaller_numbers_stay_close_to_fp32(model, kind):
    """Rounding changes the log-probabilities a little, and nothing else about the result's shape."""
    exact, rounded = (BatchedDecoder(model, CPU, precision(kind)).detect_languages(mixed(3)) for kind in ("fp32", kind))

    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours == pytest.approx(theirs, abs=0.05)


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_weights_in_half_precision_give_what_they_give_in_fp32(kind):
    """They are converted layer by layer, and nothing is computed in the format in which they are stored."""
    stored = tiny_model(text_context=32).half()
    whole = tiny_model(text_context=32).half().float()
    windows = mixed(3)

    decoded, expected = (BatchedDecoder(each, CPU, precision(kind)).decode(windows) for each in (stored, whole))

    assert [one.tokens for one in decoded] == [one.tokens for one in expected]
    assert [one.avg_logprob for one in decoded] == [one.avg_logprob for one in expected]
