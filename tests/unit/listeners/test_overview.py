"""The overview in outbox/index.html: what it shows, how often it is written, and what it leaves alone."""

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pages import HOSTILE
from support.spool import FAILURE, Spool, result

from whisperd.core import events
from whisperd.core.job import Failure, Phase
from whisperd.daemon.admission import EmittingExplainer
from whisperd.daemon.jobs import Jobs
from whisperd.listeners.overview import EVERY_SECONDS, OverviewPage
from whisperd.listeners.overview_html import SHOWN, Overview, Row, RowList, render
from whisperd.protocol import Heartbeat
from whisperd.settings import config

TEXTS = st.text(max_size=60) | st.sampled_from(HOSTILE)
AT = "2026-01-02T03:04:05.678Z"


def parsed(page):
    return html5lib.parse(page, namespaceHTMLElements=False, transport_encoding="utf-8")


def text_of(element):
    return " ".join("".join(element.itertext()).split())


class Lab:
    """An overview page over a spool, with the jobs of a supervisor, and a clock in hand."""

    def __init__(self, root):
        self.spool = Spool(root)
        self.page = self.spool.layout.outbox / "index.html"
        self.now = 100.0
        self.restart()

    def restart(self):
        self.emitter = events.Emitter()
        self.arriving = 0
        self.devices = ()
        self.overview = OverviewPage(
            self.spool.layout,
            self.emitter,
            lambda: self.jobs.registry.snapshot(arriving=self.arriving),
            lambda: self.devices,
        )
        self.explanations = EmittingExplainer(self.spool.store, self.emitter)
        self.configure(on=True)
        self.jobs = Jobs(self.spool.store, self.emitter, max_attempts=3, retry_seconds=30.0)

    def configure(self, *, on):
        settings = config.validate({"root": str(self.spool.layout.root), "pages": {"index": on}}, source="test")
        self.overview.configure(settings)

    def tick(self, seconds=EVERY_SECONDS, arriving=0):
        """Let time pass; returns when the page wants to be looked after again."""
        self.now += seconds
        self.arriving = arriving
        while self.overview._reading is not None:
            self.overview.tick(self.now)
        return self.overview.tick(self.now)

    def claim(self, name):
        job = self.spool.take(name)
        self.emitter.emit(events.JobClaimed(job, 0.0))
        self.jobs.admit(job)
        return job

    def start(self, name):
        self.claim(name)
        return self.jobs.start(next(self.jobs.registry.candidates()).job, 1, self.now)

    def finish(self, name):
        job = self.start(name)
        self.spool.render(job)
        self.jobs.finished(job.id, result(), self.now)

    def fail(self, name, failure=FAILURE):
        self.jobs.reject(self.spool.take(name), failure, self.now)

    def section(self, key):
        """The rows of one list, as text."""
        found = parsed(self.page.read_bytes()).find(f".//section[@id='{key}']")
        return [] if found is None else [text_of(row) for row in found.iter("li")]

    def links(self, key):
        return [link.attrib["href"] for link in parsed(self.page.read_bytes()).findall(f".//section[@id='{key}']//a")]


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "spool")


@given(name=TEXTS, note=TEXTS, hint=TEXTS, warning=TEXTS)
@settings(max_examples=60, deadline=None)
def test_no_name_and_no_reason_becomes_markup(name, note, hint, warning):
    """The page has the elements of one with harmless words."""

    def structure(*texts):
        row = Row(
            f"x{texts[0]}", note=f"x{texts[1]}", hint=f"x{texts[2]}", percent=1.0, links=(("txt", "a"), ("srt", "b"))
        )
        part = RowList((row,), 1)
        page = render(Overview(f"x{texts[3]}", f"x{texts[3]}", part, part, part, part), at=AT)
        return [(str(element.tag), sorted(element.attrib)) for element in parsed(page).iter()]

    assert structure(name, note, hint, warning) == structure("a", "b", "c", "d")


