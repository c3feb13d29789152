"""Decodes an upload into raw samples on disk, and says what is wrong with one that cannot be decoded.

The reason, its code and the hint that a user reads are chosen here, from what the container promises
(`whisperd.container`), what ffmpeg said and how many samples came out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.container import (
    HEAD_BYTES,
    Damaged,
    Short,
    Source,
    format_of,
    holds_one_frame,
    playlist_kind,
)
from whisperd.container import (
    inspect as inspect_container,
)
from whisperd.core.errors import InputError, SpoolFull
from whisperd.media.ffmpeg import (
    BYTES_PER_SAMPLE,
    BYTES_PER_SECOND,
    STAGE,
    Fault,
    FfmpegLog,
    FfmpegRun,
    Throttle,
    died,
    find_ffmpeg,
    inspect,
    look,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from whisperd.core.options import MediaOptions
    from whisperd.media.ffmpeg import Ffmpeg, SoundTrack

WHOLE = 0.9  # a recording with less than this part of the promised length was cut off ...
SLACK_SECONDS = 2.0  # ... unless no more than this is missing: short clips often end a little early
HASH_BYTES = 1 << 20
MOST_FRAMES_FAILED = 69  # exit status of ffmpeg beyond its `-max_error_rate`, two thirds
ANY_FORMAT = "upload sound or video in any usual format"
UPLOAD_AGAIN = "upload it again"
EXPORT_AGAIN = "export it again, as WAV, FLAC or MP3"
UPLOAD_OR_EXPORT = "upload it again; if that does not help, export it again, as WAV, FLAC or MP3"
CHECK_IT = "play the original; if it has sound, export it again, as WAV, FLAC or MP3"
TRACKS_MAX = 16  # of a recording all of whose sound tracks are transcribed
LONGEST_NAME = 100  # characters of the name of a track
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class DecodedTrack:
    """A sound track that was decoded.

    Attributes:
        samples: how many were written for each channel.
        channels: in the samples, which are interleaved; 1 unless channels are told apart.
        name: unlike those of the other tracks of the recording.
    """

    samples: int
    channels: int
    name: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """The facts about a decoded recording.

    Attributes:
        samples: how many were written for each channel; of the longest track.
        duration_seconds: their length, silence that was put in included.
        start_offset_seconds: silence before the first sound, because the sound starts after the container.
        promised_seconds: the length in the header; None if it states none.
        format: container and codec, in ffmpeg's words.
        sha256: of the recording's own bytes, hexadecimal.
        size_bytes: of the recording.
        errors: number of complaints of ffmpeg about damage that it skipped.
        tracks: those that were decoded; their samples come one after the other.
    """

    samples: int
    duration_seconds: float
    start_offset_seconds: float
    promised_seconds: float | None
    format: str
    sha256: str
    size_bytes: int
    errors: int
    tracks: tuple[DecodedTrack, ...]


def decode(source: Path, target: Path, options: MediaOptions, report: Callable[[float], None]) -> Decoded:
    """Write the sound of a recording as raw PCM: signed 16 bit little-endian, 16 kHz, mono.

    It is that of the first sound track, unless `options.tracks` names another or all, which are written one after the other.
    With `options.channels` set to split, all channels are written, interleaved. Times are those that a player shows: a
    late start of the track, and a hole in it, become silence. ffmpeg skips damage within a recording. Memory does not
    grow with the length.

    Args:
        source: the recording; a regular file.
        target: overwritten; removed again if this fails.
        options: which ffmpeg, and the limits.
        report: called with the seconds decoded so far, of all tracks together, at least once a second, never going back. It is the heartbeat;
            what it raises ends ffmpeg and passes through.

    Raises:
        InputError: `empty`, `unreadable`, `forbidden`, `not_media`, `no_audio`, `corrupt`, `truncated`, `too_long` or
            `unsupported`.
        JobTimeout: ffmpeg neither read nor wrote for `stall_seconds`.
        EngineError: `ffmpeg_died`, retryable.
        SpoolFull: no room for the samples.
        BootError: there is no ffmpeg.
        OSError: the disk cannot read the recording.
    """
    beat = Throttle(report)
    try:
        with _opened(source) as recording:
            size = os.fstat(recording).st_size
            _refuse_early(Source(recording, size))
            ffmpeg = inspect(find_ffmpeg(options.ffmpeg))
            sha256 = _hash(recording, beat)  # before ffmpeg: if the disk fails, the recording must not be blamed
            with target.open("wb") as sink:
                decoding = _Decoding(ffmpeg, recording, Source(recording, size), options, report)
                runs = decoding.first(sink) if options.tracks == "first" else decoding.chosen(sink, options.tracks)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error counts, not that of the cleanup
            target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise SpoolFull(f"no room for decoded audio: {error.strerror}", hint="make room on the disk") from error
        raise
    seconds = max(ran.count for ran in runs.values()) / BYTES_PER_SECOND
    report(sum(ran.count for ran in runs.values()) / BYTES_PER_SECOND)
    log = next(iter(runs.values())).log
    names = track_names(log.tracks)
    return Decoded(
        samples=max(ran.count for ran in runs.values()) // BYTES_PER_SAMPLE,
        duration_seconds=seconds,
        start_offset_seconds=min(max(0.0, ran.log.first_sound_seconds or 0.0) for ran in runs.values()),
        promised_seconds=log.promised_seconds,
        format=f"{log.container}: {'; '.join(log.tracks[number].about for number in runs)}",
        sha256=sha256,
        size_bytes=size,
        errors=sum(ran.log.errors for ran in runs.values()),
        tracks=tuple(
            DecodedTrack(ran.count // BYTES_PER_SAMPLE, ran.channels, names[number]) for number, ran in runs.items()
        ),
    )


def track_names(tracks: Sequence[SoundTrack]) -> list[str]:
    """Name each sound track by its title, else by its language, unless another one has the same; else by its number."""
    titles, languages = [track.title for track in tracks], [track.language for track in tracks]
    names = []
    for number, track in enumerate(tracks, 1):
        if track.title and titles.count(track.title) == 1:
            names.append(track.title[:LONGEST_NAME])
        elif track.language and languages.count(track.language) == 1:
            names.append(track.language)
        else:
            names.append(f"Track {number}")
    return names


class _Decoding:
    """Decodes the sound tracks of one recording, each by an ffmpeg of its own; the results are by number of the track.

    Args:
        ffmpeg: the binary.
        descriptor: of the recording.
        source: the recording again.
        options: which tracks and channels, and the limits.
        report: the heartbeat.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        descriptor: int,
        source: Source,
        options: MediaOptions,
        report: Callable[[float], None],
    ) -> None:
        self._ffmpeg = ffmpeg
        self._descriptor = descriptor
        self._source = source
        self._options = options
        self._report = report
        self._done_seconds = 0.0

    def first(self, sink: BinaryIO) -> dict[int, FfmpegRun]:
        """Decode the first track."""
        ran = self._run(sink)
        _judge_sound(ran, self._source)
        _judge_length([ran], is_all=len(ran.log.tracks) == 1)
        return {0: ran}

    def chosen(self, sink: BinaryIO, wanted: int | str) -> dict[int, FfmpegRun]:
        """Decode the track with a number, counted from 1, or all that have sound."""
        seen = look(self._ffmpeg, self._descriptor, self._options, self._beat())
        _judge_opening(seen, self._source)
        tracks = seen.log.tracks
        is_all = wanted == "all" or len(tracks) == 1
        numbers = [int(wanted) - 1] if wanted != "all" else list(range(len(tracks)))
        if numbers[-1] >= len(tracks):
            raise _no_such_track(numbers[-1] + 1, len(tracks))
        if len(numbers) > TRACKS_MAX:
            raise _too_many_tracks(len(numbers))
        clock = [number for number, track in enumerate(tracks) if not track.is_empty]
        runs: dict[int, FfmpegRun] = {}
        for number in numbers:
            if tracks[number].is_empty:
                continue
            ran = self._run(sink, number, clock)
            if ran.status == 0 and not ran.count and len(numbers) > 1:
                continue  # an input of the recorder that nobody used
            try:
                _judge_sound(ran, self._source)
            except InputError as error:
                raise _of_track(error, number, len(tracks)) from error
            runs[number] = ran
        if not runs:
            raise _no_sound(numbers, len(tracks))
        _judge_length(list(runs.values()), is_all=is_all)
        return runs

    def _run(self, sink: BinaryIO, number: int = 0, clock: Sequence[int] = (0,)) -> FfmpegRun:
        ran = run(self._ffmpeg, self._descriptor, sink, self._options, self._beat(), track=number, clock=clock)
        _judge_opening(ran, self._source)
        self._done_seconds += ran.count / BYTES_PER_SECOND
        return ran

    def _beat(self) -> Throttle:
        done = self._done_seconds
        return Throttle(lambda seconds: self._report(done + seconds))


