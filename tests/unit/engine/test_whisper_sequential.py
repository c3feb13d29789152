import dataclasses
import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from support.options import options
from whisper.decoding import DecodingResult
from whisper.model import ModelDimensions, MultiHeadAttention, Whisper
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer

from whisperd.core.errors import BootError, EngineError, InputError, OutOfMemory
from whisperd.core.options import LANGUAGES as CONFIGURED_LANGUAGES
from whisperd.core.options import EngineOptions
from whisperd.engine import whisper_sequential
from whisperd.engine.api import SAMPLE_RATE, EngineInfo
from whisperd.engine.limits import find_device
from whisperd.engine.weights.find import Weights
from whisperd.engine.whisper_sequential import OpenAIWhisper, arguments_of

OPTIONS = options(logprob_threshold=-1.0, no_speech_threshold=0.6)
MULTILINGUAL = 51865
ENGLISH = 51864
LARGE_V3 = 51866
TRANSCRIBE = importlib.import_module("whisper.transcribe")


def make(vocabulary=MULTILINGUAL, *, encoder_layers=1, name="random"):
    """An engine around random weights: everything real but the sense."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 64, 1, encoder_layers, vocabulary, 64, 64, 1, 1))
    torch.nn.init.normal_(model.decoder.positional_embedding)
    return OpenAIWhisper.of(model, EngineInfo("openai-whisper", name, "cpu", "fp32"))


@pytest.fixture
def engine():
    return make()


def says(engine, *windows):
    """Let the model answer each window in turn with `(text, first second, last second)`, or None for silence."""
    answers = iter(windows)
    tokenizer = get_tokenizer(engine._model.is_multilingual, language="en", task="transcribe")

    def decode(mel, options):
        answer = next(answers)
        if answer is None:
            return DecodingResult(mel, "en", tokens=[], avg_logprob=-9.0, no_speech_prob=1.0)
        text, start, end = answer
        first, last = (tokenizer.timestamp_begin + round(seconds * 50) for seconds in (start, end))
        return DecodingResult(mel, "en", tokens=[first, *tokenizer.encode(text), last], avg_logprob=0, no_speech_prob=0)

    engine._model.decode = decode


def with_options(**changes):
    return OPTIONS.evolve(**changes)


def silence(seconds):
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.int16)


def ignore(seconds):
    pass


def is_clean(engine):
    """Whether nothing of a job is left in the model or in the modules of openai-whisper."""
    hooks = [hook for m in engine._model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
    return not hooks and MultiHeadAttention.use_sdpa and TRANSCRIBE.log_mel_spectrogram is whisper.log_mel_spectrogram


# progress


def test_progress_follows_the_windows(engine):
    """A report for each window done, the last one at the very end of the audio."""
    says(engine, (" a", 0, 28.5), (" b", 0, 30), (" c", 0, 3))
    reports = []

    engine.transcribe(silence(64.25), OPTIONS, reports.append)

    assert list(dict.fromkeys(reports)) == [0.0, 30.0, 60.0, 64.25]


def test_silent_windows_count(engine):
    """Windows that openai-whisper skips move its own progress bar not at all; here they do."""
    says(engine, None, None, None)
    reports = []

    transcript = engine.transcribe(silence(61.005), OPTIONS, reports.append)

    assert transcript.segments == ()
    assert list(dict.fromkeys(reports)) == [0.0, 30.0, 60.0, 61.005]


def test_a_slow_window_beats_while_it_is_computed(engine, monkeypatch):
    """A beat for every layer that runs, at most once in a while, so that slow is not taken for dead."""
    monkeypatch.setattr(whisper_sequential, "_BEAT_SECONDS", 0.0)
    reports = []

    engine.transcribe(silence(1), OPTIONS, reports.append)

    assert reports.count(0.0) > 10
    assert reports == sorted(reports)
    assert reports[-1] == 1.0


def test_progress_never_goes_back():
    """Should openai-whisper seek backwards, the report stays where it was."""
    reports = []
    progress = whisper_sequential._Progress(reports.append)

    progress.reach(5.0)
    progress.reach(3.0)

    assert reports == [5.0, 5.0]


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [Stop(), RuntimeError("out of memory"), OutOfMemory("mine")], ids=repr)
@pytest.mark.parametrize("after", [0, 3, 4], ids=["first pass", "second window", "end"])
def test_what_report_raises_ends_the_job_and_passes_through(engine, error, after):
    """The caller stops a job by raising; its exception is not taken for the engine's, and the model stays fit."""
    says(engine, None, None)
    reports = []

    def report(seconds):
        reports.append(seconds)
        if len(reports) > after:
            raise error

    with pytest.raises(type(error)) as caught:
        engine.transcribe(silence(31), OPTIONS, report)

    assert caught.value is error
    assert is_clean(engine)


