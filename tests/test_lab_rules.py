"""The rules of the kernel lab, which kernels cite as sources, hold in the lab's own records.

Numbers are those of `docs/lab-rules.md`. Each check says how many cases agree and which do not; both are pinned, so
that neither a rule that is no longer looked at nor a new exception goes unseen.
"""

import re
from collections import Counter

import pytest

import lab_rules_of_operations as operations
import lab_rules_of_requests as requests
from given_data import DATA
from lab_records import runs
from tlbcore.source import NR_LAB_RULES

CHECKS = requests.CHECKS | operations.CHECKS

#: By check: how many cases agree, and where those stand that do not.
SEEN: dict[str, tuple[int, list[str]]] = {
    "ceiling": (15311, []),
    "munmap_fills_gathers": (47, []),
    "untouched_memory_flushes_nothing": (51, []),
    "munmap_inside_flushes_its_span": (43, []),
    "gathers_flush_their_range": (1562, []),
    "gathers_choose_the_least_stride": (1494, []),
    # A neighbour or the rest of the mapping keeps the first table, so that the range starts at its first entry.
    "freed_tables_widen_the_range": (
        613,
        [
            "c4_mix_par_02 at 369648 us",
            "c4_mix_par_11 at 260974 us",
            "c4_mix_seq_08 at 1527252 us",
            "c4_mremap_alone at 91893 us",
            "c4_munmap_alone at 89645 us",
            "c4_munmap_sleep3 at 971257 us",
            "c4_munmap_spin3 at 2541533 us",
            "x100_random_huge_721 at 1186163 us",
        ],
    ),
    "four_levels_flush_a_folded_table": (4, []),
    # The walk stopped inside a table, since a reschedule was due, and flushed there too.
    "dirty_shared_pages_flush_per_table": (42, ["c4_munmap_spin3 step 102"]),
    "mprotect_flushes_by_what_changes": (209, []),
    "advice_flushes_what_changed": (30, []),
    "mremap_flushes_per_table_pair": (36, []),
    "fork_flushes_the_parent": (30, []),
    # Two pages under PROT_NONE: no TLB can hold an inaccessible entry, so nothing is flushed (mm/pgtable-generic.c).
    "copies_flush_their_page": (5785, ["m4_random_memcgone_305 at 69813 us", "m4_random_memcgone_305 at 69846 us"]),
    "msync_flushes_each_dirty_page": (5, []),
    # A huge page is invalidated first, which flushes it as a split does (rule 12).
    "clear_refs_flushes_for_soft_dirty": (25, ["c4_random_huge_222 step 57", "q4_random_huge_521 step 61"]),
    "nested_gathers_flush_all": (373, []),
    "empty_gathers_flush_nothing": (1279, []),
    "outstanding_flushes_are_caught_up": (2969, []),
    "deferred_flushes_are_full": (2337, []),
    "deferred_flushes_are_not_put_off_long": (2145, []),
    "tells_nobody_alone": (2945, []),
    # The CPU went idle just after the request.
    "running_cpus_act": (7556, ["c8_mix_par_10 at 1578423 us, CPU 7"]),
    "lazy_cpus_are_spared": (3522, []),
    # The probe on the handler was lost: it fired inside another probe's handler.
    "freed_tables_spare_nobody": (
        2947,
        [
            "c4_mix_par_02 at 441973 us, CPU 3",
            "c4_nested_dontneed_600 at 1964475 us, CPU 1",
            "c4_nested_free_1024 at 1390671 us, CPU 1",
        ],
    ),
    "lazy_cpus_leave": (763, []),
    "splits_flush_the_huge_page": (106, []),
    "huge_pages_count_in_2_mib": (12, []),
    "collapse_flushes_each_table": (4, []),
    # A deferred flush was outstanding, and is caught up with first (rule 10).
    "exits_end_with_a_full_flush": (67, ["m4_random_memcg_302 at 4279035 us"]),
    "alone_one_is_pending": (2316, []),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"rule {CHECKS[check]}: {check.__name__}")
def test_a_rule_holds_in_the_records(check: requests.Check) -> None:
    verdicts = [verdict for run in runs() for verdict in check(run)]
    disagree = [place for agrees, place in verdicts if not agrees]
    assert (len(verdicts) - len(disagree), disagree) == SEEN[check.__name__]


def test_every_rule_is_checked_and_every_check_is_pinned() -> None:
    assert set(CHECKS.values()) == set(range(1, NR_LAB_RULES + 1))
    assert {check.__name__ for check in CHECKS} == set(SEEN)


def test_every_transition_of_protection_was_seen() -> None:
    seen = {place.partition(" (")[2] for run in runs() for _, place in operations.mprotect_flushes_by_what_changes(run)}
    assert {f"({case})" for case in seen} >= {f"({str(case)[1:]})" for case in operations.MPROTECT}


def test_how_many_pages_a_deferred_flush_stands_for() -> None:
    """Rule 10: a page table (pageout) or a list of 32 (reclaim) when clean, but one dirty page that is written out."""
    counts: Counter[tuple[str, int]] = Counter()
    for run in runs():
        kind = run.scenario.partition("_")[0]
        if kind in ("memcg", "reclaim"):
            counts.update((kind, unmapped) for unmapped in requests.unmapped_per_deferred_flush(run))
    pageout = {unmapped: n for (kind, unmapped), n in counts.items() if kind == "reclaim"}
    assert pageout == {1: 998, 8: 4, 32: 4, 33: 4, 64: 4, 88: 4, 100: 1, 128: 1, 512: 4}
    lru = {unmapped: n for (kind, unmapped), n in counts.items() if kind == "memcg"}
    assert (lru[1], lru[32], max(lru)) == (944, 37, 32)


def test_the_page_has_every_rule_with_what_was_counted() -> None:
    page = (DATA.parent / "docs" / "lab-rules.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## Rule (\d+): .*\n((?:(?!## ).*\n)*)", page, re.MULTILINE))
    assert [int(number) for number in sections] == list(range(1, NR_LAB_RULES + 1))
    for check, rule in CHECKS.items():
        agree, disagree = SEEN[check.__name__]
        assert f"`{check.__name__}` {agree} of {agree + len(disagree)}" in sections[str(rule)]
