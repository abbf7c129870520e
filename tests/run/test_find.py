"""Which runs are found, and what is passed over."""

from pathlib import Path

import pytest

from segpets.errors import UserError
from segpets.run.find import find_runs


def run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    return folder


def names(*runs: str | Path, log_dir: Path = Path("nowhere")) -> list[str]:
    return [path.name for path in find_runs([str(word) for word in runs], log_dir=log_dir)[0]]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "multiruns" / "first"
    for job in ("b", "a", "c.failed-1", "b.replaced-12", ".hidden"):
        run(folder / job)
    (folder / "dry").mkdir()
    (folder / "multirun.yaml").write_text("")
    (folder / "lost" / ".hydra").mkdir(parents=True)
    return folder


def test_a_sweep_gives_its_jobs_and_passes_over_what_is_none(sweep: Path) -> None:
    assert names(sweep) == ["a", "b"]
    lost = find_runs([str(sweep)], log_dir=sweep)[1]
    assert [(one.path.name, one.status) for one in lost] == [("lost", "unreadable")]
    assert "holds no summary.json" in lost[0].reason


def test_a_run_a_list_and_patterns_each_run_once(sweep: Path, tmp_path: Path) -> None:
    other = run(tmp_path / "multiruns" / "second" / "d")
    assert names(sweep / "a") == ["a"]
    assert names(sweep / "c.failed-1") == ["c.failed-1"], "it was asked for by its name"
    assert names(sweep / "b", other, sweep) == ["b", "d", "a"]
    assert names(f"{tmp_path}/multiruns/*") == ["a", "b", "d"]
    assert names(f"{sweep}/*") == ["a", "b"]
    assert names(f"{tmp_path}/**/d") == ["d"]


def test_latest_is_looked_for_in_its_folder(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs=latest: there is no .*latest: train first"):
        names("latest", log_dir=tmp_path)
    (tmp_path / "latest").symlink_to(sweep / "b")
    assert names("latest", log_dir=tmp_path) == ["b"]


def test_a_sweep_is_found_by_its_name(sweep: Path, tmp_path: Path) -> None:
    assert names("first", log_dir=tmp_path) == names(sweep)
    for word in ("second", ".", "../first"):
        with pytest.raises(UserError, match="runs="):
            names(word, log_dir=tmp_path / "multiruns")


@pytest.mark.parametrize("name", ["my runs", "läufe", 'it\'s "mine"', "a[1]", "x*y", "-m", "a,b=c"])
def test_any_name_is_found_as_it_stands(name: str, tmp_path: Path) -> None:
    run(tmp_path / name / "job")
    assert names(tmp_path / name) == ["job"]


@pytest.mark.parametrize("word", ["nowhere", "no*where", "dry", "file", "x" * 5000, "a\0b"])
def test_what_finds_nothing_is_said(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dry").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="runs="):
        names(word)
