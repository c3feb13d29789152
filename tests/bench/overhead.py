"""What does the daemon cost? Its throughput beside that of the engine alone, in turn over the same recordings.

    python tests/bench/overhead.py DIR                                # x.ogg and x.txt, as for `whisperd bench --audio`
    python tests/bench/overhead.py DIR --config FILE --rounds 5

The engine alone is one process that knows neither inbox nor outbox: it decodes every recording with ffmpeg, finds the speech,
and then feeds all windows to the decoder, one thing after the other, so that each has the machine to itself. Languages
are voted for as in the daemon.
"""

# ruff: noqa: E402, PLC0415 - a script: it finds its tree first, and its own process need not load torch
from __future__ import annotations

import argparse
import collections
import dataclasses
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console

sys.path[:0] = [str(Path(__file__).parents[2])]
from whisperd.bench.comparison import compare_systems, figures_of
from whisperd.bench.programs import Heard
from whisperd.bench.recordings import find_recordings
from whisperd.bench.systems import Daemon, PeakMemory, SystemRun
from whisperd.cli.bench import comparison_table
from whisperd.protocol import Work
from whisperd.settings import config
from whisperd.settings.profiles import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, metavar="DIR")
    parser.add_argument("--config", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    settings = config.load(arguments.config)
    recordings = find_recordings(arguments.audio)
    runs = compare_systems([Daemon(settings), EngineAlone(settings)], recordings, arguments.rounds, print)
    Console().print(comparison_table(figures_of(runs, recordings, settings.transcription.language)))


class EngineAlone:
    """See `whisperd.bench.systems.System`."""

    name = "engine alone"

    def __init__(self, settings):
        self.settings = settings

    def run(self, recordings):
        os.environ["OMP_NUM_THREADS"] = str(self.settings.engine_options().threads)  # read when torch is loaded
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process, PeakMemory(os.getpid()) as memory:
            run = process.submit(transcribe, self.settings, [recording.path for recording in recordings]).result()
        return dataclasses.replace(run, peak_bytes=memory.peak_bytes)


def transcribe(settings, paths):
    """All recordings, in this process."""
    started = time.monotonic()
    from whisperd.engine.api import create
    from whisperd.media.vad import Detector
    from whisperd.worker.assembly import Assembly
    from whisperd.worker.prepare import prepare

    spec = resolve(settings, "")
    engine, detector = create(settings.engine_options()), Detector()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = []
        for number, path in enumerate(paths):
            directory = Path(scratch, str(number))
            directory.mkdir()
            prepared.append(prepare(Work(str(number), directory, path, spec), detector, lambda _: None))
        recordings = [Assembly(one.windows, one.total, spec.transcribe.language) for one in prepared]
        decode(engine, spec.transcribe, prepared, recordings)
        heard = tuple(Heard((one := recording.transcript()).text, one.language) for recording in recordings)
    ended = time.monotonic()
    seconds = tuple(one.decoded.duration_seconds for one in prepared)
    return SystemRun(ended - begun, begun - started, heard, 0, "without the daemon", seconds)


def decode(engine, options, prepared, recordings):
    """Take the recordings in turn, as the pipeline of a worker does."""
    from whisperd.engine.api import AudioWindow

    turns, handles = collections.deque(range(len(recordings))), {}
    while not all(recording.is_done for recording in recordings):
        idle = 0
        while idle < len(turns) and engine.pending < engine.capacity * 5 // 4:
            number = turns[0]
            turns.rotate(-1)
            span = recordings[number].next()
            if span is None:
                idle += 1
                continue
            idle = 0
            audio = prepared[number].cut(span.start, span.end)
            handles[engine.submit(AudioWindow(audio, options, span.language))] = number, span
        for handle, decoded in engine.step(lambda handle, seconds: None):
            number, span = handles.pop(handle)
            recordings[number].take(span, decoded)


if __name__ == "__main__":
    main()
