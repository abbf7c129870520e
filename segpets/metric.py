"""All metrics of a stage from one confusion matrix, and the soft IoU of the article.

The confusion matrix is summed over the whole data set before anything is divided, so the batch
size and the number of processes cannot change a number. Rows are the truth, columns the
prediction; pixels whose truth is `IGNORE_INDEX` are in no cell.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from segpets.labels import IGNORE_INDEX

SOFT_IOU_SMOOTH = 1e-3
_UNIT = 2**30


def confusion_matrices(preds: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Counts truth against prediction, for each image by itself, without waiting for the device.

    Args:
        preds: Class ids, (B, H, W), any integer type.
        mask: True class ids, (B, H, W), `IGNORE_INDEX` where a pixel doesn't count; another id
            that is no class would be counted as something else, see `segpets.labels.check_ids`.
        num_classes: C.

    Returns:
        int64 (B, C, C); `[b, t, p]` is the number of pixels of image b with truth t, predicted p.
    """
    batch, cells = mask.shape[0], num_classes * num_classes
    truth, predicted = mask.reshape(batch, -1), preds.reshape(batch, -1)
    # One bin more takes the ignored pixels, so that no pixel needs to be selected.
    cell = torch.where(truth == IGNORE_INDEX, cells, truth.int() * num_classes + predicted.int())
    counts = torch.zeros(batch, cells + 1, dtype=torch.int32, device=cell.device)
    counts.scatter_add_(1, cell.long(), torch.ones_like(cell))
    return counts[:, :cells].reshape(batch, num_classes, num_classes).long()


def soft_iou(logits: Tensor, mask: Tensor) -> Tensor:
    r"""The article's "custom IoU" of each image, over all classes and pixels together.

    $$ \frac{\sum p\,t + 0.001}{\sum (p + t - p\,t) + 0.001} $$

    with softmax probabilities p and the one-hot truth t. Ignored pixels are in neither sum. A
    probability that is NaN counts as 0. Like all sums here, it is one of integers: the order in
    which threads add floats depends on the batch's size, and shows in the last bit.

    Args:
        logits: (B, C, H, W).
        mask: True class ids, (B, H, W), `IGNORE_INDEX` where a pixel doesn't count.

    Returns:
        float32 (B,).
    """
    probs = logits.float().softmax(dim=1)
    valid = mask != IGNORE_INDEX
    truth = torch.where(valid, mask, 0).long()
    # sum(p*t) needs only the true class's probability, and sum(p) and sum(t) are pixel counts.
    overlap = probs.gather(1, truth.unsqueeze(1)).squeeze(1)
    overlap = torch.where(valid, overlap, 0.0).nan_to_num(0.0).flatten(1)
    overlap = _integers(overlap).sum(dim=1).float() / _UNIT
    pixels = valid.flatten(1).sum(dim=1).float()
    return (overlap + SOFT_IOU_SMOOTH) / (2 * pixels - overlap + SOFT_IOU_SMOOTH)


def scores(confusion: Tensor) -> dict[str, Tensor]:
    """Computes the scores of each class from a confusion matrix.

    Args:
        confusion: (..., C, C), truth in rows; integers are divided in float64.

    Returns:
        `iou`, `dice`, `precision`, `recall` of shape (..., C). A class without a pixel
        in truth and prediction is NaN in all; a class that is only predicted has recall 0, and
        one that is never predicted precision 0.
    """
    counts = confusion if confusion.is_floating_point() else confusion.double()
    hit = counts.diagonal(dim1=-2, dim2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    union = true + predicted - hit
    present = union > 0

    def ratio(part: Tensor, whole: Tensor) -> Tensor:
        value = torch.where(whole > 0, part / whole.clamp(min=1), 0.0)
        return torch.where(present, value, torch.nan)

    return {
        "iou": ratio(hit, union),
        "dice": ratio(2 * hit, true + predicted),
        "precision": ratio(hit, predicted),
        "recall": ratio(hit, true),
    }


def summarise(confusion: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Names every metric of one confusion matrix.

    Args:
        confusion: (C, C), truth in rows.
        classes: The C class names.

    Returns:
        `pixel_accuracy`, `mean_accuracy` (mean recall of the classes in the truth), `mean_iou`,
        `mean_dice`, `mean_precision`, `mean_recall`, `frequency_weighted_iou`, and
        `<score>/<class>` for `iou`, `dice`, `precision`, `recall`. Macro means leave out classes
        that neither truth nor prediction contains; those have no entry of their own either. An
        empty matrix gives an empty dict.
    """
    counts = confusion.cpu().double()
    total = counts.sum()
    if total == 0:
        return {}
    truth = counts.sum(1)
    by_class = scores(counts)
    named = {
        "pixel_accuracy": counts.diagonal().sum() / total,
        "mean_accuracy": by_class["recall"][truth > 0].mean(),
        "frequency_weighted_iou": (truth / total * by_class["iou"].nan_to_num()).sum(),
    }
    named |= {f"mean_{score}": values.nanmean() for score, values in by_class.items()}
    for score, values in by_class.items():
        named |= {f"{score}/{n}": v for n, v in zip(classes, values, strict=True) if not v.isnan()}
    return {name: value.item() for name, value in named.items()}


class SegmentationMetrics(Metric):
    """The metrics of one stage, accumulated over its images; summed over processes.

    Means over images are kept as integer sums in units of 2**-30, so that the order of images,
    and with it batch size and number of processes, cannot change the last bit either.

    Args:
        classes: Class names, in the order of their ids.

    Attributes:
        total: The confusion matrix that the last `compute` saw, of all processes, (C, C).
    """

    full_state_update = False
    confusion: Tensor
    soft_iou_sum: Tensor
    image_iou_sum: Tensor
    images: Tensor

    def __init__(self, *, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        size = len(self.classes)
        zeros = torch.zeros(size, size, dtype=torch.int64)
        self.total = zeros.clone()
        self.add_state("confusion", default=zeros, dist_reduce_fx="sum")
        for name in ("soft_iou_sum", "image_iou_sum", "images"):
            self.add_state(name, default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, confusion: Tensor, soft_iou: Tensor | None = None, *, means: bool = True
    ) -> None:
        """Adds a batch.

        Args:
            confusion: What `confusion_matrices` gives for the batch, (B, C, C).
            soft_iou: What `soft_iou` gives for the batch, (B,); None leaves it out.
            means: Whether means over images are wanted; False leaves them out.
        """
        self.confusion += confusion.sum(0)
        if not means:
            return
        counted = confusion.sum((1, 2)) > 0
        self.images += counted.sum()
        image_iou = scores(confusion.float())["iou"].nanmean(dim=1)
        self.image_iou_sum += _integers(torch.where(counted, image_iou, 0.0)).sum()
        if soft_iou is not None:
            self.soft_iou_sum += _integers(torch.where(counted, soft_iou, 0.0)).sum()

    def compute(self) -> dict[str, float]:
        """Gives the metrics by name, as `summarise`, with `image_mean_iou` and `soft_iou` beside.

        `image_mean_iou` is the mean over images of the mean IoU of the classes that the image's
        truth or prediction contains. Images without a counted pixel are left out. `soft_iou` is
        there when `update` was given it.
        """
        self.total = self.confusion.cpu().clone()
        named = summarise(self.total, self.classes)
        if named and (images := self.images.item() * _UNIT):
            named["image_mean_iou"] = self.image_iou_sum.item() / images
            if self.soft_iou_sum > 0:
                named["soft_iou"] = self.soft_iou_sum.item() / images
        return named


def _integers(values: Tensor) -> Tensor:
    return (values.float() * _UNIT).round().long()
