"""The files of a COCO data set, and the names of its classes.

Light, since a config needs the names of classes before anything else is loaded.
"""

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segpets import reading
from segpets.errors import FileError, UserError, did_you_mean

BACKGROUND: Final = "background"
MOST_CLASSES: Final = 254
_LARGEST: Final = 2_000_000_000  # bytes; instances_train2017.json has a quarter of it
ALL: Final = "all"
"""In place of a stage: the file's images must be split."""

_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_FILE = re.compile(r"(instances_)?(train|valid|validation|val|test)(\d{4})?\.json")
_WANTED = (
    "data.root=FOLDER with annotations/instances_train2017.json and train2017/, or with "
    "train/_annotations.coco.json, or data.annotations=FILE data.images=FOLDER"
)


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A file of instances.

    Attributes:
        stage: `train`, `val`, `test`, or `all`.
        path: The JSON.
        folders: Where its images may lie, the likeliest first.
    """

    stage: str
    path: Path
    folders: tuple[Path, ...]


def find_files(
    root: str | Path | None,
    annotations: str | Path | None,
    files: Mapping[str, str | Path] | None,
    images: str | Path | None = None,
) -> list[AnnotationFile]:
    """Finds the JSON files of a data set, in the order of the stages.

    Args:
        root: The folder of an official or Roboflow-like layout.
        annotations: One JSON in place of a layout.
        files: JSONs by stage in place of a layout.
        images: The folder of all images, in place of those of the layout.

    Raises:
        UserError: There are none, or the choice is ambiguous.
    """
    if annotations is not None and files is not None:
        raise UserError("data.annotations and data.files exclude each other: give one of them")
    base = Path(root).expanduser() if root is not None else None
    own = (_given(images, base, "data.images"),) if images is not None else ()
    if annotations is not None:
        named = {ALL: _given(annotations, base, "data.annotations")}
    elif files is not None:
        if not isinstance(files, Mapping) or not {"train"} <= set(files) <= set(_WORDS.values()):
            raise UserError(
                f"data.files={files} must name a JSON for train, and may name one for val and for "
                "test: 'data.files={train: FILE, val: FILE}'"
            )
        stages = [stage for stage in ("train", "val", "test") if files.get(stage) is not None]
        named = {stage: _given(files[stage], base, f"data.files.{stage}") for stage in stages}
    elif base is None:
        raise UserError(f"data=coco needs to know where the data lies: give {_WANTED}")
    elif not base.is_dir():
        raise UserError(f"data.root={base} is not a folder: give {_WANTED}")
    else:
        layout = _beside_images(base) or _official(base) or _single(base)
        if not layout:
            raise UserError(
                f"data.root={base} {_inventory(base)}, but no instances: give {_WANTED}"
            )
        return [AnnotationFile(f.stage, f.path, own or f.folders) for f in layout]
    return [
        AnnotationFile(stage, path, own or _around(path, base)) for stage, path in named.items()
    ]


def _given(path: str | Path, base: Path | None, key: str) -> Path:
    here = Path(path).expanduser()
    place = here if here.exists() or base is None else base / here
    if not place.exists():
        raise UserError(f"{key}={path} isn't there: correct the path")
    return place


def _around(path: Path, base: Path | None) -> tuple[Path, ...]:
    folder = path.parent
    near = [folder / "images", folder, folder.parent / "images", folder.parent]
    return tuple([*near, *([base / "images", base] if base else [])])


def _beside_images(root: Path) -> list[AnnotationFile]:
    """Finds train/_annotations.coco.json beside its images, as Roboflow exports them."""
    by_stage: dict[str, AnnotationFile] = {}
    for word, stage in _WORDS.items():
        folder = root / word
        file = _only_json(folder)
        if file is None:
            continue
        if stage in by_stage:
            raise _ambiguous(by_stage[stage].path, file)
        by_stage[stage] = AnnotationFile(stage, file, (folder, folder / "images"))
    return list(by_stage.values())


def _official(root: Path) -> list[AnnotationFile]:
    """Finds annotations/instances_train2017.json and train2017/, of any year."""
    for folder in (root / "annotations", root):
        matches = [m for name in _jsons(folder) if (m := _FILE.fullmatch(name))]
        if any(match[1] for match in matches):
            matches = [match for match in matches if match[1]]
        by_stage: dict[str, AnnotationFile] = {}
        for match in matches:
            word, year = match[2], match[3] or ""
            stage, file = _WORDS[word], folder / match[0]
            if stage in by_stage:
                raise _ambiguous(by_stage[stage].path, file)
            names = dict.fromkeys((f"{word}{year}", f"images/{word}{year}", word, f"images/{word}"))
            folders = [*(root / name for name in names), root / "images", root]
            by_stage[stage] = AnnotationFile(stage, file, tuple(folders))
        if by_stage:
            return [by_stage[stage] for stage in ("train", "val", "test") if stage in by_stage]
    return []


def _single(root: Path) -> list[AnnotationFile]:
    for folder in (root, root / "annotations"):
        file = _only_json(folder)
        if file is not None:
            word = file.stem.removeprefix("instances_")
            near = (root / "images" / word, root / "images", root / word, root, folder)
            return [AnnotationFile(ALL, file, near)]
    return []


def _jsons(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(n for n in os.listdir(folder) if n.endswith(".json") and not n.startswith("."))


def _only_json(folder: Path) -> Path | None:
    names = _jsons(folder)
    if "_annotations.coco.json" in names:
        return folder / "_annotations.coco.json"
    return folder / names[0] if len(names) == 1 else None


def _ambiguous(first: Path, second: Path) -> UserError:
    return UserError(
        f"{first} and {second} are both files of the same split: name one by data.annotations=FILE "
        "data.images=FOLDER, or several by 'data.files={train: FILE, val: FILE}'"
    )


def _inventory(folder: Path) -> str:
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())
    names = [name for name in names if name[0] != "."]
    return f"holds {', '.join(names[:8]) or 'nothing'}{' ...' if names[8:] else ''}"


def categories(file: Path) -> list[tuple[int, str]]:
    """Reads ids and names of a file's categories, in the order of their ids.

    Names lose what a config or a table couldn't hold: control characters, `$`, and spaces at their
    ends. A category that is but the group of all others, as Roboflow has it, is left out.

    Raises:
        FileError: It can't be read, or isn't a file of instances.
    """
    entries = read_json(file).get("categories")
    if not isinstance(entries, list) or not entries:
        raise FileError(
            file,
            "names no categories, so that it isn't a file of instances (captions have none)",
            "give the file instances_*.json, or export polygons or masks in COCO's format",
        )
    return sorted(_checked(entries, file))


def read_json(file: Path) -> dict[str, Any]:
    """Reads a file, but only once as long as it doesn't change.

    Raises:
        FileError: It can't be read, or isn't JSON.
    """
    try:
        stat = file.stat()
        return _read(file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise FileError(
            file, f"can't be read ({error.strerror or error})", "give another file, or mend it"
        ) from error


@functools.lru_cache(maxsize=8)
def _read(file: Path, _changed: int, _size: int) -> dict[str, Any]:
    try:
        return reading.read_json(file, _LARGEST)
    except ValueError as error:
        raise FileError(
            file, f"is no JSON of instances ({error})", "download or export it anew, as UTF-8"
        ) from error


def _checked(found: Sequence[Any], file: Path) -> Iterator[tuple[int, str]]:
    names: dict[int, str] = {}
    for category in found:
        id_ = category.get("id") if isinstance(category, dict) else None
        name = category.get("name") if isinstance(category, dict) else None
        clean = clean_name(name) if isinstance(name, str) else ""
        if isinstance(id_, bool) or not isinstance(id_, int) or not clean:
            raise FileError(
                file,
                f"has the category {json.dumps(category)[:200]}",
                "give it a whole number as id and a text as name",
            )
        if names.setdefault(id_, clean) != clean:
            raise FileError(
                file,
                f"gives the id {id_} to two categories, {names[id_]} and {clean}",
                "give each its own",
            )
    # Roboflow lists the project first, as the group of all classes; no annotation is of it.
    for group in found:
        others = [category for category in found if category is not group]
        whose = {str(category.get("supercategory")) for category in others}
        if group.get("supercategory") == "none" and whose == {str(group["name"])}:
            del names[group["id"]]
            break
    yield from names.items()


def clean_name(name: str) -> str:
    """Turns a category's name into the name of a class."""
    clean = " ".join("".join(c for c in name if c.isprintable() or c.isspace()).split())
    clean = clean.replace("$", "").strip()
    if clean == "???":  # which says in a config that something is missing
        return ""
    return BACKGROUND if clean.lower() == BACKGROUND else clean


