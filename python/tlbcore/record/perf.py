"""Records with the system's own `perf`, and writes what it recorded as text."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError, TlbcoreError
from tlbcore.record.events import HELPFUL, NEEDED, TRUTH, perf_events
from tlbcore.record.keep import Kept, kept_lines
from tlbcore.record.process import ends_with_us, own_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "CALLER_FIELDS",
    "FIELDS",
    "PerfError",
    "PerfRun",
    "check_pages",
    "is_perf_data",
    "is_whole",
    "text_of_data",
    "with_perf",
]

FIELDS: Final = "comm,pid,tid,cpu,time,event,trace"
"""What `perf script` prints of each event: the importer's input."""

CALLER_FIELDS: Final = "ip,sym,dso"
"""And of each caller."""

BUFFER_PAGES: Final = 8192
"""Pages of the buffer of each CPU (`perf record -m`)."""

_MOST_PAGES: Final = 1 << 18
"""The kernel keeps a buffer's pages in one allocation, which is not larger than 4 MiB: twice as many do not fit."""

_MAGIC: Final = b"PERFILE2"
_SIZE: Final = slice(48, 56)
"""Where the head of a file has the length of its events, 0 as long as `perf` records (`struct perf_file_header`)."""

_HEAD: Final = ("# os release :", "# cpudesc :", "# nrcpus online :")
"""What the importer reads of the head of `perf script --header`."""

_LINES_PER_TELLING: Final = 1024
#: What `perf` says is kept from what the command says: standard error, or nothing if it is closed, waits in descriptor 9.
_START_PERF: Final = 'true 9>&2 || exec 2>/dev/null; exec 9>&2 2>"$0" && exec "$@"'
#: The command says its number before it begins, so that its tasks can be told from everybody else's, and gets back what is
#: the user's: environment and standard error.
_BEGIN: Final = 'echo $$ >"$0" && {environment} && exec 2>&9 9>&- && exec "$@"'
#: What `perf` sets for those whom it starts, and what we set for `perf` so that its messages can be understood.
_CHANGED: Final = ("LC_ALL", "PATH", "PREFIX", "DEBUGINFOD_URLS", "PERF_BUILDID_DIR")
_LOST_CHUNKS: Final = re.compile(r"lost (\d+) (?:chunks|events|samples)")


class PerfError(TlbcoreError):
    """`perf` could not do it."""


@dataclass(frozen=True)
class PerfRun:
    """What a run of `perf` gave."""

    kept: Kept
    #: The command's exit status; None without a command.
    status: int | None
    #: Warnings of `perf` about what is missing in the recording.
    warnings: tuple[str, ...]


def check_pages(buffer_pages: int) -> None:
    """Refuses a size of buffers that the kernel would refuse.

    Raises:
        InputError: Not a power of two from 1 to 262144.

    """
    if not 0 < buffer_pages <= _MOST_PAGES or buffer_pages & (buffer_pages - 1):
        raise InputError(f"buffer pages: found {buffer_pages}, expected a power of two from 1 to {_MOST_PAGES}")


def is_whole(data: Path) -> bool:
    """Whether `perf` came to write the end of what it recorded; without that nobody can read it."""
    try:
        with data.open("rb") as file:
            head = file.read(_SIZE.stop)
    except FileNotFoundError:
        return False
    return bool(head) and not (head.startswith(_MAGIC) and not any(head[_SIZE]))


