"""The images and annotations of a JSON file of COCO's instances, checked."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

from PIL import Image

from segpets.data.coco.files import AnnotationFile, read_json
from segpets.data.source import Problem, sample_name
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX

REMEDY: Final = "mend or remove it there, or exclude the image by data.exclude"


@dataclass
class ListedImage:
    """An image that a file lists.

    Attributes:
        name: Its path within the folder of images.
        height: In pixels; 0 if the file doesn't say.
        width: In pixels.
        annotations: Its annotations, and the class ids that their pixels get.
        error: Why it can't be used.
    """

    name: str
    height: int
    width: int
    annotations: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    error: FileError | None = None

    def digest(self) -> str:
        """Names the content of the mask: size, annotations and their classes."""
        content = json.dumps([self.height, self.width, self.annotations], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


class Instances:
    """The images and annotations of a file.

    Args:
        file: The JSON and where its images may lie.
        class_ids: The class of each category id; None for those that are left out.
        ignore_crowds: Whether crowds are no class.

    Attributes:
        file: The file.
        folder: Where the images lie.
        entries: The images.

    Raises:
        UserError: It isn't a file of instances, or none of its images exists.
    """

    def __init__(
        self,
        file: AnnotationFile,
        class_ids: Mapping[int, int | None],
        *,
        ignore_crowds: bool,
    ) -> None:
        self.file, self._class_ids, self._ignore_crowds = file, class_ids, ignore_crowds
        self.entries: list[ListedImage] = []
        self._by_id: dict[int | str, ListedImage] = {}
        self._strays: dict[str, list[str]] = {"images": [], "annotations": []}
        content = read_json(file.path)
        for key in ("images", "annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise FileError(
                    file.path,
                    f"has no lists named {key}, so that it isn't a file of instances",
                    "give the file instances_*.json, or export it anew",
                )
        names: set[str] = set()
        for image in content["images"]:
            self._add_image(image if isinstance(image, dict) else {}, names)
        for annotation in content["annotations"]:
            self._add_annotation(annotation if isinstance(annotation, dict) else {})
        self.folder = self._find_folder()

    def strays(self) -> Iterator[Problem]:
        """Yields what belongs to no image, each kind once."""
        for kind, found in self._strays.items():
            if found:
                more = f", and {len(found) - 1} more such {kind}" if found[1:] else ""
                error = FileError(
                    self.file.path, f"has {found[0]}{more}", "mend or remove it there"
                )
                yield Problem(sample_name(f"{self.file.path.stem}-{kind}"), error)

    def _add_image(self, image: dict[str, Any], names: set[str]) -> None:
        id_, name = image.get("id"), image.get("file_name")
        if not _is_id(id_) or not isinstance(name, str):
            text = json.dumps(image)[:200]
            self._strays["images"].append(f"the image {text}, without id or file_name")
            return
        relative = _relative(name)
        size = [image.get(key) for key in ("height", "width")]
        height, width = map(_length, size)
        entry = ListedImage(relative or f"image-{len(self.entries)}", height, width)
        self.entries.append(entry)
        if relative is None:
            self._refuse(
                entry,
                f"names the image {_shown(name)}, which lies outside of its folder",
                "write its path within the folder of the images",
            )
        elif not entry.height or not entry.width:
            self._refuse(
                entry,
                f"gives {_shown(name)} the height and width {_shown(size)}",
                "write those of the file",
            )
        elif entry.height * entry.width > 2 * (Image.MAX_IMAGE_PIXELS or 2**30):
            self._refuse(
                entry,
                f"claims that {_shown(name)} has {entry.width}x{entry.height} pixels",
                "correct it, or shrink it",
            )
        elif relative in names:
            self._refuse(entry, f"lists {_shown(name)} twice", "remove one of the two")
        names.add(entry.name)
        first = self._by_id.setdefault(id_, entry)
        if first is not entry:
            what = f"gives the id {_shown(id_)} to two images, {first.name} and {name}"
            for each in (first, entry):
                self._refuse(each, what, "give each its own, and correct image_id of annotations")

    def _add_annotation(self, annotation: dict[str, Any]) -> None:
        if "segments_info" in annotation:
            raise FileError(
                self.file.path,
                "is a panoptic file, whose masks are pictures",
                "give the file instances_*.json",
            )
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        entry = self._by_id.get(image_id) if _is_id(image_id) else None
        where = f"the annotation {_shown(annotation.get('id'))}"
        if entry is None:
            self._strays["annotations"].append(
                f"{where} of the image {_shown(image_id)}, which it doesn't list"
            )
            return
        if type(category) is not int or category not in self._class_ids:
            self._refuse(
                entry,
                f"has {where} of {entry.name}, whose category {_shown(category)} "
                "isn't among its categories",
                f"correct category_id, or {REMEDY}",
            )
            return
        class_id, crowd = self._class_ids[category], annotation.get("iscrowd") or 0
        if crowd not in (0, 1):
            self._refuse(entry, f"has {where} with iscrowd={_shown(crowd)}", "write 0 or 1")
        elif class_id is not None:
            value = IGNORE_INDEX if crowd and self._ignore_crowds else class_id
            entry.annotations.append((annotation, value))

    def _refuse(self, entry: ListedImage, problem: str, remedy: str) -> None:
        entry.error = entry.error or FileError(self.file.path, problem, remedy)

    def _find_folder(self) -> Path:
        """Finds the folder that most of the images lie in; notes which of them are missing."""
        folders = list(dict.fromkeys(self.file.folders))
        there = {
            folder: {e.name for e in self.entries if os.path.isfile(folder / e.name)}
            for folder in folders
        }
        best = max(folders, key=lambda folder: len(there[folder]))
        if not there[best] and self.entries:
            raise UserError(
                f"{self.file.path} lists {len(self.entries)} images, such as "
                f"{self.entries[0].name}, but none of them lies in {', '.join(map(str, folders))}: "
                "say where they are by data.images=FOLDER"
            )
        for entry in self.entries:
            if entry.name not in there[best]:
                entry.error = entry.error or FileError(
                    best / entry.name,
                    f"is missing, though {self.file.path} lists it",
                    "restore it, or exclude it by data.exclude",
                )
        return best


def _relative(name: str) -> str | None:
    """Normalises a file's path within its folder; None if it leaves it, or isn't a path."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return None
    path = os.path.normpath(name.replace("\\", "/"))  # as Windows writes it
    if path in (".", "..") or "\0" in path or path.startswith(("/", "../")) or path[1:3] == ":/":
        return None
    return path


def _shown(value: object) -> str:
    """Shortens a file's content to one line for a message."""
    return repr(value)[:100]


def _is_id(value: object) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _length(value: object) -> int:
    """Reads a height or width; 0 if it isn't one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 2**31:
        return 0
    return int(value) if value == int(value) else 0


def stems(listings: Sequence[Instances]) -> list[str]:
    """Lists the names of all images without their suffixes."""
    return [os.path.splitext(e.name)[0] for listing in listings for e in listing.entries]
