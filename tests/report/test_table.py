"""Tables of results on the console."""

import pytest

from segpets.report.grid import Cell, Column, Grid
from segpets.report.table import as_text, grid_table


@pytest.mark.parametrize("word", ["unet", "lraspp_mobilenet", "x" * 300, "[red]no markup[/red]"])
@pytest.mark.parametrize("choices", [1, 8])
def test_whatever_stands_in_it_nothing_is_cut(word: str, choices: int) -> None:
    names = ["mean IoU", "95 % ±", "pixel accuracy", "mean Dice", "IoU pet", "IoU background"]
    names += ["IoU border", "params", "mult-adds", "latency ms", "seconds", "95 % at epoch"]
    columns = [Column(f"key.{i}", numeric=False) for i in range(choices)]
    grid = Grid(
        [*columns, *(Column(name) for name in names)],
        [[*[Cell(word)] * choices, *(Cell("0.1234") for _ in names)] for _ in range(2)],
    )
    text = as_text(grid_table(grid, title="[b]title"), width=150)
    assert text.startswith("[b]title")
    assert max(map(len, text.splitlines())) <= 150
    letters = "".join(text.splitlines()[1:]).replace(" ", "")
    if choices == 1:
        assert letters.count("0.1234") == 2 * len(names) or len(word) > 40
    assert letters.count("x") >= 2 * choices * word.count("x")
    if word == "lraspp_mobilenet" and choices == 1:
        assert word in text, "heads break before words"


def test_in_a_notebook_it_is_a_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid([Column("loss", numeric=False)], [[Cell("dice")]])
    beside = as_text(grid_table(grid, title="runs"))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert as_text(grid_table(grid, title="runs")) == beside
    assert "dice" in beside
