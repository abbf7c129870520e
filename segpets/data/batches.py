"""The batches of an epoch: their order, their sizes, and where a resumed run goes on."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from segpets.data.geometry import stacked
from segpets.errors import UserError
from segpets.labels import IGNORE_INDEX, Batch, Item


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index): the epoch's order, divided among processes.

    Args:
        length: Number of samples.
        seed: The order's seed.
        shuffle: Whether an epoch has an order of its own; else it is 0, 1, 2, ...
        rank: This process.
        world: Number of processes. When shuffling, the last samples are dropped so that all
            processes have equally many; else each sample is in exactly one process, so that no
            metric counts it twice.
    """

    def __init__(
        self, *, length: int, seed: int, shuffle: bool, rank: int = 0, world: int = 1
    ) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self._done = (0, 0)

    def go_on(self, epoch: int, done: int) -> None:
        """Leaves out the first samples of one epoch, which a resumed run has trained on."""
        self._done = (epoch, done)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        indices = self._indices()[self._done[1] if epoch == self._done[0] else 0 :]
        if not self.shuffle:
            return ((epoch, index) for index in indices)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return ((epoch, int(order[i])) for i in indices)

    def _indices(self) -> range:
        end = self.length // self.world * self.world if self.shuffle else self.length
        return range(self.rank, end, self.world)


class SameSizeBatches(Sampler[list[tuple[int, int]]]):
    """Batches of neighbours of one size, in order: none is padded, so none changes the others.

    Args:
        sampler: The order.
        sizes: Height and width of each image, (N, 2).
        batch_size: Images in a batch, at most.
    """

    def __init__(self, sampler: EpochSampler, sizes: NDArray[np.int64], *, batch_size: int) -> None:
        self.sampler, self.sizes, self.batch_size = sampler, sizes, batch_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch: list[tuple[int, int]] = []
        for key in self.sampler:
            other = batch and (self.sizes[key[1]] != self.sizes[batch[0][1]]).any()
            if other or len(batch) == self.batch_size:
                yield batch
                batch = []
            batch.append(key)
        if batch:
            yield batch

    def __len__(self) -> int:
        return sum(1 for _ in self)


class TrainLoader(DataLoader[Item]):
    """A loader of training batches that goes on in mid-epoch.

    Lightning saves and restores its state beside the loop's, which counts batches but replays
    their loader from the start.

    Args:
        trainer: The trainer that counts; None if there is none.
        sampler: The order.
        options: Of PyTorch's loader.
    """

    def __init__(self, *, trainer: Trainer | None, sampler: EpochSampler, **options: Any) -> None:
        super().__init__(sampler=sampler, **options)
        self.trainer, self.order = trainer, sampler

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch, and how many samples each of the processes has trained on."""
        assert self.trainer is not None and self.batch_size is not None
        samples = batches_done(self.trainer) * self.batch_size
        return {"epoch": self.trainer.current_epoch, "samples": samples, "world": self.order.world}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on after those samples.

        Raises:
            UserError: So many processes as there are now would divide them otherwise.
        """
        before, now = state.get("world", self.order.world), self.order.world
        if state["samples"] and before != now:
            raise UserError(
                f"the run stopped within epoch {state['epoch'] + 1} of {before} processes, and "
                f"{now} would train some of its images twice and others never: go on with "
                f"trainer.devices={before}"
            )
        self.order.go_on(state["epoch"], state["samples"])


def batches_done(trainer: Trainer) -> int:
    """Counts the batches of an epoch that isn't over; 0 between two epochs."""
    loop = trainer.fit_loop
    if epochs_done(trainer) == loop.epoch_progress.current.ready:
        return 0
    batches: int = loop.epoch_loop.batch_progress.state_dict()["current"]["processed"]
    return batches


def epochs_done(trainer: Trainer) -> int:
    """Counts epochs whose batches are all done and validated."""
    epochs: int = trainer.fit_loop.epoch_progress.state_dict()["current"]["processed"]
    return epochs


def padded(items: Sequence[Item]) -> Batch:
    """Stacks items of any sizes to a batch; what is added below and to the right has no class."""
    if len({item["mask"].shape for item in items}) == 1:
        return collate(items)
    return Batch(
        image=stacked([item["image"] for item in items]),
        mask=stacked([item["mask"] for item in items], value=IGNORE_INDEX),
        name=[item["name"] for item in items],
    )


def collate(items: Sequence[Item]) -> Batch:
    """Stacks items to a batch.

    Raises:
        UserError: They differ in size.
    """
    sizes = sorted({tuple(item["mask"].shape) for item in items})
    if len(sizes) > 1:
        raise UserError(
            f"augment.transforms gives images of {len(sizes)} sizes, such as {sizes[0]} and "
            f"{sizes[1]}, which make no batch: let a crop or resize to one size come last"
        )
    # NumPy stacks on this thread. torch.stack shares the work among its threads, and where the
    # cores were busy it waited 128 ms for them instead of working for 0.1 ms (16 of 128x128).
    batch = Batch(
        image=torch.from_numpy(np.stack([item["image"].numpy() for item in items])),
        mask=torch.from_numpy(np.stack([item["mask"].numpy() for item in items])),
        name=[item["name"] for item in items],
    )
    if seeds := [item["seed"] for item in items if "seed" in item]:
        batch["seed"] = torch.tensor(seeds)
    return batch
