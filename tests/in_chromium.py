"""Opens a page in Chromium: `make test` needs none, `make test-all` does, and says so."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_WATCH = """<script>
window.failures = [];
addEventListener("error", event => failures.push(String(event.message)));
addEventListener("unhandledrejection", event => failures.push(String(event.reason)));
addEventListener("securitypolicyviolation", event => failures.push("blocked " + event.blockedURI));
addEventListener("load", async () => {
  const seen = {};
  try { await (async () => { %s })(); } catch (error) { failures.push(String(error.stack)); }
  document.title = JSON.stringify({ ...seen, failures });
});
</script>"""


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail(
            "this test opens a page in Chromium, and there is none: apt install chromium, or set "
            "CHROMIUM=/path/to/chrome, or leave such tests out with make test-all "
            "ARGS=\"-m 'not gpu and not browser'\""
        )
    return found


def opened(page: str, script: str, folder: Path, *, fragment: str = "") -> dict[str, Any]:
    """Opens a page without a network, and asks it something.

    Args:
        page: Its HTML.
        script: What is run once it is loaded; it puts what it finds out into `seen`.
        folder: Where page and profile are kept.
        fragment: What stands behind the # of its address.

    Returns:
        What is `seen`, and as `failures` what went wrong or was blocked. Nothing may be said on the
        console.
    """
    file = folder / "page.html"
    file.write_text(page.replace("<title>", f"{_WATCH % script}<title>", 1), encoding="utf-8")
    done = subprocess.run(
        [
            chromium(),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,900"),
            f"--user-data-dir={folder / 'profile'}",
            *("--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"),
            f"{file.as_uri()}{fragment and '#'}{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    dumped = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert dumped, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(dumped[1]))
    return found
