"""A local web server of archives, whose answers a test chooses one by one."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    sent: int = 0


Answer = Callable[[BaseHTTPRequestHandler, bytes, Request], None]
"""Answers a request for some bytes, and counts what it sends of them."""


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, content: bytes, request: Request) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@dataclass(frozen=True)
class Serve:
    """Sends a file, or what is left of it, as web servers do, with one fault.

    Attributes:
        drop_after: The connection ends after that many bytes.
        ranges: Whether ranges are known; else the whole file is sent.
        version: The ETag.
        length: A Content-Length that is wrong by so many bytes.
        content_range: A wrong Content-Range.
        content: Other bytes than those of the file.
        chunked: Whether it doesn't tell the length.
        pause: Seconds before each 4096 bytes.
        until: What to wait for after the first half of the bytes.
    """

    drop_after: int | None = None
    ranges: bool = True
    version: str | None = '"1"'
    length: int = 0
    content_range: str | None = None
    content: bytes | None = None
    chunked: bool = False
    pause: float = 0
    until: threading.Event | None = None

    def __call__(self, handler: BaseHTTPRequestHandler, content: bytes, request: Request) -> None:
        content = self.content if self.content is not None else content
        begin = self._begin(handler)
        if begin is not None and begin >= len(content):
            status(416, Content_Range=f"bytes */{len(content)}")(handler, content, request)
            return
        handler.send_response(200 if begin is None else 206)
        body = content[begin or 0 :]
        if begin is not None:
            span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            handler.send_header("Content-Range", self.content_range or span)
        if self.version:
            handler.send_header("ETag", self.version)
        if self.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(len(body) + self.length))
        handler.send_header("Connection", "close")
        handler.end_headers()
        sent = body[: self.drop_after]
        for start in range(0, len(sent), 4096):
            time.sleep(self.pause)
            if self.until and start >= len(sent) // 2:
                self.until.wait(60)
            block = sent[start : start + 4096]
            request.sent += len(block)
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if self.chunked else block)
        if self.chunked and self.drop_after is None:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    def _begin(self, handler: BaseHTTPRequestHandler) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        if not asked or not self.ranges or condition not in (None, self.version):
            return None
        return int(asked[1])


@dataclass
class ArchiveServer:
    """Serves files at `address`.

    Attributes:
        files: Their bytes by path, such as `images.tar.gz`; others are not found.
        answers: The next answers by path; when they are used up, `usual` follows.
        usual: How a file is served.
        requests: What was asked for so far.
    """

    files: dict[str, bytes]
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    usual: Answer = field(default_factory=Serve)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:
                self._answer(handler)

            def log_message(handler, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, path: str) -> list[Request]:
        """The requests for a file."""
        return [request for request in self.requests if request.path == path]

    def sent(self, path: str) -> int:
        """Bytes of a file that were sent in all."""
        return sum(request.sent for request in self.of(path))

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.lstrip("/")
        request = Request(path, dict(handler.headers.items()))
        self.requests.append(request)
        answers = self.answers.get(path, [])
        answer = answers.pop(0) if answers else self.usual if path in self.files else status(404)
        answer(handler, self.files.get(path, b""), request)
