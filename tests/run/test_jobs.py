"""Jobs of a sweep by their directories: what a start does with each, and what it keeps."""

import json
import threading
from pathlib import Path

import pytest

from segpets.errors import UserError
from segpets.run.directory import sweep_folder
from segpets.run.job import _end_with_the_parent
from segpets.run.jobs import Job, Plan, mend, plan, record_failure
from segpets.run.names import safe_name
from segpets.run.standing import Standing, State, failures


def job(folder: Path, name: str, status: str | None, fingerprint: str = "now") -> Job:
    """A job whose directory says how it ended; None: there is none yet."""
    path = folder / name
    if status is not None:
        path.mkdir(parents=True)
        facts = {"status": status, "task": "train", "config_fingerprint": fingerprint}
        (path / "summary.json").write_text(json.dumps(facts))
    return Job(path, (name,), "now")


def test_a_damaged_summary_is_kept_and_a_new_one_says_that_the_job_goes_on(tmp_path: Path) -> None:
    path = job(tmp_path, "a", "completed").path
    (path / "summary.json").write_text("{")
    mend(path, overrides=["seed=1"], threads=2)
    text = (path / "summary.json").read_text()
    assert text.endswith("}\n")
    facts = {"status": "interrupted", "task": "train", "overrides": ["seed=1"], "threads": 2}
    assert json.loads(text) == facts
    assert (path / "damaged-summary.json").read_text() == "{"


def test_jobs_of_another_config_are_refused_done_again_or_taken(tmp_path: Path) -> None:
    def jobs(folder: Path) -> list[Job]:
        return [
            job(folder, "new", None),
            job(folder, "done", "completed"),
            job(folder, "stopped", "interrupted"),
            job(folder, "failed", "failed", "another"),  # is done again in any case
            job(folder, "differs", "completed", "another"),
            job(folder, "differs_too", "interrupted", "another"),
        ]

    with pytest.raises(UserError, match=r"2 of 6 jobs .* differs for example by another base con"):
        plan(jobs(tmp_path / "refuse"), mismatch="refuse")
    assert not list((tmp_path / "refuse").glob("*.*-1"))

    same = [Plan.BEGIN, Plan.DONE, Plan.GO_ON, Plan.AGAIN]
    found = plan(jobs(tmp_path / "restart"), mismatch="restart")
    assert [action for _, action in found] == [*same, Plan.AGAIN, Plan.AGAIN]
    aside = {path.name for path in (tmp_path / "restart").glob("*.*-1")}
    assert aside == {"failed.failed-1", "differs.replaced-1", "differs_too.replaced-1"}
    found = plan(jobs(tmp_path / "accept"), mismatch="accept")
    assert [action for _, action in found] == [*same, Plan.DONE, Plan.GO_ON]
    assert {path.name for path in (tmp_path / "accept").glob("*.*-1")} == {"failed.failed-1"}


def test_a_job_that_fails_before_it_goes_on_keeps_what_it_had_reached(tmp_path: Path) -> None:
    path = job(tmp_path, "a", "failed").path
    facts = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(facts | {"seconds": 3600}))
    record_failure(path, ["seed=1"], OSError("no disk"), "text", goes_on=True)
    kept = json.loads((path / "summary.json").read_text())
    assert kept["status"] == "interrupted" and kept["seconds"] == 3600
    assert kept["error"] == "OSError: no disk"
    assert plan([Job(path, ("seed=1",), "now")], mismatch="refuse")[0][1] == Plan.GO_ON


def test_a_job_in_the_process_of_the_sweep_watches_no_parent() -> None:
    _end_with_the_parent()
    assert "parent" not in [thread.name for thread in threading.enumerate()]


def test_a_sweep_is_found_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "multiruns" / "first"
    folder.mkdir(parents=True)
    assert sweep_folder("first", tmp_path) == folder
    (tmp_path / "multiruns" / safe_name("my sweep")).mkdir()
    assert sweep_folder("my sweep", tmp_path) == tmp_path / "multiruns" / safe_name("my sweep")
    for name in ("", ".", "..", "a/first", "second"):
        assert sweep_folder(name, tmp_path) is None


def test_of_many_failed_jobs_the_rest_is_counted(tmp_path: Path) -> None:
    names = [f"seed-{n}" for n in range(23)]
    now = Standing(
        dict.fromkeys(names, State.FAILED),
        {name: {"error": f"of {name}"} for name in names},
        "val/mean_iou",
        {name: name for name in names},
    )
    told = failures(now, tmp_path, names)
    assert told[0].startswith("23 failed.")
    assert told[1] == "  seed-0: of seed-0" and told[20] == "  seed-19: of seed-19"
    assert told[21:] == ["  and 3 more"]
    assert failures(now, tmp_path, names[:20])[-1] == "  seed-19: of seed-19"
    assert now.reason("seed-1", longest=50) == "of seed-1"