def hash_file(path: Path, report: Callable[[float], None]) -> str:
    """Compute the SHA-256 of a regular file, hexadecimal; `report` is the heartbeat and is given 0.

    Raises:
        InputError: `unreadable`.
        OSError: the disk cannot read it.
    """
    with _opened(path) as descriptor:
        return _hash(descriptor, Throttle(report))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open the uploaded file itself: never the target of a link, nor a FIFO on which the reader would hang."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO}:
            raise
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise _input_error("unreadable", f"the file cannot be read: {reason}", "check its owner and mode") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _input_error("unreadable", "it is not a regular file", "upload the recording itself")
        yield descriptor
    finally:
        os.close(descriptor)


def _hash(descriptor: int, beat: Throttle) -> str:
    """Hash the bytes that are there now: a writer that keeps appending must not keep the reader for ever."""
    digest = hashlib.sha256()
    at, size = 0, os.fstat(descriptor).st_size
    while at < size and (block := os.pread(descriptor, min(HASH_BYTES, size - at), at)):
        digest.update(block)
        at += len(block)
        beat(0.0)
    return digest.hexdigest()


def _refuse_early(recording: Source) -> None:
    """Refuse what needs no ffmpeg to be refused: empty files, playlists, and files far shorter than their header promises."""
    if recording.size == 0:
        raise _input_error("empty", "the file is empty", "upload it again")
    if kind := playlist_kind(recording.read(0, HEAD_BYTES)):
        raise _input_error("forbidden", f"the file is {kind}", "upload the recording that it points to")
    match inspect_container(recording):
        case Short(promised_bytes=int(promised)) if recording.size < WHOLE * promised:
            raise _truncated(recording.size / promised)


