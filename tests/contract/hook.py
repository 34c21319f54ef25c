"""A receiver of notifications that keeps what it was sent."""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson


@dataclass(frozen=True)
class Heard:
    """One request to the hook."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Hook:
    """Listens on loopback from `__enter__` to `__exit__` and answers 200."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        hook = self

        class Take(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _take(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                hook.heard.append(Heard(self.command, self.path, headers, orjson.loads(raw) if raw.strip() else None))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_POST = do_DELETE = _take  # noqa: N815 -- the library calls by these names

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="hook")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
