"""Runs commands in processes that fork from one which has imported the libraries.

Starting Python, torch and Lightning takes seconds; a fork takes hundredths of one. Each command
has its own working directory, environment, output and exit code, as if the shell had started it.
"""

import atexit
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

PRELOADED = (
    "albumentations",
    "matplotlib.figure",
    "optuna",
    "onnxruntime",
    "scipy.stats",
    "tensorboard.summary.v1",
    "torch.utils.tensorboard",
    *(f"segpets.{name}.recipe" for name in ("train", "evaluate", "predict", "export", "benchmark")),
    *(f"segpets.{name}.recipe" for name in ("compare", "browse", "sweep")),
    "segpets.sweep.search",
    "segpets.cli.command",
)


class ForkServer:
    """Starts the server when it is needed first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, module: str, words: list[str], *, cwd: Path, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Runs `python -m MODULE WORDS`; `stdout` holds what went to stderr, too."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                cwd=Path(__file__).parents[1],
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as output:
            order = {"module": module, "words": words, "cwd": str(cwd), "env": env}
            self._process.stdin.write(json.dumps(order | {"output": output.name}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the server of commands has ended"
            return subprocess.CompletedProcess([module, *words], int(answer), output.read())

    def close(self) -> None:
        """Ends the server."""
        if self._process is not None and self._process.stdin is not None:
            self._process.communicate()


def _serve() -> None:
    for module in PRELOADED:
        __import__(module)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(order: dict[str, Any]) -> None:
    """Turns a forked process into the command; never returns."""
    output = os.open(order["output"], os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, target in ((0, nothing), (1, output), (2, output)):
        os.dup2(target, stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = ["", *filter(None, path), *sys.path[1:]]
    sys.argv = [order["module"], *order["words"]]
    code = 1
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        if isinstance(exit_.code, str):
            print(exit_.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # as an interpreter ends: pools of processes first
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
