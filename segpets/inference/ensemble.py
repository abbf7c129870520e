"""Several trained models as one: their probabilities are averaged.

Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles. Balaji Lakshminarayanan,
Alexander Pritzel, Charles Blundell, 2016, arXiv 1612.01474.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from segpets.errors import UserError
from segpets.inference.trained import Segmenter, Trained, load
from segpets.run.directory import read_summary
from segpets.run.files import LATEST, shown
from segpets.run.find import find_runs, pruned_at, words_of
from segpets.run.protocol import bands_of, labels_of
from segpets.run.stored import StoredRun, open_run
from segpets.run.trust import Trust

log = logging.getLogger(__name__)

MOST: Final = 100
"""Models of an ensemble, which lie in memory together."""


class Averaged(nn.Module):
    """Averages the probabilities of several nets.

    Args:
        nets: Nets that map the same images to logits of the same classes.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.stride = math.lcm(*(int(getattr(net, "stride", 1)) for net in nets))

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the logarithms of the mean probabilities, float32 (B, K, H, W)."""
        probs = torch.stack([net(image).float().softmax(dim=1) for net in self.nets]).mean(dim=0)
        return probs.clamp(min=torch.finfo(torch.float32).tiny).log()


def open_runs(
    runs: Any,
    *,
    log_dir: str | Path = "logs/train",
    trust: Trust | None = None,
    key: str = "run",
) -> list[StoredRun]:
    """Finds the runs that `run=` names: one, or those of an ensemble.

    Args:
        runs: A run directory, a job of a sweep or `latest`; or a list of them, or the folder of a
            sweep, of which the completed ones are taken.
        log_dir: Where `latest` and sweeps by their names are looked for.
        trust: Whose classes their configs may name beside segpets' own.
        key: The override that named them, for messages.

    Raises:
        UserError: There is no such run, one can't be read, or one isn't to be trusted.
    """
    paths = run_paths(runs, log_dir=log_dir, key=key)
    return [open_run(path, log_dir=log_dir, trust=trust, key=key) for path in paths]


def run_paths(
    runs: Any, *, log_dir: str | Path = "logs/train", key: str = "run"
) -> list[str | Path]:
    """Finds the directories of those runs; see `open_runs`.

    Args:
        runs: As `open_runs` takes them.
        log_dir: Where `latest` and sweeps by their names are looked for.
        key: The override that named them, for messages.

    Raises:
        UserError: They are none, or too many.
    """
    if not (words := words_of(runs)):
        raise UserError(f"{key} names nothing: give a run directory, a sweep's folder, or a list")
    paths: dict[Path, Path] = {}
    for word in words:
        for path in _members(word, Path(log_dir), key) or [Path(word)]:
            newest = Path(log_dir) / LATEST if word == LATEST else path
            real = newest.expanduser().resolve()
            if real in paths:
                log.warning("%s names %s twice: it counts once", key, shown(real))
            paths.setdefault(real, path)
    if len(paths) > MOST:
        raise UserError(f"{key} names {len(paths):,} runs, more than the {MOST} that are averaged")
    return [*paths.values()]


def _members(word: str, log_dir: Path, key: str) -> list[Path]:
    """Lists the completed runs of a folder of runs; empty if it is no such folder."""
    if word == LATEST:
        return []
    try:
        paths, lost = find_runs([word], log_dir=log_dir)
    except UserError:
        return []  # whoever opens it says what is wrong
    if len(paths) < 2 and not lost:
        return paths  # whatever its status is, as for a run by its name
    done = [p for p in paths if read_summary(p).get("status") == "completed" and not pruned_at(p)]
    for path in [*(one.path for one in lost), *(path for path in paths if path not in done)]:
        what = "was ended early by its search" if pruned_at(path) else "isn't completed"
        log.warning("%s %s, and is left out of the ensemble", shown(path), what)
    if not done:
        raise UserError(f"{key}={word} holds no completed run: give its command again, or a run")
    return done


def load_runs(runs: Sequence[StoredRun], **options: Any) -> Trained:
    """Loads the model of a run, or several as one.

    Args:
        runs: The run, or those of an ensemble.
        **options: Those of `segpets.inference.trained.load`.

    Raises:
        UserError: One can't be loaded, or two differ in classes, in what these mean, or in how they
            see pictures.
    """
    members = [load(run, **options) for run in runs]
    first = members[0]
    if len(members) == 1:
        return first
    for other in members[1:]:
        _check_alike(first, other)
    net = Averaged([member.segmenter.net for member in members]).eval()
    segmenter = Segmenter(net, first.segmenter.preprocess).eval()
    log.info("%d models are averaged, and cost as much together", len(members))
    return replace(first, segmenter=segmenter, members=tuple(members))


def _check_alike(first: Trained, other: Trained) -> None:
    """Refuses models whose probabilities of a pixel don't mean the same."""

    def facts(one: Trained) -> dict[str, object]:
        data = one.config["data"]
        return {
            "data.classes": list(one.classes),
            "data.labels": labels_of(data),
            "data.size": list(one.size),
            "data.fit": one.reader.fit,
            "data.channels": one.reader.channels,
            "data.range": one.reader.range,
            "data.bands": bands_of(data),
            "data.window": one.window,
            "data.mean": list(data["mean"]),
            "data.std": list(data["std"]),
        }

    for (key, here), there in zip(facts(first).items(), facts(other).values(), strict=True):
        if here != there:
            raise UserError(
                f"{shown(first.path)} was trained with {key}={here}, but {shown(other.path)} with "
                f"{key}={there}: only models that see the same and say the same are averaged"
            )
    if first.precision != other.precision:
        log.warning(
            "%s was tested in %s, %s in %s: all are computed as the first",
            *(shown(first.path), first.precision, shown(other.path), other.precision),
        )
