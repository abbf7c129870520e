"""Shows a data set, and what is wrong with it: `python -m segpets.browse data=pets_mini`."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from pydantic import Field

from segpets.browse import label_issues
from segpets.browse.augmentation import examine_augmentation
from segpets.browse.copies import copies_of, save, say
from segpets.browse.finding import Finding, as_csv, exclusions
from segpets.browse.page import Drawn, Tile, page, save_sheets
from segpets.browse.shares import extremes, frequencies
from segpets.browse.survey import Survey, survey
from segpets.build.instantiate import build
from segpets.build.objects import build_data
from segpets.data import SegmentationDataModule
from segpets.data.dataset import Augment
from segpets.data.decoded import read_sample
from segpets.data.source import leave_out
from segpets.errors import FileError, UserError
from segpets.reading import read_text
from segpets.report.figure import (
    colourise,
    mixed,
    outlined,
    shrunk,
    visible,
)
from segpets.report.paint import RGB
from segpets.report.table import as_text, facts_table, findings_table, frequency_table
from segpets.run.files import (
    BROWSING,
    LATEST,
    OTHER_FOLDER,
    make_ready,
    point,
    shown,
    write_atomically,
)
from segpets.run.lock import check_new
from segpets.run.protocol import fit_words
from segpets.run.trust import Trust
from segpets.settings import Natural, Settings

log = logging.getLogger("segpets.browse")

TIMES = 8
_SHOWN = 50


class BrowseSettings(Settings):
    """Keys of `conf/browse.yaml`."""

    seed: Natural
    images: Natural
    augmented: Natural
    doctor: bool
    predictions: str | Annotated[Sequence[str], Field(min_length=1)] | None


@dataclass(frozen=True)
class Result:
    """The outcome of browsing.

    Attributes:
        path: The folder with `browse.html`, the contact sheets, and with `doctor=true`
            `doctor.csv`, `exclude.txt`, `duplicates.csv` and `duplicates.txt`, and, if enough
            photographs were annotated twice, `ceiling.json`.
        survey: The contents of the files.
        findings: What is wrong, the serious things first; without `doctor=true` only what the
            files show of themselves.
    """

    path: Path
    survey: Survey
    findings: list[Finding]


def browse(cfg: DictConfig) -> Result:
    """Surveys a data set and writes pictures and tables of it.

    Raises:
        UserError: The data set can't be listed.
    """
    settings = BrowseSettings.of(cfg)
    folder = Path(cfg.paths.output_dir)
    check_new(folder, "browse")
    datamodule = build_data(cfg)
    splits = leave_out(datamodule.source.splits(), datamodule.exclude)
    classes = list(cfg.data.classes)
    contents = survey(
        splits,
        datamodule.source,
        classes=classes,
        reader=datamodule.reader,
        duplicates=settings.doctor,
        folds=datamodule.is_fold,
    )
    findings = contents.findings
    if settings.doctor:
        findings = findings + examine_augmentation(datamodule.augment, datamodule.reader)
        findings.sort(key=lambda finding: not finding.serious)

    issues = _issues(cfg, settings, contents, datamodule)
    make_ready(folder, OTHER_FOLDER)
    copies = copies_of(contents, datamodule, classes)
    drawn = Drawn(
        _sheets(cfg, datamodule, contents, findings),
        _augmented(cfg, datamodule, contents),
        copies,
        label_issues.tiles_of(issues, contents, datamodule, classes),
    )
    save_sheets(folder, drawn, classes)
    before = read_text(datamodule.exclude) if datamodule.exclude else ""
    if settings.doctor:
        write_atomically(folder / "doctor.csv", as_csv(findings))
        write_atomically(folder / "exclude.txt", exclusions(findings, before=before))
        meant = _labels_of(cfg, datamodule) | {"images": {"test": len(splits.test)}}
        save(copies, contents, folder, classes=classes, protocol=meant, before=before)
    if issues:
        label_issues.save(issues, drawn.doubted, contents, folder, classes, before=before)
    write_atomically(folder / BROWSING, page(cfg, datamodule, contents, findings, drawn))
    _say(cfg, datamodule, contents, findings)
    if issues:
        ranked = {issue.row for issue in issues}
        own = {row for stage in ("train", "val") for row in contents.stages[stage]}
        without = len(own - ranked)
        other = " (were the runs' data.seed, folds or data others?)" if without else ""
        rest = f"; {without} of train and val have no prediction{other}" if without else ""
        log.info(
            "%d masks ranked by contradiction: %s/label_issues.csv%s",
            len(issues),
            shown(folder),
            rest,
        )
    if cfg.doctor:
        say(copies, contents, folder)
    return Result(folder, contents, findings)


def _issues(
    cfg: DictConfig, settings: BrowseSettings, contents: Survey, datamodule: SegmentationDataModule
) -> list[label_issues.Issue]:
    """Finds masks that the runs of `predictions` contradict."""
    if settings.predictions is None:
        return []
    meant = _labels_of(cfg, datamodule) | {"masks": datamodule.source.rules}
    log_dir = Path(cfg.train_log_dir)
    return label_issues.find_issues(settings.predictions, contents, datamodule, log_dir, meant)


def _labels_of(cfg: DictConfig, datamodule: SegmentationDataModule) -> dict[str, Any]:
    """Describes what the labels mean, in the words of a run's protocol."""
    fit, resolution = fit_words(datamodule)
    return {
        "data": type(datamodule.source).__name__,
        "labels": cfg.data.get("labels"),
        "classes": list(cfg.data.classes),
        "fit": fit,
        "resolution": resolution,
    }


