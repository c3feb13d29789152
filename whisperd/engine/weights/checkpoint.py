"""The form in which openai-whisper keeps a model: dimensions and a state dict; here with alignment heads besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class Checkpoint(TypedDict):
    """What `torch.save` writes; `whisper.load_model` takes it too and ignores the heads."""

    dims: dict[str, int]  # the fields of `whisper.model.ModelDimensions`
    model_state_dict: dict[str, torch.Tensor]
    alignment_heads: NotRequired[list[list[int]]]  # [layer, head] of the cross-attention heads that follow time


def assemble(state: dict[str, torch.Tensor], *, audio_heads: int, text_heads: int) -> Checkpoint:
    """A checkpoint from tensors under openai-whisper's names; shapes tell all dimensions but the numbers of heads.

    Raises:
        KeyError: a tensor is missing.
    """
    n_mels = state["encoder.conv1.weight"].shape[1]
    n_audio_ctx, n_audio_state = state["encoder.positional_embedding"].shape
    n_vocab = state["decoder.token_embedding.weight"].shape[0]
    n_text_ctx, n_text_state = state["decoder.positional_embedding"].shape
    return {
        "dims": {
            "n_mels": n_mels,
            "n_audio_ctx": n_audio_ctx,
            "n_audio_state": n_audio_state,
            "n_audio_head": audio_heads,
            "n_audio_layer": _layers(state, "encoder"),
            "n_vocab": n_vocab,
            "n_text_ctx": n_text_ctx,
            "n_text_state": n_text_state,
            "n_text_head": text_heads,
            "n_text_layer": _layers(state, "decoder"),
        },
        "model_state_dict": state,
    }


def bare_model(dims: dict[str, int]) -> Whisper:
    """A model whose weights are not set: drawing random ones first would take longer than reading the real ones."""
    with _NoInitialisation():
        return Whisper(ModelDimensions(**dims))


class _NoInitialisation(TorchFunctionMode):
    """Makes `torch.nn.init` leave tensors as they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _layers(state: dict[str, torch.Tensor], side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})
