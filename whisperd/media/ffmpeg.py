"""Finds the ffmpeg binary, builds its command line and limits its resources.

This module imports nothing heavy, because `whisperd check` uses it too.
"""

from __future__ import annotations

import functools
import os
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from whisperd.core.errors import BootError, NoResources

SAMPLE_RATE = 16_000
BYTES_PER_SAMPLE = 2

# Not inherited: proxies, FFREPORT (which writes files) and LD_PRELOAD. LC_ALL: the messages are parsed, so they are English.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1"}

# Containers of sound that ffmpeg detects by content and that hold all of their data themselves. Nothing else is opened:
# playlists and scripts (hls, dash, concat, sdp, imf, ...) name other files and hosts, mlv looks for files beside its own,
# image2, lavfi and the devices read no file at all, and text and pictures have no sound.
DEMUXERS = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,caf,codec2,dhav,dsf,dss,dts,dtshd,dv,eac3,flac,flv,gsm,gxf,iamf,"
    "iff,ilbc,ircam,ivr,kux,lc3,live_flv,loas,lvf,matroska,mlp,mmf,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,mxg,nistsphere,nsv,nut,"
    "nuv,ogg,oma,osq,pva,pvf,qcp,rka,rm,sbc,shn,sox,spdif,tak,truehd,tta,ty,voc,vqf,w64,wav,webm,wsd,wtv,wv,wve,xwma"
)

# 1. 16 kHz mono first: silence is inserted as one block of memory, which for 48 kHz stereo would be 16 times as large.
# 2. Log the time of the first sound (`print` of ffmpeg-utils(1), EXPRESSION EVALUATION), once.
# 3. Silence in every gap of the timestamps, and from the start of the container to the first sound, so that times in the
#    transcript are those that a player shows.
# 4. Channels that are speakers stay separate, interleaved; then step 1 keeps the number of channels.
FILTERS = (
    f"aformat=sample_fmts=s16:sample_rates={SAMPLE_RATE}{{layout}},"
    "asetpts='PTS+0*if(eq(N,0),print(T,32))',"
    "aresample=async=1:first_pts=0"
)

MEMORY_BYTES = 1 << 30  # an 8K video takes 0.2 GB to look at, an hour of silence 0.25 GB to put in
OPEN_FILES = 16  # needs about 6
SPARE_CPU_SECONDS = 60
PROBE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Ffmpeg:
    """A binary that runs, and its version."""

    path: Path
    version: str
    reads_descriptors: bool  # has the protocol `fd:` (since 6.0)


def find_ffmpeg(configured: Path | None) -> Path:
    """Find the ffmpeg to use: the configured one, else `ffmpeg` on PATH, else the one of imageio-ffmpeg.

    Raises:
        BootError: the configured one does not run, or none is found that does.
    """
    if configured is not None:
        path = Path(shutil.which(configured) or configured)
        inspect(path)
        return path
    on_path = shutil.which("ffmpeg")
    for candidate in (Path(on_path) if on_path else None, _carried()):
        if candidate is not None and _runs(candidate):
            return candidate
    raise BootError(
        f"no ffmpeg that runs: {f'{on_path} fails' if on_path else 'none on PATH'}, and imageio-ffmpeg carries none",
        hint="install ffmpeg, or `pip install imageio-ffmpeg`, or set `media.ffmpeg`",
    )


@functools.lru_cache
def inspect(path: Path) -> Ffmpeg:
    """Run a binary to learn its version and protocols; the answer is cached, because starting ffmpeg is slow.

    Raises:
        BootError: it does not run, or is not an ffmpeg.
        NoResources: the machine starts no process now.
    """
    hint = "install ffmpeg, or set `media.ffmpeg` to one that runs"
    try:
        ran = subprocess.run(
            [path, "-nostdin", "-protocols"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=ENVIRONMENT,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        if isinstance(error, OSError) and error.errno in NoResources.ERRNOS:
            raise NoResources(str(path), error) from error  # BootError would blame a good ffmpeg, and a good recording
        reason = error.strerror if isinstance(error, OSError) else f"no answer within {PROBE_SECONDS} s"
        raise BootError(f"{path} does not run: {reason}", hint=hint) from error
    version = re.match(rb"ffmpeg version (\S{1,80})", ran.stderr)
    if ran.returncode != 0 or version is None:
        raise BootError(f"{path} does not answer as ffmpeg does (exit status {ran.returncode})", hint=hint)
    has_fd = re.search(rb"^\s*fd\s*$", ran.stdout, re.MULTILINE) is not None
    return Ffmpeg(path, version[1].decode("ascii", "replace"), has_fd)


def decode_command(ffmpeg: Ffmpeg, *, split: bool = False) -> list[str]:
    """Build the command that reads a recording on standard input and writes PCM (s16le, 16 kHz, mono) to standard output.

    With `split`, it writes all channels, interleaved.

    The recording is an open descriptor that can seek, because an MP4 may have its index at the end. With `fd:` as the only
    protocol, nothing in a file can make ffmpeg open another file or host. Before version 6 there is only `file:`, and
    `DEMUXERS` alone protects against playlists (no demuxer in it opens files: mov does so only with `enable_drefs`).
    """
    protocol, source = ("fd", "fd:") if ffmpeg.reads_descriptors else ("file", "file:/proc/self/fd/0")
    first_sound = ["-map", "0:a:0"]
    return [
        *(str(ffmpeg.path), "-nostdin", "-nostats", "-hide_banner", "-loglevel", "level+info", "-filter_threads", "1"),
        *("-protocol_whitelist", protocol, "-format_whitelist", DEMUXERS),
        *("-threads", "1", "-discard:v", "nokey", "-sn", "-dn", "-i", source),
        *(
            *first_sound,
            "-af",
            FILTERS.format(layout="" if split else ":channel_layouts=mono"),
            "-c:a",
            "pcm_s16le",
            "-f",
            "s16le",
            "pipe:1",
        ),
        # A second output that discards the video undecoded: without it, MPEG-TS, MPEG-PS and Ogg would count time from the
        # first sound instead of the first picture. It has the sound too, for files without video. `V` leaves out covers,
        # of which a damaged one would end the whole run.
        *(*first_sound, "-map", "0:V:0?", "-c", "copy", "-f", "null", "-"),
    ]


def confine(pid: int, max_duration_seconds: float) -> None:
    """Limit the resources of a running ffmpeg, whatever a hostile file makes it do.

    The parent sets the limits as soon as ffmpeg runs: code between fork and exec is not safe in a process with threads
    (subprocess, `preexec_fn`), and ffmpeg reads nothing of the file before its libraries are loaded. RLIMIT_DATA instead
    of RLIMIT_AS: libraries and mapped files cost nothing. The soft limit equals the hard one, because at the soft CPU
    limit ffmpeg ends as if it had succeeded.
    """
    for which, wanted in (
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_CPU, int(max_duration_seconds) + SPARE_CPU_SECONDS),  # as long as the recording plays
        (resource.RLIMIT_FSIZE, 0),  # it has pipes to write to, and no files
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.prlimit(pid, which)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(pid, which, (value, value))


def _runs(path: Path) -> bool:
    try:
        inspect(path)
    except BootError:
        return False
    return True


def _carried() -> Path | None:
    try:
        import imageio_ffmpeg  # noqa: PLC0415  not needed where the system has its own

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None
