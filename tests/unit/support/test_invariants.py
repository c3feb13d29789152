"""The checker of spools finds fault where there is one: a test of faults is worth no more than it."""

import os
import shutil

import pytest
from support.invariants import check_spool, digest
from support.spool import FAILURE, Spool, result

UPLOADS = {"b/a.wav": b"good", "bad.wav": b"bad", "later.wav": b"later"}
WORDS = {digest(b"good"): "hello\n"}


@pytest.fixture
def spool(tmp_path):
    """One upload in done/, one in failed/, one in the inbox."""
    spool = Spool(tmp_path / "spool")
    job = spool.take("b/a.wav", UPLOADS["b/a.wav"])
    spool.render(job)
    (spool.layout.job_directory(job.id) / "outputs/txt").write_text("hello\n")
    spool.store.finish(job, result(sha256=digest(UPLOADS["b/a.wav"])))
    spool.store.fail(spool.take("bad.wav", UPLOADS["bad.wav"]), FAILURE)
    spool.upload("later.wav", UPLOADS["later.wav"])
    return spool


def problems(spool, **options):
    return check_spool(spool.layout.root, UPLOADS, transcripts=WORDS, **options)


def test_a_spool_in_order_breaks_no_rule(spool):
    """With one upload in each room, and a note on the one that waits."""
    spool.store.status_files.explain("later.wav", 5, "it still changes")

    assert problems(spool) == []


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda root: (root / "inbox/later.wav").unlink(), "lost: ['later.wav'], found in []"),
        (
            lambda root: shutil.copy(root / "done/b/a.wav", root / "inbox/a.wav"),
            "doubled: ['b/a.wav'], found in ['inbox/a.wav', 'done/b/a.wav']",
        ),
        (lambda root: os.truncate(root / "done/b/a.wav", 1), "nobody uploaded this: [], found in ['done/b/a.wav']"),
        (
            lambda root: (root / "outbox/b/a.json").unlink(),
            "outbox/b/a.wav.status.json: completed, but json is not there: outbox/b/a.json",
        ),
        (
            lambda root: os.truncate(root / "outbox/b/a.json", 0),
            "outbox/b/a.wav.status.json: completed, but outbox/b/a.json is empty",
        ),
        (
            lambda root: (root / "outbox/b/a.txt").write_text("nonsense"),
            "outbox/b/a.wav.status.json: 'nonsense' instead of 'hello\\n'",
        ),
        (
            lambda root: (root / "done/b/a.wav").rename(root / "inbox/a.wav"),
            "outbox/b/a.wav.status.json: completed, but done/b/a.wav is not there",
        ),
        (
            lambda root: (root / "failed/bad.wav").rename(root / "done/b/a.wav"),
            "outbox/b/a.wav.status.json: completed, but done/b/a.wav is another recording",
        ),
        (lambda root: (root / "outbox/b/a.wav.status.json").unlink(), "done/b/a.wav: 0 sidecars say completed"),
        (lambda root: (root / "outbox/bad.wav.status.json").unlink(), "failed/bad.wav: 0 sidecars say failed"),
        (lambda root: (root / "outbox/b/a-2.txt").write_text("hello\n"), "outbox/b/a-2.txt: no completed job has it"),
        (
            lambda root: shutil.copy(root / "outbox/b/a.wav.status.json", root / "outbox/x.status.json"),
            "done/b/a.wav: 2 sidecars say completed",
        ),
        (lambda root: os.truncate(root / "outbox/bad.wav.status.json", 9), "outbox/bad.wav.status.json: no completed job has it"),
        (lambda root: (root / ".work/x").mkdir(), ".work/x: left over"),
        (lambda root: (root / ".work/.staging/.x.tmp").touch(), ".work/.staging/.x.tmp: half-written"),
    ],
)  # fmt: skip
def test_each_broken_rule_is_named(spool, damage, complaint):
    """In words that say what is where."""
    damage(spool.layout.root)

    assert complaint in problems(spool)


def test_a_job_under_way_breaks_a_rule_only_where_all_should_have_ended(spool):
    """After a SIGKILL it may be in `.work`, with a sidecar that says so."""
    spool.store.show(spool.claim("later.wav"))

    assert problems(spool, settled=False) == []
    assert any("outbox/later.wav.status.json: still pending" in problem for problem in problems(spool))
