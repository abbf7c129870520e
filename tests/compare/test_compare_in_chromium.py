"""The page in a browser: `make test` needs none, `make test-all` does, and fails without one."""

import json
from pathlib import Path

import pytest
from in_chromium import opened
from made_comparison import compared
from made_runs import drawn, make_run

ASKS = """
const table = document.querySelector("table.sortable");
const column = title => [...table.tHead.rows[0].cells].findIndex(c => c.innerText === title);
const order = () => [...table.tBodies[0].rows].map(r => r.cells[column("model")].innerText);
const click = title => table.tHead.rows[0].cells[column(title)].querySelector("button").click();
seen.first = order();
click("model"); seen.model = order();
click("model"); seen.down = order();
click("params"); seen.params = order();
const item = document.querySelector(".legend li[data-line='2']");
item.dispatchEvent(new MouseEvent("mouseenter"));
seen.marked = [...document.querySelectorAll("g.line.this title")].map(t => t.textContent)[0];
"""


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_works_in_chromium(sweep: Path, tmp_path: Path) -> None:
    for model, params in (("vit", 9000), ("fcn", 20_000), ("unet", 100_000)):
        for run in sweep.glob(f"model-{model}__seed-[12]"):
            summary = json.loads((run / "summary.json").read_text())
            (run / "summary.json").write_text(json.dumps(summary | {"params": params}))
    text = (compared(sweep, folder=tmp_path / "out").path / "compare.html").read_text()
    with opened(text, tmp_path) as tab:
        seen = tab.ask(ASKS)
        assert tab.failures == []
    assert seen == {
        "first": ["unet", "vit", "fcn"],
        "model": ["fcn", "unet", "vit"],
        "down": ["vit", "unet", "fcn"],
        "params": ["vit", "fcn", "unet"],
        "marked": "#2 (model=vit)",
    }


MEASURES = """
const table = document.querySelector("table.ranking"), wide = table.parentElement;
const heads = [...table.tHead.rows[0].cells];
const shown = () => heads.filter(head => head.offsetWidth).map(head => head.innerText);
seen.beside = document.documentElement.scrollWidth - innerWidth;
seen.under = wide.scrollWidth - wide.clientWidth;
seen.heads = shown();
seen.list = getComputedStyle(table.tBodies[0].rows[0]).display;
const box = document.querySelector(".columns input[value=classes]");
const before = box.checked;
box.click();
seen.classes = [before, shown().includes("IoU border")];
"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 1000, 500])
@pytest.mark.parametrize("choices", [2, 8, 14])
def test_the_table_fits_into_the_window(width: int, choices: int, tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path / f"run{i}{seed}",
            *(f"part_of_it.key_{k}=some_value_{i}/{'x' * k}" for k in range(choices)),
            seed=seed,
            counts=drawn(0.5 + i / 5, seed=seed),
        )
        for i in range(2)
        for seed in (1, 2)
    ]
    text = (compared(*runs, folder=tmp_path / "out", images=0).path / "compare.html").read_text()
    with opened(text, tmp_path, width=width) as tab:
        seen = tab.ask(MEASURES)
        assert tab.failures == []
    assert seen["beside"] <= 0
    assert seen["under"] <= 0
    keys = [head for head in seen["heads"] if "key" in head]
    assert keys == [f"part_of_it.key_{k}" for k in range(len(keys))]
    assert len(keys) in (choices, 6)
    assert {"#", "mean IoU", "95 % ±"} <= set(seen["heads"])
    assert seen["list"] == ("flex" if width == 500 else "table-row")
    was, is_now = seen["classes"]
    assert is_now is not was