def test_each_job_stands_where_it_is(lab):
    """One that runs with its progress, one that waits with its place, one that is done, one that failed with the remedy."""
    lab.finish("alice/done #1.wav")
    lab.fail("bad.wav")
    running = lab.start("running.wav")
    lab.claim("waiting.wav")
    lab.jobs.heard(Heartbeat(running.id, Phase.TRANSCRIBING, 0.0, 100.0), lab.now)
    lab.jobs.heard(Heartbeat(running.id, Phase.TRANSCRIBING, 40.0, 100.0), lab.now + 4)

    lab.tick()

    assert lab.section("running") == ["running.wav40 % · x10.0 · 6 s left"]
    assert parsed(lab.page.read_bytes()).find(".//progress").attrib["value"] == "40.0"
    assert lab.section("waiting") == ["waiting.wav1. in the queue"]
    assert [
        row.startswith("bad.wav") and FAILURE.message in row and FAILURE.hint in row for row in lab.section("failed")
    ] == [True]
    assert lab.section("done")[0].startswith("alice/done #1.wav")
    assert set(lab.links("done")) == {"alice/done%20%231.txt", "alice/done%20%231.json"}


def test_links_lead_to_the_transcripts(lab):
    """Also where the name is none that UTF-8 could hold, or is a trap."""
    names = ["a b?.wav", "%41.wav", "javascript:x.wav", "\udcff.wav", "back\\slash.wav"]
    for name in names:
        lab.finish(name)
    lab.tick()
    first = sorted(lab.links("done"))
    lab.restart()
    lab.tick()

    assert sorted(lab.links("done")) == first
    assert len(set(first)) == 2 * len(names)
    assert {"a%20b%3F.txt", "%2541.txt", "javascript%3Ax.txt", "%FF.txt", "back%5Cslash.txt"} < set(first)


def test_files_in_the_inbox_stand_there_with_their_reason(lab):
    """And no longer once they are claimed or gone."""
    place = lab.explanations.explain("big.wav", 10, "still open for writing")
    lab.tick(arriving=1)
    assert lab.section("waiting") == ["big.wavstill open for writing"]
    lab.explanations.unexplain(place)
    lab.tick()

    assert lab.section("waiting") == []


def test_a_failed_file_that_is_tried_again_has_not_failed(lab):
    """Moved back from failed/, it is claimed at its old place."""
    lab.fail("a.wav")
    lab.tick()
    assert len(lab.section("failed")) == 1
    (lab.spool.layout.failed / "a.wav").rename(lab.spool.layout.inbox / "a.wav")
    job = lab.spool.claim("a.wav")
    lab.emitter.emit(events.JobClaimed(job, 0.0))
    lab.jobs.admit(job)
    lab.tick()

    assert lab.section("failed") == []
    assert len(lab.section("waiting")) == 1


def test_an_attempt_that_failed_is_explained_until_the_next(lab):
    """Between two tries the job is neither in the queue nor running."""
    job = lab.start("a.wav")
    lab.jobs.attempt_failed(job.id, Failure("engine", "it broke", "mend it", retryable=True), lab.now)
    lab.tick(0.5)
    assert lab.section("waiting") == ["a.wavattempt failed, it broke; it is tried againmend it"]
    lab.jobs.tick(lab.now + 60)
    lab.jobs.start(next(lab.jobs.registry.candidates()).job, 1, lab.now)
    lab.tick()

    assert (lab.section("waiting"), len(lab.section("running"))) == ([], 1)


def test_a_restart_shows_the_same(lab):
    """What earlier daemons did is read from the status files; what a person wrote there does no harm."""
    lab.finish("b/a.wav")
    lab.fail("bad.wav")
    lab.tick()
    before = lab.section("done"), lab.section("failed")
    for number, content in enumerate(["{}", "[]", '{"schema": 1, "id": 1, "status": "failed", "original": 1}', "\x00"]):
        lab.spool.put(f"outbox/{number}.status.json", content.encode())

    lab.restart()
    lab.tick()

    assert (lab.section("done"), lab.section("failed")) == before


