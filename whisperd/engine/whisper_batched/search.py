"""Chooses the next token of every row: first openai-whisper's rules, then the likeliest token, a sample, or beams.

The rules are those of `SuppressTokens` and `ApplyTimestampRules` of `whisper.decoding`, which look at each row in a
Python loop; here they are a few operations over all rows, without a transfer from the device. `SuppressBlank` is
contained: the first token has to be a timestamp, so it is neither blank nor the end. The search has the semantics of
`GreedyDecoder`, `BeamSearchDecoder` and `MaximumLikelihoodRanker`, per window instead of per call: a window is done
when its own rows are, whatever else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from whisper.audio import CHUNK_LENGTH

from whisperd.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


MAX_INITIAL_TIMESTAMP_SECONDS = 1.0  # openai-whisper's default


def suppressed_tokens(tokenizer: Any, wanted: str) -> tuple[int, ...]:
    """List the tokens that are never sampled: those of `DecodingTask._get_suppress_tokens`, and `<|notimestamps|>`.

    Args:
        tokenizer: a `whisper.tokenizer.Tokenizer`.
        wanted: comma-separated token numbers, of which -1 stands for all that are no speech; may be empty.

    Raises:
        InputError: something else than numbers of the vocabulary.
    """
    try:
        tokens = {int(token) for token in wanted.split(",")} if wanted.strip() else set()
    except ValueError as error:
        raise InputError(f"suppress_tokens: {wanted!r} is no list of token numbers", code="options") from error
    if -1 in tokens:
        tokens = {token for token in tokens if token >= 0} | set(tokenizer.non_speech_tokens)
    outside = [token for token in tokens if not 0 <= token < tokenizer.encoding.n_vocab]
    if outside:
        raise InputError(f"suppress_tokens: {outside} are not in this model's vocabulary", code="options")
    never = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
        tokenizer.no_timestamps,
    )
    return tuple(sorted(tokens.union(never)))


class Rules:
    """The rules for one set of suppressed tokens.

    Args:
        tokenizer: a `whisper.tokenizer.Tokenizer` of the model; its language and task do not matter.
        suppressed: from `suppressed_tokens`.
        audio_context: features of a full window (1500), of `CHUNK_LENGTH` = 30 s.
        device: where logits and tokens are.
    """

    def __init__(self, tokenizer: Any, suppressed: tuple[int, ...], audio_context: int, device: torch.device) -> None:
        self.eot: int = tokenizer.eot
        self.stamps_begin: int = tokenizer.timestamp_begin
        self._suppressed = torch.tensor(suppressed, device=device)
        self._latest_first = round(MAX_INITIAL_TIMESTAMP_SECONDS * audio_context / CHUNK_LENGTH)

    def apply(self, logits: Tensor, tokens: Tensor, lengths: Tensor, begins: Tensor) -> None:
        """Set tokens that may not come next to minus infinity, in place.

        Args:
            logits: (rows, vocabulary), float32.
            tokens: (rows, places); what stands at or beyond a row's length does not matter.
            lengths: (rows,), tokens in each row, the initial ones included.
            begins: (rows,), where sampling began in each row.
        """
        logits.index_fill_(1, self._suppressed, -torch.inf)
        words = logits[:, : self.eot]
        specials = logits[:, self.eot : self.stamps_begin]  # the end, and languages
        stamps = logits[:, self.stamps_begin :]

        last_is_stamp, pair_is_open, next_stamp = self._history(tokens, lengths, begins)
        first = lengths == begins
        stamp = torch.arange(stamps.shape[1], device=logits.device)
        closed = stamp < next_stamp[:, None]
        closed |= first[:, None] & (stamp > self._latest_first)
        closed |= (last_is_stamp & ~pair_is_open)[:, None]
        stamps.masked_fill_(closed, -torch.inf)

        # Where all timestamps together are likelier than any text, it has to be a timestamp.
        best_word = words.amax(-1).masked_fill(first | pair_is_open, -torch.inf)
        best_special = specials.amax(-1).masked_fill(first, -torch.inf)
        no_text = first | (stamps.logsumexp(-1) > torch.maximum(best_word, best_special))
        _close_rows(words, no_text | pair_is_open)
        specials.masked_fill_(no_text[:, None], -torch.inf)

    def _history(self, tokens: Tensor, lengths: Tensor, begins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per row: the last token is a timestamp; it is the first of a pair; the earliest timestamp allowed now."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        sampled = (place >= begins[:, None]) & (place < lengths[:, None])
        is_stamp = (tokens >= self.stamps_begin) & sampled

        def is_stamp_at(places: Tensor) -> Tensor:
            return is_stamp.gather(1, places.clamp(min=0)[:, None])[:, 0]

        last_is_stamp = is_stamp_at(lengths - 1)
        before_is_stamp = (lengths - begins <= 1) | is_stamp_at(lengths - 2)
        pair_is_open = last_is_stamp & ~before_is_stamp
        newest_at = torch.where(is_stamp, place, -1).amax(-1)
        newest = tokens.gather(1, newest_at.clamp(min=0)[:, None])[:, 0] - self.stamps_begin
        # A segment must not be empty, so only an open pair may repeat its timestamp.
        next_stamp = torch.where(pair_is_open, newest, newest + 1).masked_fill(newest_at < 0, 0)
        return last_is_stamp, pair_is_open, next_stamp


def _close_rows(logits: Tensor, closed: Tensor) -> None:
    if logits.is_cuda:
        logits.masked_fill_(closed[:, None], -torch.inf)  # to find the rows would wait for the device
    else:
        logits.index_fill_(0, closed.nonzero()[:, 0], -torch.inf)  # few of them: a fifth of the time


@dataclass(frozen=True, slots=True)
class Candidate:
    """One finished sequence.

    Attributes:
        tokens: without the initial ones and without the end.
        sum_logprob: summed log-probability of these and the end.
        logprobs: log-probability of each token.
        rows: of each token and then of the end, if it was found: the row of the window that looked for it.
    """

    tokens: tuple[int, ...]
    sum_logprob: float
    logprobs: tuple[float, ...] = ()
    rows: tuple[int, ...] = ()


def best_of(candidates: Sequence[Candidate], length_penalty: float | None) -> Candidate:
    """Choose the likeliest candidate per token, or by the length penalty of Google's translator (arXiv:1609.08144, section 7)."""

    def score(candidate: Candidate) -> float:
        length = len(candidate.tokens)
        # An empty sequence would divide by zero: its end still counts as one token.
        divisor = max(length, 1) if length_penalty is None else ((5 + length) / 6) ** length_penalty
        return candidate.sum_logprob / divisor

    return max(candidates, key=score)


