"""What `whisperd config show` says of settings, and where it says that they come from."""

import pytest
import yaml

from whisperd import cli
from whisperd.settings import config

SETTINGS = """\
root: {root}
pool:
  workers: 2
output: {{formats: [txt, srt]}}
transcription:
  language: de
profiles:
  french/**:
    language: fr
    vad.threshold: 0.4
  "**/long*": {{language: it, beam_size: 2}}
"""


@pytest.fixture
def show(tmp_path, capsys):
    """Run the command; its lines by key, each as its value and its origin."""
    path = tmp_path / "whisperd.yaml"
    path.write_text(SETTINGS.format(root=tmp_path / "spool"))
    (tmp_path / "spool/inbox/french").mkdir(parents=True)

    def run(*arguments, code=0, source=("--config", str(path))):
        assert cli.main(["config", "show", *source, *arguments]) == code
        said = capsys.readouterr()
        lines = dict(line.split(": ", 1) for line in said.out.splitlines())
        found = {key: tuple(part.strip() for part in rest.rsplit("  # ", 1)) for key, rest in lines.items()}
        return {key: (value, origin.replace(f"{path}, ", "")) for key, (value, origin) in found.items()}, said.err

    return run


def test_every_key_has_its_value_and_where_it_comes_from(show):
    """The file with line and column, or the default; what is printed is what is loaded."""
    shown, _ = show()

    assert list(shown) == [key for key in config.dotted_keys() if key != "script"]
    assert shown["pool.workers"] == ("2", "line 3, column 3")
    assert shown["output.formats"] == ("[txt, srt]", "line 4, column 10")
    assert shown["pool.max_attempts"] == (str(config.Config().pool.max_attempts), "default")
    assert yaml.safe_load(shown["profiles"][0])["**/long*"] == {"language": "it", "beam_size": 2}
    assert all(value == yaml.safe_dump(yaml.safe_load(value), default_flow_style=True).removesuffix("...\n").strip()
               for value in (shown[key][0] for key in ("device", "transcription.temperature", "transcription.beam_size")))  # fmt: skip


def test_the_command_line_is_an_origin(show, tmp_path):
    """`--root` alone reads no file."""
    shown, _ = show(source=("--root", str(tmp_path)))

    assert shown["root"] == (str(tmp_path), "--root")
    assert {origin for key, (_, origin) in shown.items() if key != "root"} == {"default"}


def test_an_upload_has_the_settings_of_its_profiles_and_tickets(show, tmp_path):
    """The last one wins, key by key, and is named; tickets are found in any case."""
    inbox = tmp_path / "spool/inbox"
    (inbox / "french/_whisperd.yaml").write_text("# all\ntask: translate\nbeam_size: 3\n")
    (inbox / "french/long.mp3.YML").write_text("beam_size: 4\n")

    shown, _ = show("inbox/french/long.mp3")
    other, _ = show("other.mp3")

    assert shown["transcription.language"] == ("it", "profile **/long*, line 11, column 16")
    assert shown["vad.threshold"] == ("0.4", "profile french/**, line 10, column 5")
    assert shown["transcription.task"] == ("translate", "ticket french/_whisperd.yaml, line 2, column 1")
    assert shown["transcription.beam_size"] == ("4", "ticket french/long.mp3.YML, line 1, column 1")
    assert shown["output.formats"] == ("[txt, srt]", "line 4, column 10")
    assert shown["model"] == ("base", "default")
    assert other["transcription.language"] == ("de", "line 6, column 3")
    assert other["transcription.beam_size"] == ("null", "default")


def test_a_ticket_that_cannot_be_followed_is_said(show, tmp_path):
    """With the message that its recording would fail with."""
    (tmp_path / "spool/inbox/a.mp3.yaml").write_text("langage: fr\n")

    shown, error = show("a.mp3", code=1)

    assert shown == {}
    assert "ticket a.mp3.yaml: line 1, column 1: langage: unknown key (did you mean language?)" in error


@pytest.mark.parametrize("name", ["../a.mp3", "/etc/passwd", "alice/"])
def test_a_name_outside_the_inbox_is_refused(show, name):
    """Nothing outside of it is read."""
    assert "must be a name relative to inbox/" in show(name, code=78)[1]


def test_no_value_can_talk_to_a_terminal(show, tmp_path):
    """A ticket is written by anybody."""
    (tmp_path / "spool/inbox/a.mp3.yaml").write_text('initial_prompt: "\\x1b[2J \\u202e"\n')

    value, _ = show("a.mp3")[0]["transcription.initial_prompt"]

    assert value == '"\\e[2J \\u202E"'


def test_no_token_or_password_is_shown(show, tmp_path):
    """People paste this where they ask for help; a file with a secret is named, since its content stays there."""
    notices = {
        "apprise": ["tgram://bot-token/chat", "https://hooks.example.org/services/bot-token", "/etc/whisperd/chats", "bot-token"],
        "webhooks": {
            "chat": {"url": "https://hooks.example.org/bot-token?key=bot-token", "secret": "/etc/whisperd/secret"},
            "other": {"url": "https://example.org:8443/bot-token", "secret": "bot-token"},
        },
        "on_completed": ["/usr/bin/curl", "-H", "Authorization: bot-token", "https://example.org/bot-token"],
        "mail_to": ["ops@example.org"],
        "mail_from": "whisperd@example.org",
        "smtp_host": "mail.example.org",
        "smtp_user": "whisperd",
        "smtp_password": "bot-token",
    }  # fmt: skip
    path = tmp_path / "with_secrets.yaml"
    path.write_text(yaml.safe_dump({"notices": notices}))

    shown, _ = show(source=("--config", str(path)))

    assert "bot-token" not in str(shown)
    assert shown["notices.apprise"][0] == "['tgram://***', 'https://hooks.example.org/***', /etc/whisperd/chats, '***']"
    assert yaml.safe_load(shown["notices.webhooks"][0])["chat"] == {
        "url": "https://hooks.example.org/***",
        "secret": "/etc/whisperd/secret",
        "events": ["completed", "failed"],
    }
    assert shown["notices.on_completed"][0] == "[/usr/bin/curl, '***', '***', 'https://example.org/***']"
    assert (shown["notices.smtp_password"][0], shown["notices.mail_to"][0]) == ("'***'", "[ops@example.org]")
