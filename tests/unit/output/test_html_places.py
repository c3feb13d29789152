"""A page on its way to the outbox: it must play its own recording, and never take the overview's name."""

import hashlib
import re

import pytest
from support.pages import about, page, transcript
from support.spool import Spool

from whisperd.core.job import original_url

FORMATS = ("txt", "html")


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def rendered(spool, job):
    """What the worker leaves, for the place that the job had when it began."""
    result = spool.render(job, FORMATS)
    content = page(transcript(), about(job.place))
    (spool.layout.job_directory(job.id) / "outputs/html").write_bytes(content)
    return result


def links(content):
    return set(re.findall(r'="((?:\.\./)+[^"]*)"', content.decode()))


@pytest.mark.parametrize("stranger", ["outbox/b/a.txt", "outbox/b/a.html", "done/b/a.wav"])
def test_a_page_that_goes_elsewhere_takes_its_link_along(spool, stranger):
    """A name was taken while the job ran: the page plays a-2.wav, not the stranger's a.wav."""
    spool.upload("b/a.wav")
    job = spool.claim("b/a.wav", FORMATS)
    result = rendered(spool, job)
    spool.put(stranger)

    job = spool.store.finish(job, result)

    assert job.place == "b/a-2.wav"
    content = (spool.layout.outbox / "b/a-2.html").read_bytes()
    assert links(content) == {original_url("b/a-2.wav"), "../index.html"}
    assert spool.sidecar("b/a-2.wav")["digests"]["html"] == hashlib.sha256(content).hexdigest()


def test_a_page_that_goes_where_it_was_meant_to_is_published_as_it_is(spool):
    """Byte for byte."""
    spool.upload("a.wav")
    job = spool.claim("a.wav", FORMATS)
    result = rendered(spool, job)

    spool.store.finish(job, result)

    assert (spool.layout.outbox / "a.html").read_bytes() == page(transcript(), about("a.wav"))


def test_no_job_gets_the_name_of_the_overview(spool):
    """index.mp3 would have its page at outbox/index.html; in a folder that name is as good as any."""
    for name in ("index.mp3", "b/index.mp3"):
        spool.upload(name)

    assert spool.claim("index.mp3", FORMATS).place == "index-2.mp3"
    assert spool.claim("b/index.mp3", FORMATS).place == "b/index.mp3"


def test_without_a_page_the_name_is_free(spool):
    """Only outbox/index.html is reserved."""
    spool.upload("index.mp3")

    assert spool.claim("index.mp3", ("txt",)).place == "index.mp3"
