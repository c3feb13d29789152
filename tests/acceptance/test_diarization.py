"""Diarization with the real networks: how many people there are and who speaks when, up to names in a transcript."""

from __future__ import annotations

import json
import re
import wave

import numpy as np
import pytest
from support.daemon import Daemon
from support.voices import RATE, by_telephone, clip, in_turn, kennedy, weights_or_skip

from whisperd.bench.diarization import measure_diarization, score
from whisperd.core.options import DiarizationOptions, MediaOptions
from whisperd.diarization.clustering import LEAST_LIKENESS
from whisperd.diarization.diarize import Diarizer

pytestmark = pytest.mark.model

REAL = {
    "engine": "openai-whisper",
    "model": "base",
    "decoding": "batched",
    "pool": {"threads": 2},
    "transcription": {"language": "en", "word_timestamps": True},
    "output": {"formats": ["txt", "srt", "vtt", "tsv", "json"]},
}


def write(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def test_two_people_come_out_with_two_names(tmp_path):
    """Kennedy, a woman who counts and says a sentence, and Kennedy again: each sentence has the right name in every format."""
    weights_or_skip()
    samples, _ = in_turn(
        ("kennedy", kennedy(0, 4.5)),
        ("woman", clip("en", "counting")),
        ("woman", clip("en", "quick_brown_fox")),
        ("kennedy", kennedy(5, 11)),
    )
    with Daemon(tmp_path / "spool", REAL) as daemon:
        daemon.wait(daemon.inbox.exists, what="the inbox")
        (daemon.inbox / "talk.wav.yaml").write_text("diarization.enabled: true\n")
        write(daemon.inbox / "talk.wav", samples)
        daemon.wait(lambda: daemon.status("talk.wav") == "completed", within_seconds=120.0, what="talk.wav")
        assert daemon.stop() == 0

    out = tmp_path / "spool/outbox"
    said = {}
    for segment in json.loads((out / "talk.json").read_text())["segments"]:
        said.setdefault(segment["speaker"], []).append(segment["text"])
    said = {speaker: re.sub(r"[^\w ]", "", "".join(texts).lower()) for speaker, texts in said.items()}
    assert sorted(said) == ["Speaker 1", "Speaker 2"]
    assert "fellow americans" in said["Speaker 1"]
    assert "what you can do for your country" in said["Speaker 1"]
    assert "brown fox" in said["Speaker 2"]
    assert "country" not in said["Speaker 2"]
    assert "fox" not in said["Speaker 1"]
    for suffix in ("txt", "srt", "vtt", "tsv"):
        text = (out / f"talk.{suffix}").read_text()
        assert text.index("Speaker 1") < text.index("Speaker 2") < text.rindex("Speaker 1"), suffix


VOICES = {  # three clips each; those in Spanish, Polish and Portuguese are of one voice
    "en": ("counting", "quick_brown_fox", "hello_world"),
    "fr": ("comptage", "pangrama", "bonjour_monde"),
    "it": ("conteggio", "pangrama", "ciao_mondo"),
    "ja": ("kazoeru", "pangrama", "konnichiwa_sekai"),
    "hi": ("ginti", "pangrama", "namaste_duniya"),
}


@pytest.fixture(scope="module")
def diarizer():
    return Diarizer(weights_or_skip(), threads=2)


def ignore(seconds):
    pass


def conversation(count):
    """So many people say three things each, in turn: samples and turns."""
    voices = list(VOICES)[:count]
    return in_turn(*((voice, clip(voice, VOICES[voice][number])) for number in range(3) for voice in voices))


def heard(diarizer, samples, **options):
    turns = diarizer.diarize(samples, DiarizationOptions(enabled=True, **options), ignore).turns
    return [(start, end, str(speaker)) for start, end, speaker in turns]


def number_of_people(turns):
    return len({name for _, _, name in turns})


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_number_of_people_is_found_and_each_turn_is_theirs(diarizer, count):
    """Some seconds of each voice are enough, and a voice alone stays alone."""
    samples, reference = conversation(count)
    found = heard(diarizer, samples)

    assert number_of_people(found) == count
    assert score(reference, found, collar=0.25).rate < 0.08
    assert found[0][2] == "0"


def test_the_telephone_makes_no_two_people_one(diarizer):
    """A narrow band makes all voices more alike."""
    samples, _ = conversation(2)
    spectrum = np.fft.rfft(samples.astype(float))
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(hertz < 300) | (hertz > 3400)] = 0
    noise = np.random.default_rng(1).normal(size=len(samples)) * 10
    narrow = np.clip(np.fft.irfft(spectrum, len(samples)) + noise, -32768, 32767).astype(np.int16)

    assert number_of_people(heard(diarizer, narrow)) == 2


