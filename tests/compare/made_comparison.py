"""A comparison, and what its page holds."""

import csv
from html.parser import HTMLParser
from pathlib import Path

from segpets.compare import Result, compare
from segpets.config import compose

HOSTILE = "<img src=x onerror=alert(1)>|\"'&"
NOTES = (
    "* on the front of accuracy against cost: no other run is at least as accurate and as cheap",
    "95 % at epoch: the first epoch whose val mean IoU reaches 95 % of the run's best",
)
FILES = {"compare.html", "compare.csv", "runs.csv", "tests.csv", "compare.md", "compare.tex"}


def compared(*runs: Path | str, folder: Path, **values: object) -> Result:
    cfg = compose([f"hydra.run.dir={folder}", "runs=x"], task="compare")
    cfg.runs = [str(run) for run in runs]
    for key, value in values.items():
        cfg[key] = value
    return compare(cfg)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


class Page(HTMLParser):
    """All that a page would fetch, its tags, and the text that it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {key for key, _ in attrs}
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data
