import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
def test_memory_is_as_flat_with_20_000_images_as_with_500(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, str(BENCHMARK), "--counts", "500", "20000", "--json", str(found)],
        check=True,
        timeout=1_000,
        env={"PYTHONPATH": str(BENCHMARK.parents[1]), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    few, many = json.loads(found.read_text())["rows"]
    assert (few["images"], many["images"]) == (500, 20_000)
    # The pixels are 320 MB; what lists them is 10.
    assert many["peak"] - few["peak"] < 40
