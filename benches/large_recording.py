"""A recording of any size, written without ever being in memory: processes that map, touch, protect and unmap, for ever.

Each of four processes has two threads on two CPUs of its own, so that every unmap has to tell another CPU. One round of
all processes is written as ``perf script`` text and imported; the file then holds that round again and again, later each
time (`docs/recordings.md` describes the format).
"""

from __future__ import annotations

import json
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tlbcore import recordings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

NR_PROCESSES = 4
NR_PAGES = 8
ROUNDS_AT_ONCE = 10_000
PREAMBLE, ALIGN = 24, 64
MMAP, MPROTECT, MUNMAP = 9, 10, 11


def round_text(begin_us: int) -> list[str]:
    """One round of every process."""
    lines: list[str] = []

    def add(process: int, what: str, thread: int = 0) -> None:
        pid, cpu = 100 * (process + 1), 2 * process + thread
        seconds = (begin_us + len(lines)) / 1e6
        lines.append(f"{'worker':>16} {pid}/{pid + thread} [{cpu:03}] {seconds:.9f}: {what}")

    def call(process: int, nr: int, args: list[int], ret: int = 0) -> None:
        add(process, f"raw_syscalls:sys_enter: NR {nr} ({', '.join(f'{arg:x}' for arg in args)})")
        add(process, f"raw_syscalls:sys_exit: NR {nr} = {ret}")

    def fault(process: int, addr: int, code: int, thread: int = 0) -> None:
        text = f"exceptions:page_fault_user: address=0x{addr:x} ip=0x400000 error_code=0x{code:x}"
        add(process, text, thread)

    for process in range(NR_PROCESSES):
        addr, size = 0x7F00_0000_0000 + (process << 30), NR_PAGES * 4096
        call(process, MMAP, [0, size, 3, 0x22, 0xFFFFFFFF, 0], addr)
        for page in range(NR_PAGES):
            fault(process, addr + page * 4096, 6, page & 1)
        call(process, MPROTECT, [addr, size, 1, 0, 0, 0])
        call(process, MUNMAP, [addr, size, 0, 0, 0, 0])
    return lines


def write_large(path: Path, nr_events: int) -> int:
    """Writes a recording of about so many events; tells how many there are."""
    lines = round_text(1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "round.perf.txt"
        text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        base = recordings.load(text)
        saved = Path(folder) / "round.tlbr"
        base.save(saved)
        content = saved.read_bytes()
    (version,) = struct.unpack_from("<I", content, 8)
    header: dict[str, Any] = json.loads(content[PREAMBLE : PREAMBLE + struct.unpack_from("<I", content, 12)[0]])
    nr_rounds = max(1, nr_events // base.nr_events)
    header["nr_events"] = nr_rounds * base.nr_events
    period_ns = 1000 * len(lines)

    def chunks(column: str) -> Iterator[bytes]:
        part, _, name = column.partition(".")
        if part != "events":
            return
        once = np.asarray(base.column(name))
        for first in range(0, nr_rounds, ROUNDS_AT_ONCE):
            nr = min(ROUNDS_AT_ONCE, nr_rounds - first)
            repeated = np.tile(once, nr)
            if name in {"time_ns", "end_ns"}:
                rounds = np.arange(first, first + nr, dtype=once.dtype)
                repeated += np.repeat(rounds * once.dtype.type(period_ns), len(once))
            yield repeated.tobytes()

    offset = 0
    for entry in header["columns"]:
        crc = size = 0
        for chunk in chunks(entry["name"]):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        entry |= {"offset": offset, "bytes": size, "crc32": crc}
        offset = -(-(offset + size) // ALIGN) * ALIGN
    text_of_header = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(content[:8] + struct.pack("<IIII", version, len(text_of_header), zlib.crc32(text_of_header), 0))
        file.write(text_of_header)
        for entry in header["columns"]:
            file.write(bytes(-file.tell() % ALIGN))
            for chunk in chunks(entry["name"]):
                file.write(chunk)
    return int(header["nr_events"])


class PeakOfAnonymousMemory:
    """The most anonymous memory that this process had while it was inside, in bytes; files that are mapped do not count.

    What they take is the system's cache, which it takes back when it wants to.
    """

    def __enter__(self) -> Self:
        """Begins to watch."""
        self.start = self.peak = self._now()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends watching."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.is_set():
            self.peak = max(self.peak, self._now())
            time.sleep(0.002)

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024
