"""The kinds of files that fuzz.py mutates: sound ones, and all that reads them."""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from PIL import Image

import segpets
from segpets.callback import MetricsCSV
from segpets.data import Coco, Folder, OxfordPets, Sample
from segpets.data.cache import PixelCache, Shape, build
from segpets.data.decoded import FACTS, Decoded
from segpets.data.download.unpack import unpack
from segpets.data.geometry import Geometry
from segpets.data.reader import Reader
from segpets.data.source import Splits, leave_out
from segpets.errors import UserError
from segpets.predict.provenance import begun, check_folder
from segpets.predict.table import Table
from segpets.records.record import read_record
from segpets.run.standing import standing
from segpets.run.study import open_study

ROOT = Path(__file__).resolve().parents[1]
RUN, TRIMAPS = "tests/run/old_run", "segpets/data/pets_mini/annotations/trimaps"
PETS = ROOT / "segpets" / "data" / "pets_mini"

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        seeds: Sound files of that kind.
        read: Gives one, at a path in an empty folder, to all that read it.
        allowed: The errors that a reader may answer with.
        tree: Reads it as plain data and writes it, where it is a tree.
    """

    seeds: Callable[[], list[bytes]]
    read: Read
    allowed: tuple[type[Exception], ...] = (UserError,)
    tree: tuple[Callable[[bytes], Any], Callable[[Any], bytes]] | None = None


def _bytes(*patterns: str) -> Callable[[], list[bytes]]:
    return lambda: [f.read_bytes() for p in patterns for f in sorted(ROOT.glob(p))[:6]]


def _every(*calls: Callable[[], Any]) -> list[bool]:
    """Makes all calls; tells which had no error of segpets, and raises one if all had."""
    errors: list[UserError | None] = []
    for call in calls:
        try:
            call()
            errors.append(None)
        except UserError as error:
            errors.append(error)
    first, *others = errors
    if first is not None and None not in others:
        raise first
    return [error is None for error in errors]


def _pictures() -> list[bytes]:
    photo = Image.open(PETS / "images" / "Abyssinian_100.jpg").resize((48, 40))
    seeds = []
    for kind, mode in (
        *(("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("GIF", "P"), ("BMP", "RGB"), ("BMP", "L")),
        *(("PPM", "L"), ("PPM", "RGB"), ("TIFF", "RGB"), ("TIFF", "I;16"), ("WEBP", "RGB")),
        *(("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "1"), ("TIFF", "1")),
    ):
        stream = io.BytesIO()
        image = photo.convert("L" if mode == "I;16" else mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 9)
        image.save(stream, kind)
        seeds.append(stream.getvalue())
    return seeds


def _deep() -> list[bytes]:
    """TIFFs of many bands, depths, pages and compressions."""
    random, seeds = np.random.default_rng(0), []
    for dtype, bands, options in (
        ("uint16", 4, {}),
        ("uint8", 7, {"planarconfig": "separate", "compression": "zlib"}),
        ("float32", 1, {"tile": (16, 16), "compression": "lzw", "predictor": True}),
        ("int16", 3, {"bigtiff": True}),
    ):
        values = (random.random((40, 48, bands)) * 200).astype(dtype)
        stored = np.moveaxis(values, -1, 0) if "planarconfig" in options else values
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream, bigtiff=bool(options.pop("bigtiff", False))) as writer:
            for _ in range(2):
                pixels = np.ascontiguousarray(stored if bands > 1 else stored[..., 0])
                writer.write(pixels, photometric="minisblack", **options)
        seeds.append(stream.getvalue())
    return seeds


def _arrays() -> list[bytes]:
    seeds = []
    for dtype, shape in (("uint8", (40, 48)), ("<f4", (4, 40, 48)), (">u2", (40, 48, 3))):
        stream = io.BytesIO()
        np.save(stream, np.ones(shape, dtype=dtype))
        seeds.append(stream.getvalue())
    return seeds


def _array(file: Path) -> list[bool]:
    named = file.with_suffix(".npy")
    file.rename(named)
    return _picture(named)


def _picture(file: Path) -> list[bool]:
    rules = (
        Reader((32, 32)),
        Reader((32, 48), fit="letterbox", channels=1, range=(0, 1000)),
        Reader((32, 32), fit="shorter", channels=4, range=(0, 1), pages="channels"),
        *(Reader((32, 32), channels=n, range=(0, 1000), pages="each") for n in (3, 4, 7)),
    )
    return _every(*(lambda r=r: _seen(file, r) for r in rules))


def _seen(file: Path, reader: Reader) -> None:
    page = None if reader.pages == "channels" else 0
    with reader.opened([file], page=page) as picture:
        picture.fitted()
    reader.part([file], (1, 2, 3, 4), page=page, size=picture.size)


def _masks() -> list[bytes]:
    ids = np.zeros((40, 48), dtype=np.uint8)
    ids[8:24, 8:32] = 1
    palette = Image.fromarray(ids, "P")
    palette.putpalette([0, 0, 0, 9, 9, 9])
    both = Image.fromarray(ids * 255)
    seeds = []
    for image, options in (
        (palette, {"format": "PNG"}),
        (palette.convert("RGB"), {"format": "PNG"}),
        (both, {"format": "PNG"}),
        (both.convert("1"), {"format": "TIFF"}),
        (both, {"format": "BMP"}),
    ):
        stream = io.BytesIO()
        image.save(stream, **options)
        seeds.append(stream.getvalue())
    return seeds + _bytes(f"{TRIMAPS}/*")()


def _mask(file: Path) -> list[bool]:
    sample = Sample("x", file, file, {"species": "cat"})
    folder = Folder(classes=["a", "b"], root=file.parent, values={0: "a", 255: "b"})
    colours = Folder(classes=["a", "b"], root=file.parent, values={"0 0 0": "a", "9 9 9": "b"})
    lines = Folder(classes=["a", "b"], root=file.parent, threshold=128)
    pets = OxfordPets(root=file.parent)
    return _every(*(lambda s=s: s.mask(sample) for s in (folder, colours, lines, pets)))


def _coco_seeds() -> list[bytes]:
    box = [[1, 1, 9, 1, 9, 9, 1, 9]]
    run = {"size": [16, 16], "counts": [0, 5, 251]}
    one = {"category_id": 1, "iscrowd": 0, "area": 64, "bbox": [1, 1, 8, 8], "segmentation": box}
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 16, "width": 16} for i in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            *(one | {"id": i, "image_id": i} for i in (1, 2, 3)),
            one
            | {
                "id": 4,
                "image_id": 1,
                "category_id": 2,
                "iscrowd": 1,
                "segmentation": run,
                "bbox": [0, 0, 1, 5],
            },
        ],
    }
    return [json.dumps(content).encode()]


def _coco(file: Path) -> None:
    for number in (1, 2, 3):
        Image.new("RGB", (16, 16)).save(file.parent / f"{number}.png")
    source = Coco(classes=["background", "cat", "dog"], annotations=file, images=file.parent)
    splits = source.splits()
    for samples in splits.stages().values():
        for sample in samples:
            source.mask(sample)


def _pairs(file: Path) -> list[bool]:
    for place in (file.parent, file.parent / "masks"):
        place.mkdir(exist_ok=True)
        for name in ("a", "b", "c"):
            Image.new("L", (8, 8)).save(place / f"{name}.png")
    here, files = file.parent, {"train": file, "val": file}
    both: dict[str, Any] = {"root": here, "images": here, "masks": here / "masks"}
    return _every(
        lambda: Folder(classes=["a", "b"], pairs=file).splits(),
        lambda: leave_out(Splits([], [], []), file),
        lambda: Folder(classes=["a", "b"], **both, split="files", files=files).splits(),
    )


def _in_a_run(name: str, *readers: Callable[[Path], Any]) -> Read:
    def read(file: Path) -> list[bool]:
        run = file.parent / "run"
        shutil.copytree(ROOT / RUN, run)
        target = run / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        file.rename(target)
        return _every(*(lambda reader=reader: reader(run) for reader in readers))

    return read


def _resume_metrics(run: Path) -> None:
    logger = MetricsCSV(path=str(run / "metrics.csv"))
    logger.go_on(4, {"train/x": 1.0})
    logger.log_metrics({"train/x": 1.0}, step=2)
    logger.save()


def _sweep(file: Path) -> None:
    file.rename(file.parent / "sweep.json")
    str(standing(file.parent))


def _journal_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(Path(folder), prune_after=1)
        study.set_user_attr("space", {"x": "y"})
        for value in (0.1, 0.2):
            trial = study.ask()
            trial.suggest_float("optimizer.lr", 0, 1)
            trial.report(value, 1)
            study.tell(trial, value)
        return [(Path(folder) / "optuna.journal").read_bytes()]


def _journal(file: Path) -> None:
    file.rename(file.parent / "optuna.journal")
    open_study(file.parent)


_SHAPE = Shape(3, 3, "uint8", (8, 8))


def _cache_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")

        def fill(put: Any) -> str:
            place, facts = Geometry(8, 8, 0, 0, (8, 8)), np.zeros((), FACTS)
            for row in range(3):
                image, mask = np.full((3, 8, 8), row, np.uint8), np.zeros((8, 8), np.uint8)
                put(row, row, Decoded(image, mask, place, facts))
            return "fingerprint"

        build(path, _SHAPE, limit=10**6, fill=fill)
        return [path.read_bytes()]


def _cache(file: Path) -> None:
    cache = PixelCache(file, _SHAPE)
    assert cache.fingerprint == "fingerprint", "another name for the data"
    for row in range(3):
        pixels = cache.read(row)
        assert pixels is None or (pixels[0] == row).all(), "a wrong pixel"


def _archives() -> list[bytes]:
    seeds = []
    for mode, kind in (("w", tarfile.PAX_FORMAT), ("w:gz", tarfile.GNU_FORMAT)):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode, format=kind) as tar:  # type: ignore[call-overload]
            for name in ("images/a.jpg", "images/" + "b" * 150, "images/._c"):
                info = tarfile.TarInfo(name)
                info.size = 300
                tar.addfile(info, io.BytesIO(bytes(300)))
        seeds.append(stream.getvalue())
    return seeds


def _unpack(file: Path) -> None:
    unpack(file, file.parent / "into", top="images", limit=100_000, max_files=100)


def _prediction_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        table = Table(Path(folder), ["a", "b"])
        for name in ("x", "y"):
            row = {"source": f"/photos/{name}.jpg", "name": name, "masks": f"masks/{name}.png"}
            table.add(row | {"confidence": 0.5, "share_a": 0.25, "share_b": 0.75})
        return [Path(folder, "predictions.csv").read_bytes()]


def _predictions(file: Path) -> None:
    file.rename(file.parent / "predictions.csv")
    table = Table(file.parent, ["a", "b"])
    table.names(), table.files()
    table.add({"source": "/photos/z.jpg", "name": "z"})
    table.tidy()


def _origin(file: Path) -> list[bool]:
    file.rename(file.parent / "prediction.json")
    return _every(lambda: begun(file.parent), lambda: check_folder(file.parent))


def _as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _as_yaml(tree: Any) -> bytes:
    return str(yaml.safe_dump(tree, allow_unicode=True)).encode("utf-8", "surrogatepass")


def _records(run: Path) -> list[bool]:
    return _every(
        lambda: segpets.load(run), lambda: read_record(run), lambda: str(standing(run.parent))
    )


_JSON = (json.loads, _as_json)
_YAML = (yaml.safe_load, _as_yaml)
_PAIRS = b"image,mask,split\na.png,b.png,train\nb.png,c.png,val\nc.png,a.png,test\n"
_SWEEP = {"metric": "val/mean_iou", "jobs": {"a": ["seed=1"]}, "begun": {"a": "x"}, "threads": 1}
_ORIGIN = {"run": "a", "epoch": 1, "weights": "x", "tile": None, "begun": ["x"]}
_COUNTS = "predictions/test/counts.csv"
KINDS = {
    "picture": Kind(_pictures, _picture),
    "deep": Kind(_deep, _picture),
    "array": Kind(_arrays, _array),
    "mask": Kind(_masks, _mask),
    "coco": Kind(_coco_seeds, _coco, tree=_JSON),
    "pairs": Kind(lambda: [_PAIRS], _pairs),
    "config": Kind(
        _bytes(f"{RUN}/config.yaml"),
        _in_a_run("config.yaml", segpets.load, read_record),
        tree=_YAML,
    ),
    "checkpoint": Kind(
        _bytes(f"{RUN}/checkpoints/best.ckpt"), _in_a_run("checkpoints/best.ckpt", segpets.load)
    ),
    "summary": Kind(_bytes(f"{RUN}/summary.json"), _in_a_run("summary.json", _records), tree=_JSON),
    "metrics": Kind(
        _bytes(f"{RUN}/metrics.csv"), _in_a_run("metrics.csv", read_record, _resume_metrics)
    ),
    "counts": Kind(_bytes(f"{RUN}/{_COUNTS}"), _in_a_run(_COUNTS, read_record)),
    "sweep": Kind(lambda: [_as_json(_SWEEP)], _sweep, tree=_JSON),
    "journal": Kind(_journal_seeds, _journal),
    "cache": Kind(_cache_seeds, _cache, allowed=(ValueError, OSError)),
    "archive": Kind(_archives, _unpack),
    "predictions": Kind(_prediction_seeds, _predictions),
    "origin": Kind(lambda: [_as_json(_ORIGIN)], _origin, tree=_JSON),
}
