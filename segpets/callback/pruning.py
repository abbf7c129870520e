"""Stops trials of a hyperparameter search that promise nothing."""

import json
import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from segpets.reading import read_json
from segpets.run.files import RunFiles, write_atomically

log = logging.getLogger(__name__)


class PruneHopeless(Callback):
    """Tells the search how good each epoch was, and ends the training where others were better.

    The search is the study that `trial.json` in the run directory names; without that file the
    run belongs to no search, and goes on to its end.

    Args:
        folder: The run directory.
        monitor: A logged metric; larger is better.
    """

    def __init__(self, *, folder: str, monitor: str = "val/mean_iou") -> None:
        self.file, self.monitor = RunFiles(Path(folder)).trial, monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks the search; of several processes the first one, for all."""
        if trainer.sanity_checking:
            return
        hopeless = trainer.is_global_zero and self._is_hopeless(trainer)
        if trainer.strategy.broadcast(hopeless):
            trainer.should_stop = True

    def _is_hopeless(self, trainer: Trainer) -> bool:
        if not self.file.is_file():
            return False
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            return False
        from segpets.run.study import trial_of

        noted = read_json(self.file)
        trial = trial_of(self.file.parent.parent, noted["number"])
        epoch = trainer.current_epoch + 1
        if epoch not in trial.storage.get_trial(trial._trial_id).intermediate_values:
            trial.report(float(value), epoch)
        if not trial.should_prune() or epoch == trainer.max_epochs:
            return False
        log.info("Epoch %d is worse than that of other trials: the trial ends", epoch)
        write_atomically(self.file, json.dumps(noted | {"pruned_at_epoch": epoch}) + "\n")
        return True
