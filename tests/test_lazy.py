"""What takes long to import is imported without collecting garbage."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import gc
from segpets.lazy import imported

module = imported("seen")
assert module.collects is False and gc.isenabled() and gc.get_freeze_count() > 0
try:
    imported("broken")
except ValueError:
    assert gc.isenabled()
gc.disable()
imported("another")
assert not gc.isenabled(), "whoever switched it off wants it so"
print("done")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("seen", "another"):
        (tmp_path / f"{name}.py").write_text("import gc\ncollects = gc.isenabled()\n")
    (tmp_path / "broken.py").write_text("raise ValueError\n")
    return tmp_path


def test_garbage_is_collected_before_and_after_but_not_while(folder: Path) -> None:
    path = {"PYTHONPATH": f"{folder}:{Path(__file__).parents[1]}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr
