"""The classes under which a model is judged, where they aren't those that it was trained on.

A trimap has a border that annotators left open to be pet or not. A model that was trained to
find it can be judged as such (`trimap`), as if the border were pet (`border_as_pet`), or without
the border's pixels (`border_ignored`); the last two are also what models without a border know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from segpets.errors import UserError

LABELS: Final = ("trimap", "border_as_pet", "border_ignored")
BORDER: Final = "border"
_PET: Final = "pet"


@dataclass(frozen=True)
class Merge:
    """A mapping from a model's classes to those under which it is judged.

    Attributes:
        classes: The K classes of the truth, in the order of their ids.
        groups: For each of them the ids of the model's classes that count as it. An id that is in
            no group is never predicted.
        words: The same for readers.
    """

    classes: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    words: str

    def scores(self, logits: Tensor) -> Tensor:
        """Maps the model's logits, (B, C, H, W), to logits of the K classes, (B, K, H, W).

        Their softmax sums the probabilities of merged classes; that of a class without a group is
        distributed among the others.
        """
        if self._is_identity(logits.shape[1]):
            return logits
        parts = [logits[:, list(group)].logsumexp(dim=1) for group in self.groups]
        return torch.stack(parts, dim=1)

    def ids(self, logits: Tensor) -> Tensor:
        """Takes the largest of the model's logits, (B, C, H, W), and then merges: (B, H, W).

        A class without a group is never predicted: the largest of the others is.
        """
        if self._is_identity(logits.shape[1]):
            return logits.argmax(dim=1)
        member = sorted((old, new) for new, group in enumerate(self.groups) for old in group)
        chosen = logits[:, [old for old, _ in member]].argmax(dim=1)
        return torch.tensor([new for _, new in member], device=logits.device)[chosen]

    def _is_identity(self, count: int) -> bool:
        return self.groups == tuple((index,) for index in range(count))


def merge(model: Sequence[str], truth: Sequence[str], labels: str | None) -> Merge:
    """Finds how a model can be judged under the classes of a truth.

    Args:
        model: The classes that it was trained on.
        truth: The classes of the data.
        labels: The data's name for their meaning, one of `LABELS`; others mean nothing here.

    Raises:
        UserError: It can't be judged under them.
    """
    model, truth = tuple(model), tuple(truth)
    if model == truth:
        same = tuple((index,) for index in range(len(truth)))
        return Merge(truth, same, "the largest logit of the classes that the model was trained on")
    own = tuple(index for index, name in enumerate(model) if name != BORDER)
    if BORDER in model and truth == tuple(model[index] for index in own) and _PET in truth:
        if labels == "border_as_pet":
            border = model.index(BORDER)
            groups = tuple((i, border) if model[i] == _PET else (i,) for i in own)
            return Merge(
                truth,
                groups,
                "the largest logit of the classes that the model was trained on, then border "
                "counts as pet; for calibration and soft IoU their probabilities are summed",
            )
        if labels == "border_ignored":
            return Merge(
                truth,
                tuple((i,) for i in own),
                "the largest logit of the classes without border, which is no choice",
            )
    raise UserError(_misfit(model, truth, labels))


def _misfit(model: tuple[str, ...], truth: tuple[str, ...], labels: str | None) -> str:
    trained = f"the model was trained on the classes {', '.join(model)}"
    if BORDER in truth and BORDER not in model and _PET in model:
        return (
            f"{trained}, without a border, so it can't be judged under "
            f"{f'labels={labels}' if labels else 'classes with one'}: choose "
            "labels=border_as_pet or labels=border_ignored"
        )
    if sorted(model) == sorted(truth):
        return (
            f"{trained}, in this order, but the data have {', '.join(truth)}: ids would be taken "
            "for each other. Give the data's classes in the model's order"
        )
    missing = [name for name in truth if name not in model]
    extra = [name for name in model if name not in truth]
    parts = [f"the model doesn't know {', '.join(missing)}"] if missing else []
    parts += [f"the data don't have {', '.join(extra)}"] if extra else []
    hint = ""
    if labels in (*LABELS, "species"):
        hint = ". Choose the data.labels that it was trained with"
    return f"{trained}, but the data have {', '.join(truth)}: {', and '.join(parts)}{hint}"
