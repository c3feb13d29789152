"""A real daemon tells of the ends of jobs: real scripts, a real HTTP receiver, a sendmail that is a script."""

import base64
import json
import os
import signal
import socket
from email import message_from_bytes, policy

import pytest
import standardwebhooks
import trustme
from support.daemon import Daemon, tone
from support.mail_server import MailServer
from support.receiver import Receiver

KEY = base64.b64encode(bytes(range(32))).decode()
HOSTILE = os.fsdecode(b'a\nBcc: eve@example.org\n"$(touch x)"\xff.wav')


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def told(tmp_path):
    """Where the hook of the tests writes down what it is told, one folder per run."""
    return tmp_path / "told"


@pytest.fixture
def hook(tmp_path, told):
    """A command that writes down its arguments, environment and input; what follows in `then` comes after that."""

    def make(then=""):
        script = tmp_path / "hook"
        script.write_text(
            f"""#!/bin/bash
            mkdir -p {told} && run=$(mktemp -d {told}/.run-XXXXXX) && cd "$run" || exit 9
            printf '%s\\0' "$@" >arguments; env -0 >environment; cat >input
            cd /; mv "$run" "{told}/$(ls {told} | wc -l)"
            {then}
            """
        )
        script.chmod(0o755)
        return str(script)

    return make


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"whsec_{KEY}\n")
    return path


def runs(told):
    """What the hook was told, run by run."""
    found = []
    for run in sorted(told.glob("[0-9]*"), key=lambda path: int(path.name)):
        pairs = (run / "environment").read_bytes().split(b"\0")
        environment = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if pair)
        arguments = os.fsdecode((run / "arguments").read_bytes()).split("\0")[:-1]
        found.append((arguments, environment, json.loads((run / "input").read_text())))
    return found


def work_off(root, settings):
    """Run a daemon to its end."""
    with Daemon(root, settings, once=True) as daemon:
        daemon.exit_status = daemon.wait_exit()
    return daemon


def waiting(root):
    """The notices that have not been delivered."""
    folder = root / ".work/.notices"
    return sorted(os.listdir(folder)) if folder.exists() else []


def webhook(url, secret):
    return {"webhooks": {"test": {"url": url, "secret": str(secret)}}, "retry_seconds": 0.1}


def test_hooks_are_told_of_each_end_by_arguments_environment_and_input(root, told, hook):
    """One command for the good end, one for the bad; no shell reads the arguments, paths are those on disk."""
    command = hook()
    tone(root / "inbox" / HOSTILE, seconds=0.3)
    (root / "inbox/empty.wav").touch()
    notices = {"on_completed": [command, "completed", "$HOME; `x`"], "on_failed": [command, "failed"]}
    daemon = work_off(root, {"notices": notices})
    (_, good, completed), (_, bad, failed) = sorted(runs(told), key=lambda run: run[2]["status"])

    assert {tuple(run[0]) for run in runs(told)} == {("completed", "$HOME; `x`"), ("failed",)}
    assert completed == daemon.sidecar(HOSTILE)
    assert failed == daemon.sidecar("empty.wav")
    assert (good["WHISPERD_EVENT"], good["WHISPERD_ID"], good["WHISPERD_NAME"]) == (
        "completed",
        completed["id"],
        HOSTILE,
    )
    assert good["WHISPERD_ORIGINAL"] == str(root / "done" / HOSTILE)
    assert good["WHISPERD_OUTPUT_TXT"] == str(root / "outbox" / HOSTILE.replace(".wav", ".txt"))
    assert all(os.path.exists(good[key]) for key in good if key.startswith(("WHISPERD_OUTPUT_", "WHISPERD_ST")))
    assert (bad["WHISPERD_ERROR"], bad["WHISPERD_ORIGINAL"]) == ("empty", str(root / "failed/empty.wav"))
    assert waiting(root) == []


