"""The messages between supervisor and worker, how they are encoded as JSON, and the two ends of the pipe that carries them.

A recording can take a worker over, so the supervisor does not trust its workers. It accepts a message only if the bytes
are exactly those that `Codec.encode` makes of a valid message. This one comparison refuses unknown, missing and repeated
fields, wrong types, NaN, and every other spelling of the same value. `SupervisorEnd` bounds what it reads and never blocks.
"""

from __future__ import annotations

import json
import re
import struct
import threading
from dataclasses import dataclass, fields
from multiprocessing.connection import wait
from pathlib import Path  # noqa: TC003  # pydantic reads the types of the fields
from typing import TYPE_CHECKING, Annotated, Any, Generic, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, FailFast, Field, PlainValidator, TypeAdapter, ValidationError

from whisperd.core.display import is_plain
from whisperd.core.job import Failure, Phase, Result
from whisperd.core.options import EngineOptions, JobSpec, to_json
from whisperd.core.transcript import GAP_REASONS

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

FROM_WORKER_BYTES_MAX = 4 << 20  # a result names each doubtful segment: twelve hours of eight speakers have many
TO_WORKER_BYTES_MAX = 64 << 20  # the prompts of a configuration have no limit of their own
TEXT_MAX = 4096  # characters of a text from a worker
NUMBER_MAX = 1e15
SECONDS_MAX = 1e9
DEPTH_MAX = 8
CHUNK_BYTES = 64 << 10  # read at once, so that a flood does not keep the loop from its other work
REST_BYTES = 8 << 20  # read of a worker that has ended; more than a socket holds
FLOOD_SECONDS = 10.0
FLOOD_MESSAGES = 20_000  # in that time: 256 jobs with four heartbeats a second say half as many

_LENGTH = struct.Struct("!I")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LANGUAGE = re.compile(r"[a-z]{0,3}")  # a code; empty where too little is said to tell

M = TypeVar("M")
Says = TypeVar("Says")
Hears = TypeVar("Hears")


class ProtocolError(Exception):
    """The other side sent something that is not a message, or one that makes no sense now. The text quotes nothing of it."""


def _folders(values: Any) -> tuple[str, ...]:
    """Check names of folders, whose bytes need not be UTF-8: the type `str` of pydantic refuses those."""
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise ValueError("these are no names of folders")
    return tuple(values)


def _at_work(phase: Phase) -> Phase:
    if phase not in {Phase.DECODING, Phase.TRANSCRIBING, Phase.PUBLISHING}:
        raise ValueError("no job at work has that phase")
    return phase


def _few_outputs(result: Any) -> Any:
    """Refuse a long list of outputs at once: pydantic would make an error for each wrong item."""
    if not isinstance(result, dict) or not isinstance(outputs := result.get("outputs"), list) or len(outputs) > 100:  # noqa: PLR2004
        raise ValueError("it has no list of outputs")
    return result


def _own_result(result: Result) -> Result:
    """Refuse values that no worker reports about a recording that it has transcribed."""
    if not all(0 <= seconds <= SECONDS_MAX for seconds in (result.duration_seconds, result.processing_seconds)):
        raise ValueError("it has an impossible duration")
    if (result.speed or 0.0) > NUMBER_MAX:
        raise ValueError("it has an impossible speed")
    if not 0 <= (result.language_probability or 0.0) <= 1:
        raise ValueError("it has an impossible probability")
    if not _SHA256.fullmatch(result.sha256):
        raise ValueError("it has no SHA-256")
    if result.duplicate_of is not None:
        raise ValueError("it is the result of another job")
    if result.digests.keys() != set(result.outputs) or not all(map(_SHA256.fullmatch, result.digests.values())):
        raise ValueError("it has not one SHA-256 for each output")
    gaps = result.quality.get("gaps", [])
    if not isinstance(gaps, list) or not all(map(_is_gap, gaps)):
        raise ValueError("its quality has a gap that is none")
    if not all(_is_figure(value) for name, value in result.quality.items() if name != "gaps"):
        raise ValueError("its quality has a value that is not a number")
    scores = result.voices.recognized.values() if result.voices else ()
    if not all(0 <= score <= 1 for score in scores):
        raise ValueError("it recognizes a voice with an impossible score")
    if not all(0 <= start <= end <= SECONDS_MAX and _LANGUAGE.fullmatch(code) for start, end, code in result.languages):
        raise ValueError("its languages are not those of parts of a recording")
    return result


def _is_figure(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(pair, list) and len(pair) == 2 and _are_numbers(pair) for pair in value)  # noqa: PLR2004
    return _are_numbers(value.values()) if isinstance(value, dict) else value is None or _are_numbers([value])


def _is_gap(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"from", "to", "why"}:
        return False
    start, end, why = value["from"], value["to"], value["why"]
    is_reason = isinstance(why, str) and why in GAP_REASONS
    return is_reason and _are_numbers([start, end]) and 0 <= start <= end <= SECONDS_MAX


