"""TensorBoard's HPARAMS tab."""

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

Value = str | int | float | bool


def write_hparams(
    folder: Path, chosen: Mapping[str, Value], finals: Mapping[str, float], *, step: int
) -> None:
    """Adds a run to the HPARAMS tab, with all its final metrics.

    Args:
        folder: Where the run's other events lie.
        chosen: What tells the run from others.
        finals: Its final metrics. Of those under `train/`, `val/` and `test/` the tab shows the
            last value that was logged; the others are written here.
        step: The step at which they are written.
    """
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams(dict(chosen), dict(finals)):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)
        for name, value in finals.items():
            if not name.startswith(("train/", "val/", "test/")):
                writer.add_scalar(name, value, step)
