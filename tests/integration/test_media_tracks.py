"""Recordings with several sound tracks, decoded by every ffmpeg that is there."""

import pytest
from support import audio, odd_media

from whisperd.core.errors import InputError
from whisperd.core.options import MediaOptions
from whisperd.media.decode import TRACKS_MAX, decode

PICTURE = ("-f", "lavfi", "-i", "testsrc=size=160x120:rate=25:duration=8")
TITLED = ("-metadata:s:a:0", "title=Studio: <A>", "-metadata:s:a:1", "title=Guest")
SPOKEN = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", "-metadata:s:a:2", "language=fra")
PACKET = 188  # bytes, of MPEG-TS


@pytest.fixture
def options(ffmpeg_path):
    """Limits, and one ffmpeg after the other."""
    return MediaOptions(ffmpeg=ffmpeg_path, max_duration_seconds=60.0, stall_seconds=60.0)


@pytest.fixture
def made(tmp_path):
    """Makes a recording of three tones: at 1 to 2 s of 3 s, at 2 to 4 s of 5 s, and at 3 to 3.5 s of 4 s."""
    parts = ([(1.0, 0), (1.0, 440), (1.0, 0)], [(2.0, 0), (2.0, 300), (1.0, 0)], [(3.0, 0), (0.5, 500), (0.5, 0)])
    tones = [audio.wav(tmp_path / f"tone{number}.wav", part) for number, part in enumerate(parts)]

    def make(name, *arguments, count=3, picture=False):
        inputs = [each for tone in tones[:count] for each in ("-i", tone)]
        maps = [each for number in range(count) for each in ("-map", number)]
        if picture:
            inputs, maps = [*inputs, *PICTURE], ["-map", count, *maps, "-c:v", "mpeg4"]
        return audio.encode(tmp_path / name, *inputs, *maps, *arguments)

    return make


def ignore(_seconds):
    """A heartbeat that nobody hears."""


def tones(path, decoded):
    """Start and end of what is loud in each track."""
    data, at, found = path.read_bytes(), 0, []
    scratch = path.with_suffix(".one")
    for track in decoded.tracks:
        size = track.samples * track.channels * 2
        scratch.write_bytes(data[at : at + size])
        found.append([pytest.approx(span, abs=0.1) for span in audio.loud_spans(scratch)])
        at += size
    assert at == len(data)
    return found


THREE = [[(1.0, 2.0)], [(2.0, 4.0)], [(3.0, 3.5)]]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "flac"),
        ("a.mka", "libopus"),
        ("a.mp4", "aac"),
        ("a.mov", "pcm_s16le"),
        ("a.ts", "aac"),
        ("a.ogg", "libvorbis"),
    ],
)
def test_all_tracks(name, codec, made, options, samples):
    """Each is there by itself, at its time; the recording is as long as the longest."""
    source = made(name, "-c:a", codec, picture=name in {"a.mkv", "a.mp4", "a.mov", "a.ts"})
    beats = []

    decoded = decode(source, samples, options.evolve(tracks="all"), beats.append)

    assert tones(samples, decoded) == THREE
    assert [track.samples / 16_000 for track in decoded.tracks] == pytest.approx([3.0, 5.0, 4.0], abs=0.2)
    assert decoded.duration_seconds == pytest.approx(5.0, abs=0.2)
    assert decoded.samples == max(track.samples for track in decoded.tracks)
    assert beats == sorted(beats)
    assert decoded.errors == 0


@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_track(number, made, options, samples):
    """It is counted from 1, and nothing of the others is there."""
    source = made("a.mkv", *SPOKEN, "-c:a", "flac", picture=True)

    decoded = decode(source, samples, options.evolve(tracks=number), ignore)

    assert tones(samples, decoded) == THREE[number - 1 : number]
    assert decoded.duration_seconds == pytest.approx([3.0, 5.0, 4.0][number - 1], abs=0.1)
    assert [track.name for track in decoded.tracks] == [["eng", "deu", "fra"][number - 1]]


def test_the_first_track_is_what_it_was(made, options, samples):
    """Nothing changes without the option, to the byte; `tracks: 1` is the same track."""
    source = made("a.mkv", "-c:a", "libopus", picture=True)
    decode(source, samples, options, ignore)
    first = samples.read_bytes()

    decode(source, samples, options.evolve(tracks=1), ignore)

    assert samples.read_bytes() == first
    [span] = audio.loud_spans(samples)
    assert span == pytest.approx((1.0, 2.0), abs=0.1)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_names(name, made, options, samples):
    """Title before language; the ffmpeg of some systems does not tell titles of MP4, so there it is the language."""
    source = made(name, *TITLED, *SPOKEN, "-c:a", "aac")

    decoded = decode(source, samples, options.evolve(tracks="all"), ignore)

    names = [track.name for track in decoded.tracks]
    titled = ["Studio: <A>", "Guest", "fra"]
    spoken = ["eng", "Track 2" if name == "a.mov" else "deu", "fra"]  # the code of German in QuickTime is another
    assert names == titled or (name != "a.mkv" and names == spoken)


def test_channels_of_tracks(made, options, samples):
    """With both options each channel of each track is there, interleaved."""
    source = made("a.mkv", "-c:a", "flac", "-ac:a:1", "2", count=2)

    decoded = decode(source, samples, options.evolve(tracks="all", channels="split"), ignore)

    assert [track.channels for track in decoded.tracks] == [1, 2]
    assert samples.stat().st_size == sum(track.samples * track.channels * 2 for track in decoded.tracks)


