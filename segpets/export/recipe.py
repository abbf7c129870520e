"""Writes a run's model as one file: `python -m segpets.export run=latest format=onnx`."""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from omegaconf import DictConfig
from pydantic import BaseModel, Field
from torch import Tensor

from segpets.build.objects import build_data
from segpets.data import SegmentationDataModule
from segpets.errors import FileError, UserError
from segpets.export.gate import check, complaints, padded
from segpets.export.int8 import to_int8
from segpets.export.latency import latencies
from segpets.export.metadata import describe
from segpets.export.onnx_file import opset_of, to_onnx
from segpets.export.program import ProgramModel, to_program
from segpets.hardware import device_name
from segpets.inference.decision import deciding
from segpets.inference.ensemble import open_runs
from segpets.inference.onnx_session import OnnxModel, need_onnx
from segpets.inference.trained import Trained, load
from segpets.labels import Item
from segpets.reading import read_json
from segpets.report.table import as_text, export_table
from segpets.run.confine import check_links
from segpets.run.files import shown, write_atomically
from segpets.run.lock import waiting
from segpets.run.trust import Trust
from segpets.run.versions import versions
from segpets.settings import Natural, Positive, Settings, Weights, table

log = logging.getLogger("segpets.export")

FILES: Final = {
    "onnx": "model.onnx",
    "onnx_int8": "model_int8.onnx",
    "torch_export": "model.pt2",
}
REPORT: Final = "export.json"
_MAKING: Final = ".making-"
_LONG_AGO: Final = 24 * 3600.0

Limit = Annotated[float, Field(ge=0)] | None


class Tolerance(BaseModel, strict=True):
    """Limits on how much an exported model may differ; see `segpets.export.gate.complaints`."""

    logits: Limit
    agreement: Limit
    mean_iou: Limit


class ExportSettings(Settings):
    """Keys of `conf/export.yaml`."""

    format: Literal["onnx", "onnx_int8", "torch_export"]
    overwrite: bool
    decide: Weights | None
    images: Positive | None
    calibration: Positive
    repeats: Positive
    seed: Natural
    tolerance: dict[str, Tolerance]


@dataclass(frozen=True)
class Result:
    """The outcome of an export.

    Attributes:
        path: The file; if it was rejected, its name says so.
        report: The gate's results, as in `export.json`.
        complaints: The reasons why the file was rejected; empty if it is good.
    """

    path: Path
    report: dict[str, Any]
    complaints: list[str]


def export(cfg: DictConfig, *, trust: Trust | None = None) -> Result:
    """Writes the file beside its run, after comparing it with the original on test images.

    Raises:
        UserError: The run, its data or the extra is missing, the file is there already, or the
            model can't be exported.
    """
    settings = ExportSettings.of(cfg)
    if settings.format != "torch_export":
        need_onnx()
    runs = open_runs(cfg.run, log_dir=cfg.train_log_dir, trust=trust or Trust.of(cfg.allow))
    if len(runs) > 1:
        raise UserError(
            f"run names {len(runs)} runs, and a file holds one net: export each, or train one that "
            "learns from all, by teacher=[A,B]"
        )
    (run,) = runs
    trained = load(run, checkpoint=cfg.checkpoint, device="cpu", precision="32-true")
    trained = deciding(trained, settings.decide)
    folder = Path(cfg.output).expanduser() if cfg.output else run.files.export
    target = folder / FILES[settings.format]
    check_links(run.path)
    _check_free(target, settings)
    datamodule = _data(cfg, trained, run.data(table(cfg.data)))
    items = _chosen(datamodule, "test", settings.images, settings.seed)
    with _workshop(folder) as workshop:
        made, beside = _make(settings, trained, datamodule, workshop)
        report = _examine(settings, trained, made, beside, items)
        if report["complaints"]:
            target = target.with_name(f"rejected_{target.name}")
        with waiting(folder / ".lock"):
            _check_free(target, settings)
            os.replace(made, target)
            _record(folder / REPORT, target.name, report)
            (folder / ".lock").unlink()
    log.info("%s", as_text(export_table(report)))
    log.info("%s", shown(target))
    return Result(target, report, report["complaints"])


