"""The engine `openai-whisper` with `decoding: batched`: its weights, decoded by `BatchedDecoder`."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from whisperd.core.errors import BootError, EngineError, OutOfMemory
from whisperd.core.options import TranscribeOptions
from whisperd.engine.api import SAMPLE_RATE, AudioWindow, DecodedWindow, EngineInfo
from whisperd.engine.limits import check_capabilities, find_device, require_memory
from whisperd.engine.threads import AdaptiveThreads, limit_threads
from whisperd.engine.weights.checkpoint import load
from whisperd.engine.weights.find import find
from whisperd.engine.whisper_batched.decoder import BatchedDecoder
from whisperd.engine.whisper_batched.precision import choose, weight_bytes
from whisperd.engine.whisper_batched.timings import timings
from whisperd.engine.whisper_batched.window import BatchWindow

if TYPE_CHECKING:
    from whisperd.core.options import EngineOptions


_log = logging.getLogger(__name__)

_KEPT = tuple(field.name for field in dataclasses.fields(DecodedWindow))


class BatchedWhisper:
    """A model of openai-whisper, tried out, that decodes windows of several recordings at once.

    Raises:
        BootError: weights, device or compute type cannot be used.
    """

    takes_recordings = False

    def __init__(self, options: EngineOptions) -> None:
        limit_threads(options.threads)
        device = find_device(options.device)
        weights = find(options.model, options.models_directory)
        measured = {} if device.type == "cuda" else timings(options.models_directory)
        precision = choose(device, options.compute_type, measured)
        _log.info("model %s on %s: %s", weights.model, device, precision)
        try:
            model: Any = load(weights, "cpu", as_stored=True)
            require_memory(weight_bytes(model, precision), weights.model, device)
            self._dims, self._multilingual, self._languages = model.dims, model.is_multilingual, model.num_languages
            self._decoder = BatchedDecoder(model, device, precision, options.batch_size)
            self._try_out()
        except OutOfMemory as error:
            raise BootError(error.message, hint="use a smaller model or a device with more memory") from error
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise BootError(f"model {weights.model} cannot run on {device}: {reason}") from error
        self._info = EngineInfo("openai-whisper", weights.model, str(device), precision.name)
        self._threads = AdaptiveThreads(options.threads if device.type == "cpu" else 1)
        self._prompts: dict[str, tuple[int, ...]] = {}

    @property
    def info(self) -> EngineInfo:
        """The model and device that were loaded."""
        return self._info

    @property
    def capacity(self) -> int:
        """Number of windows decoded at once."""
        return self._decoder.max_batch

    @property
    def pending(self) -> int:
        """Number of windows that were submitted and not returned yet."""
        return self._decoder.pending

    def check(self, options: TranscribeOptions) -> None:
        """Refuse a language or task that this model was not trained for."""
        check_capabilities(
            options,
            self._info.model,
            multilingual=self._multilingual,
            languages=self._languages,
            whole_decoder=self._dims.n_text_layer >= self._dims.n_audio_layer,
        )

    def _try_out(self) -> None:
        """Decode a moment of noise: what fails on first use must fail before anyone sends a job."""
        noise = np.random.default_rng(0).integers(-1000, 1000, SAMPLE_RATE, dtype=np.int16)
        handle = self._decoder.submit(BatchWindow(TranscribeOptions(), audio=noise, language="en"))
        for _ in range(2):
            self._decoder.step()
        self._decoder.withdraw(handle)

    def submit(self, window: AudioWindow) -> int:
        """Take a window; the job's prompt goes before each of its windows, which do not know each other's text."""
        prompt = window.options.initial_prompt
        tokens = self._prompts.setdefault(prompt, self._decoder.encode_text(prompt)) if prompt else ()
        return self._decoder.submit(
            BatchWindow(
                window.options,
                audio=window.audio,
                language=window.language,
                prompt=tokens,
                parts=window.parts,
                accepts=window.accepts,
                only_language=window.only_language,
            )
        )

    def withdraw(self, handle: int) -> None:
        """Forget a window."""
        self._decoder.withdraw(handle)

    def step(self, _report: object = None, /) -> list[tuple[int, DecodedWindow]]:
        """Sample a token for every window in the batch."""
        self._threads.adapt()
        try:
            finished = self._decoder.step()
        except (OutOfMemory, EngineError):
            raise
        except RuntimeError as error:
            raise EngineError(str(error).splitlines()[0], stage="transcribing") from error
        return [
            (handle, DecodedWindow(**{name: getattr(decoded, name) for name in _KEPT})) for handle, decoded in finished
        ]

    def shrink(self) -> bool:
        """Halve the batch."""
        if self._decoder.max_batch == 1:
            return False
        self._decoder.max_batch //= 2
        self._decoder.restart()
        return True