def test_a_hook_that_fails_harms_nothing(root, hook):
    """Its exit status and the beginning of what it printed are logged, escaped; the job stays as it is."""
    tone(root / "inbox/a.wav", seconds=0.3)
    then = r"printf 'bad\033[31m\n<2>worse\n'; head -c 300000 /dev/zero | tr '\0' x; exit 3"
    daemon = work_off(root, {"notices": {"on_completed": [hook(then)]}})
    (line,) = [line for line in daemon.lines if "on_completed" in line]

    assert daemon.exit_status == 0
    assert daemon.status("a.wav") == "completed"
    assert r"was not notified, exit status 3: bad\x1b[31m | <2>worse | xxx" in line
    assert len(line) < 2500
    assert waiting(root) == []


def test_a_hook_that_hangs_is_killed_and_holds_up_no_job(root, told, hook):
    """Other jobs end meanwhile; at its deadline it dies with all that it started, though it ignores SIGTERM."""
    notices = {"on_completed": [hook("trap '' TERM; sleep 1000 & echo $! >/dev/stdout; wait")]}
    with Daemon(root, {"notices": {**notices, "hook_timeout_seconds": 2.0}}) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=0.3)
        daemon.wait(lambda: runs(told), what="the hook")
        tone(root / "inbox/b.wav", seconds=0.3)
        daemon.wait((root / "done/b.wav").exists, what="the second job")
        early = daemon.logged("a.wav: on_completed was not notified, killed after 2 s")
        daemon.wait(
            lambda: daemon.logged("a.wav: on_completed was not notified, killed after 2 s"), what="the deadline"
        )
        (line,) = [line for line in daemon.lines if "a.wav: on_completed" in line]

        assert not early
        daemon.wait(lambda: not os.path.exists(f"/proc/{line.split()[-1]}"), what="the end of what it started")
        daemon.wait(lambda: len(runs(told)) == 2, what="the second run, once the first has ended")
        daemon.stop(signal.SIGQUIT)


def test_a_stop_waits_for_a_hook_as_long_as_for_a_job(root, told, hook):
    """A hook that does not come to its end in the grace time is told again at the next start, with the same id."""
    notices = {"on_completed": [hook('[ -e "$0.once" ] || { touch "$0.once"; sleep 1000; }')]}
    settings = {"notices": notices, "pool": {"stop_grace_seconds": 0.5}}
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=0.3)
        daemon.wait(lambda: runs(told), what="the hook")
        status = daemon.stop(within_seconds=10.0)
    left = waiting(root)
    work_off(root, settings)
    first, second = runs(told)

    assert status == 0
    assert len(left) == 1
    assert first[1]["WHISPERD_ID"] == second[1]["WHISPERD_ID"]
    assert first[2] == second[2]
    assert waiting(root) == []


@pytest.mark.parametrize(
    ("point", "script"),
    [
        ("publish.after_status_file", "ok"),
        ("publish.after_notification", "ok"),
        ("publish.after_original", "ok"),
        ("fail.after_notification", "raise:input"),
        ("fail.after_original", "raise:input"),
    ],
)
def test_a_daemon_killed_between_the_end_of_a_job_and_its_notice_still_tells(root, told, hook, point, script):
    """Wherever it dies, the next one tells: exactly once, since nobody had been told before."""
    command = hook()
    settings = {"script": script, "notices": {"on_completed": [command], "on_failed": [command]}}
    tone(root / "inbox/a.wav", seconds=0.3)
    with Daemon(root, settings, {"WHISPERD_FAILPOINT": point}) as daemon:
        assert daemon.wait_exit() == -signal.SIGKILL
    before = runs(told)
    daemon = work_off(root, settings)

    assert before == []
    ((_, environment, document),) = runs(told)
    assert document == daemon.sidecar("a.wav")
    assert environment["WHISPERD_EVENT"] == ("completed" if script == "ok" else "failed")
    assert waiting(root) == []