def _are_numbers(values: Iterable[Any]) -> bool:
    return {type(value) for value in values} <= {int, float}  # and not bool, which is an int to Python


Seconds = Annotated[float, Field(ge=0, le=SECONDS_MAX)]


@dataclass(frozen=True, slots=True)
class Boot:
    """The first message to a worker: what to load, and where.

    Attributes:
        options: with one device, and the threads of this worker.
        cpus: the processors that the worker may use; empty: all.
        device: the name of the device for people, if the engine calls it otherwise because the worker sees no other one.
    """

    options: EngineOptions
    cpus: tuple[int, ...] = ()
    device: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """Gives a worker one job; `directory` is the only place that it may write to.

    `title` is what people call the recording, `link` the relative URL that leads to it from where its page will stand. `folders`
    are those in which it was, below `inbox`: the samples of known voices are in or above them. None: it was in no inbox.
    """

    job_id: str
    directory: Path
    source: Path
    spec: Annotated[JobSpec, PlainValidator(JobSpec.from_json)]
    title: str = ""
    link: str = ""
    inbox: Path | None = None
    folders: Annotated[tuple[str, ...], PlainValidator(_folders)] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """Asks a worker to give a job back as soon as possible."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Quit:
    """Asks an idle worker to end."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Reports that a worker has loaded its model and tried it."""

    engine: str
    model: str
    device: Annotated[str, Field(min_length=1)]
    compute_type: str
    load_seconds: Seconds


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The last message of a worker that cannot load what it needs."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Reports the progress of a job; sent by the pipeline itself, so that it proves that the job advances."""

    job_id: str
    phase: Annotated[Phase, AfterValidator(_at_work)]
    processed_seconds: Seconds
    duration_seconds: Seconds | None
    device_bytes: Annotated[int, Field(ge=0)] | None = None  # memory in use on the GPU


@dataclass(frozen=True, slots=True)
class Finished:
    """Reports that the transcripts of a job are in its directory, durably."""

    job_id: str
    result: Annotated[Result, BeforeValidator(_few_outputs), AfterValidator(_own_result)]


@dataclass(frozen=True, slots=True)
class Failed:
    """Reports that an attempt failed because of the job itself."""

    job_id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """The last message of a worker whose engine failed unexpectedly; `job_ids` were in the batch."""

    failure: Failure
    job_ids: Annotated[tuple[str, ...], FailFast()]


@dataclass(frozen=True, slots=True)
class Released:
    """Reports that a job was given back as asked."""

    job_id: str


ToWorker = Boot | Work | Release | Quit
FromWorker = Ready | BootFailed | Heartbeat | Finished | Failed | EngineFailed | Released


