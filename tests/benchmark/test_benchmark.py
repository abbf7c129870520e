"""The benchmark: what it writes, where, and what it refuses."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixture_types import Command
from omegaconf import OmegaConf
from PIL import Image

from segpets.benchmark import Result, benchmark
from segpets.config import compose
from segpets.errors import UserError
from segpets.records.record import read_record
from segpets.train import Result as Trained

FEW = ["seconds=0", "threads=1"]
SMALL = ["model.widths=[4,8]", "data.size=64"]


def measured(folder: Path, *words: str) -> Result:
    return benchmark(compose([*FEW, *words, f"hydra.run.dir={folder}"], task="benchmark"))


def told(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    return read


@pytest.fixture
def run(finished: Trained, tmp_path: Path) -> Path:
    """A copy of the finished run, to write into."""
    return shutil.copytree(finished.path, tmp_path / "trained")


def changed(run: Path, name: str, *, iou: float, **protocol: object) -> Path:
    """A copy of a run with another loss, result and protocol."""
    copy = shutil.copytree(run, run.with_name(name))
    summary = json.loads((copy / "summary.json").read_text())
    summary["overrides"] = [*summary["overrides"], f"loss.label_smoothing={iou}"]
    summary["test/mean_iou"] = iou
    summary["protocol"] |= protocol
    (copy / "summary.json").write_text(json.dumps(summary))
    config = OmegaConf.load(copy / "config.yaml")
    OmegaConf.update(config, "optimizer.lr", iou)
    OmegaConf.save(config, copy / "config.yaml")
    return copy


@pytest.mark.slow
def test_a_model_without_a_run_is_measured_with_random_weights(tmp_path: Path) -> None:
    words = [*SMALL, "variants=[eager,bf16,onnx]", "batch_sizes=[3,1]"]
    assert measured(tmp_path, *words).path == tmp_path
    found = told(tmp_path)
    # Two convolutions of 3x3 a level, two levels, a transposed one of 2x2, two more, one of 1x1;
    # each is followed by a norm of two numbers a channel, or by a bias.
    encoder = 9 * (3 * 4 + 4 * 4 + 4 * 8 + 8 * 8)
    decoder = 9 * (8 * 4 + 4 * 4)
    norms = 2 * (4 + 4 + 8 + 8 + 4 + 4)
    assert found["params"] == encoder + decoder + norms + (4 * 8 * 4 + 4) + (4 * 3 + 3)
    assert found["size"] == [64, 64]
    assert "random" in found["weights"]
    rows = {(row["variant"], row["batch"]): row for row in found["rows"]}
    assert list(rows) == [(v, b) for v in ("eager", "bf16", "onnx") for b in (3, 1)]
    for (variant, batch), row in rows.items():
        if variant == "onnx":
            assert row["missing"] == "only a trained run can be exported: give run=DIR"
            continue
        assert row["passes"] >= 1
        assert row["min_ms"] <= row["p50_ms"] <= row["p95_ms"]
        assert row["images_per_second"] == pytest.approx(1000 * batch / row["mean_ms"])
    page = (tmp_path / "benchmark.md").read_text()
    assert "Conv2d" in page and "Each variant is a process of its own" in page
    assert f"{found['mult_adds']:,}" in page


@pytest.mark.slow
def test_a_runs_cost_is_that_of_its_summary_and_comparing_finds_its_latency(
    run: Path, tmp_path: Path, command: Command
) -> None:
    words = [f"run={run}", "variants=[eager,channels_last]", "batch_sizes=[1]", *FEW]
    done = command(*words, module="segpets.benchmark")
    assert done.returncode == 0, done.stdout
    assert "channels_last" in done.stdout and "p95 ms" in done.stdout
    summary, found = json.loads((run / "summary.json").read_text()), told(run)
    assert found["params"] == summary["params"]
    assert found["mult_adds"] == summary["mult_adds"]
    assert found["size"] == summary["protocol"]["resolution"]
    assert found["weights"].startswith("best.ckpt, epoch ")
    # The run computes in fp32, which is loaded with channels last.
    own = next(row for row in found["rows"] if row["variant"] == "channels_last")
    assert found["latency_ms"] == own["p50_ms"]
    record = read_record(run)
    assert record.values["latency_ms"] == own["p50_ms"]
    assert record.device == found["device"]
    assert record.device is not None and record.device.endswith("1 thread, 64x64")


@pytest.mark.slow
def test_an_earlier_measurement_is_kept(run: Path, tmp_path: Path) -> None:
    (run / "benchmark.json").write_text('{"latency_ms": 1}')
    os.utime(run / "benchmark.json", (0, 0))
    words = [f"run={run}", "variants=[bf16]", "batch_sizes=[1]"]
    measured(tmp_path / "log", *words)
    kept = run / "benchmark-1970-01-01_00-00-00.json"
    assert json.loads(kept.read_text()) == {"latency_ms": 1}
    assert told(run)["latency_ms"] is None  # the run's own variant is fp32, and wasn't measured
    assert "latency_ms" not in read_record(run).values


def test_an_exported_file_is_run_at_the_next_multiple_of_the_stride(
    run: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = ["batch", 3, 34, 34]  # a batch of 33 x 33 would be refused
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["logits"], to=kinds.FLOAT)],
        "cast",
        [helper.make_tensor_value_info("image", kinds.UINT8, shape)],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (run / "export").mkdir()
    onnx.save(model, run / "export" / "model.onnx")
    measured(tmp_path / "log", f"run={run}", "size=33", "variants=[onnx,onnx_int8]")
    rows = told(run)["rows"]
    assert [row["missing"] is None for row in rows] == [True, True, False, False]
    assert rows[0]["input"] == [1, 3, 34, 34]
    assert "segpets.export run=" in rows[2]["missing"]
    assert rows[2]["missing"].endswith("format=onnx_int8")


def test_several_runs_are_ranked_by_accuracy_each_protocol_by_itself(
    run: Path, tmp_path: Path
) -> None:
    better = changed(run, "better", iou=0.9)
    worse = changed(run, "worse", iou=0.2)
    other = changed(run, "other", iou=0.5, resolution=[32, 32])
    words = f"runs=[{worse},{better},{other}]"
    measured(tmp_path / "log", words, "variants=[channels_last]", "batch_sizes=[1]")
    page = (tmp_path / "log" / "benchmark.md").read_text()
    assert page.index("0.9000") < page.index("0.2000") < page.index("0.5000")
    assert "2 protocols" in page and page.count("## Protocol") == 2
    with (tmp_path / "log" / "benchmark.csv").open() as file:
        rows = {Path(row["run"]).name: row for row in csv.DictReader(file)}
    assert {name: (row["protocol"], row["rank"]) for name, row in rows.items()} == {
        "worse": ("1", "2"),
        "better": ("1", "1"),
        "other": ("2", "1"),
    }
    assert float(rows["better"]["p50_ms"]) == told(better)["latency_ms"]
    for number in (1, 2):
        with Image.open(tmp_path / "log" / f"accuracy_latency_{number}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["variants=[egaer]"], "variants=egaer is unknown. Did you mean variants=eager"),
        (["variants=[]"], "variants names nothing"),
        (["batch_sizes=[1,0]"], "must be a list of whole numbers of at least 1"),
        (["batch_sizes=4"], "such as \\[1,16\\]"),
        (["size=16"], "size=16 must be a whole number of at least 32"),
        (["seconds=-1.0"], "seconds=-1.0 must be a number from 0 to 3600"),
        (["devices=[cpu,gpu]"], "devices=gpu can't be used"),
        (["run=a", "runs=b"], "run and runs are both given"),
        (["runs=nowhere"], "finds no folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    words: list[str], message: str, tmp_path: Path
) -> None:
    cfg = compose([*SMALL, f"hydra.run.dir={tmp_path / 'log'}"], task="benchmark")
    cfg.merge_with_dotlist(words)
    with pytest.raises(UserError, match=message):
        benchmark(cfg)
    assert not (tmp_path / "log" / "benchmark.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="devices=cuda can't be used"):
        measured(tmp_path, *SMALL, "devices=[cuda]")


def test_a_run_without_its_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match=r"holds no checkpoints/best.ckpt"):
        measured(tmp_path / "log", f"run={run}")


def test_a_folder_that_cannot_be_written_is_named_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/log can't be written .*: choose another"):
        measured(tmp_path / "file" / "log", *SMALL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_cannot_be_written_is_named_first(run: Path, tmp_path: Path) -> None:
    run.chmod(0o555)
    with pytest.raises(UserError, match=r"can't be written .*copy the run"):
        measured(tmp_path / "log", f"run={run}")


@pytest.mark.slow
def test_compiled_variants_are_measured_and_without_a_compiler_say_why(
    tmp_path: Path, command: Command
) -> None:
    words = [*FEW, *SMALL, "variants=[compile]", "batch_sizes=[1]"]
    for compiler, good in (("c++", True), ("no-such-compiler", False)):
        folder, cache = tmp_path / compiler, tmp_path / f"{compiler}-cache"
        done = command(
            *words,
            f"hydra.run.dir={folder}",
            module="segpets.benchmark",
            CXX=compiler,
            TORCHINDUCTOR_CACHE_DIR=str(cache),
        )
        assert done.returncode == 0, done.stdout
        (row,) = told(folder)["rows"]
        assert (row["missing"] is None) is good
        if not good:
            assert "compiler" in row["missing"].lower(), row["missing"]
