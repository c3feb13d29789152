"""The messages between supervisor and worker: all of them come back, and nothing else is taken for one."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import os
import random
import socket
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisperd.core.errors import EngineError
from whisperd.core.job import ERROR_TEXT_MAX, Failure, Phase, Result
from whisperd.core.options import EngineOptions, JobSpec
from whisperd.core.transcript import KnownVoices
from whisperd.protocol import (
    CHUNK_BYTES,
    DEPTH_MAX,
    FLOOD_MESSAGES,
    FROM_WORKER,
    FROM_WORKER_BYTES_MAX,
    TEXT_MAX,
    TO_WORKER,
    Boot,
    BootFailed,
    EngineFailed,
    Failed,
    Finished,
    Heartbeat,
    PipeEnd,
    ProtocolError,
    Quit,
    Ready,
    Release,
    Released,
    SupervisorEnd,
    Work,
    frame,
)
from whisperd.settings import config
from whisperd.settings.profiles import resolve

SPEC = resolve(config.validate({"media": {"ffmpeg": "/usr/bin/ffmpeg"}}, source="test"), "")
RESULT = Result(
    75.25,
    12.5,
    "0a" * 32,
    "en",
    0.98,
    "openai-whisper",
    "base",
    "cpu",
    ("txt", "json"),
    {"windows": 3, "avg_logprob": None, "low_confidence": [[1.0, 2.5], [3.0, 4.0]], "language_votes": {"en": 1.5}},
    digests={"txt": "0b" * 32, "json": "0c" * 32},
    voices=KnownVoices({"Anna": 0.87}, ("inbox/_voices/Ben.wav: the file is empty",)),
)
HEARTBEAT = Heartbeat("job", Phase.TRANSCRIBING, 1.5, 75.25, 1 << 34)
SAMPLES = [
    Ready("scripted", "base", "cuda:0", "fp16", 1.25),
    BootFailed(Failure("boot", "no such model", "choose another", retryable=True)),
    HEARTBEAT,
    Heartbeat("job", Phase.DECODING, 0.0, None),
    Finished("job", RESULT),
    Failed("job", Failure("not_media", "this is no recording", "send another", stage="decoding")),
    EngineFailed(Failure("internal", "CUDA error", "see the journal", retryable=True), ("job", "other")),
    Released("job"),
    Boot(EngineOptions("scripted", "base", Path("/models"), "cpu", 2, script="ok", ffmpeg=Path("ffmpeg"))),
    Work(
        "job",
        Path("/spool/.work/job"),
        Path("/spool/.work/job/original.mp3"),
        SPEC,
        "talk.mp3",
        "../done/talk.mp3",
        Path("/spool/inbox"),
        ("alice", "\udcff"),
    ),
    Release("job"),
    Quit(),
]
FIELDS = [(message, field.name) for message in SAMPLES for field in dataclasses.fields(message)]


def codec_of(message):
    return TO_WORKER if isinstance(message, Boot | Work | Release | Quit) else FROM_WORKER


def values_of(message):
    return json.loads(codec_of(message).encode(message))


def dump(values):
    return json.dumps(values, separators=(",", ":")).encode()


def refuse(data, codec=FROM_WORKER, match=None):
    with pytest.raises(ProtocolError, match=match):
        codec.decode(data)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_every_message_comes_back(message):
    assert codec_of(message).decode(codec_of(message).encode(message)) == message


texts = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=50)
seconds = st.floats(0, 1e9)
names = st.binary(min_size=1, max_size=50).map(os.fsdecode)
failures = st.builds(Failure, texts, texts, texts, st.booleans(), texts)
results = st.builds(
    Result,
    seconds,
    st.floats(0.001, 1e9),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.none() | texts,
    st.none() | st.floats(0, 1),
    texts,
    texts,
    texts,
    st.lists(texts, max_size=6).map(tuple),
    st.dictionaries(texts, st.none() | st.integers(-9, 9) | st.lists(st.tuples(seconds, seconds).map(list))),
).map(lambda result: dataclasses.replace(result, digests=dict.fromkeys(result.outputs, "0b" * 32)))
specs = st.builds(
    JobSpec,
    texts,
    st.builds(SPEC.transcribe.evolve, initial_prompt=st.none() | texts.filter(lambda text: "<|" not in text)),
    st.just(SPEC.output),
    st.just(SPEC.media),
    st.just(SPEC.vad),
    st.none() | texts,
    st.lists(names, max_size=4).map(tuple),
    st.dictionaries(texts, texts | st.booleans() | st.lists(texts).map(tuple)),
)
messages = st.one_of(
    st.builds(Ready, texts, texts, texts.filter(bool), texts, seconds),
    st.builds(BootFailed, failures),
    st.builds(
        Heartbeat,
        texts,
        st.sampled_from([Phase.DECODING, Phase.TRANSCRIBING, Phase.PUBLISHING]),
        seconds | st.integers(0, 99),
        st.none() | seconds,
        st.none() | st.integers(0, 1 << 45),
    ),
    st.builds(Finished, texts, results),
    st.builds(Failed, texts, failures),
    st.builds(EngineFailed, failures, st.lists(texts, max_size=3).map(tuple)),
    st.builds(Released, texts),
    st.builds(Boot, st.builds(EngineOptions, texts, texts, names.map(Path), texts, st.integers(1, 64))),
    st.builds(
        Work, texts, names.map(Path), names.map(Path), specs, texts, texts, names.map(Path), st.lists(names).map(tuple)
    ),
    st.builds(Release, texts),
)


@given(messages)
def test_any_message_comes_back(message):
    """Names of files with bytes that are not UTF-8 included."""
    data = codec_of(message).encode(message)

    assert codec_of(message).decode(data) == message
    assert data.isascii()


@pytest.mark.parametrize(("message", "field"), FIELDS, ids=lambda value: getattr(type(value), "__name__", value))
def test_no_field_may_be_missing(message, field):
    """Those with a default neither."""
    values = values_of(message)
    del values[field]

    refuse(dump(values), codec_of(message))


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_no_field_may_be_new_or_there_twice(message):
    data = codec_of(message).encode(message)
    refuse(data[:-1] + b',"more":1}', codec_of(message))
    refuse(data[:-1] + b',"kind":' + dump(type(message).__name__) + b"}", codec_of(message))


@pytest.mark.parametrize("wrong", [None, True, 7, -1.5, "x", [], {}, ["x"], {"x": 1}], ids=repr)
@pytest.mark.parametrize(("message", "field"), FIELDS, ids=lambda value: getattr(type(value), "__name__", value))
def test_no_field_is_taken_with_another_type(message, field, wrong):
    """What is taken is of exactly the type that the field has: a 1 is not true, and a 7 is no text."""
    try:
        taken = getattr(codec_of(message).decode(dump(values_of(message) | {field: wrong})), field)
    except ProtocolError:
        return
    taken = str(taken) if isinstance(taken, Path) else list(taken) if isinstance(taken, tuple) else taken
    assert (type(taken), taken) == (type(wrong), wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"processed_seconds": -1.0},
        {"processed_seconds": 1e10},
        {"processed_seconds": 1},  # written as 1.0 where seconds are meant
        {"duration_seconds": -0.1},
        {"device_bytes": -1},
        {"device_bytes": 10**16},
        {"device_bytes": 10**400},
        {"device_bytes": 1.5},
        {"device_bytes": True},
        {"phase": "ended"},
        {"phase": "dreaming"},
        {"job_id": "a\nb"},
        {"job_id": "\x1b[2J"},
        {"job_id": "\udcff"},
        {"job_id": "\u202e"},
        {"job_id": "x" * (TEXT_MAX + 1)},
        {"kind": "heartbeat"},
        {"kind": "Work"},
        {"kind": ["Heartbeat"]},
        {"kind": None},
    ],
    ids=repr,
)
def test_a_heartbeat_that_no_worker_has(wrong):
    """Texts are short and hold nothing that a terminal obeys; numbers are within reason."""
    values = json.loads(FROM_WORKER.encode(HEARTBEAT)) | wrong

    refuse(dump(values))


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration_seconds": -1.0},
        {"processing_seconds": 1e12},
        {"processing_seconds": 5e-324},
        {"sha256": "0a" * 31},
        {"sha256": "../" * 21 + "x"},
        {"language_probability": 1.5},
        {"language": 7},
        {"languages": [[2.0, 1.0, "en"]]},
        {"languages": [[0.0, 1e12, "en"]]},
        {"languages": [[0.0, 1.0, "<script>"]]},
        {"languages": [[0.0, 1.0]]},
        {"outputs": "txt"},
        {"outputs": ["txt", 7]},
        {"outputs": ["x"] * 101},
        {"duplicate_of": "../../etc/passwd"},
        {"quality": []},
        {"quality": {"dropped_seconds": "many"}},
        {"quality": {"dropped_seconds": True}},
        {"quality": {"low_confidence": [[1.0]]}},
        {"quality": {"low_confidence": [1.0, 2.0]}},
        {"quality": {"language_votes": {"en": {}}}},
        {"quality": {"\x1b": 1}},
        {"quality": {"gaps": 1}},
        {"quality": {"gaps": [[0.0, 1.0]]}},
        {"quality": {"gaps": [{"from": 0.0, "to": 1.0, "why": "<script>"}]}},
        {"quality": {"gaps": [{"from": 2.0, "to": 1.0, "why": "loop"}]}},
        {"quality": {"gaps": [{"from": 0.0, "to": "1", "why": "loop"}]}},
        {"quality": {"gaps": [{"from": 0.0, "to": 1.0, "why": ["loop"]}]}},
        {"voices": {"recognized": {"Anna": 1.5}, "unusable": []}},
        {"voices": {"recognized": {"Anna": "1"}, "unusable": []}},
        {"voices": {"recognized": {"\x1b": 0.5}, "unusable": []}},
        {"voices": {"recognized": {}, "unusable": ["\x1b[2J"]}},
        {"voices": {"recognized": {}}},
        {"digests": {}},
        {"digests": {"txt": "0b" * 32, "json": "0B" * 32}},
        {"digests": {"txt": "0b" * 32, "json": "0c" * 32, "srt": "0d" * 32}},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_result_that_no_worker_has(wrong):
    """What the supervisor writes into status files, or makes paths of, is what it looks like."""
    values = json.loads(FROM_WORKER.encode(Finished("job", RESULT)))
    values["result"] |= wrong

    refuse(dump(values), match="Finished")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(b'{"kind":"Released"', id="cut"),
        pytest.param(b'{"kind":"Released","job_id":"x"} ', id="space behind"),
        pytest.param(b'{"kind": "Released", "job_id": "x"}', id="spaces"),
        pytest.param(b'{"job_id":"x","kind":"Released"}', id="another order"),
        pytest.param(b'{"kind":"Released","job_id":"x","job_id":"x"}', id="twice"),
        pytest.param(b'{"kind":"Released","job_id":"\\u0078"}', id="escaped without need"),
        pytest.param(b'{"kind":"Released","job_id":"\xff"}', id="no UTF-8"),
        pytest.param('{"kind":"Released","job_id":"x"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"\x80\x04\x95\x00.", id="pickle"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"kind":"Released","job_id":' + b"[" * 20 + b"]" * 20 + b"}", id="a little deep"),
        pytest.param(b"9" * 10_000, id="a long number"),
        pytest.param(dump(values_of(HEARTBEAT)).replace(b"1.5", b"NaN"), id="NaN"),
        pytest.param(dump(values_of(HEARTBEAT)).replace(b"1.5", b"Infinity"), id="Infinity"),
        pytest.param(dump(values_of(HEARTBEAT)).replace(b"1.5", b"1e999"), id="a hidden infinity"),
        pytest.param(dump(values_of(HEARTBEAT)).replace(b"1.5", b"1.50"), id="a zero behind"),
        pytest.param(b'"' + b"x" * FROM_WORKER_BYTES_MAX + b'"', id="long"),
    ],
)
def test_what_is_no_message(data):
    refuse(data)
    refuse(data, TO_WORKER)


def test_each_side_hears_only_what_the_other_may_say():
    """A worker that sends orders is refused before their fields are looked at."""
    for message in SAMPLES:
        refuse(codec_of(message).encode(message), FROM_WORKER if codec_of(message) is TO_WORKER else TO_WORKER)


@pytest.mark.parametrize(
    "message",
    [
        dataclasses.replace(HEARTBEAT, processed_seconds=math.nan),
        dataclasses.replace(HEARTBEAT, processed_seconds=-1.0),
        Finished("job", dataclasses.replace(RESULT, quality={"avg_logprob": math.inf})),
        Finished("job", dataclasses.replace(RESULT, quality={"text": object()})),
        Released(7),
    ],
    ids=repr,
)
def test_what_no_receiver_would_take_is_not_sent(message):
    """It fails where the mistake is."""
    with pytest.raises(ProtocolError):
        FROM_WORKER.encode(message)


def test_numbers_are_written_as_their_types_say():
    """An honest worker that says 1 for 1.0 is understood."""
    message = dataclasses.replace(HEARTBEAT, processed_seconds=1)

    assert FROM_WORKER.decode(FROM_WORKER.encode(message)).processed_seconds == 1.0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("one\n\ttwo\x1b[31m three \udcff"),
        RuntimeError("x" * 10 * ERROR_TEXT_MAX),
        RuntimeError("\x00" * ERROR_TEXT_MAX),
        EngineError("CUDA error:\r\n  device-side assert", hint="a\x07b"),
    ],
    ids=["escapes", "long", "long with escapes", "of ours"],
)
def test_every_failure_can_be_said(error):
    """Whatever a library says of it."""
    message = Failed("job", Failure.of(error))

    assert FROM_WORKER.decode(FROM_WORKER.encode(message)) == message
    assert "\n" not in message.failure.message


def test_a_reason_repeats_nothing_of_what_came():
    """It is logged."""
    for values in (
        {"kind": "\x1b[2J"},
        {"kind": "Released", "\x1b[2J": 1},
        values_of(HEARTBEAT) | {"phase": "\x1b[2J"},
    ):
        with pytest.raises(ProtocolError) as caught:
            FROM_WORKER.decode(dump(values))
        assert "2J" not in str(caught.value)


# Fuzzing


def junk(random):
    """Any small JSON value."""
    kind = random.randrange(9)
    if kind == 0:
        return [junk(random) for _ in range(random.randrange(4))]
    if kind == 1:
        return {random.choice(string.ascii_letters): junk(random) for _ in range(random.randrange(4))}
    return random.choice(
        [
            None,
            True,
            False,
            0,
            -1,
            10 ** random.randrange(30),
            0.5,
            -1e300,
            math.nan,
            math.inf,
            "",
            "x",
            "\udcff",
            "\x00",
        ]
    )


def mutated(random, values):
    """A message with one thing changed, at any depth."""
    place = values
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return values
        key = random.choice(keys)
        if isinstance(place[key], dict | list) and random.random() < 0.7:
            place = place[key]
            continue
        match random.randrange(3):
            case 0:
                place[key] = junk(random)
            case 1:
                del place[key]
            case 2 if isinstance(place, dict):
                place[random.choice(["kind", "more", "job_id"])] = junk(random)
        return values


def broken(random, data):
    """Bytes changed, added or missing."""
    data = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at:at] = random.randbytes(random.randrange(5))
            case 1:
                del data[at : at + random.randrange(20)]
            case 2:
                data[at : at + 1] = random.choice([b'"', b"{", b"]", b",", b":", b"\\", b"9", b"e", b"-", b"\xc3"])
            case 3:
                data[at:at] = data[: random.randrange(len(data) + 1)]
    return bytes(data)


def test_twenty_thousand_broken_messages():
    """Each is refused with the one exception, or is written exactly as the message that it is taken for."""
    luck = random.Random(20_000)
    samples = [(codec_of(message), codec_of(message).encode(message)) for message in SAMPLES]
    refused = 0
    for number in range(20_000):
        codec, data = luck.choice(samples)
        if number % 4 == 0:
            data = dump(mutated(luck, json.loads(data)))
        elif number % 4 == 1:
            data = luck.randbytes(luck.randrange(100))
        else:
            data = broken(luck, data)
        try:
            message = codec.decode(data)
        except ProtocolError:
            refused += 1
        else:
            assert codec.encode(message) == data
    assert refused > 15_000


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_no_value_does_more_than_be_refused(value):
    refuse(dump(value))
    refuse(dump({"kind": "Heartbeat", "job_id": value}))


def test_depth_is_bounded_before_anything_else_looks():
    """Whatever is written into a status file later may be no deeper than its writer can follow."""
    deep = 1
    for _ in range(DEPTH_MAX):
        deep = [deep]
    values = values_of(Finished("job", RESULT))
    values["result"]["quality"]["x"] = deep

    refuse(dump(values), match="deep")


# The two ends


@pytest.fixture
def ends():
    """The supervisor's end, and the bare socket of a worker."""
    ours, theirs = socket.socketpair()
    end = SupervisorEnd(ours)
    yield end, theirs
    end.close()
    theirs.close()


