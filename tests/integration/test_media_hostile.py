"""Files that are no recordings, or that want more than to be heard."""

import array
import hashlib
import http.server
import os
import shutil
import subprocess
import threading

import pytest
from support import audio

from whisperd.core.errors import InputError
from whisperd.core.options import MediaOptions
from whisperd.media import decode as media
from whisperd.media import ffmpeg
from whisperd.media.decode import decode, hash_file


@pytest.fixture
def options(ffmpeg_path):
    """Limits, and one ffmpeg after the other."""
    return MediaOptions(ffmpeg=ffmpeg_path, max_duration_seconds=60.0, stall_seconds=60.0)


def ignore(_seconds):
    """A heartbeat that nobody hears."""


@pytest.fixture
def refused(options, samples):
    """Decodes what must be refused: gives the error, whose message must be fit to be shown to anybody."""

    def refuse(source, limits=options):
        with pytest.raises(InputError) as caught:
            decode(source, samples, limits, ignore)
        error = caught.value
        assert not samples.exists()
        assert (error.stage, bool(error.hint)) == ("decoding", True)
        assert error.message.isprintable()
        assert len(error.message) < 250
        assert not [secret for secret in (str(source.parent), "/proc", "fd:") if secret in error.message]
        return error

    return refuse


@pytest.fixture
def server(tmp_path):
    """A web server that would hand out a recording, and that remembers who asked."""
    secret = audio.wav(tmp_path / "secret.wav", [(1.0, 440)])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(secret.read_bytes())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.requests = []
        listener.secret = secret
        listener.url = f"http://127.0.0.1:{listener.server_port}/secret.wav"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield listener
        listener.shutdown()
        thread.join()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="audio/wav">'
    '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\na=control:{}\n"
CONCAT = "ffconcat version 1.0\nfile '{}'\n"
POINTERS = {
    "HLS to a file": (HLS, "file"),
    "HLS to the web": (HLS, "web"),
    "concat script to a file": (CONCAT, "file"),
    "concat script to the web": (CONCAT, "web"),
    "DASH to the web": (DASH, "web"),
    "SDP": (SDP, "web"),
}


@pytest.fixture(params=POINTERS.values(), ids=POINTERS)
def bait(request, server, tmp_path):
    """Makes an upload called .mp3 that points to a recording elsewhere."""
    text, where = request.param

    def make(before=b""):
        path = tmp_path / "song.mp3"
        path.write_bytes(before + text.format(server.secret.as_uri() if where == "file" else server.url).encode())
        return path

    return make


def test_what_points_elsewhere_is_refused(bait, server, refused):
    """A playlist is named as what it is, and nobody is asked for anything."""
    assert refused(bait()).job_code == "forbidden"
    assert server.requests == []


@pytest.mark.parametrize(
    "before", [pytest.param(b"", id="bare"), pytest.param(b"ID3\4\0\0\0\0\0\x0a" + bytes(10), id="behind an ID3 tag")]
)
def test_ffmpeg_does_not_follow_either(before, bait, server, refused, monkeypatch):
    """A playlist that is not known at sight is not on ffmpeg's list of formats."""
    monkeypatch.setattr(media, "playlist_kind", lambda _head: "")

    assert refused(bait(before)).job_code == "not_media"
    assert server.requests == []