@pytest.mark.parametrize(("count", "has"), [(1, "1 sound track"), (3, "3 sound tracks")])
def test_a_track_that_is_missing(count, has, made, options, samples):
    """The reason says how many there are; another attempt would change nothing."""
    source = made("a.mkv", "-c:a", "flac", count=count, picture=True)

    with pytest.raises(InputError) as caught:
        decode(source, samples, options.evolve(tracks=count + 1), ignore)

    assert (caught.value.job_code, caught.value.retryable) == ("no_track", False)
    assert caught.value.message == f"the recording has {has}, so there is no track {count + 1}"
    assert "set tracks" in caught.value.hint
    assert not samples.exists()


def test_empty_tracks_are_left_out(options, samples, tmp_path):
    """An input of a recorder that nobody used harms nothing; chosen by its number, it is refused."""
    source = tmp_path / "a.mkv"
    source.write_bytes(odd_media.matroska(3))

    decoded = decode(source, samples, options.evolve(tracks="all"), ignore)

    assert [(track.samples, track.name) for track in decoded.tracks] == [(16_000, "Track 1")]
    with pytest.raises(InputError) as caught:
        decode(source, samples, options.evolve(tracks=2), ignore)
    assert caught.value.job_code == "no_audio"
    assert caught.value.message.startswith("sound track 2 of 3: ")


def test_a_track_that_is_only_announced(made, options, samples, tmp_path):
    """A broadcast names a track of which nothing was recorded: ffmpeg does not even know its rate."""
    whole = made("whole.ts", *SPOKEN, "-c:a", "aac", picture=True).read_bytes()
    packets = [whole[at : at + PACKET] for at in range(0, len(whole), PACKET)]
    source = tmp_path / "a.ts"
    source.write_bytes(b"".join(each for each in packets if int.from_bytes(each[1:3], "big") & 0x1FFF != 0x102))

    decoded = decode(source, samples, options.evolve(tracks="all"), ignore)

    assert [track.name for track in decoded.tracks] == ["eng", "fra"]
    assert tones(samples, decoded) == [THREE[0], THREE[2]]
    with pytest.raises(InputError, match="sound track 2 of 3") as caught:
        decode(source, samples, options.evolve(tracks=2), ignore)
    assert caught.value.job_code == "no_audio"


def test_times_of_tracks_fit_together(made, options, samples, tmp_path):
    """A container without a picture that counts time from its first sound counts so for every track."""
    first, second = (made(f"{number}.wav", count=1) for number in (1, 2))
    source = tmp_path / "a.ts"
    audio.encode(source, "-itsoffset", 2, "-i", first, "-i", second, "-map", 0, "-map", 1, "-c:a", "aac")

    decoded = decode(source, samples, options.evolve(tracks="all"), ignore)

    assert tones(samples, decoded) == [[(3.0, 4.0)], [(1.0, 2.0)]]
    decode(source, samples, options.evolve(tracks=1), ignore)
    [span] = audio.loud_spans(samples)
    assert span == pytest.approx((3.0, 4.0), abs=0.1)


def test_a_short_track_is_not_cut_off(made, options, samples, tmp_path):
    """The longest track tells whether an upload broke off; where it did, that is said."""
    source = made("a.mka", "-c:a", "pcm_s16le")
    cut = audio.cut(tmp_path / "cut.mka", source, 0.5)

    assert decode(source, samples, options.evolve(tracks="all"), ignore).duration_seconds == pytest.approx(5.0)
    with pytest.raises(InputError) as caught:
        decode(cut, samples, options.evolve(tracks="all"), ignore)
    assert caught.value.job_code == "truncated"


def test_a_track_that_cannot_be_decoded_is_named(made, options, samples, tmp_path):
    """Nothing of it goes missing silently."""
    source = made("a.mkv", "-c:a", "flac", "-c:a:1", "pcm_s16le")
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(source.read_bytes().replace(b"A_PCM/INT/LIT", b"A_PCM/XYZ/LIT"))

    with pytest.raises(InputError) as caught:
        decode(broken, samples, options.evolve(tracks="all"), ignore)

    assert caught.value.message.startswith("sound track 2 of 3: ")
    assert "choose another track" in caught.value.hint
    assert len(decode(broken, samples, options.evolve(tracks=3), ignore).tracks) == 1


def test_more_tracks_than_can_be_taken(options, samples, tmp_path):
    """They are refused before any is decoded; one of them may be chosen."""
    source = tmp_path / "a.mkv"
    source.write_bytes(odd_media.matroska(TRACKS_MAX + 1))

    with pytest.raises(InputError) as caught:
        decode(source, samples, options.evolve(tracks="all"), ignore)

    assert caught.value.job_code == "unsupported"
    assert f"{TRACKS_MAX + 1} sound tracks" in caught.value.message
    assert decode(source, samples, options.evolve(tracks=1), ignore).samples == 16_000


def test_no_recording_is_as_bad_as_ever(options, samples, tmp_path):
    """What is no recording, and what has no sound, is refused with the usual reasons."""
    text = tmp_path / "a.mkv"
    text.write_text("no recording\n" * 100)
    silent = audio.encode(tmp_path / "b.mkv", *PICTURE, "-c:v", "mpeg4")

    codes = []
    for source in (text, silent):
        with pytest.raises(InputError) as caught:
            decode(source, samples, options.evolve(tracks="all"), ignore)
        codes.append(caught.value.job_code)

    assert codes == ["not_media", "no_audio"]


@pytest.mark.parametrize("tracks", ["all", 2])
def test_a_recording_that_is_too_long_ends_at_the_limit(tracks, made, options, samples):
    """Each track has the limit, the second too."""
    source = made("a.mkv", "-c:a", "flac")

    with pytest.raises(InputError) as caught:
        decode(source, samples, options.evolve(tracks=tracks, max_duration_seconds=4.0), ignore)

    assert caught.value.job_code == "too_long"
