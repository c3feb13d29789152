"""Runs another program for `whisperd bench`, in a separate process started as `python -m whisperd.bench.programs FD`.

The process receives `Settings`, loads the program, answers `Loaded`, then answers each `Listen` with a `Heard`; if the program
fails it answers `Broken` and ends.
"""

from __future__ import annotations

import functools
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import PlainValidator

from whisperd.core.errors import WhisperdError
from whisperd.core.options import EngineOptions, TranscribeOptions, section_from_json
from whisperd.protocol import Codec, PipeEnd

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from whisperd.engine.whisper_batched.precision import Precision

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
    rates: dict[str, float]  # of `gemm`: operations per second; of `layers`: seconds of a window


@dataclass(frozen=True, slots=True)
class Heard:
    """The answer to one recording: its text."""

    text: str
    language: str  # a code; empty if it does not say


@dataclass(frozen=True, slots=True)
class Broken:
    """The answer when the program failed; the process ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What decides how much a Whisper model computes; names as in `whisper.model.ModelDimensions`."""

    n_mels: int
    n_state: int  # the same for audio and text in all models
    n_audio_layer: int
    n_text_layer: int
    n_vocab: int


SIZES: Final = {
    "tiny": Dimensions(80, 384, 4, 4, 51865),
    "base": Dimensions(80, 512, 6, 6, 51865),
    "small": Dimensions(80, 768, 12, 12, 51865),
    "medium": Dimensions(80, 1024, 24, 24, 51865),
    "large-v1": Dimensions(80, 1280, 32, 32, 51865),
    "large-v2": Dimensions(80, 1280, 32, 32, 51865),
    "large-v3": Dimensions(128, 1280, 32, 32, 51866),
    "large-v3-turbo": Dimensions(128, 1280, 32, 4, 51866),
}

TOKENS_PER_WINDOW = 100  # of continuous speech

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
    from whisperd.engine.weights.checkpoint import load  # noqa: PLC0415
    from whisperd.engine.weights.find import find  # noqa: PLC0415
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

    from whisperd.engine.faster_whisper import load  # noqa: PLC0415

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
    """Prepare whisper.cpp: its command, which loads its model again for each recording, or the package pywhispercpp."""
    if shutil.which("whisper-cli") is None:
        return whisper_cpp_in_python(settings)
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


def whisper_cpp_in_python(settings: Settings) -> tuple[Loaded, Transcriber]:
    """Load whisper.cpp as the package pywhispercpp has it, with the weights of whisperd in 8 bits."""
    import pywhispercpp.model  # noqa: PLC0415

    from whisperd.bench import ggml  # noqa: PLC0415
    from whisperd.engine.weights.checkpoint import load  # noqa: PLC0415
    from whisperd.engine.weights.find import find  # noqa: PLC0415

    wanted, options = settings.transcribe, settings.engine
    with tempfile.NamedTemporaryFile(prefix="whisperd-bench-") as weights:
        ggml.write(load(find(options.model, options.models_directory), "cpu"), weights)
        weights.flush()
        model = pywhispercpp.model.Model(
            weights.name,
            params_sampling_strategy=int(wanted.beam_size is not None),
            redirect_whispercpp_logs_to=None,
            n_threads=options.threads,
            language=wanted.language or "",
            translate=wanted.task == "translate",
            beam_search={"beam_size": wanted.beam_size or -1, "patience": -1.0},
            print_progress=False,
        )

    def transcribe(path: Path) -> Heard:
        segments = model.transcribe(_decoded(settings.ffmpeg, path))
        return Heard(" ".join(segment.text for segment in segments), wanted.language or "")

    version = metadata.version("pywhispercpp")
    return Loaded(f"pywhispercpp {version}, Q8_0", {}), transcribe


