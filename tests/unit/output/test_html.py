"""The page of a transcript: what stands in it, and that nothing which is said or named becomes anything but text."""

import base64
import hashlib
import os
import re
import urllib.parse

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pages import HOSTILE, SENTENCES, about, page, transcript

from whisperd.core.job import original_url
from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.output import html

TEXTS = st.text(max_size=60) | st.sampled_from(HOSTILE)


def parsed(rendered):
    """As a browser reads it."""
    return html5lib.parse(rendered, namespaceHTMLElements=False, transport_encoding="utf-8")


def without_assets(rendered):
    """The page without its style and script, which are always the same and slow to parse; what breaks out stays."""
    for name in ("page.css", "page.js", "edit.js"):
        assert html._asset(name).encode() in rendered
        rendered = rendered.replace(html._asset(name).encode(), b"", 1)
    return rendered


def structure(tree):
    """Every element with the names of its attributes."""
    return [(str(element.tag), *sorted(element.attrib)) for element in tree.iter()]


def text_of(element):
    return "".join(element.itertext())


def classes(tree, name):
    """The elements of a class."""
    return [element for element in tree.iter() if name in element.attrib.get("class", "").split()]


def as_shown(text):
    """What a reader sees of a text: controls are spaces, overrides of the direction are marked, edges are cut."""
    spaced = "".join(
        " " if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029" else char for char in text
    )
    return re.sub("[\u202d\u202e\ud800-\udfff]", "\ufffd", spaced).strip()


@given(title=TEXTS, text=TEXTS, speaker=TEXTS, model=TEXTS)
@settings(max_examples=40, deadline=None)
def test_no_text_and_no_name_becomes_markup(title, text, speaker, model):
    """The page has no other elements and attributes than one with harmless words, and shows the words."""

    def rendered(title, text, speaker, model):
        segments = (Segment(0.0, 1.0, f"x{text}", speaker=f"x{speaker}"),)
        return parsed(without_assets(page(Transcript("", segments, "en"), about(title=title, made_by=model))))

    tree = rendered(title, text, speaker, model)

    harmless = structure(rendered("a", "b. B", "c", "d"))
    assert set(structure(tree)) <= set(harmless)
    assert [each for each in structure(tree) if each[0] != "span"] == [each for each in harmless if each[0] != "span"]
    assert text_of(classes(tree, "x")[0]).split() == as_shown(f"x{text}").split()
    assert text_of(classes(tree, "who")[0]).strip() == as_shown(f"x{speaker}")
    assert text_of(tree.find(".//h1/bdi")).strip() == as_shown(title)


