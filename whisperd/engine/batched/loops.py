"""Has a row begun to repeat itself?

Whisper can fall into a loop and repeat one line until its 224 tokens are used up. Such a row fails the compression
threshold in the end; to see it early saves the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper.utils import compression_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CHECK_EVERY_TOKENS = 16
_LONGEST_LINE = 30  # tokens
_TOKENS_REPEATED = 40
_TIMES_REPEATED = 4


def is_loop(tokens: Sequence[int], tokenizer: Any, compression_ratio_threshold: float) -> bool:
    """Whether the end of `tokens` is one line said at least four times, over at least 40 tokens, and compresses so.

    Lines count as the same whatever their timestamps are. Both conditions, because people do repeat themselves: a
    row that is stopped here would have failed the threshold too, unless it had found its way back.
    """
    line = [min(token, tokenizer.timestamp_begin) for token in tokens]
    if not any(_repeats(line, period) for period in range(1, _LONGEST_LINE + 1)):
        return False
    return bool(compression_ratio(tokenizer.decode(list(tokens)).strip()) > compression_ratio_threshold)


def _repeats(line: Sequence[int], period: int) -> bool:
    wanted = max(_TOKENS_REPEATED, _TIMES_REPEATED * period)
    tail = line[-wanted:]
    return len(tail) == wanted and tail[period:] == tail[:-period]
