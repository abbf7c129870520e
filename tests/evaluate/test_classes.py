"""A trimap model, judged under other classes."""

import pytest
import torch

from segpets.errors import UserError
from segpets.evaluate.classes import merge

TRIMAP = ("pet", "background", "border")
MERGED = ("pet", "background")


def pixel(*probs: float) -> torch.Tensor:
    return torch.tensor(probs).log().view(1, -1, 1, 1)


def test_the_same_classes_leave_logits_as_they_are() -> None:
    logits = torch.randn(2, 3, 4, 5)
    same = merge(TRIMAP, TRIMAP, "trimap")
    assert same.scores(logits) is logits
    assert torch.equal(same.ids(logits), logits.argmax(1))


def test_border_as_pet_merges_after_the_largest_was_taken() -> None:
    merged = merge(TRIMAP, MERGED, "border_as_pet")
    assert merged.ids(pixel(0.1, 0.3, 0.6)).item() == 0
    assert merged.ids(pixel(0.1, 0.6, 0.3)).item() == 1
    # Together pet and border are more probable, but neither was predicted.
    split = pixel(0.3, 0.4, 0.3)
    assert merged.ids(split).item() == 1
    torch.testing.assert_close(merged.scores(split).softmax(1).flatten(), torch.tensor([0.6, 0.4]))


def test_border_ignored_leaves_the_border_no_choice() -> None:
    merged = merge(TRIMAP, MERGED, "border_ignored")
    assert merged.ids(pixel(0.1, 0.2, 0.7)).item() == 1
    assert merged.ids(pixel(0.2, 0.1, 0.7)).item() == 0
    probs = merged.scores(pixel(0.3, 0.1, 0.6)).softmax(1).flatten()
    torch.testing.assert_close(probs, torch.tensor([0.75, 0.25]))


def test_ids_follow_the_order_of_the_names() -> None:
    order = ("border", "background", "pet")
    merged = merge(order, ("background", "pet"), "border_as_pet")
    assert merged.ids(pixel(0.8, 0.1, 0.1)).item() == 1
    assert merged.ids(pixel(0.1, 0.1, 0.8)).item() == 1
    assert merged.ids(pixel(0.1, 0.8, 0.1)).item() == 0


@pytest.mark.parametrize(
    ("model", "truth", "labels", "message"),
    [
        (MERGED, TRIMAP, "trimap", "without a border, so it can't be judged under labels=trimap"),
        (TRIMAP, ("background", "cat", "dog"), "species", "the model doesn't know cat, dog"),
        (("a", "b"), ("b", "a"), None, "in this order"),
        (("a", "b"), ("a", "c"), None, "doesn't know c, and the data don't have b"),
        (TRIMAP, MERGED, None, "the data don't have border"),
    ],
)
def test_what_cannot_be_judged_is_said(
    model: tuple[str, ...], truth: tuple[str, ...], labels: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        merge(model, truth, labels)
