"""Class ids at a picture's size are those of the resized logits, however many strips it takes."""

import pytest
import torch
from torch.nn.functional import interpolate

from segpets.inference import logits as enlarge


@pytest.mark.parametrize("size", [(300, 500), (17, 9), (128, 128), (1, 1), (1, 700), (500, 1)])
def test_strips_agree_with_the_whole(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enlarge, "_STRIP", 1500)  # several strips
    logits = torch.randn(4, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = interpolate(logits[None], size=size, mode="bilinear")[0]
    strips = list(enlarge.enlarged(logits, size))
    assert len(strips) == -(-size[0] // max(1, 1500 // size[1]))
    torch.testing.assert_close(torch.cat([s for _, s in strips], dim=1), whole, atol=1e-4, rtol=0)
    differ = enlarge.class_ids(logits, size) != whole.argmax(0)
    assert differ.float().mean() < 1e-3


def test_a_picture_of_the_nets_size_keeps_its_classes() -> None:
    logits = torch.randn(3, 32, 32)
    assert torch.equal(enlarge.class_ids(logits, (32, 32)), logits.argmax(0).to(torch.uint8))


def test_the_largest_logit_is_found_and_of_equal_ones_the_first() -> None:
    logits = torch.randint(0, 4, (5, 30, 20), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(enlarge.largest(logits), logits.argmax(0).to(torch.uint8))
    assert torch.equal(enlarge.largest(torch.zeros(3, 2)), torch.zeros(2, dtype=torch.uint8))