def _judge_opening(ran: FfmpegRun, recording: Source) -> None:
    """Raise the error for a recording that cannot be opened or has no sound track, or for an ffmpeg that failed."""
    log, status = ran.log, ran.status
    if status < 0:
        name = signal.Signals(-status).name
        raise died(f"ffmpeg was killed by {name}", "perhaps out of memory" if -status == signal.SIGKILL else "")
    if Fault.INTERRUPTED in log.faults:
        raise died("ffmpeg was asked to stop")
    if not log.said_anything:
        raise died(f"ffmpeg ended with status {status} and did not say why", "try `whisperd check`")
    if not log.container:
        raise _not_opened(log, recording)
    if not log.sound:
        raise _input_error("no_audio", "the recording has no sound track", "upload one that has sound")


def _judge_sound(ran: FfmpegRun, recording: Source) -> None:
    """Raise the error for a sound track that cannot be transcribed."""
    if ran.count < BYTES_PER_SAMPLE or ran.status == MOST_FRAMES_FAILED:
        raise _not_decoded(ran, recording)
    if Fault.UNFILLABLE in ran.log.faults:
        raise _input_error("corrupt", "its timestamps have a hole too long to fill", EXPORT_AGAIN)


def _judge_length(runs: Sequence[FfmpegRun], *, is_all: bool) -> None:
    """Raise the error for a recording that was cut off: the longest of its tracks is as long as the header promises.

    Args:
        runs: of the tracks that were decoded.
        is_all: they are all sound tracks of the recording.
    """
    log = runs[0].log
    seconds, promised = max(ran.count for ran in runs) / BYTES_PER_SECOND, log.promised_seconds
    if promised is None or seconds >= min(WHOLE * promised, promised - SLACK_SECONDS):
        return
    # With a picture or another track the sound may be the shorter one; then ffmpeg itself must say "cut off".
    promise_is_of_sound = is_all and log.video_tracks == 0
    if promise_is_of_sound or any(Fault.CUT_OFF in ran.log.faults for ran in runs):
        raise _truncated(seconds / promised)


