"""Devices that run a model, and the place of each worker on one of them: device, threads, processors.

`whisperd.engine.devices` lists the GPUs of a machine; what is here needs no library of a driver.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AUTO, CPU = "auto", "cpu"
PATTERN = re.compile(
    r"auto|cpu|cuda(:\d{1,3})?|MIG-[0-9A-Za-z/-]{1,100}"
)  # MIG: an instance as `nvidia-smi -L` names it
DEVICES_MAX = 64
NODES = Path("/sys/devices/system/node")
# Device files of the drivers that CUDA and ROCm need: NVIDIA, NVIDIA in WSL 2, AMD, NVIDIA Tegra.
GPU_FILES = ("nvidiactl", "nvidia0", "dxg", "kfd", "nvhost-ctrl", "nvmap")


@dataclass(frozen=True, slots=True)
class Device:
    """A processor or GPU on which workers run.

    Attributes:
        name: what configuration, logs and status files call it.
        asked: what the engine of a worker is told; empty: the name.
        visible: the value of CUDA_VISIBLE_DEVICES for its workers, which then see no other GPU; empty: that of the daemon.
        model: what the driver calls it, such as `NVIDIA H200`; may be empty.
    """

    name: str
    asked: str = ""
    visible: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker runs; `cpus` are the processors that it may use, empty for all."""

    device: Device
    threads: int
    cpus: tuple[int, ...] = ()


def named(spec: str) -> tuple[str, ...]:
    """Split the `device` of engine options, `cuda:0,cuda:2`, into its names."""
    return tuple(spec.split(","))


def must_be_listed(spec: str) -> bool:
    """Whether the devices of a `device` are only known after the GPUs were listed: `auto`, or several GPUs."""
    return spec == AUTO or sum(name.startswith("cuda") for name in named(spec)) > 1


def may_have_gpu(root: Path = Path("/dev")) -> bool:
    """Whether a driver for GPUs is loaded and visible, so that listing GPUs, which takes seconds, is worth it."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in {"", "-1"} and any(
        (root / name).exists() for name in GPU_FILES
    )


def unlisted(spec: str) -> tuple[Device, ...]:
    """Return the devices of a `device` as far as its text alone says; `auto` is one device, which the engine chooses."""
    return tuple(_known(name) for name in named(spec))


def choose(spec: str, gpus: Sequence[Device]) -> tuple[Device, ...]:
    """Return the devices of a `device` on a machine with these GPUs; `auto`: all of them, or the CPU where there is none.

    A GPU that is asked for and not there stays in the list: its workers report what is wrong.
    """
    if spec == AUTO:
        found = tuple(gpus) or (Device(CPU, AUTO),)
    else:
        by_name = {gpu.name: gpu for gpu in gpus}
        found = tuple(by_name.get("cuda:0" if name == "cuda" else name) or _known(name) for name in named(spec))
    if len(found) == 1 and found[0].name.startswith("cuda"):  # it needs no environment of its own
        return (replace(found[0], asked="", visible=""),)
    return found


def arrange(
    devices: Sequence[Device],
    *,
    workers: int,
    workers_by_device: Mapping[str, int],
    threads: int | None,
    nodes: Sequence[tuple[int, ...]],
) -> tuple[Place, ...]:
    """Return the place of each worker.

    Several workers on the CPU of a machine with several NUMA nodes are divided between the nodes, so that each uses the
    memory beside its processors: Linux puts a page on the node of the thread that first writes to it.

    Args:
        devices: in order.
        workers: on each device ...
        workers_by_device: ... except these.
        threads: of each worker; None: the processors are divided between the workers.
        nodes: the processors of each node that this process may use.
    """
    wanted = [device for device in devices for _ in range(workers_by_device.get(device.name, workers))]
    cores = max(1, sum(map(len, nodes)))
    share = threads or max(1, cores // len(wanted))
    on_cpu = sum(device.name == CPU for device in wanted)
    if on_cpu < 2 or len(nodes) < 2:  # noqa: PLR2004  # nothing to divide
        return tuple(Place(device, share) for device in wanted)
    beside = Counter(number % len(nodes) for number in range(on_cpu))
    turn = iter(range(on_cpu))
    found = []
    for device in wanted:
        if device.name != CPU:
            found.append(Place(device, share))
            continue
        node = next(turn) % len(nodes)
        own = max(1, len(nodes[node]) // beside[node])
        found.append(Place(device, threads or own, nodes[node]))
    return tuple(found)


def numa_nodes(root: Path = NODES, allowed: frozenset[int] | None = None) -> tuple[tuple[int, ...], ...]:
    """Return the processors of each NUMA node that this process may use (Documentation/admin-guide/mm/numaperf.rst).

    Nodes without such processors are left out; a machine that describes no nodes is one node.
    """
    usable = frozenset(os.sched_getaffinity(0)) if allowed is None else allowed
    found: list[frozenset[int]] = []
    with suppress(OSError, ValueError):
        nodes = sorted(root.glob("node[0-9]*"), key=lambda path: int(path.name.removeprefix("node")))
        found = [usable & _cpus((node / "cpulist").read_text("utf-8")) for node in nodes]
    is_whole = sum(map(len, found)) == len(usable)  # else the description is of no use
    return tuple(tuple(sorted(own)) for own in (found if is_whole else [usable]) if own)


def _cpus(text: str) -> frozenset[int]:
    """Read a list of processors as the kernel writes it: `0-3,8`."""
    ranges = [part.partition("-") for part in text.strip().split(",") if part]
    return frozenset(cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1))


def _known(name: str) -> Device:
    return Device(name, "cuda:0", visible=name) if name.startswith("MIG-") else Device(name)