SAID = frame(FROM_WORKER.encode(HEARTBEAT))


def test_messages_come_in_pieces_and_several_at_once(ends):
    end, theirs = ends
    heard = []
    for byte in SAID + SAID:
        theirs.send(bytes([byte]))
        heard += end.receive(0.0)
    theirs.send(3 * SAID)
    heard += end.receive(0.0)

    assert heard == 5 * [HEARTBEAT]


@pytest.mark.parametrize(
    "said", [b"", SAID[:2], SAID[:4], SAID[:-1]], ids=["nothing", "half a length", "a length", "all but one"]
)
def test_half_a_message_keeps_nobody_waiting(ends, said):
    """The supervisor used to wait for the rest."""
    end, theirs = ends
    theirs.send(said)

    assert list(end.receive(0.0)) == []
    assert not end.is_closed


def test_messages_before_nonsense_are_handed_out_first(ends):
    """One after the other, so that the last of them is acted on."""
    end, theirs = ends
    theirs.send(SAID + frame(b"nonsense"))
    heard = end.receive(0.0)

    assert next(heard) == HEARTBEAT
    with pytest.raises(ProtocolError):
        next(heard)


@pytest.mark.parametrize("length", [FROM_WORKER_BYTES_MAX + 1, 0xFFFF_FFFF])
def test_a_length_beyond_the_bound_is_refused_at_once(ends, length):
    """Nothing is kept for a message that will never be taken."""
    end, theirs = ends
    theirs.send(length.to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match="too long"):
        list(end.receive(0.0))


