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
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from whisper.audio import CHUNK_LENGTH
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer
from whisper.utils import compression_ratio

from whisperd.engine.batched.align import Aligner
from whisperd.engine.batched.compute import memory_errors, resolve_compute_type
from whisperd.engine.batched.encoder import AudioEncoder
from whisperd.engine.batched.features import mel_of, seconds_of, seed_of
from whisperd.engine.batched.lane import Lane, Manner, Outcome, Trial, noise_for
from whisperd.engine.batched.network import TextDecoder
from whisperd.engine.batched.quality import Quality
from whisperd.engine.batched.rules import Rules, suppressed_tokens
from whisperd.engine.batched.search import best_of
from whisperd.engine.batched.segments import cut_segments
from whisperd.engine.batched.windows import Decoded, Window
from whisperd.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from whisperd.engine.batched.network import KeyValue
    from whisperd.options import TranscribeOptions

_PATIENCE_STEPS = 64  # a few windows of another manner wait so long for company


class BatchedDecoder:
    """A loaded model that decodes windows. For one thread of one process.

    Args:
        model: a `whisper.model.Whisper` on any device; it is read, never changed, and may be deleted afterwards.
        device: where to compute.
        compute_type: "auto", "fp32", "bf16" or "fp16".
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
        short_seconds: float = 15.0,
        margin_seconds: float = 2.0,
    ) -> None:
        self.device, self.max_batch = device, max_batch
        self.dtype = resolve_compute_type(device, compute_type)
        self._short_seconds, self._margin_seconds = short_seconds, margin_seconds
        self._multilingual, self._languages = model.is_multilingual, model.num_languages
        self._dims = model.dims
        with memory_errors("loading the model"):
            self._encoder = AudioEncoder(model, device, self.dtype)
            self._network = TextDecoder(model, device, self.dtype)
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
        return tuple(self._tokenizer(None, "transcribe").encode(" " + text.strip()))

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
        if not self._multilingual:
            raise InputError("an English-only model cannot detect languages", code="options")
        with memory_errors("detecting languages"):
            features = [self._encoder(mel_of(window, self._dims.n_mels, None, self.device)[None]) for window in windows]
            return [self._detect(self._network.cross(one))[0] for one in features]

    def _check(self, window: Window) -> str | None:
        """What the window asks for can be done; its language, None if it is to be detected."""
        options = window.options
        if (window.audio is None) == (window.mel is None):
            raise ValueError("a window has either audio or mel")
        if not 0 < seconds_of(window) <= CHUNK_LENGTH:
            raise InputError(f"a window of {seconds_of(window):.1f} s; they may have up to 30 s", code="options")
        suppressed_tokens(self._tokenizer(None, "transcribe"), options.suppress_tokens)
        language = window.language or options.language
        if language is not None:
            language = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
            if language not in tuple(LANGUAGES)[: self._languages]:
                raise InputError(f"this model does not know the language {language!r}", code="options")
        if self._multilingual:
            return language
        if language not in (None, "en") or options.task == "translate":
            raise InputError("an English-only model transcribes English and nothing else", code="options")
        return "en"

    def _tokenizer(self, language: str | None, task: str) -> Any:
        return get_tokenizer(self._multilingual, num_languages=self._languages, language=language, task=task)

    def _manner(self, options: TranscribeOptions, temperature: float) -> Manner:
        suppressed = suppressed_tokens(self._tokenizer(None, "transcribe"), options.suppress_tokens)
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
            rules = Rules(self._tokenizer(None, "transcribe"), manner.suppressed, self._dims.n_audio_ctx, self.device)
            lane = self._lanes[manner] = Lane(self._network, rules, manner, self.max_batch, self._dims.n_audio_ctx)
        trials = [queue.popleft() for _ in range(min(free, len(queue)))]
        self._encode([trial for trial in trials if trial.features is None])
        for _, alike in groupby(sorted(trials, key=_frames), key=_frames):
            self._begin(lane, manner, list(alike))

    def _encode(self, trials: list[Trial]) -> None:
        mels = []
        for trial in trials:
            margin = None if trial.full else self._margin_seconds
            mels.append(mel_of(trial.window, self._dims.n_mels, margin, self.device))
        by_length = sorted(zip(trials, mels, strict=True), key=lambda pair: pair[1].shape[-1])
        for _, alike in groupby(by_length, key=lambda pair: pair[1].shape[-1]):
            pairs = list(alike)
            features = self._encoder(torch.stack([mel for _, mel in pairs]))
            for (trial, _), one in zip(pairs, features, strict=True):
                trial.features = one

    def _begin(self, lane: Lane, manner: Manner, trials: list[Trial]) -> None:
        """Start an attempt for windows with features of one length."""
        cross = self._network.cross(torch.stack([_features(trial) for trial in trials]))
        self._name_languages(trials, cross)
        for trial in trials:
            trial.initial = self._initial_tokens(trial)
        width = max(len(trial.initial) for trial in trials)
        padded = [[*trial.initial, *[0] * (width - len(trial.initial))] for trial in trials]
        filled = self._network.prefill(torch.tensor(padded, device=self.device), cross)
        starts = torch.tensor([trial.initial.index(trial.tokenizer.sot) for trial in trials], device=self.device)
        at_start = filled.hidden[torch.arange(len(trials), device=self.device), starts]
        silences = self._network.logits(at_start).softmax(-1)[:, trials[0].tokenizer.no_speech].tolist()
        for row, trial in enumerate(trials):
            trial.no_speech_prob = silences[row]
            temperature = trial.window.options.temperature[trial.temperature_index]
            noise = None
            if temperature > 0:
                noise = noise_for(
                    seed_of(trial.window) + trial.temperature_index, manner.group, self._dims.n_text_ctx + 1
                )
            own = [(key[row], value[row]) for key, value in filled.own]
            lane.join(trial, own, [(key[row], value[row]) for key, value in cross], temperature, noise)

    def _name_languages(self, trials: list[Trial], cross: list[KeyValue]) -> None:
        unknown = [row for row, trial in enumerate(trials) if trial.language is None]
        if unknown:
            found = self._detect([(key[unknown], value[unknown]) for key, value in cross])
            for row, chances in zip(unknown, found, strict=True):
                likeliest = max(chances, key=chances.__getitem__)
                trials[row].language, trials[row].language_probability = likeliest, chances[likeliest]
        for trial in trials:
            trial.tokenizer = self._tokenizer(trial.language, trial.window.options.task)

    def _detect(self, cross: list[KeyValue]) -> list[dict[str, float]]:
        tokenizer = self._tokenizer(None, "transcribe")
        start = torch.full((len(cross[0][0]), 1), tokenizer.sot, device=self.device)
        logits = self._network.logits(self._network.prefill(start, cross).hidden[:, 0])
        chances = logits[:, list(tokenizer.all_language_tokens)].softmax(-1).tolist()
        return [dict(zip(tokenizer.all_language_codes, row, strict=True)) for row in chances]

    def _initial_tokens(self, trial: Trial) -> tuple[int, ...]:
        """Prompt, start, language and task, prefix: `DecodingTask._get_initial_tokens`."""
        tokenizer, window, half = trial.tokenizer, trial.window, self._dims.n_text_ctx // 2
        prompt = (tokenizer.sot_prev, *window.prompt[-(half - 1) :]) if window.prompt else ()
        return (*prompt, *tokenizer.sot_sequence, *window.prefix)

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
        if quality.needs_fallback(options) and self._try_again(trial):
            return None
        seconds = seconds_of(trial.window)
        cut = cut_segments(best.tokens, trial.tokenizer, seconds, truncated=outcome.truncated)
        temperature, silent = options.temperature[trial.temperature_index], quality.is_silence(options)
        segments = () if silent else cut.segments
        if options.word_timestamps:
            segments = self._aligner.add_words(segments, _features(trial), trial.tokenizer, seconds)
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


def _features(trial: Trial) -> Tensor:
    assert trial.features is not None
    return trial.features


def _frames(trial: Trial) -> int:
    return _features(trial).shape[0]
