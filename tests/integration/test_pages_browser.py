"""The pages as a person uses them: opened from the disk in a real Chromium, played, searched, read and printed."""

import re

import pytest
from support.browser import Sight, chromium
from support.daemon import Daemon, tone
from support.pages import HOSTILE, SENTENCES, STEP_SECONDS, about, page, transcript

from whisperd.listeners.overview_html import Overview, Row, RowList, render

PLACE = 'alice/a "talk" & <b>?#1%.wav'
AT = "2026-01-02T03:04:05.678Z"
TIME = "document.getElementById('media').currentTime"
NOW = ".q.at"
PARAGRAPHS = (SENTENCES[:2], SENTENCES[2:4], SENTENCES[4:])  # of Anna, Ben and Anna


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Put a page where the daemon would, with its recording next door unless told otherwise."""
    root = tmp_path_factory.mktemp("spool")

    def write(spoken, place=PLACE, *, recording=True, **changes):
        original = root / "done" / place
        if recording and not original.exists():
            tone(original, seconds=STEP_SECONDS * len(SENTENCES))
        target = (root / "outbox" / place).with_suffix(".html")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(page(spoken, about(place, **changes)))
        return target

    return write


@pytest.fixture(scope="module")
def talk(write):
    return write(transcript(speakers=("Anna", "Anna", "Ben", "Ben", "Anna")))


def original(talk):
    return next((talk.parents[2] / "done/alice").iterdir()).as_uri()


def test_a_click_on_a_word_plays_it_and_the_text_follows(browser, talk):
    """Nothing is asked for but the page and the recording next door, and the policy has nothing to complain about."""
    with Sight(browser, talk) as sight:
        sight.until("document.getElementById('media').readyState > 0")
        sight.page.locator(".q").nth(3).locator("span").nth(1).click()
        sight.until(f"{TIME} > {3 * STEP_SECONDS + 1.05} && !document.getElementById('media').paused")
        first = sight.texts(NOW)
        sight.until(f"{TIME} > {4 * STEP_SECONDS}")
        sight.until("document.querySelector('.q.at span.now')")
        second = sight.texts(NOW)

        assert (first, second) == ([SENTENCES[3]], [SENTENCES[4]])
        assert set(sight.requests) == {talk.as_uri(), original(talk)}
        assert sight.complaints == []


def test_everything_can_be_done_with_the_keyboard(browser, talk):
    """Space, arrows, j, k, u, c and the list of them."""
    with Sight(browser, talk) as sight:
        sight.until("document.getElementById('media').readyState > 0")
        press = sight.page.keyboard.press
        press("j")
        press("j")
        assert sight.texts(NOW) == [SENTENCES[2]]
        press("k")
        assert sight.texts(NOW) == [SENTENCES[1]]
        press("ArrowRight")
        assert sight.page.evaluate(TIME) == pytest.approx(STEP_SECONDS + 5, abs=0.1)
        press("ArrowLeft")
        press("u")
        assert sight.texts(".q.at span.now") == ["table."]
        press(">")
        assert sight.page.evaluate("document.getElementById('media').playbackRate") == 1.25
        press(" ")
        sight.until("!document.getElementById('media').paused")
        press(" ")
        sight.until("document.getElementById('media').paused")
        press("?")
        assert sight.page.locator("#keys").is_visible()
        press("Escape")
        press("Tab")
        assert sight.page.evaluate("document.activeElement.className") == "skip"
        assert sight.complaints == []


def test_search_finds_words_across_their_marks_and_without_accents(browser, talk):
    """The count is said, enter goes on, escape ends it."""
    with Sight(browser, talk) as sight:
        sight.page.keyboard.press("/")
        sight.page.keyboard.type("what YOU can")
        assert sight.texts("#found") == ["1"]
        sight.page.keyboard.press("Escape")
        sight.page.keyboard.press("/")
        sight.page.keyboard.type("what")
        sight.page.keyboard.press("Enter")
        sight.page.keyboard.press("Enter")
        assert sight.texts("#found") == ["2 of 2"]
        assert len(sight.texts(".s.hit")) == 2  # the paragraphs of the two
        sight.page.locator("#find").fill("resume is")
        assert sight.texts(".s.hit .x") == [" ".join(SENTENCES[2:4])]
        sight.page.locator("#find").fill("<b>")
        assert sight.texts("#found") == ["none"]
        assert sight.complaints == []


def test_text_is_copied_whole_by_paragraph_and_by_sentence(browser, talk):
    """In paragraphs, with the speaker, and with the time."""
    with Sight(browser, talk, permissions=["clipboard-read", "clipboard-write"]) as sight:
        pasted = "navigator.clipboard.readText()"
        sight.page.locator("#copy").click()
        sight.until("document.getElementById('said').textContent")
        assert sight.page.evaluate(pasted).splitlines() == [
            f"Anna: {SENTENCES[0]} {SENTENCES[1]}",
            "",
            f"Ben: {SENTENCES[2]} {SENTENCES[3]}",
            "",
            f"Anna: {SENTENCES[4]}",
        ]
        sight.page.locator(".s").nth(1).hover()
        sight.page.locator("#copy-one").click()
        sight.until("document.getElementById('said').textContent.startsWith('Paragraph')")
        assert sight.page.evaluate(pasted) == f"[0:04] Ben: {SENTENCES[2]} {SENTENCES[3]}"
        for key in "jjjc":
            sight.page.keyboard.press(key)
        sight.until("document.getElementById('said').textContent.startsWith('Sentence')")
        assert sight.page.evaluate(pasted) == f"[0:06] Ben: {SENTENCES[3]}"
        assert sight.complaints == []


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_hostile_words_and_names_are_shown_and_run_nothing(browser, write, scripts):
    """Whatever is said, and whatever the file and the speakers are called."""
    place = "'\"><script>document.title=`run`<!--.wav".replace("/", "")
    target = write(transcript(HOSTILE, speakers=HOSTILE), place, title=HOSTILE[1])
    with Sight(browser, target, java_script_enabled=scripts) as sight:
        shown = sight.texts(".s .x")

        assert [re.sub(r"[\s\ufffd]+", " ", text) for text in shown] == [
            re.sub(r"[\s\x00-\x1f\u202e]+", " ", text) for text in HOSTILE
        ]
        assert sight.page.title() == HOSTILE[1]
        assert {request.split("/")[-2] for request in sight.requests} <= {"outbox", "done"}
        assert sight.complaints == []


def test_without_scripts_it_is_a_text_with_a_player(browser, talk):
    """Nothing that would not work is shown."""
    with Sight(browser, talk, java_script_enabled=False) as sight:
        assert sight.texts(".s .x") == [" ".join(each) for each in PARAGRAPHS]
        assert sight.page.locator("#media").is_visible()
        assert not sight.page.locator("button:visible, input:visible").count()
        assert sight.page.locator("svg[role=img]").is_visible()


def test_a_recording_that_is_not_there_is_explained(browser, write):
    """The text still works: j goes on."""
    target = write(transcript(), "lost.wav", recording=False)
    with Sight(browser, target) as sight:
        sight.page.locator("#trouble").wait_for(state="visible", timeout=10_000)
        sight.page.keyboard.press("j")
        sight.page.keyboard.press("j")

        assert sight.texts(NOW) == [SENTENCES[2]]


def test_an_address_with_a_time_opens_there(browser, talk):
    """A link to a sentence can be sent around."""
    with Sight(browser, talk, fragment="#t=4.5") as sight:
        sight.until(f"{TIME} == 4.5")

        assert sight.texts(NOW) == [SENTENCES[2]]


def test_arabic_and_hebrew_run_from_right_to_left(browser, write):
    """Line by line, and the timeline does not turn around."""
    target = write(
        transcript(("שלום עולם", "Hello", "مرحبا"), language="he", speakers="abc"), "rtl.wav", recording=False
    )
    with Sight(browser, target) as sight:
        directions = [
            sight.page.locator(".s .x").nth(number).evaluate("element => getComputedStyle(element).direction")
            for number in range(3)
        ]

        assert directions == ["rtl", "ltr", "rtl"]
        assert sight.page.locator("#track").evaluate("element => getComputedStyle(element).direction") == "ltr"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_it_is_legible_by_day_and_by_night_on_any_screen(browser, talk, scheme, width):
    """Contrast of 4.5 at least (WCAG 2.2, 1.4.3), nothing to scroll sideways."""
    with Sight(browser, talk, color_scheme=scheme, viewport={"width": width, "height": 800}) as sight:
        contrasts = sight.page.evaluate(CONTRASTS)

        assert min(contrasts.values()) >= 4.5, contrasts
        assert sight.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  for (const selector of ["h1", ".facts", ".x", ".t", "h2.w0", "h2.w1", "#play", "#follow", "#copy", "footer p", "#clock", ".soft"]) {
    const element = document.querySelector(selector);
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    found[selector] = (a + 0.05) / (b + 0.05);
  }
  return found;
}"""


