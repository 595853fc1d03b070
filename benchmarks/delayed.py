"""A proxy that answers each HTTP request late, as a server far away does, and may ask who it is."""

import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

PASSED_OVER = {"connection", "content-length", "date", "host", "server", "transfer-encoding"}


class Delayed:
    """A proxy on this machine in front of a server at a port; each request takes longer.

    With `login`, as NAME:PASSWORD, requests without it are refused (basic authentication).
    """

    def __init__(self, port: int, seconds: float, login: str | None = None) -> None:
        self.requests = 0
        self._speaks = Event()
        self._speaks.set()
        proxy = self
        expected = None if login is None else f"Basic {b64encode(login.encode()).decode()}"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                proxy.requests += 1
                time.sleep(seconds)
                proxy._speaks.wait()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                sent = {k: v for k, v in self.headers.items() if k.lower() not in PASSED_OVER}
                if expected is not None and self.headers.get("Authorization") != expected:
                    self.send_error(401)
                    return
                behind = HTTPConnection("127.0.0.1", port)
                behind.request(self.command, self.path, body, sent)
                answer = behind.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in PASSED_OVER:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer no request until the block is left."""
        self._speaks.clear()
        try:
            yield
        finally:
            self._speaks.set()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
