"""Two oracles: whisper's own writers where they have no bug, and pysubs2 as the reader of what was written."""

import csv
import html
import importlib
import io
import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import pysubs2
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from whisperd.core.options import OutputOptions
from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.output.formats import render
from whisperd.output.subtitles import GAP, SHORTEST
from whisperd.output.text import one_line
from whisperd.output.units import columns, is_wide

TEXT_FORMATS = ("txt", "srt", "vtt", "tsv", "json")  # of openai-whisper; the others have tests of their own
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCRIPTS = ["speech", "ünïcödé", "שלום", "مرحبا", "你好", "こんにちは", "नमस्ते", "🎙️", "👩‍👩‍👧"]
HOSTILE = [
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\x1b[2J",
    "\u2028",
    "-->",
    "--",
    ">",
    "<i>",
    "&lt;",
    "\ud800",
    " ",
    "1",
    "00:00",
]


def none_or(smallest, largest):
    return st.none() | st.integers(smallest, largest)


PLAIN = OutputOptions(formats=TEXT_FORMATS, layout="raw")
options = st.builds(
    PLAIN.evolve,
    max_line_width=none_or(1, 60),
    max_line_count=none_or(1, 3),
    max_words_per_line=none_or(1, 5),
    highlight_words=st.booleans(),
)

# Text in which whisper's writers have no bug: no control character or surrogate, no markup, no arrow.
visible = st.sampled_from(SCRIPTS) | st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="<>&\u2028\u2029"), min_size=1, max_size=12
).map(str.strip).filter(len)
numbers = st.floats(-10, 10)


def segment(start, end, text, words=None):
    return st.builds(
        Segment,
        st.just(start),
        st.just(end),
        st.just(text),
        tokens=st.lists(st.integers(0, 51865), max_size=4).map(tuple),
        seek=st.integers(0, 10**6),
        temperature=numbers,
        avg_logprob=numbers,
        compression_ratio=numbers,
        no_speech_prob=numbers,
        words=st.just(words),
    )


@st.composite
def transcripts(draw, *, timed, word_ends=("",)):
    """A transcript in order: times in whole milliseconds, lengths of at least one, pauses of up to six seconds."""
    word = st.builds("{}{}{}".format, st.sampled_from([" ", ""]), visible, st.sampled_from(word_ends))
    clock = draw(st.sampled_from([0, 59_000, 3_599_000, 359_000_000]))

    def span():
        nonlocal clock
        start = clock + draw(st.just(0) | st.integers(0, 6000))
        clock = start + draw(st.integers(1, 2000))
        return start / 1000, clock / 1000

    segments = []
    for _ in range(draw(st.integers(0, 5))):
        if not timed:
            segments.append(draw(segment(*span(), draw(visible.map(lambda text: f" {text}")))))
        elif draw(st.integers(0, 5)) == 0:  # cleared by whisper, as it clears what has no length
            segments.append(draw(segment(clock / 1000, clock / 1000, "", ())))
        else:
            texts = draw(st.lists(word, min_size=1, max_size=8))
            words = tuple(Word(*span(), text, draw(st.floats(0, 1))) for text in texts)
            segments.append(draw(segment(words[0].start, words[-1].end, "".join(texts), words)))
    assume(not timed or not segments or any(found.words for found in segments))
    return Transcript("".join(found.text for found in segments), tuple(segments), draw(st.sampled_from(["en", "he"])))


anything = st.lists(st.sampled_from([*SCRIPTS, *HOSTILE]) | st.text(st.characters(), max_size=6), max_size=5).map(
    "".join
)
any_time = st.floats(-10, 400_000) | st.sampled_from([math.nan, math.inf, -math.inf])
any_words = st.lists(st.builds(Word, any_time, any_time, anything, st.floats()), max_size=6).map(tuple)
any_segments = st.builds(
    Segment, any_time, any_time, anything, avg_logprob=st.floats(), words=st.none() | st.just(()) | any_words
)
any_transcripts = st.builds(
    Transcript, anything, st.lists(any_segments, max_size=6).map(tuple), st.sampled_from(["en", "yue"])
)


def whisper_result(transcript):
    """The dictionary that openai-whisper's `transcribe` returns for the same speech."""
    segments = []
    for index, found in enumerate(transcript.segments):
        shown = {"id": index, "seek": found.seek, "start": found.start, "end": found.end, "text": found.text}
        shown["tokens"] = found.tokens
        for measure in ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"):
            shown[measure] = getattr(found, measure)
        if found.words is not None:
            shown["words"] = [
                {"word": word.text, "start": word.start, "end": word.end, "probability": word.probability}
                for word in found.words
            ]
        segments.append(shown)
    return {"text": transcript.text, "segments": segments, "language": transcript.language}


