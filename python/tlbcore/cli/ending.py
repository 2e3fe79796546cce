"""SIGTERM and SIGHUP as an exception, so that what must be ended and removed is."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Ended", "ended_by_signals", "signal_name"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """Somebody ended us; like `KeyboardInterrupt` no error that anybody catches by the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        #: The signal.
        self.signal = signal.Signals(number)

    @property
    def status(self) -> int:
        """The exit status: 128 + the signal, as a shell reports it."""
        return 128 + self.signal


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raises `Ended` in the block on the first SIGTERM or SIGHUP; what is ignored (`nohup`) stays so.

    Only the main thread has handlers; in another nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def end(number: int, _: FrameType | None) -> None:
        for each in before:  # a second one would interrupt the cleaning up
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def signal_name(number: int) -> str:
    """The name of a signal, or its number if it has none (real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
