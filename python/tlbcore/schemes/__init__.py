"""The batching schemes: five that Linux has, the one that would replace them, and no batching at all.

A scheme file reads like a description: it imports only the step language. `tlbcore schemes show NAME` prints what one
does, and `get` finds one by its name:

>>> from tlbcore import schemes
>>> type(schemes.get("mmu-gather")).__name__
'MmuGather'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.schemes.consolidated import Consolidated
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import ForgetfulGather, MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.synchronous import Synchronous
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending

if TYPE_CHECKING:
    from tlbcore.scheme import Scheme

__all__ = [
    "SCHEMES",
    "Consolidated",
    "DeferredUnmap",
    "ForgetfulGather",
    "LazyMmu",
    "MmuGather",
    "PerTable",
    "Synchronous",
    "TlbFlushPending",
    "get",
]

#: The schemes by class name.
SCHEMES = {
    scheme.__name__: scheme
    for scheme in (
        MmuGather,
        TlbFlushPending,
        LazyMmu,
        PerTable,
        DeferredUnmap,
        Consolidated,
        Synchronous,
        ForgetfulGather,
    )
}


def get(spec: str | Scheme) -> Scheme:
    """A scheme by what a user writes, with its defaults: ``MmuGather``, ``mmu-gather``, ``FILE.py:CLASS``.

    Raises:
        InputError: No such scheme, with the nearest; or a file that does not hold one.
        OSError: The file cannot be read.
    """
    from tlbcore import scheme_lookup  # noqa: PLC0415 - it imports this package; the schemes themselves need none of it

    return scheme_lookup.get(spec)
