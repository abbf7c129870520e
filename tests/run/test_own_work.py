"""Nothing that the user made is overwritten, and what can't be done is said before it is begun."""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixture_types import Command, Train
from PIL import Image

from segpets.config import compose
from segpets.errors import UserError
from segpets.export import export
from segpets.run.files import point
from segpets.run.lock import HeldError, check_new, held, holder_of
from segpets.train import Result, train

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("segpets.train", ["debug=smoke", "model.widths=[4,8]"]),
        ("segpets.evaluate", ["run={run}"]),
        ("segpets.compare", ["runs={run}"]),
        ("segpets.browse", ["data=pets_mini"]),
    ],
)
@pytest.mark.parametrize("name", ["config.yaml", "notes/mine.txt", "train.log"])
def test_a_folder_with_other_files_is_refused_before_anything_is_written(
    command: Command, finished: Result, tmp_path: Path, module: str, words: list[str], name: str
) -> None:
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    given = [word.format(run=finished.path) for word in words]
    done = command(*given, f"hydra.run.dir={tmp_path / 'mine'}", module=module)
    assert done.returncode == 1
    assert f"isn't empty, it holds {name.partition('/')[0]}" in done.stdout, done.stdout
    assert contents(tmp_path / "mine") == {name: b"mine"}


def test_hand_drawn_masks_are_never_taken_for_predictions_nor_replaced(
    command: Command, finished: Result, tmp_path: Path
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "out" / "masks"
    for folder in (photos, masks):
        folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (40, 40)).save(photos / f"{name}.png")
    Image.new("L", (40, 40), 7).save(masks / "b.png")
    before = contents(masks)
    words = [f"run={finished.path}", "source=photos", "output=out", "outputs=[masks]"]
    for more in ([], ["overwrite=true"]):
        done = command(*words, *more, module="segpets.predict")
        assert done.returncode == 1
        assert "out holds masks/b.png, which no prediction left there" in done.stdout
        assert contents(tmp_path / "out") == {f"masks/{k}": v for k, v in before.items()}
    words[2] = "output=other"
    assert command(*words, module="segpets.predict").returncode == 0
    Image.new("L", (40, 40), 7).save(tmp_path / "other" / "masks" / "c.png")
    Image.new("RGB", (40, 40)).save(photos / "c.png")
    done = command(*words, "overwrite=true", module="segpets.predict")
    assert done.returncode == 1
    assert "masks/c.png is there, and no prediction wrote it" in done.stdout
    with Image.open(tmp_path / "other" / "masks" / "c.png") as kept:
        assert kept.getpixel((0, 0)) == 7


def test_a_prediction_that_was_killed_goes_on_over_its_own_files(
    command: Command, finished: Result, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "a.png")
    words = [f"run={finished.path}", "source=photos", "output=out", "outputs=[masks]"]
    assert command(*words, module="segpets.predict").returncode == 0
    record = tmp_path / "out" / "prediction.json"
    origin = json.loads(record.read_text())
    assert "begun" not in origin
    record.write_text(json.dumps(origin | {"begun": ["a"]}))  # as a kill leaves it
    (tmp_path / "out" / "predictions.csv").unlink()
    done = command(*words, module="segpets.predict")
    assert done.returncode == 0, done.stdout


def test_what_a_killed_command_left_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"isn't empty, it holds config\.yaml"):
        check_new(tmp_path, "train")
    (tmp_path / ".lock").write_text("process 1 on elsewhere\n")
    check_new(tmp_path, "train")
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="already holds a run"):
        check_new(tmp_path, "train")


def test_a_run_that_failed_before_it_saved_may_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"status": "failed"}')
    with pytest.raises(UserError, match="failed before its first checkpoint: delete the folder"):
        check_new(tmp_path, "train")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(UserError, match="or continue it with resume=RUN"):
        check_new(tmp_path, "train")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_command_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path):
        assert holder_of(tmp_path) is None  # not another process
    assert "has no locks" in caplog.text
    (tmp_path / ".lock").write_text(f"process {os.getppid()} on {os.uname().nodename}\n")
    with pytest.raises(HeldError, match="is being written by process"), held(tmp_path):
        raise AssertionError("entered")
    (tmp_path / ".lock").write_text(f"process {2**22 + 1} on {os.uname().nodename}\n")
    with held(tmp_path):  # that process is gone
        pass


def test_without_links_latest_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    point(tmp_path / "latest", tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_files_have_the_modes_that_the_user_s_mask_allows(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; os.umask(0o077)\n"
        "from segpets.run.files import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), 'x')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=True, cwd=ROOT)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_a_resume_removes_what_a_kill_left_half_written(train_tiny: Train) -> None:
    path = train_tiny("trainer.max_epochs=1", "logger=[csv]").path
    for name in (".summary.json.abcdefgh", ".metrics.csv.12345678"):
        (path / name).write_text("{")
    own = path / ".summary.json.my-notes-of-it"
    own.write_text("mine")
    train(compose([f"resume={path}", "trainer.max_epochs=2"]))
    assert [file.name for file in path.glob(".*.*")] == [own.name]


def test_an_export_removes_what_one_left_that_was_killed_long_ago(
    finished: Result, tmp_path: Path
) -> None:
    for name, age in ((".making-old", 2 * 86400), (".making-now", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, times=(time.time() - age, time.time() - age))
    words = [f"run={finished.path}", "format=torch_export", f"output={tmp_path}", "images=2"]
    export(compose(words, task="export"))
    assert sorted(file.name for file in tmp_path.glob(".making-*")) == [".making-now"]
