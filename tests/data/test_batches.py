"""Where a resumed run goes on in its epoch."""

import re

import pytest

from segpets.data.batches import EpochSampler, TrainLoader
from segpets.errors import UserError


def loader(world: int) -> TrainLoader:
    order = EpochSampler(length=12, seed=0, shuffle=True, world=world)
    return TrainLoader(trainer=None, sampler=order, dataset=range(12), batch_size=2)


def test_as_many_processes_go_on_after_what_was_trained() -> None:
    one, other = loader(2), loader(2)
    for each in (one, other):
        each.order.set_epoch(3)
    other.load_state_dict({"epoch": 3, "samples": 4, "world": 2})
    assert [*other.order] == [*one.order][4:]


def test_another_number_of_processes_is_refused_within_an_epoch() -> None:
    told = "stopped within epoch 4 of 2 processes, and 1 would train some of its images twice"
    with pytest.raises(UserError, match=re.escape(told)):
        loader(1).load_state_dict({"epoch": 3, "samples": 4, "world": 2})
    between = loader(1)
    between.load_state_dict({"epoch": 3, "samples": 0, "world": 2})
    assert len([*between.order]) == 12
