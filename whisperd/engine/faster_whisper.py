"""The engine `faster-whisper`: CTranslate2 decodes windows of several recordings at once, on CPUs in 8 bits.

CTranslate2 decodes a batch to its end, so no window joins or leaves on the way. Windows share a batch if their search
settings are equal; languages and tasks may differ, because they are part of each prompt. A window whose attempt fails
the thresholds goes to the end of the queue, where it meets others that failed at the same temperature.

Two things differ from openai-whisper. `length_penalty` is the exponent of the plain length, not that of Wu et al. And
CTranslate2 draws random numbers for a batch as a whole: a window decoded at a temperature above 0 may read differently
in another run.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ctranslate2
import numpy as np
import torch
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from whisper.utils import compression_ratio

from whisperd.core.errors import BootError, EngineError, InputError, OutOfMemory
from whisperd.core.transcript import Word
from whisperd.engine.api import SAMPLE_RATE, AudioWindow, DecodedWindow, EngineInfo
from whisperd.engine.limits import among, check_capabilities, heard, is_out_of_memory, language_code
from whisperd.engine.threads import limit_threads
from whisperd.engine.weights.find import find_ct2, read_package
from whisperd.engine.whisper_batched.quality import Quality
from whisperd.engine.whisper_batched.segments import cut_segments
from whisperd.engine.whisper_batched.window import FRAMES_PER_SECOND, BatchWindow, mel_of
from whisperd.engine.whisper_batched.words import in_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from whisperd.core.options import EngineOptions, TranscribeOptions
    from whisperd.core.transcript import Segment

# CTranslate2's names for a compute type, the better one first; 8 bits need a type for what is not a weight.
NAMES = {"fp32": ("float32",), "bf16": ("bfloat16",), "fp16": ("float16",), "int8": ("int8_float16", "int8_float32")}
FASTEST = {"cpu": ("int8", "fp32"), "cuda": ("fp16", "fp32")}

_MOST_TOKENS = 448  # of prompt and text; half as many of text alone
_LATEST_FIRST = 50  # the first timestamp stands in the first second, in steps of 20 ms: openai-whisper's default
_ENCODED_AT_ONCE = 2  # attention over 30 s needs 9 MB a window and head
_FRAME_SAMPLES = 320  # of the encoder's output
_CPU = torch.device("cpu")
# Defaults of openai-whisper; their full-width signs are meant.
_PREPENDED = "\"'“¿([{-"
_APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """The settings that all windows of a batch share; all but the first field are arguments of CTranslate2."""

    words_before: int  # tokens of hotwords and prompt: it wants the text to begin at the same place in all rows
    beam_size: int
    patience: float
    num_hypotheses: int
    length_penalty: float
    sampling_topk: int
    sampling_temperature: float
    suppress_tokens: tuple[int, ...]

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for `ctranslate2.models.Whisper.generate`."""
        names = [name for name in self.__dataclass_fields__ if name != "words_before"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of a window at one temperature."""

    tokens: tuple[int, ...]  # timestamps included, without the end
    temperature: float
    quality: Quality


@dataclass(slots=True, eq=False)
class QueueEntry:
    """A window that waits for a batch or another temperature."""

    handle: int
    window: AudioWindow
    before: tuple[int, ...]  # tokens of hotwords and prompt
    settings: BatchSettings
    language: str | None
    language_probability: float | None = None
    features: npt.NDArray[Any] | None = None  # (1500, width), the encoder's output
    attempts: list[Attempt] = field(default_factory=list)
    heard: tuple[dict[str, float], ...] = ()  # in each part of the window


def settings_for(
    options: TranscribeOptions, temperature: float, words_before: int, suppressed: tuple[int, ...]
) -> BatchSettings:
    """Choose the search for a temperature: beams at 0, otherwise the best of several samples."""
    sampled = temperature > 0
    return BatchSettings(
        words_before=words_before,
        beam_size=1 if sampled else options.beam_size or 1,
        patience=1.0 if sampled else options.patience or 1.0,
        num_hypotheses=(options.best_of or 1) if sampled else 1,
        length_penalty=1.0 if options.length_penalty is None else options.length_penalty,
        sampling_topk=0 if sampled else 1,
        sampling_temperature=temperature if sampled else 1.0,
        suppress_tokens=suppressed,
    )


def next_batch(queue: Iterable[QueueEntry], most: int) -> list[QueueEntry]:
    """Choose the window that has waited longest, and others with the same settings."""
    batch: list[QueueEntry] = []
    for entry in queue:
        if len(batch) < most and (not batch or entry.settings == batch[0].settings):
            batch.append(entry)
    return batch


def best_attempt(attempts: Sequence[Attempt], options: TranscribeOptions) -> Attempt:
    """Choose among failed attempts the most probable one that does not repeat itself, as faster-whisper does."""
    if not attempts[-1].quality.needs_fallback(options):
        return attempts[-1]
    limit = options.compression_ratio_threshold
    plain = [attempt for attempt in attempts if limit is None or attempt.quality.compression_ratio <= limit]
    return max(plain or attempts, key=lambda attempt: attempt.quality.avg_logprob)


class FasterWhisper:
    """A CTranslate2 model that decodes windows of several recordings at once.

    Raises:
        BootError: weights, device or compute type cannot be used.
    """

    takes_recordings = False

    def __init__(self, options: EngineOptions) -> None:
        # CTranslate2 has threads of its own; those of torch, which only makes spectrograms here, would spin beside them.
        limit_threads(1)
        self._whisper, self._info = load(options)
        self._model = self._whisper.model
        self._capacity = options.batch_size
        self._handles = 0
        self._queue: deque[QueueEntry] = deque()
        self._tokenizers: dict[tuple[str, str], Any] = {}

    @property
    def info(self) -> EngineInfo:
        """The model and device that were loaded."""
        return self._info

    @property
    def capacity(self) -> int:
        """Number of windows decoded at once."""
        return self._capacity

    @property
    def pending(self) -> int:
        """Number of windows that were submitted and not returned yet."""
        return len(self._queue)

    def check(self, options: TranscribeOptions) -> None:
        """Refuse a language or task that this model was not trained for, and tokens that it does not have.

        Raises:
            InputError: `unsupported`.
        """
        model = self._info.model
        check_capabilities(
            options,
            model,
            multilingual=self._model.is_multilingual,
            languages=self._model.num_languages,
            # The format does not say how deep the decoder is; the names of such models do.
            whole_decoder=not any(word in model for word in ("turbo", "distil")),
        )
        size = self._whisper.hf_tokenizer.get_vocab_size()
        if outside := [token for token in self._suppressed(options.suppress_tokens) if not 0 <= token < size]:
            raise InputError(f"suppress_tokens: {outside} are not in this model's vocabulary", code="unsupported")

    def submit(self, window: AudioWindow) -> int:
        """Take a window; hotwords and prompt of its job go before it, the last 223 tokens of them."""
        options = window.options
        texts = [text.strip() for text in (options.hotwords, options.initial_prompt) if text]
        words = [token for text in texts for token in self._tokenizer("en", "transcribe").encode(f" {text}")]
        before = tuple(words[-(_MOST_TOKENS // 2 - 1) :])
        language = language_code(window.language) if window.language else None
        if not self._model.is_multilingual:
            language = "en"
        self._handles += 1
        settings = settings_for(options, options.temperature[0], len(before), self._suppressed(options.suppress_tokens))
        self._queue.append(QueueEntry(self._handles, window, before, settings, language))
        return self._handles

    def withdraw(self, handle: int) -> None:
        """Forget a window."""
        self._queue = deque(entry for entry in self._queue if entry.handle != handle)

    def shrink(self) -> bool:
        """Halve the batch."""
        if self._capacity == 1:
            return False
        self._capacity //= 2
        return True

    def step(self, _report: object = None, /) -> list[tuple[int, DecodedWindow]]:
        """Run some windows through the encoder, or a whole batch through the decoder.

        Raises:
            OutOfMemory: nothing was lost; `shrink` and go on.
            EngineError: whatever else is wrong with the model.
        """
        entries = next_batch(self._queue, self._capacity)
        raw = [entry for entry in entries if entry.features is None]
        with self._errors(len(entries)):
            if raw:
                encoded = raw[:_ENCODED_AT_ONCE]
                self._encode(encoded)
                ended = [entry for entry in encoded if not _is_to_be_decoded(entry)]
                self._queue = deque(entry for entry in self._queue if entry not in ended)
                return [(entry.handle, _without_text(entry)) for entry in ended]
            attempts = self._decode(entries) if entries else []
            results = [
                self._result(entry, [*entry.attempts, attempt])
                for entry, attempt in zip(entries, attempts, strict=True)
            ]
        # Attempts are recorded only from here on, where no memory can run out.
        finished = []
        for entry, attempt, result in zip(entries, attempts, results, strict=True):
            self._queue.remove(entry)
            if result is not None:
                finished.append((entry.handle, result))
                continue
            entry.attempts.append(attempt)
            options = entry.window.options
            temperature = options.temperature[len(entry.attempts)]
            entry.settings = settings_for(options, temperature, len(entry.before), entry.settings.suppress_tokens)
            self._queue.append(entry)
        return finished

    def _encode(self, entries: Sequence[QueueEntry]) -> None:
        """Compute the features of windows, and detect the language of those without one."""
        mels = []
        for entry in entries:
            window = BatchWindow(entry.window.options, audio=entry.window.audio)
            mels.append(mel_of(window, self._model.n_mels, None, _CPU).numpy())
        output = self._model.encode(ctranslate2.StorageView.from_array(np.stack(mels)), to_cpu=True)
        if output.dtype == ctranslate2.DataType.bfloat16:  # numpy does not know it
            output = output.to(ctranslate2.DataType.float32)
        features = np.asarray(output)
        for entry, one in zip(entries, features, strict=True):
            if not self._model.is_multilingual:
                continue
            if entry.language is None:
                chances = self._chances(entry, one)
                entry.language = max(chances, key=chances.__getitem__)
                entry.language_probability = chances[entry.language]
                if entry.window.only_language:
                    entry.heard = (heard(chances),)
            frames = [(start // _FRAME_SAMPLES, -(-end // _FRAME_SAMPLES)) for start, end in entry.window.parts]
            entry.heard = entry.heard or tuple(heard(self._chances(entry, one[start:end])) for start, end in frames)
        for entry, one in zip(entries, features, strict=True):
            entry.features = one.copy()  # a view would keep the whole batch

    def _chances(self, entry: QueueEntry, features: npt.NDArray[Any]) -> dict[str, float]:
        """Compute the probability of each language that may be detected, from features (frames, width)."""
        (found,) = self._model.detect_language(_storage([features]))
        return among({token.strip("<|>"): chance for token, chance in found}, entry.window.options.languages)

    def _decode(self, entries: Sequence[QueueEntry]) -> list[Attempt]:
        """Decode windows with the same settings, one attempt each."""
        settings = entries[0].settings
        prompts = []
        for entry in entries:
            tokenizer = self._tokenizer(entry.language, entry.window.options.task)
            prompts.append([*([tokenizer.sot_prev, *entry.before] if entry.before else []), *tokenizer.sot_sequence])
        results = self._model.generate(
            _storage([_features(entry) for entry in entries]),
            prompts,
            max_length=_MOST_TOKENS,
            max_initial_timestamp_index=_LATEST_FIRST,
            return_scores=True,
            return_no_speech_prob=True,
            **settings.arguments(),
        )
        attempts = []
        for entry, result in zip(entries, results, strict=True):
            tokens, score = tuple(result.sequences_ids[0]), result.scores[0]
            text = self._tokenizer(entry.language, entry.window.options.task).decode(tokens).strip()
            # The score is the sum of log-probabilities, that of the end among them, over the penalised length.
            quality = Quality(
                avg_logprob=score * len(tokens) ** settings.length_penalty / (len(tokens) + 1),
                compression_ratio=compression_ratio(text),
                no_speech_prob=result.no_speech_prob,
                looped=False,
            )
            temperature = entry.window.options.temperature[len(entry.attempts)]
            attempts.append(Attempt(tokens, temperature, quality))
        return attempts

    def _result(self, entry: QueueEntry, attempts: Sequence[Attempt]) -> DecodedWindow | None:
        """Return the result of a window; None if it must be tried at the next temperature."""
        options = entry.window.options
        if attempts[-1].quality.needs_fallback(options) and len(attempts) < len(options.temperature):
            return None
        chosen = best_attempt(attempts, options)
        quality, silent = chosen.quality, chosen.quality.is_silence(options)
        tokenizer = self._tokenizer(entry.language, options.task)
        seconds = len(entry.window.audio) / SAMPLE_RATE
        start = 1 + len(entry.before) if entry.before else 0
        room = min(_MOST_TOKENS // 2, _MOST_TOKENS - start - len(tokenizer.sot_sequence))
        cut = cut_segments(chosen.tokens, tokenizer, seconds, truncated=len(chosen.tokens) >= room)
        measured: dict[str, Any] = {
            "temperature": chosen.temperature,
            "avg_logprob": quality.avg_logprob,
            "compression_ratio": quality.compression_ratio,
            "no_speech_prob": quality.no_speech_prob,
        }
        segments = () if silent else tuple(replace(segment, **measured) for segment in cut.segments)
        if options.word_timestamps and segments:
            segments = self._with_words(segments, entry, tokenizer, seconds)
        return DecodedWindow(
            language=entry.language or "en",
            language_probability=entry.language_probability,
            segments=segments,
            covered_seconds=seconds if silent else cut.covered_seconds,
            silent=silent,
            attempts=len(attempts),
            looped=False,
            heard=entry.heard,
            **measured,
        )

    def _with_words(
        self, segments: tuple[Segment, ...], entry: QueueEntry, tokenizer: Any, seconds: float
    ) -> tuple[Segment, ...]:
        """Add words to segments, one window at a time, because faster-whisper compares times across the rows of a batch."""
        raw: list[dict[str, Any]] = [
            {"seek": 0, "start": one.start, "end": one.end, "tokens": list(one.tokens), "text": one.text}
            for one in segments
        ]
        frames = round(seconds * FRAMES_PER_SECOND)
        self._whisper.add_word_timestamps(
            [raw], tokenizer, _storage([_features(entry)]), frames, _PREPENDED, _APPENDED, 0.0
        )
        result, earliest = [], 0.0
        for segment, one in zip(segments, raw, strict=True):
            words = tuple(
                Word(float(word["start"]), float(word["end"]), word["word"], float(word["probability"]))
                for word in one["words"]
            )
            timed = replace(segment, start=float(one["start"]), end=float(one["end"]), words=words)
            result.append(in_order(timed, earliest, seconds))
            earliest = result[-1].end
        return tuple(result)

    def _tokenizer(self, language: str | None, task: str) -> Any:
        key = (language or "en", task)
        if key not in self._tokenizers:
            self._tokenizers[key] = Tokenizer(self._whisper.hf_tokenizer, self._model.is_multilingual, task, key[0])
        return self._tokenizers[key]

    def _suppressed(self, wanted: str) -> tuple[int, ...]:
        numbers = [int(token) for token in wanted.split(",") if token]
        tokens: tuple[int, ...] = get_suppressed_tokens(self._tokenizer("en", "transcribe"), numbers)
        return tokens

    @contextmanager
    def _errors(self, windows: int) -> Iterator[None]:
        """Turn the errors of CTranslate2 into errors of whisperd."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                message = f"out of memory on {self._info.device}, {windows} windows at once"
                hint = "use a smaller model, batch_size or beam_size"
                raise OutOfMemory(message, hint=hint, stage="transcribing") from error
            raise EngineError(" ".join(str(error).split()), stage="transcribing") from error


def load(options: EngineOptions) -> tuple[WhisperModel, EngineInfo]:
    """Load the model and encode silence: a model that fails on first use fails before it gets a job. Nothing is downloaded.

    Raises:
        BootError: weights, device or compute type cannot be used.
    """
    device, index = find_device(options.device, ctranslate2.get_cuda_device_count())
    weights = find_ct2(options.model, options.models_directory)
    supported = ctranslate2.get_supported_compute_types(device, device_index=index)
    try:
        model = WhisperModel(
            str(weights.directory or weights.model),
            device=device,
            device_index=index,
            compute_type=compute_type(options.compute_type, device, supported),
            cpu_threads=options.threads,
            local_files_only=True,
            files=None if weights.directory else read_package(weights),
        )
        silence = np.zeros((1, model.model.n_mels, 3000), np.float32)
        model.model.encode(ctranslate2.StorageView.from_array(silence), to_cpu=True)
    except BootError:
        raise
    except Exception as error:  # whatever bytes and whatever JSON stand there
        hint = "use a smaller model or a device with more memory" if is_out_of_memory(error) else "is it whole?"
        reason = " ".join(str(error).split())
        raise BootError(f"cannot load {weights.source} on {options.device}: {reason}", hint=hint) from error
    kind = next(kind for kind, names in NAMES.items() if model.model.compute_type in names)
    place = f"cuda:{index}" if device == "cuda" else device
    return model, EngineInfo("faster-whisper", weights.model, place, kind)


def find_device(asked: str, gpus: int) -> tuple[str, int]:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for, and its number.

    Raises:
        BootError: CTranslate2 sees fewer GPUs than that.
    """
    if asked == "auto":
        asked = "cuda" if gpus else "cpu"
    device, _, number = asked.partition(":")
    index = int(number or 0)
    if device == "cuda" and index >= gpus:
        hint = "use cpu or auto, or check the NVIDIA driver and its libraries"
        raise BootError(f"device {asked!r} is not there: CTranslate2 sees {gpus} CUDA devices", hint=hint)
    return device, index


def compute_type(asked: str, device: str, supported: Collection[str]) -> str:
    """CTranslate2's name for `asked`, or for the fastest type that the device computes in hardware if that is `auto`.

    Args:
        asked: "auto", "fp32", "bf16", "fp16" or "int8".
        device: "cpu" or "cuda".
        supported: what `ctranslate2.get_supported_compute_types` says of the device.

    Raises:
        BootError: the device cannot compute in that type.
    """
    for kind in FASTEST[device] if asked == "auto" else (asked,):
        for name in NAMES[kind]:
            if name in supported:
                return name
    possible = [kind for kind, names in NAMES.items() if set(names) & set(supported)]
    raise BootError(f"{device} cannot compute in {asked}", hint=f"set compute_type to {', '.join(possible)} or auto")


def _storage(rows: Sequence[npt.NDArray[Any]]) -> Any:
    """Convert rows of features for CTranslate2."""
    return ctranslate2.StorageView.from_array(np.stack(rows))


def _is_to_be_decoded(entry: QueueEntry) -> bool:
    """Whether more than the language of a window is wanted, after what was heard in it."""
    window = entry.window
    return not window.only_language and (window.accepts is None or window.accepts(entry.heard))


def _without_text(entry: QueueEntry) -> DecodedWindow:
    """Make the result of a window that was not decoded."""
    seconds = len(entry.window.audio) / SAMPLE_RATE
    return DecodedWindow(entry.language or "en", None, (), seconds, attempts=0, heard=entry.heard, is_decoded=False)


def _features(entry: QueueEntry) -> npt.NDArray[Any]:
    assert entry.features is not None
    return entry.features
