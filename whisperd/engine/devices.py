"""The command `python -m whisperd.engine.devices`: lists the GPUs of this machine as JSON, for the supervisor.

It is a process of its own, because the supervisor never imports torch and because a broken driver can hang or crash whoever
asks it. It prints one line: a list of objects with the fields of `whisperd.core.devices.Device`.

A machine whose GPUs are partitioned (NVIDIA MIG) lists the instances instead: CUDA shows a process only one of them, so each
worker is given its own by CUDA_VISIBLE_DEVICES (NVIDIA MIG User Guide, "CUDA Device Enumeration").
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

from whisperd.core.devices import Device
from whisperd.engine.scripted import scripted_devices

SMI_SECONDS = 20.0
VISIBLE = "CUDA_VISIBLE_DEVICES"
_GPU = re.compile(r"GPU \d+: (?P<model>.*?) \(UUID: (?P<uuid>GPU-[0-9a-f-]+)\)")
_INSTANCE = re.compile(r"\s+MIG (?P<profile>\S+)\s+Device\s+\d+: \(UUID: (?P<uuid>MIG-[0-9A-Za-z/-]+)\)")


def list_gpus(engine: str, script: str) -> list[Device]:
    """List the GPUs that an engine can use, in CUDA's order: those that CUDA_VISIBLE_DEVICES names, if it is set."""
    if engine == "scripted":
        return scripted_devices(script)
    if instances := _instances(os.environ.get(VISIBLE)):
        return instances
    return _of_ctranslate2() if engine == "faster-whisper" else _of_torch()


def _instances(visible: str | None) -> list[Device]:
    """List the MIG instances that CUDA_VISIBLE_DEVICES names; without it, all that nvidia-smi knows."""
    named = [name for name in (visible or "").split(",") if name.startswith("MIG-")]
    known = {} if visible and not named else parse_instances(_smi())
    return [Device(name, "cuda:0", name, known.get(name, "")) for name in (named or known)]


def parse_instances(text: str) -> dict[str, str]:
    """Read what `nvidia-smi -L` prints: the name of each MIG instance, and its GPU and profile."""
    found, model = {}, ""
    for line in text.splitlines():
        if gpu := _GPU.match(line):
            model = gpu["model"]
        elif instance := _INSTANCE.match(line):
            found[instance["uuid"]] = f"{model} MIG {instance['profile']}".strip()
    return found


def _smi() -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  # wherever the driver has put it
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SMI_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _of_torch() -> list[Device]:
    import torch  # noqa: PLC0415  # takes seconds, and the scripted engine does without

    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        name = f"cuda:{number}"
        try:
            properties = torch.cuda.get_device_properties(number)
        except RuntimeError:  # its workers say what is wrong with it
            found.append(Device(name))
            continue
        uuid = str(getattr(properties, "uuid", "")) if torch.version.hip is None else ""
        # The number of a GPU changes when another one falls off the bus; its UUID does not.
        own = ("cuda:0", f"GPU-{uuid}") if uuid else ("", "")
        found.append(Device(name, *own, properties.name))
    return found


def _of_ctranslate2() -> list[Device]:
    import ctranslate2  # noqa: PLC0415  # as above

    return [Device(f"cuda:{number}") for number in range(ctranslate2.get_cuda_device_count())]


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(device) for device in list_gpus(*sys.argv[1:])]) + "\n")