def test_were_the_format_let_in_it_would_reach_nothing(bait, server, options, samples, monkeypatch):
    """The last wall: with every format allowed, a file still has no protocol by which to open another."""
    source = bait()
    if b"file://" in source.read_bytes() and not audio.has_protocol(options.ffmpeg, "fd"):
        pytest.skip("before ffmpeg 6 the protocol `file` must be open, and the list of formats is the last wall")
    monkeypatch.setattr(media, "playlist_kind", lambda _head: "")
    monkeypatch.setattr(ffmpeg, "DEMUXERS", f"{ffmpeg.DEMUXERS},hls,concat,dash,sdp,rtp,rtsp")

    with pytest.raises(InputError):
        decode(source, samples, options, ignore)

    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("x.m3u8", HLS, id="HLS"),
        pytest.param("x.ffconcat", CONCAT, id="concat script"),
        pytest.param("x.mpd", DASH, id="DASH"),
    ],
)
def test_the_bait_works(name, text, server, options, tmp_path):
    """An ffmpeg that nobody confines does ask the server: the tests above would see it."""
    source = tmp_path / name
    source.write_text(text.format(server.url))
    unsafe = ["-safe", "0"] if text == CONCAT else []
    command = [options.ffmpeg, "-nostdin", "-v", "error", "-protocol_whitelist", "file,http,tcp", *unsafe]

    subprocess.run([*command, "-i", source, "-f", "null", "-"], capture_output=True, check=False, timeout=30)

    assert server.requests != []


def test_no_report_is_written(options, samples, tmp_path, monkeypatch):
    """What stands in the daemon's environment does not reach ffmpeg: FFREPORT names a file to write."""
    report = tmp_path / "report.log"
    monkeypatch.setenv("FFREPORT", f"file={report}:level=32")

    decode(audio.wav(tmp_path / "a.wav"), samples, options, ignore)

    assert not report.exists()


# Bad uploads


def made_empty(path):
    path.touch()


def made_text(path):
    path.write_text("Dear diary,\ntoday I went out.\n" * 300)


def made_picture(path):
    audio.encode(path.with_suffix(".png"), "-f", "lavfi", "-i", "testsrc=size=64x64", "-frames:v", 1).rename(path)


def made_zeros(path):
    path.write_bytes(bytes(1_000_000))


def made_program(path):
    shutil.copyfile(shutil.which("env"), path)


def made_subtitles(path):
    path.write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n")


def made_silent_video(path):
    audio.encode(path.with_suffix(".mp4"), "-f", "lavfi", "-i", "testsrc=size=64x64:duration=1").rename(path)


def made_wav_without_samples(path):
    audio.wav(path, [])


def made_m4a_of_zeros(path):
    whole = audio.encode(path.with_suffix(".m4a"), "-i", audio.wav(path), "-c:a", "aac", "-movflags", "+faststart")
    data = whole.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))


def made_header_only(path):
    path.write_bytes(audio.wav(path).read_bytes()[:44])


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(made_empty, "empty", id="empty"),
        pytest.param(made_text, "not_media", id="text"),
        pytest.param(audio.noise, "not_media", id="noise"),
        pytest.param(made_zeros, "not_media", id="zeros"),
        pytest.param(made_picture, "not_media", id="picture"),
        pytest.param(made_program, "not_media", id="program"),
        pytest.param(made_subtitles, "not_media", id="subtitles"),
        pytest.param(made_silent_video, "no_audio", id="video without sound"),
        pytest.param(made_wav_without_samples, "no_audio", id="no samples"),
        pytest.param(made_m4a_of_zeros, "corrupt", id="zeros in a good container"),
        pytest.param(made_header_only, "truncated", id="header only"),
    ],
)
def test_bad_uploads(make, code, refused, samples, tmp_path):
    """Each kind of bad upload has its code and a message for people, whatever an earlier attempt left behind."""
    samples.write_bytes(b"left by an earlier attempt")
    source = tmp_path / "upload.mp3"
    make(source)

    assert refused(source).job_code == code


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_only_regular_files_are_opened(kind, refused, tmp_path):
    """A FIFO does not hang the reader, and a link is not followed."""
    source = tmp_path / "upload.mp3"
    if kind == "fifo":
        os.mkfifo(source)
    elif kind == "directory":
        source.mkdir()
    else:
        source.symlink_to(audio.wav(tmp_path / "secret.wav"))

    assert refused(source).job_code == "unreadable"
    with pytest.raises(InputError):
        hash_file(source, ignore)


