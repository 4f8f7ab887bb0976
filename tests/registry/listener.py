"""Somebody's server, as an address in a tag may name it."""

import http.server
import threading
from types import TracebackType
from typing import Any, Self

BYTES = b'{"a": 1}'


class Listener:
    """Somebody's server: what it was asked for, and by whom."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(f"{self.path} {self.headers.get('Authorization')}")
                if self.path.endswith("/whole"):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(BYTES)))
                    self.end_headers()
                    self.wfile.write(BYTES)
                elif self.path.endswith("/drip"):
                    self.send_response(200)
                    self.send_header("Content-Length", "1000000")
                    self.end_headers()
                    while not outer.released.wait(0.1):
                        try:
                            self.wfile.write(b"x")
                            self.wfile.flush()
                        except OSError:  # whoever asked has gone
                            return
                else:
                    self.send_response(404)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
