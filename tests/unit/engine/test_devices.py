"""What the process that lists GPUs finds, with a real torch and a scripted nvidia-smi."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from whisperd.core.devices import Device
from whisperd.engine.devices import parse_instances

LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/7/0)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-00000000-d33d-2b2c-524d-9e3d8d2b8a77)
"""
FIRST, SECOND = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/7/0"


def listed(engine="openai-whisper", script="", **environment):
    """Run the command as the supervisor does."""
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-P", "-m", "whisperd.engine.devices", engine, script]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    return [Device(**each) for each in json.loads(done.stdout)]


@pytest.fixture
def smi(tmp_path):
    """A PATH on which nvidia-smi prints the listing of a machine with instances."""
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && cat <<'END'\n{LISTING}END\n")
    script.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_instances_have_the_name_of_their_gpu_and_their_size():
    """As `nvidia-smi -L` prints them, in both kinds of names."""
    assert parse_instances(LISTING) == {
        FIRST: "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        SECOND: "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
    }
    assert parse_instances("No devices were found\n") == {}


def test_each_instance_is_a_device_that_its_workers_alone_see(smi):
    """CUDA shows a process one instance only."""
    found = listed(PATH=smi)

    assert [(each.name, each.asked, each.visible) for each in found] == [
        (FIRST, "cuda:0", FIRST),
        (SECOND, "cuda:0", SECOND),
    ]
    assert found[0].model.endswith("1g.5gb")


def test_the_instances_that_the_environment_names_are_those(smi):
    """An operator gave the service one of two."""
    assert [each.name for each in listed(PATH=smi, CUDA_VISIBLE_DEVICES=SECOND)] == [SECOND]


def test_a_machine_without_gpus_has_none():
    """Torch is asked, and finds nothing; a scripted engine has what its script says."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert listed(CUDA_VISIBLE_DEVICES="0") == []
    assert [dataclasses.astuple(each)[:3] for each in listed("scripted", "devices:2,ok")] == [
        ("cuda:0", "", ""),
        ("cuda:1", "", ""),
    ]