class SearchState:
    """The tokens so far, for `capacity` windows of `group` rows; the slots in use are the first ones.

    Attributes:
        tokens: (capacity, group, places), the initial ones included.
        lengths: (capacity,), tokens in each row of the window; no longer grows once the window is done.
        begins: (capacity,), where sampling began.
        sums: (capacity, group), summed log-probability of what was sampled.
        done: (capacity,), nothing more is to be sampled.
    """

    def __init__(self, capacity: int, group: int, places: int, device: torch.device) -> None:
        self.tokens = torch.zeros(capacity, group, places, dtype=torch.long, device=device)
        self.lengths = torch.ones(capacity, dtype=torch.long, device=device)
        self.begins = torch.ones(capacity, dtype=torch.long, device=device)
        self.sums = torch.zeros(capacity, group, device=device)
        self.done = torch.zeros(capacity, dtype=torch.bool, device=device)

    def join(self, slot: int, initial: Sequence[int]) -> None:
        """Begin a window with its initial tokens."""
        self.tokens[slot, :, : len(initial)] = torch.tensor(initial, device=self.tokens.device)
        self.lengths[slot] = self.begins[slot] = len(initial)
        self.sums[slot] = 0.0
        self.done[slot] = False

    def move(self, source: int, target: int) -> None:
        """Move a window to another slot."""
        for tensor in (self.tokens, self.lengths, self.begins, self.sums, self.done):
            tensor[target] = tensor[source]

    def append(self, slots: int, chosen: Tensor) -> None:
        """Append `chosen`, (slots, group), to the windows that are not done."""
        write_at(self.tokens, slots, self.lengths, chosen)
        self.lengths[:slots] += ~self.done[:slots]