def test_it_prints_as_text(browser, talk):
    """Without controls, with every sentence."""
    with Sight(browser, talk, color_scheme="dark") as sight:
        assert sight.page.pdf(format="A4").startswith(b"%PDF")
        sight.page.emulate_media(media="print")

        assert not sight.page.locator("button:visible, input:visible, audio:visible").count()
        assert sight.page.locator(".q:visible").count() == len(SENTENCES)
        assert sight.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_overview_reads_itself_again_and_shows_names_as_they_are(browser, tmp_path):
    """By the meta element alone, which no policy forbids; no script runs and nothing else is asked for."""
    path = tmp_path / "index.html"

    def overview(percent):
        rows = tuple(Row(text, note=text, hint=text, links=(("html", "a.html"), ("txt", "a.txt"))) for text in HOSTILE)
        part = RowList(rows, len(rows))
        return render(Overview("s", "w", RowList((Row("r", percent=percent),), 1), part, part, part), at=AT)

    path.write_bytes(overview(10.0))
    with Sight(browser, path, java_script_enabled=True) as sight:
        names = sight.texts("#failed .name")
        path.write_bytes(overview(90.0))
        sight.page.wait_for_selector("progress[value='90.0']", timeout=10_000)

        assert len(names) == len(HOSTILE)
        assert set(sight.requests) == {path.as_uri()}
        assert sight.complaints == []
        assert not sight.page.title().startswith("run")


