"""Decodes windows of many recordings in one batch, with the weights of openai-whisper.

    device = torch.device("cpu")
    decoder = BatchedDecoder(model, device, choose(device, "auto", timings(directory)))
    handles = [decoder.submit(window) for window in windows]
    while decoder.pending:
        for handle, decoded in decoder.step():
            ...

Windows may differ in language, task, prompt and options. They join when they are submitted and leave when they are done.
The result of a window does not depend on the other windows, except for rounding.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from whisper.audio import CHUNK_LENGTH
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE
from whisper.utils import compression_ratio

from whisperd.core.errors import InputError
from whisperd.engine.whisper_batched.batch import Admission, Batch, BatchEntry, Outcome, SearchKind
from whisperd.engine.whisper_batched.precision import memory_errors
from whisperd.engine.whisper_batched.quality import Quality
from whisperd.engine.whisper_batched.search import Rules, best_of, suppressed_tokens
from whisperd.engine.whisper_batched.segments import cut_segments
from whisperd.engine.whisper_batched.text_decoder import TextDecoder
from whisperd.engine.whisper_batched.window import BatchResult, BatchWindow, is_audible, seconds_of
from whisperd.engine.whisper_batched.words import add_words, attention_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisperd.core.options import TranscribeOptions
    from whisperd.engine.whisper_batched.precision import Precision


_PATIENCE_STEPS = 64  # a few windows of another kind wait this long for others of their kind


@dataclass(slots=True, eq=False)
class Fallback:
    """The attempts of one window at higher temperatures, of which several run at the same time.

    They are judged in order of their temperature, so the result is the same as if each one waited for the one before it.
    """

    attempts: dict[int, BatchEntry]  # by number of the temperature: those that are not judged yet
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # of those that have ended

    def take_next(self) -> Outcome | None:
        """Return the outcome that is judged next, if it has ended."""
        outcome = self.outcomes.pop(min(self.attempts), None)
        if outcome is not None:
            del self.attempts[outcome.entry.temperature_index]
        return outcome


class BatchedDecoder:
    """Decodes windows with a loaded model; to be used by one thread of one process.

    Args:
        model: a `whisper.model.Whisper` on any device; it is read, never changed, and may be deleted afterwards.
        device: where to compute.
        precision: the number formats, from `precision.choose`.
        max_batch: windows decoded at once.
        short_seconds: windows up to this length run through a shorter encoder.
        margin_seconds: silence that the encoder sees behind the audio of a short window.

    Raises:
        OutOfMemory: the weights do not fit.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        precision: Precision,
        max_batch: int = 16,
        *,
        short_seconds: float = 27.0,
        margin_seconds: float = 3.0,
    ) -> None:
        self.device, self.max_batch = device, max_batch
        self._short_seconds, self._dims = short_seconds, model.dims
        with memory_errors("loading the model"):
            self._network = TextDecoder(model, device, precision)
            self._admission = Admission(model, self._network, margin_seconds, precision)
        self._batches: dict[SearchKind, Batch] = {}
        self._waiting: dict[SearchKind, deque[BatchEntry]] = {}
        self._listening: deque[BatchEntry] = deque()
        self._ended: list[tuple[int, BatchResult]] = []  # not returned yet: a step may run out of memory behind them
        self._handles = 0
        self._open: dict[int, BatchEntry] = {}
        self._fallbacks: dict[int, Fallback] = {}

    @property
    def pending(self) -> int:
        """Number of windows that were submitted and not returned yet."""
        return len(self._open) + len(self._ended)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text as tokens for the `prompt` or `prefix` of a window."""
        return tuple(self._admission.tokenizer().encode(" " + text.strip()))

    def submit(self, window: BatchWindow) -> int:
        """Take a window; its handle comes back from `step` with the result.

        Raises:
            InputError: the model cannot do what the options ask for, or the audio is longer than 30 s.
        """
        language = self._check(window)
        self._handles += 1
        full = window.mel is not None or seconds_of(window) > self._short_seconds
        entry = BatchEntry(self._handles, window, language, full=full)
        self._open[entry.handle] = entry
        if window.only_language:
            self._listening.append(entry)
        else:
            self._queue(entry, first=False)
        return entry.handle

    @torch.inference_mode()
    def withdraw(self, handle: int) -> None:
        """Forget a window: its result will not be given out."""
        self._open.pop(handle, None)
        self._ended = [ended for ended in self._ended if ended[0] != handle]
        self._drop_attempts(handle)
        self._listening = deque(entry for entry in self._listening if entry.handle != handle)

    def _drop_attempts(self, handle: int) -> None:
        """Remove a window from the batches and from those that wait to join one."""
        self._fallbacks.pop(handle, None)
        for kind, batch in list(self._batches.items()):
            batch.drop(handle)
            if not batch.active:
                del self._batches[kind]
        for kind, queue in self._waiting.items():
            self._waiting[kind] = deque(entry for entry in queue if entry.handle != handle)

    def decode(self, windows: Sequence[BatchWindow]) -> list[BatchResult]:
        """Decode these windows, and return them in their order; nothing else may be pending."""
        handles = [self.submit(window) for window in windows]
        results: dict[int, BatchResult] = {}
        while self.pending:
            results.update(self.step())
        return [results[handle] for handle in handles]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, BatchResult]]:
        """Let waiting windows join, sample one token for each row, and return the windows that are done.

        Raises:
            OutOfMemory: nothing is lost but the work in the batch; `max_batch` may be lowered and `restart` called.
        """
        with memory_errors(f"decoding {self.max_batch} windows at once"):
            self._hear()
            for kind in list(self._waiting):
                self._admit(kind)
            for kind, batch in list(self._batches.items()):
                for outcome in batch.step() if batch.active else ():
                    self._take(outcome)
                if not batch.active:
                    # Frees its memory; the windows of another kind may need it.
                    self._batches.pop(kind, None)
        ended, self._ended = self._ended, []
        return ended

    def restart(self) -> None:
        """Put all pending windows back to the start of their attempt and free what they held."""
        self._batches.clear()
        self._waiting.clear()
        self._fallbacks.clear()
        for entry in self._open.values():
            entry.features = None
            if not entry.window.only_language:
                self._queue(entry, first=False)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def detect_languages(self, windows: Sequence[BatchWindow]) -> list[dict[str, float]]:
        """Compute the probability of each language for each window.

        Raises:
            InputError: the model knows English only.
        """
        if not self._admission.multilingual:
            raise InputError("an English-only model cannot detect languages", code="options")
        with memory_errors("detecting languages"):
            return [self._admission.detect_language(window) for window in windows]

    def _check(self, window: BatchWindow) -> str | None:
        """Check that the model supports what a window asks for; return its language, or None if it must be detected."""
        options = window.options
        if (window.audio is None) == (window.mel is None):
            raise ValueError("a window has either audio or mel")
        if not 0 < seconds_of(window) <= CHUNK_LENGTH:
            raise InputError(f"a window of {seconds_of(window):.1f} s; they may have up to 30 s", code="options")
        suppressed_tokens(self._admission.tokenizer(), options.suppress_tokens)
        language = window.language or options.language
        if language is not None:
            language = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
            if language not in tuple(LANGUAGES)[: self._admission.languages]:
                raise InputError(f"this model does not know the language {language!r}", code="options")
        if self._admission.multilingual:
            return language
        if language not in (None, "en") or options.task == "translate":
            raise InputError("an English-only model transcribes English and nothing else", code="options")
        return "en"

    def _kind(self, options: TranscribeOptions, temperature: float) -> SearchKind:
        suppressed = suppressed_tokens(self._admission.tokenizer(), options.suppress_tokens)
        if temperature == 0 and options.beam_size is not None:
            candidates = max(1, round(options.beam_size * (options.patience or 1.0)))
            return SearchKind(beams=True, group=options.beam_size, max_candidates=candidates, suppressed=suppressed)
        group = 1 if temperature == 0 else options.best_of or 1
        return SearchKind(beams=False, group=group, max_candidates=group, suppressed=suppressed)

    def _queue(self, entry: BatchEntry, *, first: bool) -> None:
        options = entry.window.options
        kind = self._kind(options, options.temperature[entry.temperature_index])
        queue = self._waiting.setdefault(kind, deque())
        entry.waited_steps = 0
        if first:
            queue.appendleft(entry)
        else:
            queue.append(entry)

    def _hear(self) -> None:
        """Detect the language of some windows that are not to be decoded; of few, since it needs memory beside the batches."""
        count = min(max(1, self.max_batch // 4), len(self._listening))
        entries = [self._listening[number] for number in range(count)]
        if entries and self._admission.multilingual:
            self._admission.hear(entries)
        for entry in entries:
            self._listening.popleft()
            self._end(entry, _without_text(entry))

    def _end(self, entry: BatchEntry, result: BatchResult) -> None:
        del self._open[entry.handle]
        self._ended.append((entry.handle, result))

    def _admit(self, kind: SearchKind) -> None:
        """Let windows join their batch, several at a time: each joining costs a pass over the weights."""
        queue, batch = self._waiting[kind], self._batches.get(kind)
        if not queue:
            del self._waiting[kind]
            return
        free = self.max_batch if batch is None else batch.free
        company = max(1, self.max_batch // 4)
        alone = not any(other is not batch for other in self._batches.values())
        for entry in queue:
            entry.waited_steps += 1
        if batch is None or not batch.active:
            ready = alone or len(queue) >= company or queue[0].waited_steps > _PATIENCE_STEPS
        else:
            ready = free >= min(company, len(queue))
        if not ready or not free:
            return
        if batch is None:
            rules = Rules(self._admission.tokenizer(), kind.suppressed, self._dims.n_audio_ctx, self.device)
            batch = self._batches[kind] = Batch(self._network, rules, kind, self.max_batch)
        entries = [queue.popleft() for _ in range(min(free, len(queue)))]
        for entry in self._admission.admit(entries, batch, kind.group):
            self._end(entry, _without_text(entry))
        if not batch.active:
            del self._batches[kind]

    def _take(self, outcome: Outcome) -> None:
        """Judge an attempt that has ended, and those that waited for it."""
        entry = outcome.entry
        if entry.handle not in self._open:  # another attempt of this step gave the result
            return
        fallback = self._fallbacks.get(entry.handle)
        if fallback is None:
            self._finish_or_retry(outcome)
            return
        fallback.outcomes[entry.temperature_index] = outcome
        while fallback.attempts and (following := fallback.take_next()) is not None:
            if fallback.attempts:
                self._open[entry.handle] = fallback.attempts[min(fallback.attempts)]
            else:
                del self._fallbacks[entry.handle]
            if self._finish_or_retry(following):
                self._drop_attempts(entry.handle)
                return

    def _finish_or_retry(self, outcome: Outcome) -> bool:
        """Return whether this attempt gave the result of its window."""
        decoded = self._judge(outcome)
        if decoded is not None:
            self._end(outcome.entry, decoded)
        return decoded is not None

    def _judge(self, outcome: Outcome) -> BatchResult | None:
        """Return the result of an attempt, or None if the window must be tried again."""
        entry, options = outcome.entry, outcome.entry.window.options
        best = best_of(outcome.candidates, options.length_penalty)
        text = entry.tokenizer.decode(list(best.tokens)).strip()
        quality = Quality(
            avg_logprob=best.sum_logprob / (len(best.tokens) + 1),
            compression_ratio=compression_ratio(text),
            no_speech_prob=entry.no_speech_prob,
            looped=outcome.looped,
        )
        audible = is_audible(entry.window)
        if audible and quality.needs_fallback(options) and self._try_again(entry):
            return None
        seconds = seconds_of(entry.window)
        cut = cut_segments(best.tokens, entry.tokenizer, seconds, truncated=outcome.truncated)
        temperature, silent = options.temperature[entry.temperature_index], not audible or quality.is_silence(options)
        segments = () if silent else cut.segments
        if segments and outcome.watched is not None:
            segments = add_words(cut, attention_of(best, *outcome.watched), entry.tokenizer, seconds)
        return BatchResult(
            language=entry.language or "en",
            language_probability=entry.detected.probability,
            tokens=best.tokens,
            text=text,
            segments=tuple(
                replace(
                    segment,
                    temperature=temperature,
                    avg_logprob=quality.avg_logprob,
                    compression_ratio=quality.compression_ratio,
                    no_speech_prob=quality.no_speech_prob,
                )
                for segment in segments
            ),
            covered_seconds=seconds if silent else cut.covered_seconds,
            temperature=temperature,
            avg_logprob=quality.avg_logprob,
            compression_ratio=quality.compression_ratio,
            no_speech_prob=quality.no_speech_prob,
            silent=silent,
            attempts=entry.attempts,
            looped=outcome.looped,
            heard=entry.detected.heard or (),
        )

    def _try_again(self, entry: BatchEntry) -> bool:
        """Queue further attempts at a window, or return False if there are none; some may be running already."""
        following = entry.temperature_index + 1
        left = len(entry.window.options.temperature) - following
        if not entry.full:
            # The model was trained on 30 s: perhaps the shorter encoder is to blame.
            entry.full, entry.features = True, None
            entry.attempts += 1
            self._queue(entry, first=True)
        elif not left:
            return False
        elif entry.handle not in self._fallbacks:
            attempts = [
                replace(entry, temperature_index=following + number, attempts=entry.attempts + 1 + number)
                for number in range(min(left, self._spare_rows()))
            ]
            self._open[entry.handle] = attempts[0]
            if len(attempts) > 1:
                self._fallbacks[entry.handle] = Fallback({one.temperature_index: one for one in attempts})
            for attempt in reversed(attempts):
                self._queue(attempt, first=True)
        return True

    def _spare_rows(self) -> int:
        """Return how many attempts at a window may run at once.

        A step costs about as much for one window as for four. In a batch that is half full each window more costs time, and
        most of the higher temperatures would be decoded in vain.
        """
        busy = sum(batch.active for batch in self._batches.values()) + sum(map(len, self._waiting.values()))
        return max(1, self.max_batch // 2 - busy)


def _without_text(entry: BatchEntry) -> BatchResult:
    """Make the result of a window that was not decoded."""
    return BatchResult(
        language=entry.language or "",
        language_probability=None,
        tokens=(),
        text="",
        segments=(),
        covered_seconds=seconds_of(entry.window),
        temperature=0.0,
        avg_logprob=0.0,
        compression_ratio=0.0,
        no_speech_prob=0.0,
        silent=False,
        attempts=0,
        looped=False,
        heard=entry.detected.heard or (),
    )
