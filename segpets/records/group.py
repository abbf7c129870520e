"""Runs with one protocol make a group; runs that differ in seed or fold only, a configuration."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from segpets.records.counts import mean_iou
from segpets.records.record import Flat, Record, flat
from segpets.run.find import Unranked
from segpets.significance import over_folds
from segpets.stats import Estimate, over_seeds, pareto_front

COSTS: Final = ("mult_adds", "params", "latency_ms")
EPOCHS_TO_95: Final = "epochs_to_95"
NEAR_BEST: Final = 0.95

_LOWER = {"loss", *COSTS, "seconds", "peak_memory_mb", EPOCHS_TO_95}
_STAGE = re.compile(r"(best/)?(train|val|test)/")
_NO_PROTOCOL = {"tested_weights"}  # how the run chose its weights, not how it was measured
_MOST_KEYS = 6


@dataclass
class Configuration:
    """Runs that differ in their seed, or their fold, only.

    Attributes:
        runs: The runs, by their seeds.
        rank: Place in its group, from 1.
        choices: The choices in which the configurations differ; empty where everything is the
            default.
        values: All numbers of the summaries, over the seeds, and `epochs_to_95`.
        fronts: The costs on whose accuracy-against-cost front it lies.
    """

    runs: list[Record]
    rank: int = 0
    choices: Flat = field(default_factory=dict)
    values: dict[str, Estimate] = field(default_factory=dict)
    fronts: list[str] = field(default_factory=list)

    @property
    def folds(self) -> set[int]:
        """The folds that were val; empty without folds."""
        return {run.fold for run in self.runs if run.fold is not None}

    @property
    def label(self) -> str:
        """Its difference from the others, in a line."""
        return ", ".join(f"{key}={value}" for key, value in self.choices.items()) or "default"

    def mean(self, name: str) -> float | None:
        """Returns a value's mean over the seeds."""
        return self.values[name].mean if name in self.values else None

    def curve(self) -> list[tuple[int, float]]:
        """Lists epochs and val/mean_iou, the mean of the seeds that reached an epoch."""
        by_epoch: dict[int, list[float]] = {}
        for run in self.runs:
            for epoch, value in run.curve:
                by_epoch.setdefault(epoch, []).append(value)
        return [(epoch, sum(by_epoch[epoch]) / len(by_epoch[epoch])) for epoch in sorted(by_epoch)]

    def mean_iou_by(self, attribute: str) -> dict[str, float]:
        """Computes mean IoU by the values of an attribute, averaged over the seeds."""
        by_value: dict[str, list[float]] = {}
        for run in self.runs:
            parts = run.counts.parts.get(attribute, {}) if run.counts else {}
            for value, confusion in parts.items():
                if not math.isnan(score := mean_iou(confusion)):
                    by_value.setdefault(value, []).append(score)
        return {value: sum(scores) / len(scores) for value, scores in by_value.items()}


@dataclass
class Group:
    """Configurations whose metrics mean the same.

    Attributes:
        protocol: What they mean.
        peculiar: The part of the protocol in which the groups differ, flat.
        keys: The overrides in which its configurations differ.
        configurations: The best first.
        notes: Notes needed to read its table.
    """

    protocol: dict[str, Any]
    peculiar: Flat
    keys: list[str]
    configurations: list[Configuration]
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return list(self.protocol["classes"])


def lower_is_better(metric: str) -> bool:
    """Tells whether lower is better, as for a loss or a cost."""
    return _STAGE.sub("", metric) in _LOWER


def grouped(records: Iterable[Record], *, metric: str) -> tuple[list[Group], list[Unranked]]:
    """Groups runs by protocol, folds their seeds, and ranks them.

    Returns:
        The groups, the one with the most configurations first, and the runs that are in none.
    """
    unranked: list[Unranked] = []
    by_protocol: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if reason := _out(record, metric):
            unranked.append(Unranked(record.path, record.status, reason))
            continue
        protocol = json.dumps(_meaning(record), sort_keys=True, default=str)
        by_protocol.setdefault(protocol, {}).setdefault(_identity(record), []).append(record)
    groups = []
    for parts in by_protocol.values():
        configurations = []
        for runs in parts.values():
            once, again = _each_seed_once(runs)
            unranked += again
            configurations.append(Configuration(once, values=_values(once)))
        groups.append(Group(_meaning(configurations[0].runs[0]), {}, [], configurations))
    groups.sort(key=lambda group: -len(group.configurations))
    _name(groups)
    for group in groups:
        _rank(group, metric)
    return groups, unranked


