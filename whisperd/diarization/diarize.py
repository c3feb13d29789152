"""Finds who speaks when in a recording of any length.

Windows of ten seconds, which overlap by half, are heard by the segmentation network; of each person that it tells apart in
a window the embedding network makes a vector, from speech that is theirs alone; the vectors are grouped; and the overlapping
windows vote, frame by frame, on who speaks.
"""

from __future__ import annotations

import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from whisperd.core.transcript import Turn
from whisperd.diarization import clustering
from whisperd.diarization.clustering import HeardVoice, Pieces
from whisperd.diarization.embedding import SIZE, Embedding
from whisperd.diarization.fbank import FRAME_SAMPLES, MELS, STEP_SAMPLES, Fbank
from whisperd.diarization.segmentation import (
    FIRST_FRAME_SAMPLES,
    FRAME_STEP_SAMPLES,
    FRAMES,
    PEOPLE,
    SETS,
    WINDOW_SAMPLES,
    Segmentation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from whisperd.core.options import DiarizationOptions
    from whisperd.engine.weights.speakers import SpeakerWeights

SAMPLE_RATE = 16_000
STEP_FRAMES = 440  # between the starts of two windows: 7.4 s
HEARD_FROM = (FRAMES - STEP_FRAMES) // 2  # the frames that a window hears better than its neighbours begin here
BATCH = 8  # windows whose pieces share batches of the embedding network
IN_CACHE = 4  # windows given to the segmentation network at once: what it makes of more does not stay in the cache
LEAST_PIECE_FRAMES = 30  # half a second; less says little about a voice
PIECE_FRAMES = 118  # two seconds: the network may miss a change of speakers without a pause ...
SURE_PIECE_FRAMES = (
    267  # ... but not where it is sure of one person, and then a part of four and a half seconds will do
)
SURE = 0.02  # probability of somebody else, at most
JOINED_FRAMES = 6  # a shorter pause within one person's speech, 0.1 s, divides no piece
LENGTHS = (60, 90, 120, 150, 200)  # of what a vector is made from, in frames of 10 ms, so that they share batches
SURE_LENGTH = 150  # is enough of a piece whose person is sure ...
LONG_SECONDS = 120.0  # ... in a recording that is longer than this: a shorter one needs all that is heard
LEAST_PAUSE_SECONDS = 0.5  # a shorter pause does not end a turn
LEAST_TURN_SECONDS = 0.2
_SPEAKS = np.array([[person in members for person in range(PEOPLE)] for members in SETS])


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The people of a recording.

    Attributes:
        turns: who speaks when, in order of their starts.
        voices: of each, by their numbers.
    """

    turns: list[Turn]
    voices: list[HeardVoice]


@dataclass(frozen=True, slots=True, eq=False)
class Impressions:
    """What the networks made of a recording.

    Attributes:
        sets: shape (windows, 589), the number of the set of people who speak in each frame, as in `SETS`.
        pieces: speech of one person without a pause, in the part of a window that it hears better than its neighbours.
        frames: shape (pieces, 2), the first frame of each in its window, and the first after it.
        samples: of the recording.
    """

    sets: npt.NDArray[np.uint8]
    pieces: Pieces
    frames: npt.NDArray[np.int64]
    samples: int


class Diarizer:
    """The loaded networks. They keep no state between calls, so any number of threads may share one.

    Args:
        weights: of both networks, already verified.
        threads: that compute at once. Each runs its own windows with one thread of torch: two that share an operation
            wait for each other at its end, which takes most of the time where other programs use the processor.
    """

    def __init__(self, weights: SpeakerWeights, threads: int) -> None:
        self._segmentation, self._embedding = Segmentation(), Embedding()
        stored = torch.load(weights.segmentation, map_location="cpu", weights_only=True)
        self._segmentation.load_state_dict(stored["state_dict"])
        self._embedding.load_state_dict(torch.load(weights.embedding, map_location="cpu", weights_only=True))
        self._segmentation.eval()
        self._embedding.eval()
        self._fbank = Fbank()
        self._threads = threads
        self._is_bf16 = self._is_faster_in_bf16()

    @torch.inference_mode()
    def _is_faster_in_bf16(self) -> bool:
        """Time the embedding in both number formats: some processors compute bf16 twice as fast, others emulate it."""
        features = torch.zeros(BATCH, LENGTHS[1], MELS)
        seconds = {}
        for is_bf16 in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
                self._embedding(features)  # the first call prepares
                began_at = time.thread_time()
                self._embedding(features)
                seconds[is_bf16] = time.thread_time() - began_at
        return seconds[True] < seconds[False]

    def diarize(
        self, audio: npt.NDArray[np.int16], options: DiarizationOptions, report: Callable[[float], None]
    ) -> People:
        """Find who speaks when, and what their voices are like.

        Args:
            audio: shape (samples,), 16 kHz mono; may be a memory map, it is read piece by piece.
            options: how many people there are, if that is known.
            report: called with the seconds heard so far; what it raises passes through.
        """
        return who(self.listen(audio, report), *options.bounds)

    def listen(self, audio: npt.NDArray[np.int16], report: Callable[[float], None]) -> Impressions:
        """Run the networks over a recording; arguments as for `diarize`."""
        count = 1 + max(0, math.ceil((len(audio) - WINDOW_SAMPLES) / (STEP_FRAMES * FRAME_STEP_SAMPLES)))
        parts = [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
        heard: list[tuple[npt.NDArray[np.uint8], list[_Piece]]] = []
        with ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for windows, result in zip(
                    parts, pool.map(lambda part: self._hear(audio, part, count), parts), strict=True
                ):
                    heard.append(result)
                    report(min(len(audio), (windows.stop + 1) * STEP_FRAMES * FRAME_STEP_SAMPLES) / SAMPLE_RATE)
            finally:
                pool.shutdown(cancel_futures=True)
        found = list(itertools.chain.from_iterable(pieces for _, pieces in heard))
        pieces = Pieces(
            np.array([piece.vector for piece in found], dtype=np.float32).reshape(len(found), SIZE),
            np.array([piece.seconds for piece in found], dtype=np.float32),
            np.array([piece.window for piece in found], dtype=np.int64),
            np.array([piece.person for piece in found], dtype=np.int64),
        )
        frames = np.array([(piece.first, piece.after) for piece in found], dtype=np.int64).reshape(len(found), 2)
        return Impressions(np.concatenate([sets for sets, _ in heard]), pieces, frames, len(audio))

    @torch.inference_mode()
    def _hear(
        self, audio: npt.NDArray[np.int16], windows: range, count: int
    ) -> tuple[npt.NDArray[np.uint8], list[_Piece]]:
        samples = torch.stack([_window(audio, window) for window in windows])
        is_long = len(audio) > LONG_SECONDS * SAMPLE_RATE
        probabilities = torch.cat([self._segmentation(part / 32768) for part in torch.split(samples, IN_CACHE)])
        sets = probabilities.argmax(dim=-1).numpy().astype(np.uint8)
        batches: dict[int, list[tuple[_Piece, torch.Tensor]]] = {}
        for window, classes, likely, signal in zip(windows, sets, probabilities.numpy(), samples, strict=True):
            zone = slice(0 if window == 0 else HEARD_FROM, FRAMES if window == count - 1 else HEARD_FROM + STEP_FRAMES)
            for person, first, after, is_sure in _pieces(classes, likely, zone, SURE if is_long else 0.0):
                speaks = classes == SETS.index((person,))
                features = self._features(signal, speaks, first, after, SURE_LENGTH if is_sure else LENGTHS[-1])
                length = next(length for length in LENGTHS if length >= len(features))
                heard = len(features) * STEP_SAMPLES / SAMPLE_RATE
                features = features.repeat(math.ceil(length / len(features)), 1)[:length]
                batches.setdefault(length, []).append((_Piece(window, person, first, after, heard), features))
        found = []
        for batch in batches.values():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._is_bf16):
                vectors = self._embedding(torch.stack([features for _, features in batch]))
            vectors = torch.nn.functional.normalize(vectors.float()).numpy()
            found += [piece._replace(vector=vector) for (piece, _), vector in zip(batch, vectors, strict=True)]
        return sets, sorted(found, key=lambda piece: piece[:3])

    def _features(
        self, signal: torch.Tensor, speaks: npt.NDArray[np.bool_], first: int, after: int, longest: int
    ) -> torch.Tensor:
        """The filterbanks from the middle of a piece, where this person speaks, their mean removed: that is the microphone."""
        begin = FIRST_FRAME_SAMPLES + first * FRAME_STEP_SAMPLES - FRAME_STEP_SAMPLES // 2
        end = FIRST_FRAME_SAMPLES + after * FRAME_STEP_SAMPLES - FRAME_STEP_SAMPLES // 2
        features = self._fbank(signal[begin:end])
        middles = (np.arange(len(features)) * STEP_SAMPLES + FRAME_SAMPLES // 2) // FRAME_STEP_SAMPLES
        features = features[torch.from_numpy(speaks[first + np.minimum(middles, after - first - 1)])]
        spare = max(0, len(features) - longest)
        features = features[spare // 2 : len(features) - (spare - spare // 2)]
        return features - features.mean(dim=0)


class _Piece(NamedTuple):
    window: int
    person: int
    first: int
    after: int
    seconds: float
    vector: npt.NDArray[np.float32] | None = None


def who(heard: Impressions, least: int, most: int | None) -> People:
    """Group the pieces of a recording and join what the windows heard into turns."""
    pieces = heard.pieces
    if not len(pieces.vectors):
        return People([], [])
    groups = clustering.group(pieces, least, most)
    spans = list(_spans(heard.sets, _labels(heard, groups), heard.samples))
    names: dict[int, int] = {}
    for _, _, speaker in spans:
        names.setdefault(speaker, len(names))
    voices = [HeardVoice(pieces.vectors[groups == label], pieces.seconds[groups == label]) for label in names]
    return People([Turn(start, end, names[speaker]) for start, end, speaker in spans], voices)


def _labels(heard: Impressions, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
    """The group of each of three people in each frame of each window, shape (windows, 589, 3); -1: nobody knows.

    In frames without a piece a person of a window is whom most of their pieces are.
    """
    most = np.full((len(heard.sets), PEOPLE), -1)
    shares: dict[tuple[int, int], dict[int, float]] = {}
    for window, person, seconds, label in zip(
        heard.pieces.windows.tolist(),
        heard.pieces.people.tolist(),
        heard.pieces.seconds.tolist(),
        groups.tolist(),
        strict=True,
    ):
        share = shares.setdefault((window, person), {})
        share[label] = share.get(label, 0.0) + seconds
    for place, share in shares.items():
        most[place] = max(share, key=lambda label: share[label])
    _label_the_rest(most, heard.sets)
    labels = np.repeat(most[:, None, :], FRAMES, axis=1).astype(np.int16)
    for window, person, (first, after), label in zip(
        heard.pieces.windows.tolist(), heard.pieces.people.tolist(), heard.frames.tolist(), groups.tolist(), strict=True
    ):
        labels[window, first:after, person] = label
    return labels


def _window(audio: npt.NDArray[np.int16], number: int) -> torch.Tensor:
    start = number * STEP_FRAMES * FRAME_STEP_SAMPLES
    samples = torch.zeros(WINDOW_SAMPLES)
    read = audio[start : start + WINDOW_SAMPLES].astype(np.float32)
    samples[: len(read)] = torch.from_numpy(read)
    return samples


def _pieces(
    classes: npt.NDArray[np.uint8], likely: npt.NDArray[np.float32], zone: slice, sure: float
) -> Iterator[tuple[int, int, int, bool]]:
    """Yield each piece of a zone of a window in which one person speaks alone.

    As person, first frame, first frame after it, and whether the network is sure that it is nobody else.
    """
    runs: list[list[int]] = []  # person, first, after, frames of speech
    at = zone.start
    for number, run in itertools.groupby(classes[zone].tolist()):
        end = at + len(list(run))
        members: tuple[int, ...] = SETS[number]
        if len(members) == 1:
            last = runs[-1] if runs else None
            if last and last[0] == members[0] and not classes[last[2] : at].any() and at - last[2] < JOINED_FRAMES:
                last[2:] = end, last[3] + end - at
            else:
                runs.append([members[0], at, end, end - at])
        at = end
    for person, first, after, spoken in runs:
        if spoken < LEAST_PIECE_FRAMES:
            continue
        others = likely[first:after, 1:].sum(axis=1) - likely[first:after, SETS.index((person,))]
        is_sure = bool(others.max() < sure)
        length = SURE_PIECE_FRAMES if is_sure else PIECE_FRAMES
        edges = np.linspace(first, after, max(2, round((after - first) / length) + 1)).astype(int).tolist()
        yield from ((person, begin, end, is_sure) for begin, end in itertools.pairwise(edges))


def _label_the_rest(labels: npt.NDArray[np.int64], sets: npt.NDArray[np.uint8]) -> None:
    """Give people without a vector, who were hardly heard alone, the label of whom a neighbouring window hears then."""
    speaks = _SPEAKS[sets]
    for window, person in np.argwhere((labels < 0) & speaks.any(axis=1)):
        votes: dict[int, int] = {}
        for other, mine, theirs in (
            (window - 1, slice(0, FRAMES - STEP_FRAMES), slice(STEP_FRAMES, FRAMES)),
            (window + 1, slice(STEP_FRAMES, FRAMES), slice(0, FRAMES - STEP_FRAMES)),
        ):
            if not 0 <= other < len(sets):
                continue
            for neighbour in np.flatnonzero(labels[other] >= 0):
                shared = int((speaks[window, mine, person] & speaks[other, theirs, neighbour]).sum())
                label = int(labels[other, neighbour])
                if shared and label not in labels[window]:
                    votes[label] = votes.get(label, 0) + shared
        if votes:
            labels[window, person] = max(votes, key=lambda label: votes[label])


def _spans(sets: npt.NDArray[np.uint8], labels: npt.NDArray[np.int16], samples: int) -> list[tuple[float, float, int]]:
    """What all windows agree on: start, end and label of each turn, sorted."""
    people = int(labels.max()) + 1
    weights = 1.0 - np.abs(np.arange(FRAMES) - (FRAMES - 1) / 2) / (FRAMES / 2)
    active = np.concatenate([_block(sets, labels, block, people, weights) for block in range(len(sets) + 1)])
    found = []
    for label in range(people):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], active[:, label].astype(np.int8), [0]])))
        last: list[float] | None = None
        for begin, after in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            start, end = _seconds(begin), min(_seconds(after), samples / SAMPLE_RATE)
            if last is not None and start - last[1] < LEAST_PAUSE_SECONDS:
                last[1] = end
            else:
                last = [start, end]
                found.append((last, label))
    return sorted((start, end, label) for (start, end), label in found if end - start >= LEAST_TURN_SECONDS)


def _block(
    sets: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int16],
    block: int,
    people: int,
    weights: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Who speaks in the frames from the start of window number `block` to that of the next one: (440, people).

    Only this window and the one before hear them. They speak whom most weight hears, as many as are heard on average.
    """
    heard = np.zeros((STEP_FRAMES, people))
    number, total = np.zeros(STEP_FRAMES), np.full(STEP_FRAMES, 1e-9)
    for window, first in ((block, 0), (block - 1, STEP_FRAMES)):
        if not 0 <= window < len(sets):
            continue
        frames = slice(first, min(first + STEP_FRAMES, FRAMES))
        size = frames.stop - first
        weight = weights[frames]
        speaks = _SPEAKS[sets[window, frames]]
        for person in range(PEOPLE):
            label = labels[window, frames][:, person]
            here = np.flatnonzero(speaks[:, person] & (label >= 0))
            np.add.at(heard, (here, label[here]), weight[here])
            number[here] += weight[here]
        total[:size] += weight
    ranks = (-heard).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    active: npt.NDArray[np.bool_] = (ranks < np.floor(number / total + 0.5)[:, None]) & (heard > 0)
    return active


def _seconds(frame: int) -> float:
    return round(max(0.0, (frame * FRAME_STEP_SAMPLES + FIRST_FRAME_SAMPLES - FRAME_STEP_SAMPLES / 2) / SAMPLE_RATE), 3)
