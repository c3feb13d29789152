"""Corrections on the transcript page, in a real Chromium: made with the keyboard, kept, saved, and followed by the daemon."""

import json
import shutil

import pytest
from support.browser import Sight, chromium
from support.daemon import Daemon, tone
from support.pages import HOSTILE, SENTENCES, about, transcript

from whisperd.core.options import OutputOptions
from whisperd.intake.ticket import parse
from whisperd.output.formats import render

CUES = ".cue textarea"
FOCUSED = "document.activeElement.value"
SPEAKERS = ("Anna", "Anna", "Ben", "Ben", "Anna")


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


def write(folder, spoken, place="alice/talk.wav", formats=("html", "json", "txt")):
    """A page in its outbox, and the recording in done/; returns the page and the files of its formats."""
    files = render(spoken, OutputOptions(formats=formats), about(place))
    target = (folder / "outbox" / place).with_suffix(".html")
    target.parent.mkdir(parents=True)
    target.write_bytes(files["html"])
    tone(folder / "done" / place, seconds=10.0)
    return target, files


@pytest.fixture
def talk(tmp_path):
    return write(tmp_path, transcript(speakers=SPEAKERS))[0]


def cues(sight):
    return sight.page.locator(CUES).evaluate_all("fields => fields.map((field) => field.value)")


def saved(sight, folder, act):
    """The file that the page gives, under the name that it gives it."""
    with sight.page.expect_download() as download:
        act()
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def save(sight, folder):
    return saved(sight, folder, lambda: sight.page.keyboard.press("Control+s"))


@pytest.mark.parametrize("width", [360, 1440])
def test_everything_is_corrected_with_the_keyboard(browser, talk, tmp_path, width):
    """Text, split, join, a speaker's name; undone and done again; and the file says exactly that."""
    with Sight(browser, talk, viewport={"width": width, "height": 740}) as sight:
        press, write_text = sight.page.keyboard.press, sight.page.keyboard.type
        press("e")
        assert cues(sight) == list(SENTENCES)
        assert sight.page.evaluate(FOCUSED) == SENTENCES[0]
        write_text("Well: ")
        for _ in SENTENCES[0]:
            press("ArrowRight")
        press("ArrowDown")
        for _ in "Ask not":
            press("ArrowRight")
        press("Enter")
        assert cues(sight)[1:3] == ["Ask not", "what your country can do for you."]
        press("End")
        press("Control+z")
        assert cues(sight)[1:3] == list(SENTENCES[1:3])
        press("Control+y")
        assert cues(sight)[1:3] == ["Ask not", "what your country can do for you."]
        sight.page.locator(CUES).nth(4).focus()
        press("Home")
        press("Backspace")
        assert cues(sight)[3] == f"{SENTENCES[2]} {SENTENCES[3]}"
        press("Shift+Tab")
        press("Enter")
        write_text("Benno")
        press("Enter")
        sight.until("[...document.querySelectorAll('.by')].some((each) => each.textContent === 'Benno')")
        assert sight.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

        ticket = parse("talk.wav.correction.yaml", save(sight, tmp_path).read_bytes())
        digest = sight.page.locator("#transcript").get_attribute("data-transcript")
        assert ticket.problems == ()
        assert ticket.values == {
            "correction": True,
            "transcript": digest,
            "recording": "talk.wav",
            "speakers": {"Ben": "Benno"},
            "segments": (
                {"id": "0", "text": f"Well: {SENTENCES[0]}"},
                {"id": "1", "text": "Ask not"},
                {"id": "1", "text": "what your country can do for you."},
                {"id": "2-3"},
            ),
        }
        assert "inbox/alice/" in sight.texts("#said")[0]
        press("Escape")
        assert sight.texts(".s .x")[0] == f"Well: {SENTENCES[0]} {SENTENCES[1]}"
        assert sight.texts(".who") == ["Anna", "Benno", "Anna"]
        assert sight.complaints == []


def test_corrections_are_kept_until_the_transcript_changes(browser, talk, tmp_path):
    """After a reload they are there, also for reading; those of another transcript are not; undone to the last, nothing is kept."""
    with Sight(browser, talk) as sight:
        press = sight.page.keyboard.press
        press("e")
        sight.page.keyboard.type("Well ")
        press("Control+Delete")
        sight.page.locator(CUES).nth(1).focus()
        sight.page.get_by_role("button", name="Remove").click()
        sight.page.reload()
        assert sight.texts(".s .x")[0] == "Well so, my fellow Americans."
        assert "only this browser has" in sight.texts("#kept")[0]
        press("e")
        assert cues(sight) == ["Well  so, my fellow Americans.", *SENTENCES[2:]]
        sight.page.locator(CUES).nth(0).fill(SENTENCES[0])
        kept = talk.read_bytes()
        talk.write_bytes(kept.replace(b'data-key="', b'data-key="f'))
        sight.page.reload()
        assert sight.texts(".s .x")[0] == f"{SENTENCES[0]} {SENTENCES[1]}"
        press("e")
        sight.page.keyboard.type("x")
        press("Control+z")
        assert sight.page.evaluate("Object.keys(localStorage).length") == 1
        assert sight.complaints == []


