"""The command ``tlbcore``, which ``python -m tlbcore`` is too: its first moments, in which Ctrl-C finds nothing to clean up.

Until the command runs, Ctrl-C ends the process at once: raised as an exception in the middle of an import it may come
out as another one, or be printed and lost where Python cannot raise it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # that of `typing`, which would be imported before Ctrl-C is seen to
if TYPE_CHECKING:
    from types import FrameType

_INTERRUPTED = 130  # `tlbcore.cli.main` cannot be asked yet


def main() -> int:
    """Run the command line, and return the exit status."""
    try:
        import signal  # noqa: PLC0415 - it imports others

        # Ignored, as in what a script starts in the background, it stays so.
        is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_heard:
            signal.signal(signal.SIGINT, _leave)
        from tlbcore.cli.main import main as run  # noqa: PLC0415 - after Ctrl-C is seen to
    except KeyboardInterrupt:
        return _INTERRUPTED

    def raise_again() -> None:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    return run(before_run=raise_again)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
