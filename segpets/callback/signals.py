"""Ends a training at the end of its step, as Ctrl-C and schedulers of clusters ask for it."""

import logging
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)

_noted: list[int] = []


def stop_after_step(*, together: bool = False) -> None:
    """Lets SIGINT and SIGUSR1 end a training as SIGTERM does: Lightning ends after the step.

    A second Ctrl-C ends it at once. Lightning puts the handlers of before back when it is done.

    Args:
        together: Whether several processes train together. They end at the same step, so signals
            are only noted, for `asked_to_stop`: Lightning's handler would broadcast, while another
            process may be in the midst of something else that all do together.
    """
    _noted.clear()
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, _noted_interrupt if together else _first_interrupt)
    signal.signal(signal.SIGUSR1, _note if together else _preempted)
    if together:
        signal.signal(signal.SIGTERM, _note)


def asked_to_stop() -> bool:
    """Tells whether a signal has asked this process, one of several, to end."""
    return bool(_noted)


def _note(number: int, frame: FrameType | None) -> None:
    _noted.append(number)


def _noted_interrupt(number: int, frame: FrameType | None) -> None:
    _say_interrupted()
    _note(number, frame)


def _first_interrupt(number: int, frame: FrameType | None) -> None:
    _say_interrupted()
    signal.raise_signal(signal.SIGTERM)


def _preempted(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


def _say_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log.info("Stopping after this step; Ctrl-C again stops at once")
