"""Translates the ways in which Lightning ends into the words of the rest of segpets."""

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import SIGTERMException

from segpets.errors import UserError
from segpets.run.directory import Run
from segpets.run.files import shown

log = logging.getLogger("segpets.train")


@contextmanager
def in_our_words(run: Run) -> Iterator[None]:
    """Makes an interruption say how to go on, and raises a spawned process's error as its own.

    Raises:
        KeyboardInterrupt: The training was stopped by Ctrl-C or SIGTERM.
        UserError: A spawned process failed.
    """
    try:
        yield
    except SystemExit as exit_:
        # After Ctrl-C Lightning exits, and ignores SIGINT from then on.
        stopped = isinstance(exit_, SIGTERMException)
        if not stopped and not isinstance(exit_.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        place = shown(run.path)
        raise KeyboardInterrupt(
            f"What is done so far lies in {place}; resume={place} goes on from there"
            if run.files.last.exists()
            else f"{place} has no checkpoint yet: give the same command again"
        ) from exit_
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error).startswith("Early stopping conditioned"):
            name = (re.findall(r"`([^`]+)`", str(error)) or ["its metric"])[0]
            raise UserError(
                f"callback.early_stopping.monitor: no epoch measures {name}. Is it misspelt, or is "
                "there no validation (trainer.limit_val_batches=0)?"
            ) from error
        if type(error).__name__ == "ProcessRaisedException":  # its text is a traceback
            reason = str(error).strip().splitlines()[-1]
            raise UserError(reason.removeprefix("segpets.errors.UserError: ")) from error
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning says about itself; warnings go to the log file."""
    logging.captureWarnings(True)
    threading.excepthook = _say_thread_stopped
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    yield


def _say_thread_stopped(stopped: threading.ExceptHookArgs) -> None:
    """Reports a stopped thread, such as TensorBoard's writer, in a line and not as a traceback."""
    name = stopped.thread.name if stopped.thread else "A thread"
    log.error("%s stopped: %s: %s", name, stopped.exc_type.__name__, stopped.exc_value)
    log.debug("the traceback", exc_info=stopped.exc_value)