@pytest.fixture(scope="module")
def whisper_writes():
    """`(format, transcript, options) -> str`, by whisper's writers."""
    get_writer = importlib.import_module("whisper.utils").get_writer

    def write(name, transcript, options):
        file = io.StringIO()
        shape = {key: value for key, value in dict(options).items() if key != "formats"}
        get_writer(name, ".").write_result(whisper_result(transcript), file=file, options=shape)
        return file.getvalue()

    return write


@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
@given(data=st.data(), options=options)
@SETTINGS
def test_each_file_is_what_whisper_writes(whisper_writes, timed, data, options):
    """Where whisper's writers have no bug, txt, srt, vtt and tsv are theirs byte for byte, and json says the same."""
    transcript = data.draw(transcripts(timed=timed, word_ends=("", " ")))
    files = render(transcript, options)

    for name in ("txt", "srt", "vtt", "tsv"):
        assert files[name].decode() == whisper_writes(name, transcript, options), name
    assert files["json"].decode() == json.dumps(
        json.loads(whisper_writes("json", transcript, options)), ensure_ascii=False
    )


@pytest.mark.parametrize("name", ["srt", "vtt"])
@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
@given(data=st.data())
@SETTINGS
def test_pysubs2_reads_back_the_same_cues(name, timed, data):
    """An independent reader finds each spoken segment as one cue with its times to the millisecond and its text."""
    transcript = data.draw(transcripts(timed=timed))
    expected = [
        (round(found.start * 1000), round(found.end * 1000), found.text.strip())
        for found in transcript.segments
        if found.text
    ]
    content = render(transcript, PLAIN)[name].decode()

    assert [(cue.start, cue.end, cue.text) for cue in subtitles(name, content)] == expected


@pytest.mark.parametrize("character", ["<", "&", "<b>", "&amp;", "&lt;u&gt;", "a<b&c"])
@given(before=visible, after=visible)
@SETTINGS
def test_markup_in_the_text_reads_back_as_text_from_vtt(character, before, after):
    """Escaping in WebVTT loses nothing and invents nothing."""
    text = f"{before}{character}{after}"
    content = render(Transcript(text, (Segment(0.0, 1.0, text),), "en"), PLAIN)["vtt"].decode()

    assert [cue.text for cue in subtitles("vtt", content)] == [text.strip()]


