"""How fast does batched decoding run here, and how near is that to what the machine can do?

    python tests/bench/batched.py                                            # base, this CPU
    python tests/bench/batched.py --device cuda --types fp16,bf16,fp32 --batches 1,2,4,8,16,32,64
    python tests/bench/batched.py --device cuda --dims large-v3              # random weights, no download
    python tests/bench/batched.py --dims turbo --ctranslate2 int8 --no-peer  # beside CTranslate2 with the same weights
    python tests/bench/batched.py --audio talk.wav --faster-whisper DIR      # whole recordings, and a peer

Every figure is the best of several rounds, and what is compared is interleaved: on a machine that others use too, only
ratios within one run mean something. `--one-thread` measures processor time of one thread, which others disturb least.
"""

# ruff: noqa: E402, I001, T201 - a script: it finds its tree first, and prints
from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import whisper
from whisper.model import ModelDimensions, Whisper

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
from support.options import options
from whisperd.engine.whisper_batched.decoder import BatchedDecoder
from whisperd.engine.whisper_batched.window import BatchWindow
from whisperd.engine.whisper_batched.precision import choose
from whisperd.engine.whisper_batched.timings import measure as measure_kernels
from whisperd.engine.weights.find import find
from whisperd.engine.weights.checkpoint import load

DIMS = {  # mels, context, width, heads, layers; vocabulary, context, width, heads, layers
    "tiny": (80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4),
    "base": (80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6),
    "small": (80, 1500, 768, 12, 12, 51865, 448, 768, 12, 12),
    "medium": (80, 1500, 1024, 16, 24, 51865, 448, 1024, 16, 24),
    "large-v3": (128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 32),
    "turbo": (128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 4),
}
STEPS = 64
TOKENS_PER_WINDOW = 100  # of real speech, for windows per second


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    if arguments.one_thread:
        torch.set_num_threads(1)
    arguments.clock = time.process_time if arguments.one_thread else time.perf_counter
    arguments.timings = {} if device.type == "cuda" else measure_kernels()
    model = random_model(arguments.dims) if arguments.dims else real_model(arguments.model)
    print(
        f"# {arguments.dims or arguments.model} on {device}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    if arguments.audio:
        compare_recordings(model, device, arguments)
        return
    header = ("type", "batch", "beams", "encoder ms", "step ms", "windows/s", "of GEMM", "openai step ms")
    print("".join(f"{name:>15}" for name in header), flush=True)
    if arguments.ctranslate2:
        beside_ctranslate2(model, device, arguments)
        return
    for kind in arguments.types.split(","):
        rate = gemm_rate(device, choose(device, kind, arguments.timings).dtype, arguments.clock)
        for batch in map(int, arguments.batches.split(",")):
            row = measure(model, device, kind, batch, arguments)
            used = operations(model.dims) * row["windows"] / rate
            print(
                f"{kind:>15}{batch:>15}{arguments.beams or 1:>15}{row['encoder'] * 1e3:>15.1f}{row['step'] * 1e3:>15.2f}"
                f"{row['windows']:>15.2f}{used:>14.0%} {row['openai'] * 1e3:>14.2f}",
                flush=True,
            )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--types", default="auto", help="of auto, fp32, bf16, fp16, int8")
    parser.add_argument("--batches", default="1,8,16,32")
    parser.add_argument("--beams", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="base", help="a name or a checkpoint")
    parser.add_argument("--dims", choices=DIMS, help="random weights of that size instead")
    parser.add_argument("--one-thread", action="store_true")
    parser.add_argument("--no-peer", action="store_true", help="leave openai-whisper out")
    parser.add_argument("--ctranslate2", help="its compute type, such as int8, float32, bfloat16 or float16")
    parser.add_argument("--audio", type=Path, help="WAV of 16 kHz, cut blindly every 30 s")
    parser.add_argument("--language", default="en")
    parser.add_argument("--faster-whisper", type=Path, help="directory of a CTranslate2 model")
    return parser.parse_args()


def real_model(name: str) -> Whisper:
    with tempfile.TemporaryDirectory() as nothing:
        return load(find(name, Path(nothing)), "cpu").eval()


def random_model(name: str) -> Whisper:
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(*DIMS[name])).eval()
    with torch.no_grad():
        model.decoder.positional_embedding.normal_(0, 0.02)
    return model


