"""Models that came in another format, converted once to a checkpoint in the models directory."""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import textwrap
from typing import TYPE_CHECKING, Any

import torch

from whisperd.engine.weights import ct2, files, huggingface
from whisperd.engine.weights.catalogue import canonical
from whisperd.engine.weights.checkpoint import Checkpoint, bare_model
from whisperd.engine.weights.find import Weights, find
from whisperd.errors import BootError

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VOCABULARIES = (51864, 51865, 51866)  # openai-whisper's tokenizers: English, multilingual, multilingual of large-v3


def import_directory(source: Path, name: str, directory: Path) -> Weights:
    """Write the model in `source` to `<directory>/<name>.pt` in fp16, with its alignment heads and a record beside it.

    Args:
        source: a CTranslate2 directory (`model.bin`, `config.json`) or a Hugging Face one (`model.safetensors` or its
            index, `config.json`, `generation_config.json`).
        name: what the model is called from now on.
        directory: made if it is missing.

    Raises:
        BootError: the name is taken or cannot be a file's, or `source` cannot be converted. Nothing was written then.
    """
    model = canonical(name)
    if not NAME.fullmatch(model) or model.endswith(".pt"):
        raise BootError(f"{name!r} cannot be a model's name", hint="use letters, digits, dots, dashes and underscores")
    target = directory / f"{model}.pt"
    taken = BootError(f"{target} is there already", hint="remove it, or choose another name")
    if files.is_file(target):
        raise taken
    try:
        checkpoint, origin = _read(source)
        _check(checkpoint)
    except BootError as error:
        raise BootError(f"cannot import {source}: {error.message}", hint=error.hint) from error
    except Exception as error:  # whatever bytes and whatever JSON stand there
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        raise BootError(f"cannot import {source}: {reason}", hint="is the directory whole?") from error
    try:
        with files.appearing(target) as file:
            torch.save(checkpoint, file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileExistsError:
        raise taken from None
    files.write_record(target, files.Record(sha256=sha256, source=f"imported from {source.resolve()} ({origin})"))
    return find(model, directory)


def _read(source: Path) -> tuple[Checkpoint, str]:
    """The checkpoint, in fp16, and what it came from."""
    if (source / "model.bin").exists():
        origin, heads_file = "CTranslate2", source / "config.json"
        with (source / "model.bin").open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        checkpoint = ct2.read(memoryview(data))
        state = checkpoint["model_state_dict"]
        for tensor_name in state:
            state[tensor_name] = state[tensor_name].to(torch.float16)
    elif (source / huggingface.WEIGHTS).exists() or (source / huggingface.INDEX).exists():
        origin, heads_file = "Hugging Face", source / "generation_config.json"
        checkpoint = huggingface.read(source)
    else:
        raise BootError(
            f"it holds neither model.bin nor {huggingface.WEIGHTS}",
            hint="name the directory of a CTranslate2 or a Hugging Face model",
        )
    heads = _alignment_heads(heads_file, checkpoint["dims"])
    if heads is None:
        return checkpoint, f"{origin}; it names no alignment heads, so times of words are less exact"
    checkpoint["alignment_heads"] = heads
    return checkpoint, origin


def _alignment_heads(path: Path, dims: dict[str, int]) -> list[list[int]] | None:
    """The [layer, head] pairs that a configuration names, or None where it names none."""
    if not path.exists():
        return None
    config: dict[str, Any] = json.loads(path.read_bytes())
    heads: list[list[int]] | None = config.get("alignment_heads")
    if not heads:
        return None
    for layer, head in heads:
        if not (0 <= layer < dims["n_text_layer"] and 0 <= head < dims["n_text_head"]):
            raise ValueError(f"{path.name} names the alignment head {[layer, head]}, which the model does not have")
    return heads


def _check(checkpoint: Checkpoint) -> None:
    """Refuse at import what would fail, or transcribe nonsense, at every start of a worker."""
    dims, state = checkpoint["dims"], checkpoint["model_state_dict"]
    if dims["n_vocab"] not in VOCABULARIES:
        raise ValueError(f"it has {dims['n_vocab']} tokens; openai-whisper's tokenizers have {VOCABULARIES}")
    expected = {name: tensor.shape for name, tensor in bare_model(dims).state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are missing, unknown or of another shape: {', '.join(wrong)}")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} has values that are no numbers in fp16")
