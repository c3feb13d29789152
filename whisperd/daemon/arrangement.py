"""Where the workers of a pool run: the place of each slot, on devices that are named or that a child process lists.

A process of its own asks the driver, since the supervisor must neither import torch nor hang with a driver.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from whisperd.core import devices
from whisperd.core.devices import DEVICES_MAX, Device, Place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from whisperd.core.options import EngineOptions
    from whisperd.settings.sections import PoolOptions

LISTING_SECONDS = (
    120.0  # importing torch from a cold disk takes most of it; a driver that hangs is not waited for longer
)
BYTES_MAX = 64 << 10

_log = logging.getLogger(__name__)
_DEVICES: TypeAdapter[tuple[Device, ...]] = TypeAdapter(tuple[Device, ...])


class ListingError(Exception):
    """The GPUs could not be listed; the text says why."""


class Listing:
    """One child process that lists the GPUs; `result` returns what it found.

    Attributes:
        deadline: when the process is given up.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, engine: EngineOptions, now: float) -> None:
        self.deadline = now + LISTING_SECONDS
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "whisperd.engine.devices", engine.engine, engine.script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # nvidia-smi ends with it, and a Ctrl-C reaches neither
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._read = b""

    def waitables(self) -> list[Any]:
        """Return the descriptor that becomes readable when the process has written or ended."""
        return [self._output.fileno()]

    def result(self, now: float) -> tuple[Device, ...] | None:
        """Return the GPUs; None while the process has not answered. An answer, or an error, is given once.

        Raises:
            ListingError: it ended without an answer, or did not end in time.
        """
        while wait([self._output.fileno()], timeout=0):
            chunk = os.read(self._output.fileno(), BYTES_MAX)
            self._read += chunk
            if not chunk or len(self._read) > BYTES_MAX:
                self.end()
                return self._parse()
        if now >= self.deadline:
            self.end()
            raise ListingError(f"the driver did not answer within {LISTING_SECONDS:.0f} s")
        return None

    def end(self) -> None:
        """Kill the process, and what it has started."""
        self._output.close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether the process has ended and was collected; one that hangs in the kernel takes its time."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait for the end of the process."""
        self._process.wait()

    def _parse(self) -> tuple[Device, ...]:
        lines = self._read.decode("utf-8", "replace").strip().splitlines()
        try:
            found = _DEVICES.validate_python(json.loads(lines[-1] if lines else ""))
        except ValueError as error:  # pydantic's is one
            raise ListingError("the process that asks the driver gave no answer") from error
        return found[:DEVICES_MAX]


class Arrangement:
    """The place of each worker, by the number of its slot; none while the GPUs are being listed for the first time.

    Args:
        options: how many workers.
        engine: on which devices.
        lists: whether to ask which GPUs there are; False: one worker, on the device that the engine chooses.
    """

    def __init__(self, options: PoolOptions, engine: EngineOptions, *, lists: bool = True) -> None:
        self._options, self._engine, self._lists = options, engine, lists
        self._nodes = devices.numa_nodes()
        self._gpus: tuple[Device, ...] | None = None  # None: never listed
        self._listing: Listing | None = None
        self._ended: list[Listing] = []
        self._is_due = self._must_list(engine)
        self.by_number: dict[int, Place] = {} if self._is_due else self._arranged(options, engine)

    def configure(self, options: PoolOptions, engine: EngineOptions) -> None:
        """Use these options from now on; GPUs are listed again, and until then those that are known count."""
        self._options, self._engine = options, engine
        self._is_due = self._must_list(engine)
        self.by_number = self._arranged(options, engine)

    def first(self, options: PoolOptions, engine: EngineOptions, out: Iterable[str] = ()) -> Place:
        """Return the place where a worker with other options would run first, if possible on a device that is not `out`."""
        found = list(self._arranged(options, engine).values())
        return next((place for place in found if place.device.name not in set(out)), found[0])

    def device_names(self) -> list[str]:
        """List the devices, in order."""
        return list(dict.fromkeys(place.device.name for place in self.by_number.values()))

    def numbers(self, device: str) -> list[int]:
        """List the slots on a device."""
        return [number for number, place in self.by_number.items() if place.device.name == device]

    def tick(self, now: float) -> bool:
        """List the GPUs if that is due; take the answer if it has come. Returns whether it changed the places."""
        self._ended = [listing for listing in self._ended if not listing.has_ended()]
        if self._is_due:
            self._is_due = False
            self._end_listing()
            try:
                self._listing = Listing(self._engine, now)
            except OSError as error:
                self._give_up(str(error.strerror))
        if self._listing is None:
            return False
        try:
            found = self._listing.result(now)
        except ListingError as error:
            self._end_listing()
            self._give_up(str(error))
            return True
        if found is None:
            return False
        self._end_listing()
        self._gpus = found
        self.by_number = self._arranged(self._options, self._engine)
        return True

    def next_at(self) -> float:
        """Return the time when `tick` must be called, unless the listing answers before."""
        return self._listing.deadline if self._listing is not None else float("inf")

    def waitables(self) -> list[Any]:
        """Return the descriptor that becomes readable when the GPUs are listed."""
        return [] if self._listing is None else self._listing.waitables()

    def close(self) -> None:
        """End the listing, and wait for its process."""
        self._end_listing()
        while self._ended:
            self._ended.pop().wait()

    def _must_list(self, engine: EngineOptions) -> bool:
        if not self._lists or not devices.must_be_listed(engine.device):
            return False
        return "devices:" in engine.script if engine.engine == "scripted" else devices.may_have_gpu()

    def _end_listing(self) -> None:
        if self._listing is not None:
            self._listing.end()
            self._ended.append(self._listing)
            self._listing = None

    def _give_up(self, reason: str) -> None:
        """Go on without a list: the workers find out which devices work."""
        _log.warning("the GPUs could not be listed, %s; workers use the device that the engine finds", reason)
        if not self.by_number:
            self.by_number = self._arranged(self._options, self._engine)

    def _arranged(self, options: PoolOptions, engine: EngineOptions) -> dict[int, Place]:
        if not self._lists:
            found = devices.unlisted(engine.device)[:1]
        elif self._gpus is None and self._must_list(engine):
            found = devices.unlisted(engine.device)
        else:
            found = devices.choose(engine.device, self._gpus or ())
        arranged = devices.arrange(
            found,
            workers=options.workers,
            workers_by_device=options.workers_by_device,
            threads=options.threads,
            nodes=self._nodes,
        )
        return dict(enumerate(arranged, start=1))
