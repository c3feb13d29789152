"""What needs the network, in the hardened service: closed at first, open with systemd/network.conf."""

import base64

import pytest
import standardwebhooks
from support.receiver import Receiver
from support.service import REPOSITORY

pytestmark = pytest.mark.systemd

DROP_IN = REPOSITORY / "systemd/network.conf"
SECRET = "/etc/whisperd/webhook.secret"
KEY = base64.b64encode(bytes(range(32))).decode()


def let_out(service):
    """Copy the drop-in as its head says, with the secret as a credential, to the receivers on this machine alone."""
    lines = DROP_IN.read_text()
    wanted = "IPAddressDeny=any", "LoadCredential=whisperd-webhook:/etc/whisperd/webhook.secret"
    for line in wanted:
        assert f"#{line}\n" in lines
        lines = lines.replace(f"#{line}\n", f"{line}\n")
    lines = lines.replace("#IPAddressAllow=localhost 192.0.2.10\n", "IPAddressAllow=localhost\n")
    folder = service.lab.host_path(f"/etc/systemd/system/{service.unit}.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.conf").write_text(lines)


def waiting(service):
    """The notices that have not arrived."""
    folder = service.spool / ".work/.notices"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_webhook_waits_until_the_drop_in_lets_it_out(service):
    """Without the network nothing is lost; with it, and a secret that only the service can read, the notice arrives."""
    secret = service.lab.host_path(SECRET)
    secret.parent.mkdir(exist_ok=True)
    secret.write_text(f"whsec_{KEY}\n")
    secret.chmod(0o600)
    with Receiver() as receiver:
        hook = {"url": receiver.url, "secret": "whisperd-webhook"}
        service.configure(notices={"webhooks": {"test": hook}, "retry_seconds": 0.1})
        let_out(service)
        closed = service.lab.host_path(f"/etc/systemd/system/{service.unit}.d/zz-closed.conf")
        closed.write_text("[Service]\nPrivateNetwork=yes\n")
        service.install()
        service.drop("one.wav")
        service.lab.wait_until("the end of the job", (service.spool / "done/one.wav").exists)
        service.lab.wait_until("a notice that waits", lambda: waiting(service))
        heard_before = list(receiver.requests)
        closed.unlink()
        service.lab.systemctl("daemon-reload")
        service.lab.systemctl("restart", service.unit)
        service.lab.wait_until("the notice", lambda: receiver.requests)
        headers, body = receiver.requests[0]

        assert heard_before == []
        assert standardwebhooks.Webhook(f"whsec_{KEY}").verify(body.decode(), headers)["name"] == "one.wav"
        service.lab.wait_until("nothing waits", lambda: not waiting(service))
