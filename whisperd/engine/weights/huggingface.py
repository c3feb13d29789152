"""A Hugging Face directory with a Whisper model in safetensors as an openai-whisper checkpoint.

The names are those of `transformers/models/whisper/modeling_whisper.py`; the way back is `WHISPER_MAPPING` of its
`convert_openai_to_hf.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from whisperd.engine.weights.checkpoint import Checkpoint, assemble

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
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


def read(directory: Path) -> Checkpoint:
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
    index = directory / INDEX
    if not index.exists():
        return [directory / WEIGHTS]
    weight_map: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
    return [directory / name for name in sorted(set(weight_map.values()))]


def _rename(name: str) -> str:
    name = name.removeprefix("model.")
    for theirs, ours in RENAMES:
        name = name.replace(theirs, ours)
    return name
