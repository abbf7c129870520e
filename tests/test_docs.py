"""What the pages under docs/ say, done: commands compose, messages come, every key is explained."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fixture_types import Command, Tiny

from segpets.cli import groups
from segpets.config import compose
from segpets.paths import conf_dir
from segpets.train import Result

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
ERRORS = re.findall(
    r"^    \$ python -m (segpets\.\w+) (.*)\n    (error: .*)$", TEXT["docs/errors.md"], re.MULTILINE
)


@pytest.mark.parametrize(("module", "words", "answer"), ERRORS, ids=lambda word: word)
def test_an_error_of_the_page_is_what_the_command_answers(
    module: str, words: str, answer: str, command: Command
) -> None:
    done = command(*shlex.split(words), module=module)
    assert done.returncode == 1
    assert answer in done.stdout
    assert "Traceback" not in done.stdout


def test_the_page_of_errors_quotes_messages_that_the_code_has() -> None:
    source = "\n".join(file.read_text() for file in (ROOT / "segpets").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # joined as Python joins them
    quoted = re.findall(r'^\*\*"(.+?)"', TEXT["docs/errors.md"], re.MULTILINE)
    assert len(quoted) >= 5
    for message in quoted:
        for part in re.split(r"\.\.\.|/", message):
            assert part.strip(" ,") in source, message


def test_every_key_of_every_config_is_explained() -> None:
    assert reference.unexplained() == []


def test_the_reference_has_every_group_option_and_key() -> None:
    page = reference.as_markdown()
    for group, options in groups([conf_dir()]).items():
        assert f"## `{group}`" in page
        for option in options:
            assert f"### `{group}={option}`" in page
    cfg = compose()
    for key in ("optimizer.lr", "loss.weights.overlap", "data.size", "trainer.max_epochs"):
        assert f"| `{key}` |" in page
        assert key.split(".")[0] in cfg
    row = "| `optimizer.lr` | `5.0e-3` | the peak, where the schedule has one |"
    assert row in page


def test_a_comment_is_taken_from_behind_a_key_or_from_above_it(tmp_path: Path) -> None:
    folder = reference.CONF / "data"
    keys = {key.path: key for key in reference.read(folder / "folder.yaml").keys}
    assert keys["data.threshold"].meaning.startswith("in place of values")
    assert keys["data.values"].meaning.startswith("What masks hold: {0: background")
    assert keys["data.mask_pattern"].value == '"{stem}"'
    assert not any(path.startswith("data.module") for path in keys)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.fetched.append(named.get("src") or "")
        if tag == "link" and named.get("rel") == "stylesheet":
            self.fetched.append(named.get("href") or "")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    return folder


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert {"index.html", "reference.html", "api.html"} <= {page.name for page in pages}
    for page in pages:
        links = _Links()
        links.feed(page.read_text())
        assert not [link for link in links.fetched if re.match(r"(https?:)?//", link)], page


@pytest.mark.slow
def test_no_link_and_no_picture_of_the_site_leads_nowhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its links are those of a web server's root
            continue
        for link in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text()):
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / link).exists(), f"{page}: {link}"


def compose_words(words: str, folder: Path) -> list[str]:
    """The first job's overrides of a command of a page."""
    found = []
    skip = False
    for word in shlex.split(words.replace("FOLDER", str(folder))):
        if skip or word in ("-m", "--config-dir"):
            skip = word == "--config-dir"
            continue
        if "hydra/launcher" in word or "hydra.launcher" in word:  # packages of their own
            continue
        first = re.sub(r"=([^\[,({'\"]*),.*", r"=\1", word)
        found.append(re.sub(r"=tag\(log,interval\(([^,]*),.*", r"=\1", first))
    return found


COMMANDS = [
    (page, *match)
    for page, text in TEXT.items()
    if page not in ("docs/errors.md", "docs/LOG.md")
    for match in re.findall(r"^    python -m segpets\.(\w+)(.*)$", text, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "task", "words"), COMMANDS)
def test_a_command_of_a_page_composes(
    page: str, task: str, words: str, tmp_path: Path, finished: Result
) -> None:
    overrides = compose_words(words, tmp_path)
    there = [w.replace("run=latest", f"run={finished.path}") for w in overrides]
    assert compose(there, task=task).task_name == task


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The files that docs/how-to/own-model-and-loss.md tells one to write."""
    text = TEXT["docs/how-to/own-model-and-loss.md"]
    for name, content in re.findall(r'```\w+ title="(.+?)"\n(.*?)```', text, re.DOTALL):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path


def test_the_model_and_the_loss_of_the_page_train(own: Path, command: Command, tiny: Tiny) -> None:
    lines = re.findall(
        r"^    PYTHONPATH=mine python -m segpets.train (.*)$",
        TEXT["docs/how-to/own-model-and-loss.md"],
        re.MULTILINE,
    )
    assert len(lines) == 2
    for index, line in enumerate(lines):
        words = [*tiny(*shlex.split(line)[2:]), "trainer.max_epochs=1", f"hydra.run.dir=r{index}"]
        done = command("--config-dir", "mine/conf", *words, PYTHONPATH=f"{own / 'mine'}:{ROOT}")
        assert done.returncode == 0, done.stdout
        assert "Tiny" in done.stdout
    assert "SquaredError" in done.stdout
