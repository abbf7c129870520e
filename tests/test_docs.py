"""What the pages under docs/ say, done: commands compose, messages come, every key is explained."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny
from made_data import LAYOUTS, archives

from segpets.cli import groups
from segpets.config import compose
from segpets.paths import conf_dir
from segpets.train import Result

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


# What this machine may lack; the answer then says what to do.
DEVICES = {"trainer=gpu", "trainer=mps", "trainer=tpu", "trainer=ddp"}


@dataclass
class Place:
    """A folder in which the commands of the pages are given, one after the other.

    It holds a sweep `first` and, as `latest`, a run, of seconds.
    """

    path: Path
    pets: Path

    def give(self, module: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"} | env
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    def data(self, words: list[str]) -> Path:
        """The folder that FOLDER stands for."""
        layout = next((w[5:] for w in words if w.startswith("data=") and w[5:] in LAYOUTS), None)
        if layout is None:
            return self.pets
        root = self.path / f"made_{layout}"
        return root if root.exists() else LAYOUTS[layout](root)

    def shortened(self, task: str, words: list[str]) -> list[str]:
        """The words of a page, with which a command takes seconds instead of minutes."""
        folder = str(self.data(words))
        words = [word.replace("FOLDER", folder) for word in words]
        if task == "benchmark":
            words = [word for word in words if not word.startswith("variants=")]
            return [*words, "variants=[channels_last]", "repeats=2", "batch_sizes=[1]"]
        if task != "train":
            return words
        if not any(word.startswith("resume=") for word in words):
            words.append("debug=smoke")
        swaps = {
            "trainer.max_epochs=40": "trainer.max_epochs=3",
            "n_trials=20": "n_trials=2",
            "hydra/launcher=submitit_slurm": "hydra/launcher=submitit_local",
            "hydra.launcher.partition=gpu": "",  # of SLURM only
            "hydra.launcher.ray.init.address=auto": "+hydra.launcher.ray.init.num_cpus=2",
            "+hydra.launcher.ray.remote.num_gpus=0.5": "+hydra.launcher.ray.remote.num_cpus=0.5",
        }
        words = [swaps.get(word, word) for word in words]
        if "data.download=true" in words:
            mirror = self.path / "mirror"
            if not mirror.exists():
                archives(mirror, self.pets)
            words = [word for word in words if not word.startswith("data.mirrors=")]
            sums = (
                f"data.checksums.{kind}="
                + hashlib.sha256((mirror / f"{kind}.tar.gz").read_bytes()).hexdigest()
                for kind in ("images", "annotations")
            )
            words += [f"data.mirrors=[{mirror}]", *sums]
        return [word for word in words if word]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_pets: Path) -> Place:
    found = Place(tmp_path_factory.mktemp("place"), tiny_pets)
    for name in ("photos", "more"):
        (found.path / name).mkdir()
        picture = next((tiny_pets / "images").glob("Bombay_*.jpg"))
        (found.path / name / f"{name}.jpg").write_bytes(picture.read_bytes())
    tiny = ["model.widths=[4,8]", "debug=smoke"]
    for words in (["-m", "loss=dice,focal", "seed=1,2", "sweep=first"], []):
        done = found.give("segpets.train", *words, *tiny)
        assert done.returncode == 0, done.stdout
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, _, _ in COMMANDS}))
def test_the_commands_of_a_page_do_what_they_say(page: str, place: Place) -> None:
    for _, task, line in (one for one in COMMANDS if one[0] == page):
        words = place.shortened(task, shlex.split(line))
        done = place.give(f"segpets.{task}", *words)
        if DEVICES & set(words) and not torch.cuda.is_available():
            assert done.returncode == 1, done.stdout
            assert "trainer=auto takes what this machine has" in done.stdout
        else:
            assert done.returncode == 0, f"{words}\n{done.stdout}"
        assert "Traceback" not in done.stdout