def test_stopping_within_word_alignment_leaves_a_usable_model(engine, monkeypatch):
    """Alignment leaves its hooks on the model when it is torn out; they would break each later job."""
    monkeypatch.setattr(whisper_sequential, "_BEAT_SECONDS", 0.0)
    options = with_options(word_timestamps=True)
    says(engine, (" some words", 0, 1), (" some words", 0, 1))

    def report(seconds):
        if engine._model.decoder.blocks[0].cross_attn._forward_hooks:
            raise Stop

    with pytest.raises(Stop):
        engine.transcribe(silence(2), options, report)

    assert is_clean(engine)
    assert engine.transcribe(silence(2), options, ignore).segments[0].words


# errors


def cpu_allocator():
    torch.empty(1 << 60, dtype=torch.uint8)


def raising(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")), id="torch"),
        pytest.param(raising(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be")), id="driver"),
        pytest.param(raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")), id="cublas"),
        pytest.param(lambda *_: cpu_allocator(), id="torch on the CPU"),
        pytest.param(raising(MemoryError()), id="python"),
    ],
)
def test_want_of_memory_is_told_from_other_trouble(engine, fail):
    """However memory runs out, the error says so in one line and what to do about it."""
    engine._model.decode = fail

    with pytest.raises(OutOfMemory, match="out of memory on cpu") as caught:
        engine.transcribe(silence(1), OPTIONS, ignore)

    assert "smaller model" in caught.value.hint
    assert "\n" not in caught.value.message
    assert caught.value.stage == "transcribing"


def test_other_trouble_keeps_its_message(engine):
    """What openai-whisper says reaches the operator, with its type."""
    engine._model.decode = raising(ValueError("logits:\nnan"))

    with pytest.raises(EngineError, match="ValueError: logits: nan") as caught:
        engine.transcribe(silence(1), OPTIONS, ignore)

    assert not isinstance(caught.value, OutOfMemory)
    assert isinstance(caught.value.__cause__, ValueError)
    assert is_clean(engine)


def test_a_failure_within_word_alignment_does_not_poison_the_next_job(engine):
    """The first job fails, the second gets its words."""
    options = with_options(word_timestamps=True)
    says(engine, (" some words", 0, 1), (" some words", 0, 1))
    mlp = engine._model.decoder.blocks[0].mlp

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = mlp.register_forward_pre_hook(fail)
    with pytest.raises(OutOfMemory):
        engine.transcribe(silence(2), options, ignore)
    handle.remove()

    assert is_clean(engine)
    assert engine.transcribe(silence(2), options, ignore).segments[0].words


def test_a_cpu_chosen_beside_a_gpu_draws_no_warning(engine, monkeypatch):
    """The operator chose it; openai-whisper warns at every file."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    says(engine, None)

    assert engine.transcribe(silence(1), OPTIONS, ignore).segments == ()


# what comes out


def test_times_end_where_the_audio_ends(engine):
    """Whisper sees 30 s whatever the length, and may hear an end in the padding."""
    says(engine, (" late", 4, 29.5))

    (segment,) = engine.transcribe(silence(5), OPTIONS, ignore).segments

    assert (segment.start, segment.end, segment.text) == (0.0, 5.0, " late")


def test_a_segment_carries_what_the_model_said(engine):
    """Its tokens, timestamps included, the window that it came from, and no words unless they were asked for."""
    says(engine, None, (" hello", 0, 1.5))

    transcript = engine.transcribe(silence(32), OPTIONS, ignore)
    (segment,) = transcript.segments

    assert transcript.text == " hello"
    assert (segment.seek, segment.start, segment.end, segment.text) == (3000, 30.0, 31.5, " hello")
    assert segment.tokens[1:-1] == tuple(get_tokenizer(multilingual=True).encode(" hello"))
    assert segment.words is None


def test_an_empty_segment_has_no_words_unless_they_were_asked_for(engine):
    """openai-whisper gives it a list of words always, on which its own writers stumble."""
    says(engine, (" ", 0, 1), (" ", 0, 1))

    (plain,) = engine.transcribe(silence(2), OPTIONS, ignore).segments
    (timed,) = engine.transcribe(silence(2), with_options(word_timestamps=True), ignore).segments

    assert (plain.text, plain.words) == ("", None)
    assert (timed.text, timed.words) == ("", ())


def test_words_stay_inside_their_segment_and_in_order():
    """openai-whisper moves the first and last word of a segment by rules of thumb, now and then out of it."""
    raw = [(0.4, 1.2), (1.1, 1.6), (1.6, 2.9)]

    words = whisper_sequential._words(
        [{"start": start, "end": end, "word": " w", "probability": np.float64(0.5)} for start, end in raw], 0.5, 2.5
    )

    assert [(word.start, word.end) for word in words] == [(0.5, 1.2), (1.2, 1.6), (1.6, 2.5)]
    assert {type(value) for word in words for value in (word.start, word.end, word.probability)} == {float}


@pytest.mark.parametrize("samples", [0, 1, 1599], ids=str)
@pytest.mark.parametrize(("asked", "named"), [("de", "de"), (None, "")], ids=["language given", "undetected"])
def test_next_to_no_audio_gives_no_text(engine, samples, asked, named):
    """Below a tenth of a second there is nothing to hear, and the job is done at once."""
    reports = []

    transcript = engine.transcribe(np.zeros(samples, dtype=np.int16), with_options(language=asked), reports.append)

    assert (transcript.text, transcript.segments, transcript.language) == ("", (), named)
    assert reports == [samples / SAMPLE_RATE]


# options


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"beam_size": 2, "patience": 1.5, "length_penalty": 0.5}, id="beams"),
        pytest.param({"temperature": (0.0, 0.4), "best_of": 2, "logprob_threshold": 0.0}, id="fallback, best of 2"),
        pytest.param({"initial_prompt": "Names.", "carry_initial_prompt": True, "suppress_tokens": ""}, id="prompt"),
    ],
)
def test_options_are_openai_whispers_own(engine, changes):
    """The same options give what `whisper.transcribe` gives for the same samples as floats."""
    options = with_options(no_speech_threshold=None, **changes)
    audio = np.random.default_rng(0).integers(-3000, 3000, 2 * SAMPLE_RATE, dtype=np.int16)
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore"):
        expected = whisper.transcribe(
            engine._model, audio.astype(np.float32) / 32768.0, fp16=False, **arguments_of(options)
        )
    torch.manual_seed(1)

    transcript = engine.transcribe(audio, options, ignore)

    assert transcript.text == expected["text"]
    assert [list(segment.tokens) for segment in transcript.segments] == [s["tokens"] for s in expected["segments"]]
    assert [segment.temperature for segment in transcript.segments] == [s["temperature"] for s in expected["segments"]]


def test_the_language_is_detected_as_whisper_does_and_its_probability_kept(engine):
    """From the first 30 s, by the model's own detection."""
    audio = np.random.default_rng(0).integers(-3000, 3000, 40 * SAMPLE_RATE, dtype=np.int16)
    mel = whisper.log_mel_spectrogram(audio.astype(np.float32) / 32768.0, 80, padding=whisper.audio.N_SAMPLES)
    _, probabilities = engine._model.detect_language(mel[:, :3000])
    says(engine, None, None)

    transcript = engine.transcribe(audio, with_options(language=None), ignore)

    assert transcript.language == max(probabilities, key=probabilities.get)
    assert transcript.language_probability == pytest.approx(max(probabilities.values()), rel=1e-4)


def test_a_given_language_has_no_probability(engine):
    """Nobody asked the model; and a language's name is as good as its code."""
    says(engine, None)

    transcript = engine.transcribe(silence(1), with_options(language="German"), ignore)

    assert (transcript.language, transcript.language_probability) == ("de", None)


def test_the_configuration_knows_the_same_languages():
    """Else a good ticket is refused, or a bad one found out only by the worker."""
    assert LANGUAGES.keys() | TO_LANGUAGE_CODE.keys() == CONFIGURED_LANGUAGES


def test_an_english_model_needs_no_detection():
    """It knows one language."""
    engine = make(ENGLISH)
    says(engine, None)

    transcript = engine.transcribe(silence(1), with_options(language=None), ignore)

    assert (transcript.language, transcript.language_probability) == ("en", None)


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        pytest.param({}, {"language": "xx"}, "language 'xx' is not known", id="no such language"),
        pytest.param({}, {"language": "yue"}, "does not know the language 'yue'", id="newer language"),
        pytest.param({"vocabulary": ENGLISH}, {"language": "de"}, "does not know", id="English-only model"),
        pytest.param({"vocabulary": ENGLISH}, {"task": "translate"}, "cannot translate", id="English-only translates"),
        pytest.param({"encoder_layers": 2}, {"task": "translate"}, "cannot translate", id="turbo translates"),
    ],
)
def test_what_a_model_cannot_do_is_refused(kind, changes, complaint):
    """Before any work, with a stable code and the way out; openai-whisper would do something else instead."""
    engine = make(**kind)
    options = with_options(**changes)

    with pytest.raises(InputError, match=complaint) as caught:
        engine.check(options)

    assert caught.value.job_code == "unsupported"
    assert caught.value.hint
    with pytest.raises(InputError, match=complaint):
        engine.transcribe(silence(1), options, ignore)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        pytest.param({}, {"language": None}, id="detect"),
        pytest.param({}, {"language": "Castilian", "task": "translate"}, id="name, translate"),
        pytest.param({"vocabulary": LARGE_V3}, {"language": "yue"}, id="newer language"),
        pytest.param({"vocabulary": ENGLISH}, {"language": "en"}, id="English-only model"),
        pytest.param({"encoder_layers": 2}, {"language": "de"}, id="turbo"),
    ],
)
def test_what_a_model_can_do_is_accepted(kind, changes):
    """No false alarm."""
    make(**kind).check(with_options(**changes))


