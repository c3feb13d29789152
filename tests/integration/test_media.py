"""Recordings of all kinds, decoded by every ffmpeg that is there: the one of imageio-ffmpeg and the system's."""

import hashlib

import pytest
from support import audio

from whisperd.core.errors import InputError
from whisperd.core.options import MediaOptions
from whisperd.media.decode import decode, hash_file

PICTURE = ("-f", "lavfi", "-i", "testsrc=size=160x120:rate=25:duration=8")
VIDEO = ("-c:v", "mpeg4")


@pytest.fixture
def options(ffmpeg_path):
    """Limits, and one ffmpeg after the other."""
    return MediaOptions(ffmpeg=ffmpeg_path, max_duration_seconds=7200.0, stall_seconds=60.0)


@pytest.fixture(scope="session")
def tone(tmp_path_factory):
    """One second of silence, one of 440 Hz, one of silence."""
    return audio.wav(tmp_path_factory.mktemp("tone") / "tone.wav")


@pytest.fixture(scope="session")
def made(tmp_path_factory, tone):
    """Encodes the tone, once for each set of arguments."""
    done = {}

    def make(name, *arguments, source=None):
        if (name, arguments) not in done:
            folder = tmp_path_factory.mktemp("made")
            done[name, arguments] = audio.encode(folder / name, "-i", source or tone, *arguments)
        return done[name, arguments]

    return make


def ignore(_seconds):
    """A heartbeat that nobody hears."""


def assert_span(span, start, end, tolerance=0.08):
    assert span == pytest.approx((start, end), abs=tolerance)


FORMATS = {
    "wav": ("a.wav",),
    "wav 24 bit": ("a.wav", "-c:a", "pcm_s24le"),
    "wav 8 bit": ("a.wav", "-c:a", "pcm_u8"),
    "wav float": ("a.wav", "-c:a", "pcm_f32le"),
    "wav double": ("a.wav", "-c:a", "pcm_f64le"),
    "wav a-law": ("a.wav", "-c:a", "pcm_alaw", "-ar", 8000),
    "wav adpcm": ("a.wav", "-c:a", "adpcm_ima_wav"),
    "wav g726": ("a.wav", "-c:a", "g726", "-ar", 8000),
    "rf64": ("a.wav", "-rf64", "always"),
    "w64": ("a.w64",),
    "aiff": ("a.aiff",),
    "caf": ("a.caf", "-c:a", "pcm_s16be"),
    "caf alac": ("a.caf", "-c:a", "alac"),
    "au": ("a.au",),
    "mp3": ("a.mp3", "-c:a", "libmp3lame"),
    "mp3 variable": ("a.mp3", "-c:a", "libmp3lame", "-q:a", 4),
    "mp3 without Xing": ("a.mp3", "-c:a", "libmp3lame", "-write_xing", 0, "-id3v2_version", 0),
    "mp2": ("a.mp2",),
    "m4a, index at the end": ("a.m4a", "-c:a", "aac"),
    "m4a, index first": ("a.m4a", "-c:a", "aac", "-movflags", "+faststart"),
    "m4a, fragments": ("a.m4a", "-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov", "-frag_duration", 500_000),
    "m4a alac": ("a.m4a", "-c:a", "alac"),
    "3gp amr": ("a.3gp", "-c:a", "libopencore_amrnb", "-ar", 8000),
    "amr": ("a.amr", "-c:a", "libopencore_amrnb", "-ar", 8000),
    "aac": ("a.aac", "-c:a", "aac"),
    "ac3": ("a.ac3", "-ar", 48000),
    "eac3": ("a.eac3", "-ar", 48000),
    "flac": ("a.flac",),
    "ogg vorbis": ("a.ogg", "-c:a", "libvorbis"),
    "ogg flac": ("a.oga", "-c:a", "flac"),
    "opus": ("a.opus", "-c:a", "libopus"),
    "webm": ("a.webm", "-c:a", "libopus"),
    "mkv": ("a.mkv", "-c:a", "aac"),
    "mkv pcm": ("a.mkv", "-c:a", "pcm_s16le"),
    "wma": ("a.wma", "-c:a", "wmav2"),
    "wavpack": ("a.wv",),
    "tta": ("a.tta",),
    "mpeg-ts": ("a.ts", "-c:a", "aac"),
    "nut": ("a.nut", "-c:a", "pcm_s16le"),
}