def _check_free(target: Path, settings: ExportSettings) -> None:
    for file in (target, target.with_name(f"rejected_{target.name}")):
        if file.exists() and not settings.overwrite:
            raise UserError(
                f"{file} is there already: overwrite=true replaces it, output=FOLDER writes "
                "elsewhere"
            )


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Makes a folder inside another, on the same disk, for files that aren't known to be good.

    Other exports may be at work beside it; what one left that was killed a day ago is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_MAKING}*"):
            if not left.is_symlink() and time.time() - left.stat().st_mtime > _LONG_AGO:
                shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_MAKING) as workshop:
            yield Path(workshop)
    except OSError as error:
        raise FileError(
            folder, f"can't be written ({error.strerror or error})", "choose output=FOLDER"
        ) from error


def _data(cfg: DictConfig, trained: Trained, data: dict[str, Any]) -> SegmentationDataModule:
    """Makes the run's data, which the gate needs."""
    if list(data["classes"]) != list(trained.classes):
        raise UserError(
            f"the data has the classes {', '.join(data['classes'])}, but the run was trained on "
            f"{', '.join(trained.classes)}: give data with the same classes"
        )
    try:
        datamodule = build_data(cfg, data)
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
    """Draws images of a stage, without augmentation, in the order of their names."""
    dataset = datamodule.dataset(stage)
    count = min(count or len(dataset), len(dataset))
    rows = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count]).tolist()
    return dataset.__getitems__([(0, row) for row in rows])


def _make(
    settings: ExportSettings, trained: Trained, datamodule: SegmentationDataModule, workshop: Path
) -> tuple[Path, dict[str, Path]]:
    """Writes the file, and the intermediate ones whose latency is of interest."""
    made = workshop / FILES[settings.format]
    metadata = describe(
        trained,
        numbers="int8" if settings.format == "onnx_int8" else "float32",
        # torch.export takes an axis of one stride for a constant, and refuses it later.
        least=2 if settings.format == "torch_export" else 1,
    )
    write = to_program if settings.format == "torch_export" else to_onnx
    first = workshop / FILES["onnx"] if settings.format == "onnx_int8" else made
    log.info("Exporting %s ...", trained.path.name)
    like = datamodule.example()
    write(trained.segmenter, first, like, stride=trained.stride, metadata=metadata)
    if first == made:
        return made, {}
    items = _chosen(datamodule, "train", settings.calibration, settings.seed)
    to_int8(first, made, [padded(item["image"], trained.stride) for item in items])
    return made, {"onnx": first}


def _examine(
    settings: ExportSettings,
    trained: Trained,
    made: Path,
    beside: dict[str, Path],
    items: Sequence[Item],
) -> dict[str, Any]:
    """Compares the file with the original; returns the results as plain data."""
    exported = (ProgramModel if settings.format == "torch_export" else OnnxModel)(made)
    log.info("Comparing it with the original on %d test images ...", len(items))
    tolerance = settings.tolerance[settings.format].model_dump()
    checked = check(
        trained.segmenter, exported, items, classes=trained.classes, tolerance=tolerance
    )
    images = [padded(item["image"], trained.stride) for item in items]
    models: dict[str, Callable[[Tensor], Tensor]] = {
        "eager": trained.logits,
        **{name: OnnxModel(file) for name, file in beside.items()},
    }
    times = latencies(models | {settings.format: exported}, images, repeats=settings.repeats)
    return {
        "format": settings.format,
        "run": str(trained.path),
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "opset": None if settings.format == "torch_export" else opset_of(made),
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
    try:
        reports = read_json(file)
    except FileNotFoundError:
        reports = {}
    except (OSError, ValueError) as error:
        raise FileError(file, f"can't be read ({error})", "move it away") from error
    write_atomically(file, json.dumps(reports | {name: report}, indent=2) + "\n")


def main(cfg: DictConfig, trust: Trust) -> None:
    """Runs the command; a rejected file is an error."""
    result = export(cfg, trust=trust)
    if result.complaints:
        raise UserError(
            f"the exported model isn't the trained one: {'; '.join(result.complaints)}. "
            f"It lies in {shown(result.path)}, for whoever wants to know why; don't use it"
        )