def is_perf_data(path: Path) -> bool:
    """Whether a file is what `perf record` writes; a pipe is not looked into."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def text_of_data(data: Path, text: Path, progress: Callable[[int], None] | None = None) -> None:
    """Writes what `perf` recorded, of everybody, as the text of `perf script`.

    Raises:
        PerfError: There is no `perf`, or it does not understand its data.

    """
    if not is_whole(data):
        raise PerfError(f"{data}: found data without an end, expected those of a perf that came to finish them")
    head = _run(["perf", "script", "--header-only", "-i", str(data)])
    lines = [f"{line}\n" for line in head.splitlines() if line.startswith(_HEAD)]
    _script(data, text, None, Kept(), head=lines, with_callers=True, progress=progress)


def _run(arguments: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # the system's own perf
            arguments, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise PerfError("perf: found no such program, expected it: it reads its data") from error
    if done.returncode:
        raise PerfError(f"perf script: {_complaint(done.stderr, done.returncode)}")
    return done.stdout


def with_perf(  # noqa: PLR0913  # what to record and how
    text: Path,
    data: Path,
    *,
    command: Sequence[str] | None,
    seconds: float | None,
    missing: Sequence[str] = (),
    buffer_pages: int = BUFFER_PAGES,
    everybody: bool = False,
    callers: str | None = None,
    stdout: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> PerfRun:
    """Records, and writes the text of `perf script` to `text`.

    Args:
        text: Where to.
        data: Where `perf` writes what it records; it stays there, also when reading it is interrupted.
        command: What to run; without it the whole system is recorded.
        seconds: For how long, without a command; None: until Ctrl-C.
        missing: Events to do without.
        buffer_pages: Pages of the buffer of each CPU, a power of two.
        everybody: Keep all tasks although there is a command.
        callers: One of `tlbcore.record.events.CALLERS`: record who called, too.
        stdout: File descriptor of the command's standard output; None: that of this process.
        progress: Told how many lines of what was recorded are read.

    Raises:
        PerfError: `perf` failed; what it said.

    """
    events = tuple(name for name in (*NEEDED, *HELPFUL, TRUTH) if name not in missing)
    number = data.with_name("pid")
    # `-a`: who else runs on a CPU decides what is in mm_cpumask.
    arguments = ["perf", "record", "-a", "-m", str(buffer_pages), "-o", str(data), *perf_events(events, callers)]
    if command is not None:
        begin = _BEGIN.format(environment=own_environment(_CHANGED))
        arguments += ["--", "/bin/sh", "-c", begin, str(number), *command]
    elif seconds is not None:
        arguments += ["--", "sleep", str(seconds)]
    said, status = _record(arguments, data.with_name("said"), stdout)
    if not data.exists() or (command is not None and not number.exists()):
        raise PerfError(f"perf record: {_complaint(said, status)}")
    root = int(number.read_text(encoding="ascii")) if command is not None and not everybody else None
    kept = Kept()
    warnings = _script(data, text, root, kept, head=_head(), with_callers=callers is not None, progress=progress)
    lost = [line.strip() for line in said.splitlines() if _LOST_CHUNKS.search(line)]
    return PerfRun(kept, status if command is not None else None, tuple(dict.fromkeys([*lost, *warnings])))


def _record(arguments: list[str], said: Path, stdout: int | None) -> tuple[str, int]:
    """Run it; Ctrl-C ends the recording, not the program: `perf` writes what it has.

    Whatever else ends us ends `perf` first.
    """
    with (
        subprocess.Popen(  # noqa: S603  # the system's own perf
            ["/bin/sh", "-c", _START_PERF, str(said), *arguments], stdout=stdout, env={**os.environ, "LC_ALL": "C"}
        ) as process,
        ends_with_us(process),
    ):
        status = None
        while status is None:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                # From a terminal it has got it already, and does not mind; from `kill` it has not.
                process.send_signal(signal.SIGINT)
    return said.read_text(encoding="utf-8", errors="replace") if said.exists() else "", status


def _script(  # noqa: PLR0913  # what to read, and how
    data: Path,
    text: Path,
    root: int | None,
    kept: Kept,
    *,
    head: list[str],
    with_callers: bool,
    progress: Callable[[int], None] | None,
) -> list[str]:
    fields = f"{FIELDS},{CALLER_FIELDS}" if with_callers else FIELDS
    arguments = ["perf", "script", "-i", str(data), "--ns", "--show-lost-events", "-F", fields]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        text.open("w", encoding="utf-8", errors="surrogateescape") as out,
        subprocess.Popen(  # noqa: S603  # the system's own perf
            arguments, stdout=subprocess.PIPE, stderr=said, env={**os.environ, "LC_ALL": "C"}
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        out.writelines(head)
        lines = _told((line.decode("utf-8", "surrogateescape") for line in process.stdout), progress)
        try:
            out.writelines(kept_lines(lines, root, kept))
        except BaseException:
            process.kill()  # nobody reads what it would still print
            raise
        status = process.wait()
        said.seek(0)
        complaint = said.read()
    if status:
        raise PerfError(f"perf script: {_complaint(complaint, status)}")
    return [line.strip() for line in complaint.splitlines() if _LOST_CHUNKS.search(line)]


def _told(lines: Iterable[str], progress: Callable[[int], None] | None) -> Iterator[str]:
    for number, line in enumerate(lines):
        if progress is not None and number % _LINES_PER_TELLING == 0:
            progress(number)
        yield line


def _head() -> list[str]:
    """What the importer reads of the machine, in the form of `perf script --header`."""
    return [
        f"# os release : {platform.release()}\n",
        f"# cpudesc : {_cpu()}\n",
        f"# nrcpus online : {os.cpu_count()}\n",
    ]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _complaint(said: str, status: int) -> str:
    """The line of what `perf` said that tells most: the first that names an error, else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip() not in {"", "Error:", "Warning:"}]
    words = ("error", "failed", "cannot", "can't", "unable", "denied", "permission", "not found", "no such", "invalid")
    telling = (line for line in lines if any(word in line.lower() for word in words))
    return next(telling, lines[-1] if lines else f"ended with status {status}")
