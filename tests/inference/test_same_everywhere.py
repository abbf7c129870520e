"""The same file gives the same logits by every command, whatever its shape, depth and channels."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

import segpets
from segpets.config import compose
from segpets.evaluate import evaluate
from segpets.export import export
from segpets.export.gate import padded
from segpets.inference.logits import class_ids
from segpets.inference.onnx_session import OnnxModel
from segpets.model.windows import by_windows
from segpets.predict import predict
from segpets.train import Result, train

FITS = {
    "stretch": ["data.size=[48,64]"],
    "letterbox": ["data.size=64", "data.fit=letterbox"],
    "windows": ["data.size=64", "data.fit=none", "data.window=48"],
}
EVERY = [*product(FITS, (1, 3, 4), (8, 16), (False, True))]
QUICK = {("letterbox", 4, 16, True), ("windows", 1, 8, True), ("stretch", 3, 16, False)}
CASES = [c if c in QUICK else pytest.param(*c, marks=pytest.mark.slow) for c in EVERY]
TURN = 6  # a viewer turns it clockwise by 90 degrees


def draw(folder: Path, channels: int, bits: int, *, turned: bool) -> None:
    """Pictures of a bright disc, of two sizes, with upright masks."""
    random = np.random.default_rng(0)
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True)
    for index in range(12):
        height, width = (90, 120) if index % 2 else (70, 100)
        rows, columns = np.mgrid[:height, :width]
        centre = random.uniform(0.3, 0.7, 2) * (height, width)
        disc = np.hypot(rows - centre[0], columns - centre[1]) < height / 4
        levels = random.uniform(20, 90, (height, width, channels)) + 120 * disc[..., None]
        save(folder / "images", f"{index:02d}", levels, bits, turned=turned)
        Image.fromarray(disc.astype(np.uint8)).save(folder / "masks" / f"{index:02d}.png")


def save(folder: Path, name: str, levels: NDArray[np.float64], bits: int, *, turned: bool) -> None:
    """Stores a picture; a turned one as a camera that was held on its side does."""
    if turned:
        levels = np.rot90(levels)
    values = levels.astype(np.uint8) if bits == 8 else (levels * 16).astype(np.uint16)
    if bits == 8:
        exif = Image.Exif()
        exif[0x0112] = TURN if turned else 1
        pixels = np.ascontiguousarray(values if values.shape[2] > 1 else values[..., 0])
        Image.fromarray(pixels).save(folder / f"{name}.png", exif=exif)
        return
    tags = [(274, "H", 1, TURN, False)] if turned else []
    options = {"photometric": "minisblack", "extratags": tags}
    if values.shape[2] > 1:
        options["planarconfig"] = "contig"
    tifffile.imwrite(folder / f"{name}.tif", np.ascontiguousarray(values), **options)


def trained_on(folder: Path, run: Path, fit: str, channels: int, bits: int) -> Result:
    words = [
        *("data=folder", f"data.root={folder}", "data.classes=[background,disc]"),
        *(f"data.channels={channels}", "data.cache=none", "model=unet", "model.widths=[4,8]"),
        *("trainer.max_epochs=1", "trainer.precision=32-true", "trainer.accelerator=cpu"),
        *("data.batch_size=4", f"hydra.run.dir={run}", "logger=[]", "augment=flip", *FITS[fit]),
    ]
    if bits > 8:
        words.append("data.range=[0,4000]")
    return train(compose(words))


@pytest.mark.parametrize(("fit", "channels", "bits", "turned"), CASES)
def test_the_same_pixels_give_the_same_logits(
    fit: str, channels: int, bits: int, turned: bool, tmp_path: Path
) -> None:
    draw(tmp_path / "data", channels, bits, turned=turned)
    result = trained_on(tmp_path / "data", tmp_path / "run", fit, channels, bits)
    module, data = result.module.eval(), result.datamodule
    samples = {sample.name: sample for sample in data.splits.test}
    loaded = segpets.load(tmp_path / "run")
    evaluated = evaluate(
        compose([f"run={tmp_path}/run", f"hydra.run.dir={tmp_path}/e"], task="evaluate")
    )
    for name in ("mean_iou", "pixel_accuracy", "loss"):
        expected = result.metrics[f"test/{name}"]
        assert evaluated.metrics[f"test/{name}"] == pytest.approx(expected, abs=1e-6)
    words = [f"run={tmp_path}/run", f"source={tmp_path}/data/images", f"output={tmp_path}/p"]
    predict(compose([*words, "outputs=[masks]"], task="predict"))
    out = export(compose([f"run={tmp_path}/run", f"output={tmp_path}/x"], task="export"))
    assert not out.complaints
    exported, stride = OnnxModel(out.path), loaded.stride
    for batch in data.test_dataloader():
        with torch.no_grad():
            logits = module.whole(batch["image"])
        torch.testing.assert_close(loaded.logits(batch["image"]), logits, rtol=0, atol=1e-5)
        for image, one, name in zip(batch["image"], logits, batch["name"], strict=True):
            assert len(image) == channels
            inside = data.geometry(samples[name]).inside(one)
            size = pixels(samples[name].mask).shape
            expected_ids = class_ids(inside, (size[0], size[1])).numpy()
            agree(pixels(tmp_path / "p" / "masks" / f"{name}.png"), expected_ids)
            agree(loaded.predict(samples[name].image), expected_ids)
            alone = image[None]
            if loaded.window is None:
                height, width = image.shape[-2:]
                found = exported(padded(alone, stride))[..., :height, :width]
            else:
                found = by_windows(exported, alone, loaded.window, stride=stride)
            torch.testing.assert_close(found[0], one, rtol=0, atol=1e-3)


def pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image)


def agree(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """All but pixels whose logits are equal to the last digits."""
    assert found.shape == expected.shape
    assert (found == expected).mean() > 0.999
