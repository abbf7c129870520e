"""Translates the ways in which Lightning ends into the words of the rest of segpets."""

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
        raise KeyboardInterrupt(_how_to_go_on(run)) from exit_
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


def _how_to_go_on(run: Run) -> str:
    place = shown(run.path)
    if run.files.last.exists():
        return f"What is done so far lies in {place}; resume={place} goes on from there"
    return f"{place} has no checkpoint yet: give the same command again"


@contextmanager
def interrupted_by_sigterm(run: Run) -> Iterator[None]:
    """Makes SIGTERM an interruption, also before and after Lightning handles it.

    torchrun sends it to all processes as soon as one has ended, be it in the midst of an error.

    Raises:
        KeyboardInterrupt: It came; the message says how to go on.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(_how_to_go_on(run))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def silence() -> None:
    """Silences what Lightning says about itself; warnings go to the log file."""
    logging.captureWarnings(True)
    threading.excepthook = _say_thread_stopped
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _say_thread_stopped(stopped: threading.ExceptHookArgs) -> None:
    """Reports a stopped thread, such as TensorBoard's writer, in a line and not as a traceback."""
    name = stopped.thread.name if stopped.thread else "A thread"
    log.error("%s stopped: %s: %s", name, stopped.exc_type.__name__, stopped.exc_value)
    log.debug("the traceback", exc_info=stopped.exc_value)
