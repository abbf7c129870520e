"""What `make fuzz` once found is answered in words, in time, and within memory."""

import random
from pathlib import Path

import fuzz
import pytest

FUZZED = sorted((Path(__file__).parent / "fuzzed").glob("*/*"))


@pytest.mark.parametrize("file", FUZZED, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_what_was_found_is_mended(file: Path, tmp_path: Path) -> None:
    problem = fuzz.answer(fuzz.KINDS[file.parent.name], file.read_bytes(), tmp_path / "work")
    assert "GB" in problem or not problem  # the peak is that of all tests before


PICTURES = ("picture", "deep", "array")  # which the same readers are given


@pytest.mark.parametrize("kinds", [PICTURES, *((k,) for k in fuzz.KINDS if k not in PICTURES)])
def test_the_seeds_are_sound_and_mutants_differ(kinds: tuple[str, ...], tmp_path: Path) -> None:
    rng = random.Random(0)
    answers = []
    for kind in (fuzz.KINDS[name] for name in kinds):
        for seed in kind.seeds():
            answers.append(kind.read(written(tmp_path / f"sound{len(answers)}", seed)))
            assert len({fuzz.mutated(seed, kind, rng) for _ in range(20)}) > 15
    readers = zip(*(answer for answer in answers if isinstance(answer, list)), strict=True)
    blind = [place for place, answered in enumerate(readers) if not any(answered)]
    assert blind == [], "what refuses all sound files isn't tried by mutants of them"


def written(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "input").write_bytes(content)
    return folder / "input"
