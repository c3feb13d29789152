"""Imports a model in another format: converts it once to a checkpoint in the models directory.

Names of Hugging Face tensors are those of `transformers/models/whisper/modeling_whisper.py`; the way back is
`WHISPER_MAPPING` of its `convert_openai_to_hf.py`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import textwrap
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from whisperd.core.errors import BootError
from whisperd.engine.weights.checkpoint import Checkpoint, assemble, bare_model, read_ct2
from whisperd.engine.weights.fetch import appearing, write_record
from whisperd.engine.weights.find import Record, Weights, canonical, find, is_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


HF_WEIGHTS = "model.safetensors"
HF_INDEX = "model.safetensors.index.json"
RENAMES = (
    (".layers.", ".blocks."),
    (".self_attn_layer_norm.", ".attn_ln."),
    (".encoder_attn_layer_norm.", ".cross_attn_ln."),
    (".final_layer_norm.", ".mlp_ln."),
    (".self_attn.", ".attn."),
    (".encoder_attn.", ".cross_attn."),
    (".q_proj.", ".query."),
    (".k_proj.", ".key."),
    (".v_proj.", ".value."),
    (".out_proj.", ".out."),
    (".fc1.", ".mlp.0."),
    (".fc2.", ".mlp.2."),
    ("encoder.layer_norm.", "encoder.ln_post."),
    ("decoder.layer_norm.", "decoder.ln."),
    (".embed_positions.weight", ".positional_embedding"),
    (".embed_tokens.", ".token_embedding."),
)


def read_hugging_face(directory: Path) -> Checkpoint:
    """Convert the model in `directory`; its weights become fp16, one tensor at a time.

    Raises:
        OSError, ValueError, KeyError, safetensors.SafetensorError: it is not a Whisper model, or is damaged.
    """
    config = json.loads((directory / "config.json").read_bytes())
    if config.get("model_type") != "whisper":
        raise ValueError(f"its config.json is of a {config.get('model_type')!r}, not a 'whisper' model")
    state: dict[str, torch.Tensor] = {}
    for shard in _shards(directory):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                state[_rename(name)] = file.get_tensor(name).to(torch.float16)
    projection = state.pop("proj_out.weight", None)
    if projection is not None and not torch.equal(projection, state["decoder.token_embedding.weight"]):
        raise ValueError("its output layer is not its token embedding, as openai-whisper needs it")
    return assemble(state, audio_heads=config["encoder_attention_heads"], text_heads=config["decoder_attention_heads"])


def _shards(directory: Path) -> Iterable[Path]:
    index = directory / HF_INDEX
    if not index.exists():
        return [directory / HF_WEIGHTS]
    weight_map: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
    return [directory / name for name in sorted(set(weight_map.values()))]


def _rename(name: str) -> str:
    name = name.removeprefix("model.")
    for theirs, ours in RENAMES:
        name = name.replace(theirs, ours)
    return name


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
    if is_file(target):
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
        with appearing(target) as file:
            torch.save(checkpoint, file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileExistsError:
        raise taken from None
    write_record(target, Record(sha256=sha256, source=f"imported from {source.resolve()} ({origin})"))
    return find(model, directory)


def _read(source: Path) -> tuple[Checkpoint, str]:
    """Read the checkpoint in fp16, and describe its source."""
    if (source / "model.bin").exists():
        origin, heads_file = "CTranslate2", source / "config.json"
        with (source / "model.bin").open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        checkpoint = read_ct2(memoryview(data))
        state = checkpoint["model_state_dict"]
        for tensor_name in state:
            state[tensor_name] = state[tensor_name].to(torch.float16)
    elif (source / HF_WEIGHTS).exists() or (source / HF_INDEX).exists():
        origin, heads_file = "Hugging Face", source / "generation_config.json"
        checkpoint = read_hugging_face(source)
    else:
        raise BootError(
            f"it holds neither model.bin nor {HF_WEIGHTS}",
            hint="name the directory of a CTranslate2 or a Hugging Face model",
        )
    heads = _alignment_heads(heads_file, checkpoint["dims"])
    if heads is None:
        return checkpoint, f"{origin}; it names no alignment heads, so times of words are less exact"
    checkpoint["alignment_heads"] = heads
    return checkpoint, origin


def _alignment_heads(path: Path, dims: dict[str, int]) -> list[list[int]] | None:
    """Read the [layer, head] pairs from a configuration; None if it has none."""
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
    """Refuse a checkpoint with which workers would fail to start or would transcribe nonsense."""
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
