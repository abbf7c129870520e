"""TensorBoard's HPARAMS tab."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from segpets.run.directory import Run


def log_hparams(cfg: DictConfig, run: Run, metrics: dict[str, float]) -> None:
    """Adds a run to the HPARAMS tab: the choices, the overrides and all final metrics.

    For those under `train/`, `val/` and `test/` the tab shows the last value that was logged; the
    others are written here.
    """
    if "tensorboard" not in cfg.logger:
        return
    chosen: dict[str, Any] = {
        "model": cfg.model._target_.rpartition(".")[2],
        "loss": cfg.loss._target_.rpartition(".")[2],
        "data.batch_size": cfg.data.batch_size,
        "trainer.max_epochs": cfg.trainer.max_epochs,
        "seed": cfg.seed,
    }
    if "lr" in cfg.optimizer:
        chosen["optimizer.lr"] = cfg.optimizer.lr
    for key, word in (o.lstrip("+~").partition("=")[::2] for o in run.summary["overrides"]):
        if not key.startswith(("hydra.", "paths.", "sweep")):
            value = OmegaConf.select(cfg, key) if "[" not in key else None
            # Numbers stay numbers, so that the tab sorts them; a group has the name of its option.
            chosen[key] = value if isinstance(value, int | float | str) else word
    finals = metrics | {k: run.summary[k] for k in ("params", "mult_adds", "seconds")}
    step = max(int(metrics.get("best/epoch", 0)), 1)
    with SummaryWriter(str(run.files.tensorboard)) as writer:
        for summary in hparams(chosen, finals):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)
        for name, value in finals.items():
            if not name.startswith(("train/", "val/", "test/")):
                writer.add_scalar(name, value, step)
