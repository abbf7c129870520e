"""A run directory as a record. Any of it may be damaged, cut short or made up."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from segpets.errors import FileError
from segpets.reading import in_one_line, read_csv, read_json
from segpets.records.counts import Counts, read_counts
from segpets.run.directory import read_summary
from segpets.run.files import BENCHMARK, CONFIG, COUNTS, METRICS, RunFiles
from segpets.run.find import pruned_at
from segpets.run.protocol import BORDER, labels_of, pet_rules, tested_weights
from segpets.run.schema import MOST_CLASSES, read_plain
from segpets.run.stored import upgraded

CURVE: Final = "val/mean_iou"

_DECIDES = (
    *("data", "augment", "model", "loss", "optimizer", "scheduler", "trainer", "callback"),
    *("train", "init_from", "freeze", "lr_factors", "aux_weight"),
    *("teacher", "teacher_weight", "teacher_temperature"),
)
"""The parts of a config that decide over weights and metrics, apart from the seed."""

_LATER = {
    **dict.fromkeys(("data.folds", "freeze", "lr_factors", "teacher"), "None"),
    "model.auxiliary": "0",
    "aux_weight": "0.4",
    "loss.class_weights": "None",
}
"""Keys that earlier versions hadn't, and the values with which they say nothing."""

_OF_THE_MACHINE = {"root", "num_workers", "cache", "cache_dir", "cache_gb"}
"""Keys of data that differ between machines; what they hold is in the fingerprint."""

_NOT_CHOSEN = ("hydra.", "hydra/", "paths.", "logger")
_NOT_CHOICES = {
    "seed",
    "sweep",
    "sweep_mismatch",
    "fail_fast",
    "jobs_per_gpu",
    "dry_run",
    "n_trials",
}
_NOT_CHOICES |= {
    "data.fold",
    "tags",
    "resume",
    "task_name",
    "test",
    "paths",
    "hydra",
    "hparams_search",
}

_LARGEST = 1e100  # its square is still finite
_LEAVES = 20_000  # nor is this, which aliases in YAML can reach within few bytes

Flat = dict[str, str]


@dataclass(frozen=True)
class Record:
    """A run as its directory describes it.

    Attributes:
        path: The run directory.
        status: As its summary has it; `running` only where a process holds the run, and
            `pruned` where a search ended it early.
        error: Why it failed.
        started: When, ISO 8601.
        revision: The revision of segpets that made it.
        seed: Its seed.
        fold: Which fold of the data was its val; None without folds.
        overrides: What was chosen, by key; without seed, paths and the like.
        values: All finite numbers of the summary, by name, and those of what lies beside it.
        protocol: What the metrics mean.
        config: The parts of the resolved config that determine the result, flat; None if it
            can't be read.
        curve: Epoch, from 1, and `val/mean_iou`.
        counts: The test's counts for each image; None if they are missing or can't be trusted.
        device: On which the latency was measured.
        processes: How many trained it, each with batches of its own; 1 if it doesn't say.
        notes: What is odd about it, as sentences without the run's name.
    """

    path: Path
    status: str
    error: str | None = None
    started: str = ""
    revision: str | None = None
    seed: int | None = None
    fold: int | None = None
    overrides: Flat = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    config: Flat | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    counts: Counts | None = None
    device: str | None = None
    processes: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return list(self.protocol["classes"])


def read_record(path: Path) -> Record:
    """Reads a run directory.

    Raises:
        UserError: Its summary can't be read.
    """
    summary = read_summary(path)
    status, protocol = summary.get("status"), summary.get("protocol")
    record = Record(
        path=path,
        status=status if isinstance(status, str) else "unknown",
        error=_line(summary.get("error")),
        started=str(summary.get("started", "")),
        revision=_revision(summary.get("versions")),
        seed=_whole(summary.get("seed")),
        processes=_whole(summary.get("processes")) or 1,
        overrides=_overrides(summary),
        values=_numbers(summary),
        protocol=_whole_protocol(path, summary) if _is_protocol(protocol) else {},
    )
    if record.status != "completed" or not record.protocol:
        return record
    if epoch := pruned_at(path):
        return replace(record, status="pruned", error=f"its search ended it at epoch {epoch}")
    return _with_files(record)


def _with_files(record: Record) -> Record:
    """Adds what lies beside the summary; what can't be read is noted and left out."""
    facts: dict[str, Any] = {}
    notes: list[str] = []
    added: dict[str, float] = {}
    files = RunFiles(record.path)
    try:
        facts["config"], facts["fold"] = _read_config(files.config)
    except FileError as error:
        notes.append(f"{CONFIG} {error.problem}: told apart by its overrides alone")
    except ValueError as error:
        notes.append(f"{CONFIG} {_lost(error)}: told apart by its overrides alone")
    try:
        facts["curve"] = _read_curve(files.metrics)
    except (OSError, ValueError, OverflowError) as error:
        notes.append(f"{METRICS} {_lost(error)}: it has no learning curve")
    try:
        counts = read_counts(files.counts, record.classes)
        notes += (gap := _gap(counts, record))
        facts["counts"] = None if gap else counts
        if not gap:
            added |= {f"test/{name}": value for name, value in counts.worst.items()}
    except (OSError, ValueError, OverflowError) as error:
        notes.append(f"{COUNTS} {_lost(error)}: it is in no paired test")
    try:
        facts["device"], latency = _read_benchmark(files.benchmark)
        added |= latency
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        notes.append(f"{BENCHMARK} {_lost(error)}: its latency is unknown")
    return replace(record, **facts, notes=notes, values=record.values | added)


