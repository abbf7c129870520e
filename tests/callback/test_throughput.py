"""Images per second: the training's, data included and validation excluded."""

from types import SimpleNamespace
from typing import Any

import pytest
from fixture_types import TakePart, Train
from lightning.pytorch import Callback, LightningModule, Trainer

from segpets.callback import throughput


class Clock(Callback):
    """Half a second passes in each training step, and 100 s in each validation batch."""

    now = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.now += 0.5

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        self.now += 100


@pytest.mark.parametrize(
    "words", [[], ["+trainer.val_check_interval=1"], ["trainer.max_steps=5"]], ids=str
)
def test_the_clock_stops_before_validation(
    train_tiny: Train, take_part: TakePart, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """At the end of an epoch or in its midst; and the last one may be cut."""
    clock = Clock()
    take_part(clock)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    summary = train_tiny("logger=[csv]", "test=false", *words).path / "metrics.csv"
    header, *rows = (line.split(",") for line in summary.read_text().splitlines())
    column = header.index("train/images_per_second")
    assert [row[column] for row in rows if row[column]] == ["8", "8"]  # 3 batches of 4 in 1.5 s
