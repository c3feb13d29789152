"""Runs another program for `whisperd bench`, in a separate process started as `python -m whisperd.bench FD`.

The process receives `Settings`, loads the program, answers `Loaded`, then answers each `Listen` with a `Heard`; if the program
fails it answers `Broken` and ends.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator

from whisperd.core.errors import WhisperdError
from whisperd.core.options import EngineOptions, TranscribeOptions, section_from_json
from whisperd.protocol import Codec, PipeEnd

FASTER_WHISPER_BATCH = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run; the options are the same for all programs, so that only the programs differ."""

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
    """The answer when the model is loaded."""

    about: str  # for people: version, compute type
    rates: dict[str, float]  # of `gemm` only


@dataclass(frozen=True, slots=True)
class Heard:
    """The answer to one recording: its text."""

    text: str
    language: str  # a code; empty if it does not say


@dataclass(frozen=True, slots=True)
class Broken:
    """The answer when the program failed; the process ends."""

    reason: str


MESSAGE_BYTES_MAX = 64 << 20
ASKED: Codec[Settings | Listen] = Codec(Settings, Listen, bytes_max=MESSAGE_BYTES_MAX)
ANSWERED: Codec[Loaded | Heard | Broken] = Codec(Loaded, Heard, Broken, bytes_max=MESSAGE_BYTES_MAX)

Transcriber = Callable[[Path], Heard]


def openai_whisper(settings: Settings) -> tuple[Loaded, Transcriber]:
    """Load openai-whisper: its own `transcribe`, with those of its options that the configuration sets."""
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
    """Load faster-whisper: its batched pipeline with its own voice detection, and with timestamps, as the others have them."""
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
    """Prepare whisper.cpp: its command, which loads its model again for each recording."""
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
    """Measure how fast this machine multiplies matrices, instead of a program."""
    from whisperd.engine.limits import find_device  # noqa: PLC0415

    return Loaded("", gemm_rates(str(find_device(settings.engine.device)), settings.engine.threads)), _no_text


def gemm_rates(device: str, threads: int) -> dict[str, float]:
    """Measure the operations per second of a large matrix product in each type, the best of six. Loads torch."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)
    on_gpu = device.startswith("cuda")
    size = 8192 if on_gpu else 1536
    rates = {}
    for name, kind in {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        if name == "fp16" and not on_gpu:
            continue
        a, b = (torch.randn(size, size).to(device, kind) for _ in range(2))
        best = 0.0
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            if on_gpu:
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
        rates[name] = best
    return rates


def _no_text(_: Path) -> Heard:
    return Heard("", "")


def ggml_model(options: EngineOptions) -> Path:
    """The path at which the weights of whisper.cpp must be."""
    return options.models_directory / f"ggml-{options.model}.bin"


PROGRAMS: dict[str, Callable[[Settings], tuple[Loaded, Transcriber]]] = {
    "openai-whisper": openai_whisper,
    "faster-whisper": faster_whisper,
    "whisper.cpp": whisper_cpp,
    "gemm": gemm,
}


def serve(connection: PipeEnd[Loaded | Heard | Broken, Settings | Listen]) -> None:
    """Load the program, then transcribe each recording until the parent closes the connection."""
    settings = connection.receive()
    assert isinstance(settings, Settings)
    try:
        loaded, transcribe = PROGRAMS[settings.name](settings)
        connection.send(loaded)
        while isinstance(asked := connection.receive(), Listen):
            connection.send(transcribe(asked.path))
    except EOFError:
        return
    except WhisperdError as error:
        connection.send(Broken(str(error)))
    except Exception as error:  # noqa: BLE001  # whatever it is, the other programs are still measured
        connection.send(Broken(f"{type(error).__name__}: {' '.join(str(error).split())}"))