def operations(dims: ModelDimensions) -> float:
    """Of one window of 30 s: encoder, keys and values, and `TOKENS_PER_WINDOW` steps; a multiply-add counts two."""
    n, width, tokens = dims.n_audio_ctx, dims.n_audio_state, TOKENS_PER_WINDOW
    encoder = dims.n_audio_layer * (24 * n * width**2 + 4 * n**2 * width) + 6 * n * (2 * dims.n_mels * width + width**2)
    keys = dims.n_text_layer * 4 * n * width**2
    steps = tokens * (dims.n_text_layer * (28 * width**2 + 4 * n * width) + 2 * dims.n_vocab * width)
    return encoder + keys + steps


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def gemm_rate(device: torch.device, dtype: torch.dtype, clock) -> float:
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    best = 0.0
    for _ in range(6):
        wait(device)
        start = clock()
        a @ b
        wait(device)
        best = max(best, 2 * size**3 / (clock() - start))
    return best


@torch.inference_mode()
def measure(model: Whisper, device: torch.device, kind: str, batch: int, arguments: argparse.Namespace) -> dict:
    """Seconds per window: of the encoder, of a step, and of a step of openai-whisper's `decode`; best of the rounds."""
    clock = arguments.clock
    best = {"encoder": float("inf"), "step": float("inf"), "openai": float("inf")}
    peer = None if arguments.no_peer or arguments.beams else model.to(device)
    decoder = BatchedDecoder(model, device, choose(device, kind, arguments.timings), max_batch=batch)
    generator = torch.Generator().manual_seed(0)
    mels = [torch.randn(model.dims.n_mels, 3000, generator=generator) for _ in range(batch)]
    # Without an end all rows run for all steps, whatever they say about noise.
    wanted = options(
        language=arguments.language, beam_size=arguments.beams, suppress_tokens=endless(model), word_timestamps=False
    )
    for _ in range(arguments.rounds):
        stacked = torch.stack(mels)
        wait(device)
        start = clock()
        features = decoder._admission._encoder(stacked)
        wait(device)
        best["encoder"] = min(best["encoder"], (clock() - start) / batch)
        handles = [decoder.submit(BatchWindow(wanted, mel=mel)) for mel in mels]
        for handle in handles:
            decoder._open[handle].features = features[handle - handles[0]]
        decoder.step()  # joining is no part of a step
        wait(device)
        start, steps = clock(), 0
        while steps < STEPS and len(decoder._open) == batch:
            decoder.step()
            steps += 1
        wait(device)
        if steps:
            best["step"] = min(best["step"], (clock() - start) / steps / batch)
        for handle in handles:
            decoder.withdraw(handle)
        if peer is not None:
            best["openai"] = min(best["openai"], openai_step(peer, features, wanted, clock) / batch)
    best["windows"] = 1 / (best["encoder"] + TOKENS_PER_WINDOW * best["step"])
    return best


def beside_ctranslate2(model: Whisper, device: torch.device, arguments: argparse.Namespace) -> None:
    """Measure both with the same weights, in turn, and print the ratio of their windows per second."""
    from ctranslate2_peer import Peer  # noqa: PLC0415 - the package is an extra

    peer = Peer(model, device.type, arguments.ctranslate2, torch.get_num_threads())
    kinds, arguments.no_peer, rounds, arguments.rounds = arguments.types.split(","), True, arguments.rounds, 1
    for batch in map(int, arguments.batches.split(",")):
        mels = torch.randn(batch, model.dims.n_mels, 3000, generator=torch.Generator().manual_seed(0))
        best = {kind: {"encoder": float("inf"), "step": float("inf")} for kind in [*kinds, peer.compute_type + " ct2"]}
        for _ in range(rounds):
            for kind in kinds:
                row = measure(model, device, kind, batch, arguments)
                best[kind] = {key: min(best[kind][key], row[key]) for key in best[kind]}
            start = arguments.clock()
            features = peer.encode(mels)
            wait(device)
            row = {"encoder": (arguments.clock() - start) / batch}
            row["step"] = peer.step_seconds(features, batch, arguments.clock) / batch
            theirs = best[peer.compute_type + " ct2"]
            theirs.update({key: min(theirs[key], row[key]) for key in row})
        windows = {name: 1 / (row["encoder"] + TOKENS_PER_WINDOW * row["step"]) for name, row in best.items()}
        for name, row in best.items():
            print(
                f"{name:>15}{batch:>15}{1:>15}{row['encoder'] * 1e3:>15.1f}{row['step'] * 1e3:>15.2f}{windows[name]:>15.2f}"
                f"   x{windows[name] / windows[peer.compute_type + ' ct2']:.2f} of CTranslate2",
                flush=True,
            )