def test_the_page_is_bounded_and_counts_the_rest(lab):
    """The newest are shown."""
    for number in range(2 * SHOWN + 10):
        document = {"status": "completed", "name": f"{number}.wav", "finished_at": f"2026-01-01T00:00:{number:06}Z"}
        lab.overview._add(f"{number}.wav", document | {"duration_seconds": 1.0, "language": "en", "outputs": {}})
    lab.tick()

    assert len(lab.section("done")) == SHOWN
    assert lab.section("done")[0].startswith(f"{2 * SHOWN + 9}.wav")
    assert f"and {SHOWN + 10} more" in text_of(parsed(lab.page.read_bytes()).find(".//section[@id='done']"))


def test_a_storm_of_events_is_one_write_a_second(lab):
    """And the last of them is not lost."""
    lab.tick()
    written = set()
    for number in range(100):
        lab.explanations.explain(f"{number}.wav", 1, "changed 0 s ago")
        due = lab.tick(0.01, arriving=number + 1)
        written.add(lab.page.stat().st_ino)
    lab.tick(due - lab.now, arriving=100)

    assert len(written) <= 2
    assert len(lab.section("waiting")) == SHOWN
    assert "99.wav" in lab.page.read_text() or "100 waiting" in text_of(parsed(lab.page.read_bytes()))


def test_an_idle_daemon_writes_nothing(lab):
    """Nothing has changed."""
    lab.tick()
    inode = lab.page.stat().st_ino

    assert lab.tick(3600.0) == float("inf")
    assert lab.page.stat().st_ino == inode


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "dangling"])
def test_what_is_not_ours_is_left_alone(lab, caplog, kind):
    """A user's own index.html stays, whatever it is; the journal says so once."""
    other = lab.spool.put("outbox/other.html", b"<h1>mine</h1>")
    match kind:
        case "file":
            lab.page.write_bytes(b"<h1>mine</h1>")
        case "directory":
            lab.page.mkdir()
        case "symlink":
            lab.page.symlink_to("other.html")
        case "dangling":
            lab.page.symlink_to("nowhere")
    before = lab.page.lstat()
    for _ in range(3):
        lab.overview.hear(events.ClaimsResumed())
        lab.tick(60.0)

    assert lab.page.lstat() == before
    assert other.read_bytes() == b"<h1>mine</h1>"
    assert sum("index.html" in line for line in caplog.messages) == 1


def test_off_means_off(lab):
    """With pages.index: false nothing is written, and nothing read."""
    lab.configure(on=False)
    lab.finish("a.wav")
    lab.tick()
    lab.overview.close()

    assert not lab.page.exists()


def test_a_pause_is_announced_and_the_end_too(lab):
    """With its remedy."""
    lab.emitter.emit(events.ClaimsPaused("the disk is nearly full", "make room"))
    lab.tick()
    assert "the disk is nearly full; make room" in text_of(parsed(lab.page.read_bytes()))
    lab.emitter.emit(events.ClaimsResumed())
    lab.overview.close()

    assert "nearly full" not in lab.page.read_text()
    assert "whisperd is not running" in lab.page.read_text()


def test_folders_that_cannot_be_read_are_named_above_the_lists(lab):
    """However many files wait: a row among them is not seen."""
    for number in range(5):
        lab.emitter.emit(events.UploadRefused(f"dir{number}", "it cannot be read: Input/output error", is_unread=True))
    lab.tick()
    banner = text_of(parsed(lab.page.read_bytes()).find(".//p[@class='banner']"))
    assert "inbox/dir0: it cannot be read: Input/output error." in banner
    assert "2 more cannot be read" in banner

    for number in range(5):
        lab.emitter.emit(events.ReadableAgain(f"dir{number}"))
    lab.tick()
    assert parsed(lab.page.read_bytes()).find(".//p[@class='banner']") is None


def test_a_device_that_is_out_of_service_is_named(lab):
    """With the reason; one that works is not worth a line."""
    lab.devices = (events.DeviceVitals("cuda:0", "", 1), events.DeviceVitals("cuda:1", "", 1, "CUDA error"))
    lab.emitter.emit(events.WorkersFail(FAILURE, 1.0, "cuda:1"))
    lab.tick()
    banner = text_of(parsed(lab.page.read_bytes()).find(".//p[@class='banner']"))

    assert "The device cuda:1 is out of service: CUDA error; it is tried again" in banner
    assert "cuda:0" not in banner
