"""A day of a busy spool in a minute: uploads of all kinds, every kind of fault, and everything is held against its due end.

`tests/bench/soak.py` is the same for thousands of jobs, or for as long as it is told.
"""

from __future__ import annotations

import os

import pytest
from support.soak.faults import kinds
from support.soak.report import summary
from support.soak.run import Plan, ground_for

pytestmark = pytest.mark.slow


def test_under_load_and_faults_nothing_is_lost_doubled_or_wrong(tmp_path):
    """Each kind of fault strikes at least once; a good recording always gets its transcript, a bad one its reason."""
    with ground_for(Plan(seed=1, jobs=200, jobs_per_fault=5, each=True), tmp_path) as soak:
        soak.finish()
        figures = summary(soak)

    assert figures["problems"] == []
    assert figures["jobs"] == sum(figures["ends"].values()) >= 200
    assert min(figures["faults"].values()) >= 1, figures["faults"]
    assert ("disk full" in figures["faults"]) == (os.geteuid() == 0)
    assert figures["peaks"]["processes"] <= 1 + 2 * 2 + 1  # a worker that is being replaced, beside two with an ffmpeg


@pytest.mark.model
def test_killed_workers_of_a_real_model_lose_nothing(tmp_path):
    """Recordings share the batches of a worker that is killed again and again; each gets its own words."""
    plan = Plan(seed=1, jobs=40, engine="openai-whisper", jobs_per_fault=9, only=frozenset({"worker killed"}))
    with ground_for(plan, tmp_path) as soak:
        assert plan.only < kinds(soak.ground).keys()
        soak.finish()
        figures = summary(soak)

    assert figures["problems"] == []
    assert figures["jobs"] == sum(figures["ends"].values()) == 40
    assert figures["faults"]["worker killed"] >= 3