def test_a_daemon_killed_while_it_tells_tells_again(root, secret):
    """Twice, with one id, is allowed; never is not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        settings = {"notices": webhook(url, secret)}
        with Daemon(root, settings) as daemon:
            daemon.wait_ready()
            tone(root / "inbox/a.wav", seconds=0.3)
            silent.settimeout(30.0)
            connection, _ = silent.accept()
            with connection:
                connection.settimeout(30.0)
                first = connection.recv(65536)
                daemon.kill()
        port = silent.getsockname()[1]
    with Receiver(port=port) as receiver:
        work_off(root, settings)
        ((headers, _),) = receiver.requests

    assert f"webhook-id: {headers['webhook-id']}".encode() in first
    assert waiting(root) == []


def test_a_webhook_is_signed_and_tried_until_it_arrives(root, secret):
    """Refused, it comes again with the same id and body; the verifier of the Standard Webhooks specification is content."""
    tone(root / "inbox/a.wav", seconds=0.3)
    with Receiver(500, 429) as receiver, Daemon(root, {"notices": webhook(receiver.url, secret)}) as daemon:
        daemon.wait(lambda: len(receiver.requests) == 3, what="three requests")
        daemon.wait(lambda: waiting(root) == [], what="the end of the notice")
        daemon.stop()
    verifier = standardwebhooks.Webhook(f"whsec_{KEY}")
    documents = [verifier.verify(body.decode(), headers) for headers, body in receiver.requests]

    assert documents == [daemon.sidecar("a.wav")] * 3
    assert {headers["webhook-id"] for headers, _ in receiver.requests} == {documents[0]["id"]}
    assert daemon.logged("could not notify webhook-test, exit status 75: 127.0.0.1 answered 500; again in 0 s")
    assert daemon.logged("a.wav: notified webhook-test")
    assert KEY not in "".join(daemon.lines)


def test_a_webhook_waits_on_disk_for_a_receiver_that_is_down(root, secret):
    """Over a restart, and over a daemon that is not allowed to tell any more: what is not configured is not told."""
    tone(root / "inbox/a.wav", seconds=0.3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = {"notices": webhook(f"http://127.0.0.1:{port}/", secret)}
    settings["notices"]["webhooks"]["other"] = {"url": f"http://127.0.0.1:{port}/other", "secret": str(secret)}
    work_off(root, settings)
    left = waiting(root)
    del settings["notices"]["webhooks"]["other"]
    with Receiver(port=port) as receiver:
        daemon = work_off(root, settings)
        ((headers, body),) = receiver.requests

    assert len(left) == 2
    assert json.loads(body)["id"] == headers["webhook-id"]
    assert daemon.logged("webhook-other was not notified, it is not configured any more")
    assert waiting(root) == []


def test_a_redirect_is_not_followed_and_gone_is_final(root, secret):
    """Only the configured host is told; one that answers 410 is not asked again."""
    tone(root / "inbox/a.wav", seconds=0.3)
    with Receiver() as elsewhere, Receiver(307, 410, location=elsewhere.url) as receiver:
        settings = {"notices": webhook(receiver.url, secret)}
        with Daemon(root, settings) as daemon:
            daemon.wait(lambda: daemon.logged("was not notified, exit status 69: 127.0.0.1 answered 410"), what="410")
            daemon.stop()

    assert (len(receiver.requests), elsewhere.requests) == (2, [])
    assert waiting(root) == []


def test_a_certificate_that_nobody_vouches_for_is_refused(root, secret, tmp_path):
    """TLS is verified: nothing is sent to who cannot prove to be the host; with the authority known it is."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    tone(root / "inbox/a.wav", seconds=0.3)
    with Receiver(certificate=authority.issue_cert("localhost")) as receiver:
        settings = {"notices": webhook(receiver.url, secret)}
        stranger = work_off(root, settings)
        refused = list(receiver.requests)
        with Daemon(root, settings, {"SSL_CERT_FILE": str(tmp_path / "authority.pem")}) as daemon:
            daemon.wait(lambda: receiver.requests, what="the request")
            daemon.wait(lambda: waiting(root) == [], what="the end of the notice")
            daemon.stop()

    assert stranger.logged("certificate verify failed")
    assert refused == []


