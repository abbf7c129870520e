from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

CONF = Path(__file__).parents[2] / "conf"
BuildLoss = Callable[..., nn.Module]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On tensors this small a second thread only costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def build_loss() -> BuildLoss:
    """build_loss("dice", "loss.class_weights=[1,2,3]") is what the command line would give."""

    def build(name: str, *overrides: str, num_classes: int = 3) -> nn.Module:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(overrides=[f"+loss={name}", *overrides])
        classes, text = "${len:${data.classes}}", OmegaConf.to_yaml(config)
        assert classes in text, f"conf/loss/{name}.yaml: num_classes is a fact of the data"
        text = text.replace(classes, str(num_classes))
        loss = instantiate(OmegaConf.create(text).loss)
        assert isinstance(loss, nn.Module)
        return loss

    return build
