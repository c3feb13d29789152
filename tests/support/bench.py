"""A system for `whisperd bench` that runs nothing, and recordings for it."""

from pathlib import Path

from whisperd.bench.programs import Heard
from whisperd.bench.recordings import ReferenceRecording
from whisperd.bench.systems import SystemRun
from whisperd.core.errors import WhisperdError


class Fake:
    """A system that takes as long as it is told to."""

    def __init__(self, name, seconds, text="red green", journal=None, broken=False):
        self.name, self.seconds, self.text = name, iter(seconds), text
        self.journal = [] if journal is None else journal
        self.broken = broken

    def run(self, recordings):
        self.journal.append(self.name)
        if self.broken:
            raise WhisperdError(f"{self.name} fell over")
        heard = tuple(Heard(self.text, "en") for _ in recordings)
        return SystemRun(next(self.seconds), 1.0, heard, 5 << 20, "", tuple(10.0 for _ in recordings))


RECORDINGS = [ReferenceRecording(Path("a.ogg"), "red green", None), ReferenceRecording(Path("b.ogg"), "red blue", None)]
