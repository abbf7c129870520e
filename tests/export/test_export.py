"""An exported file predicts what its run does, or is rejected."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixture_types import Command
from PIL import Image
from torch import Tensor, nn

import segpets
from segpets.build.instantiate import build
from segpets.cli.suggest import groups
from segpets.config import compose, conf_dir
from segpets.data.decoded import read_sample
from segpets.errors import UserError
from segpets.export import Result, export
from segpets.export.gate import check, complaints, padded
from segpets.export.onnx_file import to_onnx
from segpets.export.program import ProgramModel, to_program
from segpets.export.recipe import main
from segpets.inference.logits import class_ids
from segpets.inference.onnx_session import OnnxModel
from segpets.inference.trained import Segmenter
from segpets.labels import Item
from segpets.model.segnet import SegNet
from segpets.module import Preprocess
from segpets.run.trust import Trust
from segpets.train import Result as Trained

ROOT = Path(__file__).parents[2]
STRICT = {"logits": 1e-3, "agreement": 0.999, "mean_iou": 0.001}
SMALL = {
    "unet": ["model.widths=[4,8,16]"],
    "segnet_dsc": [],
    "vit_tiny": ["model.depth=2", "model.width=24"],
}


@pytest.fixture
def copied(finished: Trained, tmp_path: Path) -> Path:
    """A run that a test may write into."""
    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    return copy


@pytest.fixture(scope="module")
def balanced(finished: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that predicts several classes, in spite of its two epochs, with its ONNX file."""
    copy = tmp_path_factory.mktemp("balanced") / "run"
    shutil.copytree(finished.path, copy)
    item = real_images(finished)[0]
    logits = segpets.load(copy).logits(item["image"][None])
    for file in (copy / "checkpoints").glob("*.ckpt"):
        saved = torch.load(file, weights_only=True)
        saved["state_dict"]["net.head.bias"] -= logits.mean((0, 2, 3))
        torch.save(saved, file)
    assert exported(copy).complaints == []
    return copy


def exported(run: Path, *overrides: str) -> Result:
    return export(compose([f"run={run}", "repeats=1", *overrides], task="export"))


def real_images(finished: Trained) -> list[Item]:
    dataset = finished.datamodule.dataset("test")
    return dataset.__getitems__([(0, row) for row in range(len(dataset))])


def segmenter_of(model: str, overrides: Sequence[str] = (), *, small: bool = False) -> Segmenter:
    """A net as training begins with it."""
    torch.manual_seed(0)
    cfg = compose(["data=pets_mini", "data.size=64", f"model={model}", *overrides])
    net = build(cfg.model, "model")
    if small and isinstance(net, SegNet):  # the outer two of its four levels
        net.encoder, net.decoder, net.stride = net.encoder[:2], net.decoder[2:], 4
    net.to(memory_format=torch.channels_last)
    segmenter = Segmenter(net, Preprocess(mean=cfg.data.mean, std=cfg.data.std))
    return segmenter.eval().requires_grad_(False)


def compared(segmenter: Segmenter, items: list[Item], file: Path) -> list[str]:
    stride = int(segmenter.net.stride)
    to_onnx(segmenter, file, items[0]["image"], stride=stride, metadata={})
    classes = ("pet", "background", "border")
    found = check(segmenter, OnnxModel(file), items, classes=classes, tolerance=STRICT)
    assert found.same.close > 0.99
    assert len(found.others.shapes) == 2
    return complaints(found, STRICT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [m if m == "unet" else pytest.param(m, marks=pytest.mark.slow) for m in SMALL],
)
def test_onnx_predicts_what_the_net_does_at_any_size(
    model: str, finished: Trained, tmp_path: Path
) -> None:
    items = real_images(finished)
    segmenter = segmenter_of(model, SMALL[model], small=True)
    assert compared(segmenter, items, tmp_path / "model.onnx") == []


@pytest.mark.slow
@pytest.mark.parametrize("model", groups([conf_dir()])["model"])
def test_every_model_exports(model: str, finished: Trained, tmp_path: Path) -> None:
    items = real_images(finished)
    segmenter = segmenter_of(model)
    assert compared(segmenter, items, tmp_path / "model.onnx") == []
    file, stride = tmp_path / "model.pt2", int(segmenter.net.stride)
    to_program(segmenter, file, items[0]["image"], stride=stride, metadata={})
    classes = ("pet", "background", "border")
    read = check(segmenter, ProgramModel(file), items, classes=classes, tolerance=STRICT)
    assert complaints(read, STRICT) == []


