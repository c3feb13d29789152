"""Loads the networks of diarization for the first recording that needs them: most spools never do."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from whisperd.core.errors import BootError, InputError
from whisperd.engine.weights.speakers import verify_speakers

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from whisperd.diarization.clustering import VoicePrint
    from whisperd.diarization.diarize import Diarizer


PRINTS_MAX = 1000  # 1.5 MB


class VoicePrints:
    """The voice prints that were made last, by the file of their sample; memory is the only place where they are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Hashable, VoicePrint | str] = {}

    def get(self, file: Hashable) -> VoicePrint | str | None:
        """The print of a sample, or why there can be none; None if it was not made yet."""
        with self._lock:
            return self._kept.get(file)

    def keep(self, file: Hashable, made: VoicePrint | str) -> None:
        """Keep the print of a sample, or why there can be none, instead of the oldest one."""
        with self._lock:
            self._kept[file] = made
            if len(self._kept) > PRINTS_MAX:
                del self._kept[next(iter(self._kept))]


class DiarizerOnDemand:
    """A `Diarizer` that is loaded when it is first asked for, by whichever thread.

    Args:
        models_directory: where fetched weights are.
        threads: as for `Diarizer`.

    Attributes:
        prints: of known voices, made by these networks.
    """

    def __init__(self, models_directory: Path, threads: int) -> None:
        self._models_directory, self._threads = models_directory, threads
        self._lock = threading.Lock()
        self._loaded: Diarizer | None = None
        self.prints = VoicePrints()

    def get(self) -> Diarizer:
        """Return the diarizer, loaded at the first call, after its weights were checked.

        Raises:
            InputError: `unsupported`: the weights are missing or damaged. Other recordings do without them.
        """
        with self._lock:
            if self._loaded is None:
                from whisperd.diarization.diarize import Diarizer  # noqa: PLC0415  # loads torch, which not every engine does

                try:
                    self._loaded = Diarizer(verify_speakers(self._models_directory), self._threads)
                except BootError as error:
                    raise InputError(error.message, hint=error.hint, code="unsupported", stage="decoding") from error
            return self._loaded