# boot


BASE = Weights("base", "checkpoint", (), "", "")


def engine_options(**changes):
    defaults = EngineOptions("openai-whisper", "base", Path("models"), device="cpu", threads=2, decoding="sequential")
    return dataclasses.replace(defaults, **changes)


@pytest.mark.parametrize(
    ("device", "complaint"),
    [
        pytest.param("gpu", "device 'gpu' is not known", id="no such kind"),
        pytest.param("meta", "device 'meta' is not supported", id="of no use"),
        pytest.param("cuda:99", "device 'cuda:99' is not there", id="too few"),
    ],
)
def test_a_device_that_is_not_there_stops_the_start(device, complaint):
    """Before weights are read, with the way out."""
    with pytest.raises(BootError, match=complaint) as caught:
        OpenAIWhisper(engine_options(device=device))

    assert "cpu" in caught.value.hint


@pytest.mark.parametrize(("available", "chosen"), [(True, "cuda:0"), (False, "cpu")], ids=["GPU", "no GPU"])
def test_auto_takes_the_gpu_if_there_is_one(monkeypatch, available, chosen):
    """And says which one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(available))

    assert str(find_device("auto")) == chosen


def test_a_model_that_does_not_run_stops_the_start(monkeypatch):
    """Ready means ready: the first decode happens before anyone sends a job, and its failure is a boot error."""
    model = make()._model
    model.decode = raising(torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(whisper_sequential, "find", lambda *_: BASE)
    monkeypatch.setattr(whisper_sequential, "load", lambda *_: model)

    with pytest.raises(BootError, match="model base cannot run on cpu: CUDA out of memory") as caught:
        OpenAIWhisper(engine_options())

    assert "smaller model" in caught.value.hint


def test_threads_are_limited_when_the_engine_starts(monkeypatch):
    """Several workers share the machine: each keeps to its own threads, also when an engine is created twice."""
    model = make()._model
    monkeypatch.setattr(whisper_sequential, "find", lambda *_: BASE)
    monkeypatch.setattr(whisper_sequential, "load", lambda *_: model)

    OpenAIWhisper(engine_options(threads=1))
    one = torch.get_num_threads()
    info = OpenAIWhisper(engine_options(threads=2)).info

    assert (one, torch.get_num_threads()) == (1, 2)
    assert info == EngineInfo("openai-whisper", "base", "cpu", "fp32")