def test_the_page_saves_transcripts_itself(browser, talk, tmp_path):
    """With the corrections, in four formats that others can read; a cue that is split or joined keeps its times."""
    with Sight(browser, talk) as sight:
        sight.page.keyboard.press("e")
        sight.page.keyboard.type("Well ")
        texts = {
            kind: saved(sight, tmp_path, sight.page.locator(f"[data-as={kind}]").click).read_text()
            for kind in ("txt", "srt", "vtt", "md")
        }

        assert sight.complaints == []
    assert texts["txt"].splitlines()[0] == f"Anna: Well {SENTENCES[0]} {SENTENCES[1]}"
    assert texts["srt"].split("\n\n")[0] == f"1\n00:00:00,000 --> 00:00:02,000\nAnna: Well {SENTENCES[0]}"
    assert texts["vtt"].startswith(f"WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n<v Anna>Well {SENTENCES[0]}\n")
    assert "**0:04 Ben:** " in texts["md"]


def test_hostile_texts_and_a_hostile_store_run_nothing(browser, tmp_path):
    """Whatever is said, typed, or kept in the browser by another page: it is text."""
    target, _ = write(tmp_path, transcript(HOSTILE, speakers=HOSTILE))
    with Sight(browser, target) as sight:
        sight.page.keyboard.press("e")
        shown = cues(sight)
        assert len(shown) == len(HOSTILE)
        for field in sight.page.locator(CUES).all():
            field.fill(f"{HOSTILE[2]} {HOSTILE[0]}")
        ticket = parse("a.correction.yaml", save(sight, tmp_path).read_bytes())
        assert {entry["text"] for entry in ticket.values["segments"]} == {f"{HOSTILE[2]} {HOSTILE[0]}"}
        sight.page.keyboard.press("Escape")
        assert sight.texts(".q") == [f"{HOSTILE[2]} {HOSTILE[0]}"] * len(HOSTILE)
        key = sight.page.evaluate("Object.keys(localStorage)[0]")
        for kept in (
            "{",
            "[]",
            json.dumps({"groups": [{"first": 0, "last": 1e9, "cues": [{}]}], "names": {"__proto__": HOSTILE[0]}}),
            json.dumps({"groups": [{"first": "0", "last": 0, "cues": []}], "names": {HOSTILE[0]: 5}}),
            json.dumps({"groups": [], "names": {HOSTILE[3]: "<img src=x>"}}),
        ):
            sight.page.evaluate("([key, kept]) => localStorage.setItem(key, kept)", [key, kept])
            sight.page.reload()
            assert sight.page.locator(".s").count() == len(HOSTILE)
        assert not sight.page.locator("main img, main script, #cues img").count()
        assert sight.complaints == []


def test_without_json_only_the_text_is_saved(browser, tmp_path):
    """And the page says why."""
    target, _ = write(tmp_path, transcript(), formats=("html",))
    with Sight(browser, target) as sight:
        sight.page.keyboard.press("e")
        sight.page.keyboard.type("x")
        sight.page.keyboard.press("Control+s")

        assert sight.texts("#said") == ["There is no json of this recording to be corrected: save the text as it is"]


def test_a_saved_file_in_the_inbox_corrects_the_transcripts(browser, tmp_path):
    """From the page of a running daemon and back; what somebody changed stays; the same file again is refused as stale."""
    root = tmp_path / "spool"
    settings = {
        "output": {"formats": ["txt", "srt", "json", "html"]},
        "transcription": {"word_timestamps": True},
    }
    with Daemon(root, settings) as daemon:
        tone(daemon.inbox / "b/a.wav", seconds=3.0)
        daemon.wait((daemon.done / "b/a.wav").exists, what="the end")
        (daemon.outbox / "b/a.srt").write_text("mine")
        with Sight(browser, daemon.outbox / "b/a.html") as sight:
            sight.page.keyboard.press("e")
            sight.page.keyboard.type("Truly ")
            ticket = save(sight, tmp_path)
            assert sight.complaints == []
        assert ticket.name == "a.wav.correction.yaml"
        shutil.copyfile(ticket, daemon.inbox / "b/a.wav.correction (1).yaml")  # a second download of that name
        document = daemon.wait(
            lambda: (found := daemon.sidecar("b/a.wav")) and found["corrections"] and found, what="the correction"
        )
        daemon.wait((daemon.done / "b/a.wav.correction (1).yaml").exists, what="the file in done/")

        assert (daemon.outbox / "b/a.txt").read_text().startswith("Truly scripted 3.00 s")
        assert (daemon.outbox / "b/a.srt").read_text() == "mine"
        assert "Truly scripted" in (daemon.outbox / "b/a-2.srt").read_text()
        assert document["corrections"][0]["segments"] == 1
        segment = json.loads((daemon.outbox / "b/a.json").read_bytes())["segments"][0]
        assert (segment["edited"], segment["words"][0]["word"].strip()) == (True, "Truly")
        with Sight(browser, daemon.outbox / "b/a.html") as sight:
            assert sight.texts(".s .x")[0].startswith("Truly scripted 3.00 s")
            assert sight.texts("#kept") == [""]

        before = {path.name: path.read_bytes() for path in (daemon.outbox / "b").iterdir()}
        shutil.copyfile(ticket, daemon.inbox / "b/a.wav.correction.yaml")
        refused = daemon.wait(
            lambda: (
                (found := daemon.sidecar("b/a.wav.correction.yaml"))
                and "another transcript" in (found["reason"] or "")
                and found
            ),
            what="the refusal",
        )
        assert "it was made already" in refused["reason"]
        after = {path.name: path.read_bytes() for path in (daemon.outbox / "b").iterdir()}
        assert {name: after[name] for name in before} == before
        assert daemon.stop() == 0
