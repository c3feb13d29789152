"""Claims that fail or are interrupted: each is undone or completed, and no upload is lost or taken twice."""

import errno
import os

import pytest
from support.spool import FAILURE, FORMATS, SEEN_AT, Spool, at, breaking

from whisperd.core.errors import ClaimLost, ClaimRefused, SpoolFull
from whisperd.spool import job_directory


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def interrupted(code):
    """A step that an error of the disk cuts off."""
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    "swap",
    [lambda path: path.symlink_to("/etc/passwd"), lambda path: path.write_bytes(b"another")],
    ids=["symlink", "another file"],
)
def test_what_is_swapped_in_while_a_claim_is_interrupted_is_returned(spool, monkeypatch, swap):
    """It could not be checked after the rename, so it is checked when the claim is repaired."""
    path = spool.upload("a.mp3")
    seen = spool.seen("a.mp3")
    at(
        monkeypatch,
        claim__after_record=lambda: (path.unlink(), swap(path)),
        claim__after_move=lambda: interrupted(errno.EIO),
    )
    with pytest.raises(SpoolFull):
        spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)
    assert not os.path.lexists(path)

    assert spool.store.repair_claims() == []
    assert os.path.lexists(path)
    assert spool.jobs() == set()


@pytest.mark.parametrize("failure", [None, FAILURE], ids=["good", "refused"])
def test_an_interrupted_claim_is_completed(spool, monkeypatch, failure):
    """With the failure for which the upload was taken, if there was one."""
    spool.upload("a.mp3")
    at(monkeypatch, claim__after_move=lambda: interrupted(errno.EIO))
    with pytest.raises(SpoolFull):
        spool.store.claim("a.mp3", spool.seen("a.mp3"), FORMATS, created_at=SEEN_AT, failure=failure)

    ((job, found),) = spool.store.repair_claims()
    assert (job.name, found) == ("a.mp3", failure)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, SpoolFull),
        (errno.EDQUOT, SpoolFull),
        (errno.EIO, SpoolFull),
        (errno.EACCES, ClaimRefused),
        (errno.EXDEV, ClaimRefused),
        (errno.ENOENT, ClaimLost),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else None,
)
@pytest.mark.parametrize("step", ["move", "record"])
def test_a_claim_that_fails_leaves_everything_as_it_was(spool, monkeypatch, code, kind, step):
    """The upload in the inbox, no directory in .work, no name held; and says what can be done."""
    spool.upload("a.mp3")
    breaking(monkeypatch, *(("move", code) if step == "move" else ("write", code, job_directory)))

    with pytest.raises(kind):
        spool.claim("a.mp3")

    assert spool.files("inbox") == {"a.mp3": b"a.mp3"}
    assert spool.jobs() == set()
    assert spool.claim("a.mp3").place == "a.mp3"
