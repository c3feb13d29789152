"""md, docx, ass, lrc and the styles of vtt, each read by somebody else's reader."""

import io
import re
import subprocess
import xml.etree.ElementTree as ET
import zipfile

import docx
import imageio_ffmpeg
import mammoth
import pysubs2
import pytest
import webvtt
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.pages import HOSTILE, SENTENCES, about, words

from whisperd.core.errors import InputError
from whisperd.core.options import OutputOptions
from whisperd.core.transcript import NOT_KNOWN, Segment, Transcript
from whisperd.output.formats import render
from whisperd.settings import config, profiles

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(HOSTILE)


def said(text, start=0.0, *, timed=False, speaker=None, length=2.0):
    spoken = words(text, start, start + length) if timed else None
    return Segment(start, start + length, f" {text}", words=spoken, speaker=speaker)


def talk(*, timed=False):
    """Ann, then Bob, then Ann after a pause."""
    return Transcript(
        "",
        (
            said(SENTENCES[0], 0.0, timed=timed, speaker="Ann"),
            said(SENTENCES[1], 2.0, timed=timed, speaker="Bob, the *first*"),
            said(SENTENCES[3], 4.0, timed=timed, speaker="Bob, the *first*"),
            said(SENTENCES[4], 63.0, timed=timed, speaker="Ann"),
        ),
        "en",
    )


def written(name, source, told=None, **changes):
    return render(source, OutputOptions(formats=(name,), **changes), about() if told is None else told)[name]


