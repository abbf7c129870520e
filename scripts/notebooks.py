"""Executes the notebooks and writes them with their outputs as HTML: `python scripts/notebooks.py`.

Each one runs in a new folder of its own below build/notebooks, where its trainings stay to be
looked at. The pages need no network. The notebooks themselves stay as they are, without outputs.
"""

import argparse
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from notebook_page import page

ROOT = Path(__file__).parents[1]


def execute(file: Path, folder: Path, *, timeout: int) -> nbformat.NotebookNode:
    """Runs all cells of a notebook in a folder that is made anew.

    Args:
        file: The notebook; it isn't changed.
        folder: Where it works. What was there is removed.
        timeout: The seconds that one cell may take.

    Raises:
        CellExecutionError: A cell failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    notebook: nbformat.NotebookNode = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # it would warn of its own ports on this machine
        startup_timeout=300,
        timeout=timeout,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return notebook


def cpu_seconds() -> float:
    """What all processes that this one started, and that have ended, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which, by the beginnings of their names; all")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "notebooks", metavar="FOLDER")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "notebooks", metavar="FOLDER")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds that a cell may take")
    given = parser.parse_args()
    files = sorted((ROOT / "notebooks").glob("*.ipynb"))
    chosen = [f for f in files if not given.names or f.name.startswith(tuple(given.names))]
    if not chosen:
        parser.error(f"no notebook is called so; there are {', '.join(f.stem for f in files)}")
    # This checkout and this interpreter are what the notebooks use, whatever else is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))
    # Of libraries, on what they lack or will change: a reader can't do anything about it.
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore:IProgress not found,ignore:`isinstance(treespec"
    )
    # The kernels of the environment, not those that the user has in the home folder.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    given.to.mkdir(parents=True, exist_ok=True)
    failed = []
    for file in chosen:
        began, computed = time.monotonic(), cpu_seconds()
        try:
            notebook = execute(file, given.work / file.stem, timeout=given.timeout)
        except CellExecutionError as error:
            print(f"{file.name} failed: {error}", file=sys.stderr, flush=True)
            failed.append(file.name)
            continue
        (given.to / f"{file.stem}.html").write_text(page(notebook), encoding="utf-8")
        seconds, computed = time.monotonic() - began, cpu_seconds() - computed
        print(f"{file.stem}: {seconds:.0f} s, {computed:.0f} s of CPU time", flush=True)
    if failed:
        sys.exit(f"{len(failed)} of {len(chosen)} notebooks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
