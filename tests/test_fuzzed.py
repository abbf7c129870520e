"""What `make fuzz` once found is answered in words, in time, and within memory."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FUZZED = sorted((ROOT / "tests" / "fuzzed").glob("*/*"))


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "scripts" / "fuzz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", FUZZED, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_what_was_found_is_mended(fuzz: ModuleType, file: Path, tmp_path: Path) -> None:
    problem = fuzz.answer(fuzz.KINDS[file.parent.name], file.read_bytes(), tmp_path / "work")
    assert "GB" in problem or not problem  # the peak is that of all tests before


@pytest.mark.parametrize("kind", ["config", "metrics", "predictions", "sweep"])
def test_the_seeds_are_sound_and_mutants_differ(
    fuzz: ModuleType, kind: str, tmp_path: Path
) -> None:
    rng = random.Random(0)
    for seed in fuzz.KINDS[kind].seeds():
        fuzz.KINDS[kind].read(_written(tmp_path / "sound", seed))
        assert len({fuzz.mutated(seed, fuzz.KINDS[kind], rng) for _ in range(20)}) > 15


def _written(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "input").write_bytes(content)
    return folder / "input"
