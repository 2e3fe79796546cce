"""R12: mm: fix TLB flush race between migration, and change_protection_range."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import PresentOnlyUnmap

RACE = Race(
    id="R12",
    title="mm: fix TLB flush race between migration, and change_protection_range",
    commit="20841405940e",
    fixed_in="v3.13",
    scheme="2",
    invariant="I5",
    story=(
        "A NUMA-hint walk makes an entry protnone and has not flushed yet. Migration takes a protnone entry "
        "for one that no CPU holds, does not flush, and copies the page while a CPU still writes to it."
    ),
    interleaving=(
        "a CPU caches a writable entry",
        "a NUMA-hint walk makes it protnone; the flush is to come",
        "migration takes protnone for not accessible, does not flush, copies the page and maps the copy",
        "the CPU stores to the old page",
        "the walk flushes",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-3.12 migration", migrate_pages=PresentOnlyUnmap()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["change_prot_numa", "migrate_pages"], "users": 1, "pages": 1, "kind": "anon"},
)
