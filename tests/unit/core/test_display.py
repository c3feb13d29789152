"""Names, sizes and times as they are shown to people."""

from __future__ import annotations

import itertools

import pytest

from whisperd.core.display import (
    clock,
    mebibytes,
    one_line,
    printable,
    readable_duration,
    readable_size,
    without_secrets,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("alice/interview.mp3", "alice/interview.mp3", id="plain"),
        pytest.param("Gespräch mit Ägir.mp3", "Gespräch mit Ägir.mp3", id="umlauts"),
        pytest.param("会议录音🎙.mp3", "会议录音🎙.mp3", id="wide_characters"),
        pytest.param("a\u00a0b\u3000c.mp3", "a\u00a0b\u3000c.mp3", id="no_break_and_wide_space"),
        pytest.param("AC\\DC.mp3", "AC\\\\DC.mp3", id="backslash"),
        pytest.param("a\nb.mp3", "a\\nb.mp3", id="newline"),
        pytest.param("a\r\tb.mp3", "a\\r\\tb.mp3", id="carriage_return_and_tab"),
        pytest.param("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m", id="terminal_escape"),
        pytest.param("\u009b31mred", "\\u009b31mred", id="terminal_escape_in_one_byte"),
        pytest.param("\u202egpj.mp3", "\\u202egpj.mp3", id="bidi_override"),
        pytest.param("a\u200bb\ufeff", "a\\u200bb\\ufeff", id="invisible"),
        pytest.param("a\u2028b", "a\\u2028b", id="line_separator"),
        pytest.param("a\udcff\udc80.mp3", "a\\xff\\x80.mp3", id="not_utf8"),
        pytest.param("\U000e0041", "\\U000e0041", id="tag_character"),
    ],
)
def test_a_name_is_shown_with_escapes_for_what_must_not_reach_a_terminal_or_a_log(name, shown):
    """One name is one line, cannot move the cursor and reads in the direction in which it is written."""
    assert printable(name) == shown


def test_no_two_names_are_shown_alike():
    """A backslash in a name is told from one that an escape brought."""
    alphabet = ["\\", "n", "\n", "x", "9", "b", "u", "0", "\udc9b", "\x9b", "\u202e"]
    every_name = ["".join(letters) for count in range(5) for letters in itertools.product(alphabet, repeat=count)]

    shown = {printable(name) for name in every_name}

    assert len(shown) == len(every_name)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (5_000, "5.0 kB"), (81_400_000, "81 MB"),
        (1_500_000_000, "1.5 GB"), (250_000_000_000, "250.0 GB"), (2_000_000_000_000, "2.0 TB"),
    ],
)  # fmt: skip
def test_a_size_is_shown_in_the_unit_that_leaves_few_digits(count, shown):
    """In powers of 1000, as disks are sold."""
    assert readable_size(count) == shown


def test_a_limit_is_shown_as_it_is_written_in_the_configuration():
    """`500M` is 500 times 2**20 bytes there."""
    assert mebibytes(500 << 20) == "500 MB"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (725, "12 min"), (4800, "1 h 20 min")]
)
def test_a_duration_is_shown_in_words(seconds, shown):
    """Seconds matter only where there are few."""
    assert readable_duration(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (123.9, "2:03"), (3599.9, "59:59"), (3723, "1:02:03")])
def test_a_position_is_shown_like_on_a_player(seconds, shown):
    """The second that is under way, hours only where there are some."""
    assert clock(seconds) == shown


def test_text_from_outside_becomes_one_line():
    """Neither a line break nor a direction mark reaches a mail's subject or a page."""
    assert one_line("a\r\nb\u202ec") == "a  b c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://hooks.example.org/services/T0/token?key=token#token", "https://hooks.example.org/***"),
        ("https://host:8443/", "https://host:8443/***"),
        ("https://me:token@host/path", "https://***"),
        ("https://me:to/ken@host/path", "https://***"),
        ("https://[token", "https://***"),
        ("https://host:token/", "https://***"),
        ("tgram://123:token/chat", "tgram://***"),
        ("token tgram://token token", "tgram://***"),
        ("token ://token", "***"),
        ("/etc/whisperd/chats", "/etc/whisperd/chats"),
        ("base", "base"),
    ],
)
def test_of_an_address_only_what_is_no_secret_is_shown(text, shown):
    """A web address keeps its host; those of chats have the token in its place."""
    assert without_secrets(text) == shown
