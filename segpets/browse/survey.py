"""Surveys all files of a data set in one pass: what they hold, and what is wrong with them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.browse.duplicates import CROPPED, SIDE, Pair, near_duplicates, thumbnail
from segpets.browse.finding import Finding
from segpets.data.decode import open_image
from segpets.data.decoded import FACTS, Pixels, read_sample
from segpets.data.notices import notices
from segpets.data.picture import DepthError
from segpets.data.pixels import in_threads
from segpets.data.reader import Reader
from segpets.data.source import STAGES, Rows, Sample, Source, Splits, merged
from segpets.data.tiff import is_tiff
from segpets.errors import FileError
from segpets.labels import IGNORE_INDEX
from segpets.reading import in_one_line, read_start

RARE: Final = 0.01
"""Masks of a single class that are rarer than this are taken for label errors."""

DUPLICATES: Final = "duplicates.txt"
"""The list for `data.exclude` of images that are nearly in a later stage, too."""

_OTHER_CLASSES = "correct the mask, or name the classes in data.classes"
_SAME_FORMAT = {"MPO": "JPEG"}  # several JPEGs in a row, as some cameras write


@dataclass(frozen=True)
class Survey:
    """The contents of the files of a data set.

    Attributes:
        samples: Each sample once, N in all.
        stages: The rows of each stage's samples.
        stages_of: The stages of each row, but val where it is test.
        sizes: Height and width in pixels, (N, 2); 0 where a file can't be read.
        counts: Pixels of each class and, last, of none, in the masks as they are stored,
            (N, C + 1).
        findings: What is wrong, the serious things first.
        pairs: Images of one photograph, the likest first; none if they weren't looked for.
        files: The image file of each row, within the data set's folder.
        folds: Whether train and val are dealt into folds, which part any two of their images.
    """

    samples: list[Sample]
    stages: dict[str, Rows]
    stages_of: dict[int, list[str]]
    sizes: NDArray[np.int64]
    counts: NDArray[np.int64]
    findings: list[Finding]
    pairs: list[Pair]
    files: list[str]
    folds: bool = False

    def title(self, row: int) -> str:
        """Returns the name of a sample, or its file where that says more."""
        return _title(self.samples[row], self.files[row])


def survey(
    splits: Splits,
    source: Source,
    *,
    classes: Sequence[str],
    reader: Reader,
    duplicates: bool = False,
    folds: bool = False,
) -> Survey:
    """Decodes every file of a data set, in threads, and judges it.

    It finds what `Splits` lists as problems or as unused, and files that can't be decoded, are
    named as another format, differ in size from their partner, or hold class ids that are none;
    masks of a single class or of none; the same image in two stages, or twice in one, as a copy
    or, if wanted, nearly.

    Args:
        splits: The samples.
        source: Reads masks.
        classes: Names, in the order of their ids.
        reader: The rules by which images become what a net sees, and are compared.
        duplicates: Whether near duplicates are looked for, too.
        folds: Whether train and val are dealt into folds.
    """
    samples, stages = merged(splits)
    sizes = np.zeros((len(samples), 2), np.int64)
    counts = np.zeros((len(samples), len(classes) + 1), np.int64)
    pixels, facts = np.zeros(len(samples), np.uint64), np.zeros(len(samples), FACTS)
    thumbnails = np.zeros((len(samples) if duplicates else 0, SIDE, SIDE), dtype=np.float16)
    findings = list(_of_the_list(splits, source.root))

    def one(row: int) -> FileError | Finding | None:
        sample = samples[row]
        try:
            misnamed = _misnamed(sample.image) or _misnamed(sample.mask) or _exif(sample.image)
            decoded = read_sample(sample, source, reader)
        except FileError as error:
            return error
        image, ids, facts[row] = decoded.image, decoded.whole_mask, decoded.facts
        of_each = np.bincount(ids.reshape(-1), minlength=IGNORE_INDEX + 1)
        held = np.flatnonzero(of_each[:IGNORE_INDEX]).tolist()
        if strange := [number for number in held if number >= len(classes)]:
            problem = f"has the class ids {strange}, but there are {len(classes)} classes"
            return Finding(True, str(sample.mask), problem, _OTHER_CLASSES, sample.name)
        sizes[row] = ids.shape
        counts[row] = [*of_each[: len(classes)], of_each[IGNORE_INDEX]]
        pixels[row] = _hashed(image)
        if duplicates:
            thumbnails[row] = _thumbnail(image, sample, source, reader)
        return misnamed

    findings += _judged(samples, list(in_threads(one, len(samples), "Examining")))
    findings += _of_single_classes(samples, counts, classes)
    stages_of, pairs = _stages_of(splits, stages), near_duplicates(thumbnails)
    files = [_within(source.root, sample.image) for sample in samples]
    findings += _of_copies(samples, files, stages_of, pixels, sizes, folds=folds)
    findings += _noticed(facts, sizes[:, 0] > 0, stages, classes, reader, str(source.root))
    findings += _of_pairs(samples, files, stages_of, pixels, pairs, folds=folds)
    findings.sort(key=lambda found: not found.serious)
    return Survey(samples, stages, stages_of, sizes, counts, findings, pairs, files, folds)


def _thumbnail(
    image: Pixels, sample: Sample, source: Source, reader: Reader
) -> NDArray[np.float16]:
    """Reads a small image anew, since it lacks details, and a padded one, since all have edges."""
    small = reader.fit != "none" and min(reader.size) < 2 * SIDE
    if small or reader.fit == "letterbox":
        viewer = replace(reader, size=(2 * SIDE, 2 * SIDE), fit="stretch")
        image = read_sample(sample, source, viewer).image
    return thumbnail(image)


def _within(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _title(sample: Sample, file: str) -> str:
    return sample.name if sample.name == Path(file).stem else file


def _noticed(
    facts: NDArray[np.void],
    read: NDArray[np.bool_],
    stages: dict[str, Rows],
    classes: Sequence[str],
    reader: Reader,
    root: str,
) -> Iterator[Finding]:
    """Tells what a training says at its start, of the samples that could be read."""
    places = np.cumsum(read) - 1
    kept = {stage: places[rows[read[rows]]] for stage, rows in stages.items()}
    for notice in notices(facts[read], kept, classes=classes, rules=reader):
        yield Finding(False, root, notice.what, notice.remedy or "nothing, if that is meant")


def _judged(
    samples: Sequence[Sample], errors: Sequence[FileError | Finding | None]
) -> Iterator[Finding]:
    """Turns errors into findings; a missing range is one finding, with the range of all."""
    deep = [error for error in errors if isinstance(error, DepthError)]
    if deep:
        low, high = min(error.low for error in deep), max(error.high for error in deep)
        whole = DepthError(deep[0].file, low, high, len(deep) - 1)
        yield Finding(True, str(whole.file), whole.problem, whole.remedy)
    for sample, error in zip(samples, errors, strict=True):
        if isinstance(error, Finding):
            yield error
        elif error is not None and not isinstance(error, DepthError):
            yield _from_error(error, sample.name)


def _from_error(error: FileError, name: str) -> Finding:
    return Finding(True, str(error.file), error.problem, error.remedy, name)


def _of_the_list(splits: Splits, root: Path) -> Iterator[Finding]:
    for problem in splits.problems:
        yield _from_error(problem.error, problem.name)
    for stage in STAGES:
        if not splits[stage]:
            remedy = "choose another data.split, or add images"
            yield Finding(True, str(root), f"gives no usable image to the {stage} split", remedy)
    for file in splits.unused:
        yield Finding(False, str(file), "is in no split", "list it, or leave it: nothing uses it")


def _misnamed(file: Path) -> Finding | None:
    """Compares the format that a file's name promises with the one that it has."""
    promised = Image.registered_extensions().get(file.suffix.lower())
    if promised is None:  # a mask may be described by a file that is no picture
        return None
    if promised == "TIFF" and _is_tiff(file):  # perhaps of more bands than usual
        return None
    with open_image(file) as image:
        stored = _SAME_FORMAT.get(image.format or "", image.format)
    if stored == promised:
        return None
    remedy = "nothing, it is read by its content; other programs may want the right suffix"
    return Finding(False, str(file), f"is {stored}, though named {file.suffix}", remedy)


