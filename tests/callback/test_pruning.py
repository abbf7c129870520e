"""Trials that promise nothing end in all processes at once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from segpets.callback.pruning import PruneHopeless


@pytest.mark.parametrize("said", [True, False])
def test_other_processes_do_what_the_first_one_says(tmp_path: Path, said: bool) -> None:
    heard = SimpleNamespace(broadcast=lambda own: said)
    trainer: Any = SimpleNamespace(
        sanity_checking=False, is_global_zero=False, strategy=heard, should_stop=False
    )
    PruneHopeless(folder=str(tmp_path)).on_validation_end(trainer, BoringModel())
    assert trainer.should_stop == said
