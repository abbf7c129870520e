from pathlib import Path

import pytest
import torch
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50

from segpets.model.deeplabv3 import DeepLabV3


def test_coco_weights_are_those_of_the_whole_net_but_for_the_last_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True).state_dict()
    torch.save(theirs, cache / Path(DeepLabV3_ResNet50_Weights.DEFAULT.url).name)
    ours = DeepLabV3(num_classes=3, weights="coco").net.state_dict()
    assert ours.keys() == {name for name in theirs if not name.startswith("aux_classifier")}
    differing = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert differing == {"classifier.4.weight", "classifier.4.bias"}


def test_a_batch_of_one_is_refused_in_training_only() -> None:
    net = DeepLabV3(num_classes=3)
    image = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"data\.batch_size to 2 or more"):
        net.train()(image)
    with torch.no_grad():
        assert net.eval()(image).shape == (1, 3, 32, 32)


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.weights=imagenet .* null, backbone or coco"):
        DeepLabV3(num_classes=3, weights="imagenet")  # type: ignore[arg-type]
