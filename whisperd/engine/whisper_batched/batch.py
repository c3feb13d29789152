"""A batch: windows with the same search settings, decoded together; they join and leave at any step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from whisper.tokenizer import get_tokenizer

from whisperd.engine.limits import among, heard
from whisperd.engine.whisper_batched.encoder import AudioEncoder
from whisperd.engine.whisper_batched.quality import CHECK_EVERY_TOKENS, is_loop
from whisperd.engine.whisper_batched.search import BeamSearch, Candidate, Sampler, Search, SearchState
from whisperd.engine.whisper_batched.text_decoder import Cache
from whisperd.engine.whisper_batched.window import mel_of, seed_of

if TYPE_CHECKING:
    from torch import Tensor

    from whisperd.engine.whisper_batched.precision import Precision
    from whisperd.engine.whisper_batched.search import Rules
    from whisperd.engine.whisper_batched.text_decoder import KeyValue, TextDecoder
    from whisperd.engine.whisper_batched.window import BatchWindow


_FRAME_SAMPLES = 320  # of the encoder's output
_CUDA_STEPS_PER_LOOK = 8  # a transfer from the device stops its queue


@dataclass(frozen=True, slots=True)
class SearchKind:
    """The search settings that all windows of a batch share."""

    beams: bool
    group: int
    max_candidates: int
    suppressed: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Detected:
    """What was found out about the language of a window: of all of it, where it was not given, and of its parts."""

    probability: float | None = None
    heard: tuple[dict[str, float], ...] | None = None


@dataclass(slots=True, eq=False)
class BatchEntry:
    """A window on its way through one or more attempts."""

    handle: int
    window: BatchWindow
    language: str | None
    tokenizer: Any = None  # of the language, once it is known
    detected: Detected = field(default_factory=Detected)
    features: Tensor | None = None  # (frames, width)
    full: bool = False  # the encoder ran, or will run, over 30 s
    no_speech_prob: float = 0.0
    temperature_index: int = 0
    attempts: int = 1
    initial: tuple[int, ...] = ()
    sampled: int = 0
    checked: int = 0  # of the sampled ones, for loops
    waited_steps: int = 0

    @property
    def encoded(self) -> Tensor:
        """The features, which exist from the first attempt on."""
        assert self.features is not None
        return self.features


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        entry: the window.
        candidates: the sequences that were found.
        looped: it repeated itself and was stopped.
        truncated: there was no room for more tokens.
        watched: if words are wanted, the result of `Cache.watched` for all sampled tokens.
    """

    entry: BatchEntry
    candidates: list[Candidate] = field(default_factory=list)
    looped: bool = False
    truncated: bool = False
    watched: tuple[list[Tensor], list[Tensor]] | None = None


