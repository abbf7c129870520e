"""Whatever values a run's files hold, at whatever place: a result, or an error in our words."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import segpets
from segpets.errors import UserError
from segpets.records.record import read_record
from segpets.run.standing import standing
from segpets.run.stored import open_run
from segpets.train import Result

QUICKLY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([0, -1, 1, 255, 10**9, 1e308, math.nan, math.inf])
)
TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "latest",
        "../..",
        "/etc/passwd",
        "${oc.env:HOME}",
        "http://127.0.0.1:9",
        "\x1b[2J",
        "null",
    ]
)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Lists the paths to all values below a node."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Copies a structure with another value at one place."""
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


@pytest.fixture(scope="module")
def run(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("changed") / "run"
    shutil.copytree(finished.path, copy)
    return copy


@pytest.mark.slow
@QUICKLY
@given(data=st.data())
def test_a_config_with_any_value_anywhere(run: Path, finished: Result, data: st.DataObject) -> None:
    config = yaml.safe_load((finished.path / "config.yaml").read_text())
    place = data.draw(st.sampled_from(list(places(config))))
    changed = replaced(config, place, data.draw(VALUES))
    (run / "config.yaml").write_text(yaml.safe_dump(changed, allow_unicode=True))
    try:
        segpets.load(run)
    except UserError as error:
        assert str(error).isprintable() or "\n" in str(error)
    try:
        open_run(run, key="resume")
    except UserError:
        pass


@pytest.mark.slow
@QUICKLY
@given(data=st.data())
def test_a_summary_with_any_value_anywhere(
    run: Path, finished: Result, data: st.DataObject
) -> None:
    (run / "config.yaml").write_text((finished.path / "config.yaml").read_text())
    summary = json.loads((finished.path / "summary.json").read_text())
    place = data.draw(st.sampled_from(list(places(summary))))
    changed = replaced(summary, place, data.draw(VALUES))
    (run / "summary.json").write_text(json.dumps(changed))
    try:
        record = read_record(run)
        assert all(math.isfinite(value) for value in record.values.values())
        str(standing(run.parent))
    except UserError:
        pass
    try:
        segpets.load(run)
    except UserError:
        pass
