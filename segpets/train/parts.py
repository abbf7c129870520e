"""Makes what a training, or one of its steps that is run again, consists of."""

from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from segpets.build.cost import Cost
from segpets.build.objects import build_data, build_module, build_net
from segpets.data import SegmentationDataModule
from segpets.module import SegmentationModule
from segpets.train.weights import start_from


def seeded_parts(cfg: DictConfig) -> tuple[SegmentationDataModule, SegmentationModule, Cost]:
    """Seeds all random numbers, and makes data, set up, and module, with the weights to begin with.

    Raises:
        UserError: One of them can't be made.
    """
    seed_everything(cfg.seed, verbose=False)
    datamodule = build_data(cfg)
    datamodule.setup()
    net, cost = build_net(cfg)
    module = build_module(cfg, net)
    if cfg.init_from is not None:
        start_from(cfg, module)
    return datamodule, module, cost
