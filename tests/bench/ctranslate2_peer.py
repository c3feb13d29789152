"""CTranslate2 with the weights of a model of openai-whisper, random ones too, for `batched.py`.

The layout of the weights is that of CTranslate2's own `TransformersConverter`: query, key and value of self-attention are one
matrix, so are key and value of cross-attention, and the encoder's output is given in float32.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import ctranslate2
import torch
from ctranslate2.specs import whisper_spec
from whisper.tokenizer import get_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from whisper.model import Whisper

SHORT, LONG = 8, 40  # tokens written; the difference is what a step takes


def convert(model: Whisper, directory: Path) -> None:
    """Write a model as CTranslate2 stores it, in float32; numbers are converted at loading, as the compute type says."""
    dims = model.dims
    spec = whisper_spec.WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    encoder, decoder = model.encoder, model.decoder
    for mine, theirs in ((encoder.conv1, spec.encoder.conv1), (encoder.conv2, spec.encoder.conv2)):
        theirs.weight, theirs.bias = _array(mine.weight), _array(mine.bias)
    spec.encoder.position_encodings.encodings = _array(encoder.positional_embedding)
    _norm(encoder.ln_post, spec.encoder.layer_norm)
    for block, layer in zip(encoder.blocks, spec.encoder.layer, strict=True):
        _block(block, layer)
    spec.decoder.embeddings.weight = _array(decoder.token_embedding.weight)
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    spec.decoder.position_encodings.encodings = _array(decoder.positional_embedding)
    _norm(decoder.ln, spec.decoder.layer_norm)
    for block, layer in zip(decoder.blocks, spec.decoder.layer, strict=True):
        _block(block, layer)
        _norm(block.cross_attn_ln, layer.attention.layer_norm)
        _linear([block.cross_attn.query], layer.attention.linear[0])
        _linear([block.cross_attn.key, block.cross_attn.value], layer.attention.linear[1])
        _linear([block.cross_attn.out], layer.attention.linear[2])
    tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    named = {number: name for name, number in tokenizer.special_tokens.items()}
    spec.register_vocabulary([named.get(number, f"token {number}") for number in range(dims.n_vocab)])
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids = list(tokenizer.all_language_tokens)
    spec.config.alignment_heads = []
    spec.validate()
    spec.optimize()
    spec.save(str(directory))


class Peer:
    """A loaded model.

    Args:
        model: to be converted.
        device: `cpu` or `cuda`.
        compute_type: CTranslate2's name, such as `int8` or `float32`.
        threads: of one operation.
    """

    def __init__(self, model: Whisper, device: str, compute_type: str, threads: int) -> None:
        tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language="en")
        self._start, self._eot = list(tokenizer.sot_sequence), tokenizer.eot
        with tempfile.TemporaryDirectory() as directory:
            convert(model, directory)
            self._model = ctranslate2.models.Whisper(
                directory, device=device, compute_type=compute_type, intra_threads=threads
            )
        self.compute_type = self._model.compute_type

    def encode(self, mels: Tensor) -> Any:
        """Run the encoder over (windows, mels, frames)."""
        return self._model.encode(ctranslate2.StorageView.from_array(mels.numpy()), to_cpu=False)

    def step_seconds(self, features: Any, windows: int, clock: Any) -> float:
        """Measure a step of greedy decoding for all windows at once."""
        took = []
        for length in (SHORT, LONG):
            start = clock()
            self._model.generate(
                features,
                [self._start] * windows,
                beam_size=1,
                max_length=len(self._start) + length,
                suppress_blank=False,
                suppress_tokens=[self._eot],
            )
            took.append(clock() - start)
        return (took[1] - took[0]) / (LONG - SHORT)


def _array(weight: Tensor) -> Any:
    return weight.detach().float().cpu().numpy()


def _norm(module: Any, spec: Any) -> None:
    spec.gamma, spec.beta = _array(module.weight), _array(module.bias)


def _linear(modules: list[Any], spec: Any) -> None:
    spec.weight = _array(torch.cat([module.weight for module in modules]))
    zeros = [module.bias if module.bias is not None else torch.zeros(len(module.weight)) for module in modules]
    spec.bias = _array(torch.cat(zeros))


def _block(block: Any, spec: Any) -> None:
    _norm(block.attn_ln, spec.self_attention.layer_norm)
    _linear([block.attn.query, block.attn.key, block.attn.value], spec.self_attention.linear[0])
    _linear([block.attn.out], spec.self_attention.linear[1])
    _norm(block.mlp_ln, spec.ffn.layer_norm)
    _linear([block.mlp[0]], spec.ffn.linear_0)
    _linear([block.mlp[2]], spec.ffn.linear_1)
