"""The batching schemes: five that Linux has, the one that would replace them, and no batching at all.

A scheme file reads like a description: it imports only the step language. `tlbcore schemes show NAME` prints what one
does.
"""

from tlbcore.schemes.consolidated import Consolidated
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import ForgetfulGather, MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.synchronous import Synchronous
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending

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