def _is_tiff(file: Path) -> bool:
    try:
        return is_tiff(read_start(file, 4))
    except OSError as error:
        raise FileError(file, f"can't be read ({error.strerror})", "restore it") from error


def _exif(file: Path) -> Finding | None:
    """Finds EXIF data that can't be read, so that nobody knows how the picture should lie."""
    if file.suffix.lower() == ".npy" or _is_tiff(file):
        return None
    try:
        with open_image(file) as image:
            image.getexif()
    except FileError:
        return None  # it is found when the picture is read
    except Exception as error:  # of damaged bytes: anything
        problem = f"has EXIF data that can't be read ({in_one_line(error)[:80]})"
        remedy = "make sure that its mask lies as its pixels do, or save it anew"
        return Finding(False, str(file), problem, remedy)
    return None


def _of_single_classes(
    samples: list[Sample], counts: NDArray[np.int64], classes: Sequence[str]
) -> Iterator[Finding]:
    """Finds masks that hold one class, or none."""
    present = (counts[:, :-1] > 0).sum(axis=1)
    read = counts.sum(axis=1) > 0
    single = np.flatnonzero(read & (present < 2))
    rare = len(single) < RARE * len(samples)
    for row in single.tolist():
        sample = samples[row]
        held = np.flatnonzero(counts[row, :-1])
        what = f"only {classes[held[0]]}" if held.size else "no class at all, only ignored pixels"
        remedy = "look at the image: exclude it if something is missing in its mask"
        yield Finding(False, str(sample.mask), f"holds {what}", remedy, sample.name, rare)