class Batch:
    """Slots for `capacity` windows, decoded in one kind."""

    def __init__(self, network: TextDecoder, rules: Rules, kind: SearchKind, capacity: int) -> None:
        self._network, self._rules, self._capacity = network, rules, capacity
        self._cache = Cache(network, capacity, kind.group)
        state = SearchState(capacity, kind.group, network.context + 1, network.device)
        self._search: Search = (
            BeamSearch(state, rules.eot, kind.max_candidates) if kind.beams else Sampler(state, rules.eot)
        )
        self._entries: list[BatchEntry] = []
        self._steps = 0

    @property
    def free(self) -> int:
        """Number of windows that may join now."""
        return self._capacity - len(self._entries)

    @property
    def active(self) -> int:
        """Number of windows being decoded."""
        return len(self._entries)

    def attend_to(self, entries: list[BatchEntry]) -> tuple[list[KeyValue], Tensor | None]:
        """Prepare the features of windows that will join in this order; returns the result of `Cache.attend_to`."""
        return self._cache.attend_to([entry.encoded for entry in entries])

    def join(self, entry: BatchEntry, own: list[KeyValue], temperature: float, noise: Tensor | None) -> None:
        """Begin an attempt; keys and values as for `Cache.join`, for all of `entry.initial`."""
        slot = len(self._entries)
        self._cache.join(own, len(entry.initial))
        self._search.join(slot, entry.initial, temperature, noise)
        entry.sampled = entry.checked = 0
        self._entries.append(entry)

    def drop(self, handle: int) -> None:
        """Forget a window, and all attempts at it that are here."""
        for slot in reversed(range(len(self._entries))):
            if self._entries[slot].handle == handle:
                self._leave(slot)

    def step(self) -> list[Outcome]:
        """Decode one token for every window, and remove the windows that have ended."""
        state, slots, group = self._search.state, len(self._entries), self._cache.group
        longest = max(len(entry.initial) + entry.sampled for entry in self._entries)
        lengths, begins = (tensor[:slots].repeat_interleave(group) for tensor in (state.lengths, state.begins))
        tokens = state.tokens[:slots].flatten(0, 1)[:, :longest]
        newest = tokens.gather(1, lengths[:, None] - 1)[:, 0]
        logits = self._network.logits(self._network.step(newest, lengths - 1, longest, self._cache))
        self._rules.apply(logits, tokens, lengths, begins)
        sources = self._search.advance(slots, logits)
        if sources is not None:
            self._cache.reorder(sources, longest)
        self._steps += 1
        for entry in self._entries:
            entry.sampled += 1
        return self._look()

    def _look(self) -> list[Outcome]:
        state, on_cuda = self._search.state, self._network.device.type == "cuda"
        at_limit = [entry.sampled >= self._limit(entry) for entry in self._entries]
        if on_cuda and self._steps % _CUDA_STEPS_PER_LOOK and not any(at_limit):
            return []
        done = state.done[: len(self._entries)].tolist()
        outcomes = []
        for slot in reversed(range(len(self._entries))):
            entry = self._entries[slot]
            looped = not done[slot] and self._is_loop(slot, entry)
            if done[slot] or looped or at_limit[slot]:
                truncated = not done[slot] and not looped
                outcomes.append(
                    Outcome(entry, self._search.candidates(slot), looped, truncated, self._watched(slot, entry))
                )
                self._leave(slot)
        return outcomes

    def _watched(self, slot: int, entry: BatchEntry) -> tuple[list[Tensor], list[Tensor]] | None:
        if not entry.window.options.word_timestamps:
            return None
        # The last initial token asks for the first sampled one.
        return self._cache.watched(slot, len(entry.initial) - 1, entry.sampled)

    def _limit(self, entry: BatchEntry) -> int:
        """Number of tokens that may be sampled: half the context, and no more than fits."""
        context: int = self._network.context
        return min(context // 2, context + 1 - len(entry.initial))

    def _is_loop(self, slot: int, entry: BatchEntry) -> bool:
        threshold = entry.window.options.compression_ratio_threshold
        if threshold is None or entry.sampled - entry.checked < CHECK_EVERY_TOKENS:
            return False
        entry.checked = entry.sampled
        begin = len(entry.initial)
        rows = self._search.state.tokens[slot, :, begin : begin + entry.sampled].tolist()
        return all(self._rules.eot in row or is_loop(row, entry.tokenizer, threshold) for row in rows)

    def _leave(self, slot: int) -> None:
        last = len(self._entries) - 1
        moved = self._entries[last]
        self._cache.leave(slot, min(len(moved.initial) + moved.sampled, self._network.context))
        if slot != last:
            self._search.move(last, slot)
            self._entries[slot] = moved
        del self._entries[last]


def noise_for(seed: int, group: int, places: int) -> Tensor:
    """Make random numbers (group, places) that depend only on the window, so that decoding it again gives the same samples."""
    return torch.rand(group, places, generator=torch.Generator().manual_seed(seed))


class Admission:
    """Prepares windows to join a batch: features, language and initial tokens.

    Args:
        model: a `whisper.model.Whisper`; it is read, never changed.
        network: its decoder.
        margin_seconds: silence that the encoder sees behind the audio of a short window.
        precision: of the encoder.
    """

    def __init__(self, model: Any, network: TextDecoder, margin_seconds: float, precision: Precision) -> None:
        self._encoder = AudioEncoder(model, network.device, precision)
        self._network, self._dims, self._margin_seconds = network, model.dims, margin_seconds
        self.multilingual: bool = model.is_multilingual
        self.languages: int = model.num_languages

    def tokenizer(self, language: str | None = None, task: str = "transcribe") -> Any:
        """Return openai-whisper's tokenizer, made once for each language and task."""
        return get_tokenizer(self.multilingual, num_languages=self.languages, language=language, task=task)

    def admit(self, entries: list[BatchEntry], batch: Batch, group: int) -> list[BatchEntry]:
        """Add windows to a batch; encode those that are not encoded yet.

        Returns:
            The windows that did not join, because what was heard in their parts was not accepted.
        """
        self._encode([entry for entry in entries if entry.features is None])
        cross, mask = batch.attend_to(entries)
        refused = self._listen(entries, cross, mask)
        if refused:
            entries = [entry for entry in entries if entry not in refused]
            if not entries:
                return refused
            cross, mask = batch.attend_to(entries)
        self._name_languages(entries, cross, mask)
        for entry in entries:
            entry.initial = self._initial_tokens(entry)
        device, width = self._network.device, max(len(entry.initial) for entry in entries)
        padded = [[*entry.initial, *[0] * (width - len(entry.initial))] for entry in entries]
        filled = self._network.prefill(torch.tensor(padded, device=device), cross, mask)
        starts = torch.tensor([entry.initial.index(entry.tokenizer.sot) for entry in entries], device=device)
        at_start = filled.hidden[torch.arange(len(entries), device=device), starts]
        silences = self._network.logits(at_start).softmax(-1)[:, entries[0].tokenizer.no_speech].tolist()
        for row, entry in enumerate(entries):
            entry.no_speech_prob = silences[row]
            temperature = entry.window.options.temperature[entry.temperature_index]
            noise = None
            if temperature > 0:
                noise = noise_for(seed_of(entry.window) + entry.temperature_index, group, self._dims.n_text_ctx + 1)
            batch.join(entry, [(key[row], value[row]) for key, value in filled.own], temperature, noise)
        return refused

    def detect_language(self, window: BatchWindow) -> dict[str, float]:
        """Compute the probability of each language that the model knows."""
        mel = mel_of(window, self._dims.n_mels, None, self._network.device)
        return self._detect(self._network.cross([self._encoder(mel[None])[0]]), None)[0]

    def hear(self, entries: list[BatchEntry]) -> None:
        """Detect the language of whole windows, by themselves, which are then given back without text."""
        self._encode([entry for entry in entries if entry.features is None])
        by_length = sorted(entries, key=lambda entry: len(entry.encoded))
        for _, alike in groupby(by_length, key=lambda entry: len(entry.encoded)):
            same = list(alike)
            chances = self._detect(self._network.cross([entry.encoded for entry in same]), None)
            for entry, one in zip(same, chances, strict=True):
                entry.detected.heard = (heard(among(one, entry.window.options.languages)),)

    def _listen(self, entries: list[BatchEntry], cross: list[KeyValue], mask: Tensor | None) -> list[BatchEntry]:
        """Detect the language of the parts of windows, once each; returns the windows of which that was not accepted.

        The features are those of the whole window: each part sees only its own of them, so that it costs one step of the
        decoder, not a run of the encoder.
        """
        listening = self.multilingual and any(entry.window.parts and entry.detected.heard is None for entry in entries)
        if not listening:
            return []
        device, frames = self._network.device, cross[0][0].shape[2]
        rows = max(len(entry.window.parts) for entry in entries)
        hidden = torch.zeros((len(entries), 1, rows, frames), dtype=cross[0][0].dtype, device=device)
        if mask is not None:
            hidden += mask
        at = torch.arange(frames, device=device)
        for number, entry in enumerate(entries):
            for row, (start, end) in enumerate(entry.window.parts):
                first, last = start // _FRAME_SAMPLES, -(-end // _FRAME_SAMPLES)
                hidden[number, 0, row].masked_fill_((at < first) | (at >= last), -torch.inf)
        tokenizer = self.tokenizer()
        logits = self._network.logits(self._network.first(tokenizer.sot, cross, hidden))
        chances = logits[..., list(tokenizer.all_language_tokens)].softmax(-1).tolist()
        refused = []
        for entry, own in zip(entries, chances, strict=True):
            if not entry.window.parts or entry.detected.heard is not None:
                continue
            named = (
                dict(zip(tokenizer.all_language_codes, row, strict=True)) for row in own[: len(entry.window.parts)]
            )
            entry.detected.heard = tuple(heard(among(one, entry.window.options.languages)) for one in named)
            if entry.window.accepts is not None and not entry.window.accepts(entry.detected.heard):
                refused.append(entry)
        return refused

    def _encode(self, entries: list[BatchEntry]) -> None:
        mels = []
        for entry in entries:
            margin = None if entry.full else self._margin_seconds
            mels.append(mel_of(entry.window, self._dims.n_mels, margin, self._network.device))
        by_length = sorted(zip(entries, mels, strict=True), key=lambda pair: pair[1].shape[-1])
        for _, alike in groupby(by_length, key=lambda pair: pair[1].shape[-1]):
            pairs = list(alike)
            features = self._encoder(torch.stack([mel for _, mel in pairs]))
            for (entry, _), one in zip(pairs, features, strict=True):
                entry.features = one

    def _name_languages(self, entries: list[BatchEntry], cross: list[KeyValue], mask: Tensor | None) -> None:
        if any(entry.language is None for entry in entries):
            for entry, chances in zip(entries, self._detect(cross, mask), strict=True):
                if entry.language is None:
                    chances = among(chances, entry.window.options.languages)  # noqa: PLW2901
                    likeliest = max(chances, key=chances.__getitem__)
                    entry.language, entry.detected.probability = likeliest, chances[likeliest]
        for entry in entries:
            entry.tokenizer = self.tokenizer(entry.language, entry.window.options.task)

    def _detect(self, cross: list[KeyValue], mask: Tensor | None) -> list[dict[str, float]]:
        tokenizer = self.tokenizer()
        start = torch.full((len(cross[0][0]), 1), tokenizer.sot, device=self._network.device)
        logits = self._network.logits(self._network.prefill(start, cross, mask).hidden[:, 0])
        chances = logits[:, list(tokenizer.all_language_tokens)].softmax(-1).tolist()
        return [dict(zip(tokenizer.all_language_codes, row, strict=True)) for row in chances]

    def _initial_tokens(self, entry: BatchEntry) -> tuple[int, ...]:
        """Return prompt, start, language, task and prefix as tokens, as `DecodingTask._get_initial_tokens` does."""
        tokenizer, window, half = entry.tokenizer, entry.window, self._dims.n_text_ctx // 2
        prompt = (tokenizer.sot_prev, *window.prompt[-(half - 1) :]) if window.prompt else ()
        return (*prompt, *tokenizer.sot_sequence, *window.prefix)