def _not_opened(log: FfmpegLog, recording: Source) -> InputError:
    """Find the reason why ffmpeg found no recording in the file."""
    known, promise = format_of(recording), inspect_container(recording)
    if isinstance(promise, Damaged):
        return _damaged(promise)
    if known is not None and not known.is_readable:
        message = f"this is {known.name}, a format that ffmpeg cannot read"
        return _input_error("not_media", message, "convert it to WAV, FLAC or MP3 and upload that")
    if Fault.INDEX_MISSING in log.faults:
        message = "the file is cut off: its index, which comes last, is missing"
        return _input_error("truncated", message, "upload the whole file again")
    if isinstance(promise, Short):
        return _input_error(
            "truncated", f"the file is cut off: {promise.missing} is missing", "upload the whole file again"
        )
    if Fault.REFUSED in log.faults:
        message = "whisperd does not open this kind of file, such as a picture, text or a protected audio book"
        return _input_error("not_media", message, ANY_FORMAT)
    if holds_one_frame(recording):
        return _input_error(
            "no_audio", "there is no sound in the file: it ends within its first frame of MP3", CHECK_IT
        )
    why = f" (ffmpeg: {log.cause})" if log.cause else ""
    if known is not None:
        message = f"the file looks like {known.name}, but ffmpeg finds no recording in it{why}"
        return _input_error("not_media", message, UPLOAD_OR_EXPORT)
    if not any(recording.read(0, HEAD_BYTES)):
        return _input_error(
            "not_media", "there is no recording in the file: it begins with nothing but zeros", UPLOAD_AGAIN
        )
    return _input_error("not_media", f"there is no recording in the file{why}", ANY_FORMAT)


def _not_decoded(ran: FfmpegRun, recording: Source) -> InputError:
    """Find the reason why a recording that ffmpeg opened gave no sound."""
    log = ran.log
    promise = inspect_container(recording)
    if isinstance(promise, Damaged):
        return _damaged(promise)
    if Fault.NO_DECODER in log.faults:
        return _input_error("corrupt", "the sound cannot be decoded: ffmpeg has no decoder for it", EXPORT_AGAIN)
    if ran.status == 0 and not log.errors and Fault.CUT_OFF not in log.faults:
        if log.promised_seconds is not None and log.promised_seconds > SLACK_SECONDS:
            return _truncated(0.0)
        return _input_error("no_audio", "there is no sound in the recording: its sound track is empty", CHECK_IT)
    why = f" (ffmpeg: {log.cause})" if log.cause else ""
    return _input_error("corrupt", f"the sound cannot be decoded{why}", EXPORT_AGAIN)


def _damaged(promise: Damaged) -> InputError:
    return _input_error("corrupt", f"the file is damaged: {promise.reason}", UPLOAD_OR_EXPORT)


def _input_error(code: str, message: str, hint: str) -> InputError:
    return InputError(message, hint=hint, code=code, stage=STAGE)


def _truncated(part: float) -> InputError:
    message = f"the upload looks truncated: {int(part * 100)} % of what its header promises"
    return _input_error("truncated", message, "upload the whole file again")


def _no_such_track(number: int, count: int) -> InputError:
    has = "1 sound track" if count == 1 else f"{count} sound tracks"
    upto = "set tracks: 1, first or all" if count == 1 else f"set tracks to a number up to {count}, or to first or all"
    return _input_error("no_track", f"the recording has {has}, so there is no track {number}", upto)


def _too_many_tracks(count: int) -> InputError:
    message = f"the recording has {count} sound tracks; up to {TRACKS_MAX} can be transcribed together"
    return _input_error("unsupported", message, "set tracks to the number of one")


def _no_sound(numbers: Sequence[int], count: int) -> InputError:
    if len(numbers) < count:
        return _of_track(
            _input_error("no_audio", "there is no sound in the recording: its sound track is empty", CHECK_IT),
            numbers[0],
            count,
        )
    return _input_error("no_audio", "there is no sound in the recording: its sound tracks are empty", CHECK_IT)


def _of_track(error: InputError, number: int, count: int) -> InputError:
    """Say which of several tracks an error is about, and that the others may be better."""
    if count == 1:
        return error
    hint = f"{error.hint}; or choose another track with `tracks`"
    return _input_error(error.job_code, f"sound track {number + 1} of {count}: {error.message}", hint)
