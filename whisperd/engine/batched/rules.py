"""Which token may come next: openai-whisper's logit filters, for rows that stand at different places.

`SuppressTokens` and `ApplyTimestampRules` of `whisper.decoding` look at each row in a Python loop, with a transfer from
the device per row and token. Here the same rules are a few operations over all rows, without any transfer.
`SuppressBlank` is contained: the first token has to be a timestamp, so it is neither blank nor the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from whisper.audio import CHUNK_LENGTH

from whisperd.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MAX_INITIAL_TIMESTAMP_SECONDS = 1.0  # openai-whisper's default


def suppressed_tokens(tokenizer: Any, wanted: str) -> tuple[int, ...]:
    """Tokens that are never sampled, as `DecodingTask._get_suppress_tokens` finds them, and `<|notimestamps|>`.

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
        """Set what may not come next to minus infinity, in place.

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
