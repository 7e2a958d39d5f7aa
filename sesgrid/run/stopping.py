"""Ctrl-C, SIGTERM and a terminal that is closed end a command in order.

Leases are given back, and processes that it started are gone.

The first of them is raised as `Stopped` in the main thread, so that everything is left as after an error;
later ones are not heard, and would only break what is being put in order. If that takes longer than
`PATIENCE_S`, the process ends there and then.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

__all__ = ["PATIENCE_S", "Stopped", "deferred", "stoppable"]

PATIENCE_S = 30.0
"""That putting things in order may take."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal ended the command.

    >>> Stopped(signal.SIGTERM).status, str(Stopped(signal.SIGINT))
    (143, 'stopped by SIGINT: what was finished is kept; the same command goes on from there')
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)

    @property
    def status(self) -> int:
        """What the process exits with."""
        return 128 + self.number

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        return f"stopped by {name}: what was finished is kept; the same command goes on from there"


@dataclass
class _State:
    """Of this process, whose signals only its main thread handles."""

    listening: bool = False
    deferring: bool = False
    pending: int | None = None


_STATE = _State()


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` inside where one of the signals comes; outside of the main thread do nothing."""
    if _STATE.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, _heard) for n in _SIGNALS if not _is_nohup(n)}
    _STATE.listening = True
    try:
        yield
    except Stopped:
        raise  # the process ends, and must not be disturbed
    except BaseException:
        _restore(before)
        raise
    else:
        _restore(before)
    finally:
        _STATE.listening = False


def _is_nohup(number: signal.Signals) -> bool:
    """Whether the command was started to outlive its terminal."""
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def _restore(before: Mapping[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Act on a signal that comes inside at the end; processes that are started inside never hear Ctrl-C.

    A terminal sends it to all of them, and each would tell of it with a traceback, where it is this process
    that ends them. A second signal is acted on at once.
    """
    if not _STATE.listening or _STATE.deferring:
        yield
        return
    # it unblocks signals in the thread that starts it, and is started with the first process
    resource_tracker.ensure_running()
    # threads and processes that are started here take it over, as it stands
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    _STATE.deferring = True
    try:
        yield
    finally:
        _STATE.deferring = False
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if _STATE.pending is not None:
            _stop(_STATE.pending)


def _heard(number: int, frame: FrameType | None) -> None:
    if _STATE.deferring and _STATE.pending is None:
        _STATE.pending = number
    else:
        _stop(number)


def _stop(number: int) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    _STATE.pending = None
    if number == signal.SIGHUP:
        _silence_lost()
    # connections break now, and those who tell of it at such length are not asked
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
    threading.Thread(target=_end, args=[128 + number], daemon=True, name="stopping").start()
    raise Stopped(number)


def _silence_lost() -> None:
    """Lead nowhere what is told to a terminal that is gone: every line of it would be an error of its own."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _end(status: int) -> None:
    """The end, where things cannot be put in order."""
    threading.Event().wait(PATIENCE_S)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)
