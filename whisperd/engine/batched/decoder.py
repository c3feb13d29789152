"""Windows of many recordings in one batch, over the weights of openai-whisper.

    decoder = BatchedDecoder(model, torch.device("cpu"))
    tickets = [decoder.submit(window) for window in windows]
    while decoder.pending:
        for ticket, decoded in decoder.step():
            ...

Windows differ in language, task, prompt and options; they join when they are submitted and leave when they are done.
What a window comes to does not depend on the others but for rounding.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from whisper.audio import CHUNK_LENGTH
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE
from whisper.utils import compression_ratio

from whisperd.engine.batched.align import Aligner
from whisperd.engine.batched.compute import memory_errors, resolve_compute_type
from whisperd.engine.batched.features import is_audible, seconds_of
from whisperd.engine.batched.lane import Lane, Manner, Outcome, Trial
from whisperd.engine.batched.network import TextDecoder
from whisperd.engine.batched.quality import Quality
from whisperd.engine.batched.rules import Rules, suppressed_tokens
from whisperd.engine.batched.search import best_of
from whisperd.engine.batched.segments import cut_segments
from whisperd.engine.batched.start import Starter
from whisperd.engine.batched.windows import Decoded, Window
from whisperd.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisperd.options import TranscribeOptions

_PATIENCE_STEPS = 64  # a few windows of another manner wait so long for company


class BatchedDecoder:
    """A loaded model that decodes windows. For one thread of one process.

    Args:
        model: a `whisper.model.Whisper` on any device; it is read, never changed, and may be deleted afterwards.
        device: where to compute.
        compute_type: "auto", "fp32", "bf16", "fp16" or "int8".
        max_batch: windows decoded at once.
        short_seconds: windows up to this length run through a shorter encoder.
        margin_seconds: silence that the encoder sees behind the audio of a short window.

    Raises:
        BootError: the device cannot compute in that type.
        OutOfMemory: the weights do not fit.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        compute_type: str = "auto",
        max_batch: int = 16,
        *,
        short_seconds: float = 27.0,
        margin_seconds: float = 3.0,
    ) -> None:
        self.device, self.max_batch = device, max_batch
        self.precision = resolve_compute_type(device, compute_type)
        self._short_seconds, self._dims = short_seconds, model.dims
        with memory_errors("loading the model"):
            self._network = TextDecoder(model, device, self.precision.dtype)
            self._starter = Starter(model, self._network, margin_seconds, quantised=self.precision.quantised)
        heads = [(int(layer), int(head)) for layer, head in model.alignment_heads.to_dense().nonzero().tolist()]
        self._aligner = Aligner(self._network, heads)
        self._lanes: dict[Manner, Lane] = {}
        self._waiting: dict[Manner, deque[Trial]] = {}
        self._tickets = 0
        self._open: dict[int, Trial] = {}

    @property
    def pending(self) -> int:
        """Windows submitted and not yet given out."""
        return len(self._open)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Text as tokens for a window's `prompt` or `prefix`."""
        return tuple(self._starter.tokenizer().encode(" " + text.strip()))

    def submit(self, window: Window) -> int:
        """Take a window; its ticket comes back from `step` with the result.

        Raises:
            InputError: the model cannot do what the options ask for, or the audio is longer than 30 s.
        """
        language = self._check(window)
        self._tickets += 1
        full = window.mel is not None or seconds_of(window) > self._short_seconds
        trial = Trial(self._tickets, window, language, full=full)
        self._open[trial.ticket] = trial
        self._queue(trial, first=False)
        return trial.ticket

    @torch.inference_mode()
    def withdraw(self, ticket: int) -> None:
        """Forget a window: its result will not be given out."""
        self._open.pop(ticket, None)
        for manner, lane in list(self._lanes.items()):
            lane.drop(ticket)
            if not lane.active:
                del self._lanes[manner]
        for manner, queue in self._waiting.items():
            self._waiting[manner] = deque(trial for trial in queue if trial.ticket != ticket)

    def decode(self, windows: Sequence[Window]) -> list[Decoded]:
        """Decode these windows, and return them in their order; nothing else may be pending."""
        tickets = [self.submit(window) for window in windows]
        results: dict[int, Decoded] = {}
        while self.pending:
            results.update(self.step())
        return [results[ticket] for ticket in tickets]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Decoded]]:
        """Let waiting windows join, sample one token for each row, and return the windows that are done.

        Raises:
            OutOfMemory: nothing is lost but the work in the batch; `max_batch` may be lowered and `restart` called.
        """
        finished = []
        with memory_errors(f"decoding {self.max_batch} windows at once"):
            for manner in list(self._waiting):
                self._admit(manner)
            for manner, lane in list(self._lanes.items()):
                for outcome in lane.step():
                    decoded = self._judge(outcome)
                    if decoded is not None:
                        del self._open[outcome.trial.ticket]
                        finished.append((outcome.trial.ticket, decoded))
                if not lane.active:
                    # Frees its memory; the windows of another manner may need it.
                    del self._lanes[manner]
        return finished

    def restart(self) -> None:
        """Put all pending windows back to the start of their attempt and free what they held."""
        self._lanes.clear()
        self._waiting.clear()
        for trial in self._open.values():
            trial.features = None
            self._queue(trial, first=False)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def detect_languages(self, windows: Sequence[Window]) -> list[dict[str, float]]:
        """Probability of each language, window by window.

        Raises:
            InputError: the model knows English only.
        """
        if not self._starter.multilingual:
            raise InputError("an English-only model cannot detect languages", code="options")
        with memory_errors("detecting languages"):
            return [self._starter.detect_language(window) for window in windows]

    def _check(self, window: Window) -> str | None:
        """What the window asks for can be done; its language, None if it is to be detected."""
        options = window.options
        if (window.audio is None) == (window.mel is None):
            raise ValueError("a window has either audio or mel")
        if not 0 < seconds_of(window) <= CHUNK_LENGTH:
            raise InputError(f"a window of {seconds_of(window):.1f} s; they may have up to 30 s", code="options")
        suppressed_tokens(self._starter.tokenizer(), options.suppress_tokens)
        language = window.language or options.language
        if language is not None:
            language = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
            if language not in tuple(LANGUAGES)[: self._starter.languages]:
                raise InputError(f"this model does not know the language {language!r}", code="options")
        if self._starter.multilingual:
            return language
        if language not in (None, "en") or options.task == "translate":
            raise InputError("an English-only model transcribes English and nothing else", code="options")
        return "en"

    def _manner(self, options: TranscribeOptions, temperature: float) -> Manner:
        suppressed = suppressed_tokens(self._starter.tokenizer(), options.suppress_tokens)
        if temperature == 0 and options.beam_size is not None:
            candidates = max(1, round(options.beam_size * (options.patience or 1.0)))
            return Manner(beams=True, group=options.beam_size, max_candidates=candidates, suppressed=suppressed)
        group = 1 if temperature == 0 else options.best_of or 1
        return Manner(beams=False, group=group, max_candidates=group, suppressed=suppressed)

    def _queue(self, trial: Trial, *, first: bool) -> None:
        options = trial.window.options
        manner = self._manner(options, options.temperature[trial.temperature_index])
        queue = self._waiting.setdefault(manner, deque())
        trial.waited_steps = 0
        if first:
            queue.appendleft(trial)
        else:
            queue.append(trial)

    def _admit(self, manner: Manner) -> None:
        """Let windows join their lane, several at a time: each joining costs a pass over the weights."""
        queue, lane = self._waiting[manner], self._lanes.get(manner)
        if not queue:
            del self._waiting[manner]
            return
        free = self.max_batch if lane is None else lane.free
        company = max(1, self.max_batch // 4)
        alone = not any(other is not lane for other in self._lanes.values())
        for trial in queue:
            trial.waited_steps += 1
        if lane is None or not lane.active:
            ready = alone or len(queue) >= company or queue[0].waited_steps > _PATIENCE_STEPS
        else:
            ready = free >= min(company, len(queue))
        if not ready or not free:
            return
        if lane is None:
            rules = Rules(self._starter.tokenizer(), manner.suppressed, self._dims.n_audio_ctx, self.device)
            lane = self._lanes[manner] = Lane(self._network, rules, manner, self.max_batch)
        trials = [queue.popleft() for _ in range(min(free, len(queue)))]
        self._starter.start(trials, lane, manner.group)

    def _judge(self, outcome: Outcome) -> Decoded | None:
        """The result, or None if the window is to be tried again."""
        trial, options = outcome.trial, outcome.trial.window.options
        best = best_of(outcome.candidates, options.length_penalty)
        text = trial.tokenizer.decode(list(best.tokens)).strip()
        quality = Quality(
            avg_logprob=best.sum_logprob / (len(best.tokens) + 1),
            compression_ratio=compression_ratio(text),
            no_speech_prob=trial.no_speech_prob,
            looped=outcome.looped,
        )
        audible = is_audible(trial.window)
        if audible and quality.needs_fallback(options) and self._try_again(trial):
            return None
        seconds = seconds_of(trial.window)
        cut = cut_segments(best.tokens, trial.tokenizer, seconds, truncated=outcome.truncated)
        temperature, silent = options.temperature[trial.temperature_index], not audible or quality.is_silence(options)
        segments = () if silent else cut.segments
        if options.word_timestamps:
            segments = self._aligner.add_words(segments, trial.encoded, trial.tokenizer, seconds)
        return Decoded(
            language=trial.language or "en",
            language_probability=trial.language_probability,
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
            attempts=trial.attempts,
            looped=outcome.looped,
        )

    def _try_again(self, trial: Trial) -> bool:
        if not trial.full:
            # The model was trained on 30 s: perhaps the shorter encoder is to blame.
            trial.full, trial.features = True, None
        elif trial.temperature_index + 1 < len(trial.window.options.temperature):
            trial.temperature_index += 1
        else:
            return False
        trial.attempts += 1
        self._queue(trial, first=True)
        return True
