"""Records with `strace`: the calls of a command, and nothing of faults, CPUs and flushes."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tlbcore.errors import TlbcoreError
from tlbcore.record.process import ends_with_us, terminate_children
from tlbcore.strace.text import TOUCHED_PAGES, as_perf_text
from tlbcore.syscalls import SYSCALLS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["UNKNOWN", "StraceError", "with_strace"]

UNKNOWN: Final = (
    f"page faults are unknown: what is mapped is taken as touched at once, up to {TOUCHED_PAGES} pages a mapping",
    "CPUs are unknown: each thread is taken as running on one of its own, always, as long as there are enough",
    "flushes are unknown: nothing can be validated, all flushes are the model's",
    "times are those of a traced program: use their order",
)
"""What a recording by strace does not know, and what is taken instead."""


class StraceError(TlbcoreError):
    """`strace` could not do it."""


def with_strace(text: Path, calls: Path, command: Sequence[str], stdout: int | None = None) -> int:
    """Records a command, and writes what was recorded in the form of `perf script`; the command's exit status.

    Args:
        text: Where to.
        calls: Where `strace` writes what it records; it stays there, also when reading it is interrupted.
        command: What to run.
        stdout: File descriptor of the command's standard output; None: that of this process.

    Raises:
        StraceError: `strace` failed; what it said.

    """
    traced = f"trace={','.join(SYSCALLS)}"
    arguments = ["strace", "-f", "-ttt", "-T", "-s", "256", "-o", str(calls), "-e", traced, *command]
    # Its complaints go where the command's do; Ctrl-C ends the command, and what was recorded stays. It ignores SIGTERM
    # while the command runs.
    with (
        subprocess.Popen(arguments, stdout=stdout) as process,  # noqa: S603  # the user's command
        ends_with_us(process, terminate_children),
    ):
        status = None
        while status is None:
            with suppress(KeyboardInterrupt):
                status = process.wait()
    if not calls.exists() or not calls.stat().st_size:
        raise StraceError(f"strace: ended with status {status} and recorded nothing")
    with (
        calls.open(encoding="utf-8", errors="surrogateescape") as lines,
        text.open("w", encoding="utf-8", errors="surrogateescape") as out,
    ):
        out.writelines(as_perf_text(lines, calls.name, os.cpu_count() or 1))
    return status