def write_at(kept: Tensor, slots: int, lengths: Tensor, values: Tensor) -> None:
    """Write `values`, (slots, group), to the places of `kept`, (capacity, group, places), at which each window's rows end."""
    window = torch.arange(slots, device=kept.device)
    # A window that is done writes behind its end, where nobody looks.
    kept[window, :, lengths[:slots].clamp(max=kept.shape[-1] - 1)] = values


class Search(Protocol):
    """The protocol of a search, which chooses the tokens of all windows of a batch."""

    state: SearchState

    def join(self, slot: int, initial: Sequence[int], temperature: float, noise: Tensor | None) -> None:
        """Begin a window; `noise` is (group, places), uniform in [0, 1), for temperatures above zero."""
        ...

    def move(self, source: int, target: int) -> None:
        """Move a window to another slot."""
        ...

    def advance(self, slots: int, logits: Tensor) -> Tensor | None:
        """Choose one token per row from (slots * group, vocabulary); returns the order for `Cache.reorder`, or None."""
        ...

    def candidates(self, slot: int) -> list[Candidate]:
        """Return the candidates of a window, in the order in which equal scores are preferred."""
        ...


_BLOCK = 256  # logits


def likeliest(logits: Tensor) -> Tensor:
    """Find the place of the largest of (..., vocabulary), the first of equal ones.

    On a CPU `argmax` takes ten times as long as `amax`, so it is asked for the best block and then for the best place in it.
    """
    places = logits.shape[-1]
    if logits.is_cuda or places < _BLOCK:
        return logits.argmax(-1)
    whole = places // _BLOCK * _BLOCK
    best: Tensor = logits[..., :whole].unflatten(-1, (-1, _BLOCK)).amax(-1)  # type: ignore[no-untyped-call]
    if whole < places:
        best = torch.cat([best, logits[..., whole:].amax(-1, keepdim=True)], -1)
    inside = best.argmax(-1, keepdim=True) * _BLOCK + torch.arange(_BLOCK)
    inside.clamp_(max=places - 1)
    return inside.gather(-1, logits.gather(-1, inside).argmax(-1, keepdim=True))[..., 0]


