"""Sizes and rights as people write them.

Addresses and lengths are in bytes throughout; these names make them readable. Rights are a text of ``r``, ``w`` and
``x``, as ``/proc/PID/maps`` shows them.
"""

from __future__ import annotations

from typing import Final

from tlbcore.errors import InputError
from tlbcore.given import wrong_kind

__all__ = ["PAGE", "PAGE_SHIFT", "PMD", "PUD", "page_align", "prot_bits", "prot_text"]

PAGE_SHIFT: Final = 12
"""Base-2 logarithm of the size of a page, x86 ``PAGE_SHIFT``."""
PAGE: Final = 1 << PAGE_SHIFT
"""Bytes of a page: 4 KiB."""
PMD: Final = 1 << 21
"""Bytes that one page table maps, and of a huge page: 2 MiB."""
PUD: Final = 1 << 30
"""Bytes that one table of page tables maps: 1 GiB."""

_BITS: Final = {"r": 1, "w": 2, "x": 4}


def page_align(length: int) -> int:
    """Round ``length`` in bytes up to whole pages, as ``PAGE_ALIGN()`` of the kernel does."""
    return (length + PAGE - 1) & ~(PAGE - 1)


def prot_bits(prot: str | int) -> int:
    """Return the rights as ``PROT_READ`` 1, ``PROT_WRITE`` 2, ``PROT_EXEC`` 4.

    Args:
        prot: A text of ``r``, ``w``, ``x`` in any order, where ``-`` stands for nothing and ``none`` or an empty text
            for no right at all; or the bits themselves.

    Raises:
        InputError: It is neither.

    >>> prot_bits("rw"), prot_bits("r-x"), prot_bits("none"), prot_bits(3)
    (3, 5, 0, 3)
    """
    if isinstance(prot, int):
        if prot & ~7:
            raise InputError(f"prot: found {prot}, expected bits of 7 (1 read, 2 write, 4 execute)")
        return prot
    if not isinstance(prot, str):
        raise wrong_kind("prot", prot, "letters of 'rwx', or 'none'")
    letters = "" if prot == "none" else prot.replace("-", "")
    if len(set(letters)) != len(letters) or not set(letters) <= set(_BITS):
        raise InputError(f"prot: found {prot!r}, expected letters of 'rwx', each at most once, or 'none'")
    return sum(_BITS[letter] for letter in letters)


def prot_text(bits: int) -> str:
    """Return the rights as ``/proc/PID/maps`` shows them.

    >>> prot_text(3)
    'rw-'
    """
    return "".join(letter if bits & bit else "-" for letter, bit in _BITS.items())
