"""What is ranked with what, and how seeds are folded."""

from pathlib import Path
from typing import Any

import pytest
from made_runs import drawn, make_run

from segpets.records.counts import mean_iou
from segpets.records.group import (
    EPOCHS_TO_95,
    Group,
    epochs_to_95,
    grouped,
    lower_is_better,
)
from segpets.records.record import read_record
from segpets.run.find import Unranked

METRIC = "test/mean_iou"


def ranked(*runs: Path, metric: str = METRIC) -> tuple[list[Group], list[Unranked]]:
    return grouped([read_record(run) for run in runs], metric=metric)


def test_seeds_are_one_row_with_an_interval_and_the_best_comes_first(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{m}{seed}", f"model={m}", "loss=dice", seed=seed, **{METRIC: value})
        for m, seed, value in (("unet", 1, 0.6), ("unet", 2, 0.7), ("vit", 1, 0.68))
    ]
    (group,), unranked = ranked(*runs)
    assert unranked == []
    assert group.keys == ["model"], "loss is the same in all, and seeds are no choice"
    first, second = group.configurations
    assert (first.label, first.rank, [run.seed for run in first.runs]) == ("model=vit", 1, [1])
    assert first.values[METRIC].low is None
    assert (second.label, [run.seed for run in second.runs]) == ("model=unet", [1, 2])
    assert second.values[METRIC].mean == pytest.approx(0.65)
    assert second.values[METRIC].low == pytest.approx(0.65 - 12.7062 * 0.05, abs=1e-5)


def test_a_loss_ranks_the_other_way(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / m, f"model={m}", **{"test/loss": loss})
        for m, loss in (("unet", 0.5), ("vit", 0.4))
    ]
    (group,), _ = ranked(*runs, metric="test/loss")
    assert [c.label for c in group.configurations] == ["model=vit", "model=unet"]


def test_a_class_called_loss_is_none() -> None:
    assert lower_is_better("test/loss") and lower_is_better("best/val/loss")
    assert lower_is_better("seconds")
    assert not lower_is_better("test/iou/loss") and not lower_is_better("test/mean_iou")


@pytest.mark.parametrize(
    "protocol",
    [
        {"resolution": [128, 128]},
        {"split": "article"},
        {"split_seed": 3},
        {"classes": ["pet", "background", "other"]},
        {"images": {"train": 14, "val": 3, "test": 12}},
        {"limits": {"test": 2}},
        {"overfit": 4},
        {"selected_on_test": True},
    ],
)
def test_other_protocols_are_never_ranked_together(
    protocol: dict[str, Any], tmp_path: Path
) -> None:
    one = make_run(tmp_path / "one", "model=unet")
    two = make_run(
        tmp_path / "two",
        "model=unet",
        protocol=protocol,
        classes=protocol.get("classes", ("pet", "background", "border")),
    )
    groups, unranked = ranked(one, two)
    assert (len(groups), unranked) == (2, [])
    (key,) = {key.partition(".")[0] for key in groups[0].peculiar}
    assert key in protocol
    assert groups[0].peculiar != groups[1].peculiar


def test_other_data_is_another_protocol_but_other_selected_weights_are_not(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", "model=unet")
    other = make_run(tmp_path / "other", "model=vit", data_fingerprint="ffff")
    last = make_run(tmp_path / "last", "model=fcn", protocol={"tested_weights": "last epoch"})
    groups, _ = ranked(one, other, last)
    assert [len(group.configurations) for group in groups] == [2, 1]
    assert set(groups[0].peculiar) == {"data_fingerprint"}
    assert "best val/mean_iou, last" in groups[0].notes[0]


def test_a_default_spelt_out_is_the_default(tmp_path: Path) -> None:
    same = {"config": {"model": {"name": "unet"}}}
    one = make_run(tmp_path / "one", "model=unet", seed=1, **same)
    two = make_run(tmp_path / "two", seed=2, **same)
    (group,), _ = ranked(one, two)
    assert [len(c.runs) for c in group.configurations] == [2]


def test_a_single_configuration_is_named_by_all_that_was_chosen(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(n), "model=unet", "loss=dice", seed=n) for n in (1, 2)]
    (group,), _ = ranked(*runs)
    assert group.configurations[0].label == "model=unet, loss=dice"