def test_the_command_writes_one_file_and_what_was_measured(
    copied: Path, command: Command, tmp_path: Path
) -> None:
    words = [f"run={copied}", "repeats=1", f"paths.log_dir={tmp_path / 'logs'}"]
    done = command(*words, module="segpets.export")
    assert done.returncode == 0, done.stdout
    assert "pixels of the same class" in done.stdout
    assert "Warning" not in done.stdout
    assert sorted(f.name for f in (copied / "export").iterdir()) == ["export.json", "model.onnx"]
    report = json.loads((copied / "export" / "export.json").read_text())["model.onnx"]
    assert report["complaints"] == []
    assert report["same"]["agreement"] >= 0.999
    assert report["same"]["relative"] <= 1e-3
    assert report["bytes"] == (copied / "export" / "model.onnx").stat().st_size
    assert set(report["latency_ms"]) == {"eager", "onnx"}
    again = command(*words, module="segpets.export")
    assert again.returncode == 1
    assert "is there already: overwrite=true replaces it" in again.stdout


def test_the_metadata_says_all_that_a_caller_needs(balanced: Path) -> None:
    import onnx

    file = balanced / "export" / "model.onnx"
    model = onnx.load(file)
    facts = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert facts["classes"] == ["pet", "background", "border"]
    assert facts["colours"][0] == [230, 159, 0]
    assert (facts["stride"], facts["size"]) == (2, [64, 64])
    assert (facts["run"], facts["epoch"]) == ("run", segpets.load(balanced).epoch)
    assert facts["segpets"] == segpets.__version__
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    axes = [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]
    assert str(ROOT).encode() not in file.read_bytes()


@pytest.mark.slow
def test_int8_is_quantised_and_measured_beside_onnx(balanced: Path) -> None:
    import onnx

    wide = "tolerance.onnx_int8.mean_iou=1"
    result = exported(balanced, "format=onnx_int8", "calibration=4", wide)
    assert result.path == balanced / "export" / "model_int8.onnx"
    operators = {node.op_type for node in onnx.load(result.path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert set(result.report["latency_ms"]) == {"eager", "onnx", "onnx_int8"}
    assert result.report["same"]["agreement"] > 0.8
    reports = json.loads((balanced / "export" / "export.json").read_text())
    assert {"model.onnx", "model_int8.onnx"} <= set(reports)


def test_torch_export_needs_nothing_of_segpets(balanced: Path) -> None:
    result = exported(balanced, "format=torch_export")
    facts = {"classes": "", "stride": ""}
    program = torch.export.load(result.path, extra_files=facts)
    assert json.loads(facts["classes"]) == ["pet", "background", "border"]
    image = torch.randint(0, 256, (3, 3, 32, 70), dtype=torch.uint8)
    with torch.no_grad():
        found = program.module()(image=image)
    torch.testing.assert_close(found, segpets.load(balanced, device="cpu").logits(image))


@pytest.mark.slow
def test_what_differs_is_rejected_and_a_good_file_stays(copied: Path) -> None:
    good = copied / "export" / "model.onnx"
    good.parent.mkdir()
    good.write_bytes(b"good")
    words = [f"run={copied}", "repeats=1", "overwrite=true", "tolerance.onnx.agreement=1.1"]
    words.append(f"paths.log_dir={copied / 'logs'}")
    with pytest.raises(UserError, match=r"of the same class, 110\.000% is required"):
        main(compose(words, task="export"), Trust())
    assert good.read_bytes() == b"good"
    assert (good.parent / "rejected_model.onnx").is_file()
    reports = json.loads((good.parent / "export.json").read_text())
    assert list(reports) == ["rejected_model.onnx"]


class Colours(nn.Module):
    """Logits that are the pixels."""

    stride = 4

    def forward(self, image: Tensor) -> Tensor:
        return image


def gate(answer: Any) -> Any:
    image = torch.zeros(3, 6, 6, dtype=torch.uint8)
    image[0] = 200
    item = Item(image=image, mask=torch.zeros(6, 6, dtype=torch.uint8), name="red")
    preprocess = Preprocess(mean=[0, 0, 0], std=[1 / 255] * 3)
    segmenter = Segmenter(Colours(), preprocess)
    return check(segmenter, answer, [item] * 3, classes="abc", tolerance=STRICT)


def test_the_gate_counts_what_differs() -> None:
    def wrong_in_a_row(image: Tensor) -> Tensor:
        logits = image.float()
        logits[:, 1, 0] = 201  # in 6 of 36 pixels; the padded ones don't count
        return logits

    found = gate(wrong_in_a_row)
    assert found.same.agreement == pytest.approx(30 / 36)
    assert found.same.relative == pytest.approx(201 / 200)
    assert (found.same.pixels, found.same.close) == (3 * 36, pytest.approx(30 / 36))
    # Of the truth, all of class 0, 30 of 36 pixels are hit; class 1 is predicted, and never true.
    assert found.mean_iou == pytest.approx(1)
    assert found.mean_iou_exported == pytest.approx((30 / 36 + 0) / 2)
    assert found.own.relative < 1e-5
    said = complaints(found, STRICT)
    assert "mean IoU falls by 0.5833, from 1.0000 to 0.4167; 0.001 is allowed" in said
    assert len(said) == 5
    assert complaints(found, dict.fromkeys(STRICT)) == []


def test_the_gate_refuses_what_is_no_number() -> None:
    found = gate(lambda image: image.float() * torch.nan)
    assert any("logits differ by nan" in line for line in complaints(found, STRICT))


def test_padding_repeats_the_last_row_and_column() -> None:
    image = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    expected = [[[1, 2, 3, 3], [4, 5, 6, 6], [4, 5, 6, 6], [4, 5, 6, 6]]]
    assert padded(image, 4).tolist() == expected
    assert padded(image[..., :2], 2).tolist() == [[[1, 2], [4, 5]]]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["format=onx"], r"format=onx is unknown. Did you mean format=onnx\?"),
        (["images=0"], "images=0 must be a whole number of at least 1"),
        (["tolerance.onnx.logits=few"], "tolerance.onnx.logits=few must be a number"),
        (["data.root=/nowhere"], "only called good after a comparison"),
        (["data.classes=[a,b,c]"], "give data with the same classes"),
        (["checkpoint=worst"], "checkpoint=worst is unknown"),
    ],
)
def test_what_is_wrong_is_said(overrides: list[str], problem: str, copied: Path) -> None:
    with pytest.raises(UserError, match=problem):
        exported(copied, *overrides)
    assert not (copied / "export").exists()


