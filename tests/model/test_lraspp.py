from pathlib import Path

import pytest
import torch
from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large
from torchvision.models.segmentation import (
    LRASPP_MobileNet_V3_Large_Weights,
    lraspp_mobilenet_v3_large,
)

from segpets.model.lraspp import LRASPP


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where torchvision looks for a file before it fetches it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_coco_weights_are_those_of_the_whole_net_but_for_the_last_layers(cache: Path) -> None:
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict()
    torch.save(theirs, cache / Path(LRASPP_MobileNet_V3_Large_Weights.DEFAULT.url).name)
    ours = LRASPP(num_classes=3, weights="coco").net.state_dict()
    assert ours.keys() == theirs.keys()
    differing = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert differing == {
        f"classifier.{level}_classifier.{kind}"
        for level in ("low", "high")
        for kind in ("weight", "bias")
    }


def test_backbone_weights_are_those_of_the_encoder(cache: Path) -> None:
    theirs = mobilenet_v3_large(weights=None)
    torch.save(theirs.state_dict(), cache / Path(MobileNet_V3_Large_Weights.DEFAULT.url).name)
    ours = LRASPP(num_classes=3, weights="backbone").net.backbone.state_dict()
    assert ours.keys() == {n for n in theirs.features.state_dict()}
    assert all(torch.equal(ours[n], value) for n, value in theirs.features.state_dict().items())


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.weights=imagenet .* null, backbone or coco"):
        LRASPP(num_classes=3, weights="imagenet")  # type: ignore[arg-type]
