"""Runs commands in processes that fork from one which has imported the libraries.

Starting Python, torch and Lightning takes seconds; a fork takes hundredths of one. Each command
has its own working directory, environment, output and exit code, as if the shell had started it.
"""

import atexit
import gc
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
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


class Forked:
    """A command that runs, in a session of its own."""

    def __init__(self, args: list[str], pid: int, output: Path) -> None:
        self.args, self.pid, self._output = args, pid, output
        self._code = output.with_suffix(".code")

    def poll(self) -> int | None:
        """The exit code, once it has ended; negative if a signal ended it."""
        return int(self._code.read_text()) if self._code.exists() else None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the command and to all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, timeout: float = 500) -> subprocess.CompletedProcess[str]:
        """Waits for the end; `stdout` holds what went to stderr, too."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"{self.args} runs for more than {timeout} s")
            time.sleep(0.01)
        text = self._output.read_text(encoding="utf-8", errors="replace")
        return subprocess.CompletedProcess(self.args, code, text)


class ForkServer:
    """Starts the server when it is needed first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0

    def start(
        self,
        words: list[str],
        *,
        cwd: Path,
        env: dict[str, str],
        module: str = "segpets.train",
        largest_file: int | None = None,
    ) -> Forked:
        """Starts `python -m MODULE WORDS`.

        Args:
            words: The arguments.
            cwd: The working directory.
            env: All variables of the environment.
            module: The command.
            largest_file: Bytes that a file may have, as by `ulimit -f`.
        """
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
        self._count += 1
        output = Path(self._folder.name, f"{self._count}.out")
        order = {"module": module, "words": words, "cwd": str(cwd), "env": env}
        order |= {"output": str(output), "largest_file": largest_file}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server of commands has ended"
        return Forked([module, *words], int(answer), output)

    def close(self) -> None:
        """Ends the server."""
        if self._process is not None and self._process.stdin is not None:
            self._process.communicate()
        self._folder.cleanup()


def _serve() -> None:
    for module in PRELOADED:
        __import__(module)
    gc.collect()
    gc.freeze()
    running: dict[int, Path] = {}
    while True:
        # Orders are answered at once, so there is never more than one line to be read.
        if select.select([sys.stdin], [], [], 0.02 if running else None)[0]:
            if not (line := sys.stdin.readline()):
                return
            order = json.loads(line)
            child = os.fork()
            if child == 0:
                _become(order)
            running[child] = Path(order["output"]).with_suffix(".code")
            print(child, flush=True)
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = running.pop(pid)
                code.with_suffix(".part").write_text(str(os.waitstatus_to_exitcode(status)))
                os.replace(code.with_suffix(".part"), code)


def _become(order: dict[str, Any]) -> None:
    """Turns a forked process into the command; never returns."""
    os.setsid()
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, target in ((0, nothing), (1, output), (2, output)):
        os.dup2(target, stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    if (largest := order["largest_file"]) is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
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
