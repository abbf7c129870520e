"""Results as a share of how far two annotations agree."""

import csv
import json
import math
from pathlib import Path

import pytest
from fixture_types import Command
from made_runs import drawn, make_run

PROTOCOL = {
    "data": "OxfordPets",
    "labels": "trimap",
    "classes": ["pet", "background", "border"],
    "fit": "stretch",
    "resolution": [64, 64],
}


def ceiling(file: Path, **changes: object) -> Path:
    facts = {"pairs": 42, "mean_iou": {"mean": 0.8, "low": 0.78, "high": 0.82, "count": 42}}
    file.write_text(json.dumps({"protocol": PROTOCOL | changes, **facts}))
    return file


@pytest.mark.slow
def test_the_share_is_a_column_where_protocols_agree(tmp_path: Path, command: Command) -> None:
    runs = [
        make_run(tmp_path / m, f"model={m}", counts=drawn(right), protocol={"labels": "trimap"})
        for m, right in (("a", 0.9), ("b", 0.7))
    ]
    names = f"runs=[{runs[0]},{runs[1]}]"
    file = ceiling(tmp_path / "ceiling.json")
    done = command(names, f"ceiling={file}", "hydra.run.dir=out", module="segpets.compare")
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert "42 photographs were annotated twice" in said
    with (tmp_path / "out" / "compare.csv").open() as table:
        for row in csv.DictReader(table):
            expected = float(row["test/mean_iou"]) / 0.8
            assert float(row["of_ceiling"]) == pytest.approx(expected)
    other = ceiling(tmp_path / "other.json", resolution=[128, 128])
    done = command(names, f"ceiling={other}", "hydra.run.dir=again", module="segpets.compare")
    assert "The ceiling is of another resolution" in " ".join(done.stdout.split())
    assert "of_ceiling" not in (tmp_path / "again" / "compare.csv").read_text()
    tested = json.loads((runs[0] / "summary.json").read_text())["protocol"]["images"]["test"]
    for number, shown in ((tested, True), (tested + 1, False)):
        file = ceiling(tmp_path / "counted.json", images={"test": number})
        out = f"hydra.run.dir=out{number}"
        done = command(names, f"ceiling={file}", out, module="segpets.compare")
        told = "The ceiling is of another number of test images" in " ".join(done.stdout.split())
        assert told != shown
        assert ("of_ceiling" in (tmp_path / f"out{number}/compare.csv").read_text()) == shown


def test_the_interval_of_a_share_has_that_of_the_ceiling_in_it(
    tmp_path: Path, command: Command
) -> None:
    for seed, right in ((1, 0.9), (2, 0.89), (3, 0.905)):
        facts = {"protocol": {"labels": "trimap"}, "seed": seed}
        make_run(tmp_path / f"a{seed}", "model=a", counts=drawn(right), **facts)
    words = [f"runs={tmp_path}/a?", f"ceiling={ceiling(tmp_path / 'ceiling.json')}"]
    done = command(*words, "hydra.run.dir=out", module="segpets.compare")
    assert done.returncode == 0, done.stdout
    with (tmp_path / "out" / "compare.csv").open() as table:
        (row,) = csv.DictReader(table)
    mean, low, high = (float(row[f"test/mean_iou{end}"]) for end in ("", " low", " high"))
    # Of a ratio's logarithm: the root of the squares of both half-widths, 0.78 to 0.82 about 0.8.
    below = math.sqrt(math.log(mean / low) ** 2 + math.log(0.82 / 0.8) ** 2)
    above = math.sqrt(math.log(high / mean) ** 2 + math.log(0.8 / 0.78) ** 2)
    share = float(row["of_ceiling"])
    assert share == pytest.approx(mean / 0.8)
    assert float(row["of_ceiling low"]) == pytest.approx(share * math.exp(-below))
    assert float(row["of_ceiling high"]) == pytest.approx(share * math.exp(above))


WRONG = '{"protocol": {}, "pairs": 1, "mean_iou": {"mean": 7, "low": 7, "high": 7}}'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "can't be read"),
        ("{}", "is no ceiling: its protocol is missing or wrong"),
        (WRONG, "ceiling.json"),
        (None, "ceiling.json"),
    ],
)
def test_a_file_that_is_no_ceiling_is_answered(
    tmp_path: Path, command: Command, text: str | None, answer: str
) -> None:
    run = make_run(tmp_path / "a", "model=a", counts=drawn(0.9))
    if text is not None:
        (tmp_path / "ceiling.json").write_text(text)
    done = command(f"runs={run}", "ceiling=ceiling.json", module="segpets.compare")
    assert done.returncode == 1
    assert answer in " ".join(done.stdout.split()) and "Traceback" not in done.stdout