def _sheets(
    cfg: DictConfig, datamodule: SegmentationDataModule, found: Survey, findings: Sequence[Finding]
) -> dict[str, list[Tile]]:
    """Chooses images of each stage, and those whose masks the doctor doubts."""
    doubted = {finding.name for finding in findings if finding.name and not finding.serious}
    readable = found.sizes[:, 0] > 0
    chosen = {}
    for stage, rows in found.stages.items():
        usable = rows[readable[rows]]
        count = min(cfg.images, len(usable))
        generator = np.random.default_rng([cfg.seed, len(rows)])
        chosen[stage] = np.sort(generator.choice(usable, count, replace=False)).tolist()
    if cfg.doctor:
        doubtful = np.flatnonzero(readable).tolist()
        chosen["doubtful"] = [row for row in doubtful if found.samples[row].name in doubted][
            :_SHOWN
        ]
    return {
        part: list(_tiles(rows, cfg, datamodule, found)) for part, rows in chosen.items() if rows
    }


def _tiles(
    rows: Sequence[int], cfg: DictConfig, datamodule: SegmentationDataModule, found: Survey
) -> Iterator[Tile]:
    classes = list(cfg.data.classes)
    for row in rows:
        sample = found.samples[row]
        try:
            decoded = read_sample(sample, datamodule.source, datamodule.reader)
        except FileError:  # it was readable a moment ago
            continue
        image = shrunk(visible(torch.from_numpy(decoded.image)))
        painted = shrunk(colourise(torch.from_numpy(decoded.mask), classes))
        height, width = found.sizes[row].tolist()
        parts = found.counts[row] / max(found.counts[row].sum(), 1)
        held = zip([*classes, "ignored"], parts.tolist(), strict=True)
        about = ", ".join(f"{name} {part:.0%}" for name, part in held if part > 0)
        overlay = mixed(image, painted)
        yield Tile(found.title(row), f"{width}x{height}: {about}", image, painted, overlay)


def _augmented(
    cfg: DictConfig, datamodule: SegmentationDataModule, found: Survey
) -> list[tuple[str, list[RGB]]]:
    train = found.stages["train"]
    usable = train[found.sizes[train, 0] > 0]
    count = min(cfg.augmented, len(usable))
    rows = np.random.default_rng([cfg.seed, 1]).choice(usable, count, replace=False)
    backends: dict[str, Augment] = {"chosen": datamodule.augment}
    for name, node in cfg.backends.items():
        if node == cfg.augment:
            backends[str(name)] = backends.pop("chosen")
        else:
            backends[str(name)] = build(node, f"backends.{name}")
    shown = []
    for row in rows.tolist():
        sample = found.samples[row]
        decoded = read_sample(sample, datamodule.source, datamodule.reader)
        pair = torch.from_numpy(decoded.image), torch.from_numpy(decoded.mask)
        for backend, augment in backends.items():
            tiles = []
            try:
                seeds = range(cfg.seed * TIMES, (cfg.seed + 1) * TIMES)
                for image, mask in [pair, *(augment(*pair, seed=seed) for seed in seeds)]:
                    drawn = outlined(visible(image), mask.numpy(), cfg.data.classes)
                    if drawn.shape[:2] != decoded.mask.shape:
                        size = decoded.mask.shape[::-1]
                        drawn = np.asarray(Image.fromarray(drawn).resize(size))
                    tiles.append(drawn)
            except Exception as error:  # somebody else's transform can raise anything
                log.warning("augment fails on %s: %s", found.title(row), error)
                continue
            shown.append((f"{found.title(row)}: {backend}", tiles))
    return shown


def _say(
    cfg: DictConfig, datamodule: SegmentationDataModule, found: Survey, findings: Sequence[Finding]
) -> None:
    facts = {stage: f"{len(rows):,} images" for stage, rows in found.stages.items()}
    log.info("%s", as_text(facts_table(facts | extremes(found), title=str(datamodule.source.root))))
    log.info("%s", as_text(frequency_table(frequencies(found, list(cfg.data.classes)))))
    serious = sum(finding.serious for finding in findings)
    if cfg.doctor and findings:
        root = f"{datamodule.source.root}/"
        rows = [
            (f.serious, f.file.removeprefix(root), f.problem, f.remedy) for f in findings[:_SHOWN]
        ]
        log.info("%s", as_text(findings_table(rows, total=len(findings))))
    elif serious:
        log.warning("%d files can't be used: doctor=true says why", serious)
    folder = shown(Path(cfg.paths.output_dir))
    log.info("%s/browse.html shows all of it", folder)
    if cfg.doctor:
        log.info("%s/doctor.csv lists what was found", folder)
        if any(f.name and f.leave_out for f in findings):
            log.info("data.exclude=%s/exclude.txt leaves out what it names", folder)


def main(cfg: DictConfig, trust: Trust) -> Path:
    """Runs the command; what the doctor calls serious is an error."""
    result = browse(cfg)
    serious = sum(finding.serious for finding in result.findings) if cfg.doctor else 0
    if serious:
        point(Path(cfg.paths.log_dir) / LATEST, result.path)
        raise UserError(
            f"the doctor found {serious} problem{'s' if serious > 1 else ''} that a training would "
            f"suffer from: mend them, or leave the images out by data.exclude={shown(result.path)}/"
            "exclude.txt"
        )
    if cfg.doctor:
        if count := len(result.findings):
            what = "one thing that deserves" if count == 1 else f"{count} things that deserve"
            log.info("The doctor found nothing that stops a training, but %s a look", what)
        else:
            log.info("The doctor found nothing that a training would suffer from")
    return result.path