class Sampler:
    """Chooses the likeliest token at temperature 0, otherwise samples, in `group` independent rows of each window.

    A sample comes from the row's own numbers, so it does not depend on what else is in the batch.
    """

    def __init__(self, state: SearchState, eot: int) -> None:
        self.state, self._eot = state, eot
        capacity, group, places = state.tokens.shape
        self._noise = torch.zeros(capacity, group, places, device=state.tokens.device)
        self._logprobs = torch.zeros(capacity, group, places, device=state.tokens.device)
        self._temperatures = [0.0] * capacity

    def join(self, slot: int, initial: Sequence[int], temperature: float, noise: Tensor | None) -> None:
        """Begin a window."""
        self.state.join(slot, initial)
        self._temperatures[slot] = temperature
        if noise is not None:
            self._noise[slot] = noise.to(self._noise.device)

    def move(self, source: int, target: int) -> None:
        """Move a window to another slot."""
        self.state.move(source, target)
        self._temperatures[target] = self._temperatures[source]
        for tensor in (self._noise, self._logprobs):
            tensor[target] = tensor[source]

    def advance(self, slots: int, logits: Tensor) -> None:
        """Choose one token per row; rows that have ended get further end tokens."""
        state = self.state
        rows = logits.view(slots, -1, logits.shape[-1])
        chosen = likeliest(rows)
        if any(self._temperatures[:slots]):
            temperature = torch.tensor(self._temperatures[:slots], device=logits.device)[:, None]
            chosen = torch.where(temperature > 0, self._sample(slots, rows, temperature), chosen)
        newest = state.tokens[:slots].gather(2, (state.lengths[:slots, None, None] - 1).expand(-1, rows.shape[1], 1))
        ended = newest[..., 0] == self._eot
        gained = rows.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
        state.sums[:slots] += gained.masked_fill(ended, 0.0)
        write_at(self._logprobs, slots, state.lengths, gained)
        chosen = chosen.masked_fill(ended, self._eot)
        state.append(slots, chosen)
        state.done[:slots] |= (chosen == self._eot).all(-1)

    def candidates(self, slot: int) -> list[Candidate]:
        """Return one candidate for each row of the window."""
        begin, end = int(self.state.begins[slot]), int(self.state.lengths[slot])
        found = []
        for number, row in enumerate(self.state.tokens[slot, :, begin:end].tolist()):
            tokens, steps = row, len(row)
            if self._eot in row:
                tokens, steps = row[: row.index(self._eot)], row.index(self._eot) + 1
            logprobs = self._logprobs[slot, number, begin : begin + len(tokens)].tolist()
            score = float(self.state.sums[slot, number])
            found.append(Candidate(tuple(tokens), score, tuple(logprobs), (number,) * steps))
        return found

    def _sample(self, slots: int, rows: Tensor, temperature: Tensor) -> Tensor:
        # Inverse of the distribution function: one number a token, where a draw over the vocabulary takes 50,000.
        scaled = rows / temperature.clamp(min=1e-3)[..., None]
        reached = torch.softmax(scaled, -1).cumsum(-1)
        place = self.state.lengths[:slots, None, None].clamp(max=self._noise.shape[-1] - 1)
        drawn = self._noise[:slots].gather(2, place.expand(-1, rows.shape[1], 1))
        # Times the last value, which rounding leaves beside 1; never zero, or the first token could be a forbidden one.
        target = (drawn * reached[..., -1:]).clamp(min=torch.finfo(torch.float32).tiny)
        return torch.searchsorted(reached, target)[..., 0].clamp(max=rows.shape[-1] - 1)