@given(transcript=any_transcripts, options=options)
@SETTINGS
def test_no_transcript_breaks_a_file(transcript, options):
    """Whatever an engine may say, each file is UTF-8 and keeps its structure."""
    files = {name: content.decode() for name, content in render(transcript, options).items()}
    srt, vtt = subtitles("srt", files["srt"]), subtitles("vtt", files["vtt"])
    rows = list(csv.reader(io.StringIO(files["tsv"], newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))

    assert files["txt"].count("\n") == len(transcript.segments) == len(files["txt"].splitlines())
    assert [len(row) for row in rows] == [3] * (1 + len(transcript.segments))
    assert files["srt"].count("-->") == files["vtt"].count("-->") == len(srt) == len(vtt)
    assert files["srt"].count("\n\n") == len(srt)
    assert files["vtt"].count("\n\n") == len(vtt) + 1
    assert all(cue.start < cue.end for cue in vtt)
    assert all(one.end <= other.start for one, other in pairwise(vtt))


@given(transcript=any_transcripts, options=options)
@SETTINGS
def test_no_text_is_lost_in_subtitles(transcript, options):
    """Every visible character of what was said stands in the cues, in order, whatever their shape."""
    assume(not re.search(r"--|\\N", "".join(said(transcript))))  # `\N` is a line break to pysubs2
    cues = subtitles("vtt", render(transcript, options.evolve(highlight_words=False))["vtt"].decode())

    assert letters(cue.text.replace("\\N", "\n") for cue in cues) == letters(said(transcript))


@given(transcript=any_transcripts, options=options)
@SETTINGS
def test_no_transcript_breaks_readable_subtitles(transcript, options):
    """Each cue fits its lines, can be seen, and is apart from the next; no visible character is lost."""
    options = options.evolve(layout="readable", highlight_words=False)
    files = {name: content.decode() for name, content in render(transcript, options).items()}
    srt, vtt = subtitles("srt", files["srt"]), subtitles("vtt", files["vtt"])

    # pysubs2 takes a line of digits for the number of a cue
    texts = [block.split("\n")[2:] for block in files["srt"].removesuffix("\n\n").split("\n\n") if block]

    assert files["srt"].count("-->") == files["vtt"].count("-->") == len(srt) == len(vtt) == len(texts)
    assert all(cue.end - cue.start >= SHORTEST for cue in vtt)
    assert all(other.start - one.end >= GAP for one, other in pairwise(vtt))
    assert max(map(len, texts), default=0) <= (options.max_line_count or 2)
    limit = options.max_line_width or 42
    lines = [line for shown in texts for line in shown]
    assert all(
        columns(line) <= (2 * limit if is_wide(line) else max(limit, 2 * 16)) or len(line) == 1 for line in lines
    )
    if "--" not in "".join(readable(transcript)):
        assert letters(lines) == letters(readable(transcript))


@given(transcript=any_transcripts, speakers=st.lists(st.sampled_from(["Ann", "Bob", "C" * 60]), min_size=6, max_size=6))
@SETTINGS
def test_speakers_at_the_same_time_break_no_readable_subtitles(transcript, speakers):
    """Cues of srt stay apart, those of vtt are in order, all can be seen, and nobody's words are lost."""
    named = [replace(found, speaker=speaker) for found, speaker in zip(transcript.segments, speakers, strict=False)]
    transcript = replace(transcript, segments=tuple(named))
    files = {name: content.decode() for name, content in render(transcript, PLAIN.evolve(layout="readable")).items()}
    assume(not re.search(r"\d{3}:", files["srt"]))  # of which pysubs2 reads the last two digits
    srt, vtt = subtitles("srt", files["srt"]), subtitles("vtt", files["vtt"])

    assert all(cue.end - cue.start >= SHORTEST for cue in [*srt, *vtt])
    assert all(other.start - one.end >= GAP for one, other in pairwise(srt))
    assert all(one.start <= other.start for one, other in pairwise(vtt))
    if "--" not in "".join(readable(transcript)):
        cues = re.sub(r"\AWEBVTT\n\n(STYLE\n.*?\n\n)?", "", files["vtt"], flags=re.DOTALL)
        spoken = html.unescape(re.sub(r"<v [^>]*>|[\d:.]+ --> [\d:.]+\n", "", cues))
        assert sorted(letters([spoken])) == sorted(letters(readable(transcript)))


@given(transcript=any_transcripts)
@SETTINGS
def test_no_text_is_lost_in_paragraphs(transcript):
    """Every visible character stands in txt, in order; no line is empty but those between paragraphs."""
    text = render(transcript, PLAIN.evolve(layout="readable"))["txt"].decode()

    assert letters([text]) == letters(readable(transcript))
    assert all(
        paragraph.strip() and "\n" not in paragraph for paragraph in text.removesuffix("\n").split("\n\n") if text
    )


@given(transcript=any_transcripts)
@SETTINGS
def test_json_says_all_that_the_transcript_says(transcript):
    """Reading the json back gives every field of every segment and word; what JSON cannot hold is null or U+FFFD."""
    expected = json.loads(json.dumps(whisper_result(transcript)), parse_constant=lambda _constant: None)
    with_words = any(found.words for found in transcript.segments)
    for found in expected["segments"]:
        found["words"] = found.get("words", [])
        if not with_words:
            del found["words"]

    assert json.loads(render(transcript, PLAIN)["json"]) == replaced(expected)


def subtitles(name, content):
    """The cues as pysubs2 reads them, markup kept, WebVTT's character references resolved."""
    cues = list(pysubs2.SSAFile.from_string(content, format_=name, keep_html_tags=True))
    if name == "vtt":
        for cue in cues:
            cue.text = html.unescape(cue.text)
    return cues


def said(transcript):
    """What the words say where there are any, else what the segments say."""
    for found in transcript.segments:
        yield from [word.text for word in found.words] if found.words else [found.text]


def readable(transcript):
    """The same, but a segment whose words are all blank says its text."""
    for found in transcript.segments:
        spoken = [word.text for word in found.words or ()]
        yield from spoken if one_line("".join(spoken)).strip() else [found.text]


def letters(texts):
    """The characters that one can see, surrogates as they are written."""
    joined = "".join(replaced(text) for text in texts)
    return [character for character in joined if not character.isspace() and character.isprintable()]


def replaced(value):
    """The same value with U+FFFD for each lone surrogate in its texts."""
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in value)
    if isinstance(value, list):
        return [replaced(item) for item in value]
    if isinstance(value, dict):
        return {key: replaced(item) for key, item in value.items()}
    return value
