"""The engine `scripted` for tests of the daemon: it runs no model, and succeeds or fails as its script says.

`EngineOptions.script` is a comma separated list. Each call of `transcribe` takes the next action, the last one repeats;
the count begins anew in each process. Empty means `ok`. `@/path/to/file` instead of a list: the first line of that file
is read again at every call and taken as one action, which lets a test change its mind across restarts of a worker. In
the path, `{device}` is the device of the worker; then a file that does not exist means `ok`.

============== =======================================================================================================
action         what happens
============== =======================================================================================================
`ok`           a transcript made of the audio alone: `scripted 12.50 s sum 1a2b3c4d`; a report for each second of audio
`echo`         a transcript that is the model and the options it was given, as JSON
`slow:S`       like `ok`, but sleeps S seconds for each second of audio; ten reports a second of audio
`wait`         reports until its file, `@/path/to/file`, says something else, then acts as that says
`leak:MB`      keeps MB more memory, then `ok`
`raise:KIND`   raises OutOfMemory (`oom`), EngineError (`engine`), InputError (`input`) or a RuntimeError (`bug`)
`sticky:N`     like `ok`, but after N seconds of audio, or N windows, in this process every call raises EngineError
`poison:S`     like `ok`, but from a recording, or window, of S seconds on (rounded) every call raises EngineError
`hang`         never returns or reports; SIGABRT and SIGKILL alone end it
`exit:N`       the process ends with status N
`kill`         the process kills itself with SIGKILL
`boot:ACTION`  `fail` raises BootError when the engine is created, `hang`, `exit:N` and `kill` act then; `ok` in calls
`windows`      first in the list: the engine takes windows of several jobs; `ok`, `slow`, `sticky`, `poison`, `raise` only
`devices:N`    first in the list, or after `windows`: the machine has N GPUs, `cuda:0` and so on
============== =======================================================================================================
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whisperd.core.devices import Device
from whisperd.core.errors import BootError, EngineError, InputError, OutOfMemory
from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow, EngineInfo, RecordingEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from whisperd.core.errors import JobError
    from whisperd.core.options import EngineOptions, TranscribeOptions

WINDOWS = "windows,"  # how the script of an engine begins that takes windows
DEVICES = re.compile(r"devices:(\d+),?")

_CHUNK = 60 * SAMPLE_RATE
_STEPS_PER_SECOND_WHEN_SLOW = 10
_PAUSE_OF_WAIT_SECONDS = 0.05
_ACTION = re.compile(
    r"ok|echo|hang|kill|wait|sticky:\d+|poison:\d+|exit:\d+|leak:\d+|slow:\d+(\.\d+)?|raise:(oom|engine|input|bug)|boot:(fail|hang|kill|exit:\d+)"
)


class Scripted(RecordingEngine):
    """The engine `scripted`, which imports neither torch nor whisper, so that workers of the tests start quickly.

    Args:
        options: their `script` is followed.
        sleep: how `slow` and `hang` let time pass.

    Raises:
        BootError: the script says `boot:fail` or holds an unknown action.
    """

    def __init__(self, options: EngineOptions, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__()
        device = options.device if options.device.startswith("cuda:") else "cpu"
        self._info = EngineInfo("scripted", options.model, device, "fp32")
        self._script = DEVICES.sub("", options.script.removeprefix(WINDOWS), count=1)
        self._sleep = sleep
        self._calls = 0
        self._steps = 0  # seconds of audio, or windows, in this process
        self._is_broken = False
        self._leaked: list[npt.NDArray[np.uint8]] = []
        for action in self._actions():
            if action.startswith("boot:"):
                verb, _, argument = action.removeprefix("boot:").partition(":")
                self._misbehave(verb, argument)

    @property
    def info(self) -> EngineInfo:
        """The model is the one asked for, and so is a GPU with a number; any other device is the CPU."""
        return self._info

    def check(self, options: TranscribeOptions) -> None:
        """Accept everything."""

    def transcribe(
        self,
        audio: npt.NDArray[np.int16],
        options: TranscribeOptions,
        report: Callable[[float], None],
    ) -> Transcript:
        """Act as the script says for this call; see the docstring of the module."""
        verb, argument = self._next_action()
        while verb == "wait":
            self._sleep(_PAUSE_OF_WAIT_SECONDS)
            report(0.0)
            verb, argument = self._next_action()
        pause_seconds = 0.0
        if verb == "slow":
            pause_seconds = float(argument)
        elif verb == "leak":
            self._leaked.append(np.ones(int(argument) << 20, dtype=np.uint8))
        elif verb != "boot":
            self._misbehave(verb, argument)
        self._check_health(verb, argument, len(audio))

        def step(done_seconds: float) -> None:
            self._step(verb, argument)
            report(done_seconds)

        self._listen(len(audio) / SAMPLE_RATE, pause_seconds, step)
        if verb == "echo":
            return _echo(self._info.model, options, len(audio) / SAMPLE_RATE)
        return _transcript(audio, options)

    def _next_action(self) -> tuple[str, str]:
        actions = self._actions()
        verb, _, argument = actions[min(self._calls, len(actions) - 1)].partition(":")
        self._calls += 1
        return verb, argument

    def _check_health(self, verb: str, argument: str, samples: int) -> None:
        """Raise if the engine is broken, or breaks on audio of this length."""
        if verb == "poison" and round(samples / SAMPLE_RATE) == int(argument):
            self._is_broken = True
        if self._is_broken:
            raise EngineError("broken for good, says the script", stage="transcribing")

    def _step(self, verb: str, argument: str) -> None:
        """Count a second of audio or a window; raise if that is one too many."""
        self._steps += 1
        if verb == "sticky" and self._steps > int(argument):
            self._is_broken = True
        self._check_health("", "", 0)

    def _actions(self) -> list[str]:
        actions = self._script.split(",")
        if self._script.startswith("@"):
            path = Path(self._script[1:].replace("{device}", self._info.device))
            is_there = path.exists() or "{device}" not in self._script
            actions = path.read_text(encoding="utf-8").splitlines()[:1] if is_there else []
        actions = [action.strip() for action in actions if action.strip()] or ["ok"]
        for action in actions:
            if not _ACTION.fullmatch(action):
                raise BootError(
                    f"script has no action {action!r}", hint="see the docstring of whisperd.engine.scripted"
                )
        return actions

    def _listen(self, duration_seconds: float, pause_seconds: float, report: Callable[[float], None]) -> None:
        steps_per_second = _STEPS_PER_SECOND_WHEN_SLOW if pause_seconds else 1
        for step in range(1, int(duration_seconds * steps_per_second) + 1):
            if pause_seconds:
                self._sleep(pause_seconds / steps_per_second)
            report(step / steps_per_second)
        report(duration_seconds)

    def _misbehave(self, verb: str, argument: str) -> None:
        if verb == "raise":
            raise _error(argument)
        if verb == "fail":
            raise BootError("the engine does not start, says the script", hint="change the script")
        if verb == "exit":
            os._exit(int(argument))
        if verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if verb == "hang":
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT}:
                signal.signal(number, signal.SIG_IGN)
            while True:
                self._sleep(3600.0)


class ScriptedWindows(Scripted):
    """The engine `scripted` for windows of several jobs: each step decodes the one that has waited longest."""

    takes_recordings = False

    def __init__(self, options: EngineOptions, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(options, sleep=sleep)
        self.capacity = options.batch_size

    def step(self, _report: object = None, /) -> list[tuple[int, DecodedWindow | JobError]]:
        """Decode one window, as the script says."""
        handle, window = next(iter(self._windows.items()))
        transcript = self.transcribe(window.audio, window.options, lambda _: None)
        self.withdraw(handle)
        seconds = len(window.audio) / SAMPLE_RATE
        language, probability, segments = transcript.language, transcript.language_probability, transcript.segments
        return [
            (handle, DecodedWindow(language, probability, segments, seconds, avg_logprob=-0.1, compression_ratio=1.0))
        ]

    def shrink(self) -> bool:
        """Halve the number of windows at once."""
        if self.capacity == 1:
            return False
        self.capacity //= 2
        return True

    def _listen(self, duration_seconds: float, pause_seconds: float, report: Callable[[float], None]) -> None:
        if pause_seconds:
            self._sleep(pause_seconds * duration_seconds)
        report(duration_seconds)


def _error(kind: str) -> Exception:
    match kind:
        case "oom":
            return OutOfMemory("out of memory, says the script", hint="use a smaller model", stage="transcribing")
        case "engine":
            return EngineError("broken, says the script", stage="transcribing")
        case "input":
            return InputError("no speech, says the script", code="corrupt", stage="transcribing")
    return RuntimeError("a bug, says the script")


def _echo(model: str, options: TranscribeOptions, duration_seconds: float) -> Transcript:
    text = " " + json.dumps({"model": model, **options.model_dump()})
    return Transcript(text, (Segment(0.0, duration_seconds, text),), options.language or "en")


def _transcript(audio: npt.NDArray[np.int16], options: TranscribeOptions) -> Transcript:
    language = options.language or "en"
    probability = None if options.language else 1.0
    if not len(audio):
        return Transcript("", (), language, probability)
    duration_seconds = len(audio) / SAMPLE_RATE
    checksum = 0
    for begin in range(0, len(audio), _CHUNK):
        checksum = zlib.crc32(audio[begin : begin + _CHUNK].tobytes(), checksum)
    texts = [" scripted", f" {duration_seconds:.2f}", " s", " sum", f" {checksum:08x}"]
    edges = np.linspace(0.0, duration_seconds, len(texts) + 1).tolist()
    words = tuple(Word(start, end, text, 1.0) for start, end, text in zip(edges, edges[1:], texts, strict=False))
    text = "".join(texts)
    segment = Segment(0.0, duration_seconds, text, words=words if options.word_timestamps else None)
    return Transcript(text, (segment,), language, probability)


def create(options: EngineOptions) -> Scripted:
    """Make the engine that the script asks for: of whole recordings, or of windows."""
    return ScriptedWindows(options) if options.script.startswith(WINDOWS) else Scripted(options)


def scripted_devices(script: str) -> list[Device]:
    """Return the GPUs that a script speaks of."""
    found = DEVICES.match(script.removeprefix(WINDOWS))
    return [Device(f"cuda:{number}", model="scripted GPU") for number in range(int(found[1]) if found else 0)]
