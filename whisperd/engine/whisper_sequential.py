"""Runs openai-whisper's own `transcribe`, which conditions each window on the text before it.

The logic of openai-whisper is unchanged. This module adds three things around it: a spectrogram that is computed window
by window, so that memory does not grow with the length of the audio; reports of progress; and a cleanup that leaves the
model usable after any error.
"""

from __future__ import annotations

import importlib
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import whisper
from whisper.audio import FRAMES_PER_SECOND, N_FRAMES

from whisperd.core.errors import BootError, EngineError, OutOfMemory
from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.engine.api import SAMPLE_RATE, EngineInfo, RecordingEngine
from whisperd.engine.limits import (
    among,
    check_capabilities,
    find_device,
    is_out_of_memory,
    language_code,
)
from whisperd.engine.log_mel import LogMel
from whisperd.engine.threads import limit_threads
from whisperd.engine.weights.checkpoint import load
from whisperd.engine.weights.find import find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    import numpy.typing as npt

    from whisperd.core.options import EngineOptions, TranscribeOptions


SHORTEST_SECONDS = 0.1  # below this there is no word to hear, and whisper invents one
_BEAT_SECONDS = 1.0
_STAGE = "transcribing"


class OpenAIWhisper(RecordingEngine):
    """The engine `openai-whisper` with `decoding: sequential`: a loaded model, run by its own `transcribe`.

    Not safe between threads: one per process (openai-whisper hooks into the shared model while it decodes).

    Raises:
        BootError: weights or device cannot be used.
    """

    def __init__(self, options: EngineOptions) -> None:
        limit_threads(options.threads)
        device = find_device(options.device)
        compute_type = "fp16" if device.type == "cuda" else "fp32"
        weights = find(options.model, options.models_directory)
        try:
            model = load(weights, str(device))
            self._adopt(model, EngineInfo("openai-whisper", weights.model, str(device), compute_type))
        except (RuntimeError, MemoryError) as error:
            hint = "use a smaller model or a device with more memory" if is_out_of_memory(error) else ""
            raise BootError(f"model {weights.model} cannot run on {device}: {_one_line(error)}", hint=hint) from error

    @classmethod
    def of(cls, model: whisper.Whisper, info: EngineInfo) -> Self:
        """Make an engine from a model that is already loaded."""
        engine = cls.__new__(cls)
        engine._adopt(model, info)  # noqa: SLF001  # its own kind
        return engine

    def _adopt(self, model: whisper.Whisper, info: EngineInfo) -> None:
        super().__init__()
        self._model = model
        self._info = info
        self._fp16 = info.compute_type == "fp16"
        self._warm_up()

    def _warm_up(self) -> None:
        """Decode a second of noise: a model that fails on first use (kernels, memory) fails before it gets a job."""
        noise = np.random.default_rng(0).integers(-1000, 1000, SAMPLE_RATE, dtype=np.int16)
        mel = LogMel(noise, self._model.dims.n_mels, lambda _: None)[:, :N_FRAMES].to(self._model.device)
        with _without_known_warnings():
            self._model.decode(mel, whisper.DecodingOptions(language="en", fp16=self._fp16, sample_len=4))

    @property
    def info(self) -> EngineInfo:
        """The model and device that were loaded."""
        return self._info

    def check(self, options: TranscribeOptions) -> None:
        """Refuse a language or task that this model was not trained for.

        Raises:
            InputError: `unsupported`.
        """
        model = self._model
        check_capabilities(
            options,
            self._info.model,
            multilingual=model.is_multilingual,
            languages=model.num_languages,
            whole_decoder=model.dims.n_text_layer >= model.dims.n_audio_layer,
        )

    def transcribe(
        self,
        audio: npt.NDArray[np.int16],
        options: TranscribeOptions,
        report: Callable[[float], None],
    ) -> Transcript:
        """Turn one recording into text; see `RecordingEngine.transcribe`.

        Reports come after each window, skipped ones included, and while one is computed about every second.
        No time lies behind the end of the audio and no word outside its segment: openai-whisper pads to 30 s and may
        place an end there. Audio of less than 0.1 s has no segments; undetected, its language is "".

        Raises:
            InputError: what `check` refuses.
            EngineError: retryable trouble with the model; OutOfMemory among it.
        """
        self.check(options)
        duration_seconds = len(audio) / SAMPLE_RATE
        progress = _Progress(report)
        if duration_seconds < SHORTEST_SECONDS:
            progress.reach(duration_seconds)
            return Transcript("", (), language_code(options.language or ""))
        try:
            with self._watched(progress):
                mel = LogMel(audio, self._model.dims.n_mels, lambda frame: progress.reach(frame / FRAMES_PER_SECOND))
                language, probability = self._language(mel, options)
                result = self._run(audio, mel, arguments_of(options) | {"language": language})
        except Exception as error:
            if error is progress.interruption:
                raise
            raise self._engine_error(error) from error
        progress.reach(duration_seconds)
        segments = tuple(
            _segment(segment, duration_seconds, with_words=bool(options.word_timestamps))
            for segment in result["segments"]
        )
        return Transcript(result["text"], segments, language, probability)

    def _run(self, audio: npt.NDArray[np.int16], mel: LogMel, options: dict[str, Any]) -> dict[str, Any]:
        # `whisper.transcribe` is the function, which shadows its module.
        module: Any = importlib.import_module("whisper.transcribe")
        original = module.log_mel_spectrogram
        module.log_mel_spectrogram = lambda *_args, **_kwargs: mel
        try:
            result: dict[str, Any] = module.transcribe(self._model, audio, verbose=None, fp16=self._fp16, **options)
        finally:
            module.log_mel_spectrogram = original
        return result

    def _language(self, mel: LogMel, options: TranscribeOptions) -> tuple[str, float | None]:
        """Detect the language and its probability, as `transcribe` does, which does not return the probability.

        It is that of the first 30 s, and used for the whole recording.
        """
        if options.language is not None:
            return language_code(options.language), None
        if not self._model.is_multilingual:
            return "en", None
        window = mel[:, :N_FRAMES].to(self._model.device).to(torch.float16 if self._fp16 else torch.float32)
        _, detected = self._model.detect_language(window)
        probabilities = among(detected, options.languages)
        language = max(probabilities, key=probabilities.__getitem__)
        return language, probabilities[language]

    @contextmanager
    def _watched(self, progress: _Progress) -> Iterator[None]:
        """Send a heartbeat from every layer, so that a slow window is not taken for a hung one; undone afterwards."""
        layers = [*self._model.encoder.blocks, *self._model.decoder.blocks]
        handles = [layer.register_forward_pre_hook(progress.beat) for layer in layers]
        try:
            with _without_known_warnings():
                yield
        finally:
            for handle in handles:
                handle.remove()
            # Word alignment leaves its hooks behind when its forward pass raises; they would break every later job.
            for module in self._model.decoder.modules():
                module._forward_hooks.clear()  # noqa: SLF001  # torch has no public way to drop foreign hooks

    def _engine_error(self, error: Exception) -> EngineError:
        if is_out_of_memory(error):
            hint = "use a smaller model or a smaller beam_size"
            if self._info.device.startswith("cuda"):
                hint += f", or free {self._info.device}: other programs may hold its memory"
            return OutOfMemory(f"out of memory on {self._info.device}: {_one_line(error)}", hint=hint, stage=_STAGE)
        return EngineError(f"{type(error).__name__}: {_one_line(error)}", stage=_STAGE)


