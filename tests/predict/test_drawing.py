"""Masks, overlays, cutouts and composites of hand-made pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pictures import GREEN, RED, SMALL, Colours, left_red
from PIL import Image
from torch import Tensor

from segpets.data.picture import Picture
from segpets.errors import UserError
from segpets.inference.layers import Layers, collected, opacity, whole_layers
from segpets.predict import drawing
from segpets.predict.background import Background, filled, read_background
from segpets.report.palette import palette

PICTURE = Picture(left_red(), Path("a"), SMALL)
CLASSES = ("left", "right", "none")


def layers(foreground: Sequence[bool] | None = (True, False, False)) -> Layers:
    """Class 0 in the left quarter, class 1 elsewhere."""
    logits = Colours().logits(PICTURE.rows(0, 20)[None])[0]
    return collected([(0, logits[:, :7]), (7, logits[:, 7:])], (20, 40), foreground=foreground)


def alpha() -> Image.Image:
    return drawing.opacity(layers())


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_layers_hold_ids_shares_and_confidence() -> None:
    found = layers()
    assert (found.ids[:, :10] == 0).all()
    assert (found.ids[:, 10:] == 1).all()
    assert found.shares == (0.25, 0.75, 0)
    # softmax of (255 / 16, 0, 0)
    assert found.confidence == pytest.approx(1 / (1 + 2 * np.exp(-255 / 16)), abs=1e-6)
    assert found.alpha is not None
    assert found.alpha[0, 9:11].tolist() == [255, 0]
    assert layers(None).alpha is None


def test_the_confidence_of_a_whole_is_that_of_the_nets_pixels() -> None:
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, np.log(3)]]])  # probabilities 1/2 and 3/4
    assert whole_layers(logits, (5, 7)).confidence == pytest.approx(0.625)


def test_opacity_is_soft_and_agrees_with_the_mask() -> None:
    p = torch.tensor([0.1, 0.374, 0.45, 0.499999, 0.500001, 0.55, 0.626, 0.9])
    logits = torch.stack([p.log(), (1 - p).log(), torch.full_like(p, -50)])
    given = opacity(logits, [True, False, True])
    assert given.tolist() == [0, 0, 76, 127, 128, 179, 255, 255]
    assert torch.equal(given > 127, logits.argmax(0) == 0)
    every: Tensor = opacity(logits, [True, True, True])
    assert (every == 255).all()


def test_the_mask_is_one_channel_of_class_ids() -> None:
    mask = drawing.mask(layers())
    assert (mask.mode, mask.size) == ("L", (40, 20))
    assert np.array_equal(pixels(mask), layers().ids)


def test_an_overlay_mixes_in_the_colours_of_the_classes() -> None:
    drawn = pixels(drawing.overlay(PICTURE, layers(), CLASSES))
    for column, colour, index in ((0, RED, 0), (39, GREEN, 1)):
        mixed = 0.55 * np.array(colour) + 0.45 * np.array(palette(CLASSES)[index])
        assert np.abs(drawn[:, column] - mixed).max() <= 1


def test_a_cutout_is_clear_where_the_background_was() -> None:
    drawn = drawing.cutout(PICTURE, alpha())
    assert drawn.mode == "RGBA"
    assert (pixels(drawn)[:, :10] == (*RED, 255)).all()
    assert (pixels(drawn)[:, 10:] == 0).all()


def test_strips_and_drawing_into_the_picture_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Smooth: of a noise, Pillow's two passes cut off different peaks, whichever comes first.
    noise = np.random.default_rng(0).integers(60, 200, (5, 10, 3), dtype=np.uint8)
    values = np.asarray(Image.fromarray(noise).resize((40, 20), Image.Resampling.BILINEAR))

    def drawn(spent: bool) -> list[np.ndarray]:
        def fresh() -> Picture:
            return Picture(Image.fromarray(values), Path("a"), SMALL)

        whole, blur = fresh(), Background(blur=True)
        backdrops = [blur.behind(whole, alpha()), Background().behind(whole, alpha())]
        return [
            pixels(drawing.overlay(fresh(), layers(), CLASSES, spent=spent)),
            pixels(drawing.cutout(fresh(), alpha(), spent=spent)),
            pixels(drawing.composite(fresh(), alpha(), backdrops[0], spent=spent)),
            pixels(drawing.composite(fresh(), alpha(), backdrops[1], zoom=1.5, spent=spent)),
        ]

    expected = drawn(False)
    monkeypatch.setattr("segpets.data.picture.STRIP", 120)  # three rows
    for spent in (False, True):
        for one, other in zip(expected, drawn(spent), strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1


def test_a_colour_stands_behind_the_foreground() -> None:
    backdrop = read_background("0000ff").behind(PICTURE, alpha())
    drawn = pixels(drawing.composite(PICTURE, alpha(), backdrop))
    assert (drawn[:, :10] == RED).all()
    assert (drawn[:, 10:] == (0, 0, 255)).all()


def test_a_picture_stands_behind_the_foreground_and_fills_it(tmp_path: Path) -> None:
    halves = Image.new("RGB", (60, 60), "white")
    halves.paste("blue", (0, 0, 60, 30))
    halves.save(tmp_path / "behind.png")
    backdrop = read_background(str(tmp_path / "behind.png")).behind(PICTURE, alpha())
    drawn = pixels(drawing.composite(PICTURE, alpha(), backdrop))
    assert (drawn[:, :10] == RED).all()
    assert (drawn[:8, 10:] == (0, 0, 255)).all()  # the middle of it, 60 x 30, at 2/3 of its size
    assert (drawn[12:, 10:] == 255).all()


def test_a_picture_of_any_size_has_the_background_in_its_middle() -> None:
    """Rounding makes the part of the background larger than it is by 1e-13, of some widths."""
    behind = Background(image=Image.new("RGB", (1600, 1200)))
    for width in range(100, 1200, 5):
        picture = Picture(Image.new("RGB", (width, 185)), Path("a"), SMALL)
        strip = behind.behind(picture, Image.new("L", (width, 185))).strip(100, 185)
        assert strip.size == (width, 85)


def test_a_blur_leaves_the_foreground_and_holds_nothing_of_it() -> None:
    backdrop = Background(blur=True).behind(PICTURE, alpha())
    drawn = pixels(drawing.composite(PICTURE, alpha(), backdrop))
    assert (drawn[:, :10] == RED).all()
    assert np.abs(drawn[:, 12:].astype(int) - GREEN).max() <= 2  # no red has run into it


def test_a_zoom_makes_the_foreground_bigger_about_its_centre() -> None:
    image = Image.new("RGB", (60, 60), GREEN)
    image.paste(RED, (20, 30, 30, 40))
    values = np.zeros((60, 60), dtype=np.uint8)
    values[30:40, 20:30] = 255
    picture, opaque = Picture(image, Path("a"), SMALL), Image.fromarray(values)
    backdrop = Background().behind(picture, opaque)
    drawn = pixels(drawing.composite(picture, opaque, backdrop, zoom=2))
    red = (drawn[..., 0] > 200) & (drawn[..., 1] < 60)
    rows, columns = np.nonzero(red)
    # 20 x 20 about (25, 35), but for the edge
    assert abs(rows.min() - 25) <= 1
    assert abs(rows.max() - 44) <= 1
    assert abs(columns.min() - 15) <= 1
    assert abs(columns.max() - 34) <= 1
    assert np.abs(drawn[:20].astype(int) - GREEN).max() <= 1


def test_a_zoom_shows_no_second_foreground_beneath() -> None:
    # Two spots whose centre lies between them: bigger, they no longer cover where they were.
    values = np.zeros((40, 120), dtype=np.uint8)
    values[15:25, 40:46] = values[15:25, 74:80] = 255
    image = Image.new("RGB", (120, 40), GREEN)
    image.paste(RED, (0, 0), Image.fromarray(values))
    picture, opaque = Picture(image, Path("a"), SMALL), Image.fromarray(values)
    backdrop = Background().behind(picture, opaque)
    drawn = pixels(drawing.composite(picture, opaque, backdrop, zoom=2)).astype(int)
    assert (drawn[20, 22:30, 0] > 200).all()
    assert (drawn[20, 40:80, 0] < 60).all()


def test_a_zoom_of_nothing_leaves_the_picture(tmp_path: Path) -> None:
    nothing = Image.new("L", (40, 20), 0)
    backdrop = Background().behind(PICTURE, nothing)
    drawn = pixels(drawing.composite(PICTURE, nothing, backdrop, zoom=2))
    assert np.array_equal(drawn, pixels(PICTURE.pixels))


def test_what_is_unknown_is_filled_from_around_it() -> None:
    image = torch.full((3, 33, 20), 0.25)
    weight = torch.ones(1, 33, 20)
    image[:, 5:20, 5:15], weight[:, 5:20, 5:15] = 1.0, 0.0
    torch.testing.assert_close(filled(image, weight), torch.full((3, 33, 20), 0.25))
    assert torch.isfinite(filled(image, torch.zeros(1, 33, 20))).all()


@pytest.mark.parametrize(
    ("value", "rgb"),
    [
        ("green", (0, 128, 0)),
        ("00ff00", (0, 255, 0)),
        ("#00ff00", (0, 255, 0)),
        ("0f0", (0, 255, 0)),
        (112233, (17, 34, 51)),  # what Hydra makes of 112233
        (0, (0, 0, 0)),
    ],
)
def test_colours_have_names_and_numbers(value: object, rgb: tuple[int, int, int]) -> None:
    assert read_background(value).rgb == rgb


def test_what_is_no_background_is_refused(tmp_path: Path) -> None:
    assert read_background(None) == Background()
    assert read_background("blur").blur
    with pytest.raises(UserError, match=r"background=gren is neither blur, nor a colour"):
        read_background("gren")
    with pytest.raises(UserError, match="is a number to Hydra: quote the colour"):
        read_background(1.23e47)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not an image"):
        read_background(str(tmp_path / "a.png"))
