"""The threads of torch: diarization computes with one each, and the engine keeps its own number."""

from __future__ import annotations

import threading

import torch

from whisperd.engine.threads import limit_threads


def test_the_engine_keeps_its_threads():
    """Torch's setting is partly of the process: a thread that has not asked for it yet would take over the last one."""
    before = torch.get_num_threads()
    is_set, found = threading.Barrier(2), []

    def engine():
        limit_threads(2)
        is_set.wait()
        is_set.wait()
        found.append(torch.get_num_threads())

    def diarization():
        is_set.wait()
        torch.set_num_threads(1)
        is_set.wait()

    threads = [threading.Thread(target=each) for each in (engine, diarization)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(before)

    assert found == [2]
