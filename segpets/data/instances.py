"""What a JSON file of COCO's instances lists, in little memory: annotations by their places."""

import hashlib
import json
import mmap
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np
from PIL import Image

from segpets.coco_files import AnnotationFile
from segpets.data.source import Problem, sample_name
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX

REMEDY: Final = "mend or remove it there, or exclude the image by data.exclude"

_BOM = "\xef\xbb\xbf"  # of UTF-8, read as Latin-1
_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*")


class Names(dict[str, frozenset[str]]):
    """The names in folders; each folder is listed once, which is quicker than to ask for files."""

    def __missing__(self, folder: str) -> frozenset[str]:
        try:
            self[folder] = frozenset(os.listdir(folder))
        except OSError:
            self[folder] = frozenset()
        return self[folder]

    def have(self, folder: Path, relative: str) -> bool:
        """Whether a file is there."""
        base, name = os.path.split(os.path.join(folder, relative))
        return name in self[base]


class Listing:
    """What a JSON file lists; its annotations by their places.

    Args:
        file: The JSON and where its images may lie.
        class_ids: The class of each category id; None for those that are left out.
        names: The names in folders.
        ignore_crowds: Whether crowds are no class.

    Attributes:
        folder: Where the images lie.
        names: The images' paths, relative to their folder; these are the rows.
        heights: Of the images.
        widths: Of the images.
        errors: Why a row can't be used.
        begins: The first byte of each annotation, ordered by row.
        lengths: The number of its bytes.
        values: What its pixels become.
        ends: Row r has the annotations from `ends[r]` up to `ends[r + 1]`.
        digests: Name the content of each row's mask.

    Raises:
        UserError: It is no file of instances, or none of its images is there.
    """

    def __init__(
        self,
        file: AnnotationFile,
        class_ids: Mapping[int, int | None],
        names: Names,
        *,
        ignore_crowds: bool,
    ) -> None:
        self.file, self._class_ids, self._ignore_crowds = file, class_ids, ignore_crowds
        self.names: list[str] = []
        self.heights, self.widths = array("q"), array("q")
        self.errors: dict[int, FileError] = {}
        self._rows_by_id: dict[int | str, int] = {}
        self._known: set[str] = set()
        self._strays: dict[str, tuple[str, int]] = {}
        self._found = array("q"), array("q"), array("i"), array("B")
        with file.path.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            # Latin-1 maps bytes to characters one by one, so that places in both are the same.
            self._text = str(content, "latin-1")
        try:
            self._scan()
        except (ValueError, RecursionError) as error:
            raise FileError(
                file.path,
                f"is no JSON of instances ({error})",
                "download or export it anew, as UTF-8",
            ) from error
        rows, begins, lengths, values = (np.array(part) for part in self._found)
        order = np.argsort(rows, kind="stable")
        self.begins, self.lengths, self.values = begins[order], lengths[order], values[order]
        self.ends = np.searchsorted(rows[order], np.arange(len(self.names) + 1))
        self.digests = [self._digest(row) for row in range(len(self.names))]
        self.folder = self._folder(names)
        self._check_presence(names)
        del self._text, self._found, self._rows_by_id, self._known

    def _scan(self) -> None:
        handlers = {"images": self._image, "annotations": self._annotation}
        keys = _scan(self._text, handlers)
        for key in ("images", "annotations", "categories"):
            if keys.count(key) != 1:
                raise FileError(
                    self.file.path,
                    f"has {keys.count(key) or 'no'} lists named {key}, so that it isn't a file of "
                    "instances",
                    "give the file instances_*.json, or export it anew",
                )
        if keys.index("annotations") < keys.index("images"):
            self._strays.clear()
            _scan(self._text, {"annotations": self._annotation})

    def _digest(self, row: int) -> str:
        begin, end = self.ends[row : row + 2].tolist()
        texts = [
            self._text[first : first + length].encode("latin-1")
            for first, length in zip(
                self.begins[begin:end].tolist(), self.lengths[begin:end].tolist(), strict=True
            )
        ]
        return content_hash(self.heights[row], self.widths[row], self.values[begin:end], texts)

    def _whole(self, value: object, begin: int, end: int) -> dict[str, Any] | None:
        """An element of a list as JSON means it; None if it is no object."""
        if not isinstance(value, dict):
            return None
        if not self._text[begin:end].isascii():
            value = json.loads(self._text[begin:end].encode("latin-1"))
        return value if isinstance(value, dict) else None

    def _image(self, value: object, begin: int, end: int) -> None:
        image = self._whole(value, begin, end) or {}
        id_, name = image.get("id"), image.get("file_name")
        if not _is_id(id_) or not isinstance(name, str):
            text = " ".join(self._text[begin : begin + 200].split())
            self._stray("images", f"the image {text[: end - begin]}, without id or file_name")
            return
        row, relative = len(self.names), _relative(name)
        self.names.append(relative or f"image-{row}")
        size = [image.get(key) for key in ("height", "width")]
        height, width = map(_length, size)
        self.heights.append(height)
        self.widths.append(width)
        most = 2 * (Image.MAX_IMAGE_PIXELS or 2**30)
        if relative is None:
            self._refuse(
                row,
                f"names the image {_shown(name)}, which lies outside of its folder",
                "write its path within the folder of the images",
            )
        elif not height or not width:
            self._refuse(
                row,
                f"gives {_shown(name)} the height and width {_shown(size)}",
                "write those of the file",
            )
        elif height * width > most:
            self._refuse(
                row,
                f"claims that {_shown(name)} has {width}x{height} pixels",
                "correct it, or shrink it",
            )
        elif relative in self._known:
            self._refuse(row, f"lists {_shown(name)} twice", "remove one of the two")
        self._known.add(self.names[row])
        first = self._rows_by_id.setdefault(id_, row)
        if first != row:
            what = f"gives the id {_shown(id_)} to two images, {self.names[first]} and {name}"
            for each in (first, row):
                self._refuse(each, what, "give each its own, and correct image_id of annotations")

    def _annotation(self, value: object, begin: int, end: int) -> None:
        if not self.names:
            return  # images come later, and then annotations are read again
        annotation = self._whole(value, begin, end) or {}
        if "segments_info" in annotation:
            raise FileError(
                self.file.path,
                "is a panoptic file, whose masks are pictures",
                "give the file instances_*.json",
            )
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        row = self._rows_by_id.get(image_id) if _is_id(image_id) else None
        where = f"the annotation {_shown(annotation.get('id'))}"
        if row is None:
            self._stray(
                "annotations", f"{where} of the image {_shown(image_id)}, which it doesn't list"
            )
            return
        if type(category) is not int or category not in self._class_ids:
            self._refuse(
                row,
                f"has {where} of {self.names[row]}, whose category {_shown(category)} "
                "isn't among its categories",
                f"correct category_id, or {REMEDY}",
            )
            return
        class_id, crowd = self._class_ids[category], annotation.get("iscrowd") or 0
        if crowd not in (0, 1):
            self._refuse(row, f"has {where} with iscrowd={_shown(crowd)}", "write 0 or 1")
        elif class_id is not None:
            rows, begins, lengths, values = self._found
            rows.append(row)
            begins.append(begin)
            lengths.append(end - begin)
            values.append(IGNORE_INDEX if crowd and self._ignore_crowds else class_id)

    def _refuse(self, row: int, problem: str, remedy: str) -> None:
        self.errors.setdefault(row, FileError(self.file.path, problem, remedy))

    def _stray(self, kind: str, what: str) -> None:
        first, count = self._strays.get(kind, (what, 0))
        self._strays[kind] = first, count + 1

    def strays(self) -> Iterator[Problem]:
        """What belongs to no row, each kind once."""
        for kind, (first, count) in self._strays.items():
            more = f", and {count - 1} more such {kind}" if count > 1 else ""
            error = FileError(self.file.path, f"has {first}{more}", "mend or remove it there")
            yield Problem(sample_name(f"{self.file.path.stem}-{kind}"), error)

    def _folder(self, there: Names) -> Path:
        """The folder that most of the images lie in."""
        best, most = self.file.folders[0], 0
        for folder in dict.fromkeys(self.file.folders):
            hits = sum(there.have(folder, name) for name in self.names)
            if hits > most:
                best, most = folder, hits
            if hits == len(self.names):
                break
        if not most and self.names:
            looked = ", ".join(map(str, dict.fromkeys(self.file.folders)))
            raise UserError(
                f"{self.file.path} lists {len(self.names)} images, such as {self.names[0]}, but "
                f"none of them lies in {looked}: say where they are by data.images=FOLDER"
            )
        return best

    def _check_presence(self, there: Names) -> None:
        for row, name in enumerate(self.names):
            if row not in self.errors and not there.have(self.folder, name):
                self.errors[row] = FileError(
                    self.folder / name,
                    f"is missing, though {self.file.path} lists it",
                    "restore it, or exclude it by data.exclude",
                )


