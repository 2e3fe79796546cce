"""Operations on ranges of page tables beside the running kernel, NumPy on a dense array, and a dict, per 4 KiB page.

The kernel's own are mmap and a touch of each page, mprotect and munmap through ctypes, huge pages off; ours change a model
of the same tables and say what was present, dirty, young and changed. NumPy's is a fill of the same bytes, a dense array
that knows no tables. All in turn in one process, CPU time.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import side_by_side

from tlbcore import PageTable

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096
BASE = 0x7F00_0000_0000
SIZES = (64, 512, 4096, 65536)
MADV_NOHUGEPAGE = 15
PROT_READ, PROT_RW = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE


class Kernel:
    """The running kernel's calls, without Python's objects around a mapping."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._mmap = libc.mmap
        self._mmap.restype = pointer
        self._mmap.argtypes = [pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        self._calls = {}
        for name, arguments in {
            "mprotect": [pointer, size, ctypes.c_int],
            "munmap": [pointer, size],
            "madvise": [pointer, size, ctypes.c_int],
        }.items():
            call = getattr(libc, name)
            call.argtypes = arguments
            self._calls[name] = call

    def call(self, name: str, *arguments: int) -> None:
        """A call that has to succeed."""
        if self._calls[name](*arguments):
            raise OSError(ctypes.get_errno(), name)

    def touched(self, nr_pages: int) -> int:
        """Maps pages and writes to each; the address."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        addr: int = self._mmap(None, nr_pages * PAGE, PROT_RW, flags, -1, 0)
        if addr == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        self.call("madvise", addr, nr_pages * PAGE, MADV_NOHUGEPAGE)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * (nr_pages * PAGE)).from_address(addr))
        memory[::PAGE] = 1
        return addr


def timed(work: Callable[[], object]) -> float:
    """CPU nanoseconds of one call."""
    begin = time.process_time_ns()
    work()
    return time.process_time_ns() - begin


def kernel_round(kernel: Kernel, nr_pages: int) -> dict[str, float]:
    """One round of the kernel's operations on touched pages."""
    size = nr_pages * PAGE
    addr = kernel.touched(nr_pages)
    times = {
        "protect": timed(lambda: kernel.call("mprotect", addr, size, PROT_READ)),
        "unprotect": timed(lambda: kernel.call("mprotect", addr, size, PROT_RW)),
    }
    times["clear"] = timed(lambda: kernel.call("munmap", addr, size))
    return times


def our_round(table: PageTable, nr_pages: int, repeats: int) -> dict[str, float]:
    """One round of ours; each operation on tables in the state that the kernel's are in."""
    elsewhere = BASE - (1 << 40) + PAGE
    times = {"map": 0.0, "protect": 0.0, "unprotect": 0.0, "mkclean": 0.0, "move": 0.0, "clear": 0.0}
    for _ in range(repeats):
        times["map"] += timed(lambda: table.map(BASE, nr_pages, 1000))
        times["protect"] += timed(lambda: table.protect(BASE, nr_pages, "r"))
        times["unprotect"] += timed(lambda: table.protect(BASE, nr_pages, "rw"))
        times["mkclean"] += timed(lambda: table.mkclean(BASE, nr_pages))
        times["move"] += timed(lambda: table.move(BASE, elsewhere, nr_pages))
        times["clear"] += timed(lambda: table.clear(elsewhere, nr_pages))
    return {name: taken / repeats for name, taken in times.items()}


def numpy_round(dense: np.ndarray, nr_pages: int, repeats: int) -> dict[str, float]:
    """A fill of the same bytes."""
    part = dense[12345 : 12345 + nr_pages]

    def fill() -> None:
        for value in range(repeats):
            part.fill(value)

    return {"fill": timed(fill) / repeats}


def dict_round(nr_pages: int) -> dict[str, float]:
    """Pages in a dict, as one writes it in Python."""
    first = BASE // PAGE
    pages: dict[int, tuple[int, int]] = {}

    def put() -> None:
        for vpn in range(first, first + nr_pages):
            pages[vpn] = (vpn, 7)

    def protect() -> None:
        for vpn in range(first, first + nr_pages):
            pfn, _ = pages[vpn]
            pages[vpn] = (pfn, 5)

    def clear() -> None:
        for vpn in range(first, first + nr_pages):
            del pages[vpn]

    return {"map": timed(put), "protect": timed(protect), "clear": timed(clear)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    side_by_side.add_arguments(parser, 31)
    options = parser.parse_args()
    kernel, table, dense = Kernel(), PageTable(), np.zeros(1 << 18, np.uint64)
    rows = []
    print(side_by_side.about_this_run())
    print(f"{'pages':>6} {'who':<8} {'operation':<10} {'ns/page':>9} {'lowest':>9} {'highest':>9} {'kernel/ours':>11}")
    for nr_pages in SIZES:
        repeats = max(1, 1 << 16 >> nr_pages.bit_length())
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.rounds if nr_pages < max(SIZES) else 5):
            found = {
                "tlbcore": our_round(table, nr_pages, repeats),
                "numpy": numpy_round(dense, nr_pages, repeats),
                "kernel": kernel_round(kernel, nr_pages),
                "dict": dict_round(nr_pages),
            }
            for who, operations in found.items():
                for operation, taken in operations.items():
                    times.setdefault((who, operation), []).append(taken / nr_pages)
        medians = {key: statistics.median(taken) for key, taken in times.items()}
        for (who, operation), taken in times.items():
            theirs = medians.get(("kernel", operation)) if who == "tlbcore" else None
            median = medians[who, operation]
            row = {
                "pages": nr_pages,
                "who": who,
                "operation": operation,
                "ns_per_page": median,
                "min_ns_per_page": min(taken),
                "max_ns_per_page": max(taken),
                "times_as_fast_as_the_kernel": theirs / median if theirs else None,
                "times_as_long_as_a_fill": median / medians["numpy", "fill"],
            }
            rows.append(row)
            print(
                f"{nr_pages:>6} {who:<8} {operation:<10} {median:9.3f} {min(taken):9.3f} {max(taken):9.3f}"
                f" {theirs / median if theirs else float('nan'):11.1f}"
            )
    side_by_side.write(options.json, rows)


if __name__ == "__main__":
    main()
