"""The images and annotations of a JSON file of COCO's instances, checked."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard
from urllib.parse import unquote, urlsplit

from PIL import Image

from segpets.data.coco.files import AnnotationFile, read_json
from segpets.data.source import Problem, sample_name
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX

log = logging.getLogger(__name__)

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
        foreign: Its path on another machine, or its address, where it can't be a path within the
            folder; then `name` is what comes last in it.
    """

    name: str
    height: int
    width: int
    annotations: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    error: FileError | None = None
    foreign: str = ""

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
        relative = None if "://" in name else _relative(name)
        size = [image.get(key) for key in ("height", "width")]
        height, width = map(_length, size)
        base = None if relative else _relative(_base(name))
        entry = ListedImage(relative or base or f"image-{len(self.entries)}", height, width)
        entry.foreign = name if base else ""
        self.entries.append(entry)
        if relative is None and base is None:
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
        if any(e.foreign or e.name not in there[best] for e in self.entries):
            best = self._match_by_base_name(best, folders, there)
        if not there[best] and self.entries:
            first = next((e for e in self.entries if e.error is None), self.entries[0])
            raise UserError(
                f"{self.file.path} lists {len(self.entries)} images, such as "
                f"{_shown(first.foreign) if first.foreign else first.name}, but none of them lies "
                f"in {', '.join(map(str, folders))}: say where they are by data.images=FOLDER"
            )
        for entry in self.entries:
            if entry.name not in there[best]:
                if entry.foreign:
                    self._refuse(
                        entry,
                        f"names the image {_shown(entry.foreign)}, which lies outside of its "
                        f"folder, and no file in {best} has that name",
                        "write its path within the folder of the images",
                    )
                entry.error = entry.error or FileError(
                    best / entry.name,
                    f"is missing, though {self.file.path} lists it",
                    "restore it, or exclude it by data.exclude",
                )
        return best

    def _match_by_base_name(
        self, best: Path, folders: Sequence[Path], there: dict[Path, set[str]]
    ) -> Path:
        """Matches images whose paths aren't there by the last part of these, where it is unique."""
        lost = [
            e for e in self.entries if e.error is None and (e.foreign or e.name not in there[best])
        ]
        wanted = Counter(e.name.rpartition("/")[2] for e in lost)
        homes = [best] if there[best] else [folder for folder in folders if folder.is_dir()]
        for home in homes:
            files: dict[str, list[str]] = {}
            for folder, _, names in os.walk(home):
                for name in names:
                    if name in wanted:
                        path = os.path.relpath(os.path.join(folder, name), home)
                        files.setdefault(name, []).append(path.replace(os.sep, "/"))
            if files:
                break
        else:
            return best
        ids = {id(entry) for entry in lost}
        own = {entry.name for entry in self.entries if id(entry) not in ids}
        matched = 0
        for entry in lost:
            base = entry.name.rpartition("/")[2]
            places = [place for place in files.get(base, []) if place not in own]
            label = _shown(entry.foreign or entry.name)
            if wanted[base] > 1 and places:
                self._refuse(
                    entry,
                    f"names {label}, and {wanted[base] - 1} more that end in {base}",
                    "write their paths within the folder of the images",
                )
            elif len(places) > 1:
                self._refuse(
                    entry,
                    f"names {label}, but {len(places)} files are called {base}, as {places[0]}",
                    "write its path within the folder of the images",
                )
            elif places:
                entry.name, matched = places[0], matched + 1
                there[home].add(places[0])
        if matched:
            log.info(
                "%d of %d images of %s were found by the last part of their names, in %s",
                matched,
                len(self.entries),
                self.file.path,
                home,
            )
        return home


def _base(name: str) -> str:
    """Takes the last part of a path on any machine, or of an address."""
    path = unquote(urlsplit(name).path) if "://" in name else name
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


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
