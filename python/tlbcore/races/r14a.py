"""R14a: mm: fix clear_refs_write locking."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import ReadLockedClearRefs

RACE = Race(
    id="R14a",
    title="mm: fix clear_refs_write locking",
    commit="29a951dfb3c3",
    fixed_in="v5.11",
    scheme="1/2",
    invariant="I5",
    story=(
        "clear_refs write-protects entries with mmap_lock held for reading only and flushes at its end. A "
        "write fault copies the page meanwhile; a store through the stale translation goes to the old page "
        "after the copy and is lost."
    ),
    interleaving=(
        "clear_refs takes W away; the flush is to come",
        "a write fault copies the page",
        "a CPU stores to the old page through its old translation",
        "the fault flushes and maps the copy",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-5.10 clear_refs", clear_refs_soft_dirty=ReadLockedClearRefs()),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["clear_refs_soft_dirty", {"operation": "fault", "first": 0, "count": 1, "write": True}],
        "users": 1,
        "pages": [{"kind": "anon"}, {"kind": "anon", "frame": 0, "mapped": "read"}],
    },
)
