"""Folders of images and masks, small ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpets.data import Folder
from segpets.data.source import Sample
from segpets.errors import UserError

CLASSES = ["background", "leaf"]
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
SPECTRUM = [[[n >> 8, n & 255, 7]] for n in range(1200)]  # a pixel of each of so many colours


def draw(
    file: Path,
    values: object,
    *,
    dtype: str = "uint8",
    mode: str | None = None,
    palette: Sequence[int] = (),
    **options: Any,
) -> Path:
    """Writes a mask; `mode` converts it, `palette` makes its values indices."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype=dtype))
    if palette:
        image.putpalette(palette)
    (image.convert(mode) if mode else image).save(file, **options)
    return file


def pair(root: Path, image: str, mask: str | None = None) -> None:
    """An image of 4x2 pixels and its mask: the left half 0, the right half 1."""
    draw(root / "images" / image, np.full((2, 4, 3), 90))
    if mask:
        draw(root / "masks" / mask, [[0, 0, 1, 1]] * 2)


def many(root: Path, count: int = 20) -> list[str]:
    names = [f"i{n:02}" for n in range(count)]
    for name in names:
        pair(root, f"{name}.png", f"{name}.png")
    return names


def folder(root: Path | None, **options: object) -> Folder:
    return Folder(**({"root": root, "classes": CLASSES} | options))  # type: ignore[arg-type]


def ids(file: Path, **options: object) -> list[list[int]]:
    found = folder(file.parent, **options).mask(Sample("x", file, file))
    assert found.dtype == np.uint8
    rows: list[list[int]] = found.tolist()
    return rows


def refusal(source: Folder) -> str:
    """Why nothing can be listed."""
    with pytest.raises(UserError) as caught:
        source.splits()
    return str(caught.value)


def partners(source: Folder) -> dict[str, str]:
    """Masks by images, relative to their folders; there are no problems."""
    splits = source.splits()
    assert [str(problem.error) for problem in splits.problems] == []
    return {
        s.image.relative_to(source.images).as_posix(): s.mask.relative_to(source.masks).as_posix()
        for s in (*splits.train, *splits.val, *splits.test)
    }


def problems(source: Folder) -> dict[str, str]:
    return {problem.name: str(problem.error) for problem in source.splits().problems}
