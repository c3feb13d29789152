"""Loads weights into a model of openai-whisper, and builds its checkpoints, also from the `model.bin` of CTranslate2.

Only workers and imports need it, since it loads torch and openai-whisper.

Layout of version 6 (`ctranslate2/specs/model_spec.py`, `_serialize`), little-endian: version, name and revision of the
specification, number of variables; for each its name, rank, shape, type, length in bytes and the bytes; then the
aliases, names of variables that were stored once under another name. Strings have a length and end in a zero.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
import struct
import textwrap
import zipfile
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import torch
import whisper
from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

from whisperd.core.errors import BootError
from whisperd.engine.weights.find import READABLE, remedy

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.engine.weights.find import Weights

VERSION = 6
SPECIFICATION = "WhisperSpec"
TYPES = {
    0: torch.float32,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.float16,
    5: torch.bfloat16,
}


class Checkpoint(TypedDict):
    """A checkpoint as `torch.save` writes it; `whisper.load_model` accepts it too, and ignores the heads."""

    dims: dict[str, int]  # the fields of `whisper.model.ModelDimensions`
    model_state_dict: dict[str, torch.Tensor]
    alignment_heads: NotRequired[list[list[int]]]  # [layer, head] of the cross-attention heads that follow time


def load(weights: Weights, device: str, *, as_stored: bool = False) -> Whisper:
    """Build the model, in fp32 as openai-whisper does, with the alignment heads set; no file is written.

    With `as_stored` the weights keep their number format, and those of a file stay mapped: for a caller that converts
    them one after the other, so that a large model is never in memory twice.

    Weights from the package index are hashed, since nothing else vouches for them. A checkpoint is not: it was when it
    was fetched or imported, `verify` does it again, and at every start it would cost a second per gigabyte. One that is
    cut short is noticed all the same, because its table of contents stands at the end.

    Raises:
        BootError: the weights are damaged, are not a Whisper model, or do not fit on the device.
    """
    try:
        checkpoint = _from_package(weights) if weights.kind == "package" else _from_file(weights)
        model = bare_model(checkpoint["dims"])
        model.load_state_dict(checkpoint["model_state_dict"], assign=as_stored)  # strict: nothing stays unset
        _set_alignment_heads(model, checkpoint, weights.model)
    except Exception as error:  # whatever bytes stand there, and a broken pickle can raise anything
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        where = ", ".join(str(path) for path in weights.paths)
        hint = READABLE if isinstance(error, OSError) else remedy(weights)
        raise BootError(f"cannot load {where}: {reason}", hint=hint) from error
    try:
        return model.to(device)  # only now, so that the device never holds checkpoint and model at once
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise BootError(
            f"cannot put the model {weights.model} on {device}: {reason}", hint="take a smaller model or another device"
        ) from error


def assemble(state: dict[str, torch.Tensor], *, audio_heads: int, text_heads: int) -> Checkpoint:
    """Make a checkpoint from tensors with openai-whisper's names; their shapes give all dimensions except the numbers of heads.

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
    """Make a model without setting its weights: random ones would take longer to draw than the real ones to read."""
    with _NoInitialisation():
        return Whisper(ModelDimensions(**dims))


def read_ct2(data: bytes | bytearray | memoryview) -> Checkpoint:
    """Convert the content of a `model.bin`; weights keep their type and share no memory with `data`.

    Raises:
        BootError: the weights are quantised to integers.
        ValueError, KeyError: `data` is not a Whisper model of version 6, or is damaged.
    """
    variables = _variables(_Cursor(data))
    return assemble(
        _state_dict(variables),
        audio_heads=int(variables["encoder/num_heads"]),
        text_heads=int(variables["decoder/num_heads"]),
    )


def _from_package(weights: Weights) -> Checkpoint:
    data = bytearray()
    for path in weights.paths:
        data += path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != weights.sha256:
        raise ValueError(f"SHA-256 {found}, expected {weights.sha256}")
    return read_ct2(data)


def _from_file(weights: Weights) -> Checkpoint:
    (path,) = weights.paths
    # Mapped where the format allows it, so that a model of gigabytes does not stand in memory twice.
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= {"dims", "model_state_dict"}:
        raise ValueError("it is not an openai-whisper checkpoint")
    return cast("Checkpoint", checkpoint)


def _set_alignment_heads(model: Whisper, checkpoint: Checkpoint, name: str) -> None:
    """Set the alignment heads from the checkpoint, otherwise by the name of the model; the default is half of all heads."""
    layers, heads = model.dims.n_text_layer, model.dims.n_text_head
    if "alignment_heads" in checkpoint:
        mask = torch.zeros(layers, heads, dtype=torch.bool)
        for layer, head in checkpoint["alignment_heads"]:
            mask[layer, head] = True
        model.set_alignment_heads(base64.b85encode(gzip.compress(mask.numpy().tobytes())))
        return
    dump = whisper._ALIGNMENT_HEADS.get(name)  # noqa: SLF001  # where openai-whisper keeps them
    if dump and len(gzip.decompress(base64.b85decode(dump))) == layers * heads:  # not another model under a known name
        model.set_alignment_heads(dump)