@pytest.mark.parametrize("arguments", FORMATS.values(), ids=FORMATS)
def test_formats(arguments, made, options, samples):
    """Whatever the container and codec, the tone is there, at its time and as long as it was."""
    decoded = decode(made(*arguments), samples, options, ignore)

    [span] = audio.loud_spans(samples)
    assert_span(span, 1.0, 2.0)
    assert decoded.duration_seconds == pytest.approx(3.0, abs=0.15)
    assert decoded.samples * 2 == samples.stat().st_size
    assert decoded.errors == 0


VIDEOS = {
    "mp4, index at the end": ("v.mp4", *VIDEO, "-c:a", "aac"),
    "mp4, index first": ("v.mp4", *VIDEO, "-c:a", "aac", "-movflags", "+faststart"),
    "mov": ("v.mov", *VIDEO, "-c:a", "pcm_s16le"),
    "mkv": ("v.mkv", *VIDEO, "-c:a", "aac"),
    "webm": ("v.webm", "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", 8, "-c:a", "libopus"),
    "avi": ("v.avi", *VIDEO, "-c:a", "mp3"),
    "flv": ("v.flv", "-c:v", "flv", "-c:a", "aac"),
    "wmv": ("v.wmv", "-c:v", "wmv2", "-c:a", "wmav2"),
    "mpeg": ("v.mpg", "-c:v", "mpeg2video", "-c:a", "mp2", "-ar", 48000),
    "ts": ("v.ts", "-c:v", "mpeg2video", "-c:a", "aac"),
    "ogv": ("v.ogv", "-c:v", "libtheora", "-c:a", "libvorbis"),
    "mxf": ("v.mxf", "-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ar", 48000),
}


@pytest.mark.parametrize("arguments", VIDEOS.values(), ids=VIDEOS)
def test_videos(arguments, made, options, samples):
    """Of a video the sound is taken, though it is shorter than the picture."""
    name, *rest = arguments

    decoded = decode(made(name, *PICTURE, "-map", "1:v", "-map", "0:a", *rest), samples, options, ignore)

    [span] = audio.loud_spans(samples)
    assert_span(span, 1.0, 2.0)
    assert decoded.errors == 0


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_rates_and_channels(rate, channels, options, samples, tmp_path):
    """Any rate and any number of channels becomes 16 kHz mono of the same length."""
    source = audio.wav(tmp_path / "a.wav", rate=rate, channels=channels)

    decoded = decode(source, samples, options, ignore)

    [span] = audio.loud_spans(samples)
    assert_span(span, 1.0, 2.0, tolerance=0.02)
    assert decoded.duration_seconds == pytest.approx(3.0, abs=0.01)


def test_the_first_sound_track_is_taken(made, options, samples, tmp_path, tone):
    """Of several tracks the first counts, wherever among the streams it stands."""
    other = audio.wav(tmp_path / "other.wav", [(3.0, 0)])
    source = made("two.mkv", "-i", other, *PICTURE, "-map", "2:v", "-map", "0:a", "-map", "1:a", *VIDEO, "-c:a", "flac")

    decode(source, samples, options, ignore)

    [span] = audio.loud_spans(samples)
    assert_span(span, 1.0, 2.0)


def test_a_cover_is_no_video(made, options, samples, tmp_path):
    """A picture of the singer does not make a song a video."""
    cover = audio.encode(tmp_path / "cover.png", *PICTURE, "-frames:v", 1)

    decoded = decode(made("c.mp3", "-i", cover, "-map", "0", "-map", "1"), samples, options, ignore)

    assert decoded.duration_seconds == pytest.approx(3.0, abs=0.1)


def test_facts(made, options, samples):
    """What was decoded is told: length, format, the recording's own hash and size."""
    source = made("a.flac")

    decoded = decode(source, samples, options, ignore)

    assert decoded.sha256 == hashlib.sha256(source.read_bytes()).hexdigest() == hash_file(source, ignore)
    assert decoded.size_bytes == source.stat().st_size
    assert (decoded.samples, decoded.duration_seconds, decoded.promised_seconds) == (48_000, 3.0, 3.0)
    assert decoded.format.startswith("flac: flac, 16000 Hz, mono")


