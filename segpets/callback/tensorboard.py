"""Finds the TensorBoard writer of a trainer."""

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """The writer, in the process that writes, if TensorBoard is among the loggers."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    if not loggers or not trainer.is_global_zero:
        return None
    writer: SummaryWriter = loggers[0].experiment
    return writer
