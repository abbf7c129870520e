"""What every network of conf/model/ promises, so that each works with every loss and command."""

import re
import socket
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
CLASSES = 5  # not the pets' three: a number written into a net would show


def build(config: Path, *, classes: int = CLASSES, size: int = 64) -> nn.Module:
    text = config.read_text().replace("${len:${data.classes}}", str(classes))
    text = text.replace("${net_size:${data.size},${data.crop}}", str(size))
    model = OmegaConf.create(text)
    cfg = OmegaConf.create({"data": {"size": size, "channels": 3}, "model": model})
    net = instantiate(cfg.model)
    assert isinstance(net, nn.Module)
    return net


def by_name(config: Path) -> str:
    return config.stem


def slow_but(quick: set[str], configs: list[Path]) -> list[object]:
    """Leaves all but some to the slow suite."""
    slow = pytest.mark.slow
    return [c if c.stem in quick else pytest.param(c, marks=slow, id=c.stem) for c in configs]


QUICK = {"fcn", "lraspp_mobilenet", "segnet_dsc", "smp", "unet", "unet_dsc", "vit_tiny"}


@pytest.fixture(scope="module", params=slow_but(QUICK, CONFIGS), ids=by_name)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return build(request.param)


def image_of(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def gradients(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The gradients of one training step, with the same dropout at every call."""
    torch.manual_seed(3)
    net.train().zero_grad()
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(CLASSES, (len(image), *image.shape[-2:]), generator=generator)
    F.cross_entropy(net(image), target).backward()
    found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert found.keys() == dict(net.named_parameters()).keys()
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=by_name)
def test_the_first_line_of_the_config_is_a_command_that_uses_it(config: Path) -> None:
    first = config.read_text().splitlines()[0]
    assert re.fullmatch(rf"# python -m segpets\.train model={config.stem}( .*)?", first)


@pytest.mark.parametrize("size", [(32, 32), (45, 67), (64, 48)], ids=str)
def test_logits_have_the_size_of_the_image(net: nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = net.eval()(image_of(1, *size))
    assert logits.shape == (1, CLASSES, *size)
    assert logits.isfinite().all()


def test_a_size_below_32_is_refused_in_words(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"31x64.*at least 32x32.*data\.size"):
        net.eval()(image_of(1, 31, 64))


def test_gradients_reach_every_parameter_and_are_finite(net: nn.Module) -> None:
    for name, gradient in gradients(net, image_of(2, 64, 64)).items():
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_training_repeats_exactly_under_deterministic_algorithms(
    net: nn.Module, deterministic: None
) -> None:
    image = image_of(2, 64, 32)
    first = {name: gradient.clone() for name, gradient in gradients(net, image).items()}
    for name, gradient in gradients(net, image).items():
        assert torch.equal(gradient, first[name]), name


def test_the_other_images_of_a_batch_have_no_influence(net: nn.Module) -> None:
    image = image_of(3, 32, 48)
    with torch.no_grad():
        together, alone = net.eval()(image), net(image[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_the_memory_format_makes_no_difference(net: nn.Module) -> None:
    image = image_of(2, 32, 48)
    with torch.no_grad():
        expected = net.eval()(image)
        net.to(memory_format=torch.channels_last)
        logits = net(image.contiguous(memory_format=torch.channels_last))
        net.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", slow_but({"unet", "vit_tiny"}, CONFIGS), ids=by_name)
def test_an_exported_graph_of_a_fitting_size_has_no_padding(config: Path) -> None:
    net = build(config)
    assert 96 % net.stride == 0
    assert 64 % net.stride == 0
    image = image_of(1, 64, 96)
    program = torch.export.export(net.eval(), (image,))
    operations = [str(node.target) for node in program.graph.nodes]
    assert not [name for name in operations if re.search(r"\bpad|_pad|unpool", name)]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), net(image))


class FetchedError(Exception):
    pass


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise FetchedError(args)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache


WITH_WEIGHTS = [config for config in CONFIGS if "weights: null" in config.read_text()]


@pytest.mark.parametrize("config", WITH_WEIGHTS, ids=by_name)
def test_weights_are_fetched_when_asked_for_and_only_then(
    config: Path, no_network: None, tmp_path: Path
) -> None:
    build(config)
    asked = config.read_text()
    asked = asked.replace("encoder_weights: null", "encoder_weights: imagenet")
    asked = asked.replace("weights: null", "weights: backbone")
    other = tmp_path / config.name
    other.write_text(asked)
    with pytest.raises(InstantiationException, match="FetchedError"):
        build(other)


SMALL = QUICK


@pytest.mark.parametrize(
    "config",
    slow_but({"unet", "vit_tiny"}, [c for c in CONFIGS if c.stem in SMALL]),
    ids=by_name,
)
def test_two_images_can_be_overfitted(config: Path) -> None:
    torch.manual_seed(0)
    net = build(config, classes=3)
    blocks = torch.randint(3, (2, 4, 4))
    mask = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)  # (2, 64, 64)
    colours = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]])
    image = colours[mask].permute(0, 3, 1, 2) + 0.3 * torch.randn(2, 3, 64, 64)

    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        logits = net(image)
        F.cross_entropy(logits, mask).backward()
        optimizer.step()
    assert (logits.argmax(1) == mask).float().mean() > 0.95
