"""Pictures at their own sizes: batches of one size, padding that nothing counts, and the cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from segpets.data import Folder, SegmentationDataModule
from segpets.errors import UserError

SIZES = [(40, 60)] * 5 + [(50, 40)] * 5 + [(70, 90)] * 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Noise of three sizes, each picture a little brighter than the last."""
    random = np.random.default_rng(0)
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
    for index, size in enumerate(SIZES):
        image = random.integers(0, 200, (*size, 3), dtype=np.uint8) + 1 + index
        mask = random.integers(0, 2, size, dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{index:02d}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index:02d}.png")
    lists = {"train": range(9), "val": range(9, 12), "test": range(12, 15)}
    for stage, rows in lists.items():
        (tmp_path / f"{stage}.txt").write_text("".join(f"{row:02d}\n" for row in rows))
    return tmp_path


def keep(image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    return image, mask


def module(root: Path, **options: Any) -> SegmentationDataModule:
    source = Folder(classes=["a", "b"], root=root, split="files")
    defaults: dict[str, Any] = {
        "source": source,
        "augment": keep,
        "size": 64,
        "fit": "none",
        "batch_size": 4,
        "num_workers": 0,
        "run_seed": 1,
        "cache": "none",
    }
    data = SegmentationDataModule(**(defaults | options))
    data.setup()
    return data


def stored(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with Image.open(root / "images" / f"{name}.png") as image:
        with Image.open(root / "masks" / f"{name}.png") as mask:
            return np.asarray(image), np.asarray(mask)


def test_batches_of_val_and_test_are_of_one_size_unpadded_and_in_order(root: Path) -> None:
    data = module(root)
    for stage, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        names, shapes = [], []
        for batch in loader:
            names += batch["name"]
            shapes.append(tuple(batch["image"].shape))
            for image, mask, name in zip(batch["image"], batch["mask"], batch["name"], strict=True):
                pixels, ids = stored(root, name)
                assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
                assert np.array_equal(mask.numpy(), ids)
        assert names == [sample.name for sample in data.splits[stage]]
        assert len(loader) == len(shapes)
    assert [shape[0] for shape in shapes] == [3]
    assert [b["image"].shape[0] for b in data.val_dataloader()] == [1, 2]  # 09 is 50x40


def test_batches_of_training_are_padded_and_the_padding_is_ignored(root: Path) -> None:
    seen = 0
    for batch in module(root).train_dataloader():
        for image, mask, name in zip(batch["image"], batch["mask"], batch["name"], strict=True):
            pixels, ids = stored(root, name)
            height, width = ids.shape
            assert np.array_equal(image[:, :height, :width].permute(1, 2, 0).numpy(), pixels)
            assert np.array_equal(mask[:height, :width].numpy(), ids)
            beyond = torch.ones_like(mask, dtype=torch.bool)
            beyond[:height, :width] = False
            assert (mask[beyond] == 255).all()
            assert (image[:, beyond] == 0).all()
            seen += 1
    assert seen == 8


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit": "shorter", "size": 48},
        {"fit": "letterbox", "size": [48, 80]},
        {"fit": "none", "range": [0, 300]},
        {"fit": "none", "channels": 1},
    ],
)
def test_the_cache_holds_pictures_of_any_size_and_type(root: Path, options: dict[str, Any]) -> None:
    decoded = module(root, **options)
    built = module(root, cache="disk", **options)
    opened = module(root, cache="disk", **options)
    assert built.pixels.cache is not None and opened.pixels.cache is not None
    assert opened.pixels.fingerprint == built.pixels.fingerprint == decoded.pixels.fingerprint
    assert np.array_equal(opened.pixels.facts, decoded.pixels.facts)
    assert np.array_equal(opened.pixels.sizes, decoded.pixels.sizes)
    for row in range(len(SIZES)):
        for one, other in zip(decoded.pixels[row], opened.pixels[row], strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


def test_a_cache_of_own_sizes_that_would_be_too_large_is_not_kept(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = module(root, cache="auto", cache_gb=1e-4)
    assert data.pixels.cache is None
    assert "data.cache_gb allows" in caplog.text
    assert not list((root / ".segpets_cache").glob("*.pixels"))
    with pytest.raises(UserError, match=r"data\.cache=disk, but no cache can be kept"):
        module(root, cache="disk", cache_gb=1e-4)


def test_a_letterbox_is_ignored_outside_of_the_picture(root: Path) -> None:
    data = module(root, fit="letterbox", size=64)
    for batch in data.val_dataloader():
        for mask, name in zip(batch["mask"], batch["name"], strict=True):
            place = data.geometry(next(s for s in data.splits.val if s.name == name))
            inside = place.inside(mask)
            assert (inside != 255).all()
            assert int((mask != 255).sum()) == inside.numel() < 64 * 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"range": [5, 5]}, r"data.range=\[5,5\] is empty"),
        ({"range": [9, 5]}, r"data.range=\[9,5\] is reversed"),
        ({"channels": 0}, "data.channels=0"),
        ({"fit": "squeeze"}, "data.fit=squeeze is unknown: choose stretch, letterbox, shorter or"),
        ({"window": 16}, "data.window=16 must be"),
        ({"exif": "maybe"}, "data.exif=maybe is unknown"),
    ],
)
def test_a_value_out_of_range(root: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        module(root, **options)
