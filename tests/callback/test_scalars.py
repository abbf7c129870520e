"""TensorBoard's CUSTOM SCALARS tab, read back from what a training wrote."""

import re

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

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
