"""Containers cut off anywhere, and headers that lie: never a wrong accusation, never a wrong acquittal, never a loop."""

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import containers

from whisperd.container import Complete, Damaged, Short, Source, Unknown, inspect

WITHOUT_PROMISE = {"webm, live", "mp3 without a count", "aac"}
SOUND_BEFORE_TAGS = {"wav float with tags", "wav", "rf64", "w64", "aiff"}
CUTS = 400


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    made = {}

    def recording(kind):
        if kind not in made:
            made[kind] = containers.make(kind, tmp_path_factory.mktemp("containers"))
        return made[kind]

    return recording


def cuts(size):
    """Every length near the ends, and some between."""
    seeded = random.Random(size)
    return sorted({*range(min(size, 300)), *range(max(0, size - 300), size), *seeded.sample(range(size), CUTS)})


@pytest.mark.parametrize("kind", containers.KINDS)
def test_a_whole_recording_is_never_short(recordings, kind):
    """Nobody's complete upload is held back."""
    expected = Unknown() if kind in WITHOUT_PROMISE else Complete()

    assert inspect(Source(recordings(kind))) == expected


@pytest.mark.parametrize("kind", containers.KINDS)
def test_a_cut_recording_is_never_complete(recordings, kind):
    """A part of an upload may be Short or Unknown, and Short says how much is there."""
    whole = recordings(kind)
    found = {size: inspect(Source(whole[:size])) for size in cuts(len(whole))}

    assert [size for size, promise in found.items() if isinstance(promise, Complete)] == []
    assert all(promise.present_bytes == size for size, promise in found.items() if isinstance(promise, Short))
    assert all(
        p.promised_bytes is None or p.promised_bytes > p.present_bytes for p in found.values() if isinstance(p, Short)
    )


@pytest.mark.parametrize("kind", containers.KINDS)
def test_a_recording_on_its_way_is_never_damaged(recordings, kind):
    """Neither the first part of an upload, nor room that is reserved and filled in whole blocks, is called damage."""
    whole = recordings(kind)
    parts = [whole[:size] for size in cuts(len(whole))]
    reserved = [whole[:size].ljust(len(whole), b"\0") for size in range(0, len(whole), 512)]

    assert [len(part) for part in parts if isinstance(inspect(Source(part)), Damaged)] == []
    assert [part for part in reserved if isinstance(inspect(Source(part)), Damaged)] == []


@pytest.mark.parametrize("kind", sorted(set(containers.KINDS) - WITHOUT_PROMISE))
def test_a_recording_that_stops_half_way_is_short(recordings, kind):
    """The promise is not just there, it tells: of cuts through the sound at most a few fall where nobody can know."""
    whole = recordings(kind)
    sizes = range(len(whole) // 4, 3 * len(whole) // 4, len(whole) // 200)
    known = [isinstance(inspect(Source(whole[:size])), Short) for size in sizes]

    assert sum(known) >= 0.97 * len(known)


@pytest.mark.parametrize("extension", containers.STREAMED)
def test_a_streamed_header_holds_nothing_back(extension):
    """A recording written to a pipe states no length: that is no promise."""
    assert not isinstance(inspect(Source(containers.make_streamed(extension))), Short)


@pytest.mark.parametrize("kind", containers.KINDS)
def test_a_recording_with_its_second_half_not_written_yet_is_not_complete_where_that_shows(recordings, kind):
    """A client that reserves the full size first leaves zeros: what is found at the end of the file cannot be there."""
    whole = recordings(kind)
    half = whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)

    if kind in {"flac", "flac, small blocks", "ogg vorbis", "opus", "m4a, index last", "mov", "3gp"}:
        assert not isinstance(inspect(Source(half)), Complete)
    inspect(Source(half))


@pytest.mark.parametrize("kind", containers.KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_leads_to_an_answer(recordings, kind, data):
    """Whatever the sizes in a header are, the walk ends, within bounds, with one of the four answers."""
    whole = bytearray(recordings(kind))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(whole) - 1, 600)))
        junk = data.draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"\0\0\0\x01", b"\x01"]))
        whole[at : at + len(junk)] = junk
    source = CountingSource(bytes(whole))

    assert isinstance(inspect(source), (Complete, Damaged, Short, Unknown))
    assert source.reads < 20_000
    assert source.bytes_read < 1 << 20


@given(st.binary(max_size=200))
@example(b"RIFF\xff\xff\xff\xffWAVE" + b"data\xff\xff\xff\xff")
@example(b"\0\0\0\x01mdat" + b"\xff" * 8)
@example(b"\x1aE\xdf\xa3\x01" + b"\xff" * 20)
def test_any_bytes_lead_to_an_answer(data):
    """The first bytes of anything may be put into an inbox."""
    for magic in (
        b"",
        b"RIFF",
        b"RF64",
        b"FORM",
        b"caff",
        b"fLaC",
        b"OggS",
        b"\x1aE\xdf\xa3",
        b"ID3",
        b"\0\0\0\x18ftyp",
    ):
        assert isinstance(inspect(Source(magic + data)), (Complete, Damaged, Short, Unknown))


class CountingSource(Source):
    """Counts what is asked of it."""

    def __init__(self, content):
        super().__init__(content)
        self.reads = self.bytes_read = 0

    def read(self, offset, length):
        data = super().read(offset, length)
        self.reads += 1
        self.bytes_read += len(data)
        return data
