"""Which devices a configuration means, and where each worker runs."""

from __future__ import annotations

import os

import pytest

from whisperd.core.devices import Device, arrange, choose, may_have_gpu, must_be_listed, numa_nodes, unlisted

GPUS = tuple(Device(f"cuda:{number}", "cuda:0", f"GPU-{number}", "H200") for number in range(3))
INSTANCES = (Device("MIG-a", "cuda:0", "MIG-a"), Device("MIG-b", "cuda:0", "MIG-b"))
ONE_NODE = ((0, 1, 2, 3),)


def numbers(devices, workers=1, by_device=None, threads=None, nodes=ONE_NODE):
    found = arrange(devices, workers=workers, workers_by_device=by_device or {}, threads=threads, nodes=nodes)
    return [(place.device.name, place.threads, place.cpus) for place in found]


@pytest.mark.parametrize(
    ("spec", "gpus", "found"),
    [
        pytest.param("auto", GPUS, GPUS, id="every GPU"),
        pytest.param("auto", INSTANCES, INSTANCES, id="every instance"),
        pytest.param("auto", (), (Device("cpu", "auto"),), id="the CPU where there is none"),
        pytest.param("auto", GPUS[:1], (Device("cuda:0", model="H200"),), id="one GPU needs no environment"),
        pytest.param("cuda:2,cuda:0", GPUS, (GPUS[2], GPUS[0]), id="in the order of the list"),
        pytest.param("cuda:0,cuda:7", GPUS, (GPUS[0], Device("cuda:7")), id="one that is not there"),
        pytest.param("cuda", GPUS, (Device("cuda:0", model="H200"),), id="the first"),
        pytest.param("cuda:0,cpu", GPUS, (GPUS[0], Device("cpu")), id="a GPU and the CPU"),
        pytest.param("MIG-x", (), (Device("MIG-x", "cuda:0", "MIG-x"),), id="an instance by name"),
    ],
)
def test_the_devices_of_a_configuration(spec, gpus, found):
    """On a machine with these GPUs."""
    assert choose(spec, gpus) == found


def test_only_what_depends_on_the_machine_is_listed():
    """Asking the driver takes seconds."""
    assert [
        spec for spec in ("auto", "cpu", "cuda", "cuda:1", "cuda:0,cuda:1", "cpu,MIG-x") if must_be_listed(spec)
    ] == [
        "auto",
        "cuda:0,cuda:1",
    ]
    assert unlisted("cuda:0,cuda:1") == (Device("cuda:0"), Device("cuda:1"))


def test_without_a_driver_nobody_asks_for_gpus(tmp_path, monkeypatch):
    """A machine without GPUs starts as fast as before; so does one whose GPUs are hidden."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not may_have_gpu(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert may_have_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not may_have_gpu(tmp_path)


def test_each_device_gets_its_workers():
    """As many as `pool.workers`, or what is said for this one; the processors are divided between all of them."""
    assert numbers(GPUS[:2], workers=2) == [("cuda:0", 1, ()), ("cuda:0", 1, ()), ("cuda:1", 1, ()), ("cuda:1", 1, ())]
    assert numbers(GPUS[:2], by_device={"cuda:1": 3}, threads=5) == [("cuda:0", 5, ()), *[("cuda:1", 5, ())] * 3]


TWO_SOCKETS = ((0, 1, 2, 3), (4, 5, 6, 7))
CPU = (Device("cpu", "auto"),)


@pytest.mark.parametrize(
    ("workers", "threads", "found"),
    [
        pytest.param(1, None, [("cpu", 8, ())], id="one has all"),
        pytest.param(2, None, [("cpu", 4, TWO_SOCKETS[0]), ("cpu", 4, TWO_SOCKETS[1])], id="a socket each"),
        pytest.param(
            3,
            None,
            [("cpu", 2, TWO_SOCKETS[0]), ("cpu", 4, TWO_SOCKETS[1]), ("cpu", 2, TWO_SOCKETS[0])],
            id="two share one",
        ),
        pytest.param(2, 3, [("cpu", 3, TWO_SOCKETS[0]), ("cpu", 3, TWO_SOCKETS[1])], id="with threads given"),
    ],
)
def test_workers_on_two_sockets_keep_apart(workers, threads, found):
    """Each uses the memory beside its processors."""
    assert numbers(CPU, workers, threads=threads, nodes=TWO_SOCKETS) == found


def test_workers_on_one_socket_or_on_gpus_are_not_bound():
    """There is nothing to keep apart."""
    assert numbers(CPU, 2) == [("cpu", 2, ())] * 2
    assert numbers(GPUS[:2], nodes=TWO_SOCKETS) == [("cuda:0", 4, ()), ("cuda:1", 4, ())]


def nodes(tmp_path, **lists):
    for name, cpus in lists.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpulist").write_text(cpus)
    return tmp_path


def test_nodes_are_those_of_the_kernel_within_what_the_service_may_use(tmp_path):
    """Ranges, nodes with memory alone, and a service that is confined to some processors."""
    root = nodes(tmp_path, node0="0-2,8\n", node1="3\n", node2="\n", node10="9-10\n")

    assert numa_nodes(root, frozenset({0, 2, 3, 8, 9, 10})) == ((0, 2, 8), (3,), (9, 10))
    assert numa_nodes(root, frozenset({3})) == ((3,),)


@pytest.mark.parametrize("lists", [{}, {"node0": "0-1\n"}, {"node0": "nonsense"}], ids=["none", "not all", "nonsense"])
def test_a_machine_without_a_usable_description_is_one_node(tmp_path, lists):
    """A container, or a kernel without NUMA."""
    assert numa_nodes(nodes(tmp_path, **lists), frozenset({0, 1, 2})) == ((0, 1, 2),)


def test_this_machine_has_all_its_processors_in_nodes():
    """Whatever it is."""
    assert sorted(cpu for node in numa_nodes() for cpu in node) == sorted(os.sched_getaffinity(0))