def _out(record: Record, metric: str) -> str | None:
    if record.status != "completed":
        return record.error or f"it is {record.status}"
    if not record.protocol:
        return "its summary says no protocol, so nobody knows what its metrics mean"
    if metric not in record.values:
        return f"it has no {metric}"
    return None


def _meaning(record: Record) -> dict[str, Any]:
    meaning = {key: value for key, value in record.protocol.items() if key not in _NO_PROTOCOL}
    return {"selected_on_test": False} | meaning


def _identity(record: Record) -> str:
    if record.config is not None:
        return json.dumps(["config", sorted(record.config.items()), record.processes])
    return json.dumps(["overrides", sorted(record.overrides.items()), record.processes])


def _each_seed_once(runs: Sequence[Record]) -> tuple[list[Record], list[Unranked]]:
    """Leaves out repetitions: a run given twice isn't a second measurement. The newest stays."""
    by_seed: dict[tuple[int | None, int | None], Record] = {}
    again = []
    for run in sorted(runs, key=lambda run: (run.started, str(run.path)), reverse=True):
        key = (run.seed, run.fold)
        if key in by_seed:
            newer = by_seed[key].path
            reason = f"{newer} has the same configuration and seed, and is newer"
            again.append(Unranked(run.path, run.status, reason))
        else:
            by_seed[key] = run
    return sorted(by_seed.values(), key=_order), again


def _order(run: Record) -> tuple[bool, int, int]:
    return run.seed is None, run.seed or 0, -1 if run.fold is None else run.fold


def _values(runs: Sequence[Record]) -> dict[str, Estimate]:
    names = dict.fromkeys(name for run in runs for name in run.values)
    found = {name: [(r.fold, r.values[name]) for r in runs if name in r.values] for name in names}
    found[EPOCHS_TO_95] = [(r.fold, epochs) for r in runs if (epochs := epochs_to_95(r.curve))]
    if any(run.fold is not None for run in runs):
        return {name: _over_folds(runs, values) for name, values in found.items() if values}
    return {name: over_seeds([v for _, v in values]) for name, values in found.items() if values}


def _over_folds(runs: Sequence[Record], values: Sequence[tuple[int | None, float]]) -> Estimate:
    by_fold: dict[int, list[float]] = {}
    for fold, value in values:
        if fold is not None:
            by_fold.setdefault(fold, []).append(value)
    return over_folds(by_fold, folds=folds_of(runs))


def folds_of(runs: Sequence[Record]) -> int:
    """Returns the number of folds that the runs' data were dealt into; 1 without folds."""
    noted = [run.protocol.get("folds") for run in runs]
    counts = [one.get("count") for one in noted if isinstance(one, dict)]
    whole = [count for count in counts if isinstance(count, int) and count > 1]
    return max(whole, default=1)


def epochs_to_95(curve: Sequence[tuple[int, float]]) -> int | None:
    """Finds the first epoch with val/mean_iou within 5 % of the best; None without a curve."""
    best = max((value for _, value in curve), default=0.0)
    return next((epoch for epoch, value in curve if value >= NEAR_BEST * best), None)


def _name(groups: Sequence[Group]) -> None:
    """Notes for each configuration and each group what distinguishes it from the others."""
    everything = [c for group in groups for c in group.configurations]
    overall = _differing([_choices(c) for c in everything])
    if len(everything) == 1:
        overall = list(_choices(everything[0]))
    protocols = [flat(group.protocol) for group in groups]
    differ = _differing(protocols)
    for group, protocol in zip(groups, protocols, strict=True):
        group.peculiar = {key: protocol.get(key, "-") for key in differ}
        chosen = [_choices(c) for c in group.configurations]
        keys = _differing(chosen) if len(chosen) > 1 else [k for k in overall if k in chosen[0]]
        names = [tuple(choices.get(key) for key in keys) for choices in chosen]
        configs = [c.runs[0].config or {} for c in group.configurations]
        # Equal words, other configs: resumed to more epochs, a default that has changed, or another
        # run that was the latest.
        alike: dict[object, list[Flat]] = {}
        for config, name in zip(configs, names, strict=True):
            alike.setdefault(name, []).append(config)
        unlike = {name: _differing(same) for name, same in alike.items()}
        more = [*dict.fromkeys(key for some in unlike.values() for key in some)][:_MOST_KEYS]
        for configuration, choices, config, name in zip(
            group.configurations, chosen, configs, names, strict=True
        ):
            named = {key: choices[key] for key in keys if key in choices}
            shown = [key for key in more if key not in keys or key in unlike[name]]
            configuration.choices = named | {key: config[key] for key in shown if key in config}
        group.keys = list(dict.fromkeys([*keys, *more]))


