import sys

import pytest
import torch
from segmentation_models_pytorch import create_model

from segpets.build.cost import parameters
from segpets.model.smp import SMP


@pytest.mark.parametrize("arch", ["unet", "fpn", "deeplabv3plus", "segformer"])
def test_it_is_the_library_s_net_at_a_size_that_needs_no_padding(arch: str) -> None:
    torch.manual_seed(0)
    net = SMP(num_classes=3, arch=arch, encoder="resnet18").eval()
    torch.manual_seed(0)
    oracle = create_model(arch, "resnet18", encoder_weights=None, classes=3).eval()
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(net(image), oracle(image))


def test_options_reach_the_architecture() -> None:
    plain = SMP(num_classes=3)
    scse = SMP(num_classes=3, options={"decoder_attention_type": "scse"})
    assert parameters(scse) > parameters(plain)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"arch": "unett"}, "unetplusplus"),
        ({"encoder": "resnt18"}, "resnet18"),
        ({"encoder": "tu-resnt18"}, "resnt18"),
        ({"encoder_weights": "imagenett"}, "imagenet"),
        ({"options": {"depth": 3}}, "depth"),
    ],
    ids=str,
)
def test_a_wrong_name_is_answered_with_the_key_and_the_right_names(
    arguments: dict[str, str], answer: str
) -> None:
    with pytest.raises(ValueError, match=rf"(?s)refuses model\.arch=.*: .*{answer}"):
        SMP(num_classes=3, **arguments)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r'pip install "segpets\[smp\]"'):
        SMP(num_classes=3)


def test_a_batch_too_small_for_a_norm_is_refused_in_words() -> None:
    net = SMP(num_classes=3, arch="deeplabv3plus").train()
    with pytest.raises(ValueError, match=r"data\.batch_size to 2 or more"):
        net(torch.randn(1, 3, 64, 64))
