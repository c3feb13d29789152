"""The other programs, each in a process of its own: `python -m whisperd.bench FD`, of no use by hand.

It hears `Settings`, loads, says `Loaded`, then answers each `Listen` with a `Heard`; or says `Broken`, and ends.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator

from whisperd.bench.floor import gemm_rates
from whisperd.core.errors import WhisperdError
from whisperd.core.options import EngineOptions, TranscribeOptions, section_from_json
from whisperd.protocol import Codec, PipeEnd

FASTER_WHISPER_BATCH = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """The same for all, so that only the programs differ."""

    name: str
    engine: EngineOptions
    transcribe: Annotated[TranscribeOptions, PlainValidator(functools.partial(section_from_json, TranscribeOptions))]
    ffmpeg: Path


@dataclass(frozen=True, slots=True)
class Listen:
    """Transcribe this recording."""

    path: Path


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is ready."""

    about: str  # for people: version, compute type
    rates: dict[str, float]  # of `gemm` only


@dataclass(frozen=True, slots=True)
class Heard:
    """One recording."""

    text: str
    language: str  # a code; empty if it does not say


@dataclass(frozen=True, slots=True)
class Broken:
    """It cannot go on."""

    reason: str


MESSAGE_BYTES_MAX = 64 << 20
ASKED: Codec[Settings | Listen] = Codec(Settings, Listen, bytes_max=MESSAGE_BYTES_MAX)
ANSWERED: Codec[Loaded | Heard | Broken] = Codec(Loaded, Heard, Broken, bytes_max=MESSAGE_BYTES_MAX)

Transcriber = Callable[[Path], Heard]


def openai_whisper(settings: Settings) -> tuple[Loaded, Transcriber]:
    """Its own `transcribe`, with those of its options that the configuration sets."""
    import numpy as np  # noqa: PLC0415  # each program loads its own libraries and no other's
    import torch  # noqa: PLC0415
    import whisper  # noqa: PLC0415

    from whisperd.engine.limits import find_device  # noqa: PLC0415
    from whisperd.engine.weights.find import find  # noqa: PLC0415
    from whisperd.engine.weights.load import load  # noqa: PLC0415
    from whisperd.engine.whisper_sequential import arguments_of  # noqa: PLC0415

    torch.set_num_threads(settings.engine.threads)
    device = find_device(settings.engine.device)
    model = load(find(settings.engine.model, settings.engine.models_directory), str(device))
    half = device.type == "cuda"

    def transcribe(path: Path) -> Heard:
        # `whisper.load_audio` does the same with a program that must be called ffmpeg.
        command = [str(settings.ffmpeg), "-nostdin", "-v", "error", "-i", str(path)]
        command += ["-f", "s16le", "-ac", "1", "-ar", "16000", "-"]
        samples = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        audio = np.frombuffer(samples, np.int16).astype(np.float32) / 32768.0
        result = whisper.transcribe(model, audio, fp16=half, verbose=None, **arguments_of(settings.transcribe))
        return Heard(result["text"], result["language"])

    return Loaded(f"openai-whisper {whisper.__version__}, {'fp16' if half else 'fp32'}", {}), transcribe


def faster_whisper(settings: Settings) -> tuple[Loaded, Transcriber]:
    """Its batched pipeline with its own voice detection, and timestamps, since the others write them too."""
    import faster_whisper as package  # noqa: PLC0415

    from whisperd.engine.faster_whisper.load import load  # noqa: PLC0415

    model, info = load(settings.engine)
    pipeline = package.BatchedInferencePipeline(model)
    wanted = settings.transcribe

    def transcribe(path: Path) -> Heard:
        segments, found = pipeline.transcribe(
            str(path),
            language=wanted.language,
            task=wanted.task,
            batch_size=FASTER_WHISPER_BATCH,
            beam_size=wanted.beam_size or 1,
            patience=wanted.patience or 1.0,
            temperature=wanted.temperature[0],
            initial_prompt=wanted.initial_prompt,
            word_timestamps=wanted.word_timestamps,
            without_timestamps=False,
        )
        return Heard(" ".join(segment.text.strip() for segment in segments), found.language)

    about = f"faster-whisper {package.__version__}, {info.compute_type}, batches of {FASTER_WHISPER_BATCH}"
    return Loaded(about, {}), transcribe


def whisper_cpp(settings: Settings) -> tuple[Loaded, Transcriber]:
    """Its command, which loads its model anew for each recording."""
    wanted = settings.transcribe
    command = ["whisper-cli", "-m", str(ggml_model(settings.engine)), "-t", str(settings.engine.threads)]
    command += ["-bs", str(wanted.beam_size or 1), "-l", wanted.language or "auto", "-nt", "-np"]
    if wanted.task == "translate":
        command.append("-tr")

    def transcribe(path: Path) -> Heard:
        with tempfile.TemporaryDirectory(prefix="whisperd-bench-") as folder:
            wav = Path(folder) / "audio.wav"
            convert = [str(settings.ffmpeg), "-nostdin", "-v", "error", "-i", str(path)]
            convert += ["-ac", "1", "-ar", "16000", str(wav)]
            subprocess.run(convert, check=True)
            ran = subprocess.run([*command, "-f", str(wav)], stdout=subprocess.PIPE, check=True)
        return Heard(" ".join(ran.stdout.decode("utf-8", "replace").split()), wanted.language or "")

    return Loaded("whisper-cli", {}), transcribe


def gemm(settings: Settings) -> tuple[Loaded, Transcriber]:
    """No program: how fast this machine multiplies matrices."""
    from whisperd.engine.limits import find_device  # noqa: PLC0415

    return Loaded("", gemm_rates(str(find_device(settings.engine.device)), settings.engine.threads)), _deaf


def _deaf(_: Path) -> Heard:
    return Heard("", "")


def ggml_model(options: EngineOptions) -> Path:
    """Where the weights of whisper.cpp are looked for."""
    return options.models_directory / f"ggml-{options.model}.bin"


PROGRAMS: dict[str, Callable[[Settings], tuple[Loaded, Transcriber]]] = {
    "openai-whisper": openai_whisper,
    "faster-whisper": faster_whisper,
    "whisper.cpp": whisper_cpp,
    "gemm": gemm,
}


def serve(line: PipeEnd[Loaded | Heard | Broken, Settings | Listen]) -> None:
    """Load, then transcribe what is asked for until the other side has gone."""
    settings = line.receive()
    assert isinstance(settings, Settings)
    try:
        loaded, transcribe = PROGRAMS[settings.name](settings)
        line.send(loaded)
        while isinstance(asked := line.receive(), Listen):
            line.send(transcribe(asked.path))
    except EOFError:
        return
    except WhisperdError as error:
        line.send(Broken(str(error)))
    except Exception as error:  # noqa: BLE001  # whatever it is, the others go on
        line.send(Broken(f"{type(error).__name__}: {' '.join(str(error).split())}"))