def endless(model: Whisper) -> str:
    tokenizer = whisper.tokenizer.get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    return f"-1,{tokenizer.eot}"


def openai_step(model: Whisper, features: torch.Tensor, wanted, clock) -> float:
    """Seconds per step for the batch; openai-whisper knows fp16 on CUDA, and fp32."""
    half = features.dtype != torch.float32 and features.is_cuda
    features = features.to(torch.float16 if half else torch.float32)
    took = []
    for length in (2, 2 + STEPS // 4):
        task = whisper.DecodingOptions(
            language=wanted.language, sample_len=length, suppress_tokens=wanted.suppress_tokens, fp16=half
        )
        wait(features.device)
        start = clock()
        model.decode(features, task)
        wait(features.device)
        took.append(clock() - start)
    return (took[1] - took[0]) / (STEPS // 4)


def compare_recordings(model: Whisper, device: torch.device, arguments: argparse.Namespace) -> None:
    """Audio seconds per second for a recording cut every 30 s: no voice detection, greedy, no fallback, all interleaved."""
    import soundfile  # noqa: PLC0415 - of the test group; random weights need none

    audio, rate = soundfile.read(arguments.audio, dtype="float32")
    assert rate == 16000, "a WAV of 16 kHz"
    seconds = len(audio) / rate
    wanted = options(language=arguments.language)
    pieces = [BatchWindow(wanted, audio=audio[at : at + 480000]) for at in range(0, len(audio), 480000)]
    systems = {}
    for kind in arguments.types.split(","):
        for batch in map(int, arguments.batches.split(",")):
            decoder = BatchedDecoder(model, device, choose(device, kind, arguments.timings), max_batch=batch)
            systems[f"batched {kind} {batch}"] = lambda decoder=decoder: " ".join(
                segment.text.strip() for one in decoder.decode(pieces) for segment in one.segments
            )
    if arguments.faster_whisper:
        systems["faster-whisper int8 8"] = faster_whisper(arguments, audio, device)
    reached: dict[str, list[float]] = {name: [] for name in systems}
    texts = {}
    for _ in range(arguments.rounds):
        for name, run in systems.items():
            start = arguments.clock()
            texts[name] = run()
            reached[name].append(seconds / (arguments.clock() - start))
    for name, speeds in reached.items():
        print(f"{name:30} x{max(speeds):.1f} (x{min(speeds):.1f} at worst), {len(texts[name].split())} words")
    print(json.dumps(texts), file=sys.stderr)


def faster_whisper(arguments: argparse.Namespace, audio, device: torch.device):
    from faster_whisper import BatchedInferencePipeline, WhisperModel  # noqa: PLC0415 - a peer, if it is installed

    model = WhisperModel(
        str(arguments.faster_whisper), device=device.type, compute_type="int8", cpu_threads=torch.get_num_threads()
    )
    pipeline = BatchedInferencePipeline(model)
    ends = [*range(30, int(len(audio) / 16000) + 1, 30), len(audio) / 16000]
    clips = [{"start": start, "end": min(start + 30, len(audio) / 16000)} for start in [0, *ends[:-1]]]

    def run() -> str:
        found, _ = pipeline.transcribe(
            audio,
            language=arguments.language,
            batch_size=8,
            beam_size=1,
            vad_filter=False,
            clip_timestamps=clips,
            without_timestamps=False,
            temperature=0.0,
        )
        return " ".join(segment.text.strip() for segment in found)

    return run


if __name__ == "__main__":
    main()