class Codec(Generic[M]):
    """Encodes and decodes messages of given kinds.

    Args:
        kinds: dataclasses whose fields pydantic can check.
        bytes_max: of one message.
        is_suspect: the sender may be hostile, so its texts must be short and printable.
    """

    def __init__(self, *kinds: type[M], bytes_max: int, is_suspect: bool = False) -> None:
        self._kinds: dict[str, TypeAdapter[M]] = {kind.__name__: TypeAdapter(kind) for kind in kinds}
        self._is_suspect = is_suspect
        self.bytes_max = bytes_max

    def encode(self, message: M) -> bytes:
        """Encode a message as ASCII JSON; file names that are not UTF-8 keep their bytes as surrogate escapes.

        Raises:
            ProtocolError: no receiver would accept the message.
        """
        return self._dump(self._load(self._dump(message)))  # an int in a field of floats becomes a float

    def decode(self, data: bytes) -> M:
        """Decode a message.

        Raises:
            ProtocolError: the data is not a message.
        """
        message = self._load(data)
        if self._dump(message) != data:
            raise ProtocolError(f"{type(message).__name__}: it is not encoded as messages are")
        return message

    def _dump(self, message: M) -> bytes:
        values = {field.name: getattr(message, field.name) for field in fields(message)}  # type: ignore[arg-type]
        try:
            text = json.dumps(
                {"kind": type(message).__name__, **values}, default=to_json, allow_nan=False, separators=(",", ":")
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise ProtocolError(f"{type(message).__name__}: it cannot be encoded as JSON") from error
        return text.encode("ascii")

    def _load(self, data: bytes) -> M:
        if len(data) > self.bytes_max:
            raise ProtocolError("it is too long")
        try:
            values = json.loads(data.decode("ascii"))
        except (ValueError, RecursionError) as error:
            raise ProtocolError("it is not JSON") from error
        kind = values.pop("kind", None) if isinstance(values, dict) else None
        if not isinstance(kind, str) or (adapter := self._kinds.get(kind)) is None:
            raise ProtocolError("its kind is unknown")
        if reason := self._flaw(values):
            raise ProtocolError(f"{kind}: {reason}")
        try:
            return adapter.validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = first["loc"][0] if first["loc"] and first["loc"][0] in values else "a field"
            raise ProtocolError(f"{kind}: {where}: {first['msg'][:200]}") from error

    def _flaw(self, values: dict[str, Any]) -> str:
        """Look at all values at every depth; return what is wrong, or an empty text."""
        level: list[Any] = [values]
        for _ in range(DEPTH_MAX):
            below: list[Any] = []
            for value in level:
                if isinstance(value, list):
                    below += value
                elif isinstance(value, dict):
                    below += value
                    below += value.values()
                elif isinstance(value, str):
                    if self._is_suspect and not (len(value) <= TEXT_MAX and is_plain(value)):
                        return "it has a text that is too long or not printable"
                elif value is not None and not -NUMBER_MAX <= value <= NUMBER_MAX:
                    return "it has an impossible number"
            level = below
        return "it is too deep" if level else ""


FROM_WORKER: Codec[FromWorker] = Codec(
    Ready,
    BootFailed,
    Heartbeat,
    Finished,
    Failed,
    EngineFailed,
    Released,
    bytes_max=FROM_WORKER_BYTES_MAX,
    is_suspect=True,
)
TO_WORKER: Codec[ToWorker] = Codec(Boot, Work, Release, Quit, bytes_max=TO_WORKER_BYTES_MAX)


def frame(data: bytes) -> bytes:
    """Put the length of a message in front of it, as the pipe carries it."""
    return _LENGTH.pack(len(data)) + data


class PipeEnd(Generic[Says, Hears]):
    """One end of a pipe whose other end is trusted: calls block. Several threads may send."""

    def __init__(self, end: socket.socket, says: Codec[Says], hears: Codec[Hears]) -> None:
        self._end = end
        self._says = says
        self._hears = hears
        self._sending = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send(self, message: Says) -> None:
        """Send a message.

        Raises:
            ConnectionError: the other side has closed the pipe.
            ProtocolError: the other side would not accept the message.
        """
        data = frame(self._says.encode(message))
        with self._sending:
            self._end.sendall(data)

    def poll(self, seconds: float = 0.0) -> bool:
        """Whether a message, or the end of the other side, can be read within this time."""
        return bool(wait([self._end], timeout=seconds))

    def receive(self) -> Hears:
        """Wait for the next message.

        Raises:
            EOFError: the other side has closed the pipe.
            ProtocolError: the other side sent something else.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > self._hears.bytes_max:
            raise ProtocolError("it is too long")
        return self._hears.decode(self._read(length))

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._end.recv(count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)


class SupervisorEnd:
    """The supervisor's end of the pipe to a worker that may be hostile: no call blocks, and all that is kept has a bound."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unread = bytearray()
        self._unsent = bytearray()
        self._counted_since = float("-inf")
        self._counted = 0
        self.is_closed = False  # by the worker, or because the supervisor reads no more

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end."""
        self.is_closed = True
        self._end.close()

    @property
    def is_behind(self) -> bool:
        """Whether the worker has yet to read some of what was sent."""
        return bool(self._unsent)

    def send(self, message: ToWorker) -> None:
        """Send a message as soon as the worker reads; the end of a worker is noticed elsewhere."""
        self._unsent += frame(TO_WORKER.encode(message))
        self._flush()

    def receive(self, now: float, *, has_ended: bool = False) -> Iterator[FromWorker]:
        """Yield the messages that have arrived, up to a bound; all of them if the worker has ended.

        Raises:
            ProtocolError: the worker sent something else.
        """
        self._flush()
        self._unread += self._arrived(REST_BYTES if has_ended else CHUNK_BYTES)
        while len(self._unread) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._unread)
            if length > FROM_WORKER.bytes_max:
                raise ProtocolError("it is too long")
            end = _LENGTH.size + length
            if len(self._unread) < end:
                return
            data = bytes(self._unread[_LENGTH.size : end])
            del self._unread[:end]
            self._count(now)
            yield FROM_WORKER.decode(data)

    def _flush(self) -> None:
        try:
            while self._unsent and not self.is_closed:
                del self._unsent[: self._end.send(self._unsent)]
        except BlockingIOError:
            if len(self._unsent) > TO_WORKER_BYTES_MAX:
                self.is_closed = True  # a worker that reads nothing is then ended as one that has closed the pipe
        except OSError:
            self._unsent.clear()

    def _arrived(self, most: int) -> bytes:
        if self.is_closed:
            return b""
        try:
            chunk = self._end.recv(most)
        except BlockingIOError:
            return b""
        except OSError:
            chunk = b""
        self.is_closed = not chunk
        return chunk

    def _count(self, now: float) -> None:
        if now - self._counted_since >= FLOOD_SECONDS:
            self._counted_since, self._counted = now, 0
        self._counted += 1
        if self._counted > FLOOD_MESSAGES:
            raise ProtocolError("it sends too many messages")