def test_mail_goes_through_sendmail_and_no_name_adds_a_header(root, tmp_path):
    """To the configured recipients only, tried again when sendmail says so."""
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(
        '#!/bin/sh\n[ -e "$0.asked" ] || { touch "$0.asked"; echo busy; exit 75; }\n'
        'printf "%s " "$@" >"$0.arguments"; cat >"$0.mail"\n'
    )
    sendmail.chmod(0o755)
    (root / "inbox").mkdir(parents=True)
    (root / "inbox" / HOSTILE).touch()
    notices = {
        "mail_to": ["ops@example.org", "root"],
        "mail_from": "whisperd@example.org",
        "sendmail": str(sendmail),
        "retry_seconds": 0.1,
    }
    daemon = Daemon(root, {"intake": {"empty_seconds": 0.1}, "notices": notices})
    with daemon:
        daemon.wait(lambda: daemon.logged("notified mail in"), what="the mail")
        daemon.stop()
    mail = message_from_bytes((tmp_path / "sendmail.mail").read_bytes(), policy=policy.default)

    assert (tmp_path / "sendmail.arguments").read_text() == "-t -i -f whisperd@example.org "
    assert set(mail.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert (mail["To"], mail["From"]) == ("ops@example.org, root", "whisperd@example.org")
    assert mail["Subject"].strip().startswith(r'a\nBcc: eve@example.org\n"$(touch x)"\xff.wav: failed')
    assert daemon.sidecar(HOSTILE)["error"]["hint"] in mail.get_content()
    assert daemon.logged("could not notify mail, exit status 75: busy")
    assert waiting(root) == []


def test_the_transcript_goes_to_whom_the_profile_names_and_to_nobody_else(root):
    """Byte for byte, whatever the file is called; a recording of another folder, or one that fails, leads to no mail."""
    notices = {"mail_from": "whisperd@example.org", "smtp_host": "127.0.0.1", "smtp_security": "none"}
    profiles = {"calls/**": {"mail_transcript_to": ["office@example.org", "me@example.org"]}}
    (root / "inbox/calls").mkdir(parents=True)
    tone(root / "inbox/calls" / HOSTILE, seconds=0.3)
    tone(root / "inbox/a.wav", seconds=0.3)
    (root / "inbox/calls/empty.wav").touch()
    with MailServer(refusals={"me@example.org": ["450 later"]}) as server:
        settings = {"notices": notices | {"smtp_port": server.port, "retry_seconds": 0.1}, "profiles": profiles}
        with Daemon(root, settings | {"intake": {"empty_seconds": 0.1}}) as daemon:
            daemon.wait(lambda: len(server.mails) == 2, what="both mails")
            daemon.wait(lambda: waiting(root) == [], what="the end of the notice")
            daemon.wait((root / "done/a.wav").exists, what="the other job")
            daemon.wait((root / "failed/calls/empty.wav").exists, what="the failure")
            daemon.stop()
        (_, early, first), (sender, recipients, second) = server.mails
    transcript = (root / "outbox/calls" / HOSTILE.replace(".wav", ".txt")).read_text()
    attached = {each.get_filename(): each for each in second.iter_attachments()}

    assert (sender, early, recipients) == (
        "whisperd@example.org",
        ["office@example.org"],
        ["office@example.org", "me@example.org"],
    )
    assert first["Message-ID"] == second["Message-ID"]
    (text,) = [each.get_content() for name, each in attached.items() if name.endswith(".txt")]
    assert text == transcript
    assert daemon.logged("for now the server refuses me@example.org: 450 later; again in")
    assert daemon.logged("notified mail-transcript")


def test_a_chat_is_told_by_apprise_and_no_token_gets_into_the_log(root):
    """Of a completed job as of a failed one, again when it was refused."""
    tone(root / "inbox/a.wav", seconds=0.3)
    (root / "inbox/empty.wav").touch()
    with Receiver(503) as receiver:
        address = f"json://127.0.0.1:{receiver.port}/secret-word"
        settings = {"notices": {"apprise": [address], "retry_seconds": 0.1}, "intake": {"empty_seconds": 0.1}}
        with Daemon(root, settings) as daemon:
            daemon.wait(lambda: len(receiver.requests) == 3, what="two notices, and one again")
            daemon.wait(lambda: waiting(root) == [], what="the end of the notices")
            daemon.stop()
    told = {json.loads(body)["type"] for _, body in receiver.requests}

    assert told == {"success", "failure"}
    assert daemon.logged("could not notify apprise-json-")
    assert "secret-word" not in "".join(daemon.lines)
