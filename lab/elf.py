"""Where the kernel maps a static program that is not position-independent, as its program headers say."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

PAGE: Final = 4096
_LOAD, _RELRO = 1, 0x6474E552
_EXECUTABLE: Final = 2
_RIGHTS: Final = ((4, "r"), (2, "w"), (1, "x"))


def image(path: Path) -> dict[str, Any]:
    """The program's areas as the loader makes them: `areas` of its file by address, `relro`, and where its `heap` begins.

    The heap begins on the page after the last byte of the data (fs/binfmt_elf.c, without address randomization). Format:
    elf(5).

    Raises:
        LabError: it is no such program.
    """
    program = path.read_bytes()
    if program[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", program, 16)[0] != _EXECUTABLE:
        raise LabError(
            f"{path}: found no 64-bit program with fixed addresses, expected a static one (`cc -static -no-pie`)"
        )
    offset, entry_bytes, nr_entries = *struct.unpack_from("<Q", program, 32), *struct.unpack_from("<HH", program, 54)
    areas, relro, heap = [], [0, 0], 0
    for at in range(offset, offset + nr_entries * entry_bytes, entry_bytes):
        kind, flags, _, start, _, file_bytes, memory_bytes, _ = struct.unpack_from("<IIQQQQQQ", program, at)
        if kind == _LOAD:
            rights = "".join(letter for bit, letter in _RIGHTS if flags & bit)
            areas.append([start // PAGE * PAGE, _up(start + file_bytes), rights])
            heap = max(heap, _up(start + memory_bytes))
        elif kind == _RELRO:
            relro = [start // PAGE * PAGE, _up(start + memory_bytes)]
    return {"areas": areas, "relro": relro, "heap": heap}


def _up(address: int) -> int:
    return -(-address // PAGE) * PAGE