@given(place=st.text(alphabet=st.characters(exclude_characters="\x00"), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_the_link_leads_to_the_original_whatever_it_is_called(place):
    """It survives HTML and URL rules both ways, and always stays a relative one."""
    place = place.strip("/.") or "a"
    try:
        raw = os.fsencode(place)
    except UnicodeEncodeError:
        return  # no file can be called so
    tree = parsed(without_assets(page(transcript(), about(place))))
    link = tree.find(".//*[@id='media']").attrib["src"]

    up, _, rest = link.partition("done/")
    assert up == "../" * (place.count("/") + 1)
    assert urllib.parse.unquote_to_bytes(rest) == raw
    assert urllib.parse.urlsplit(link)[::2] == ("", link, "")


def test_the_policy_admits_this_script_and_this_style_and_no_others():
    """They are the same for every recording, so nothing that is said can be in them."""
    first = parsed(page(transcript(), about()))
    second = parsed(page(transcript(HOSTILE), about(HOSTILE[0])))
    content = first.find(".//meta[@http-equiv='Content-Security-Policy']").attrib["content"]

    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (element,) = first.iter(tag)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in content
        assert [each.text for each in second.iter(tag)] == [element.text]
    assert content.startswith("default-src 'none';")
    assert "unsafe" not in content


def test_every_word_has_its_time_and_the_unsure_ones_are_marked():
    """A segment without words has the time of its start; a paragraph has that of its first sentence."""
    spoken = (
        Segment(1.0, 2.0, " Good day.", words=(Word(1.0, 1.4, " Good", 0.9), Word(1.4, 2.0, " day.", 0.31))),
        Segment(2.0, 3.0, " Hm.", avg_logprob=-1.5),
        Segment(3.0, 4.0, " Yes.", avg_logprob=-0.2),
    )

    tree = parsed(page(Transcript("", spoken, "en"), about()))

    rows = classes(tree, "s")
    assert [(row.attrib["data-s"], text_of(classes(row, "x")[0])) for row in rows] == [("1", "Good day. Hm. Yes.")]
    assert [(each.attrib["data-s"], text_of(each)) for each in classes(tree, "q")] == [
        ("1", "Good day."), ("2", "Hm."), ("3", "Yes."),
    ]  # fmt: skip
    assert [[word.attrib["data-s"] for word in each] for each in classes(tree, "q")] == [["1", "1.4"], ["2"], ["3"]]
    unsure = [(text_of(each), each.attrib.get("title")) for row in rows for each in classes(row, "low")]
    assert unsure == [("day.", "31 % sure"), ("Hm.", None)]


def test_parts_in_several_languages_are_named():
    """Where the language changes, the page says so; a screen reader reads each part in its language."""
    spoken = tuple(
        Segment(float(start), start + length, text, language=language)
        for start, length, text, language in ((0, 1, " Yes.", "en"), (1, 5, " Ja.", "de"), (6, 1, " Nein.", "de"))
    )

    tree = parsed(page(Transcript("", spoken, "en"), about()))

    assert [classes(row, "x")[0].attrib["lang"] for row in classes(tree, "s")] == ["en", "de"]
    assert [each.attrib["data-language"] for each in tree.iter() if "data-language" in each.attrib] == [
        "de", "en",  # all of it, most first
        "en", "de",
    ]  # fmt: skip


def test_silence_is_said_to_be_silence():
    """A page without text would look like one that is broken."""
    tree = parsed(page(transcript(()), about()))

    assert text_of(classes(tree, "silence")[0]) == "Nothing is said in this recording."


def test_a_speaker_is_named_where_the_turn_changes():
    """And not again for each sentence."""
    tree = parsed(page(transcript(speakers=("Anna", "Anna", "Ben", "Ben", "Anna")), about()))

    assert [(each.text, each.attrib["class"]) for each in classes(tree, "who")] == [
        ("Anna", "who w0"), ("Ben", "who w1"), ("Anna", "who w0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("language", "task", "expected"),
    [("ar", "transcribe", "ar"), ("jw", "transcribe", "jv"), ("fr", "translate", "en"), ('"><b>', "transcribe", "")],
)
def test_the_text_is_marked_with_its_language(language, task, expected):
    """For screen readers, hyphenation and fonts; of a translation that is English."""
    tree = parsed(page(transcript(language=language), about(task=task)))

    assert tree.find(".//main").attrib["lang"] == expected


def test_times_that_are_none_do_no_harm():
    """NaN, infinity and negative times come out of broken alignments."""
    nan, inf = float("nan"), float("inf")
    spoken = (Segment(nan, inf, " a", words=(Word(-inf, nan, " a", nan),)), Segment(-1.0, -2.0, " b", avg_logprob=nan))

    tree = parsed(page(Transcript("", spoken, "en"), about(duration_seconds=nan)))

    assert [row.attrib["data-s"] for row in classes(tree, "s")] == ["0"]
    assert text_of(classes(tree, "x")[0]) == "a b"


@pytest.mark.parametrize("texts", [(), (" ", "\n")])
def test_a_recording_without_speech_says_so(texts):
    """An empty page would look broken."""
    tree = parsed(page(transcript(texts), about()))

    assert classes(tree, "s") == []
    assert "Nothing is said" in text_of(tree.find(".//main"))


@pytest.mark.parametrize(
    ("place", "tag"), [("a.mp3", "audio"), ("a.MP4", "video"), ("a", "audio"), ("a.mp4/b", "audio")]
)
def test_a_film_gets_a_picture(place, tag):
    """Anything else is heard only."""
    assert parsed(page(transcript(), about(place))).find(".//*[@id='media']").tag == tag


def test_the_picture_does_not_grow_with_the_recording():
    """Twelve hours cost no more of the page than a minute."""

    def picture(count):
        spoken = transcript(SENTENCES * count, with_words=False, avg_logprob=-2.0)
        rendered = page(spoken, about(duration_seconds=10.0 * count)).decode()
        return rendered[rendered.index('<svg viewBox="0 0 1200') : rendered.index('<div id="played">')]

    assert len(picture(4000)) < 30_000
    assert 'class="doubts"' in picture(4)


def test_the_place_of_the_original_is_the_only_relative_link():
    """So that `spool/publish.py` finds it and nothing else, whatever is said."""
    link = original_url("b/x.wav")
    said = f'="{link}" src="../done/evil" href=../done/evil'

    rendered = page(transcript((said,)), about("b/x.wav", title=said)).decode()

    assert set(re.findall(r'="((?:\.\./)+done/[^"]*)"', rendered)) == {link}


def test_gaps_are_named_where_they_are():
    """A reader sees where something may be missing, and can listen to it there."""
    gaps = [{"from": 2.0, "to": 4.5, "why": "silence"}, {"from": 9.0, "to": 12.0, "why": "loop"}]
    spoken = (Segment(0.0, 2.0, " One."), Segment(5.0, 9.0, " Two."))

    tree = parsed(page(Transcript("", spoken, "en", quality={"gaps": gaps}), about()))

    lines = [
        (each.attrib["class"].split()[0], text_of(each))
        for each in tree.iter("p")
        if each.attrib.get("class", "").split()[:1] in (["s"], ["gap"])
    ]
    assert [kind for kind, _ in lines] == ["s", "gap", "s", "gap"]
    assert lines[1][1] == "0:02\u20130:04: taken for silence"
    assert lines[3][1] == "0:09\u20130:12: the text repeats itself"
