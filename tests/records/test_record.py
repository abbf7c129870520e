"""What is read of a run directory, whole or damaged."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from made_runs import drawn, make_run

from segpets.errors import UserError
from segpets.records.counts import read_counts
from segpets.records.record import read_record

COUNTS = "predictions/test/counts.csv"


def test_a_whole_run(tmp_path: Path) -> None:
    counts = drawn(0.8, images=5)
    words = ["model=unet", "+a.b=1", "~augment.c", "paths.log_dir=x", "hydra.verbose=true"]
    run = make_run(tmp_path / "run", *words, counts=counts, resumed=[["trainer.max_epochs=40"]])
    record = read_record(run)
    assert record.overrides == {
        "model": "unet",
        "a.b": "1",
        "augment.c": "(removed)",
        "trainer.max_epochs": "40",
    }
    assert (record.status, record.seed, record.notes) == ("completed", 1, [])
    assert record.curve == [(1, 0.1), (2, 0.5), (3, 0.6)]
    assert record.counts is not None
    assert record.counts.total.tolist() == counts.sum(0).tolist()
    assert record.counts.parts["breed"]["beagle"].tolist() == counts[::2].sum(0).tolist()
    assert record.values["params"] == 1000


def test_the_counts_of_a_real_training_are_read(tmp_path: Path) -> None:
    header = "name,breed,a>a,a>b,b>a,b>b\n"
    (tmp_path / "counts.csv").write_text(header + "two,x,1,2,3,4\none,y,5,0,0,5\n")
    counts = read_counts(tmp_path / "counts.csv", ["a", "b"])
    assert counts.names.tolist() == ["one", "two"]
    assert counts.total.tolist() == [[6, 2], [3, 9]]
    assert counts.mean_iou() == pytest.approx((6 / 11 + 9 / 14) / 2)


def test_classes_with_signs_in_their_names_are_told_apart(tmp_path: Path) -> None:
    classes = ("a", "a>a", 'x,"y')
    run = make_run(tmp_path / "run", counts=drawn(0.6), classes=classes)
    record = read_record(run)
    assert record.counts is not None
    assert record.notes == []


@pytest.mark.parametrize(
    "text", ["", "{", '{"status": "comp', "[1]", '"x"', "null", "[" * 100_000, "\udcff"]
)
def test_a_summary_that_is_cut_or_no_summary_is_said(text: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "summary.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="can't be read"):
        read_record(run)


def test_wrong_types_in_a_summary_are_not_believed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    wrong = {"overrides": 3, "seed": "one", "params": "many", "seconds": True, "versions": []}
    wrong |= {"mult_adds": 10**400, "error": ["x"], "resumed": {"a": 1}}
    summary = json.loads((run / "summary.json").read_text()) | wrong
    (run / "summary.json").write_text(json.dumps(summary))
    record = read_record(run)
    assert (record.overrides, record.seed, record.revision) == ({}, None, None)
    assert not record.values.keys() & {"params", "seconds", "mult_adds"}
    deep: dict[str, object] = {"classes": ["a"], "deep": {}}
    for _ in range(600):
        deep = {"classes": ["a"], "deep": deep}
    for protocol in (None, [], {"classes": "abc"}, {"classes": [1]}, {"classes": []}, deep):
        summary = json.loads((run / "summary.json").read_text()) | {"protocol": protocol}
        (run / "summary.json").write_text(json.dumps(summary))
        assert read_record(run).protocol == {}


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda text: None, "is missing"),
        (lambda text: text[: len(text) // 2], "cut short"),
        (lambda text: "", "can't be read (it is empty)"),
        (lambda text: text[: text.index("image_004")], "is cut short: it has 4 of 12 images"),
        (lambda text: re.sub(r"\b\d+\b", "0", text), "counts no pixel"),
        (lambda text: "\0" * 100, "columns aren't those"),
        (lambda text: "name," + "x" * 200_000, "field larger"),
        (lambda text: "\udcff", "no text in UTF-8"),
        (lambda text: text.replace("pet>pet", "cat>cat"), "columns aren't those"),
        (lambda text: text + text.splitlines()[-1] + "\n", "names an image twice"),
        (lambda text: text.splitlines()[0] + "\nx,y" + ",-1" * 9 + "\n", "no pixel counts"),
        (lambda text: text.splitlines()[0] + "\nx,y" + ",9" * 8 + "," + "9" * 99, "can't be read"),
        (lambda text: text.splitlines()[0] + "\nx,y" + ",nan" * 9, "can't be read"),
        (lambda text: re.sub(r",\d+", ",7", text), "they are of two tests"),
    ],
)
def test_predictions_that_are_gone_or_damaged_are_noted(
    damage: object, note: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    changed = damage((run / COUNTS).read_text())  # type: ignore[operator]
    if changed is None:
        (run / COUNTS).unlink()
    else:
        (run / COUNTS).write_bytes(changed.encode(errors="surrogateescape"))
    record = read_record(run)
    assert record.counts is None
    assert note in " ".join(record.notes)
    assert "test/mean_iou" in record.values


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text", ["", "- 1", "{", "model: &a [*a]", f"model:\n  {BOMB.replace(chr(10), chr(10) + '  ')}"]
)
def test_a_config_that_is_no_config_is_noted(text: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text(text)
    record = read_record(run)
    assert record.config is None
    assert "config.yaml can't be read" in record.notes[0]


def test_a_config_starts_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path}/made']")
    assert read_record(run).config is None
    assert not (tmp_path / "made").exists()


def test_curves_that_are_cut_keep_their_whole_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text[: text.rindex(",")])
    assert read_record(run).curve == [(1, 0.1), (2, 0.5)]
    for damage in (text.replace("0.6", "zero"), text.replace("5,2,", "5,inf,")):
        (run / "metrics.csv").write_text(damage)
        assert "metrics.csv can't be read" in read_record(run).notes[0]


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", COUNTS, "benchmark.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    assert read_record(run).status == "completed"
    (run / "summary.json").unlink()
    os.mkfifo(run / "summary.json")
    with pytest.raises(UserError, match="can't be read"):
        read_record(run)


def test_a_measured_latency_is_taken_up(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "benchmark.json").write_text('{"latency_ms": 4.5, "device": "a laptop"}')
    record = read_record(run)
    assert (record.values["latency_ms"], record.device) == (4.5, "a laptop")
    for text in ("[]", "{", '{"latency_ms": "fast"}'):
        (run / "benchmark.json").write_text(text)
        assert "latency_ms" not in read_record(run).values


def test_equal_truths_have_equal_keys(tmp_path: Path) -> None:
    counts = drawn(0.8, images=4)
    turned = counts.copy()
    turned[0] = np.roll(counts[0], 1, axis=1)  # other predictions, the same truth
    turned[1] = np.roll(counts[1], 1, axis=0)
    turned[1, 0, 0] += 7
    turned[1, 1, 0] -= 7 if turned[1, 1, 0] >= 7 else 0
    one, two = (
        read_record(make_run(tmp_path / name, counts=c)).counts
        for name, c in (("one", counts), ("two", turned))
    )
    assert one is not None
    assert two is not None
    assert (one.truth == two.truth).tolist() == [True, False, True, True]