def _decoded(ffmpeg: Path, path: Path) -> npt.NDArray[np.float32]:
    import numpy as np  # noqa: PLC0415  # not for every program

    command = [str(ffmpeg), "-nostdin", "-v", "error", "-i", str(path), "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout, dtype=np.float32)


def gemm(settings: Settings) -> tuple[Loaded, Transcriber]:
    """Measure how fast this machine multiplies matrices, instead of a program."""
    from whisperd.engine.limits import find_device  # noqa: PLC0415

    return Loaded("", gemm_rates(str(find_device(settings.engine.device)), settings.engine.threads)), _no_text


def gemm_rates(device: str, threads: int) -> dict[str, float]:
    """Measure the operations per second of a large matrix product in each type, the best of six. Loads torch."""
    import torch  # noqa: PLC0415

    from whisperd.engine.whisper_batched.linear import QuantisedAffine, can_quantise  # noqa: PLC0415

    torch.set_num_threads(threads)
    on_gpu = device.startswith("cuda")
    size = 8192 if on_gpu else 1536
    types = {"fp32": torch.float32, "bf16": torch.bfloat16} | ({"fp16": torch.float16} if on_gpu else {})
    products: dict[str, Callable[[], object]] = {}
    for name, kind in types.items():
        a, b = (torch.randn(size, size).to(device, kind) for _ in range(2))
        products[name] = functools.partial(torch.matmul, a, b)
    if not on_gpu and can_quantise():
        a, b = (torch.randn(size, size) for _ in range(2))
        products["int8"] = functools.partial(QuantisedAffine(b, None, torch.float32, rows=size), a)
    rates = {}
    for name, product in products.items():
        best = 0.0
        for _ in range(6):
            start = time.perf_counter()
            product()
            if on_gpu:
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
        rates[name] = best
    return rates


def layers(settings: Settings) -> tuple[Loaded, Transcriber]:
    """Time layers of every size of model, with random weights, instead of a program: the seconds that a window takes."""
    from whisperd.engine.limits import find_device  # noqa: PLC0415
    from whisperd.engine.threads import limit_threads  # noqa: PLC0415
    from whisperd.engine.whisper_batched.precision import choose  # noqa: PLC0415
    from whisperd.engine.whisper_batched.timings import timings  # noqa: PLC0415

    device = find_device(settings.engine.device)
    limit_threads(settings.engine.threads)
    measured = {} if device.type == "cuda" else timings(settings.engine.models_directory, keep=False)
    precision = choose(device, "auto", measured)
    batch = settings.engine.batch_size
    seconds = {
        size: window_seconds(size, layer_seconds(size, device, precision, batch), batch) for size in set(SIZES.values())
    }
    return Loaded("", {name: seconds[size] for name, size in SIZES.items()}), _no_text


@dataclass(frozen=True, slots=True)
class LayerSeconds:
    """How long parts of a model take.

    Attributes:
        encoder: for a window, with one layer and with two.
        step: of all windows of a batch, with one layer of the decoder and with two.
        keys: of the cross-attention of a window, for two layers.
        words: the projection onto the vocabulary, for all windows of a batch.
    """

    encoder: tuple[float, float]
    step: tuple[float, float]
    keys: float
    words: float


def window_seconds(size: Dimensions, took: LayerSeconds, batch: int) -> float:
    """Compute what a full window takes: encoder, keys and values, and all steps."""
    encoder_layer, step_layer = (
        max(0.0, two - one) for one, two in (took.encoder, took.step)
    )  # a busy machine may say less
    step_seconds = took.step[0] + (size.n_text_layer - 1) * step_layer + took.words
    return (
        took.encoder[0]
        + (size.n_audio_layer - 1) * encoder_layer
        + size.n_text_layer * took.keys / 2
        + TOKENS_PER_WINDOW * step_seconds / batch
    )


def layer_seconds(size: Dimensions, device: Any, precision: Precision, batch: int) -> LayerSeconds:
    """Measure the layers of a model of this width, with random weights."""
    import torch  # noqa: PLC0415
    from whisper.model import ModelDimensions, Whisper  # noqa: PLC0415

    from whisperd.engine.whisper_batched.encoder import AudioEncoder  # noqa: PLC0415
    from whisperd.engine.whisper_batched.text_decoder import Cache, TextDecoder  # noqa: PLC0415

    def seconds(work: Callable[[], object]) -> float:
        best = math.inf
        for _ in range(4):
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        return best

    heads = size.n_state // 64
    text = (size.n_vocab, 448, size.n_state, heads, 1)
    with torch.inference_mode():
        model = Whisper(ModelDimensions(size.n_mels, 1500, size.n_state, heads, 1, *text))
        torch.nn.init.normal_(model.decoder.positional_embedding, 0.0, 0.02)
        encoder, decoder = AudioEncoder(model, device, precision), TextDecoder(model, device, precision)
        mel, tokens = torch.randn(1, size.n_mels, 3000), torch.zeros(batch, dtype=torch.long, device=device)
        encoded, stepped = [], []
        for _ in range(2):
            encoded.append(seconds(lambda: encoder(mel)))
            features = list(encoder(mel))
            cache = Cache(decoder, batch, 1)
            for _ in range(batch):
                cache.attend_to(features)
                cache.join([(key[0, :, :4], value[0, :, :4]) for key, value in cache.cross], tokens=4)
            step = functools.partial(decoder.step, tokens, tokens + 4, 5, cache)
            stepped.append(seconds(step))
            keys = seconds(functools.partial(decoder.cross, features))
            encoder.layers *= 2
            decoder.layers *= 2
        words = seconds(functools.partial(decoder.logits, torch.randn(batch, size.n_state, device=device)))
    return LayerSeconds((encoded[0], encoded[1]), (stepped[0], stepped[1]), keys, words)


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
    "layers": layers,
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


if __name__ == "__main__":
    serve(PipeEnd(socket.socket(fileno=int(sys.argv[1])), ANSWERED, ASKED))
