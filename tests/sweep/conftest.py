from pathlib import Path

import pytest
from fixture_types import Tiny
from made_sweep import CONFIG, LOSS, NAMES


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the user's own code: a loss with moods, and a callback that notes names."""
    folder = tmp_path / "own"
    for group, text in {"loss": CONFIG, "experiment": "# @package _global_\nseed: 7\n"}.items():
        (folder / "conf" / group).mkdir(parents=True)
        name = {"loss": "moody", "experiment": "mine"}[group]
        (folder / "conf" / group / f"{name}.yaml").write_text(text)
    (folder / "moody.py").write_text(LOSS)
    (folder / "names.py").write_text(NAMES)
    return folder


@pytest.fixture
def words(tiny: Tiny, own: Path) -> list[str]:
    """What the sweeps here have in common: one epoch of four steps."""
    conf = ["--config-dir", str(own / "conf"), "-m", "sweep=s"]
    return [*conf, *tiny("trainer.max_epochs=1", "loss=moody", "data.size=32")]
