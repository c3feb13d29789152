"""Known voices: which samples there are for a recording, which of them are refused, and whom they name."""

from __future__ import annotations

import os
import wave

import numpy as np
import pytest

from whisperd.core.transcript import KnownVoices, Turn
from whisperd.diarization.clustering import HeardVoice
from whisperd.diarization.diarize import People
from whisperd.diarization.on_demand import VoicePrints
from whisperd.protocol import Work
from whisperd.settings import config
from whisperd.settings.profiles import resolve
from whisperd.worker.voices import REPORTS_MAX, SAMPLES_MAX, find_samples, name_people, narrowed

RATE = 16_000
ANNA, BEN, EVE = np.eye(192)[:3]


def put(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def labels(found):
    samples, unusable = found
    return [(sample.name, sample.label) for sample in samples], unusable


def test_samples_beside_the_recording_come_before_those_above_it(tmp_path):
    """From its folder up to the inbox, then the directory of the configuration; other folders do not count."""
    for name in ("_voices/Anna.wav", "a/_voices/Anna.mp3", "a/b/_voices/Ben.wav", "other/_voices/Eve.wav", "a/Zoe.wav"):
        put(tmp_path / "inbox" / name)
    put(tmp_path / "voices/ben.wav")
    put(tmp_path / "voices/Carl.flac")

    found = labels(find_samples(tmp_path / "voices", tmp_path / "inbox", ("a", "b")))

    assert found == (
        [
            ("Ben", "inbox/a/b/_voices/Ben.wav"),
            ("Anna", "inbox/a/_voices/Anna.mp3"),
            ("Carl", f"{tmp_path}/voices/Carl.flac"),
        ],
        [],
    )


def test_without_folders_of_samples_there_is_nothing_to_report(tmp_path):
    """The folder of the recording may be gone too."""
    (tmp_path / "inbox").mkdir()

    assert find_samples(None, tmp_path / "inbox", ("gone", "below")) == ([], [])
    assert find_samples(None, None, ()) == ([], [])


def test_a_sample_is_named_after_its_file(tmp_path):
    """In composed characters, as people type them; other files in the folder are none of its business."""
    names = ["Dr. Anna Müller.wav", "Zoe\u0308.ogg", " Ben .MP3", "README.txt", ".Eve.wav", "Eve.wav.filepart"]
    for name in names:
        put(tmp_path / "_VOICES" / name)
    (tmp_path / "_VOICES/@eaDir").mkdir()

    (samples, unusable) = find_samples(None, tmp_path, ())

    assert {sample.name for sample in samples} == {"Dr. Anna Müller", "Zo\u00eb", "Ben"}
    assert unusable == []


def test_what_is_no_sample_is_named_with_the_reason(tmp_path):
    """And takes no other sample with it."""
    own = tmp_path / "inbox/_voices"
    private = put(tmp_path / "private.wav")
    put(own / "Anna.wav")
    for name in ("Anna.mp3", "Speaker 2.wav", "a\nb.wav", "x" * 101 + ".wav", os.fsdecode(b"\xff.wav")):
        put(own / name)
    (own / "Ben.wav").symlink_to(private)
    (own / "Zoe.wav").symlink_to("Anna.wav")
    os.mkfifo(own / "Eve.wav")

    found, unusable = labels(find_samples(None, tmp_path / "inbox", ()))

    assert found == [("Anna", "inbox/_voices/Anna.mp3")]
    reasons = dict(each.split(".wav: ", 1) for each in unusable)
    assert "Anna.mp3 has the same name" in reasons["inbox/_voices/Anna"]
    assert "is a link" in reasons["inbox/_voices/Ben"]
    assert "is a link" in reasons["inbox/_voices/Zoe"]
    assert "no regular file" in reasons["inbox/_voices/Eve"]
    nameless = {name for name, why in reasons.items() if "no name of a person" in why}
    assert nameless == {f"inbox/_voices/{name}" for name in ("Speaker 2", "a\\nb", "x" * 101, "\\xff")}


def test_a_folder_that_is_a_link_or_not_there_is_named(tmp_path):
    """A link could lead out of the inbox; a directory may be misspelt."""
    put(tmp_path / "private/Anna.wav")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/_voices").symlink_to(tmp_path / "private")

    samples, (link, missing) = find_samples(tmp_path / "voces", tmp_path / "inbox", ())

    assert samples == []
    assert link == "inbox/_voices: this is no folder, or a link to one, and none is followed"
    assert missing == f"{tmp_path}/voces: No such file or directory"


def test_nobody_makes_a_recording_wait_for_thousands_of_samples(tmp_path):
    """The nearest are used, and the first that is not is named."""
    for number in range(SAMPLES_MAX + 2):
        put(tmp_path / f"_voices/{number:04}.wav")

    samples, unusable = find_samples(None, tmp_path, ())

    assert len(samples) == SAMPLES_MAX
    assert unusable == [f"inbox/_voices/{SAMPLES_MAX:04}.wav and those after it: only {SAMPLES_MAX} samples are used"]


class Networks:
    """A diarizer that knows who speaks by the loudness of a sample, and counts how often it is asked."""

    def __init__(self):
        self.prints = VoicePrints()
        self.asked = 0

    def get(self):
        return self

    def diarize(self, audio, _options, _report):
        self.asked += 1
        loudness = int(np.abs(audio).max()) // 1000
        seconds = len(audio) / RATE
        if not loudness:
            return People([], [])
        if loudness == 8:  # hardly ever
            return people(ANNA, seconds=seconds / 4)
        if loudness == 9:  # two people
            turns = [Turn(0.0, seconds / 2, 0), Turn(seconds / 2, seconds, 1)]
            return People(turns, people(ANNA, BEN).voices)
        return people(np.eye(192)[loudness - 1], seconds=seconds)


def people(*voices, seconds=20.0):
    """Each speaks for some time, one after the other."""
    turns = [Turn(number * seconds, (number + 1) * seconds, number) for number in range(len(voices))]
    return People(turns, [HeardVoice(voice[None], np.array([seconds])) for voice in voices])


def sample(path, loudness, seconds=10.0):
    """A sample of noise, which is in all bands."""
    noise = np.random.default_rng(0).uniform(-1, 1, round(seconds * RATE)) * (loudness * 1000 + 500) * (loudness > 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(noise.astype(np.int16).tobytes())


@pytest.fixture
def work(tmp_path):
    """The job of a recording in the folder `alice`."""
    (tmp_path / "job").mkdir()
    (tmp_path / "inbox/alice").mkdir(parents=True)
    spec = resolve(config.validate({"diarization": {"enabled": True}}, source="test"), "alice/talk.wav")
    return Work("job", tmp_path / "job", tmp_path / "job/talk.wav", spec, inbox=tmp_path / "inbox", folders=("alice",))


TRACK = np.random.default_rng(1).normal(size=60 * RATE).astype(np.int16)


def named(work, *heard, networks=None, track=TRACK):
    return name_people(work, [track] * len(heard), heard, networks or Networks(), lambda _: None)


def test_people_are_named_by_their_voices(work):
    """Best likeness first, over all channels; the others have no name."""
    sample(work.inbox / "_voices/Anna.wav", 1)
    sample(work.inbox / "alice/_voices/Ben.wav", 2)
    almost_anna = ANNA * 0.9 + EVE * 0.436

    voices, names = named(work, people(BEN, almost_anna), people(EVE, ANNA))

    assert names == [{0: "Ben"}, {1: "Anna"}]
    assert voices == KnownVoices({"Ben": 1.0, "Anna": 1.0})
    assert list(work.directory.iterdir()) == []


def test_without_samples_nothing_is_said(work):
    """The fields of json and status file are left out, or null."""
    assert named(work, people(ANNA)) == (None, [{}])


def test_a_sample_is_listened_to_once_while_it_does_not_change(work):
    """A folder of twenty voices costs its time once in the life of a worker; a better sample counts at once."""
    sample(work.inbox / "_voices/Anna.wav", 1)
    put(work.inbox / "_voices/Ben.wav", b"this is no recording")
    networks = Networks()

    first = named(work, people(ANNA), networks=networks)
    assert named(work, people(ANNA), networks=networks) == first
    assert networks.asked == 1

    sample(work.inbox / "_voices/Anna.wav", 2, seconds=11.0)
    voices, _ = named(work, people(ANNA), networks=networks)
    assert (networks.asked, voices.recognized) == (2, {})


def test_who_is_on_the_telephone_is_compared_with_samples_on_the_telephone(work):
    """One person of a recording may be, and another not; each sample is made for both."""
    sample(work.inbox / "_voices/Anna.wav", 1)
    track = np.concatenate([TRACK[: 20 * RATE] * 1000, narrowed(TRACK[20 * RATE : 40 * RATE] * 1000)])
    networks = Networks()

    named(work, people(EVE, EVE), networks=networks, track=track)

    assert networks.asked == 2
    named(work, people(EVE), networks=networks, track=track)
    assert networks.asked == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"this is no recording", "no recording", id="no recording"),
        pytest.param((0, 10.0), "nobody speaks in it", id="silence"),
        pytest.param((1, 4.0), "it is 4.0 s long", id="short"),
        pytest.param((8, 10.0), "it has 2.5 s of speech", id="little speech"),
        pytest.param((9, 20.0), "2 people speak in it", id="two people"),
        pytest.param((1, 310.0), "longer than 0:05:00", id="long"),
    ],
)
def test_a_sample_of_no_use_is_named_and_harms_no_other(work, content, reason):
    """The transcription goes on with the rest."""
    sample(work.inbox / "_voices/Anna.wav", 1)
    bad = work.inbox / "_voices/Bad.wav"
    put(bad, content) if isinstance(content, bytes) else sample(bad, *content)

    voices, names = named(work, people(ANNA))

    assert names == [{0: "Anna"}]
    (report,) = voices.unusable
    assert report.startswith("inbox/_voices/Bad.wav: ")
    assert reason in report
    assert list(work.directory.iterdir()) == []


def test_reports_are_bounded(work):
    """Whoever fills the folder with names that are none does not fill the status file."""
    for number in range(REPORTS_MAX + 3):
        put(work.inbox / f"_voices/Speaker {number}.wav")

    voices, _ = named(work, people(ANNA))

    assert len(voices.unusable) == REPORTS_MAX + 1
    assert voices.unusable[-1] == "and 3 more"
