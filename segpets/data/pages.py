"""Pages of a stack and frames of an animation: counted, chosen, or each taken for a picture."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from segpets.data.decode import MAX_PIXELS, open_image
from segpets.data.picture import Pages
from segpets.data.source import Problem, Sample, Splits, sample_name
from segpets.data.tiff import is_tiff, open_tiff
from segpets.errors import FileError
from segpets.reading import read_start


def chosen_pages(
    file: Path, count: int, page: int | None, pages: Pages | None, what: str
) -> list[int]:
    """Chooses the pages of a file.

    Raises:
        FileError: It has several, and nothing says which.
    """
    if page is not None and page < count:
        return [page]
    if count == 1:
        return [0]
    if pages == "channels":
        return list(range(count))
    raise FileError(
        file,
        f"has {count} {what}",
        "data.pages=each takes each for a picture, data.pages=channels all for the channels of "
        "one; or store the one that counts",
    )


def page_count(file: Path) -> int:
    """Counts the pages or frames of a file.

    Raises:
        FileError: It can't be read.
    """
    if file.suffix.lower() == ".npy":
        return 1
    with suppress(OSError):
        if is_tiff(read_start(file, 4)):
            with open_tiff(file, MAX_PIXELS) as tiff:
                return len(tiff.pages)
    with open_image(file) as image:
        return frame_count(image, file)


def open_page(image: Image.Image, file: Path, page: int | None) -> None:
    """Turns an opened mask to a page.

    Raises:
        FileError: It has several, and none is chosen.
    """
    every = frames_of(image, file)
    if page is None and len(every) > 1:
        raise FileError(
            file,
            f"has {len(every)} pages, but a mask has one",
            "store the one that counts; data.pages=each takes each page of an image with its own",
        )
    if wanted := every[chosen_pages(file, len(every), page, None, "pages")[0]]:
        image.seek(wanted)


def each_page(
    samples: Sequence[Sample], paths: dict[str, str], problems: list[Problem]
) -> list[Sample]:
    """Makes a sample of each page; a mask must have as many.

    Args:
        samples: Samples of whole files.
        paths: The path of each, by name; those of the pages are added.
        problems: Files that can't be used are added.
    """
    pages = []
    for sample in samples:
        try:
            counts = [page_count(file) for file in (*sample.files, sample.mask, *sample.masks)]
            if len(set(counts)) > 1:
                raise FileError(
                    sample.image,
                    f"has {counts[0]} pages, but its mask {sample.mask} {counts[-1]}",
                    "each page needs a mask of its own",
                )
        except FileError as error:
            problems.append(Problem(sample.name, error))
            continue
        if counts[0] == 1 or sample.page is not None:
            pages.append(sample)
            continue
        for page in range(counts[0]):
            name = sample_name(f"{sample.name}-page{page + 1}")
            paths[name] = paths[sample.name]
            # The pages of a stack are neighbours: a split between them would flatter a model.
            group = sample.group or sample.name
            pages.append(replace(sample, name=name, page=page, group=group))
    return pages


def pages_of(splits: Splits, paths: dict[str, str], problems: list[Problem]) -> Splits:
    """Makes a sample of each page of the files that lists name; see `each_page`."""
    train, val = (each_page(splits[stage], paths, problems) for stage in ("train", "val"))
    test = val if splits.val_is_test else each_page(splits.test, paths, problems)
    return replace(splits, train=train, val=val, test=test)


def frames_of(image: Image.Image, file: Path) -> list[int]:
    """Lists a file's pages or frames by their numbers; of a TIFF, smaller copies aren't any."""
    if image.format == "TIFF":
        with open_tiff(file, 2 * MAX_PIXELS) as tiff:
            return [page.frame for page in tiff.pages]
    return list(range(frame_count(image, file)))


def frame_count(image: Image.Image, path: Path) -> int:
    """Counts a file's frames; other views in a phone's photo don't count."""
    try:
        if image.format == "MPO" or not getattr(image, "is_animated", False):
            return 1
        return int(getattr(image, "n_frames", 1))
    except Exception as error:
        raise FileError(path, f"can't be decoded ({error})", "replace it") from error
