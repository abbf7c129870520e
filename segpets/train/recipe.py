"""Trains a model and tests it: `python -m segpets.train model=segnet loss=soft_iou`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Callback
from omegaconf import DictConfig

from segpets.build.objects import build_trainer
from segpets.data import SegmentationDataModule
from segpets.hardware import float32_matmul, threads
from segpets.module import SegmentationModule
from segpets.run.directory import thread_count
from segpets.run.files import LATEST
from segpets.run.job import attempt, is_job
from segpets.run.ranks import leads
from segpets.run.trust import Trust
from segpets.train.interruption import in_our_words, silence
from segpets.train.out_of_fold import predict_fold
from segpets.train.parts import seeded_parts
from segpets.train.replay import replay
from segpets.train.resume import checkpoint_to_resume, opened
from segpets.train.summary import PointLatest, Summary
from segpets.train.together import all_ready, check_shares, connect, together

log = logging.getLogger("segpets.train")


@dataclass(frozen=True)
class Result:
    """The outcome of a training.

    Attributes:
        metrics: Final metrics by name, such as `test/mean_iou`; `val/...` are those of the last
            epoch and `best/val/...` those of the best one. Of several processes, the first has
            them.
        path: The run directory.
        module: The trained module, with the weights that were tested.
        datamodule: Its data.
    """

    metrics: dict[str, float]
    path: Path
    module: SegmentationModule
    datamodule: SegmentationDataModule


def train(
    cfg: DictConfig, *, trust: Trust | None = None, callbacks: Sequence[Callback] = ()
) -> Result:
    """Trains and tests a model as the config says, in a run directory.

    Raises:
        UserError: Something is wrong that the user can fix.
    """
    resuming, trust = cfg.resume is not None, trust or Trust.of(cfg.allow)
    cfg, run, facts = opened(cfg, trust)
    with together(run, cfg, resuming=resuming, **facts), in_our_words(run):
        silence()
        matmul = cfg.trainer.get("float32_matmul", "highest")
        # The last digits of results depend on both.
        with threads(thread_count(run.summary)), float32_matmul(matmul):
            with all_ready(run, cfg) as ready:
                last = run.files.last if resuming and run.files.last.exists() else None
                datamodule, module, cost = seeded_parts(cfg, trust, checkpoint=last)
                summary = Summary(run, cfg, datamodule, cost, module)
                trainer = build_trainer(cfg, extra_callbacks=[summary, *callbacks])
                check_shares(cfg, datamodule, trainer)
                ready["other data"] = {"fingerprint": summary.fingerprint, **summary.protocol}
            connect(trainer)
            summary.begin(trainer)
            if cfg.train:
                checkpoint = checkpoint_to_resume(run, trainer) if resuming else None
                trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
            if cfg.train and datamodule.is_fold:  # before the test, whose metrics it would forget
                predict_fold(run, trainer, module, datamodule, summary.weights_to_test())
            if cfg.test:
                weights = summary.weights_to_test()
                trainer.test(module, datamodule, weights, verbose=False, weights_only=True)
            metrics = summary.end(trainer) if leads() else {}
    return Result(metrics, run.path, module, datamodule)


def main(cfg: DictConfig, trust: Trust) -> float | None:
    """Runs the command, or a job of a sweep; returns the value that a search maximises."""
    if "replay_step" in cfg:
        replay(cfg, trust)
        return None
    if is_job():
        attempt(cfg, train=lambda job: train(job, trust=trust))
        return None
    latest = PointLatest(Path(cfg.paths.log_dir) / LATEST, Path(cfg.paths.output_dir))
    return train(cfg, trust=trust, callbacks=[latest]).metrics.get(cfg.optimized_metric)