def _layers(state: dict[str, torch.Tensor], side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})


class _NoInitialisation(TorchFunctionMode):
    """Makes `torch.nn.init` leave tensors as they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


class _Cursor:
    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)
        self._position = 0

    def take(self, size: int) -> memoryview:
        end = self._position + size
        if end > len(self._data):
            raise ValueError(f"it ends after {len(self._data)} bytes, in the middle of something")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, form: str) -> int:
        return int(struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0])

    def text(self) -> str:
        return bytes(self.take(self.number("H"))[:-1]).decode()


def _variables(cursor: _Cursor) -> dict[str, torch.Tensor]:
    version = cursor.number("I")
    if version != VERSION:
        raise ValueError(f"it has version {version} of the format, not {VERSION}")
    specification = cursor.text()
    if specification != SPECIFICATION:
        raise ValueError(f"it is a {specification}, not a {SPECIFICATION}")
    cursor.number("I")
    variables = {}
    for _ in range(cursor.number("I")):
        name = cursor.text()
        shape = [cursor.number("I") for _ in range(cursor.number("B"))]
        dtype = TYPES[cursor.number("B")]
        raw = cursor.take(cursor.number("I"))
        if len(raw) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has {len(raw)} bytes, which is not its shape {shape}")
        variables[name] = torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)
    return variables


def _state_dict(variables: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}

    def weights(name: str) -> torch.Tensor:
        tensor = variables[name]
        if not tensor.is_floating_point():
            raise BootError(
                f"its weights are quantised ({name} is {tensor.dtype}), which cannot be undone without loss",
                hint="convert the original model with --quantization float16, or import its safetensors",
            )
        return tensor

    def copy(source: str, to: str, weight: str = "weight", bias: str = "bias") -> None:
        state[f"{to}.weight"] = weights(f"{source}/{weight}")
        state[f"{to}.bias"] = weights(f"{source}/{bias}")

    def norm(source: str, to: str) -> None:
        copy(f"{source}/layer_norm", to, "gamma", "beta")

    def split(source: str, to: str, projections: tuple[str, ...]) -> None:
        """Split a stored matrix into the projections of one input; the key has a bias of zeros there, and none in the result."""
        matrices = weights(f"{source}/weight").chunk(len(projections))
        biases = weights(f"{source}/bias").chunk(len(projections))
        for projection, matrix, bias in zip(projections, matrices, biases, strict=True):
            state[f"{to}.{projection}.weight"] = matrix.clone()
            if projection != "key":
                state[f"{to}.{projection}.bias"] = bias.clone()

    def block(source: str, to: str, *, cross_attention: bool) -> None:
        split(f"{source}/self_attention/linear_0", f"{to}.attn", ("query", "key", "value"))
        copy(f"{source}/self_attention/linear_1", f"{to}.attn.out")
        norm(f"{source}/self_attention", f"{to}.attn_ln")
        if cross_attention:
            copy(f"{source}/attention/linear_0", f"{to}.cross_attn.query")
            split(f"{source}/attention/linear_1", f"{to}.cross_attn", ("key", "value"))
            copy(f"{source}/attention/linear_2", f"{to}.cross_attn.out")
            norm(f"{source}/attention", f"{to}.cross_attn_ln")
        copy(f"{source}/ffn/linear_0", f"{to}.mlp.0")
        copy(f"{source}/ffn/linear_1", f"{to}.mlp.2")
        norm(f"{source}/ffn", f"{to}.mlp_ln")

    for side in ("encoder", "decoder"):
        numbers = {name.split("/")[1].removeprefix("layer_") for name in variables if name.startswith(f"{side}/layer_")}
        for number in sorted(numbers - {"norm"}, key=int):
            block(f"{side}/layer_{number}", f"{side}.blocks.{number}", cross_attention=side == "decoder")
        state[f"{side}.positional_embedding"] = weights(f"{side}/position_encodings/encodings")
    copy("encoder/conv1", "encoder.conv1")
    copy("encoder/conv2", "encoder.conv2")
    norm("encoder", "encoder.ln_post")
    norm("decoder", "decoder.ln")
    state["decoder.token_embedding.weight"] = weights("decoder/embeddings/weight")
    if "decoder/projection/weight" in variables:  # normally an alias of the embeddings
        raise ValueError("its output layer is not its token embedding, as openai-whisper needs it")
    return state