def test_equal_overrides_with_other_configs_are_told_apart(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / str(n), "loss=dice", config={"trainer": {"max_epochs": n}})
        for n in (20, 40)
    ]
    (group,), _ = ranked(*runs)
    assert group.keys == ["trainer.max_epochs"]
    assert {c.label for c in group.configurations} == {
        "trainer.max_epochs=20",
        "trainer.max_epochs=40",
    }


def test_two_runs_that_were_the_latest_are_told_apart(tmp_path: Path) -> None:
    """The words are the same; a third configuration has none of them."""
    runs = [
        make_run(tmp_path / name, "init_from=latest", config={"init_from": f"/runs/{name}"})
        for name in ("one", "two")
    ]
    (group,), _ = ranked(*runs, make_run(tmp_path / "fresh", config={"init_from": "null"}))
    assert group.keys == ["init_from"]
    labels = {c.label for c in group.configurations}
    assert labels == {"init_from=/runs/one", "init_from=/runs/two", "default"}


def test_where_a_run_lies_and_what_machine_it_ran_on_is_no_difference(tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        config = {
            "callback": {"x": {"folder": f"{folder}/checkpoints"}},
            "data": {"root": f"/data/{seed}", "num_workers": seed, "module": {"run_seed": seed}},
        }
        runs.append(make_run(folder, seed=seed, config=config))
    (group,), _ = ranked(*runs)
    assert [len(c.runs) for c in group.configurations] == [2]


def test_folds_that_lack_a_class_are_named(tmp_path: Path) -> None:
    runs = []
    for fold in range(3):
        lacks = {"best/val/iou/pet": 0.5, "best/val/iou/border": 0.3}
        if fold == 1:
            del lacks["best/val/iou/border"]
        data = {"data": {"folds": 3, "fold": fold}}
        protocol = {"folds": {"count": 3}}
        runs.append(make_run(tmp_path / str(fold), config=data, protocol=protocol, **lacks))
    (group,), _ = ranked(*runs)
    assert group.notes == [
        "#1: val has no border in fold 1: the means are over other classes there"
    ]
    (group,), _ = ranked(*runs[::2])
    assert group.notes == []


def test_runs_whose_means_are_over_other_classes_are_named(tmp_path: Path) -> None:
    """A class that the truth lacks counts 0 where it is predicted, and else not at all."""
    rare = {"test/iou/pet": 0.9, "test/iou/rare": 0.0}
    runs = [
        make_run(tmp_path / "a", "model=unet", **rare, **{METRIC: 0.45}),
        make_run(tmp_path / "b", "model=fcn", **{"test/iou/pet": 0.6, METRIC: 0.6}),
    ]
    (group,), _ = ranked(*runs)
    (note,) = group.notes
    assert note.startswith("#1: 1 of 2 runs neither see nor predict rare in test, and their means")
    (group,), _ = ranked(
        runs[0], make_run(tmp_path / "c", "model=vit", **rare), metric="test/iou/pet"
    )
    assert group.notes == []


def test_the_epochs_of_folds_have_the_interval_of_folds(tmp_path: Path) -> None:
    runs = []
    for fold, curve in enumerate(([0.5, 0.9], [0.9, 0.9], [0.1, 0.5, 0.9])):
        data = {"data": {"folds": 3, "fold": fold}}
        protocol = {"folds": {"count": 3}}
        runs.append(make_run(tmp_path / str(fold), config=data, protocol=protocol, curve=curve))
    (group,), _ = ranked(*runs)
    reached = group.configurations[0].values[EPOCHS_TO_95]
    assert reached.mean == 2  # of 2, 1 and 3, whose variance is 1
    # Nadeau and Bengio (2003): the variance counts 1 / 3 + (1 / 3) / (2 / 3) times, not 1 / 3.
    assert reached.low == pytest.approx(2 - 4.30265 * (1 / 3 + 1 / 2) ** 0.5, abs=1e-4)


def test_a_metric_that_is_zero_in_each_fold_is_ranked(tmp_path: Path) -> None:
    runs = []
    for fold in range(3):
        data = {"data": {"folds": 3, "fold": fold}}
        more = {"protocol": {"folds": {"count": 3}}, "best/val/iou/border": 0.0}
        runs.append(make_run(tmp_path / str(fold), config=data, **more))
    (group,), unranked = ranked(*runs, metric="best/val/iou/border")
    assert unranked == []
    assert group.configurations[0].values["best/val/iou/border"].mean == 0


def test_other_numbers_of_processes_are_other_configurations(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{n}", seed=n, processes=n) for n in (1, 2, 8)]
    (group,), unranked = ranked(*runs)
    assert unranked == [] and group.keys == ["processes"]
    assert {c.label for c in group.configurations} == {"default", "processes=2", "processes=8"}


def test_the_same_seed_twice_is_one_measurement(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", started="2026-01-01T00:00:00+00:00")
    new = make_run(tmp_path / "new", started="2026-01-02T00:00:00+00:00")
    (group,), (left,) = ranked(old, new)
    assert [run.path for run in group.configurations[0].runs] == [new]
    assert left.path == old
    assert "is newer" in left.reason


def test_what_is_not_completed_or_lacks_the_metric_is_not_ranked(tmp_path: Path) -> None:
    good = make_run(tmp_path / "good")
    bad = [
        make_run(tmp_path / "failed", status="failed", error="ValueError: no\nmore"),
        make_run(tmp_path / "running", status="running"),
        make_run(tmp_path / "untested", **{METRIC: None}),
        make_run(tmp_path / "nan", **{METRIC: float("nan")}),
        make_run(tmp_path / "bare", protocol={"classes": None}),
        make_run(tmp_path / "odd", status=7),
        make_run(tmp_path / "pruned"),
    ]
    (tmp_path / "pruned" / "trial.json").write_text('{"number": 3, "pruned_at_epoch": 4}')
    (group,), unranked = ranked(good, *bad)
    assert len(group.configurations) == 1
    said = {one.path.name: (one.status, one.reason) for one in unranked}
    assert said["failed"] == ("failed", "ValueError: no")
    assert said["running"] == ("interrupted", "it is interrupted"), "no process holds it"
    assert said["untested"] == said["nan"] == ("completed", "it has no test/mean_iou")
    assert "no protocol" in said["bare"][1]
    assert said["odd"][0] == "unknown"
    assert said["pruned"] == ("pruned", "its search ended it at epoch 4")


def test_the_fronts_of_each_cost(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / m, f"model={m}", params=params, mult_adds=adds, **{METRIC: value})
        for m, params, adds, value in (
            ("big", 900, 50, 0.8),
            ("small", 100, 60, 0.6),
            ("poor", 500, 70, 0.5),
        )
    ]
    (group,), _ = ranked(*runs)
    fronts = {c.label: c.fronts for c in group.configurations}
    assert fronts == {
        "model=big": ["mult_adds", "params"],
        "model=small": ["params"],
        "model=poor": [],
    }


def test_latencies_of_two_devices_are_not_compared(tmp_path: Path) -> None:
    runs = []
    for m, device in (("unet", "laptop"), ("vit", "server")):
        runs.append(make_run(tmp_path / m, f"model={m}"))
        (runs[-1] / "benchmark.json").write_text(f'{{"latency_ms": 3, "device": "{device}"}}')
    (group,), _ = ranked(*runs)
    assert all("latency_ms" not in c.fronts for c in group.configurations)
    assert "several devices" in group.notes[0]


def test_epochs_to_95_percent_by_hand() -> None:
    assert epochs_to_95([(1, 0.2), (2, 0.56), (3, 0.58), (5, 0.6)]) == 3  # 0.95 * 0.6 = 0.57
    assert epochs_to_95([]) is None
    assert epochs_to_95([(4, 0.0)]) == 4


def test_counts_belong_to_the_summary(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", counts=drawn(0.9), **{METRIC: 0.3})
    assert "they are of two tests" in read_record(run).notes[0]


def test_curves_and_parts_are_means_over_the_seeds(tmp_path: Path) -> None:
    counts = drawn(0.7, images=4)
    runs = [
        make_run(tmp_path / "1", seed=1, counts=counts, curve=(0.2, 0.4, 0.6)),
        make_run(tmp_path / "2", seed=2, counts=drawn(0.7, images=4, seed=9), curve=(0.4, 0.5)),
    ]
    (group,), _ = ranked(*runs)
    (configuration,) = group.configurations
    assert dict(configuration.curve()) == pytest.approx({1: 0.3, 2: 0.45, 3: 0.6})
    (beagle, other) = (mean_iou(c[::2].sum(0)) for c in (counts, drawn(0.7, images=4, seed=9)))
    assert configuration.mean_iou_by("breed")["beagle"] == pytest.approx((beagle + other) / 2)
    assert configuration.mean_iou_by("age") == {}
