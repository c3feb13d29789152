"""Measures known voices: how many people of built conversations get a wrong name, among twenty known ones.

    python tests/bench/known_voices.py DIR [--rounds 100] [--band wide|mulaw|gsm] [--seed 1]

DIR has a folder for each person, best all of one sex, with `sample.wav` and other recordings of the same person. In each round
twenty people are known, and two of them talk with two strangers, in turn, over wide band or a telephone.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from whisperd.core.options import DiarizationOptions
from whisperd.diarization.on_demand import DiarizerOnDemand
from whisperd.protocol import Work
from whisperd.settings import config
from whisperd.settings.profiles import resolve
from whisperd.worker.voices import name_people

RATE = 16_000
PCM = ("-f", "s16le", "-ac", "1", "-ar", str(RATE))
KNOWN, PRESENT, STRANGERS = 20, 2, 2
MIXED = (
    0.2  # somebody with this part of the speech of another was taken for the same person: that is no matter of names
)
TELEPHONES = {
    "mulaw": ("-af", "highpass=f=300,lowpass=f=3400", "-ar", "8000", "-c:a", "pcm_mulaw", "-f", "wav"),
    "gsm": ("-af", "highpass=f=200", "-ar", "8000", "-c:a", "libgsm_ms", "-f", "wav"),
}


def ffmpeg(*arguments: str, given: bytes = b"") -> bytes:
    """What ffmpeg writes to standard output."""
    command = ["ffmpeg", "-v", "error", *arguments, "-"]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def speech(person: Path) -> list[np.ndarray]:
    """The recordings of a person, without the sample, in turns of at most eight seconds."""
    files = [path for path in sorted(person.iterdir()) if path.stem != "sample"]
    whole = [np.frombuffer(ffmpeg("-i", str(path), *PCM), np.int16) for path in files[:3]]
    return [part for each in whole for part in np.array_split(each, max(1, len(each) // (8 * RATE)))]


def conversation(turns: dict[str, list[np.ndarray]], band: str, rng: random.Random) -> tuple[np.ndarray, list]:
    """Join the turns in random order; returns the samples, and start, end and name of each turn."""
    order = [(name, part) for name, parts in turns.items() for part in parts]
    rng.shuffle(order)
    pause, pieces, reference, at = np.zeros(round(0.4 * RATE), np.int16), [], [], 0
    for name, part in order:
        pieces += [part, pause]
        reference.append((at / RATE, (at + len(part)) / RATE, name))
        at += len(part) + len(pause)
    samples = np.concatenate(pieces)
    if band != "wide":
        sent = ffmpeg(*PCM, "-i", "-", *TELEPHONES[band], given=samples.tobytes())
        samples = np.frombuffer(ffmpeg("-i", "-", *PCM, given=sent), np.int16)
    return samples, reference


def who_is(turns: list, reference: list) -> Counter:
    """How long each person of the reference speaks in the turns of one found speaker."""
    shares: Counter = Counter()
    for start, end, _ in turns:
        for first, last, name in reference:
            shares[name] += max(0.0, min(end, last) - max(start, first))
    return shares


def main() -> None:
    """Run the rounds and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("people", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--band", choices=("wide", *TELEPHONES), default="wide")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    everybody = sorted(path for path in arguments.people.iterdir() if path.is_dir())
    diarizer = DiarizerOnDemand(Path("/nonexistent"), 1)
    spec = resolve(config.validate({"diarization": {"enabled": True}}, source="bench"), "talk.wav")
    counts: Counter = Counter()
    scores: dict[str, list[float]] = {"right": [], "mixed": [], "wrong": []}
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(arguments.rounds):
            chosen = rng.sample(everybody, KNOWN + STRANGERS)
            present = [*chosen[:PRESENT], *chosen[KNOWN:]]
            inbox, job = Path(scratch) / "inbox", Path(scratch) / "job"
            shutil.rmtree(inbox, ignore_errors=True)
            (inbox / "_voices").mkdir(parents=True)
            job.mkdir(exist_ok=True)
            for person in chosen[:KNOWN]:
                os.link(person / "sample.wav", inbox / f"_voices/{person.name}.wav")  # the same file each time
            samples, reference = conversation({each.name: speech(each) for each in present}, arguments.band, rng)
            people = diarizer.get().diarize(samples, DiarizationOptions(enabled=True), lambda _: None)
            work = Work("job", job, job / "talk.wav", spec, inbox=inbox)
            voices, (names,) = name_people(work, [samples], [people], diarizer, lambda _: None)
            assert voices is not None
            counts["unusable samples"] += len(voices.unusable)
            known = {person.name for person in chosen[:PRESENT]}
            heard = set()
            for number in range(len(people.voices)):
                shares = who_is([turn for turn in people.turns if turn.speaker == number], reference)
                ((name, longest),) = shares.most_common(1)
                given = names.get(number)
                counts["people"] += 1
                if given is None:
                    counts["known, without a name" if name in known - heard else "unknown, without a name"] += 1
                    continue
                outcome = "right" if given == name else "mixed" if shares[given] > MIXED * longest else "wrong"
                counts[outcome] += 1
                scores[outcome].append(voices.recognized[given])
                heard.add(name)
    print(f"{arguments.band}, {len(everybody)} people, {time.monotonic() - began_at:.0f} s: {dict(counts)}")  # noqa: T201
    print(f"wrong names: {100 * counts['wrong'] / counts['people']:.2f} % of all people")  # noqa: T201
    for outcome, each in scores.items():
        if each:
            print(f"scores of {outcome} names: {np.percentile(each, [0, 5, 25, 50, 100]).round(2).tolist()}")  # noqa: T201


if __name__ == "__main__":
    main()
