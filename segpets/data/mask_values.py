"""The meaning of numbers and colours in masks, as class ids."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.data.mask_pixels import Numbers, as_triple, packed, palette_of
from segpets.data.source import Mask, class_names
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX

IGNORE: Final = "ignore"

_UNKNOWN = 254
_AT_ONCE: Final = 1 << 20
_MOST_COLOURS: Final = 256  # in a mask; a file with more is a picture
_GREY_MODES = {"L", "I", "I;16", "I;16B", "I;16L"}
_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_TRIPLE = re.compile(r"(\d{1,3})[ ,]+(\d{1,3})[ ,]+(\d{1,3})")


class Meaning:
    """The meaning of the numbers in masks.

    A mask holds grey values of 1 to 32 bits, or indices of a palette. Grey may be stored as colour.
    A palette of greys only counts by its greys if these are class ids or named by `values`, and
    in a GIF, whose indices change when it is saved; else indices count. 1-bit masks are 0 and 1,
    or 0 and 255 for a threshold and for values that name 255.

    Args:
        classes: Names, in the order of their ids.
        values: Numbers, or colours such as `#ff0000` or `255 0 0`, to names of classes; `ignore`
            or None ignores. Without values and threshold, numbers are ids, and 255 is ignored.
        threshold: Values above it are the second of two classes, the rest the first.
        ignore_value: Further values to ignore, whatever else they would mean.
        named_by: Where `values` come from, as errors say it.
        remedy: What to do about an unknown value.

    Attributes:
        rules: All of the above as a text.

    Raises:
        UserError: The arguments contradict each other.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        values: Mapping[Any, str | None] | None,
        threshold: float | None,
        ignore_value: int | str | Sequence[int | str] | None,
        named_by: str = "data.values",
        remedy: str = "add them there, each with a class or ignore, or say data.ignore_value",
    ) -> None:
        self.classes = class_names(classes)
        if not 2 <= len(self.classes) <= _UNKNOWN:
            raise UserError(
                f"data.classes={self.classes} must name 2 to {_UNKNOWN} classes, the background "
                "being one: data.classes=[background,leaf] names them in the order of their ids"
            )
        self._named_by, self._remedy = named_by, remedy
        self.threshold = threshold
        if threshold is not None:
            self._check_threshold(values)
        if ignore_value is None:
            ignore_value = []
        elif isinstance(ignore_value, str) or not isinstance(ignore_value, Sequence):
            ignore_value = [ignore_value]
        ignored = dict(_number(value, "data.ignore_value") for value in ignore_value)
        named = {} if values is None else self._named(values)
        kinds = {*ignored.values(), *(colour for _, colour in named.values())}
        if len(kinds) > 1 or (True in kinds and not named):
            raise UserError(
                "data.values and data.ignore_value must both name numbers, or both colours"
            )
        self._by_values = values is not None
        self._by_colours = True in kinds
        if twice := sorted(n for n in ignored if named.get(n, (IGNORE_INDEX,))[0] != IGNORE_INDEX):
            raise UserError(
                f"data.ignore_value ignores {twice[0]}, to which data.values gives a class: leave "
                "one of them out"
            )
        meanings = {number: meaning for number, (meaning, _) in named.items()}
        if not self._by_values and threshold is None:
            meanings = {id_: id_ for id_ in range(len(self.classes))} | {255: IGNORE_INDEX}
        self._ignored = sorted(ignored)
        meanings |= dict.fromkeys(ignored, IGNORE_INDEX)
        self._numbers_known = np.array(sorted(meanings), dtype=np.int64)
        self._meanings = np.array([meanings[n] for n in sorted(meanings)], dtype=np.uint8)
        self._table = self._looked_up(np.arange(256))
        self.rules = (
            f"{len(self.classes)} classes, threshold {threshold}, "
            f"{'colours' if self._by_colours else 'numbers'} {sorted(meanings.items())}, "
            f"ignored {self._ignored}"
        )

    def ids(self, image: Image.Image, file: Path) -> Mask:
        """Maps a decoded mask to class ids, (H, W), with 255 = ignore.

        Raises:
            FileError: It holds a value that has no meaning, or might have two.
        """
        values = self._colours(image, file) if self._by_colours else self._numbers(image, file)
        ids: Mask = self._table[values] if values.dtype == np.uint8 else self._looked_up(values)
        unknown = ids == _UNKNOWN
        if unknown.any():
            raise self._unknown(np.unique(values[unknown]), np.unique(values), file)
        plain = not self._by_values and self.threshold is None and len(self.classes) == 2
        if plain and 255 not in self._ignored and (values == 255).any() and not (values == 1).any():
            first, second = self.classes
            raise FileError(
                file,
                f"has the value 255, but not 1, the id of {second}",
                f"if 255 means {second}, say 'data.values={{0: {first}, 255: {second}}}' or "
                "data.threshold=0; if it means no class, say data.ignore_value=255",
            )
        return ids

    def knows(self, values: Numbers) -> bool:
        """Tells whether all of some numbers, or colours as 0xRRGGBB, mean something."""
        return bool((self._looked_up(values) != _UNKNOWN).all())

    def _looked_up(self, values: Numbers) -> Mask:
        if self.threshold is not None:
            ids = (values > self.threshold).astype(np.uint8)
            ids[np.isin(values, self._ignored)] = IGNORE_INDEX
            return ids
        flat, ids = values.reshape(-1), np.empty(values.size, dtype=np.uint8)
        for begin in range(0, flat.size, _AT_ONCE):  # places are int64: 8 bytes a pixel
            part = flat[begin : begin + _AT_ONCE]
            at = np.searchsorted(self._numbers_known, part)
            at[at == len(self._numbers_known)] = 0
            known = self._numbers_known[at] == part
            ids[begin : begin + _AT_ONCE] = np.where(known, self._meanings[at], np.uint8(_UNKNOWN))
        return ids.reshape(values.shape)

    def _numbers(self, image: Image.Image, file: Path) -> Numbers:
        if image.mode == "1":
            named = set(self._numbers_known.tolist()) if self._by_values else {1}
            white = 255 if self.threshold is not None or (255 in named and 1 not in named) else 1
            return np.asarray(image).astype(np.uint8) * np.uint8(white)
        if image.mode in ("P", "PA"):
            return self._indices(image, file)
        if image.mode in _GREY_MODES:
            return np.asarray(image)
        if image.mode not in ("LA", "RGB", "RGBA"):
            raise FileError(
                file,
                f"is a mask with pixels of type {image.mode}",
                "store it as a greyscale PNG of 8 or 16 bits",
            )
        pixels = np.asarray(image)
        colours = pixels[..., :-1] if image.mode.endswith("A") else pixels
        if (colours != colours[..., :1]).any():
            raise self._coloured(colours, file)
        if image.mode.endswith("A"):
            _check_transparency(pixels, file)
        grey: Numbers = colours[..., 0]
        return grey

    def _indices(self, image: Image.Image, file: Path) -> Numbers:
        indices = np.asarray(image) if image.mode == "P" else np.asarray(image)[..., 0]
        palette = palette_of(image)
        is_gif = image.format == "GIF"
        if (palette != palette[:, :1]).any():
            if is_gif:
                raise self._coloured(palette[indices], file)
            return indices
        used = np.union1d(np.unique(indices), 0)
        greys = palette[:, 0]
        by_grey: Numbers = greys[indices]
        if is_gif or self.threshold is not None:
            return by_grey
        tell_apart = len(np.unique(greys[used])) == len(used)
        classed = (self._table[by_grey] < len(self.classes)).all()
        known = (self._table[indices] != _UNKNOWN).all() and (greys[0] == 0 or not tell_apart)
        return indices if known and not (tell_apart and classed) else by_grey

    def _colours(self, image: Image.Image, file: Path) -> Numbers:
        if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
            raise FileError(
                file,
                f"is a mask with pixels of type {image.mode}, but data.values names colours",
                "name its numbers there, or store it in colours of 8 bits",
            )
        if "transparency" in image.info:
            image = image.convert("RGBA")
        if image.mode in ("LA", "PA", "RGBA"):
            _check_transparency(np.asarray(image.convert("RGBA")), file)
        return packed(np.asarray(image.convert("RGB")))

    def _coloured(self, colours: NDArray[np.uint8], file: Path) -> FileError:
        rgb = np.broadcast_to(colours, (*colours.shape[:2], 3))
        values = np.unique(packed(rgb))
        if len(values) > _MOST_COLOURS:
            return _picture(file, len(values))
        first, last = map(as_triple, values[[0, -1]].tolist())
        return FileError(
            file,
            f"is a mask of {len(values)} colours, such as {last}, not of numbers",
            f"say what they mean, as in 'data.values={{{first}: {self.classes[0]}, {last}: "
            f"{self.classes[-1]}}}', or store class ids in a greyscale or palette PNG",
        )

    def _unknown(self, strange: Numbers, all_of_them: Numbers, file: Path) -> FileError:
        if self._by_colours and len(all_of_them) > _MOST_COLOURS:
            return _picture(file, len(all_of_them))
        values = [as_triple(v) if self._by_colours else str(v) for v in strange[:8].tolist()]
        shown = ", ".join(values) + (f" and {len(strange) - 8} more" if len(strange) > 8 else "")
        if self._by_values:
            return FileError(
                file,
                f"has the values [{shown}], which {self._named_by} doesn't name",
                self._remedy,
            )
        low, high = int(all_of_them[0]), int(strange[-1])
        first, last = self.classes[0], self.classes[-1]
        two = (
            f"take what is above 0 as {last} by data.threshold=0"
            if len(self.classes) == 2
            else ("name more classes in data.classes")
        )
        return FileError(
            file,
            f"has the values [{shown}], but {len(self.classes)} classes have the ids 0 to "
            f"{len(self.classes) - 1}, and 255 is ignored",
            f"say what they mean, as in 'data.values={{{low}: {first}, {high}: {last}}}', or "
            f"{two}, or ignore them by data.ignore_value",
        )

    def _check_threshold(self, values: object) -> None:
        threshold = self.threshold
        if values is not None:
            raise UserError("data.values and data.threshold exclude each other: give one of them")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise UserError(f"data.threshold={threshold} must be a number")
        if len(self.classes) != 2:
            raise UserError(
                f"data.threshold={threshold} makes two classes, but data.classes names "
                f"{len(self.classes)}: give two names, or use data.values"
            )

    def _named(self, values: Mapping[Any, str | None]) -> dict[int, tuple[int, bool]]:
        """Maps each number to its class id, and whether the number is a colour."""
        if not isinstance(values, Mapping) or not values:
            raise UserError(
                f"data.values={values} must give names of classes to values: "
                f"'data.values={{0: {self.classes[0]}, 255: {self.classes[-1]}}}'"
            )
        named: dict[int, tuple[int, bool]] = {}
        for value, name in values.items():
            number, colour = _number(value, "data.values")
            if name is not None and str(name) in self.classes:
                meaning = self.classes.index(str(name))
            elif name is None or name == IGNORE:
                meaning = IGNORE_INDEX
            else:
                raise UserError(
                    f"data.values gives {value} to {name}, which isn't one of data.classes="
                    f"[{','.join(self.classes)}]: correct one of them, or say {IGNORE}"
                )
            if named.setdefault(number, (meaning, colour)) != (meaning, colour):
                raise UserError(f"data.values gives {value} two meanings: leave one out")
        return named


