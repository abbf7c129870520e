"""The pages under docs/: messages come as quoted, every key is explained, the site is whole."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fixture_types import Command, Tiny
from in_chromium import Tab, visited

from segpets.cli.command import groups
from segpets.config import compose
from segpets.paths import conf_dir

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
TEXT["README.md"] = (ROOT / "README.md").read_text()
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
    assert "Where none is named, `model=unet`." in page
    assert "Where none is named, `logger=[tensorboard,csv]`." in page
    assert page.index("### `segpets.train`") < page.index("### `segpets.benchmark`")
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


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The files that docs/how-to/own-model-and-loss.md tells one to write."""
    text = TEXT["docs/how-to/own-model-and-loss.md"]
    for name, content in re.findall(r'```\w+ title="(.+?)"\n(.*?)```', text, re.DOTALL):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path


@pytest.mark.slow
def test_the_model_and_the_loss_of_the_page_train_and_are_used(
    own: Path, command: Command, tiny: Tiny
) -> None:
    text = TEXT["docs/how-to/own-model-and-loss.md"]
    lines = re.findall(r"^    PYTHONPATH=mine python -m segpets\.(\w+) (.*)$", text, re.MULTILINE)
    assert [task for task, _ in lines] == ["train", "train", "evaluate", "predict"]
    path = {"PYTHONPATH": f"{own / 'mine'}:{ROOT}"}
    (own / "photos").mkdir()
    shutil.copy(
        next((conf_dir().parent / "segpets/data/pets_mini/images").iterdir()), own / "photos"
    )
    for task, line in lines:
        words = shlex.split(line)
        if task == "train":
            words = [*words[:2], *tiny(*words[2:]), "trainer.max_epochs=1"]
        done = command(*words, module=f"segpets.{task}", **path)
        assert done.returncode == 0, done.stdout
        if task == "train":
            assert "Tiny" in done.stdout
            assert ("SquaredError" in done.stdout) == ("squared_error" in line)
    assert list((own / "predicted" / "masks").iterdir())

    refused = command("run=latest", module="segpets.evaluate")
    assert "add --config-dir FOLDER" in refused.stdout
    (allow,) = re.findall(r"`(allow=\[.*?\])`", text)
    assert allow in refused.stdout
    done = command("run=latest", allow, "errors=0", module="segpets.evaluate", **path)
    assert done.returncode == 0, done.stdout
    (load,) = re.findall(r"`(segpets\.load\(.*?\))`", text)
    done = subprocess.run(
        [sys.executable, "-c", f"import segpets; print({load}.segmenter.net)"],
        capture_output=True,
        check=True,
        cwd=own,
        env=os.environ | path,
        text=True,
    )
    assert "Tiny(" in done.stdout


PAGES_TO_OPEN = ["index", "get-started", "reference", "api", "metrics", "errors", "architecture"]


@pytest.mark.slow
@pytest.mark.browser
def test_the_site_works_from_the_disk(site: Path, tmp_path: Path) -> None:
    """Pages show, pictures load, the console is silent, and nothing is asked of a network."""
    pages = [site / f"{name}.html" for name in PAGES_TO_OPEN]
    pages += [site / "notebooks.html", site / "notebooks" / "07_bring_your_own.html"]
    with visited(pages[0].as_uri(), tmp_path) as tab:
        for page in pages:
            tab.open(page.as_uri())
            seen = tab.ask(
                "seen.heading = document.querySelector('h1').innerText;"
                "seen.broken = [...document.images].filter(i => !i.naturalWidth).map(i => i.src);"
                "seen.wide = document.documentElement.scrollWidth - innerWidth;"
            )
            assert seen["heading"], page
            assert seen["broken"] == [], page
            assert seen["wide"] <= 0, page
        assert tab.failures == []


def found_by_searching(tab: Tab, word: str) -> list[str]:
    """The addresses that the search of an open page lists."""
    seen = tab.ask(
        "const box = document.querySelector('.md-search__input');"
        f"box.focus(); box.value = '{word}';"
        "box.dispatchEvent(new Event('keyup', {bubbles: true}));"
        "const found = () => [...document.querySelectorAll('.md-search-result__link')];"
        "for (let i = 0; i < 100 && !found().length; i++)"
        "  await new Promise(done => setTimeout(done, 100));"
        "seen.links = found().map(link => link.href);"
    )
    links: list[str] = seen["links"]
    return links


@pytest.mark.slow
@pytest.mark.browser
def test_the_search_finds_a_key_from_the_disk(site: Path, tmp_path: Path) -> None:
    with visited((site / "how-to" / "sweeps.html").as_uri(), tmp_path) as tab:
        found = found_by_searching(tab, "weight_decay")
        assert f"{(site / 'reference.html').as_uri()}#optimizeradamw" in found
        assert tab.failures == []


@pytest.mark.slow
@pytest.mark.browser
def test_the_search_finds_a_key_in_a_served_site(site: Path, tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with visited(f"{address}index.html", tmp_path, allowed=address) as tab:
            found = found_by_searching(tab, "weight_decay")
            assert f"{address}reference.html#optimizeradamw" in found
            assert tab.failures == []
        server.shutdown()
