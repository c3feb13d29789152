"""One batch on its way: windows that are searched in the same manner, joining and leaving at any step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from whisperd.engine.batched.cache import Cache
from whisperd.engine.batched.loops import CHECK_EVERY_TOKENS, is_loop
from whisperd.engine.batched.search import BeamSearch, Candidate, Sampler, Search, State

if TYPE_CHECKING:
    from torch import Tensor

    from whisperd.engine.batched.network import KeyValue, TextDecoder
    from whisperd.engine.batched.rules import Rules
    from whisperd.engine.batched.windows import Window

_CUDA_STEPS_PER_LOOK = 8  # a transfer from the device stops its queue


@dataclass(frozen=True, slots=True)
class Manner:
    """What the windows of one lane have in common."""

    beams: bool
    group: int
    max_candidates: int
    suppressed: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Trial:
    """A window on its way through one or more attempts."""

    ticket: int
    window: Window
    language: str | None
    tokenizer: Any = None  # of the language, once it is known
    language_probability: float | None = None
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
        """The features, which are there from the first attempt on."""
        assert self.features is not None
        return self.features


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended."""

    trial: Trial
    candidates: list[Candidate] = field(default_factory=list)
    looped: bool = False
    truncated: bool = False  # no room for more tokens


class Lane:
    """Slots for `capacity` windows, decoded in one manner."""

    def __init__(self, network: TextDecoder, rules: Rules, manner: Manner, capacity: int) -> None:
        self._network, self._rules, self._capacity = network, rules, capacity
        self._cache = Cache(network, capacity, manner.group)
        state = State(capacity, manner.group, network.context + 1, network.device)
        self._search: Search = (
            BeamSearch(state, rules.eot, manner.max_candidates) if manner.beams else Sampler(state, rules.eot)
        )
        self._trials: list[Trial] = []
        self._steps = 0

    @property
    def free(self) -> int:
        """Windows that may join now."""
        return self._capacity - len(self._trials)

    @property
    def active(self) -> int:
        """Windows being decoded."""
        return len(self._trials)

    def attend_to(self, trials: list[Trial]) -> tuple[list[KeyValue], Tensor | None]:
        """Take in the features of windows that will join in this order; what `Cache.attend_to` returns."""
        return self._cache.attend_to([trial.encoded for trial in trials])

    def join(self, trial: Trial, own: list[KeyValue], temperature: float, noise: Tensor | None) -> None:
        """Begin an attempt; keys and values as for `Cache.join`, for all of `trial.initial`."""
        slot = len(self._trials)
        self._cache.join(own, len(trial.initial))
        self._search.join(slot, trial.initial, temperature, noise)
        trial.sampled = trial.checked = 0
        self._trials.append(trial)

    def drop(self, ticket: int) -> None:
        """Forget a window, if it is here."""
        for slot, trial in enumerate(self._trials):
            if trial.ticket == ticket:
                self._leave(slot)
                return

    def step(self) -> list[Outcome]:
        """One token for every window; those that have come to their end leave."""
        state, slots, group = self._search.state, len(self._trials), self._cache.group
        longest = max(len(trial.initial) + trial.sampled for trial in self._trials)
        lengths, begins = (tensor[:slots].repeat_interleave(group) for tensor in (state.lengths, state.begins))
        tokens = state.tokens[:slots].flatten(0, 1)[:, :longest]
        newest = tokens.gather(1, lengths[:, None] - 1)[:, 0]
        logits = self._network.logits(self._network.step(newest, lengths - 1, longest, self._cache))
        self._rules.apply(logits, tokens, lengths, begins)
        sources = self._search.advance(slots, logits)
        if sources is not None:
            self._cache.reorder(sources, longest)
        self._steps += 1
        for trial in self._trials:
            trial.sampled += 1
        return self._look()

    def _look(self) -> list[Outcome]:
        state, on_cuda = self._search.state, self._network.device.type == "cuda"
        at_limit = [trial.sampled >= self._limit(trial) for trial in self._trials]
        if on_cuda and self._steps % _CUDA_STEPS_PER_LOOK and not any(at_limit):
            return []
        done = state.done[: len(self._trials)].tolist()
        outcomes = []
        for slot in reversed(range(len(self._trials))):
            trial = self._trials[slot]
            looped = not done[slot] and self._is_loop(slot, trial)
            if done[slot] or looped or at_limit[slot]:
                truncated = not done[slot] and not looped
                outcomes.append(Outcome(trial, self._search.candidates(slot), looped, truncated))
                self._leave(slot)
        return outcomes

    def _limit(self, trial: Trial) -> int:
        """Tokens that may be sampled: half the context, and no more than there is room for."""
        context: int = self._network.context
        return min(context // 2, context + 1 - len(trial.initial))

    def _is_loop(self, slot: int, trial: Trial) -> bool:
        threshold = trial.window.options.compression_ratio_threshold
        if threshold is None or trial.sampled - trial.checked < CHECK_EVERY_TOKENS:
            return False
        trial.checked = trial.sampled
        begin = len(trial.initial)
        rows = self._search.state.tokens[slot, :, begin : begin + trial.sampled].tolist()
        return all(self._rules.eot in row or is_loop(row, trial.tokenizer, threshold) for row in rows)

    def _leave(self, slot: int) -> None:
        last = len(self._trials) - 1
        moved = self._trials[last]
        self._cache.leave(slot, min(len(moved.initial) + moved.sampled, self._network.context))
        if slot != last:
            self._search.move(last, slot)
            self._trials[slot] = moved
        del self._trials[last]


def noise_for(seed: int, group: int, places: int) -> Tensor:
    """Numbers that depend on the window alone, so a window decoded again gives the same samples: (group, places)."""
    return torch.rand(group, places, generator=torch.Generator().manual_seed(seed))
