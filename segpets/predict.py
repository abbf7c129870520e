"""Predicts pictures: `python -m segpets.predict run=latest source=photos output=predicted`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig

from segpets.cli import EXAMPLES, run_command
from segpets.config import own_folders
from segpets.errors import UserError
from segpets.prediction.sources import FOLDERS, Source, find_sources
from segpets.run import make_ready, shown

if TYPE_CHECKING:
    from segpets.prediction.pictures import Outcome, Wanted
    from segpets.trained import Trained

log = logging.getLogger("segpets.predict")


@dataclass(frozen=True)
class Result:
    """What a prediction gives.

    Attributes:
        path: The output's folder, with `predictions.csv`.
        outcomes: What became of each picture that was predicted now.
        skipped: How many were predicted before.
    """

    path: Path
    outcomes: list[Outcome]
    skipped: int

    @property
    def failed(self) -> int:
        """How many pictures couldn't be predicted."""
        return sum(outcome.error is not None for outcome in self.outcomes)


def predict(cfg: DictConfig, *, folders: Sequence[Path] = ()) -> Result:
    """Predicts pictures with a run's model, and writes masks and whatever else is wanted.

    Args:
        cfg: The composed config of `conf/predict.yaml`; see `segpets.config.compose`.
        folders: Folders with configs of the user's own; what they name, the run may name, too.

    Raises:
        UserError: The run can't be used, there is no picture, or the output can't be written. A
            picture that can't be used is told, and counted.
    """
    _check(cfg)
    output = Path(os.path.abspath(os.path.expanduser(str(cfg.output))))
    given = (
        [str(s) for s in cfg.source] if isinstance(cfg.source, ListConfig) else [str(cfg.source)]
    )
    find_sources(given, output=output)  # before anything is made or loaded
    outputs = [*cfg.outputs]
    if cfg.background is not None or cfg.zoom is not None:
        outputs.append("composites")
    for folder in (output, *(output / name for name in outputs)):
        otherwise = "choose another folder, or mend its permissions"
        make_ready(folder, otherwise, key=f"output={output}: ")

    from segpets import trained
    from segpets.prediction import origin
    from segpets.prediction.background import read_background
    from segpets.prediction.picture import claiming
    from segpets.prediction.pictures import Wanted
    from segpets.prediction.table import Table

    with claiming(cfg.max_pixels):
        background = read_background(cfg.background, max_pixels=cfg.max_pixels)
        net = trained.load(
            cfg.run,
            log_dir=cfg.train_log_dir,
            checkpoint=cfg.checkpoint,
            device=cfg.device,
            precision=cfg.precision,
            allow=cfg.allow,
            folders=folders,
        )
        wanted = Wanted(
            folder=output,
            outputs=outputs,
            classes=net.classes,
            foreground=_foreground(cfg.foreground, net.classes, outputs),
            background=background,
            zoom=1.0 if cfg.zoom is None else float(cfg.zoom),
            tile=cfg.tile,
            batch_size=cfg.batch_size,
            max_pixels=cfg.max_pixels,
            overwrite=cfg.overwrite,
        )
        table = Table(output, net.classes)
        sources = find_sources(given, output=output, known=table.names())
        origin.claim(
            output,
            {
                "run": shown(net.path),
                "checkpoint": net.checkpoint.name,
                "epoch": net.epoch,
                "weights": origin.fingerprint(net.checkpoint),
                "tile": cfg.tile,
                "foreground": [
                    name for name, keep in zip(net.classes, wanted.foreground, strict=True) if keep
                ],
                "background": None if cfg.background is None else str(cfg.background),
                "zoom": cfg.zoom,
            },
            there=[path for path, row in table.rows.items() if not row["error"]],
            wanted=[str(source.path) for source in sources],
            overwrite=cfg.overwrite,
        )
        missing = [s for s in sources if cfg.overwrite or not _is_done(s, wanted, table.rows)]
        outcomes = []
        for outcome in _with_progress(net, missing, wanted):
            table.add(_row(outcome, wanted))
            outcomes.append(outcome)
        table.tidy()
    return Result(output, outcomes, len(sources) - len(missing))


