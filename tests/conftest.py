"""What all tests share: one thread, a few images, short runs, and the command line."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Start, Tiny, Train
from fork_server import Forked, ForkServer
from lightning.pytorch import Callback

from segpets.config import compose
from segpets.train import Result, train

ROOT = Path(__file__).parents[1]
PETS_MINI = ROOT / "segpets" / "data" / "pets_mini"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Workers of pytest-xdist share the cores; more threads on such small tensors only wait."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests cache doesn't land among the files of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images in the official layout: 3 breeds, 15 of train, 3 of val, 7 of test."""
    root = tmp_path_factory.mktemp("tiny_pets")
    (root / "annotations").mkdir()
    (root / "images").symlink_to(PETS_MINI / "images")
    (root / "annotations" / "trimaps").symlink_to(PETS_MINI / "annotations" / "trimaps")
    for part, counts in {"trainval": (6, 6, 6), "test": (3, 2, 2)}.items():
        lines = (PETS_MINI / "annotations" / f"{part}.txt").read_text().splitlines()
        chosen: list[str] = []
        for breed, count in zip(("Abyssinian_", "beagle_", "Bombay_"), counts, strict=True):
            chosen += [line for line in lines if line.startswith(breed)][:count]
        (root / "annotations" / f"{part}.txt").write_text("\n".join(chosen) + "\n")
    return root


@pytest.fixture(scope="session")
def tiny(tiny_pets: Path) -> Tiny:
    """tiny("model=vit") gives overrides for a run of a second; those that are given win."""

    def overrides(*given: str) -> list[str]:
        defaults = {
            "data": "oxford_pets",
            "data.root": str(tiny_pets),
            "data.size": "64",
            "data.batch_size": "4",
            "model.widths": "[4,8]",
            "trainer": "cpu",
            "trainer.precision": "32",
            "trainer.max_epochs": "2",
            "trainer.log_every_n_steps": "1",
        }
        keys = {word.partition("=")[0] for word in given}
        if "model" in keys:
            del defaults["model.widths"]
        return [f"{k}={v}" for k, v in defaults.items() if k not in keys] + list(given)

    return overrides


@pytest.fixture
def train_tiny(tiny: Tiny, tmp_path: Path) -> Train:
    """train_tiny("loss=dice", folder="a") trains in tmp_path/a, in this process."""

    def run(*overrides: str, folder: str = "run", callbacks: Sequence[Callback] = ()) -> Result:
        cfg = compose([*tiny(*overrides), f"hydra.run.dir={tmp_path / folder}"])
        return train(cfg, callbacks=callbacks)

    return run


@pytest.fixture(scope="session")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run of two epochs with all that a run leaves; tests only read it."""
    overrides = tiny("callback.pictures.count=3", "tags=[a,b]")
    folder = tmp_path_factory.mktemp("finished") / "run"
    return train(compose([*overrides, f"hydra.run.dir={folder}"]))


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Forks commands from a process that has imported the libraries."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def command(start: Start) -> Command:
    """command("model=unt") is what the shell would do in tmp_path; stdout holds stderr, too."""

    def run(
        *words: str, module: str = "segpets.train", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return start(*words, module=module, **env).wait()

    return run


@pytest.fixture
def start(tmp_path: Path, fork_server: ForkServer) -> Iterator[Start]:
    """start("model=unet") is a command that goes on while the test does; it ends with the test."""
    running: list[Forked] = []

    def begin(
        *words: str,
        module: str = "segpets.train",
        folder: Path = tmp_path,
        largest_file: int | None = None,
        **env: str,
    ) -> Forked:
        inherited = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        running.append(
            fork_server.start(
                list(words),
                cwd=folder,
                env=inherited | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | env,
                module=module,
                largest_file=largest_file,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()
