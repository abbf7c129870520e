"""Predicts pictures: `python -m segpets.predict run=latest source=photos output=predicted`."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field
from rich.console import Console
from rich.progress import Progress

from segpets.errors import UserError
from segpets.inference.decision import deciding
from segpets.inference.ensemble import load_runs, open_runs
from segpets.inference.picture import by_tiles, claiming
from segpets.inference.trained import Trained
from segpets.inference.views import viewing
from segpets.labels import is_background
from segpets.predict import provenance
from segpets.predict.background import read_background
from segpets.predict.batch import Outcome, Wanted, predict_all
from segpets.predict.sources import PictureFile, each_page, find_sources
from segpets.predict.table import Table
from segpets.reading import in_one_line
from segpets.run.files import make_ready, shown
from segpets.run.lock import held
from segpets.run.trust import Trust
from segpets.settings import Positive, Settings, Weights

log = logging.getLogger("segpets.predict")

OTHERWISE = "choose another folder, or mend its permissions"


class PredictSettings(Settings):
    """Keys of `conf/predict.yaml`."""

    source: str | int | Sequence[str | int]
    output: str | int
    outputs: Sequence[Literal["masks", "overlays", "cutouts"]]
    background: str | int | float | None
    zoom: Annotated[float, Field(ge=1, le=100)] | None
    foreground: str | Sequence[str] | None
    decide: Weights | None
    tta: Annotated[Sequence[str | int | float | bool], Field(examples=["tta=[flip,1.25]"])]
    tile: Annotated[int, Field(ge=32)] | None
    overwrite: bool
    max_pixels: Positive
    batch_size: Positive

    @property
    def folders(self) -> list[str]:
        """The folders that are written."""
        asked = self.background is not None or self.zoom is not None
        return [*self.outputs, *(["composites"] if asked else [])]


@dataclass(frozen=True)
class Result:
    """The outcome of a prediction.

    Attributes:
        path: The output's folder, with `predictions.csv`.
        outcomes: The outcome of each picture that was predicted now.
        skipped: The number of pictures that were predicted before.
    """

    path: Path
    outcomes: list[Outcome]
    skipped: int

    @property
    def failed(self) -> int:
        """The number of pictures that couldn't be predicted."""
        return sum(outcome.error is not None for outcome in self.outcomes)


def predict(cfg: DictConfig, *, trust: Trust | None = None) -> Result:
    """Predicts pictures with a run's model, and writes masks and whatever else is wanted.

    Raises:
        UserError: The run can't be used, there is no picture, or the output can't be written. A
            picture that can't be used is reported and counted.
    """
    settings = _checked(cfg)
    output = Path(os.path.abspath(os.path.expanduser(str(settings.output))))
    given = settings.source if isinstance(settings.source, list) else [settings.source]
    words = [str(word) for word in given]
    find_sources(words, output=output)  # before anything is made or loaded
    provenance.check_folder(output)
    make_ready(output, OTHERWISE, key=f"output={output}: ")
    with held(output):
        return _predicted(cfg, settings, output, words, trust or Trust.of(cfg.allow))


def _predicted(
    cfg: DictConfig, settings: PredictSettings, output: Path, words: Sequence[str], trust: Trust
) -> Result:
    with claiming(settings.max_pixels):
        background = read_background(settings.background, max_pixels=settings.max_pixels)
        runs = open_runs(cfg.run, log_dir=cfg.train_log_dir, trust=trust)
        options = {"checkpoint": cfg.checkpoint, "device": cfg.device, "precision": cfg.precision}
        net = _deciding(load_runs(runs, **options), settings)
        wanted = Wanted(
            folder=output,
            outputs=settings.folders,
            classes=net.classes,
            foreground=_foreground(settings, net.classes),
            background=background,
            zoom=settings.zoom or 1.0,
            tile=settings.tile,
            batch_size=settings.batch_size,
            max_pixels=settings.max_pixels,
            overwrite=settings.overwrite,
        )
        table = Table(output, net.classes)
        sources = find_sources(
            words, output=output, known=table.names(), bands=net.config["data"].get("bands")
        )
        if net.reader.pages == "each":
            sources = list(each_page(sources, known=table.names()))
        _check_own(sources, wanted, table)
        for name in settings.folders:
            make_ready(output / name, OTHERWISE, key=f"output={output}: ")
        origin = provenance.checked(
            output,
            _provenance(settings, net, wanted),
            there=[path for path, row in table.rows.items() if not row["error"]],
            wanted=[source.source for source in sources],
            overwrite=settings.overwrite,
        )
        if settings.overwrite:  # if this is interrupted, none counts as predicted by the new model
            table.doubt([source.source for source in sources])
        provenance.claim(output, origin, [source.name for source in sources])
        done = [s for s in sources if not settings.overwrite and _is_done(s, wanted, table.rows)]
        missing = [source for source in sources if source not in done]
        outcomes = []
        for outcome in _with_progress(net, missing, wanted):
            table.add(_row(outcome, wanted))
            outcomes.append(outcome)
        table.tidy()
        provenance.finish(output)
    return Result(output, outcomes, len(done))