def _hashed(image: NDArray[np.uint8] | NDArray[np.float32]) -> int:
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _stages_of(splits: Splits, stages: dict[str, Rows]) -> dict[int, list[str]]:
    """Lists the stages of each sample, by its row."""
    stages_of: dict[int, list[str]] = defaultdict(list)
    for stage, rows in stages.items():
        if not (stage == "val" and splits.val_is_test):
            for row in rows.tolist():
                stages_of[row].append(stage)
    return stages_of


def _of_copies(
    samples: list[Sample],
    files: list[str],
    stages_of: dict[int, list[str]],
    pixels: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    *,
    folds: bool,
) -> Iterator[Finding]:
    """Finds images with the same pixels: in two stages (leakage), or twice in one."""
    order = np.argsort(pixels, kind="stable")
    order = order[sizes[order, 0] > 0]
    ends = np.flatnonzero(np.diff(pixels[order])) + 1
    for group in np.split(order, ends):
        # The copies nearest to the training are the ones to leave out.
        ranked = sorted(group.tolist(), key=lambda row: _last(stages_of, row))
        for row in ranked[:-1]:
            kept = ranked[-1]
            other = _title(samples[kept], files[kept])
            yield _copy(samples[row], stages_of[row][-1], other, stages_of[kept][-1], folds=folds)


def _last(stages_of: dict[int, list[str]], row: int) -> int:
    return STAGES.index(stages_of[row][-1])


def _of_pairs(
    samples: list[Sample],
    files: list[str],
    stages_of: dict[int, list[str]],
    pixels: NDArray[np.uint64],
    pairs: Sequence[Pair],
    *,
    folds: bool,
) -> Iterator[Finding]:
    """Describes images of one photograph whose pixels aren't the same."""
    for pair in pairs:
        if pixels[pair.first] != pixels[pair.second]:
            yield _nearly(samples, files, stages_of, pair, folds=folds)


def are_parted(stages: Sequence[str], others: Sequence[str], *, folds: bool) -> bool:
    """Tells whether a model may be trained on one of two images and judged by the other."""
    dealt = folds and not {"test"} & {*stages, *others}
    return dealt or not set(stages) & set(others)


def _remedy(stage: str, other: str, leaves: str, *, folds: bool) -> str:
    if stage != other:
        return f"{leaves}: what is measured on {other} was learnt by"
    if folds and stage != "test":
        return f"{leaves}: with data.folds, a model may learn by one and be judged by the other"
    return f"exclude one of them, unless it should count twice in {stage}"


def _nearly(
    samples: list[Sample],
    files: list[str],
    stages_of: dict[int, list[str]],
    pair: Pair,
    *,
    folds: bool,
) -> Finding:
    """Describes two images of one photograph; what is nearest to the training may be left out."""
    row, other = sorted((pair.first, pair.second), key=lambda row: _last(stages_of, row))
    stage, other_stage = stages_of[row][-1], stages_of[other][-1]
    how = "mirrored" if pair.mirrored else "cropped" if pair.moved >= CROPPED else "the same view"
    title = _title(samples[other], files[other])
    problem = (
        f"of {stage} is nearly the same image as {title} of {other_stage}: {how}, "
        f"details correlate to {pair.alike:.3f}"
    )
    leaves = f"leave it out, as {DUPLICATES} does"
    remedy = _remedy(stage, other_stage, leaves, folds=folds)
    return Finding(False, str(samples[row].image), problem, remedy, samples[row].name, False)


def _copy(sample: Sample, stage: str, other: str, other_stage: str, *, folds: bool) -> Finding:
    leaks = are_parted([stage], [other_stage], folds=folds)
    problem = f"of {stage} is the same image as {other} of {other_stage}"
    remedy = _remedy(stage, other_stage, "exclude one of them", folds=folds)
    return Finding(leaks, str(sample.image), problem, remedy, sample.name, leave_out=leaks)
