"""Sweeps: what is complete stays, what was stopped goes on, what failed is tried again."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Start
from made_sweep import LOSS, environment, jobs, metrics, names_of_steps, weights
from omegaconf import OmegaConf


def test_a_failing_job_stops_no_other_and_is_tried_again(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    moods = "loss.mood=raise,exit,good"
    done = command(*words, moods, **environment(own))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "failed: RuntimeError: what a bad mood" in done.stdout
    assert "2 of 3 jobs failed" in done.stdout
    assert re.search(r"error: 2 of 3 jobs failed\. The first, .*RuntimeError: what a", done.stdout)
    first = jobs(tmp_path)
    assert {k: v["status"] for k, v in first.items()} == {
        "loss.mood=raise": "failed",
        "loss.mood=exit": "failed",
        "loss.mood=good": "completed",
    }
    failed = first["loss.mood=raise"]
    assert failed["error"] == "RuntimeError: what a bad mood"
    assert "moody.py" in failed["traceback"]
    assert "moody.py" in (failed["path"] / "train.log").read_text()
    good = first["loss.mood=good"]["path"] / "checkpoints" / "last.ckpt"
    before = good.stat().st_mtime_ns

    listed = command(*words, moods, "dry_run=true", **environment(own))
    assert listed.returncode == 0
    assert "dry_run=true: nothing is run. 2 would be" in listed.stdout
    assert jobs(tmp_path) == first

    status = command(
        "status=logs/train/multiruns/s", module="segpets.sweep", **environment(own)
    ).stdout
    assert "1 of 3 done, 0 running, 2 failed, 0 left" in status
    assert "best val/mean_iou" in status

    (own / "moody.py").write_text(LOSS.replace('"raise"', '"never"').replace('"exit"', '"never"'))
    again = command(*words, moods, **environment(own))
    assert again.returncode == 0, again.stdout
    assert "2 to try again, 1 complete" in again.stdout
    second = jobs(tmp_path)
    assert {summary["status"] for summary in second.values()} == {"completed"}
    assert good.stat().st_mtime_ns == before
    kept = [path.name for path in failed["path"].parent.glob("*.failed-1")]
    assert sorted(kept) == sorted(
        f"{first[f'loss.mood={mood}']['path'].name}.failed-1" for mood in ("raise", "exit")
    )


@pytest.mark.slow
def test_fail_fast_starts_no_further_job(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    done = command(*words, "loss.mood=raise,good", "fail_fast=true", **environment(own))
    assert done.returncode == 1
    assert "doesn't start, as another job failed" in done.stdout
    assert "1 of 2 jobs failed, and 1 didn't start" in done.stdout
    assert list(jobs(tmp_path)) == ["loss.mood=raise"]
    (own / "moody.py").write_text(LOSS.replace('"raise"', '"never"'))
    again = command(*words, "loss.mood=raise,good", "fail_fast=true", **environment(own))
    assert again.returncode == 0, again.stdout


@pytest.mark.slow
def test_another_base_config_is_noticed(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [*words, "experiment=mine", "loss.mood=good"]
    assert command(*words, **environment(own)).returncode == 0
    (before,) = jobs(tmp_path).values()
    (own / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 8\n")
    refused = command(*words, **environment(own))
    assert refused.returncode == 1
    assert "1 of 1 jobs of this sweep were begun otherwise" in refused.stdout
    assert "another base config" in refused.stdout
    assert list(jobs(tmp_path).values()) == [before]
    accepted = command(*words, "sweep_mismatch=accept", **environment(own))
    assert accepted.returncode == 0
    assert list(jobs(tmp_path).values()) == [before]
    restarted = command(*words, "sweep_mismatch=restart", **environment(own))
    assert restarted.returncode == 0, restarted.stdout
    (after,) = jobs(tmp_path).values()
    assert (before["seed"], after["seed"]) == (7, 8)
    old = before["path"].with_name(f"{before['path'].name}.replaced-1")
    assert json.loads((old / "summary.json").read_text())["seed"] == 7


@pytest.mark.slow
def test_damage_and_growth(command: Command, words: list[str], own: Path, tmp_path: Path) -> None:
    words = [word for word in words if not word.startswith("trainer.max_epochs")]
    words += ["trainer.max_epochs=3", "+callback.names._target_=names.Names"]
    words += ["+callback.names.folder=${paths.output_dir}"]
    assert command(*words, "seed=1,2,3", **environment(own)).returncode == 0
    whole = jobs(tmp_path)
    undisturbed = {seed: weights(summary) for seed, summary in whole.items()}

    summary = whole["seed=1"]["path"] / "summary.json"
    summary.write_text(summary.read_text()[:100])
    checkpoints = whole["seed=2"]["path"] / "checkpoints"
    for name in ("last", "best"):  # one file where the last epoch was the best
        content = (checkpoints / f"{name}.ckpt").read_bytes()
        (checkpoints / f"{name}.ckpt").write_bytes(content[: len(content) // 2])
    note = whole["seed=2"]["path"] / "summary.json"
    note.write_text(note.read_text().replace('"completed"', '"interrupted"'))
    shutil.rmtree(whole["seed=3"]["path"])

    lost = command(*words, "seed=1,2,3,4", **environment(own))
    assert "2 new, 2 to go on" in lost.stdout
    assert lost.returncode == 1
    assert re.search(r"(best|last)\.ckpt can't be read", lost.stdout), lost.stdout
    again = command(*words, "seed=1,2,3,4", **environment(own))
    assert again.returncode == 0, again.stdout
    failed = whole["seed=2"]["path"].with_name(f"{whole['seed=2']['path'].name}.failed-1")
    assert (failed / "checkpoints" / "previous.ckpt").is_file(), "what was sound is kept"
    mended = jobs(tmp_path)
    assert set(mended) == {"seed=1", "seed=2", "seed=3", "seed=4"}
    for seed, before in whole.items():
        assert metrics(mended[seed]) == metrics(before)
        torch.testing.assert_close(weights(mended[seed]), undisturbed[seed], rtol=0, atol=0)
    assert len(names_of_steps(mended["seed=1"])) == len(names_of_steps(mended["seed=4"]))
    assert (mended["seed=1"]["path"] / "damaged-summary.json").is_file()
    for key in ("config_fingerprint", "threads", "overrides"):
        assert mended["seed=1"][key] == whole["seed=1"][key]


@pytest.mark.slow
def test_latest_means_the_same_to_all_jobs_of_a_sweep(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    alone = [word for word in words if word not in ("-m", "sweep=s")]
    latest = tmp_path / "logs" / "train" / "latest"
    assert command(*alone, **environment(own)).returncode == 0
    first = latest.resolve()
    chosen = ["init_from=latest", "teacher=latest", "teacher_weight=0.1"]
    assert command(*words, *chosen, "seed=1", **environment(own)).returncode == 0
    assert command(*alone, "seed=5", **environment(own)).returncode == 0
    assert latest.resolve() != first
    more = command(*words, *chosen, "seed=1,2", **environment(own))
    assert more.returncode == 0, more.stdout
    assert "1 new, 1 complete" in more.stdout
    assert "in this sweep, as when it began" in more.stdout
    files = sorted((tmp_path / "logs/train/multiruns/s").glob("*/config.yaml"))
    configs = [OmegaConf.load(file) for file in files]
    assert [(c.init_from, list(c.teacher)) for c in configs] == [(str(first), [str(first)])] * 2


@pytest.mark.slow
def test_two_commands_share_a_sweep(
    start: Start, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [*words, "loss.mood=slow", "seed=1,2,3"]
    both = [start(*words, **environment(own)) for _ in range(2)]
    ended = [process.wait() for process in both]
    told = "".join(process.stdout for process in ended)
    assert [process.returncode for process in ended] == [0, 0], told
    assert told.count("Everything lies in") == 3, told
    assert {summary["status"] for summary in jobs(tmp_path).values()} == {"completed"}
    assert all("resumed" not in summary for summary in jobs(tmp_path).values())


@pytest.mark.slow
def test_names_of_folders_are_short_and_safe_whatever_the_overrides(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    odd = ["a b", "c/d", "../../up", "é,ü", "x" * 500, "y=z"]
    values = ",".join(f"['{value}']" for value in odd)
    done = command(*words, f"tags={values}", "trainer.limit_train_batches=1", **environment(own))
    assert done.returncode == 0, done.stdout
    found = jobs(tmp_path)
    assert [summary["tags"] for summary in found.values()].sort() == [[v] for v in odd].sort()
    assert len(found) == len(odd)
    for summary in found.values():
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", summary["path"].name)


def test_a_combination_that_gives_no_config_is_named(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [word for word in words if not word.startswith("model.widths=")]
    words += ["model.widths=[4,8],[8,16]", "model=unet,vit", "seed=1"]
    done = command(*words, **environment(own))
    assert done.returncode == 1
    assert (
        "error: the job model.widths=[4,8] model=vit can't be composed, so none was started. "
        "model.widths is no key of the config. Did you mean model.width?"
    ) in done.stdout, done.stdout
    assert "seed=1" not in done.stdout  # all jobs have it
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_errors_of_failed_jobs_take_a_line_each(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    text = r'"\n\n  first\033[2J line " + "y" * 3000 + "\nsecond line\n" * 50'
    (own / "moody.py").write_text(LOSS.replace('"what a bad mood"', text))
    long = "x" * 500
    done = command(*words, "loss.mood=raise", f"seed=1,2,{long}", **environment(own))
    assert done.returncode == 1
    status = command("status=logs/train/multiruns/s", module="segpets.sweep").stdout
    assert command("status=s", module="segpets.sweep").stdout == status
    failed = jobs(tmp_path)
    for told in (done.stdout, status):
        assert "3 failed. The whole texts are in summary.json and train.log of the" in told
        for key in ("seed=1", "seed=2"):
            name = failed[f"loss.mood=raise {key}"]["path"].name
            reason = rf"^  {re.escape(name)}: RuntimeError: first \[2J line y{{50,}} \.\.\.$"
            assert len(re.findall(reason, told, flags=re.MULTILINE)) == 1, told
        assert re.search(r"^  \S+: UserError: seed=xxx.* \.\.\.$", told, flags=re.MULTILINE)
        assert "second line" not in told and "\033" not in told
    assert "x" * 200 not in status
    assert failed["loss.mood=raise seed=1"]["error"].count("second line") == 50
    log = failed["loss.mood=raise seed=1"]["path"] / "train.log"
    assert log.read_text().count("second line") >= 50


def test_a_typo_costs_nothing(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    done = command(*words, "optimizer=adam,adamv", **environment(own))
    assert done.returncode == 1
    assert "Did you mean optimizer=adam" in done.stdout
    assert not (tmp_path / "logs" / "train" / "multiruns" / "s" / "sweep.json").exists()
    wrong = command(*words, "sweep_mismatch=yes", **environment(own))
    assert wrong.returncode == 1
    assert "sweep_mismatch=yes is unknown: choose refuse, restart, accept" in wrong.stdout


@pytest.mark.slow
def test_a_job_whose_process_dies_takes_no_other_with_it(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [*words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = command(*words, "loss.mood=good,die,raise", **environment(own))
    assert done.returncode == 1
    assert "2 of 3 jobs failed" in done.stdout, done.stdout
    assert "takes its process down: it has failed" in done.stdout
    states = {told: summary["status"] for told, summary in jobs(tmp_path).items()}
    assert states == {
        "loss.mood=good": "completed",
        "loss.mood=die": "failed",
        "loss.mood=raise": "failed",
    }


@pytest.mark.slow
def test_a_file_in_the_place_of_a_job_is_put_aside(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    assert command(*words, "seed=1", **environment(own)).returncode == 0
    (path,) = (summary["path"] for summary in jobs(tmp_path).values())
    shutil.rmtree(path)
    path.write_text("mine")
    again = command(*words, "seed=1,2", **environment(own))
    assert again.returncode == 0, again.stdout
    assert len(jobs(tmp_path)) == 2
    assert path.with_name(f"{path.name}.replaced-1").read_text() == "mine"


@pytest.mark.slow
def test_an_extended_job_is_not_what_the_sweep_began(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    assert command(*words, "seed=1", **environment(own)).returncode == 0
    (path,) = (summary["path"] for summary in jobs(tmp_path).values())
    conf = words[:2]
    longer = command(*conf, f"resume={path}", "trainer.max_epochs=2", **environment(own))
    assert longer.returncode == 0, longer.stdout
    again = command(*words, "seed=1", **environment(own))
    assert again.returncode == 1
    assert "1 of 1 jobs of this sweep were begun otherwise" in again.stdout


LAUNCHERS = {
    "submitit_local": ["hydra.launcher.timeout_min=5"],  # real processes, as SLURM would start them
    "ray": ["+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=0.5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_keeps_the_promises(
    command: Command, words: list[str], own: Path, tmp_path: Path, launcher: str
) -> None:
    words = [*words, f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]
    done = command(*words, "loss.mood=raise,exit,good", **environment(own))
    assert done.returncode == 1, done.stdout
    assert "2 of 3 jobs failed" in done.stdout
    first = jobs(tmp_path)
    assert first["loss.mood=good"]["status"] == "completed"
    assert "moody.py" in first["loss.mood=raise"]["traceback"]
    (own / "moody.py").write_text(LOSS.replace('"raise"', '"never"').replace('"exit"', '"never"'))
    again = command(*words, "loss.mood=raise,exit,good", **environment(own))
    assert again.returncode == 0, again.stdout
    assert "2 to try again, 1 complete" in again.stdout
    assert jobs(tmp_path)["loss.mood=good"] == first["loss.mood=good"]