def _choices(configuration: Configuration) -> Flat:
    several = {run.processes for run in configuration.runs} - {1}
    words = {"processes": str(*several)} if several else {}
    return max((run.overrides for run in configuration.runs), key=len) | words


def _differing(mappings: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    return [key for key in keys if len({mapping.get(key) for mapping in mappings}) > 1]


def _rank(group: Group, metric: str) -> None:
    sign = 1 if lower_is_better(metric) else -1
    group.configurations.sort(key=lambda c: (sign * c.values[metric].mean, c.label))
    for rank, configuration in enumerate(group.configurations, 1):
        configuration.rank = rank
    if len({run.device for c in group.configurations for run in c.runs if run.device}) > 1:
        group.notes.append(
            "Latencies were measured on several devices: they are shown, but not compared"
        )
    for cost in COSTS:
        front = pareto_front(cost_points(group, cost, metric, better=-sign))
        for configuration in group.configurations:
            if str(configuration.rank) in front:
                configuration.fronts.append(cost)
    group.notes += [*_classes_of_folds(group), *_classes_of_runs(group)]
    tested = {_weights(run) for c in group.configurations for run in c.runs}
    if len(tested) > 1:
        group.notes.append(f"The tested weights are not chosen alike: {', '.join(sorted(tested))}")
    revisions = {run.revision for c in group.configurations for run in c.runs} - {None}
    if len(revisions) > 1:
        group.notes.append(f"{len(revisions)} revisions of segpets made these runs")


def _classes_of_folds(group: Group) -> Iterator[str]:
    """Yields a note for each configuration of which some folds lack a class."""
    for configuration in group.configurations:
        lacking: dict[tuple[int | None, ...], list[str]] = {}
        for name in (name for name in configuration.values if "val/iou/" in name):
            runs = [run for run in configuration.runs if name not in run.values]
            if runs and configuration.folds:
                folds = tuple(dict.fromkeys(run.fold for run in runs))
                lacking.setdefault(folds, []).append(name.rpartition("/")[2])
        for folds, classes in lacking.items():
            yield (
                f"#{configuration.rank}: val has no {', '.join(dict.fromkeys(classes))} in fold "
                f"{', '.join(map(str, folds))}: the means are over other classes there"
            )


def _classes_of_runs(group: Group) -> Iterator[str]:
    """Yields a note for each stage of which some runs' means leave out a class that others count.

    They do if neither truth nor prediction holds it; see docs/metrics.md.
    """
    runs = [(c, run) for c in group.configurations for run in c.runs if run.fold is None]
    for stage in ("val", "test"):
        part = f"{stage}/iou/"
        of_run = [{name.partition(part)[2] for name in r.values if part in name} for _, r in runs]
        every = set[str]().union(*of_run)
        few = [which for which, own in enumerate(of_run) if own and own != every]
        if few:
            ranks = sorted({runs[which][0].rank for which in few})
            lacking = sorted(set[str]().union(*(every - of_run[which] for which in few)))
            yield (
                f"{', '.join(f'#{rank}' for rank in ranks)}: {len(few)} of {len(runs)} runs "
                f"neither see nor predict {', '.join(lacking)} in {stage}, and their means leave "
                "it out, while others count an IoU of 0 or more: compare the IoU of each class"
            )


def _weights(run: Record) -> str:
    """Says which weights a run's test reports."""
    weights = run.protocol.get("tested_weights", {})
    words = (f"{key} {value}" for key, value in weights.items() if value is not None)
    return " ".join(words).replace("checkpoint ", "").replace("monitor ", "")


def cost_points(
    group: Group, cost: str, metric: str, *, better: int = 1
) -> dict[str, tuple[float, float]]:
    """Collects cost and metric by rank, of the configurations that have both.

    Args:
        group: The group.
        cost: Its name; a latency measured on several devices doesn't count.
        metric: Its name.
        better: -1 reverses the metric.
    """
    if cost == "latency_ms":
        devices = {run.device for c in group.configurations for run in c.runs if run.device}
        if len(devices) > 1:
            return {}
    points = {}
    for configuration in group.configurations:
        price, value = configuration.mean(cost), configuration.mean(metric)
        if price is not None and value is not None:
            points[str(configuration.rank)] = (price, better * value)
    return points