class BeamSearch:
    """Beams of `group` rows, which end when `max_candidates` sequences have ended (patience: arXiv:2204.05424)."""

    def __init__(self, state: SearchState, eot: int, max_candidates: int) -> None:
        self.state, self._eot, self._max_candidates = state, eot, max_candidates
        capacity, self._group, places = state.tokens.shape
        device = state.tokens.device
        # One place more than a window may fill: what does not count is written there.
        kept = max_candidates + 1
        self._finished = torch.zeros(capacity, kept, places, dtype=torch.long, device=device)
        self._finished_lengths = torch.zeros(capacity, kept, dtype=torch.long, device=device)
        self._finished_sums = torch.zeros(capacity, kept, device=device)
        self._finished_sources = torch.zeros(capacity, kept, dtype=torch.long, device=device)
        self._counts = torch.zeros(capacity, dtype=torch.long, device=device)
        # Of each token in each row as it was when the token was chosen: the row that it continued.
        self._parents = torch.zeros(capacity, self._group, places, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(capacity, self._group, places, device=device)

    def join(self, slot: int, initial: Sequence[int], temperature: float, noise: Tensor | None) -> None:  # noqa: ARG002 - beams know no chance
        """Begin a window."""
        self.state.join(slot, initial)
        self._counts[slot] = 0

    def move(self, source: int, target: int) -> None:
        """Move a window to another slot."""
        self.state.move(source, target)
        for tensor in (
            self._finished, self._finished_lengths, self._finished_sums, self._finished_sources,
            self._counts, self._parents, self._logprobs,
        ):  # fmt: skip
            tensor[target] = tensor[source]

    def advance(self, slots: int, logits: Tensor) -> Tensor:
        """Choose the next beams; returns the row that each continues."""
        state, group = self.state, self._group
        rows = logits.view(slots, group, -1)
        gains, words = rows.log_softmax(-1).topk(group + 1)
        scores = gains + state.sums[:slots, :, None]
        # At first all beams are the same sequence, which openai-whisper's dictionary counts once.
        first = state.lengths[:slots] == state.begins[:slots]
        scores[:, 1:] = scores[:, 1:].masked_fill(first[:, None, None], -torch.inf)
        ranked, order = scores.flatten(1).sort(descending=True, stable=True)
        words, sources, gains = (
            words.flatten(1).gather(1, order),
            order // (group + 1),
            gains.flatten(1).gather(1, order),
        )
        ends = words == self._eot
        saved_before = (~ends).cumsum(1)

        self._finish(slots, ranked, sources, counted=ends & (saved_before < group))
        going = ~state.done[:slots]
        # A stable sort by "ends" brings the beams to the front in their order.
        kept = ends.to(torch.uint8).sort(dim=1, stable=True).indices[:, :group]
        parents = torch.where(
            going[:, None], sources.gather(1, kept), torch.arange(group, device=logits.device).expand(slots, -1)
        )
        state.sums[:slots] = torch.where(going[:, None], ranked.gather(1, kept), state.sums[:slots])
        window = torch.arange(slots, device=logits.device)[:, None]
        state.tokens[:slots] = state.tokens[window, parents]
        write_at(self._parents, slots, state.lengths, parents)
        write_at(self._logprobs, slots, state.lengths, gains.gather(1, kept))
        state.append(slots, words.gather(1, kept))
        state.done[:slots] |= self._counts[:slots] >= self._max_candidates
        return (parents + window * group).flatten()

    def candidates(self, slot: int) -> list[Candidate]:
        """Return the finished sequences, and unfinished ones if fewer than the beams have ended."""
        state, begin = self.state, int(self.state.begins[slot])
        length = int(state.lengths[slot])
        parents, logprobs = (kept[slot, :, begin:length].tolist() for kept in (self._parents, self._logprobs))

        def candidate(tokens: Tensor, score: float, row: int, *, ended: bool) -> Candidate:
            rows, gains = [row] * ended, []
            for place in reversed(range(len(tokens))):
                gains.append(logprobs[row][place])
                row = parents[row][place]
                rows.append(row)
            return Candidate(tuple(tokens.tolist()), score, tuple(reversed(gains)), tuple(reversed(rows)))

        found = []
        for n in range(int(self._counts[slot])):
            tokens = self._finished[slot, n, begin : int(self._finished_lengths[slot, n])]
            source = int(self._finished_sources[slot, n])
            found.append(candidate(tokens, float(self._finished_sums[slot, n]), source, ended=True))
        sums = state.sums[slot].tolist()
        for beam in sorted(range(self._group), key=sums.__getitem__, reverse=True):
            if len(found) >= self._group:
                break
            found.append(candidate(state.tokens[slot, beam, begin:length], sums[beam], beam, ended=False))
        return found

    def _finish(self, slots: int, scores: Tensor, sources: Tensor, counted: Tensor) -> None:
        """Keep sequences that have just ended, best first, until their window has enough."""
        counted = counted & ~self.state.done[:slots, None]
        place = self._counts[:slots, None] + counted.cumsum(1) - 1
        wanted = counted & (place < self._max_candidates)
        if not scores.is_cuda and not wanted.any():
            return
        place = torch.where(wanted, place, self._max_candidates)
        window = torch.arange(slots, device=scores.device)[:, None]
        self._finished[window, place] = self.state.tokens[window, sources]
        self._finished_lengths[window, place] = self.state.lengths[:slots, None]
        self._finished_sums[window, place] = scores
        self._finished_sources[window, place] = sources
        self._counts[:slots] += wanted.sum(1)
