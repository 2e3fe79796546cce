"""Arguments of system calls as strace prints them: numbers, or names of constants joined by `|`."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["flags_of", "numbers"]

#: include/uapi/asm-generic/mman-common.h, mman.h; include/uapi/linux/mman.h, shm.h
_TABLE: Final = """
    NULL=0 PROT_NONE=0 PROT_READ=1 PROT_WRITE=2 PROT_EXEC=4 PROT_SEM=8 PROT_GROWSDOWN=0x1000000
    PROT_GROWSUP=0x2000000 MAP_SHARED=1 MAP_PRIVATE=2 MAP_SHARED_VALIDATE=3 MAP_FIXED=0x10 MAP_ANONYMOUS=0x20
    MAP_32BIT=0x40 MAP_GROWSDOWN=0x100 MAP_DENYWRITE=0x800 MAP_EXECUTABLE=0x1000 MAP_LOCKED=0x2000
    MAP_NORESERVE=0x4000 MAP_POPULATE=0x8000 MAP_NONBLOCK=0x10000 MAP_STACK=0x20000 MAP_HUGETLB=0x40000
    MAP_SYNC=0x80000 MAP_FIXED_NOREPLACE=0x100000 MAP_FILE=0 MREMAP_MAYMOVE=1 MREMAP_FIXED=2 MREMAP_DONTUNMAP=4
    MS_ASYNC=1 MS_INVALIDATE=2 MS_SYNC=4 MADV_NORMAL=0 MADV_RANDOM=1 MADV_SEQUENTIAL=2 MADV_WILLNEED=3
    MADV_DONTNEED=4 MADV_FREE=8 MADV_REMOVE=9 MADV_DONTFORK=0xa MADV_DOFORK=0xb MADV_MERGEABLE=0xc
    MADV_UNMERGEABLE=0xd MADV_HUGEPAGE=0xe MADV_NOHUGEPAGE=0xf MADV_DONTDUMP=0x10 MADV_DODUMP=0x11
    MADV_WIPEONFORK=0x12 MADV_KEEPONFORK=0x13 MADV_COLD=0x14 MADV_PAGEOUT=0x15 MADV_POPULATE_READ=0x16
    MADV_POPULATE_WRITE=0x17 MADV_DONTNEED_LOCKED=0x18 MADV_COLLAPSE=0x19 MADV_HWPOISON=0x64 MCL_CURRENT=1
    MCL_FUTURE=2 MCL_ONFAULT=4 MLOCK_ONFAULT=1 SHM_RDONLY=0x1000 SHM_RND=0x2000 SHM_REMAP=0x4000 SHM_EXEC=0x8000
"""
_NAMES: Final[dict[str, int]] = {
    name: int(value, 0) for name, _, value in (entry.partition("=") for entry in _TABLE.split())
}
#: include/uapi/linux/sched.h
_CLONE: Final = {"CLONE_VM": 0x100, "CLONE_VFORK": 0x4000, "CLONE_THREAD": 0x10000}
#: Calls of which only what they did matters here, not with what.
_NOT_READ: Final = ("execve", "clone3", "fork", "vfork", "mbind", "migrate_pages", "userfaultfd", "membarrier")
_ARGUMENTS: Final = 6


def numbers(name: str, text: str) -> list[int]:
    """The six arguments of a call.

    Raises:
        ValueError: One is not understood; the message says what was expected.

    """
    if name in _NOT_READ or name.startswith("exit"):
        return [0] * _ARGUMENTS
    if name == "clone":
        return [flags_of(text), *[0] * (_ARGUMENTS - 1)]
    if name == "process_madvise":
        text = re.sub(r"\[.*\]", "0", text)
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    values = [_value(part) for part in parts]
    return (values + [0] * _ARGUMENTS)[:_ARGUMENTS]


def _value(text: str) -> int:
    # With -y a file's name follows its descriptor; in `MAP_HUGETLB|21<<MAP_HUGE_SHIFT` the size of the pages.
    text = re.sub(r"\|\d+<<\w+$", "", text)
    text = re.sub(r"<[^<>]*>$", "", re.sub(r"\s*/\*.*?\*/", "", text))
    total = 0
    for part in text.split("|"):
        if part in _NAMES:
            total |= _NAMES[part]
            continue
        try:
            total |= int(part, 8) if re.fullmatch(r"0[0-7]+", part) else int(part, 0)
        except ValueError:
            raise ValueError(f"an argument as a number or by its name in the kernel, not {part!r}") from None
    return total


def flags_of(text: str) -> int:
    """The flags of `clone` or `clone3`."""
    raw = re.match(r"^(0x[0-9a-f]+|\d+)(?:,|$)", text)
    if raw:
        return int(raw[1], 0)
    return sum(value for name, value in _CLONE.items() if re.search(rf"\b{name}\b", text))
