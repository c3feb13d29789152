"""A real SMTP server that takes mail, and answers as it is told."""

from __future__ import annotations

import asyncio
import ssl
import threading
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult


class MailServer:
    """Listens on a port of its own until the block ends.

    Args:
        refusals: recipient -> the answers to its first mentions, such as `450 later`.
        data: the answers to the first mails; afterwards they are taken.
        certificate: a `trustme` certificate, for TLS.
        security: starttls, tls or none; encryption is required.
        login: user and password that are required.

    Attributes:
        logins: user and password of each login.
        mails: `(sender, recipients, the parsed mail)` of each mail that was taken.
    """

    def __init__(self, *, refusals=None, data=(), certificate=None, security="none", login=None):
        self.mails, self.logins = [], []
        self._refusals, self._data, self._login = dict(refusals or {}), list(data), login
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
        options = {"authenticator": self._authenticate, "auth_required": login is not None, "decode_data": False}
        if security == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        elif security == "tls":
            options |= {"auth_require_tls": False, "auth_required": False}  # aiosmtpd means STARTTLS by these
        self._options, self._implicit = options, context if security == "tls" else None

    def _authenticate(self, server, session, envelope, mechanism, data):
        given = (data.login.decode(), data.password.decode())
        self.logins.append(given)
        return AuthResult(success=given == self._login, handled=False)

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if self._refusals.get(address):
            return self._refusals[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if self._data:
            return self._data.pop(0)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, mail))
        return "250 OK"

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._talks = []
        listening = self._loop.create_server(self._talk, "127.0.0.1", 0, ssl=self._implicit)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error):
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _talk(self):
        self._talks.append(SMTP(self, loop=self._loop, **self._options))
        return self._talks[-1]

    async def _close(self):
        self._server.close()
        for talk in self._talks:
            if talk.transport is not None:
                talk.transport.abort()
        talking = asyncio.all_tasks() - {asyncio.current_task()}
        for each in talking:
            each.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        await asyncio.sleep(0)  # the sockets are closed in the next round