def test_silence_is_a_recording(options, samples, tmp_path):
    """That nobody says anything is for others to judge."""
    decoded = decode(audio.wav(tmp_path / "a.wav", [(2.0, 0)]), samples, options, ignore)

    assert decoded.duration_seconds == 2.0
    assert samples.read_bytes() == bytes(64_000)


@pytest.mark.parametrize(
    "name", ["-y.wav", "%03d.wav", "concat:a|b.wav", "a\nb.wav", "\udcff.wav", "http:x.wav", "pipe:0"]
)
def test_names_do_not_matter(name, options, samples, tmp_path):
    """No name is read as an option, a pattern or an address."""
    decoded = decode(audio.wav(tmp_path / "a.wav").rename(tmp_path / name), samples, options, ignore)

    assert decoded.samples == 48_000


OFFSETS = {
    "mp4": ("o.mp4", *VIDEO, "-c:a", "aac"),
    "mov": ("o.mov", *VIDEO, "-c:a", "pcm_s16le"),
    "mkv": ("o.mkv", *VIDEO, "-c:a", "aac"),
    "flv": ("o.flv", "-c:v", "flv", "-c:a", "aac"),
    "ogv": ("o.ogv", "-c:v", "libtheora", "-c:a", "libvorbis"),
    "mpeg": ("o.mpg", "-c:v", "mpeg2video", "-c:a", "mp2", "-ar", 48000),
    "ts": ("o.ts", "-c:v", "mpeg2video", "-c:a", "aac"),
    "ts from 10 h on": ("o.ts", "-c:v", "mpeg2video", "-c:a", "aac", "-output_ts_offset", 36000),
}


@pytest.mark.parametrize("arguments", OFFSETS.values(), ids=OFFSETS)
def test_sound_that_starts_late(arguments, tone, options, samples, tmp_path):
    """Sound that starts 4 s after the picture is found 4 s later, whatever time the container itself starts at."""
    name, *rest = arguments
    source = audio.encode(tmp_path / name, *PICTURE, "-itsoffset", 4, "-i", tone, *rest)

    decoded = decode(source, samples, options, ignore)

    [span] = audio.loud_spans(samples)
    assert_span(span, 5.0, 6.0)
    assert decoded.start_offset_seconds == pytest.approx(4.0, abs=0.08)


def test_a_container_that_starts_at_10_hours(made, options, samples):
    """Ten hours of clock are not ten hours of silence."""
    decoded = decode(made("late.ts", "-c:a", "aac", "-output_ts_offset", 36000), samples, options, ignore)

    [span] = audio.loud_spans(samples)
    assert_span(span, 1.0, 2.0)
    assert decoded.start_offset_seconds == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("name", ["gap.mkv", "gap.mp4", "gap.ts"])
def test_a_hole_becomes_silence(name, options, samples, tmp_path):
    """Where a recorder lost 3 s of sound, what follows keeps its time."""
    hum = audio.wav(tmp_path / "hum.wav", [(10.0, 440)])
    source = audio.encode(tmp_path / name, "-i", hum, "-af", "aselect='not(between(t,3,6))'", "-c:a", "aac")

    decode(source, samples, options, ignore)

    before, after = audio.loud_spans(samples)
    assert_span(before, 0.0, 3.0, tolerance=0.15)
    assert_span(after, 6.0, 10.0, tolerance=0.15)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("a.mp3", "-c:a", "libmp3lame"), id="mp3"),
        pytest.param(("a.flac",), id="flac"),
        pytest.param(("a.m4a", "-c:a", "aac", "-movflags", "+faststart"), id="m4a"),
        pytest.param(("a.opus", "-c:a", "libopus"), id="opus"),
        pytest.param(("a.mkv", "-c:a", "aac"), id="mkv"),
        pytest.param(("a.aac", "-c:a", "aac"), id="aac"),
    ],
)
def test_damage_in_the_middle_is_passed_over(arguments, options, samples, tmp_path):
    """A bad sector costs what was in it, not the recording."""
    hiss = ("-f", "lavfi", "-i", "anoisesrc=duration=20:amplitude=0.3:seed=1")
    whole = audio.encode(tmp_path / arguments[0], *hiss, *arguments[1:])

    decoded = decode(audio.scrambled(tmp_path / "bad", whole), samples, options, ignore)

    assert decoded.duration_seconds == pytest.approx(20.0, abs=1.5)
    assert decoded.errors > 0


