import subprocess
import sys

import pytest

SAMPLE_RATE = 16_000

# The model is as small as they come and its answers are canned: what is measured is all that grows with the audio.
RUN = """
import resource, sys
import numpy as np, torch
from whisper.decoding import DecodingResult
from whisper.model import ModelDimensions, Whisper
from whisperd.engine.api import EngineInfo
from whisperd.engine.whisper_sequential import OpenAIWhisper
from whisperd.core.options import TranscribeOptions

torch.set_num_threads(1)
model = Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51865, 448, 64, 1, 1))
torch.nn.init.zeros_(model.decoder.positional_embedding)
engine = OpenAIWhisper.of(model, EngineInfo("openai-whisper", "random", "cpu", "fp32"))
model.decode = lambda mel, options: DecodingResult(
    mel, "en", tokens=[50364, *[1000] * 100, 51864], text="some words", avg_logprob=0.0, no_speech_prob=0.0
)
options = TranscribeOptions(
    language="en", best_of=None, temperature=(0.0,), compression_ratio_threshold=None, logprob_threshold=None,
    no_speech_threshold=None,
)
audio = np.memmap(sys.argv[1], dtype=np.int16, mode="r")
transcript = engine.transcribe(audio, options, lambda seconds: None)
print(len(transcript.segments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def segments_and_peak_megabytes(path, minutes):
    with path.open("wb") as file:
        file.truncate(minutes * 60 * SAMPLE_RATE * 2)
    done = subprocess.run([sys.executable, "-c", RUN, path], stdout=subprocess.PIPE, text=True, check=True, timeout=240)
    return map(int, done.stdout.split())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_audio(tmp_path):
    """Three hours, 345 MB of samples and nearly 5 GB in openai-whisper's own hands, take what ten minutes take."""
    few, short = segments_and_peak_megabytes(tmp_path / "short.s16", 10)
    many, long = segments_and_peak_megabytes(tmp_path / "long.s16", 180)

    assert (few, many) == (20, 360)
    assert long - short < 40
