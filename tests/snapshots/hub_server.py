"""A small model hub on loopback: the three routes that the hub's client uses to list and download,
and the ways they go wrong.

Routes and headers as the client reads them: ``/api/models/<repo>[/revision/<revision>]``,
``/api/models/<repo>/tree/<commit>``,
``/<repo>/resolve/<commit>/<path>``. Large files are answered with a redirect to another route, as
the real hub does.
"""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# bytes; a larger file is listed with its SHA-256, a smaller one with Git's blob id
LARGE = 1_000_000


@dataclass
class Repo:
    """One repository: its branches, and its files, the same at every commit."""

    commit: str
    files: dict[str, Path]
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False  # asks for the token below
    gated_files: bool = False  # asks for it for the files only

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, tag or commit."""
        known = {self.commit: self.commit, "main": self.commit} | self.branches
        return known.get(revision)


@dataclass
class Hub:
    """What is served, what to break, and what was asked."""

    repos: dict[str, Repo]
    token: str = "hf_right"
    # path → bytes after which each next answer is cut
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)  # paths whose first byte is changed on the way
    failing: bool = False  # answers 503 to everything
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    url: str = ""

    def bodies(self, path: str) -> int:
        """How often the content of a file was asked for, in whole or part."""
        return sum(
            method == "GET" and asked.endswith(f"/{path}") and "/api/" not in asked
            for method, asked, _ in self.asked
        )


class Server(ThreadingHTTPServer):
    """Takes no notice of clients that hang up: tests kill them."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve on a free port of loopback until the block ends."""
    server = Server(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, self.headers.get("Range")))
            if hub.failing:
                return self.text(503, {})
            if match := re.fullmatch(
                r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+)|/tree/([^/]+))?", path
            ):
                return self.api(match[1], match[2], match[3])
            if match := re.fullmatch(r"/([^/]+/[^/]+)/(resolve|cdn)/([^/]+)/(.+)", path):
                return self.file(match[1], match[2], match[3], match[4], body)
            return self.text(404, {})

        def repo(self, name: str, *, content: bool = False) -> Repo | None:
            found = hub.repos.get(name)
            if found is None:
                self.text(
                    404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
                )
            elif (found.gated or (content and found.gated_files)) and self.headers.get(
                "Authorization"
            ) != f"Bearer {hub.token}":
                self.text(
                    401,
                    {
                        "X-Error-Code": "GatedRepo",
                        "X-Error-Message": "Access to this model is restricted.",
                    },
                )
            else:
                return found
            return None

        def api(self, name: str, revision: str | None, tree: str | None) -> None:
            repo = self.repo(name)
            if repo is None:
                return None
            commit = repo.resolve(tree or revision or "main")
            if commit is None:
                return self.text(
                    404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}
                )
            if tree is None:
                return self.text(
                    200,
                    {},
                    json.dumps(
                        {"id": name, "modelId": name, "sha": commit, "siblings": [], "tags": []}
                    ),
                )
            return self.text(
                200,
                {},
                json.dumps([_listed(path, file) for path, file in sorted(repo.files.items())]),
            )

        def file(self, name: str, route: str, commit: str, path: str, body: bool) -> None:
            # the redirect's target asks for no token
            repo = self.repo(name, content=True) if route == "resolve" else hub.repos[name]
            if repo is None:
                return None
            if repo.resolve(commit) is None:
                return self.text(404, {"X-Error-Code": "RevisionNotFound"})
            if path not in repo.files:
                return self.text(404, {"X-Error-Code": "EntryNotFound"})
            content = repo.files[path].read_bytes()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_id(content)}"'}
            if route == "resolve" and len(content) > LARGE:
                linked = {
                    "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "X-Linked-Size": str(len(content)),
                }
                return self.text(
                    302, headers | linked | {"Location": f"{hub.url}/{name}/cdn/{commit}/{path}"}
                )
            return self.content(path, content, headers, body)

        def content(self, path: str, content: bytes, headers: dict[str, str], body: bool) -> None:
            if path in hub.corrupt:
                content = bytes([content[0] ^ 1]) + content[1:]
            status, start = 200, 0
            if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                status, start = 206, int(wanted[1])
                headers = headers | {
                    "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"
                }
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(content) - start)}).items():
                self.send_header(key, value)
            self.end_headers()
            if not body:
                return
            cuts = hub.cut_after.get(path, [])
            if cuts:
                self.wfile.write(content[start : start + cuts.pop(0)])
                # fewer bytes than announced, as when a cable is pulled
                self.close_connection = True
            else:
                self.wfile.write(content[start:])

        def text(self, status: int, headers: dict[str, str], text: str = "") -> None:
            self.send_response(status)
            for key, value in (
                headers
                | {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(text.encode())),
                }
            ).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(text.encode())

    return Handler


def _listed(path: str, file: Path) -> dict[str, object]:
    content = file.read_bytes()
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": _git_id(content),
    }
    if len(content) > LARGE:
        entry["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 135,
        }
    return entry


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