def class_names(
    root: str | Path | None,
    annotations: str | Path | None,
    files: Mapping[str, str | Path] | None,
    chosen: Sequence[str] | None,
) -> list[str]:
    """Reads the names of the classes in the order of their ids.

    Background is the first. Categories of the same name are one class, and a category named
    background is no other than the first.

    Args:
        root: As in `find_files`.
        annotations: As in `find_files`.
        files: As in `find_files`.
        chosen: Names of categories, in the order of their classes; None takes all, in the order of
            their ids in the first file.

    Raises:
        UserError: They can't be read, or `chosen` isn't a list of names.
    """
    if chosen is not None:
        wanted = "data.categories=[cat,dog] names those that become classes; null takes all"
        if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen:
            raise UserError(f"data.categories={chosen} must be a list: {wanted}")
        names = [clean_name(str(name)) for name in chosen]
        if len(set(names)) < len(names) or not all(names):
            raise UserError(f"data.categories={names} has a name twice, or an empty one: {wanted}")
    else:
        first = find_files(root, annotations, files)[0]
        names = [name for _, name in categories(first.path)]
    classes = list(dict.fromkeys([BACKGROUND, *names]))
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"{len(classes)} classes are more than the {MOST_CLASSES} that masks of 8 bits can "
            "hold: choose some by data.categories=[cat,dog]"
        )
    return classes


def unknown_category(name: str, known: Sequence[str], file: Path) -> UserError:
    """Reports a chosen category that a file doesn't have."""
    hint = did_you_mean(name, known)
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if known[20:] else "")
    return UserError(
        f"data.categories names {name}, but {file} has no such category.{hint} {shown}"
    )