def test_a_folder_that_cannot_be_written_is_named(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.* can't be written .*choose output=FOLDER"):
        exported(copied, f"output={tmp_path / 'file' / 'below'}")


def test_the_missing_extra_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # as Python itself marks what can't be imported
    assert importlib.util.find_spec("onnx") is None
    with pytest.raises(UserError, match=r"needs onnx: pip install 'segpets\[export\]'"):
        exported(copied)


def test_the_script_of_the_docs_predicts_without_segpets(
    balanced: Path, finished: Trained, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in script.splitlines() if line]) <= 15
    (tmp_path / "predict.py").write_text(script)
    model, datamodule = balanced / "export" / "model.onnx", finished.datamodule
    sample = datamodule.splits.test[0]
    words = [sys.executable, "predict.py", str(model), str(sample.image), "mask.png"]
    subprocess.run(words, cwd=tmp_path, check=True)
    with Image.open(tmp_path / "mask.png") as mask, Image.open(sample.image) as picture:
        assert mask.size == picture.size
        assert mask.getpalette()[:3] == [230, 159, 0]
        found = np.asarray(mask)
    pixels = read_sample(sample, datamodule.source, datamodule.reader).image
    logits = segpets.load(balanced).logits(torch.from_numpy(pixels)[None])[0]
    expected = class_ids(logits, found.shape).numpy()
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.995


def test_pictures_of_their_own_sizes_are_compared_in_batches_of_one_size() -> None:
    sizes = [(32, 40)] * 3 + [(48, 32)] * 2 + [(32, 40)]
    items = [
        Item(
            image=torch.full((3, *size), index, dtype=torch.uint8),
            mask=torch.zeros(size, dtype=torch.uint8),
            name=str(index),
        )
        for index, size in enumerate(sizes)
    ]
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1))
    segmenter = Segmenter(net, Preprocess(mean=[0.5] * 3, std=[0.2] * 3)).eval()
    found = check(segmenter, segmenter, items, classes=("a", "b"), tolerance=STRICT)
    assert complaints(found, STRICT) == []
    assert sorted(found.same.shapes) == [[2, 3, 48, 32], [4, 3, 32, 40]]
    assert found.same.pixels == sum(height * width for height, width in sizes)