def _check_transparency(pixels: NDArray[np.uint8], file: Path) -> None:
    """Refuses a mask, (H, W, C) with alpha last, that is in its transparency alone."""
    colours = pixels[..., :-1]
    if (colours == colours[:1, :1]).all() and np.ptp(pixels[..., -1]) > 0:
        raise FileError(
            file,
            "is a mask of one colour, where only the transparency differs",
            "store its transparency as a greyscale PNG",
        )


def _picture(file: Path, colours: int) -> FileError:
    return FileError(
        file,
        f"looks like a picture, not a mask ({colours:,} colours)",
        "is data.masks the right folder? If so, the mask's edges were smoothed: save it without "
        "anti-aliasing, and resize masks by nearest neighbour only",
    )


def _number(value: object, key: str) -> tuple[int, bool]:
    text = str(value).strip()
    if match := _HEX.fullmatch(text):
        return int(match[1], 16), True
    if (match := _TRIPLE.fullmatch(text)) and all(int(part) < 256 for part in match.groups()):
        red, green, blue = map(int, match.groups())
        return red << 16 | green << 8 | blue, True
    if not isinstance(value, bool) and re.fullmatch(r"-?\d+", text):
        return int(text), False
    raise UserError(
        f"{key} has {value}, which is neither a whole number nor a colour such as 255 0 0"
    )


def holds(image: Image.Image, colours: Meaning) -> str | None:
    """Finds out if a mask of a set that knows both holds `colours` or `numbers`.

    Pixels that aren't grey are colours. A palette counts by its colours where these tell all the
    used indices apart and all mean something, because a program that shrinks files may change the
    indices, but never the colours. Grey stored as colour counts by whatever has a meaning.

    Returns:
        None for a mask that is all black, or all 0.
    """
    if image.mode in ("P", "PA"):
        indices = np.asarray(image) if image.mode == "P" else np.asarray(image)[..., 0]
        used = np.flatnonzero(np.bincount(indices.reshape(-1), minlength=256))
        shown = packed(palette_of(image)[used])
        if len(np.unique(shown)) < len(used) or not colours.knows(shown):
            return "numbers"
        return "colours" if shown.any() or used.any() else None
    pixels = np.asarray(image)
    if image.mode in ("RGB", "RGBA"):
        rgb = pixels[..., :3]
        if (rgb != rgb[..., :1]).any() or (rgb.any() and colours.knows(packed(rgb))):
            return "colours"
        pixels = rgb
    return "numbers" if pixels.any() else None
