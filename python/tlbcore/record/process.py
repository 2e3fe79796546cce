"""Programs that must not outlive us, and what they pass on to the command that is recorded."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["ends_with_us", "own_environment", "terminate_children"]

_PATIENCE_SECONDS: Final = 10
"""How long a program has after SIGTERM, to write what it has, before it is killed."""


@contextmanager
def ends_with_us(process: subprocess.Popen[bytes], ask: Callable[[int], None] | None = None) -> Iterator[None]:
    """Ends a program if the block is left by an exception: `Popen` alone would wait for it, for ever perhaps.

    Args:
        process: The program.
        ask: What asks it to end, told its process id; SIGTERM if not given.

    """
    try:
        yield
    except BaseException:
        if process.poll() is None:
            if ask is None:
                process.terminate()
            else:
                ask(process.pid)
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        raise


def _children(pid: int) -> list[int]:
    """The processes that a process has started and that are still there; none where the kernel does not say."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


def terminate_children(pid: int) -> None:
    """Ends what a process runs, so that it ends itself; SIGTERM for itself if it runs nothing."""
    for number in _children(pid) or [pid]:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGTERM)


def own_environment(names: Sequence[str]) -> str:
    """The text for a shell that gives these variables the values that they have here, and takes away those not set here."""
    here = {name: os.environ.get(name) for name in names}
    return " && ".join(
        f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}" for name, value in here.items()
    )