def _check(cfg: DictConfig) -> None:
    """Refuses values that mean nothing, before anything is loaded."""
    for key, least, empty in (
        ("batch_size", 1, False),
        ("max_pixels", 1, False),
        ("tile", 32, True),
    ):
        value = cfg[key]
        if value is None and empty:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{key}={value} must be a whole number of at least {least}")
    zoom = cfg.zoom
    if zoom is not None and (isinstance(zoom, bool) or not isinstance(zoom, (int, float))):
        raise UserError(f"zoom={zoom} must be a number, such as 1.3")
    if zoom is not None and not 1 <= zoom <= 100:
        raise UserError(f"zoom={zoom} must be from 1 to 100: the foreground is made bigger")
    if not isinstance(cfg.overwrite, bool):
        raise UserError(f"overwrite={cfg.overwrite} must be true or false")
    known = [folder for folder in FOLDERS if folder != "composites"]
    outputs = list(cfg.outputs) if isinstance(cfg.outputs, ListConfig) else [cfg.outputs]
    for name in outputs:
        if name == "composites":
            raise UserError("outputs=composites: background=blur or zoom=1.3 asks for composites")
        if name not in known:
            raise UserError(f"outputs={name} is unknown: choose of {', '.join(known)}, as a list")
    if len(set(outputs)) < len(outputs):
        raise UserError(f"outputs names {outputs[-1]} twice")
    if not outputs and cfg.background is None and zoom is None:
        raise UserError("outputs is empty, so there is nothing to do: outputs=[masks]")
    for key in ("source", "output"):
        if cfg[key] in (None, "", []):
            raise UserError(f"{key} has no value: give one, as in {key}={EXAMPLES[key]}")


def _foreground(
    chosen: str | ListConfig | None, classes: Sequence[str], outputs: Sequence[str]
) -> list[bool]:
    """Which classes are cut out."""
    from segpets.labels import is_background

    if chosen is None:
        kept = [not is_background(name) for name in classes]
        if all(kept) and {"cutouts", "composites"} & set(outputs):
            log.warning(
                "No class is called background, so cutouts keep the whole picture: "
                "foreground=[%s] chooses",
                classes[0],
            )
        return kept
    names = [str(chosen)] if not isinstance(chosen, ListConfig) else [str(name) for name in chosen]
    for name in names:
        if name not in classes:
            raise UserError(
                f"foreground={name}: the run has no such class. It has {', '.join(classes)}"
            )
    if not names:
        raise UserError(f"foreground is empty: choose of {', '.join(classes)}")
    return [name in names for name in classes]


def _is_done(source: Source, wanted: Wanted, rows: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a picture was predicted before, and all that is wanted of it is there."""
    row = rows.get(str(source.path))
    done = row is not None and not row["error"]
    return done and set(wanted.existing(source)) == set(wanted.outputs)


def _with_progress(net: Trained, sources: Sequence[Source], wanted: Wanted) -> Iterator[Outcome]:
    from rich.console import Console
    from rich.progress import Progress

    from segpets.prediction.pictures import predict_all

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Predicting", total=len(sources))
        for outcome in predict_all(net, sources, wanted):
            yield outcome
            bar.advance(task)


def _row(outcome: Outcome, wanted: Wanted) -> dict[str, object]:
    """A line of predictions.csv."""
    row: dict[str, object] = {
        "source": str(outcome.source.path),
        "name": outcome.source.name,
        "confidence": outcome.confidence,
        "error": outcome.error,
    }
    if outcome.size is not None:
        row["height"], row["width"] = outcome.size
    row |= {folder: file.relative_to(wanted.folder) for folder, file in outcome.files.items()}
    shares = zip(wanted.classes, outcome.shares, strict=False)
    return row | {f"share_{name}": share for name, share in shares}


def _task(cfg: DictConfig) -> None:
    """What Hydra calls."""
    result = predict(cfg, folders=own_folders())
    done = len(result.outcomes) - result.failed
    pictures = f"{done} picture{'s' * (done != 1)} predicted: {shown(result.path)}"
    log.info("%s", pictures)
    if result.skipped:
        log.info(
            "%d %s there already; overwrite=true makes them anew",
            result.skipped,
            "was" if result.skipped == 1 else "were",
        )
    if result.failed:
        raise UserError(
            f"{result.failed} of {len(result.outcomes)} pictures failed, as was said above and as "
            f"{shown(result.path)}/predictions.csv lists; the others are done"
        )


def main() -> None:
    """The command."""
    run_command(
        _task,
        name="predict",
        example="python -m segpets.predict run=latest source=photos output=predicted",
        needs="run",
    )


if __name__ == "__main__":
    main()