def test_the_daemon_s_pages_open_by_double_click(browser, tmp_path):
    """From the overview to the page to the recording in done/, under the name that the job got in the end."""
    name = 'interview & "Ben" #1.wav'
    with Daemon(
        tmp_path / "spool", {"output": {"formats": ["txt", "html"]}, "transcription": {"word_timestamps": True}}
    ) as daemon:
        (daemon.outbox / "b").mkdir(parents=True)
        (daemon.outbox / "b" / 'interview & "Ben" #1.txt').write_text("somebody else's")
        tone(daemon.inbox / "b" / name, seconds=3.0)
        daemon.wait((daemon.done / "b" / 'interview & "Ben" #1-2.wav').exists, what="the transcript")
        index = daemon.outbox / "index.html"
        daemon.wait(lambda: "#1-2.html" in index.read_text() or "%231-2.html" in index.read_text(), what="the overview")
        with Sight(browser, index) as sight:
            sight.page.locator("#done .name a").click()
            sight.page.wait_for_selector(".s")
            sight.until("document.getElementById('media').duration > 2.9")
            said = sight.texts(".s .x")

            assert said[0].startswith("scripted 3.00 s")
            assert sight.complaints == []
        assert daemon.stop() == 0
        assert "whisperd is not running" in index.read_text()
