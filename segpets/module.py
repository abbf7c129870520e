"""The one LightningModule: any net, any loss, any optimizer and schedule, the same metrics.

It knows none of them by name. A net maps float (B, C, H, W) to logits (B, K, H, W) and a loss
maps logits and class ids to a scalar; that is the whole agreement, so one module serves every
architecture and every loss.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import SumMetric

from segpets.compiled import Compiled
from segpets.distillation import Distillation
from segpets.errors import UserError
from segpets.hardware import keep_freed_memory
from segpets.labels import Batch
from segpets.metric import SegmentationMetrics, confusion_matrices, soft_iou
from segpets.model.windows import by_windows
from segpets.optimizer import freeze, keep_statistics, made_fused, rate_of, with_rates


class Preprocess(nn.Module):
    """Pixels to what a net takes: float, normalised, channels last in memory.

    It lies in the module, behind the batch's transfer to the device, and is exported with the
    net, so training and serving can't differ.

    Args:
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        white: The value that stands for 1: 255, or 1 for images of float.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float], white: float = 255) -> None:
        super().__init__()
        mean_, std_ = torch.tensor([*mean]).view(-1, 1, 1), torch.tensor([*std]).view(-1, 1, 1)
        # The config holds the numbers; a copy in the checkpoint could only contradict it.
        self.register_buffer("scale", 1 / (white * std_), persistent=False)
        self.register_buffer("shift", -mean_ / std_, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Normalises uint8 or float32 (B, C, H, W) to float32 (B, C, H, W)."""
        image = image.to(dtype=torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(self.shift, image, self.scale)


class StepOutput(TypedDict):
    """The output of a validation or test step, for callbacks.

    Attributes:
        preds: Predicted class ids, uint8 (B, H, W).
        confusion: Pixel counts of each image, truth in rows, int64 (B, C, C).
    """

    preds: Tensor
    confusion: Tensor


class SegmentationModule(LightningModule):
    """Net + loss + optimizer + schedule + metrics.

    Args:
        net: float (B, C, H, W) to logits (B, K, H, W); in training also to a list of such logits,
            of any size, of which the first is the prediction.
        loss: (logits (B, K, H, W), int64 (B, H, W)) to a scalar.
        preprocess: uint8 or float32 (B, C, H, W) to what the net takes.
        optimizer: Makes the optimizer from parameters.
        scheduler: Makes Lightning's schedule config from the optimizer and `total_steps`.
        classes: Class names, in the order of their ids.
        window: Height and width of the windows by which val and test images are predicted; None
            predicts each at once.
        compile: Whether net and loss of a training step are compiled.
        frozen: Patterns of weights that aren't trained; see `segpets.optimizer.chosen`.
        lr_factors: By pattern, what multiplies the rate of weights.
        aux_weight: What the mean loss of a net's further outputs in training weighs.
    """

    def __init__(
        self,
        *,
        net: nn.Module,
        loss: nn.Module,
        preprocess: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRSchedulerConfigType],
        classes: Sequence[str],
        window: tuple[int, int] | None = None,
        compile: bool = False,
        frozen: Sequence[str] = (),
        lr_factors: Mapping[str, float] | None = None,
        aux_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.window, self.compile_step = window, compile
        self.frozen, self.lr_factors = tuple(frozen), dict(lr_factors or {})
        self.aux_weight = aux_weight
        self.brought: frozenset[str] = frozenset()
        self._step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
        self.distillation: Distillation | None = None
        self.net = net.to(memory_format=torch.channels_last)
        self.loss = loss
        self.preprocess = preprocess
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.classes = tuple(classes)
        stages = ("train", "val", "test")
        self.metrics = nn.ModuleDict(
            {f"{stage}_metrics": SegmentationMetrics(classes=self.classes) for stage in stages}
        )

        # Not by self.log, which divides by a rounded number where processes have unequal numbers of
        # images (Lightning 2.6.6), nor by MeanMetric, which drops the weights (torchmetrics 1.9).
        self.sums = nn.ModuleDict(
            {
                f"{stage}_{what}": SumMetric(nan_strategy="disable")
                for stage in stages[1:]
                for what in ("loss", "images")
            }
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to logits (B, K, H, W)."""
        logits: Tensor = self.net(self.preprocess(image))
        return logits

    def whole(self, image: Tensor) -> Tensor:
        """Maps whole images (B, C, H, W) to logits (B, K, H, W), by windows if there are any."""
        if self.window is None:
            return self(image)  # type: ignore[no-any-return]
        return by_windows(self, image, self.window, stride=int(getattr(self.net, "stride", 1)))

    def freeze_weights(self, *, brought: Collection[str] = ()) -> None:
        """Stops the training of what is frozen; `brought` are the weights of `init_from`.

        Raises:
            ValueError: A pattern names nothing, or nothing is left to train.
        """
        self.brought = frozenset(brought)
        if self.frozen:
            freeze(self.net, self.frozen, brought=self.brought)
        self._trained()  # a pattern that names nothing is found here

    def on_fit_start(self) -> None:
        """Prepares each process, also those that were spawned."""
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.distillation is not None:
            self.distillation.to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the statistics of what is frozen.

        Not earlier, as Lightning warns of modules that it finds in that mode; nor once an epoch,
        which begins without a word where a run goes on in the middle of one.
        """
        if self.frozen:
            keep_statistics(self.net)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Computes the loss of a batch, and counts its pixels."""
        if self._step is None:  # made here, as processes that are spawned can't be given it
            self._step = self.losses
            if self.compile_step:
                graphs = self.trainer.accumulate_grad_batches == 1
                self._step = Compiled(self.losses, graphs=graphs)
        logits, loss = self._step(batch["image"], batch["mask"])
        if self.distillation is not None:
            soft = self.distillation.logits(batch["image"])
            term = self.distillation.term(logits, soft, batch["mask"])
            if self._is_logged():
                self.log("train/distillation", term.detach(), on_step=True, on_epoch=False)
            loss = loss + term
        self._count("train", logits.detach(), batch["mask"])
        if self._is_logged():  # to log takes a millisecond
            # Not prog_bar=True, with which Lightning reads the value, and so waits, at each step.
            self.log("train/loss", loss, on_step=True, on_epoch=False)
        return loss

    def _is_logged(self) -> bool:
        """Tells whether Lightning writes, or someone reads, what this step logs."""
        trainer = self.trainer
        every: int = getattr(trainer, "log_every_n_steps")  # noqa: B009
        due = every and (trainer.global_step + 1) % every == 0
        return bool(due or trainer.is_last_batch or getattr(trainer, "fast_dev_run"))  # noqa: B009

    def losses(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Computes a training batch's logits and loss, that of further outputs included.

        Args:
            image: uint8 or float32 (B, C, H, W).
            mask: uint8 (B, H, W).
        """
        outputs: Tensor | Sequence[Tensor] = self.net(self.preprocess(image))
        logits, *others = [outputs] if isinstance(outputs, Tensor) else outputs
        target = mask.long()
        loss: Tensor = self.loss(logits, target)
        for other in others:
            high, wide = other.shape[-2:]
            size = (logits.shape[-2], logits.shape[-1])
            if (high, wide) != size:
                other = F.interpolate(other.float(), size, mode="bilinear", align_corners=False)
            loss = loss + self.aux_weight / len(others) * self.loss(other, target)
        return logits, loss

    def on_train_epoch_start(self) -> None:
        """Forgets the validation of the epoch before, which may be the last one for some epochs.

        Lightning keeps its values, so a schedule, or whoever chooses the best, would take them for
        this epoch's.
        """
        logged = self.trainer.callback_metrics
        for name in [name for name in logged if name.startswith("val/")]:
            del logged[name]

    def on_train_epoch_end(self) -> None:
        """Logs the pixel accuracy and mean IoU of the epoch's augmented images."""
        named = self._metrics_of("train").compute()
        for name in ("pixel_accuracy", "mean_iou"):  # in the same order in every process
            if name in named:
                self.log(f"train/{name}", named[name], sync_dist=True)
        self._metrics_of("train").reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Counts a batch's pixels."""
        return self._evaluation_step("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Logs all metrics under `val/`."""
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Counts a batch's pixels."""
        return self._evaluation_step("test", batch)

    def on_test_epoch_end(self) -> None:
        """Logs all metrics under `test/`."""
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Maps a batch to logits (B, K, H, W)."""
        return self.whole(batch["image"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Makes the optimizer and its schedule; the schedule is told the number of steps."""
        try:
            optimizer = made_fused(self.make_optimizer, self._trained())
        except ValueError as error:
            raise UserError(f"optimizer: {error}") from error
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError(
                "trainer.max_epochs and trainer.max_steps are both without a limit, so no learning "
                "rate schedule can be made: set one of them"
            )
        if self.trainer.ckpt_path is not None:
            # To count steps Lightning made the loader before it knew where a resumed run stands:
            # worker processes would begin with the order of epoch 0, at the start of the epoch.
            self.trainer.fit_loop._combined_loader = None
        schedule = self.make_scheduler(optimizer, total_steps=int(steps))
        if isinstance(schedule["scheduler"], ReduceLROnPlateau):  # it counts validations
            schedule["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _trained(self) -> list[Any]:
        """Lists what is trained, in groups where rates differ."""
        if self.lr_factors:
            lr = rate_of(self.make_optimizer)
            return with_rates(self.net, self.lr_factors, lr=lr, brought=self.brought)
        return [weight for weight in self.net.parameters() if weight.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counts of the training images so far, of all processes together.

        And the names of the weights that `init_from` brought, which freezing and rates may need.
        """
        if self.brought:
            checkpoint["brought"] = sorted(self.brought)
        reduce = self.trainer.strategy.reduce
        checkpoint["counts"] = {
            name: reduce(state.clone(), reduce_op="sum")
            for name, state in self._metrics_of("train").metric_state.items()
            if isinstance(state, Tensor)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores those counts, in one process of all."""
        metrics = self._metrics_of("train")
        for name, value in checkpoint.get("counts", {}).items():
            getattr(metrics, name).copy_(value if self.trainer.is_global_zero else value * 0)
            metrics._update_count = 1  # or it would warn that nothing was counted

    def confusion(self, stage: str) -> Tensor:
        """The confusion matrix of a stage's last epoch, (C, C), truth in rows."""
        return self._metrics_of(stage).total

    def _metrics_of(self, stage: str) -> SegmentationMetrics:
        metrics = self.metrics[f"{stage}_metrics"]
        assert isinstance(metrics, SegmentationMetrics)
        return metrics

    def _sum_of(self, stage: str, what: str) -> SumMetric:
        metric = self.sums[f"{stage}_{what}"]
        assert isinstance(metric, SumMetric)
        return metric

    def _count(self, stage: str, logits: Tensor, mask: Tensor) -> StepOutput:
        # The same ids; on a CPU one is twice as fast with channels last, else the other 15 times.
        channels_last = logits.is_contiguous(memory_format=torch.channels_last)
        preds = logits.argmax(1) if channels_last else logits.max(dim=1).indices  # (B, H, W)
        confusion = confusion_matrices(preds, mask, len(self.classes))
        if stage == "train":
            self._metrics_of(stage).update(confusion, means=False)
        else:
            self._metrics_of(stage).update(confusion, soft_iou(logits, mask))
        return {"preds": preds.to(torch.uint8), "confusion": confusion}

    def _evaluation_step(self, stage: str, batch: Batch) -> StepOutput:
        logits = self.whole(batch["image"])
        loss = self.loss(logits, batch["mask"].long())
        size = loss.new_full((), len(batch["image"]))  # a number would be copied to the device
        self._sum_of(stage, "loss").update(loss * size)
        self._sum_of(stage, "images").update(size)
        return self._count(stage, logits, batch["mask"])

    def _log_evaluation(self, stage: str) -> None:
        metrics = self._metrics_of(stage)
        total, images = (self._sum_of(stage, what) for what in ("loss", "images"))
        named: Mapping[str, Any] = {"loss": total.compute() / images.compute(), **metrics.compute()}
        for name, value in named.items():
            self.log(f"{stage}/{name}", value, sync_dist=True)
        for metric in (metrics, total, images):
            metric.reset()