def _lost(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is missing"
    return f"can't be read ({_line(error)})"


def _gap(counts: Counts, record: Record) -> list[str]:
    """Reports counts that come from another test than the summary's."""
    counted, tested = counts.mean_iou(), record.values.get("test/mean_iou")
    if tested is None or abs(counted - tested) < 1e-3:
        return []
    there, images = len(counts.names), record.protocol.get("images")
    should = images.get("test") if isinstance(images, dict) else None
    if math.isnan(counted):
        why = f"{COUNTS} counts no pixel"
    elif isinstance(should, int) and there < should:
        why = f"{COUNTS} is cut short: it has {there:,} of {should:,} images"
    else:
        why = (
            f"{COUNTS} gives a mean IoU of {counted:.4f}, the summary {tested:.4f}: they are of "
            "two tests"
        )
    return [f"{why}, so it is in no paired test"]


def _line(value: object) -> str | None:
    lines = str(value).strip().splitlines() if value else []
    return lines[0][:300] if lines else None


def _revision(versions: object) -> str | None:
    """Names the code: by its hash, which other files beside it don't change, or by git's."""
    if not isinstance(versions, dict):
        return None
    return _line(versions.get("code") or versions.get("git"))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_protocol(protocol: object) -> bool:
    if not isinstance(protocol, dict):
        return False
    classes = protocol.get("classes")
    try:
        flat(protocol)
    except ValueError:
        return False
    return (
        isinstance(classes, list)
        and 0 < len(classes) <= MOST_CLASSES
        and all(isinstance(name, str) and in_one_line(name) == name for name in classes)
    )


def _whole_protocol(path: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Completes a protocol by the fingerprint, which says which images and masks there were.

    Until 0.1.0, a training's protocol didn't say what masks mean; for the pets, its config does.
    """
    protocol: dict[str, Any] = summary["protocol"]
    whole = protocol | {"data_fingerprint": summary.get("data_fingerprint")}
    whole["tested_weights"] = tested_weights(dict(summary))
    if "masks" not in whole and whole.get("data") == "OxfordPets":
        with suppress(FileError, AttributeError):
            data = read_plain(RunFiles(path).config).get("data") or {}
            labels = labels_of(data)
            whole |= {"labels": labels, "masks": pet_rules(labels), "border": BORDER.get(labels)}
    return whole


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Keeps the numbers that can be used in calculations, but not the seed."""
    return {
        name: float(value)
        for name, value in summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
        if -_LARGEST < value < _LARGEST and name != "seed"  # excludes NaN, too
    }


def _overrides(summary: Mapping[str, Any]) -> Flat:
    """Lists the overrides chosen at the start and when the run was resumed."""
    resumed = summary.get("resumed")
    parts = [summary.get("overrides"), *(resumed if isinstance(resumed, list) else [])]
    chosen: Flat = {}
    for part in parts:
        for word in part if isinstance(part, list) else []:
            key, equals, value = str(word).partition("=")
            plain = key.lstrip("+~")
            if plain in _NOT_CHOICES or plain.startswith(_NOT_CHOSEN):
                continue
            chosen[plain] = value if equals and not key.startswith("~") else "(removed)"
    return chosen


def _read_config(file: Path) -> tuple[Flat, int | None]:
    """Reads what determines a result, flat, and the fold, which is to data what a seed is."""
    config = upgraded(read_plain(file))
    paths = config.get("paths")
    own = str(paths.get("output_dir") or "") if isinstance(paths, dict) else ""
    leaves = flat({key: config[key] for key in _DECIDES if key in config})
    fold = leaves.pop("data.fold", "")
    for key, value in _LATER.items():
        if leaves.get(key) == value:
            del leaves[key]
    if "teacher" not in leaves:
        leaves = {k: v for k, v in leaves.items() if not k.startswith("teacher_")}
    kept = {
        key: value.replace(own, "RUN") if own else value
        for key, value in leaves.items()
        if not (key.startswith("data.") and key.rpartition(".")[2] in _OF_THE_MACHINE)
    }
    return kept, int(fold) if fold.isdecimal() else None


def flat(tree: Mapping[str, Any]) -> Flat:
    """Flattens nested mappings to their leaves, as texts by dotted keys; a list is a leaf.

    Raises:
        ValueError: There are too many of them.
    """
    leaves: Flat = {}
    stack: list[tuple[str, Any]] = [("", tree)]
    visited = 0
    while stack:
        key, node = stack.pop()
        visited += 1
        if visited > _LEAVES or len(key) > 1000:
            raise ValueError("has too many keys")
        if isinstance(node, Mapping) and node:
            stack += [(f"{key}.{k}" if key else str(k), v) for k, v in node.items()]
        elif isinstance(node, list) and any(isinstance(item, dict | list) for item in node):
            stack += [(f"{key}.{i}", item) for i, item in enumerate(node)]
        elif isinstance(node, list):
            visited += len(node)
            leaves[key] = f"[{','.join(map(str, node))}]"
        else:
            leaves[key] = str(node)
    return leaves


def _read_curve(file: Path) -> list[tuple[int, float]]:
    """Reads the epochs, from 1, at which `val/mean_iou` was measured, and its values."""
    rows = read_csv(file)
    head = next(rows, [])
    if CURVE not in head or "epoch" not in head:
        return []
    epoch, value = head.index("epoch"), head.index(CURVE)
    curve: dict[int, float] = {}
    for cells in rows:
        if len(cells) == len(head) and cells[value]:
            number = float(cells[value])
            if -_LARGEST < number < _LARGEST:
                curve[int(float(cells[epoch])) + 1] = number
    return sorted(curve.items())


def _read_benchmark(file: Path) -> tuple[str, dict[str, float]]:
    measured = read_json(file)
    values = _numbers({"latency_ms": measured.get("latency_ms")})
    return str(measured.get("device", "unknown")), values