PROMISES = {
    "wav": ("a.wav",),
    "rf64": ("a.wav", "-rf64", "always"),
    "w64": ("a.w64",),
    "aiff": ("a.aiff",),
    "au": ("a.au",),
    "caf": ("a.caf", "-c:a", "pcm_s16be"),
    "flac": ("a.flac",),
    "mp3": ("a.mp3", "-c:a", "libmp3lame", "-b:a", "64k"),
    "mp3 variable": ("a.mp3", "-c:a", "libmp3lame", "-q:a", 4),
    "m4a, index first": ("a.m4a", "-c:a", "aac", "-movflags", "+faststart"),
    "m4a, index at the end": ("a.m4a", "-c:a", "aac"),
    "mkv": ("a.mkv", "-c:a", "aac"),
    "webm": ("a.webm", "-c:a", "libopus"),
    "wma": ("a.wma", "-c:a", "wmav2"),
    "wavpack": ("a.wv",),
    "mp4 video": ("v.mp4", *VIDEO, "-c:a", "aac", "-movflags", "+faststart"),
    "mkv video": ("v.mkv", *VIDEO, "-c:a", "aac"),
    "avi video": ("v.avi", *VIDEO, "-c:a", "mp3"),
}
HISS = ("-f", "lavfi", "-i", "anoisesrc=duration=20:amplitude=0.3:seed=1")
LONG_PICTURE = ("-f", "lavfi", "-i", "testsrc=size=160x120:rate=25:duration=20")


@pytest.mark.parametrize("arguments", PROMISES.values(), ids=PROMISES)
def test_an_upload_that_broke_off_is_refused(arguments, options, samples, tmp_path):
    """The first 37 % of a recording do not pass for the whole where the header tells how long it should be."""
    name, *rest = arguments
    picture = LONG_PICTURE if name.startswith("v.") else ()
    whole = audio.encode(tmp_path / name, *HISS, *picture, *rest)
    assert decode(whole, samples, options, ignore).duration_seconds == pytest.approx(20.0, abs=0.2)

    with pytest.raises(InputError, match=r"truncated|cut off") as caught:
        decode(audio.cut(tmp_path / "part", whole, 0.37), samples, options, ignore)

    assert caught.value.job_code == "truncated"
    assert not samples.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("a.mp3", "-c:a", "libmp3lame", "-write_xing", 0, "-id3v2_version", 0), id="mp3 without Xing"),
        pytest.param(("a.aac", "-c:a", "aac"), id="aac"),
        pytest.param(("a.webm", "-c:a", "libopus", "-live", 1), id="webm without length"),
        pytest.param(("a.opus", "-c:a", "libopus"), id="opus"),
        pytest.param(("a.ts", "-c:a", "aac"), id="mpeg-ts"),
    ],
)
def test_without_a_promise_what_is_there_counts(arguments, options, samples, tmp_path):
    """A recorder that lost power leaves such files: no header says that more should be there."""
    name, *rest = arguments
    whole = audio.encode(tmp_path / name, *HISS, *rest)

    decoded = decode(audio.cut(tmp_path / "part", whole, 0.37), samples, options, ignore)

    assert decoded.duration_seconds == pytest.approx(7.4, abs=0.8)


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F024, 0x8000_0024], ids=hex)
def test_a_wav_of_unstated_length(size, tone, options, samples, tmp_path):
    """What a recorder writes into the header of a WAV when it cannot know its length promises nothing."""
    data = bytearray(tone.read_bytes())
    data[4:8] = size.to_bytes(4, "little")
    data[40:44] = size.to_bytes(4, "little")
    source = tmp_path / "piped.wav"
    source.write_bytes(data)

    assert decode(source, samples, options, ignore).duration_seconds == pytest.approx(3.0, abs=0.01)
