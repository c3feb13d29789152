"""Loads weights into a model that is ready to run. Only workers import this, since it loads torch and openai-whisper."""

from __future__ import annotations

import base64
import gzip
import hashlib
import textwrap
import zipfile
from typing import TYPE_CHECKING, cast

import torch
import whisper

from whisperd.core.errors import BootError
from whisperd.engine.weights import files
from whisperd.engine.weights.checkpoint import Checkpoint, bare_model, read_ct2
from whisperd.engine.weights.find import remedy

if TYPE_CHECKING:
    from whisper.model import Whisper

    from whisperd.engine.weights.find import Weights


def load(weights: Weights, device: str) -> Whisper:
    """Build the model, in fp32 as openai-whisper does, with the alignment heads set; no file is written.

    Weights from the package index are hashed, since nothing else vouches for them. A checkpoint is not: it was when it
    was fetched or imported, `verify` does it again, and at every start it would cost a second per gigabyte. One that is
    cut short is noticed all the same, because its table of contents stands at the end.

    Raises:
        BootError: the weights are damaged, are not a Whisper model, or do not fit on the device.
    """
    try:
        checkpoint = _from_package(weights) if weights.kind == "package" else _from_file(weights)
        model = bare_model(checkpoint["dims"])
        model.load_state_dict(checkpoint["model_state_dict"])  # strict: nothing stays unset
        _set_alignment_heads(model, checkpoint, weights.model)
    except Exception as error:  # whatever bytes stand there, and a broken pickle can raise anything
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        where = ", ".join(str(path) for path in weights.paths)
        hint = files.READABLE if isinstance(error, OSError) else remedy(weights)
        raise BootError(f"cannot load {where}: {reason}", hint=hint) from error
    try:
        return model.to(device)  # only now, so that the device never holds checkpoint and model at once
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise BootError(
            f"cannot put the model {weights.model} on {device}: {reason}", hint="take a smaller model or another device"
        ) from error


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
