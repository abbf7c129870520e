"""Tiles cover a picture, and their seams can't be seen."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pictures import SMALL, Blurring, Colours
from PIL import Image
from torch import Tensor

from segpets.data.picture import Picture
from segpets.data.reader import Reader
from segpets.inference.layers import Net
from segpets.inference.picture import tiled
from segpets.model.windows import rise, starts


@dataclass(frozen=True)
class Seen:
    """Gives the same logits everywhere, and keeps the sizes of what it sees."""

    shapes: list[tuple[int, ...]]
    reader: Reader = SMALL
    window: None = None
    stride: int = 24

    def logits(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        constant = torch.tensor([0.3, -1.7]).view(1, 2, 1, 1)
        return constant.expand(len(images), 2, *images.shape[2:])


def noise(width: int, height: int) -> Picture:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(Image.fromarray(values), Path("noise"), SMALL)


def assembled(net: Net, picture: Picture, tile: int, **options: int) -> Tensor:
    """All strips, one below the other; they must follow each other."""
    parts, end = [], 0
    for top, strip in tiled(net, picture, (tile, tile), **options):
        assert top == end
        end += strip.shape[1]
        parts.append(strip)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("size", [(100, 70), (33, 200), (31, 1), (1, 31), (96, 96)])
def test_constant_logits_stay_constant_across_seams(size: tuple[int, int]) -> None:
    net = Seen([])
    logits = assembled(net, noise(*size), 40, batch_size=3)
    assert logits.shape == (2, size[1], size[0])
    expected = torch.tensor([0.3, -1.7]).view(2, 1, 1).expand_as(logits)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert all(b <= 3 and h % 24 == w % 24 == 0 for b, _, h, w in net.shapes)
    assert max(max(shape[2:]) for shape in net.shapes) <= 48


@pytest.mark.parametrize("size", [(150, 90), (64, 64), (65, 200)])
def test_tiles_agree_with_the_whole_where_the_net_sees_enough(size: tuple[int, int]) -> None:
    picture = noise(*size)
    whole = Blurring().logits(picture.rows(0, size[1])[None])[0]
    torch.testing.assert_close(assembled(Blurring(), picture, 64), whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(20, 10), (1, 300), (300, 1), (1, 1)])
def test_a_picture_smaller_than_a_tile_is_predicted(size: tuple[int, int]) -> None:
    picture = noise(*size)
    expected = picture.rows(0, size[1]).float() / 16
    torch.testing.assert_close(assembled(Colours(), picture, 128), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 112, 113, 500])
def test_tiles_cover_a_length_with_weights_that_are_never_zero(length: int) -> None:
    begins = starts(length, 64)
    total = torch.zeros(length)
    for begin in begins:
        weights = rise(begin, length, 64)[: length - begin]
        total[begin : begin + 64] += weights
    assert begins[0] == 0
    assert total.min() > 0
    assert all(b - a <= 48 for a, b in pairwise(begins))
    assert len(begins) == 1 or begins[-1] == length - 64


def test_the_rim_of_a_tile_has_no_weight_but_at_the_edges_of_the_picture() -> None:
    inner = rise(100, 1000, 64)
    assert inner[:4].tolist() == inner[-4:].tolist() == [0, 0, 0, 0]
    assert inner[12:-12].tolist() == 40 * [1]
    assert rise(0, 1000, 64)[:52].tolist() == 52 * [1]
    assert rise(936, 1000, 64)[12:].tolist() == 52 * [1]
