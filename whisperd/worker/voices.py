"""Known voices: finds the samples that name people, such as `Anna.wav`, and recognizes these people in a recording.

Samples are in the folders `_voices` of the inbox, from that beside the recording upwards, and in `diarization.voices`. Where
two have one name, the nearer one counts. Anybody may write to the inbox, so no link in it is followed. A sample that cannot be
used is reported, and harms neither the others nor the recording.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whisperd.core.display import printable
from whisperd.core.errors import EngineError, InputError, JobTimeout
from whisperd.core.job import MEDIA_EXTENSIONS
from whisperd.core.options import DiarizationOptions
from whisperd.core.transcript import KnownVoices
from whisperd.diarization.clustering import VoicePrint, likeness, recognize
from whisperd.media.decode import decode
from whisperd.media.ffmpeg import SAMPLE_RATE
from whisperd.spool.durable import NOT_THERE, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from whisperd.core.transcript import Turn
    from whisperd.diarization.diarize import Diarizer, People
    from whisperd.diarization.on_demand import DiarizerOnDemand
    from whisperd.protocol import Work

FOLDER = "_voices"
SAMPLES_MAX = 200  # for one recording: whoever can write to the inbox could keep a worker busy for ever
LEAST_SECONDS = 5.0  # of speech in a sample
LONGEST_SECONDS = 300.0
LEAST_SHARE = 0.8  # of the speech in a sample that must be of one person
STALL_SECONDS = 20.0
NAME_MAX = 100  # characters
REPORTS_MAX, REPORT_MAX = 50, 1000  # samples that are reported, and characters of each report, whose end has the reason
SAMPLES = "voice.s16le"
TELEPHONE_HZ = (300.0, 3400.0)
MU_LAW, MU_LAW_STEPS = 255.0, 127.0
ABOVE_HZ = 4100.0  # nothing is there where 8000 samples are sent in a second
BLOCK, BLOCKS_MAX = 1600, 2000  # samples that are looked at together, 0.1 s, and how many such blocks of one person
QUIET = 1000.0  # a block with less than this part of the power of loud ones is no speech
HISSES_PERCENTILE = 90  # of all blocks: s, f and sh have most of their power above the band of the telephone ...
NARROW_SHARE = 0.005  # ... and less than this on the telephone
_NUMBERED = re.compile(r"Speaker \d+", re.IGNORECASE)  # what people are called whom nobody knows


class Sample(NamedTuple):
    """A file with the voice of one person.

    Attributes:
        name: of the person.
        label: where it is, for people.
        folder: the directory, and the folders below it, which are reached without following a link.
        file: its name there.
    """

    name: str
    label: str
    folder: tuple[Path, tuple[str, ...]]
    file: str


def name_people(
    work: Work,
    tracks: Sequence[npt.NDArray[np.int16]],
    people: Sequence[People],
    diarizer: DiarizerOnDemand,
    report: Callable[[float], None],
) -> tuple[KnownVoices | None, list[dict[int, str]]]:
    """Recognize the people of a recording by the samples that there are for it.

    Args:
        work: the job.
        tracks: the samples of each channel.
        people: of each channel.
        diarizer: that heard them; it keeps the voice prints.
        report: the heartbeat; what it raises passes through.

    Returns:
        What the samples gave, None if there are none; and, for each channel, the names of people by their numbers.

    Raises:
        SpoolFull: no room for a decoded sample.
        NoResources: the machine starts no ffmpeg now.
    """
    names: list[dict[int, str]] = [{} for _ in people]
    samples, unusable = find_samples(work.spec.diarization.voices, work.inbox, work.folders)
    if not samples and not unusable:
        return None, names
    heard = [
        (channel, person, _is_narrow(track, [turn for turn in each.turns if turn.speaker == person]))
        for channel, (each, track) in enumerate(zip(people, tracks, strict=True))
        for person in range(len(each.voices))
    ]
    scores = np.full((len(heard), len(samples)), -1.0)
    flaws: dict[str, str] = {}
    for is_narrow in sorted({each[2] for each in heard}):
        prints = [_print(sample, work, diarizer, report, is_narrow=is_narrow) for sample in samples]
        flaws |= {sample.label: made for sample, made in zip(samples, prints, strict=True) if isinstance(made, str)}
        usable = {number: made for number, made in enumerate(prints) if isinstance(made, VoicePrint)}
        if not usable:
            continue
        rows = [number for number, each in enumerate(heard) if each[2] is is_narrow]
        voices = [people[channel].voices[person] for channel, person, _ in map(heard.__getitem__, rows)]
        scores[np.ix_(rows, list(usable))] = likeness(voices, list(usable.values()), is_narrow=is_narrow)
    recognized = {}
    for number, sample, score in recognize(scores):
        channel, person, _ = heard[number]
        names[channel][person] = samples[sample].name
        recognized[samples[sample].name] = round(score, 3)
    unusable += [f"{label}: {why}" for label, why in flaws.items()]
    return KnownVoices(recognized, _bounded(unusable)), names


def _bounded(unusable: list[str]) -> tuple[str, ...]:
    """Keep reports small, whatever is in the inbox: the supervisor accepts no endless texts."""
    more = len(unusable) - REPORTS_MAX
    shown = [text[-REPORT_MAX:] for text in unusable[:REPORTS_MAX]]
    return tuple([*shown, f"and {more} more"] if more > 0 else shown)


def find_samples(
    directory: Path | None, inbox: Path | None, folders: tuple[str, ...]
) -> tuple[list[Sample], list[str]]:
    """Find the samples for a recording that was in these folders of the inbox, the nearest first; and what cannot be used, with the reason."""
    found: dict[str, Sample] = {}
    unusable: list[str] = []
    for root, parts, label in _folders_with_samples(directory, inbox, folders, unusable):
        try:
            with Folder(root, parts) as folder:
                for sample in _samples(folder, (root, parts), label, unusable):
                    found.setdefault(sample.name.casefold(), sample)
        except OSError as error:
            is_link = error.errno in {errno.ELOOP, errno.ENOTDIR}
            why = "this is no folder, or a link to one, and none is followed" if is_link else error.strerror
            unusable.append(f"{label}: {why}")
    samples = list(found.values())
    if len(samples) > SAMPLES_MAX:
        unusable.append(f"{samples[SAMPLES_MAX].label} and those after it: only {SAMPLES_MAX} samples are used")
    return samples[:SAMPLES_MAX], unusable


def _folders_with_samples(
    directory: Path | None, inbox: Path | None, folders: tuple[str, ...], unusable: list[str]
) -> Iterator[tuple[Path, tuple[str, ...], str]]:
    """Yield each folder that has samples, as its root, the folders below that, and a label for people."""
    for depth in range(len(folders), -1, -1):
        if inbox is None:
            break
        above = folders[:depth]
        try:
            with Folder(inbox, above) as folder, os.scandir(folder.fd) as entries:
                names = sorted(entry.name for entry in entries if entry.name.lower() == FOLDER)
        except OSError as error:
            if error.errno not in NOT_THERE:  # removed, perhaps, once it was empty
                unusable.append(f"{printable('/'.join(('inbox', *above)))}: {error.strerror}")
            continue
        for name in names:
            yield inbox, (*above, name), printable("/".join(("inbox", *above, name)))
    if directory is not None:
        yield directory, (), printable(str(directory))


def _samples(folder: Folder, place: tuple[Path, tuple[str, ...]], label: str, unusable: list[str]) -> Iterator[Sample]:
    """Yield the samples of one folder by their names; of two with one name only the first."""
    stems: dict[str, str] = {}
    for file in sorted(os.listdir(folder.fd)):
        stem, extension = os.path.splitext(file)
        if file.startswith(".") or extension.lower() not in MEDIA_EXTENSIONS:
            continue
        name = unicodedata.normalize("NFC", stem).strip()
        if why := _flaw(folder, file, name, stems):
            unusable.append(f"{label}/{printable(file)}: {why}")
            continue
        stems[name.casefold()] = file
        yield Sample(name, f"{label}/{printable(file)}", place, file)


def _flaw(folder: Folder, file: str, name: str, stems: dict[str, str]) -> str:
    """Why a file is no sample by its name or kind; empty if it is one."""
    mode = os.stat(file, dir_fd=folder.fd, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        return "this is a link, and none is followed; copy the file itself"
    if not stat.S_ISREG(mode):
        return "this is no regular file"
    if not 0 < len(name) <= NAME_MAX or not name.isprintable() or _NUMBERED.fullmatch(name):
        return "this is no name of a person; rename the file"
    if name.casefold() in stems:
        return f"{printable(stems[name.casefold()])} has the same name and is used; leave one of them"
    return ""


def _print(
    sample: Sample, work: Work, diarizer: DiarizerOnDemand, report: Callable[[float], None], *, is_narrow: bool
) -> VoicePrint | str:
    """Make the print of a sample, unless it was made before; returns the reason if it cannot be made."""
    try:
        with Folder(*sample.folder) as folder:
            status = os.stat(sample.file, dir_fd=folder.fd, follow_symlinks=False)
            file = (*sample.folder, sample.file, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            key = (*file, is_narrow)
            made = diarizer.prints.get(key)
            if made is None:
                # Through the open folder: a path could lead through a link that somebody has put there since.
                source = Path(f"/proc/self/fd/{folder.fd}") / sample.file
                made = _made(source, work, diarizer.get(), report, is_narrow=is_narrow)
                diarizer.prints.keep(key, made)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return made


def _made(
    source: Path, work: Work, diarizer: Diarizer, report: Callable[[float], None], *, is_narrow: bool
) -> VoicePrint | str:
    target = work.directory / SAMPLES
    limits = work.spec.media.evolve(
        channels="mix",
        max_duration_seconds=LONGEST_SECONDS,
        stall_seconds=min(work.spec.media.stall_seconds, STALL_SECONDS),
    )
    try:
        decode(source, target, limits, report)
        audio = np.fromfile(target, np.int16)
    except InputError as error:
        return error.message
    except (EngineError, JobTimeout) as error:
        return f"it cannot be decoded: {error.message}"
    finally:
        target.unlink(missing_ok=True)
    if len(audio) < LEAST_SECONDS * SAMPLE_RATE:
        return f"it is {len(audio) / SAMPLE_RATE:.1f} s long; 10 to 60 s are needed"
    people = diarizer.diarize(narrowed(audio) if is_narrow else audio, DiarizationOptions(enabled=True), report)
    spoken = np.zeros(len(people.voices))
    for start, end, person in people.turns:
        spoken[person] += end - start
    if not spoken.any():
        return "nobody speaks in it; 10 to 60 s of one person are needed"
    main = int(spoken.argmax())
    if spoken[main] < LEAST_SHARE * spoken.sum():
        return f"{len(spoken)} people speak in it; leave the speech of one"
    if spoken[main] < LEAST_SECONDS:
        return f"it has {spoken[main]:.1f} s of speech; 10 to 60 s are needed"
    return people.voices[main].print


def narrowed(audio: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """A sample as it would sound on the telephone: its band, 8000 samples a second, and the mu-law of ITU-T G.711.

    What the steps of mu-law leave between and beside the band is heard by the network too.
    """
    even = audio[: len(audio) // 2 * 2].astype(np.float32) / 32768
    hertz = np.fft.rfftfreq(len(even), 1 / SAMPLE_RATE)[: len(even) // 4 + 1]
    low, high = (hertz / TELEPHONE_HZ[0]) ** 2, (hertz / TELEPHONE_HZ[1]) ** 2
    band = low / np.sqrt(1 + low**2) / np.sqrt(1 + high**2)  # the slopes of filters of second order
    slow = np.fft.irfft(np.fft.rfft(even)[: len(band)] * band, len(even) // 2) / 2
    steps = np.rint(MU_LAW_STEPS * np.log1p(MU_LAW * np.minimum(np.abs(slow), 1.0)) / np.log1p(MU_LAW))
    sent = np.sign(slow) * np.expm1(steps / MU_LAW_STEPS * np.log1p(MU_LAW)) / MU_LAW
    received = np.fft.irfft(np.fft.rfft(sent), len(even)) * 2
    return np.clip(received * 32768, -32768, 32767).astype(np.int16)


def _is_narrow(audio: npt.NDArray[np.int16], turns: Sequence[Turn]) -> bool:
    """Whether somebody is on the telephone: hardly anything in their turns is above its band, not even in their hisses."""
    starts = np.concatenate(
        [np.arange(round(turn.start * SAMPLE_RATE), round(turn.end * SAMPLE_RATE), BLOCK) for turn in turns]
    )
    if len(starts) > BLOCKS_MAX:
        starts = starts[np.linspace(0, len(starts) - 1, BLOCKS_MAX).astype(int)]
    blocks = [audio[start : start + BLOCK] for start in starts if start + BLOCK <= len(audio)]
    if not blocks:
        return False
    power = np.abs(np.fft.rfft(np.array(blocks, dtype=np.float32) * np.hanning(BLOCK))) ** 2
    whole = power.sum(axis=1)
    high = power[:, np.fft.rfftfreq(BLOCK, 1 / SAMPLE_RATE) > ABOVE_HZ].sum(axis=1)
    loud = whole > np.percentile(whole, 90) / QUIET
    return bool(np.percentile(high[loud] / (whole[loud] + 1.0), HISSES_PERCENTILE) < NARROW_SHARE)