def _checked(cfg: DictConfig) -> PredictSettings:
    if not isinstance(cfg.outputs, Sequence) or isinstance(cfg.outputs, str):
        cfg.outputs = [cfg.outputs]
    if "composites" in cfg.outputs:
        raise UserError("outputs=composites: background=blur or zoom=1.3 asks for composites")
    settings = PredictSettings.of(cfg)
    outputs = settings.outputs
    if len(set(outputs)) < len(outputs):
        raise UserError(f"outputs names {outputs[-1]} twice")
    if not settings.folders:
        raise UserError("outputs is empty, so there is nothing to do: outputs=[masks]")
    for key, example in (("source", "photos"), ("output", "predicted")):
        if cfg[key] in ("", []):
            raise UserError(f"{key} has no value: give one, as in {key}={example}")
    return settings


def _deciding(trained: Trained, settings: PredictSettings) -> Trained:
    """Adds the views, and the weights of the classes, by which the pictures are predicted."""
    if not settings.tta:
        return deciding(trained, settings.decide)
    fitted = None if trained.reader.fit == "none" else trained.size
    given = by_tiles(trained, settings.tile) or fitted
    return viewing(trained, settings.tta, min(given) if given else None, settings.decide)


def _foreground(settings: PredictSettings, classes: Sequence[str]) -> list[bool]:
    """Chooses the classes that are cut out."""
    chosen = settings.foreground
    if chosen is None:
        kept = [not is_background(name) for name in classes]
        if all(kept) and {"cutouts", "composites"} & set(settings.folders):
            log.warning(
                "No class is called background, so cutouts keep the whole picture: "
                "foreground=[%s] chooses",
                classes[0],
            )
        return kept
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    for name in names:
        if name not in classes:
            raise UserError(
                f"foreground={name}: the run has no such class. It has {', '.join(classes)}"
            )
    if not names:
        raise UserError(f"foreground is empty: choose of {', '.join(classes)}")
    return [name in names for name in classes]


def _provenance(settings: PredictSettings, net: Trained, wanted: Wanted) -> dict[str, object]:
    """Describes the model and settings by which the pictures are predicted."""
    kept = zip(net.classes, wanted.foreground, strict=True)
    checkpoints = [member.checkpoint for member in net.members or (net,)]
    return {
        "run": shown(net.path),
        "members": [shown(member.path) for member in net.members],
        "checkpoint": net.checkpoint.name,
        "epoch": net.epoch,
        "weights": provenance.fingerprint(checkpoints),
        "decide": None if settings.decide is None else list(settings.decide),
        "tta": list(settings.tta) or None,
        "tile": settings.tile,
        "foreground": [name for name, keep in kept if keep],
        "background": None if settings.background is None else str(settings.background),
        "zoom": settings.zoom,
    }


def _check_own(sources: Sequence[PictureFile], wanted: Wanted, table: Table) -> None:
    """Refuses to take files for predictions, or to replace them, that no prediction wrote.

    Raises:
        UserError: There is one in the place of an output.
    """
    own, begun = table.files(), provenance.begun(wanted.folder)
    for source in sources:
        for file in wanted.existing(source).values():
            if str(file.relative_to(wanted.folder)) not in own and source.name not in begun:
                raise UserError(
                    f"{in_one_line(shown(file))} is there, and no prediction wrote it: move it "
                    "away, or choose another output="
                )


def _is_done(source: PictureFile, wanted: Wanted, rows: Mapping[str, Mapping[str, str]]) -> bool:
    """Tells whether a picture was predicted before, and has all requested outputs."""
    row = rows.get(source.source)
    done = row is not None and not row["error"]
    return done and set(wanted.existing(source)) == set(wanted.outputs)


def _with_progress(
    net: Trained, sources: Sequence[PictureFile], wanted: Wanted
) -> Iterator[Outcome]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Predicting", total=len(sources))
        for outcome in predict_all(net, sources, wanted):
            yield outcome
            bar.advance(task)


def _row(outcome: Outcome, wanted: Wanted) -> dict[str, object]:
    """Makes a line of predictions.csv."""
    row: dict[str, object] = {
        "source": outcome.source.source,
        "name": outcome.source.name,
        "confidence": outcome.confidence,
        "error": outcome.error,
    }
    if outcome.size is not None:
        row["height"], row["width"] = outcome.size
    row |= {folder: file.relative_to(wanted.folder) for folder, file in outcome.files.items()}
    shares = zip(wanted.classes, outcome.shares, strict=False)
    return row | {f"share_{name}": share for name, share in shares}


def main(cfg: DictConfig, trust: Trust) -> None:
    """Runs the command, and reports the outcome of the pictures."""
    result = predict(cfg, trust=trust)
    done = len(result.outcomes) - result.failed
    log.info("%d picture%s predicted: %s", done, "s" * (done != 1), shown(result.path))
    if result.skipped:
        were = "was" if result.skipped == 1 else "were"
        log.info("%d %s there already; overwrite=true makes them anew", result.skipped, were)
    if result.failed:
        raise UserError(
            f"{result.failed} of {len(result.outcomes)} pictures failed, as was said above and as "
            f"{shown(result.path)}/predictions.csv lists; the others are done"
        )
