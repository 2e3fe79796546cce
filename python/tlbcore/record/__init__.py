"""Recordings of programs: by the system's own `perf`, or, where that cannot be had, by `strace`, which knows less.

from tlbcore.record import record
done = record("firefox.tlbr", command=["firefox"])
print(done)
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tlbcore import recordings
from tlbcore.errors import InputError, TlbcoreError
from tlbcore.record.events import CALLERS
from tlbcore.record.keep import Kept
from tlbcore.record.needs import Host, Lack, has_strace, lacks
from tlbcore.record.perf import (
    BUFFER_PAGES,
    PerfError,
    PerfRun,
    check_pages,
    is_perf_data,
    is_whole,
    text_of_data,
    with_perf,
)
from tlbcore.record.strace import UNKNOWN, StraceError, with_strace
from tlbcore.report.table import counted
from tlbcore.results import Result
from tlbcore.whole_file import check_place, replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from tlbcore.recordings import Recording
    from tlbcore.results import Cell

__all__ = [
    "CALLERS",
    "SOURCES",
    "Host",
    "Lack",
    "LacksError",
    "PerfError",
    "Recorded",
    "StraceError",
    "is_perf_data",
    "lacks",
    "load_data",
    "record",
]

SOURCES: Final = ("auto", "perf", "strace")
"""Where a recording can come from; `auto` takes `perf`, and `strace` for a command if `perf` cannot."""


class LacksError(TlbcoreError):
    """This machine lacks something that a recording needs."""

    def __init__(self, found: Sequence[Lack]) -> None:
        super().__init__("; ".join(str(lack) for lack in found))
        #: Each of them.
        self.lacks = tuple(found)


@dataclass(frozen=True, repr=False)
class Recorded(Result):
    """What was recorded."""

    path: Path
    #: `perf` or `strace`.
    source: str
    nr_events: int
    nr_flushes: int
    #: Events that the kernel had no room for: all counts are too low then.
    nr_lost_events: int
    #: Lines of other programs that were left out.
    nr_of_others: int
    #: The command's exit status, or minus the signal that ended it; None without a command.
    status: int | None
    #: What is missing in the recording, one line each.
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {**asdict(self), "path": str(self.path), "warnings": list(self.warnings)}

    def to_rows(self) -> list[dict[str, Cell]]:
        """One row."""
        return [{**self.to_dict(), "warnings": "; ".join(self.warnings)}]

    def headline(self) -> str:
        """What there is."""
        return f"{self.path}: {counted(self.nr_events, 'event')}, {counted(self.nr_flushes, 'flush record')} by {self.source}"


def record(  # noqa: PLR0913  # what to record and how
    output: str | os.PathLike[str],
    *,
    command: Sequence[str] | None = None,
    seconds: float | None = None,
    source: str = "auto",
    buffer_pages: int = BUFFER_PAGES,
    everybody: bool = False,
    callers: str | None = None,
    host: Host | None = None,
    stdout: int | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Recorded:
    """Records a command, or the whole system, and writes the recording, whole or not at all.

    The command has the standard streams and the environment of this process. What is interrupted after something was
    recorded (`KeyboardInterrupt`, a full disk) leaves what `perf` or `strace` wrote beside `output`; `say` is told where,
    and the exception has it as a note.

    Args:
        output: The recording (`.tlbr`), or with a name that ends in `.txt` its text.
        command: What to run and record, word by word; without it everybody is recorded.
        seconds: For how long, without a command; None: until Ctrl-C.
        source: One of `SOURCES`.
        buffer_pages: Pages of each CPU's buffer, a power of two up to 262144; more if events are lost.
        everybody: Keep the events of all programs although there is a command.
        callers: One of `CALLERS`: record who called, so that flushes have call sites.
        host: Where to look for what is needed.
        stdout: File descriptor for the command's standard output; None: that of this process.
        say: Told what is done without, line by line, before it starts.
        progress: Told how many lines of what `perf` recorded are read.

    Raises:
        LacksError: Something is missing; `lacks` says what to do about each.
        PerfError: `perf` failed; what it said.
        StraceError: `strace` failed.
        InputError: A command and a time, an empty command, a text as command, or a program that is not there; a size of
            buffers that is no power of two.
        OSError: The recording cannot be written there.

    """
    output, tell = Path(output), say or (lambda _: None)
    _check_callers(callers, source)
    check_pages(buffer_pages)
    _check(output, command, seconds, source)
    found = [] if source == "strace" else lacks(host)
    stops = [lack for lack in found if lack.stops]
    if stops and source == "auto" and command is not None and has_strace():
        for lack in stops:
            tell(str(lack))
        tell("recording with strace instead" + (", which does not know callers" if callers else ""))
        source = "strace"
    elif stops:
        raise LacksError(stops)
    if source != "strace":
        for lack in found:
            tell(str(lack))
    elif not has_strace():
        raise LacksError([Lack("strace", "install it (the package strace)")])
    if command is None and seconds is None:
        tell("recording the whole system until Ctrl-C")
    by = "strace" if source == "strace" else "perf"
    with (
        tempfile.TemporaryDirectory(prefix=".tlbcore-record-", dir=output.parent) as folder,
        _keeping(Path(folder) / f"raw.{by}", output, tell) as raw,
    ):
        # Recordings are named after their file; in a folder of its own no name is taken.
        text = Path(folder) / "text" / output.name
        text.parent.mkdir()
        if source == "strace":
            run = PerfRun(Kept(), with_strace(text, raw, command or (), stdout), UNKNOWN)
        else:
            missing = [lack.what.removeprefix("event ") for lack in found]
            run = with_perf(
                text,
                raw,
                command=command,
                seconds=seconds,
                missing=missing,
                buffer_pages=buffer_pages,
                everybody=everybody,
                callers=callers,
                stdout=stdout,
                progress=progress,
            )
        recording = recordings.load(text)
        with replacing(output) as partial:
            if output.suffix == ".txt":
                shutil.copyfile(text, partial)
            else:
                recording.save(partial)
    lost = int(recording.meta["nr_lost_events"])
    return Recorded(
        path=output,
        source=by,
        nr_events=recording.nr_events,
        nr_flushes=recording.nr_flushes,
        nr_lost_events=lost,
        nr_of_others=run.kept.nr_of_others,
        status=run.status,
        warnings=(*(str(lack) for lack in found), *run.warnings),
    )


def load_data(path: str | os.PathLike[str], progress: Callable[[int], None] | None = None) -> Recording:
    """The recording, of everybody, of a file that `perf record` wrote with the events of `docs/recordings.md`.

    Args:
        path: The file.
        progress: Told how many lines of what `perf` recorded are read.

    Raises:
        PerfError: There is no `perf`, or it does not understand the file.
        InputError: What `perf` recorded is not understood.

    """
    with tempfile.TemporaryDirectory(prefix="tlbcore-import-") as folder:
        text = Path(folder) / Path(path).name
        text_of_data(Path(path), text, progress)
        return recordings.load(text)


@contextmanager
def _keeping(raw: Path, output: Path, tell: Callable[[str], None]) -> Iterator[Path]:
    """Gives the path for what is recorded, and keeps it beside `output` if what follows does not come to its end.

    Not if it is refused: what `perf` or the importer does not understand now, it does not understand later.
    """
    try:
        yield raw
    except BaseException as error:
        if (isinstance(error, OSError) or not isinstance(error, Exception)) and is_whole(raw):
            end = ".strace" if raw.suffix == ".strace" else ".perf.data"
            names = (f"{output.stem}{f'-{number}' if number > 1 else ''}{end}" for number in count(1))
            place = next(path for path in map(output.with_name, names) if not path.exists())
            raw.replace(place)
            recording = output.with_suffix(".tlbr")
            how = shlex.join(["tlbcore", "import", str(place), "-o", str(recording)])
            lines = (f"{place}: what was recorded is kept here; it is not a recording yet", f"next: {how}")
            for line in lines:
                tell(line)
                error.add_note(line)
        raise


def _check_callers(callers: str | None, source: str) -> None:
    if callers is not None and callers not in CALLERS:
        raise InputError(f"callers: found {callers!r}, expected one of {', '.join(CALLERS)}")
    if callers is not None and source == "strace":
        raise InputError("strace: found callers to record, expected none: it does not know them")


def _check(output: Path, command: Sequence[str] | None, seconds: float | None, source: str) -> None:
    if source not in SOURCES:
        raise InputError(f"source: found {source!r}, expected one of {', '.join(SOURCES)}")
    if isinstance(command, str):
        raise InputError(f"command: found the text {command!r}, expected a list of words: {command.split()!r}")
    if command is not None and not command:
        raise InputError("found no command after --, expected one")
    if command is not None and seconds is not None:
        raise InputError("found a command and a number of seconds, expected one of both")
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds: found {seconds}, expected more than 0")
    if source == "strace" and command is None:
        raise InputError("strace: found no command, expected one: it cannot record the whole system")
    if command is not None and shutil.which(command[0]) is None:
        raise InputError(f"{command[0]}: found no such program, expected one to record")
    check_place(output)