def test_whoever_knows_the_number_of_people_is_believed(diarizer):
    """Also against what is heard."""
    samples, _ = conversation(3)

    assert number_of_people(heard(diarizer, samples, speakers=2)) == 2
    assert number_of_people(heard(diarizer, samples, max_speakers=1)) == 1
    assert number_of_people(heard(diarizer, samples, min_speakers=3)) == 3


@pytest.mark.parametrize("length", [0, 1, 399, 16_000, 200_000])
def test_where_nobody_speaks_there_are_no_turns(diarizer, length):
    """Nothing, less than a frame, and noise."""
    noise = np.random.default_rng(0).normal(size=length) * 30

    assert heard(diarizer, noise.astype(np.int16)) == []


def test_a_job_that_is_wanted_back_is_not_heard_to_its_end(diarizer):
    """What the heartbeat raises passes through, and the progress that it is told of grows."""
    samples, _ = conversation(5)
    told = []

    def report(seconds):
        told.append(seconds)
        if len(told) == 2:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        diarizer.diarize(np.tile(samples, 5), DiarizationOptions(enabled=True), report)
    assert 0 < told[0] < told[1] < 5 * len(samples) / RATE


def test_a_folder_of_conversations_is_measured(diarizer, tmp_path):
    """As `whisperd bench --audio` does: recordings with who speaks when beside them."""
    samples, reference = conversation(2)
    write(tmp_path / "a.wav", samples)
    lines = [f"SPEAKER a 1 {start} {end - start} <NA> <NA> {name} <NA> <NA>" for start, end, name in reference]
    (tmp_path / "a.rttm").write_text("\n".join(lines))

    figures = measure_diarization([tmp_path / "a.wav"], diarizer, DiarizationOptions(), MediaOptions())

    assert (figures.conversations, figures.right_numbers) == (1, 1)
    assert figures.audio_seconds == pytest.approx(len(samples) / RATE, abs=0.01)
    assert figures.error == score(reference, heard(diarizer, samples))
    assert 0 < figures.error_with_collar.rate < figures.error.rate < 0.2


def speaker_at(turns, segment):
    """Who speaks in the middle of a segment, or last before it."""
    middle = (segment["start"] + segment["end"]) / 2
    return [name for start, _, name in turns if start <= middle][-1]


def test_a_known_voice_has_its_name_and_a_stranger_a_number(tmp_path):
    """A sample in another language names the woman in the recordings of its folder, on the telephone too, and in no other folder.

    A sample that is of no use is named, and all samples stay where they are.
    """
    weights_or_skip()
    spanish, others = (
        ("conteo", "pangrama"),
        (("pt", "contagem"), ("pt", "pangrama"), ("pl", "liczenie"), ("pl", "pangrama")),
    )
    recording, turns = in_turn(
        ("Speaker 1", kennedy(0, 4.5)), *(("Ada", clip("es", name)) for name in spanish), ("Speaker 1", kennedy(5, 11))
    )
    options = REAL | {"diarization": {"enabled": True}, "transcription": {"word_timestamps": True}}
    with Daemon(tmp_path / "spool", options) as daemon:
        daemon.wait(daemon.inbox.exists, what="the inbox")
        voices = daemon.inbox / "talks/_voices"
        voices.mkdir(parents=True)
        write(voices / "Ada.wav", in_turn(*(("Ada", clip(*each)) for each in others))[0])
        write(voices / "Nobody.wav", np.zeros(20 * RATE, np.int16))
        write(daemon.inbox / "talks/wide.wav", recording)
        write(daemon.inbox / "talks/phone.wav", by_telephone(recording))
        write(daemon.inbox / "stranger.wav", recording)
        for name in ("talks/wide.wav", "talks/phone.wav", "stranger.wav"):
            daemon.wait(lambda name=name: daemon.status(name) == "completed", within_seconds=240.0, what=name)
        assert sorted(path.name for path in voices.iterdir()) == ["Ada.wav", "Nobody.wav"]
        assert daemon.stop() == 0

    out = tmp_path / "spool/outbox"
    for name in ("wide", "phone"):
        transcript = json.loads((out / f"talks/{name}.json").read_text())
        said = {speaker_at(turns, segment): segment["speaker"] for segment in transcript["segments"]}
        assert said == {"Ada": "Ada", "Speaker 1": "Speaker 1"}, name
        assert list(transcript["voices"]["recognized"]) == ["Ada"]
        assert transcript["voices"]["recognized"]["Ada"] >= LEAST_LIKENESS
        (unusable,) = transcript["voices"]["unusable"]
        assert unusable.startswith("inbox/talks/_voices/Nobody.wav: nobody speaks in it")
        assert json.loads((out / f"talks/{name}.wav.status.json").read_text())["voices"] == transcript["voices"]
        assert "Ada" in (out / f"talks/{name}.txt").read_text()
    stranger = json.loads((out / "stranger.json").read_text())
    assert {segment["speaker"] for segment in stranger["segments"]} == {"Speaker 1", "Speaker 2"}
    assert "voices" not in stranger
