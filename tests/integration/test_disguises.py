"""Scripts and references called .mp3, .wav, ...: through the whole daemon they read nothing and reach nothing."""

import subprocess

import imageio_ffmpeg
import pytest
from support import odd_media
from support.canary import SECRET, Canary, Server, holding
from support.daemon import Daemon, tone

from whisperd.core.job import MEDIA_EXTENSIONS

HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n{}#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
KEY = '#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXT-X-MAP:URI="{}"\n'
MPD = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet mimeType="audio/wav">'
DASH = MPD + '<Representation id="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\na=control:{}\n"


def alias(target):
    """A QuickTime movie whose sound is in another file."""
    reference = odd_media.box(b"url ", bytes(4), target.encode() + b"\0")
    return odd_media.mp4(reference=reference)


def pointers(target):
    """Everything that names a file or an address, by kind."""
    texts = {
        "hls": HLS.format("", target),
        "hls-key": HLS.format(KEY.format(target, target), target),
        "hls-mark": "\ufeff" + HLS.format("", target),
        "hls-late": "\n\n  " + HLS.format("", target),
        "concat": f"ffconcat version 1.0\nfile '{target}'\n",
        "concat-bare": f"file '{target}'\nduration 3\n",
        "dash": DASH.format(target),
        "dash-xml": f'<?xml version="1.0"?>\n<!-- {"x" * 3000} -->\n' + DASH.format(target),
        "sdp": SDP.format(target),
        "pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
        "m3u": f"{target}\n",
        "asx": f'<asx version="3"><entry><ref href="{target}"/></entry></asx>',
        "smil": f'<smil><body><audio src="{target}"/></body></smil>',
        "imf": f'<AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><Path>{target}</Path></AssetMap>',
        "ffmetadata": f";FFMETADATA1\ntitle={target}\n",
        "rtsp": f"RTSPtext\n{target}\n",
        "image2": "%d.png",
        "lavfi": f"amovie={target}",
        "subtitles": f"WEBVTT\n\n00:00.000 --> 00:02.000\n{target}\n",
        "cue": f'FILE "{target}" WAVE\n TRACK 01 AUDIO\n  OVERVIEW_PAGE 01 00:00:00\n',
    }
    files = {kind: text.encode() for kind, text in texts.items()}
    files["id3-hls"] = b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + files["hls"]
    files["mov-url"] = alias(target)
    files["ape-tag-concat"] = files["concat"] + b"APETAGEX" + bytes(24)
    return files


@pytest.fixture
def canary(tmp_path):
    with Canary(tmp_path / "canary.txt") as canary:
        yield canary


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.mark.parametrize("ffmpeg", ["system", "carried"])
def test_disguised_references_read_and_reach_nothing(ffmpeg, canary, server, tmp_path):
    """Every kind with every sort of address, every extension: all fail, and neither the file nor the server was ever asked."""
    targets = {
        "file": canary.path.as_uri(),
        "path": str(canary.path),
        "dots": "../" * 12 + str(canary.path).lstrip("/"),
        "subfile": f"subfile,,start,0,end,99,,:{canary.path}",
        "concat": f"concat:{canary.path}|{canary.path}",
        "web": f"http://127.0.0.1:{server.port}/x.wav",
        "tcp": f"tcp://127.0.0.1:{server.port}",
        "crypto": f"crypto+http://127.0.0.1:{server.port}/x",
    }
    asked = (
        ("file", "path", "dots", "web") if ffmpeg == "system" else ("file", "subfile", "concat", "web", "crypto", "tcp")
    )
    path = {"carried": imageio_ffmpeg.get_ffmpeg_exe(), "system": None}[ffmpeg]
    extensions = sorted(MEDIA_EXTENSIONS)
    names = []
    with Daemon(tmp_path / "spool", {"media": {"ffmpeg": path}}) as daemon:
        daemon.wait_ready()
        for where in asked:
            for kind, data in pointers(targets[where]).items():
                name = f"{where}-{kind}{extensions[len(names) % len(extensions)]}"
                (daemon.inbox / name).write_bytes(data)
                names.append(name)
        for extension in extensions:  # and the most dangerous one under every name
            names.append(f"every-{extension[1:]}{extension}")
            (daemon.inbox / names[-1]).write_bytes(pointers(targets["file"])["hls"])

        def ended():
            return len([*daemon.failed.iterdir(), *daemon.done.iterdir()]) == len(names)

        daemon.wait(ended, within_seconds=120, what="the end of all")
        tone(daemon.inbox / "good.wav")
        daemon.wait(lambda: daemon.status("good.wav") == "completed", what="the transcript of another file")

        assert not canary.was_touched()
        assert server.connections == 0
        assert holding(daemon.root, SECRET) == []
        assert not daemon.logged(SECRET)
        errors = {name: daemon.sidecar(name)["error"] for name in names}
        # a movie whose reference is not followed has the sound that is in it, if any
        assert {name.split("-", 1)[1][:7] for name, error in errors.items() if error is None} <= {"mov-url"}
        codes = {error["code"] for error in errors.values() if error is not None}
        assert codes <= {"forbidden", "not_media", "corrupt", "no_audio", "truncated"}
        assert {daemon.sidecar(f"every-{extension[1:]}{extension}")["error"]["code"] for extension in extensions} == {
            "forbidden"
        }


def test_the_baits_work(canary, server):
    """An opening of the file and a connection to the server would have been seen."""
    assert not canary.was_touched()
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-f", "s16le", "-i"]

    for target in (canary.path, f"tcp://127.0.0.1:{server.port}"):
        subprocess.run([*ffmpeg, target, "-f", "null", "-"], capture_output=True, check=False, timeout=30)

    assert canary.was_touched()
    assert server.connections == 1
