"""Ends a training at the end of its step, as Ctrl-C and schedulers of clusters ask for it."""

import logging
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)


def stop_after_step() -> None:
    """Lets SIGINT and SIGUSR1 end a training as SIGTERM does: Lightning ends after the step.

    A second Ctrl-C ends it at once. Lightning puts the handlers of before back when it is done.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _first_interrupt)
        signal.signal(signal.SIGUSR1, _preempted)


def _first_interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log.info("Stopping after this step; Ctrl-C again stops at once")
    signal.raise_signal(signal.SIGTERM)


def _preempted(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)
