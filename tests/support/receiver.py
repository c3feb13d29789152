"""A real HTTP server that takes webhooks, and answers as it is told."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Listens on a port of its own until the block ends.

    Args:
        answers: the statuses of the first answers; afterwards 204.
        location: where a redirect leads.
        certificate: a `trustme` certificate, for https.
        port: 0 for any.

    Attributes:
        requests: `(headers in lower case, body)` of each request.
    """

    def __init__(self, *answers: int, location: str = "", certificate=None, port: int = 0):
        self.requests: list[tuple[dict[str, str], bytes]] = []
        waiting = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):  # noqa: N805
                body = handler.rfile.read(int(handler.headers["content-length"]))
                self.requests.append(({key.lower(): value for key, value in handler.headers.items()}, body))
                handler.send_response(waiting.pop(0) if waiting else 204)
                if location:
                    handler.send_header("location", location)
                handler.send_header("content-length", "0")
                handler.end_headers()

            def log_message(handler, *words):  # noqa: N805
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.handle_error = lambda *error: None  # a client that goes away is no matter for stderr
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if certificate is not None else "http"
        host = "localhost" if certificate is not None else "127.0.0.1"
        self.port = self._server.server_address[1]
        self.url = f"{scheme}://{host}:{self.port}/told?by=whisperd"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
