"""Exports a run's model: `python -m segpets.export run=latest format=onnx`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from omegaconf import DictConfig

from segpets.cli import run_command
from segpets.config import own_folders
from segpets.errors import FileError, UserError

if TYPE_CHECKING:
    from segpets.data import SegmentationDataModule
    from segpets.labels import Item
    from segpets.trained import Trained

log = logging.getLogger("segpets.export")

FILES: Final = {
    "onnx": "model.onnx",
    "onnx_int8": "model_int8.onnx",
    "torch_export": "model.pt2",
}
REPORT: Final = "export.json"


@dataclass(frozen=True)
class Result:
    """What exporting gives.

    Attributes:
        path: The file; where it was rejected, its name says so.
        report: What the gate saw, as it stands in `export.json`.
        complaints: Why the file was rejected; empty where it is good.
    """

    path: Path
    report: dict[str, Any]
    complaints: list[str]


def export(cfg: DictConfig, *, folders: Sequence[Path] = ()) -> Result:
    """Writes the file beside its run, after comparing it with the original on test images.

    Args:
        cfg: The composed config of `conf/export.yaml`; see `segpets.config.compose`.
        folders: Folders with configs of the user's own, whose classes are allowed, too.

    Raises:
        UserError: The run, its data or the extra is missing, the file is there already, or the
            model can't be exported.
    """
    _check(cfg)
    from segpets.exporting import need_onnx
    from segpets.trained import load

    if cfg.format != "torch_export":
        need_onnx()
    trained = load(
        cfg.run,
        log_dir=cfg.train_log_dir,
        checkpoint=cfg.checkpoint,
        device="cpu",
        precision="32-true",
        allow=cfg.allow,
        folders=folders,
    )
    folder = Path(cfg.output).expanduser() if cfg.output else trained.path / "export"
    target = folder / FILES[cfg.format]
    _check_free(target, cfg)
    datamodule = _data(cfg, trained)
    items = _chosen(datamodule, "test", cfg.images, cfg.seed)
    with _workshop(folder) as workshop:
        made, beside = _make(cfg, trained, datamodule, workshop)
        report = _examine(cfg, trained, made, beside, items)
        complaints = report["complaints"]
        if complaints:
            target = target.with_name(f"rejected_{target.name}")
        else:
            _check_free(target, cfg)
        _record(folder / REPORT, target.name, report)
        os.replace(made, target)
    _say(target, report)
    return Result(target, report, complaints)


def _check(cfg: DictConfig) -> None:
    if cfg.format not in FILES:
        near = difflib.get_close_matches(str(cfg.format), FILES, n=1, cutoff=0.4)
        hint = f" Did you mean format={near[0]}?" if near else ""
        raise UserError(f"format={cfg.format} is unknown.{hint} Available: {', '.join(FILES)}")
    least = {"seed": 0, "calibration": 1, "repeats": 1}
    if cfg.images is not None:
        least["images"] = 1
    for key, lowest in least.items():
        value = cfg[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise UserError(f"{key}={value} must be a whole number of at least {lowest}")
    if not isinstance(cfg.overwrite, bool):
        raise UserError(f"overwrite={cfg.overwrite} must be true or false")
    for key, value in cfg.tolerance[cfg.format].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and value >= 0):
            raise UserError(
                f"tolerance.{cfg.format}.{key}={value} must be a number of at least 0, or null"
            )


def _check_free(target: Path, cfg: DictConfig) -> None:
    if target.exists() and not cfg.overwrite:
        raise UserError(
            f"{target} is there already: overwrite=true replaces it, output=FOLDER writes elsewhere"
        )


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A folder inside another, on the same disk, in which files are made before they are good."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as workshop:
            yield Path(workshop)
    except OSError as error:
        raise FileError(
            folder, f"can't be written ({error.strerror or error})", "choose output=FOLDER"
        ) from error


def _data(cfg: DictConfig, trained: Trained) -> SegmentationDataModule:
    """The run's images, which the gate can't do without."""
    from segpets.build import build

    if list(cfg.data.classes) != list(trained.classes):
        raise UserError(
            f"the data has the classes {', '.join(cfg.data.classes)}, but the run was trained on "
            f"{', '.join(trained.classes)}: give data with the same classes"
        )
    try:
        datamodule: SegmentationDataModule = build(cfg.data.module, "data")
        datamodule.setup()
    except UserError as error:
        raise UserError(
            f"{error}\nThe file is only called good after a comparison on the run's test images: "
            "data.root=FOLDER says where they are now"
        ) from error
    return datamodule


def _chosen(
    datamodule: SegmentationDataModule, stage: str, count: int | None, seed: int
) -> list[Item]:
    """So many images of a stage, without augmentation, in the order of their names."""
    import numpy as np

    dataset = datamodule.dataset(stage)
    count = min(count or len(dataset), len(dataset))
    rows = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count]).tolist()
    return dataset.__getitems__([(0, row) for row in rows])


def _make(
    cfg: DictConfig, trained: Trained, datamodule: SegmentationDataModule, workshop: Path
) -> tuple[Path, dict[str, Path]]:
    """Writes the file, and those on the way to it whose latency is of interest."""
    from segpets.exporting import describe, padded, to_int8, to_onnx, to_program

    made = workshop / FILES[cfg.format]
    metadata = describe(
        trained,
        numbers="int8" if cfg.format == "onnx_int8" else "float32",
        # torch.export takes an axis of one stride for a constant, and refuses it later.
        least=2 if cfg.format == "torch_export" else 1,
    )
    write = to_program if cfg.format == "torch_export" else to_onnx
    first = workshop / FILES["onnx"] if cfg.format == "onnx_int8" else made
    log.info("Exporting %s ...", trained.path.name)
    write(trained.segmenter, first, size=trained.size, stride=trained.stride, metadata=metadata)
    if first == made:
        return made, {}
    items = _chosen(datamodule, "train", cfg.calibration, cfg.seed)
    to_int8(first, made, [padded(item["image"], trained.stride) for item in items])
    return made, {"onnx": first}


def _examine(
    cfg: DictConfig,
    trained: Trained,
    made: Path,
    beside: dict[str, Path],
    items: Sequence[Item],
) -> dict[str, Any]:
    """Compares the file with the original; what is seen, as plain data."""
    import torch

    from segpets.exporting import (
        OnnxModel,
        ProgramModel,
        check,
        complaints,
        latencies,
        opset_of,
        padded,
    )
    from segpets.hardware import device_name
    from segpets.run import versions

    read = ProgramModel if cfg.format == "torch_export" else OnnxModel
    exported = read(made)
    log.info("Comparing it with the original on %d test images ...", len(items))
    tolerance = dict(cfg.tolerance[cfg.format])
    checked = check(
        trained.segmenter, exported, items, classes=trained.classes, tolerance=tolerance
    )
    images = [padded(item["image"], trained.stride) for item in items]
    others = {name: OnnxModel(file) for name, file in beside.items()}
    times = latencies(
        {"eager": trained.logits, **others, cfg.format: exported}, images, repeats=cfg.repeats
    )
    return {
        "format": cfg.format,
        "run": str(trained.path),
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "opset": None if cfg.format == "torch_export" else opset_of(made),
        "bytes": made.stat().st_size,
        **checked.facts(),
        "latency_ms": times,
        "latency_of": f"one image of {images[0].shape[-2]}x{images[0].shape[-1]}, median",
        "device": device_name(trained.device),
        "threads": torch.get_num_threads(),
        "tolerance": tolerance,
        "complaints": complaints(checked, tolerance),
        "versions": versions(),
    }


def _record(file: Path, name: str, report: dict[str, Any]) -> None:
    """Adds a file's report to `export.json`, which has one for each file of the folder."""
    from segpets.run import write_atomically

    try:
        reports = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        reports = {}
    except ValueError as error:
        raise FileError(file, f"can't be read ({error})", "move it away") from error
    if not isinstance(reports, dict):
        raise FileError(file, "holds no table of names and values", "move it away")
    write_atomically(file, json.dumps(reports | {name: report}, indent=2) + "\n")


def _say(target: Path, report: dict[str, Any]) -> None:
    from segpets.report.table import as_text, export_table
    from segpets.run import shown

    log.info("%s", as_text(export_table(report)))
    log.info("%s", shown(target))


def _task(cfg: DictConfig) -> None:
    """What Hydra calls."""
    from segpets.run import shown

    result = export(cfg, folders=own_folders())
    if result.complaints:
        raise UserError(
            f"the exported model isn't the trained one: {'; '.join(result.complaints)}. "
            f"It lies in {shown(result.path)}, for whoever wants to know why; don't use it"
        )


def main() -> None:
    """The command."""
    run_command(
        _task,
        name="export",
        example="python -m segpets.export run=latest format=onnx",
        needs="run",
    )


if __name__ == "__main__":
    main()