def converted(name, content):
    """The subtitles that ffmpeg reads, as pysubs2 reads the result."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", name, "-i", "-", "-f", "srt", "-"]
    ran = subprocess.run(command, input=content, capture_output=True, check=True)
    return pysubs2.SSAFile.from_string(ran.stdout.decode(), format_="srt")


# Markdown


def parts_of(content):
    """Front matter and body, as static site generators divide them."""
    _, front, body = re.split(r"^---\n", content, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(front), body


def shown(markdown):
    """What a reader of the rendered document sees, block by block."""
    blocks = [token for token in MarkdownIt("commonmark").parse(markdown) if token.type == "inline"]
    return ["".join(child.content for child in block.children) for block in blocks]


def test_markdown_has_front_matter_speakers_and_times():
    """The front matter is YAML, and the body says who speaks from when."""
    front, body = parts_of(written("md", talk()).decode())

    assert front == {
        "title": "talk.wav",
        "date": "2026-01-02T03:04:05.678Z",
        "duration_seconds": 65.0,
        "language": "en",
        "speakers": ["Ann", "Bob, the *first*"],
        "made_by": "openai-whisper, model base",
    }
    assert shown(body) == [
        "talk.wav",
        f"0:00 Ann: {SENTENCES[0]}",
        f"0:02 Bob, the *first*: {SENTENCES[1]} {SENTENCES[3]}",
        f"1:03 Ann: {SENTENCES[4]}",
    ]
    assert [token.tag for token in MarkdownIt().parse(body) if token.type == "heading_open"] == ["h1"]


@given(text=TEXTS, speaker=TEXTS, title=TEXTS)
@settings(deadline=None)
def test_no_text_becomes_markup_in_markdown(text, speaker, title):
    """Whatever is said and whoever says it, it is shown as it is, in one paragraph."""
    source = Transcript("", (Segment(0.0, 1.0, f"x{text}", speaker=f"x{speaker}"),), "en")

    front, body = parts_of(written("md", source, about(title=f"x{title}")).decode())

    def visible(text):
        return "".join(char for char in text if char.isprintable() and not char.isspace())

    heading, paragraph = shown(body)
    assert visible(heading) == visible(f"x{title}")
    assert visible(paragraph) == visible(f"0:00x{speaker}:x{text}")
    assert visible(front["title"]) == visible(f"x{title}")


def test_markdown_of_silence_is_a_document():
    """Without a title, speech or anything known."""
    front, body = parts_of(written("md", Transcript("", (), "en"), NOT_KNOWN).decode())

    assert (front, body.strip()) == ({"language": "en"}, "")


# docx


def test_a_document_has_speakers_and_times():
    """As mammoth and python-docx read it."""
    content = written("docx", talk())

    html = mammoth.convert_to_html(io.BytesIO(content)).value
    read = docx.Document(io.BytesIO(content))

    assert re.findall(r"<h1>(.*?)</h1>", html) == ["talk.wav"]
    assert re.findall(r"<p>(.*?)</p>", html) == [
        f"0:00  <strong>Ann: </strong>{SENTENCES[0]}",
        f"0:02  <strong>Bob, the *first*: </strong>{SENTENCES[1]} {SENTENCES[3]}",
        f"1:03  <strong>Ann: </strong>{SENTENCES[4]}",
    ]
    assert (read.core_properties.title, read.core_properties.created.year) == ("talk.wav", 2026)


def test_any_text_makes_a_document_that_is_xml():
    """Control characters, surrogates and markup in texts and names."""
    for text in (*HOSTILE, "a\ud800b\ufffec\x00d", "t" * 300):
        source = Transcript("", (Segment(0.0, 1.0, text, speaker=text),), text)
        content = written("docx", source, about(title=text, made_at=""))

        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            for name in archive.namelist():
                if name.endswith(".xml"):
                    ET.fromstring(archive.read(name))
        assert len(docx.Document(io.BytesIO(content)).paragraphs) == 2


def test_docx_without_its_package_is_refused_by_configuration_and_tickets(monkeypatch):
    """The message says what to install; the recording is not lost."""
    plain = config.validate({"root": "/spool"}, source="test")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(
        config.ConfigError, match=r"formats: docx needs python-docx: run `pip install 'whisperd\[docx\]'`"
    ):
        config.validate({"root": "/spool", "output": {"formats": ["txt", "docx"]}}, source="test")
    with pytest.raises(InputError, match="docx needs python-docx"):
        profiles.resolve(plain.evolve(profiles={"**": {"formats": ("docx",)}}), "a.mp3")


# ass


def test_ass_has_karaoke_where_words_have_times():
    """The numbers are hundredths of a second and add up to the length of the line; styles belong to speakers."""
    read = pysubs2.SSAFile.from_string(written("ass", talk(timed=True)).decode())

    first = read[0]
    assert first.plaintext == SENTENCES[0]
    assert first.text == r"{\k40}And {\k40}so, {\k40}my {\k40}fellow {\k40}Americans."
    assert [(each.style, each.name) for each in read] == [
        ("Speaker1", "Ann"), ("Speaker2", "Bob  the *first*"), ("Speaker2", "Bob  the *first*"), ("Speaker1", "Ann"),
    ]  # fmt: skip
    for each in read:
        assert sum(map(int, re.findall(r"\\k(\d+)", each.text))) == (each.end - each.start) // 10
    assert {read.styles[name].primarycolor.b for name in ("Speaker1", "Speaker2")} == {255, 0}


def test_ass_without_times_of_words_is_plain():
    """Estimated times make no karaoke; ffmpeg reads the same texts."""
    content = written("ass", talk())

    assert rb"\k" not in content
    assert [cue.plaintext.replace("\n", " ") for cue in converted("ass", content)] == [
        SENTENCES[number] for number in (0, 1, 3, 4)
    ]


@given(text=TEXTS)
@settings(deadline=None)
def test_no_text_becomes_a_command_of_ass(text):
    """Braces and backslashes are shown, not followed; nothing gets out of its line."""
    content = written("ass", Transcript("", (Segment(0.0, 1.0, f"x{text}", speaker=text),), "en")).decode()

    read = pysubs2.SSAFile.from_string(content)

    assert content.count("Dialogue:") == len(read) >= 1
    assert not re.search(r"[{}]", "".join(each.text for each in read))
    assert not re.search(r"\\(?!N)", "".join(each.text for each in read))


# lrc


def test_lrc_has_a_time_for_each_line():
    """As ffmpeg reads them: one line at a time, cleared in a long pause."""
    content = written("lrc", talk())

    read = [(cue.start, cue.plaintext) for cue in converted("lrc", content) if cue.plaintext]

    assert content.decode().startswith("[ti:talk.wav]\n[re:whisperd]\n[length:00:10.00]\n")
    assert read == [
        (0, f"Ann: {SENTENCES[0]}"),
        (2000, "Bob, the *first*: Ask not what"),
        (2600, "your country can do for you."),
        (4000, SENTENCES[3]),
        (63000, "Ann: Ask what you can do for your country."),
    ]
    assert "[00:06.00]\n[01:03.00]Ann" in content.decode()


def test_lrc_has_times_of_words_where_they_are_highlighted():
    """The enhanced form of the format."""
    content = written("lrc", Transcript("", (said(SENTENCES[3], timed=True),), "en"), highlight_words=True).decode()

    assert content.splitlines()[3:] == ["[00:00.00]<00:00.00>Nobody <00:01.00>knows.", "[00:02.00]"]


def test_no_text_of_lrc_is_taken_for_a_time():
    """A bracket before a digit would be one."""
    content = written("lrc", Transcript("", (said("[00:01.00] x <00:02.00> [laughs]"),), "en")).decode()

    assert content.splitlines()[3] == "[00:00.00](00:01.00] x (00:02.00> [laughs]"


# Styles of vtt


def test_vtt_gives_each_speaker_a_colour():
    """A selector for each voice, by its name as a player reads it."""
    content = written("vtt", talk()).decode()

    read = webvtt.from_string(content)

    assert [cue.voice for cue in read] == ["Ann", "Bob, the *first*", "Bob, the *first*", "Ann"]
    (style,) = read.styles
    assert re.findall(r'voice="(.*?)"', style.text) == ["Ann", r"Bob\2c  the \2a first\2a "]
    assert "STYLE" not in written("vtt", talk(), layout="raw").decode()


@given(name=TEXTS)
@settings(deadline=None)
def test_no_name_breaks_out_of_the_style(name):
    """A name may contain anything; the style has one rule and the file one cue."""
    assume(name)
    content = written("vtt", Transcript("", (Segment(0.0, 1.0, "hi", speaker=name),), "en")).decode()
    blocks = content.removesuffix("\n\n").split("\n\n")

    assert [block.partition("\n")[0] for block in blocks[:2]] == ["WEBVTT", "STYLE"]
    assert len(blocks) == 3
    assert blocks[1].count("\n") == 1
    assert "-->" not in blocks[1]
    assert re.fullmatch(r'STYLE\n::cue\(v\[voice="(?:\w| |\\[0-9a-f]+ )*"\]\) \{ color: #ffffff; \}', blocks[1])
