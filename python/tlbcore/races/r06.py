"""R06: mm/rmap: fix potential batched TLB flush race."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R06",
    title="mm/rmap: fix potential batched TLB flush race",
    commit="5ee2fa2f0636",
    fixed_in="v5.17",
    scheme="5",
    invariant="I3",
    story=(
        "One flag tells that reclaim left flushes in the address space, but each page table has a lock of its "
        "own. mprotect sees the flag in one table, flushes, and clears it, while reclaim clears an entry in "
        "another table in between. In that table mprotect then finds neither entry nor flag."
    ),
    interleaving=(
        "mprotect, in one page table, finds the flag set and flushes",
        "reclaim clears an entry of another table and sets the flag, which is set already",
        "mprotect clears the flag",
        "mprotect comes to the other table: no entry there and no flag, so no flush; it returns",
        "a CPU uses its old translation",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-5.16 batch", constants={"batched_pending": "flag"}),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["mprotect", "shrink_folio_list"],
        "users": 1,
        "pages": [{"kind": "anon", "table": 0}, {"kind": "anon", "table": 1}],
    },
)
