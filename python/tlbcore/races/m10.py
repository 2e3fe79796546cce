"""M10: migc, the target of a migration becomes a source before its flush."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.deferral_variants import Migc
from tlbcore.races.race import Race

_KERNEL = kernels.get("linux-6.18")

RACE = Race(
    id="M10",
    title="migc: the target of a migration becomes a source before its flush",
    commit="",
    fixed_in="never merged",
    scheme="5+",
    invariant="I5",
    story=(
        "Migration does not flush entries without W, and frees the old page once everything is flushed, some time later. "
        "Before that the new page may get a writable entry, and be migrated itself. If it is taken for a page whose flush "
        "is outstanding, its own entry is not flushed, and a CPU writes to it while it is copied. The changelog names the "
        "case (a destination that becomes a source) and gives no interleaving; this one is read from it."
    ),
    interleaving=(
        "migration moves a read-only page, and puts its flush off",
        "a second migration takes the new page off the LRU list",
        "a write fault makes the entry of the new page writable",
        "a CPU caches it",
        "the second migration takes the new page's flush for outstanding, so that there is none, and copies the page",
        "the CPU stores to the page that was copied",
        "the copy is mapped: the store is lost",
        "the flush that was put off comes, too late",
    ),
    buggy=_KERNEL.derive("migc v1", migrate_pages=Migc(skips_pending=True)),
    fixed=_KERNEL.derive("migc", migrate_pages=Migc()),
    scenario={
        "operations": ["migrate_pages", "migrate_pages", {"operation": "fault", "write": True}],
        "users": 1,
        "pages": [{"kind": "anon", "mapped": "read"}],
    },
)
