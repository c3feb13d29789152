"""What `whisperd status` knows of the devices of a running daemon."""

import pytest
from support.spool import Spool

from whisperd.cli import status
from whisperd.cli.status import gather
from whisperd.core.events import DeviceVitals
from whisperd.intake.ignore import Ignore
from whisperd.listeners.device_report import EVERY_SECONDS, FILE, DeviceReport, read

WORKS = DeviceVitals("cuda:0", "H200", 2, speed=12.34)
FAILS = DeviceVitals("cuda:1", "", 1, "no \x1b[31mworker\nloads", retry_at=1e9)


@pytest.fixture
def lab(tmp_path):
    """A report of devices that the test changes."""
    spool = Spool(tmp_path / "spool")
    found = [WORKS]
    report = DeviceReport(spool.layout, lambda: tuple(found))
    report.tick(0.0)
    return spool.layout, report, found


def test_it_says_how_each_device_is(lab):
    """With the time of the next try, for people."""
    layout, report, found = lab
    found.append(FAILS)
    report.tick(EVERY_SECONDS)
    first, second = read(layout)

    assert first == {"name": "cuda:0", "model": "H200", "workers": 2, "speed": 12.3, "reason": None, "retry_at": None}
    assert second["reason"] == r"no \x1b[31mworker\nloads"
    assert second["retry_at"].endswith("Z")


def test_it_is_written_when_something_changes_and_not_all_the_time(lab):
    """A second apart at least."""
    layout, report, found = lab
    assert report.tick(0.1) > 1e9
    found.append(FAILS)
    assert report.tick(0.2) == EVERY_SECONDS
    assert len(read(layout)) == 1
    report.tick(EVERY_SECONDS)
    assert len(read(layout)) == 2


def test_a_daemon_that_stops_takes_it_away(lab):
    """And it counts only while a daemon runs, whatever a killed one left."""
    layout, report, _ = lab
    assert gather(layout, Ignore(), wanted_bytes=0)["devices"] == []
    with layout.lock():
        assert len(gather(layout, Ignore(), wanted_bytes=0)["devices"]) == 1
    report.close()

    assert read(layout) == []


@pytest.mark.parametrize("content", [b"", b"[1]", b"[{}]", b"5", b"\xff"])
def test_a_damaged_report_is_none(lab, content):
    """`whisperd status` shows the rest."""
    layout, _, _ = lab
    (layout.work / FILE).write_bytes(content)

    assert read(layout) == []


def test_a_screen_names_what_is_out_of_service(lab, capsys):
    """And the others on one line."""
    layout, report, found = lab
    found.append(FAILS)
    report.tick(EVERY_SECONDS)
    with layout.lock():
        status._screen(gather(layout, Ignore(), wanted_bytes=0), None)
    shown = " ".join(capsys.readouterr().out.split())

    assert "devices: cuda:0 x12.3" in shown
    assert "device cuda:1 is out of service: no" in shown
    assert "it is tried again at" in shown
