"""A real daemon and its figures: in a file for node_exporter, and over HTTP."""

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.daemon import Daemon, tone


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def figures(text):
    return {
        (sample.name, *(value for key, value in sorted(sample.labels.items()) if key != "spool")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_of_a_job_are_in_the_file_and_on_the_port(tmp_path, port):
    """The same in both; the file is replaced in one step, and its name is all that stands in its folder."""
    root, path = tmp_path / "spool", tmp_path / "metrics/whisperd.prom"
    settings = {"metrics": {"textfile": str(path), "port": port, "every_seconds": 0.1}}
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=0.5)
        (root / "inbox/b.wav").touch()

        def written():
            found = figures(path.read_text())
            ended = [found.get(("whisperd_jobs_ended_total", code)) for code in ("completed", "empty")]
            return found if ended == [1, 1] else None

        found = daemon.wait(written, what="the figures")
        served = figures(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())
        names = [entry.name for entry in path.parent.iterdir() if not entry.name.endswith(".tmp")]
        daemon.stop()

    assert found["whisperd_audio_seconds_total",] == pytest.approx(0.5)
    assert found["whisperd_settle_wait_seconds_count",] == 2
    assert found["whisperd_worker_memory_bytes", "cpu"] > 10 << 20
    assert found["whisperd_disk_free_bytes",] > 0
    assert found["whisperd_last_scan_time_seconds",] > found["whisperd_start_time_seconds",] - 60
    assert served.keys() == found.keys()
    assert names == ["whisperd.prom"]
    assert daemon.errors() == []


def test_a_port_that_is_taken_ends_the_start_with_a_line(tmp_path):
    """Better than a daemon that nobody sees."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = Daemon(tmp_path / "spool", {"metrics": {"port": taken.getsockname()[1]}})
        with daemon:
            status = daemon.wait_exit()

    assert status == 3
    assert daemon.logged("metrics cannot be served on 127.0.0.1")


def test_a_file_that_cannot_be_written_harms_no_job(tmp_path):
    """It is said once."""
    (tmp_path / "metrics").write_text("a file, where a folder is wanted")
    path = tmp_path / "metrics/whisperd.prom"
    daemon = Daemon(tmp_path / "spool", {"metrics": {"textfile": str(path), "every_seconds": 0.05}}, once=True)
    tone(daemon.inbox / "a.wav", seconds=0.3)
    with daemon:
        status = daemon.wait_exit()

    assert status == 0
    assert len([line for line in daemon.lines if "the metrics cannot be written" in line]) == 1