class _Progress:
    """Reports progress in audio seconds that never decrease; remembers what `report` raised, which is no error of the engine."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._seconds = 0.0
        self._quiet_until = 0.0
        self.interruption: BaseException | None = None

    def reach(self, seconds: float) -> None:
        self._seconds = max(self._seconds, seconds)
        self._quiet_until = time.monotonic() + _BEAT_SECONDS
        try:
            self._report(self._seconds)
        except BaseException as error:
            self.interruption = error
            raise

    def beat(self, *_hook: object) -> None:
        if time.monotonic() >= self._quiet_until:
            self.reach(self._seconds)


@contextmanager
def _without_known_warnings() -> Iterator[None]:
    """Hide warnings of openai-whisper that are of no use to the operator."""
    with warnings.catch_warnings():
        # That the CPU was chosen beside a GPU, or that Triton is missing.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"whisper\.")
        # Its vocabulary is closed by the garbage collector; its beam search sorts a tensor with numpy.
        warnings.filterwarnings("ignore", message="unclosed file .*tiktoken", category=ResourceWarning)
        warnings.filterwarnings("ignore", message="__array_wrap__ must accept", category=DeprecationWarning)
        yield


def arguments_of(options: TranscribeOptions) -> dict[str, Any]:
    """Make the keyword arguments for `whisper.transcribe`: without hotwords, which it does not know, the languages to choose from, and the vocabulary, which is in the prompt."""
    return options.model_dump(exclude={"hotwords", "vocabulary", "languages"})


def _segment(raw: dict[str, Any], duration_seconds: float, *, with_words: bool) -> Segment:
    start = _within(raw["start"], 0.0, duration_seconds)
    end = _within(raw["end"], start, duration_seconds)
    return Segment(
        start=start,
        end=end,
        text=raw["text"],
        tokens=tuple(raw["tokens"]),
        seek=raw["seek"],
        temperature=raw["temperature"],
        avg_logprob=raw["avg_logprob"],
        compression_ratio=raw["compression_ratio"],
        no_speech_prob=raw["no_speech_prob"],
        # Without word timestamps openai-whisper still gives empty segments a `words`, on which its writers stumble.
        words=_words(raw["words"], start, end) if with_words else None,
    )


def _words(raw: list[dict[str, Any]], start: float, end: float) -> tuple[Word, ...]:
    words = []
    for word in raw:
        word_start = _within(word["start"], start, end)
        start = _within(word["end"], word_start, end)
        words.append(Word(word_start, start, word["word"], float(word["probability"])))
    return tuple(words)


def _within(seconds: float, low: float, high: float) -> float:
    return float(min(max(seconds, low), high))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
