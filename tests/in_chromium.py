"""Opens a page in Chromium and asks it: `make test` needs none, `make test-all` does, and says so.

Chromium is spoken to by its DevTools protocol over a pipe, which needs no library: messages are
JSON that ends in a zero byte, on its file descriptors 3 and 4.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import Any, BinaryIO

import pytest


def chromium() -> str:
    """Where Chromium is; the test fails where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail(
            "this test opens a page in Chromium, and there is none: apt install chromium, or set "
            "CHROMIUM=/path/to/chrome, or leave such tests out with make test-all "
            "ARGS=\"-m 'not gpu and not browser'\""
        )
    return found


class Tab:
    """A page that is open.

    Attributes:
        failures: What went wrong so far: errors, all that the console says, and requests to a
            network.
    """

    def __init__(
        self, to_browser: BinaryIO, from_browser: BinaryIO, *, allowed: str, width: int
    ) -> None:
        self._out, self._in = to_browser, from_browser
        self._allowed, self._width = allowed, width
        self._number, self._session = 0, ""
        self._events: list[str] = []
        self.failures: list[str] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command of the protocol and waits for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, address: str) -> None:
        """Opens a page and waits until it is loaded; the network is cut, unless one is allowed."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.send(f"{domain}.enable")
        size = {"width": self._width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        if not self._allowed:
            offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            self.send("Network.emulateNetworkConditions", offline=True, **offline)
        self._events.clear()
        self.send("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._next()

    def ask(self, script: str) -> dict[str, Any]:
        """Runs the body of an async function in the page; gives what it puts into `seen`."""
        body = f"(async () => {{ const seen = {{}}; {script}; return seen; }})()"
        answer = self.send(
            "Runtime.evaluate", expression=body, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        seen: dict[str, Any] = answer["result"]["value"]
        return seen

    def escape(self) -> None:
        """Presses Escape as a hand would: what a browser does by itself, no script can ask for."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key="Escape", windowsVirtualKeyCode=27)

    def close(self) -> None:
        """Ends the browser."""
        self._session = ""
        with suppress(AssertionError, OSError):  # it may end before it answers
            self.send("Browser.close")

    def _next(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "Chromium ended"
            content += byte
        message: dict[str, Any] = json.loads(content)
        method, params = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if not address.startswith(("file:", "data:", "blob:", self._allowed or "file:")):
                self.failures.append(address)
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.failures.append(json.dumps(params))
        return message


def opened(
    page: str, folder: Path, *, fragment: str = "", width: int = 1400
) -> AbstractContextManager[Tab]:
    """Opens a page in a browser of its own, without a network.

    Args:
        page: Its HTML.
        folder: Where page and profile are kept.
        fragment: What stands behind the # of its address.
        width: Of the window, in pixels.
    """
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    return visited(file.as_uri() + (fragment and f"#{fragment}"), folder, width=width)


@contextmanager
def visited(address: str, folder: Path, *, allowed: str = "", width: int = 1400) -> Iterator[Tab]:
    """Opens an address in a browser of its own.

    Args:
        address: Of a file, or of a server of the test's.
        folder: Where the profile is kept.
        allowed: How the addresses begin that may be fetched beside files; none.
        width: Of the window, in pixels.
    """
    reads, to_browser = os.pipe()
    from_browser, writes = os.pipe()
    theirs = [fcntl(end, F_DUPFD, 10) for end in (reads, writes)]  # away from 3 and 4
    os.close(reads)
    os.close(writes)

    def place() -> None:
        os.dup2(theirs[0], 3)
        os.dup2(theirs[1], 4)

    process = subprocess.Popen(
        [
            chromium(),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1400,900"),
            *(f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(3, 4),
        preexec_fn=place,
    )
    for end in theirs:
        os.close(end)
    with os.fdopen(to_browser, "wb") as out, os.fdopen(from_browser, "rb") as into:
        try:
            tab = Tab(out, into, allowed=allowed, width=width)
            tab.open(address)
            yield tab
            tab.close()
        finally:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