def test_an_unreadable_file(options, samples, tmp_path):
    """Rights that are missing are named."""
    source = audio.wav(tmp_path / "a.wav")
    source.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # for root there is no file that it may not read
    try:
        with pytest.raises(InputError, match="Permission denied") as caught:
            decode(source, samples, options, ignore)
    finally:
        os.seteuid(user)

    assert caught.value.job_code == "unreadable"


def test_words_in_a_recording_are_shown_escaped(options, samples, tmp_path):
    """A title can neither steer a terminal nor pass for a fact about the recording."""
    title = "\x1b[2J\x07\u202e\n  Duration: 99:00:00.00, start: 0\n[error] moov atom not found\n" + "x" * 100_000
    source = audio.encode(tmp_path / "a.mkv", "-i", audio.wav(tmp_path / "a.wav"), "-metadata", f"title={title}")

    decoded = decode(source, samples, options, ignore)

    assert decoded.promised_seconds == pytest.approx(3.0, abs=0.1)
    assert decoded.errors == 0
    assert decoded.format.isprintable()


# Bombs


def test_a_file_that_grows_faster_than_it_is_read_is_hashed_to_an_end(tmp_path, monkeypatch):
    """A writer that kept it open must not keep the worker: what counts is what was there at first."""
    source = audio.wav(tmp_path / "a.wav")
    monkeypatch.setattr(ffmpeg, "BEAT_SECONDS", 0.0)
    digest, beats = hashlib.sha256(source.read_bytes()).hexdigest(), []

    def append(_seconds):
        beats.append(1)
        assert len(beats) < 50
        with source.open("ab") as file:
            file.write(bytes(2_000_000))

    assert hash_file(source, append) == digest


@pytest.mark.parametrize("name", ["long.flac", "long.opus"])
def test_too_long_ends_at_the_limit(name, options, samples, tmp_path):
    """Silence packed into some kilobytes is not unpacked: decoding ends where the limit is."""
    source = audio.encode(tmp_path / name, "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono:d=600", "-b:a", "6k")
    assert source.stat().st_size < 600_000
    reported = []

    with pytest.raises(InputError, match="longer than 0:01:00") as caught:
        decode(source, samples, options, reported.append)

    assert caught.value.job_code == "too_long"
    assert max(reported) <= 60.0
    assert not samples.exists()


def test_at_the_limit_is_not_beyond_it(options, samples, tmp_path):
    """The limit itself is allowed."""
    decoded = decode(audio.wav(tmp_path / "a.wav", [(60.0, 440)]), samples, options, ignore)

    assert decoded.duration_seconds == 60.0


def test_a_header_that_lies(refused, tmp_path):
    """A length that only stands in the header fills no disk."""
    source = tmp_path / "lie.au"
    samples_of_one_second = array.array("h", [0] * 16_000).tobytes()
    source.write_bytes(
        b".snd" + b"".join(n.to_bytes(4, "big") for n in (24, 2**30, 3, 16_000, 1)) + samples_of_one_second
    )

    assert refused(source).job_code == "truncated"


@pytest.mark.slow
def test_a_hole_that_no_memory_can_fill(options, refused, tmp_path, monkeypatch):
    """Sound that claims to start after 22 hours neither eats the memory nor gets wrong times: it is refused."""
    monkeypatch.setattr(ffmpeg, "MEMORY_BYTES", 1 << 28)
    picture = ("-f", "lavfi", "-i", "color=size=64x64:rate=5:duration=2")
    sound = ("-itsoffset", 80_000, "-i", audio.wav(tmp_path / "a.wav"))
    source = audio.encode(tmp_path / "late.mkv", *picture, *sound, "-c:v", "mpeg4", "-c:a", "aac")
    patient = MediaOptions(ffmpeg=options.ffmpeg, max_duration_seconds=100_000.0, stall_seconds=60.0)

    assert refused(source, patient).job_code == "corrupt"
