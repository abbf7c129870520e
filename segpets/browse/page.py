"""The page of a data set, and its contact sheets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from segpets.browse.copies import Copies
from segpets.browse.finding import Finding
from segpets.browse.shares import extremes, frequencies, groups
from segpets.browse.survey import Survey
from segpets.data import SegmentationDataModule
from segpets.data.geometry import by
from segpets.report.figure import as_picture, in_columns, sheet, size_figure
from segpets.report.page import embedded, render
from segpets.report.paint import RGB
from segpets.report.palette import palette

_KINDS = ("image", "mask", "overlay")


@dataclass(frozen=True)
class Tile:
    """An image of a contact sheet: the picture, its mask in colours, and one over the other."""

    name: str
    about: str
    image: RGB
    mask: RGB
    overlay: RGB


@dataclass(frozen=True)
class Drawn:
    """The pictures of a data set.

    Attributes:
        sheets: Images of each stage, and those whose masks the doctor doubts.
        augmented: Captions and images as they are and augmented.
        copies: Images of the same photographs.
        doubted: Captions and images whose masks models of other folds contradict.
    """

    sheets: Mapping[str, Sequence[Tile]]
    augmented: Sequence[tuple[str, Sequence[RGB]]]
    copies: Copies
    doubted: Sequence[tuple[str, Sequence[RGB]]]


def save_sheets(folder: Path, drawn: Drawn, classes: Sequence[str]) -> None:
    """Writes the contact sheets as PNG."""
    for part, tiles in drawn.sheets.items():
        picture = sheet(
            in_columns([[getattr(tile, kind) for kind in _KINDS] for tile in tiles]),
            heading=f"{part}: image | mask | mask over image",
            captions=[f"{tile.name} {tile.about}" for tile in tiles],
            classes=classes,
        )
        Image.fromarray(picture).save(folder / f"{part}.png")
    if rows := [tiles for _, tiles in drawn.augmented]:
        picture = sheet(
            in_columns(rows),
            heading="as it is | augmented eight times, with the edges of the mask",
            captions=[caption for caption, _ in drawn.augmented],
            classes=classes,
        )
        Image.fromarray(picture).save(folder / "augmented.png")


def page(
    cfg: DictConfig,
    datamodule: SegmentationDataModule,
    found: Survey,
    findings: Sequence[Finding],
    drawn: Drawn,
) -> str:
    """Renders the page of a data set."""
    sizes = found.sizes[found.sizes[:, 0] > 0]
    whole = datamodule.reader.fit in ("stretch", "letterbox")
    return render(
        "segpets.browse",
        "browse.html.j2",
        title=str(datamodule.source.root),
        counts={stage: len(rows) for stage, rows in found.stages.items()},
        seen=f"shown at {by(datamodule.size)}" if whole else "shown",
        width=3 * datamodule.size[1],
        classes=[
            (name, "#{:02x}{:02x}{:02x}".format(*colour))
            for name, colour in zip(cfg.data.classes, palette(cfg.data.classes), strict=True)
        ],
        frequencies=frequencies(found, list(cfg.data.classes)),
        groups=groups(found),
        sizes=embedded(as_picture(size_figure(sizes))) if len(sizes) else None,
        extremes=extremes(found),
        doctor=cfg.doctor,
        findings=findings,
        ceiling=drawn.copies.ceiling,
        doubted=[(caption, _beside(tiles)) for caption, tiles in drawn.doubted],
        copies=[(caption, embedded(tile)) for caption, tile in drawn.copies.tiles],
        sheets={
            part: [
                (tile.name, tile.about, _beside([tile.image, tile.mask, tile.overlay]))
                for tile in tiles
            ]
            for part, tiles in drawn.sheets.items()
        },
        augmented=[(caption, _beside(tiles)) for caption, tiles in drawn.augmented],
    )


def _beside(tiles: Sequence[RGB]) -> str:
    """Embeds pictures side by side, which may differ in size."""
    return embedded(np.hstack([column[0] for column in in_columns([tiles])]))
