"""Tables of results on the console."""

import re

import pytest

from segpets.compare.fit_width import fitted, folded
from segpets.report.grid import Cell, Column, Grid
from segpets.report.table import as_text, export_table, grid_table

SCORES = ["pixel accuracy", "mean Dice"]
CLASSES = ["IoU pet", "IoU background", "IoU border"]
COSTS = ["params", "mult-adds", "latency ms"]
TIME = ["seconds", "95 % at epoch"]


def grid(word: str, choices: int) -> Grid:
    parts = {"scores": SCORES, "classes": CLASSES, "costs": COSTS, "time": TIME}
    columns = [
        Column("#"),
        *(Column(f"key.n{i}", False, "overrides" if i < 6 else "more") for i in range(choices)),
        Column("mean IoU"),
        Column("95 % ±"),
        *(Column(name, part=part) for part, names in parts.items() for name in names),
    ]
    row = [Cell("0.1234") if column.numeric else Cell(word) for column in columns]
    return Grid(columns, [row, row])


def shown(given: Grid, width: int) -> str:
    return as_text(grid_table(fitted(given, width)[0], title="[b]title"), width=width)


@pytest.mark.parametrize("width", [80, 120, 150])
@pytest.mark.parametrize("choices", [1, 8, 14])
@pytest.mark.parametrize(
    "word", ["unet", "lraspp_mobilenet", "[red]no markup[/red]", "a_b/c" * 60, "x" * 300]
)
def test_no_word_breaks_and_no_value_is_cut(word: str, choices: int, width: int) -> None:
    given = grid(word, choices)
    text = shown(given, width)
    assert text.startswith("[b]title")
    assert max(map(len, text.splitlines())) <= width
    words = set(re.sub(r"[─\s]+", " ", text).split())
    pieces = {line for line in folded(word, 20).split()}
    heads = {part for column in given.columns for part in re.split(r"[ .]", column.title)}
    heads |= {f"{part}." for part in heads} | {column.title for column in given.columns}
    assert words <= pieces | heads | {"[b]title", "0.1234"}
    whole, left_out = fitted(given, width)
    assert all("".join(c.text.split("\n")) == word for c in whole.rows[0] if c.text != "0.1234")
    assert len(whole.columns) + len(left_out) == len(given.columns)


def test_the_first_override_and_what_ranks_stay_and_classes_go_first() -> None:
    given = grid("resnet_fifty", 8)
    for width in (60, 80, 100, 120, 150, 200):
        kept, left_out = fitted(given, width)
        titles = [column.title.replace("\n", " ") for column in kept.columns]
        assert titles[:2] == ["#", "key.n0"]
        assert {"mean IoU", "95 % ±"} <= set(titles)
        if "params" in left_out:
            assert set(CLASSES) <= set(left_out)
    assert fitted(given, 1000)[1] == []
    assert fitted(grid("unet", 1), 80)[1] == [*SCORES, *CLASSES, *TIME]


def test_what_turns_out_to_have_room_comes_back() -> None:
    columns = [Column("a"), Column("b" * 8, part="scores"), Column("key", False, "more")]
    kept, left_out = fitted(Grid(columns, [[Cell("1"), Cell("2"), Cell("long " * 4)]]), 24)
    assert [column.title for column in kept.columns] == ["a", "b" * 8]
    assert left_out == ["key"]


def test_texts_break_behind_signs_and_only_long_pieces_elsewhere() -> None:
    assert folded("cross_entropy_and_soft_iou", 20) == "cross_entropy_and_\nsoft_iou"
    assert folded("two words", 5) == "two\nwords"
    assert folded("x" * 5 + "_y", 4) == "xxxx\nx_\ny"
    assert folded("", 4) == ""


def test_in_a_notebook_it_is_a_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Grid([Column("loss", numeric=False)], [[Cell("dice")]])
    beside = as_text(grid_table(given, title="runs"))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert as_text(grid_table(given, title="runs")) == beside
    assert "dice" in beside


def exported(logits: float | None, lost: float) -> list[list[str]]:
    """The cells of the table of an export, with or without a limit for its logits."""
    part = {"largest_difference": 0.5, "relative": 0.1, "close": 0.957, "agreement": 0.99}
    report = {
        "images": 7,
        "tolerance": {"logits": logits, "agreement": None, "mean_iou": 0.01},
        "same": part,
        "others": part,
        "own": None,
        "mean_iou": 0.75,
        "mean_iou_exported": 0.75 - lost,
        "mean_iou_loss": lost,
        "bytes": 1_500_000,
        "latency_of": "1 image",
        "latency_ms": {"eager": 2.0, "onnx": 1.0},
    }
    text = as_text(export_table(report))
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


def test_an_export_says_what_mean_iou_it_lost() -> None:
    assert ["mean IoU lost", "0.0012", "<= 0.01"] in exported(None, 0.0012)
    assert ["mean IoU lost", "-0.0012", "<= 0.01"] in exported(None, -0.0012)
    assert ["mean IoU lost", "0.0000", "<= 0.01"] in exported(None, -1e-9)


def test_close_logits_are_counted_only_where_logits_have_a_limit() -> None:
    row = ["pixels within 0.001 of that logit", "95.700%"]
    assert exported(1e-3, 0.0).count(row) == 2
    assert not any("within" in cell for cells in exported(None, 0.0) for cell in cells)
