"""Kernels of attention: the same sums in different orders, of which each processor has its own fastest one.

All compute softmax(query key^T) value; the scale 1/sqrt(size) is part of the queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads

if TYPE_CHECKING:
    from collections.abc import Mapping

from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Use torch's fused kernel, which never holds all scores.

    Args:
        query: (windows, heads, places, size).
        key: (windows, heads, frames, size).
        value: like `key`.
        mask: added to the scores, (windows, 1, 1, frames).

    Returns:
        (windows, heads, places, size).
    """
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Use two products of all windows and heads, with all scores between them; arguments as for `fused`."""
    scores = query @ key.transpose(-1, -2)
    if mask is not None:
        scores += mask
    return torch.softmax(scores, -1) @ value


def head_by_head(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Use two products for each head, with the scores of one head at a time in the CPU's cache; arguments as for `fused`."""
    windows, heads, places, size = query.shape
    scores = query.new_empty(places, key.shape[2])
    attended: Tensor = query.new_empty(windows, places, heads, size)
    for window in range(windows):
        for head in range(heads):
            torch.mm(query[window, head], key[window, head].T, out=scores)
            if mask is not None:
                scores += mask[window, 0]
            torch.softmax(scores, -1, out=scores)
            torch.mm(scores, value[window, head], out=attended[window, :, head])
    return attended.transpose(1, 2)


ENCODER_ATTENTION: Final[Mapping[str, Attention]] = {"fused": fused, "head by head": head_by_head}
STEP_ATTENTION: Final[Mapping[str, Attention]] = {"fused": fused, "written out": written_out}
