"""TensorBoard's CUSTOM SCALARS tab, read back from what a training wrote."""

import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from segpets.callback.scalars import LAYOUT
from segpets.train import Result


def test_one_layout_shows_loss_mean_iou_and_the_iou_of_each_class(finished: Result) -> None:
    events = EventAccumulator(str(finished.path / "tensorboard")).Reload()
    (tensor,) = events.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    (category,) = layout.category
    scalars = events.Tags()["scalars"]
    shown = {
        chart.title: {
            scalar
            for scalar in scalars
            for pattern in chart.multiline.tag
            if re.match(pattern, scalar)  # as TensorBoard does
        }
        for chart in category.chart
    }
    assert shown == {
        "loss": {"train/loss", "val/loss"},
        "mean IoU": {"train/mean_iou", "val/mean_iou"},
        "IoU of each class": {"val/iou/pet", "val/iou/background", "val/iou/border"},
    }


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")
def test_tensorboard_on_a_sweep_shows_each_run_and_one_layout(
    finished: Result, tmp_path: Path
) -> None:
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

    for job in ("model-unet__seed-1", "model-vit__seed-1"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "tensorboard").symlink_to(finished.path / "tensorboard")
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    assert set(runs.Runs()) == {"model-unet__seed-1/tensorboard", "model-vit__seed-1/tensorboard"}
    provider = MultiplexerDataProvider(runs, str(tmp_path))
    plugin = CustomScalarsPlugin(
        TBContext(logdir=str(tmp_path), multiplexer=runs, data_provider=provider)
    )
    layout = json.loads(plugin.layout_impl(RequestContext(), ""))
    (category,) = layout["category"]
    titles = [chart["title"] for chart in category["chart"]]
    assert sorted(titles) == sorted(LAYOUT["segpets"])
