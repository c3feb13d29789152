"""From audio to the first step: encoder, language, initial tokens, keys and values."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from whisper.tokenizer import get_tokenizer

from whisperd.engine.batched.encoder import AudioEncoder
from whisperd.engine.batched.features import mel_of, seed_of
from whisperd.engine.batched.lane import Lane, Trial, noise_for

if TYPE_CHECKING:
    from torch import Tensor

    from whisperd.engine.batched.network import KeyValue, TextDecoder
    from whisperd.engine.batched.windows import Window


class Starter:
    """Brings windows to where a lane can go on with them.

    Args:
        model: a `whisper.model.Whisper`; it is read, never changed.
        network: its decoder.
        margin_seconds: silence that the encoder sees behind the audio of a short window.
        quantised: compute parts of the encoder in 8 bits.
    """

    def __init__(self, model: Any, network: TextDecoder, margin_seconds: float, *, quantised: bool = False) -> None:
        self._encoder = AudioEncoder(model, network.device, network.dtype, quantised=quantised)
        self._network, self._dims, self._margin_seconds = network, model.dims, margin_seconds
        self.multilingual: bool = model.is_multilingual
        self.languages: int = model.num_languages

    def tokenizer(self, language: str | None = None, task: str = "transcribe") -> Any:
        """openai-whisper's tokenizer, made once for each language and task."""
        return get_tokenizer(self.multilingual, num_languages=self.languages, language=language, task=task)

    def start(self, trials: list[Trial], lane: Lane, group: int) -> None:
        """Let windows join a lane, encoded if they are not yet."""
        self._encode([trial for trial in trials if trial.features is None])
        cross, mask = lane.attend_to(trials)
        self._name_languages(trials, cross, mask)
        for trial in trials:
            trial.initial = self._initial_tokens(trial)
        device, width = self._network.device, max(len(trial.initial) for trial in trials)
        padded = [[*trial.initial, *[0] * (width - len(trial.initial))] for trial in trials]
        filled = self._network.prefill(torch.tensor(padded, device=device), cross, mask)
        starts = torch.tensor([trial.initial.index(trial.tokenizer.sot) for trial in trials], device=device)
        at_start = filled.hidden[torch.arange(len(trials), device=device), starts]
        silences = self._network.logits(at_start).softmax(-1)[:, trials[0].tokenizer.no_speech].tolist()
        for row, trial in enumerate(trials):
            trial.no_speech_prob = silences[row]
            temperature = trial.window.options.temperature[trial.temperature_index]
            noise = None
            if temperature > 0:
                noise = noise_for(seed_of(trial.window) + trial.temperature_index, group, self._dims.n_text_ctx + 1)
            lane.join(trial, [(key[row], value[row]) for key, value in filled.own], temperature, noise)

    def detect_language(self, window: Window) -> dict[str, float]:
        """Probability of each language the model knows."""
        mel = mel_of(window, self._dims.n_mels, None, self._network.device)
        return self._detect(self._network.cross([self._encoder(mel[None])[0]]), None)[0]

    def _encode(self, trials: list[Trial]) -> None:
        mels = []
        for trial in trials:
            margin = None if trial.full else self._margin_seconds
            mels.append(mel_of(trial.window, self._dims.n_mels, margin, self._network.device))
        by_length = sorted(zip(trials, mels, strict=True), key=lambda pair: pair[1].shape[-1])
        for _, alike in groupby(by_length, key=lambda pair: pair[1].shape[-1]):
            pairs = list(alike)
            features = self._encoder(torch.stack([mel for _, mel in pairs]))
            for (trial, _), one in zip(pairs, features, strict=True):
                trial.features = one

    def _name_languages(self, trials: list[Trial], cross: list[KeyValue], mask: Tensor | None) -> None:
        if any(trial.language is None for trial in trials):
            for trial, chances in zip(trials, self._detect(cross, mask), strict=True):
                if trial.language is None:
                    likeliest = max(chances, key=chances.__getitem__)
                    trial.language, trial.language_probability = likeliest, chances[likeliest]
        for trial in trials:
            trial.tokenizer = self.tokenizer(trial.language, trial.window.options.task)

    def _detect(self, cross: list[KeyValue], mask: Tensor | None) -> list[dict[str, float]]:
        tokenizer = self.tokenizer()
        start = torch.full((len(cross[0][0]), 1), tokenizer.sot, device=self._network.device)
        logits = self._network.logits(self._network.prefill(start, cross, mask).hidden[:, 0])
        chances = logits[:, list(tokenizer.all_language_tokens)].softmax(-1).tolist()
        return [dict(zip(tokenizer.all_language_codes, row, strict=True)) for row in chances]

    def _initial_tokens(self, trial: Trial) -> tuple[int, ...]:
        """Prompt, start, language and task, prefix: `DecodingTask._get_initial_tokens`."""
        tokenizer, window, half = trial.tokenizer, trial.window, self._dims.n_text_ctx // 2
        prompt = (tokenizer.sot_prev, *window.prompt[-(half - 1) :]) if window.prompt else ()
        return (*prompt, *tokenizer.sot_sequence, *window.prefix)
