"""Pieces of randomly scaled pictures, and their masks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segpets.augment.scale_crop import ScaleCrop
from segpets.augment.torchvision import TorchvisionAugment
from segpets.labels import IGNORE_INDEX


def ramp(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image whose red is the column and green the row, and a mask of its left half."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([columns, rows, torch.zeros_like(rows)]).to(torch.uint8)
    return image, (columns < width // 2).to(torch.uint8)


def test_at_scale_1_a_piece_is_cut_out_unchanged() -> None:
    augment = TorchvisionAugment(transforms=[ScaleCrop([40, 60], scale=[1.0, 1.0])])
    image, mask = ramp(100, 200)
    starts = set()
    for seed in range(30):
        piece, ids = augment(image, mask, seed=seed)
        top, left = int(piece[1, 0, 0]), int(piece[0, 0, 0])
        assert torch.equal(piece, image[:, top : top + 40, left : left + 60])
        assert torch.equal(ids, mask[top : top + 40, left : left + 60])
        starts.add((top, left))
    assert len(starts) > 20


def test_at_scale_2_a_piece_of_half_the_size_is_enlarged() -> None:
    augment = TorchvisionAugment(transforms=[ScaleCrop(40, scale=[2.0, 2.0])])
    image, mask = ramp(100, 200)
    for seed in range(10):
        piece, ids = augment(image, mask, seed=seed)
        assert piece.shape == (3, 40, 40) and ids.shape == (40, 40)
        assert int(piece[0, 0, -1]) - int(piece[0, 0, 0]) == 19
        edge = (ids[0] == 1).sum()  # both halve at the same column
        if 2 <= edge <= 38:
            assert abs(int(piece[0, 0, edge]) - 100) <= 1


def test_a_picture_smaller_than_the_piece_is_padded_and_ignored() -> None:
    augment = TorchvisionAugment(transforms=[ScaleCrop(64, scale=[1.0, 1.0])])
    image, mask = ramp(40, 50)
    for seed in range(5):
        piece, ids = augment(image + 1, mask, seed=seed)
        inside = ids != IGNORE_INDEX
        assert int(inside.sum()) == 40 * 50
        assert torch.equal(inside, piece[0] > 0)


def test_a_rare_class_is_met_more_often() -> None:
    mask = torch.zeros(200, 200, dtype=torch.uint8)
    mask[150:153, 20:23] = 3
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)

    def share(rare: float) -> float:
        crop = ScaleCrop(32, scale=[1.0, 1.0], rare=rare)
        augment = TorchvisionAugment(transforms=[crop])
        return float(np.mean([(augment(image, mask, seed=s)[1] == 3).any() for s in range(100)]))

    assert share(0.0) < 0.1
    assert share(1.0) > 0.9  # 9 of 40,000 pixels: drawn with the weight of one over that


@pytest.mark.parametrize(
    ("options", "words"),
    [({"scale": [2.0, 1.0]}, "a small and a larger factor"), ({"rare": 2.0}, "a probability")],
)
def test_a_value_out_of_range(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScaleCrop(32, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.75, 0.9, 1.7])
def test_image_and_mask_stay_aligned(scale: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    disc = ((rows - 47.5) ** 2 + (columns - 47.5) ** 2).sqrt() < 20
    image = (disc * 200).to(torch.uint8).expand(3, -1, -1)
    augment = TorchvisionAugment(transforms=[ScaleCrop(96, scale=[scale, scale])])
    apart = []
    for seed in range(10):
        piece, ids = augment(image, disc.to(torch.uint8), seed=seed)
        weights = [piece[0].double(), (ids == 1).double()]
        if scale > 1 and (ids[[0, -1]] == 1).any() | (ids[:, [0, -1]] == 1).any():
            continue  # the disc is cut
        centres = [[float((w * at).sum() / w.sum()) for at in (rows, columns)] for w in weights]
        apart.append(np.subtract(*centres))
    assert np.abs(np.mean(apart, axis=0)).max() < 0.15  # pixels
