"""Records with `strace`: the calls of a command, and nothing of faults, CPUs and flushes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlbcore.errors import TlbcoreError
from tlbcore.strace.text import TOUCHED_PAGES, as_perf_text
from tlbcore.syscalls import SYSCALLS

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def with_strace(text: Path, command: Sequence[str]) -> int:
    """Records a command, and writes what was recorded in the form of `perf script`; the command's exit status.

    Raises:
        StraceError: `strace` failed; what it said.

    """
    with tempfile.TemporaryDirectory(prefix=".tlbcore-record-", dir=text.parent) as folder:
        calls = Path(folder) / "calls.strace"
        arguments = [
            "strace",
            "-f",
            "-ttt",
            "-T",
            "-s",
            "256",
            "-o",
            str(calls),
            "-e",
            f"trace={','.join(SYSCALLS)}",
            *command,
        ]
        # Its complaints go where the command's do; Ctrl-C ends the command, and what was recorded stays.
        with subprocess.Popen(arguments) as process:  # noqa: S603  # the user's command
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