def content_hash(height: int, width: int, values: Any, texts: Sequence[bytes]) -> str:
    """Names the content of a mask: its size, its annotations and their classes."""
    digest = hashlib.blake2b(f"{height} {width}\n".encode(), digest_size=8)
    digest.update(bytes(values))
    for text in texts:
        digest.update(text)
    return digest.hexdigest()


def _scan(text: str, handlers: Mapping[str, Callable[[object, int, int], None]]) -> list[str]:
    """Passes the elements of lists in a JSON object on, one by one, with their places.

    So the memory of one is enough, where the whole would take ten times the file's size.

    Returns:
        The object's keys.

    Raises:
        ValueError: It is no JSON, or no object, or one of the lists isn't one.
    """
    keys = []
    at = _inside(text, len(_BOM) if text.startswith(_BOM) else 0, "{")
    while text[at : at + 1] != "}":
        key, at = _decode(text, at)
        keys.append(str(key))
        at = _inside(text, at, ":")
        handle = handlers.get(key) if isinstance(key, str) else None
        if handle is None:
            _, at = _decode(text, at)
        else:
            at = _inside(text, at, "[")
            while text[at : at + 1] != "]":
                value, end = _decode(text, at)
                handle(value, at, end)
                at = _next(text, end, "]")
            at += 1
        at = _next(text, at, "}")
    if _after_space(text, at + 1) != len(text):
        raise ValueError(f"something follows its end at byte {at + 1}")
    return keys


def _inside(text: str, at: int, mark: str) -> int:
    """The place of what comes after a bracket or a colon."""
    at = _after_space(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"a {mark} is missing at byte {at}")
    return _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _space.match(text, at)
    assert found is not None  # nothing is a match, too
    return found.end()


def _next(text: str, at: int, close: str) -> int:
    """The place of the next element, or of the closing bracket."""
    at = _after_space(text, at)
    return at if text[at : at + 1] == close else _inside(text, at, ",")


def _relative(name: str) -> str | None:
    """A file's path within its folder; None if it leaves it, or is no path."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return None
    path = os.path.normpath(name.replace("\\", "/"))  # as Windows writes it
    if path in (".", "..") or "\0" in path or path.startswith(("/", "../")) or path[1:3] == ":/":
        return None
    return path


def _shown(value: object) -> str:
    """What a file holds, for a message: on one line, and not all of it."""
    return repr(value)[:100]


def _is_id(value: object) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _length(value: object) -> int:
    """A height or width; 0 if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 2**31:
        return 0
    return int(value) if value == int(value) else 0