def test_a_flood_is_read_in_portions_and_then_refused(ends):
    end, theirs = ends
    theirs.setblocking(False)
    portions, unsent = [], b""

    def flood():
        nonlocal unsent
        unsent = unsent or 100 * SAID
        with contextlib.suppress(BlockingIOError):
            unsent = unsent[theirs.send(unsent) :]
        portions.append(sum(1 for _ in end.receive(0.0)))

    with pytest.raises(ProtocolError, match="too many messages"):
        collections.deque((flood() for _ in range(FLOOD_MESSAGES)), maxlen=0)

    assert max(portions) <= CHUNK_BYTES / len(SAID) + 1


def test_many_messages_in_a_long_time_are_no_flood(ends):
    end, theirs = ends
    for turn in range(FLOOD_MESSAGES // 50):
        theirs.send(100 * SAID)
        assert len(list(end.receive(float(turn)))) == 100


def test_the_end_of_a_worker_is_noticed_after_its_last_word(ends):
    end, theirs = ends
    theirs.send(SAID)
    theirs.close()

    assert list(end.receive(0.0)) == [HEARTBEAT]
    assert list(end.receive(0.0)) == []
    assert end.is_closed
    end.send(Quit())  # harmless


def test_all_that_a_dead_worker_said_is_heard(ends):
    end, theirs = ends
    theirs.setblocking(False)
    data = 10_000 * SAID
    sent = theirs.send(data)
    theirs.close()

    assert sent > CHUNK_BYTES
    assert len(list(end.receive(0.0, has_ended=True))) == sent // len(SAID)


def test_a_worker_that_does_not_read_keeps_nobody_waiting(ends):
    """What it was sent arrives once it reads, whole and in order."""
    end, theirs = ends
    ids = [f"{number:0999}" for number in range(1000)]
    for job_id in ids:
        end.send(Release(job_id))
    assert end.is_behind

    line = PipeEnd(theirs, FROM_WORKER, TO_WORKER)
    heard = []
    while len(heard) < len(ids):
        assert list(end.receive(0.0)) == []  # which sends as well
        heard.append(line.receive().job_id)
    assert heard == ids
    assert not end.is_behind


def test_a_line_hears_the_end():
    ours, theirs = socket.socketpair()
    with PipeEnd(theirs, FROM_WORKER, TO_WORKER) as line:
        ours.send(frame(TO_WORKER.encode(Quit()))[:-1])
        ours.close()
        assert line.poll()
        with pytest.raises(EOFError):
            line.receive()
