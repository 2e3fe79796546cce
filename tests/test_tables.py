"""Page tables as objects: no reduction loses a state where tables are freed, move, and CPUs cache the way to them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

import tlbcore
from tlbcore import _core, kernels
from tlbcore.check import DEFAULT_INVARIANTS, TABLE_INVARIANTS

#: What changes tables, and what walks them beside it.
OPERATIONS: tuple[str, ...] = (
    "munmap",
    "mremap",
    "madvise_dontneed",
    "mprotect",
    "page_mkclean",
    "truncate",
    "exit_mmap",
    "mmap",
)
OPERATIONS += ("collapse_huge_page", "gup_fast")
KERNELS = ("linux-5.10", "linux-6.18", "consolidated")
ENGINES: tuple[dict[str, bool], ...] = (
    {},
    {"nested_finish_forgets_tables": True},
    {"lone_table_freed_unflushed": True},
    {"table_flush_trusts_last_vma": True},
)
REDUCTIONS = (
    ("saturate", "urgent", "symmetry", "dead"),
    ("saturate",),
    ("urgent", "symmetry", "dead", "eager_stores"),
)
STATES = 60_000


def scenario(rng: random.Random) -> dict[str, Any]:
    """One or two operations on one or two pages, each page in a table of its own or both in one."""
    nr_pages = rng.randint(1, 2)
    apart = rng.random() < 0.6
    mapped = ("write", "dirty", "read", "none")
    kind = rng.choice(("file", "anon"))
    pages = [
        {"kind": kind, "table": n * apart, "vma": n * apart, "mapped": rng.choice(mapped), "exec": rng.random() < 0.3}
        for n in range(nr_pages)
    ]
    threads = []
    for _ in range(rng.randint(1, 2)):
        first = rng.randrange(nr_pages)
        allowed = [name for name in OPERATIONS if kind == "file" or name not in ("page_mkclean", "truncate")]
        threads.append(
            {
                "operation": rng.choice(allowed),
                "first": first,
                "count": rng.randint(1, nr_pages - first),
                "other_table": rng.random() < 0.7,
            }
        )
    return {
        "users": rng.randint(1, 2),
        "pages": pages,
        "threads": threads,
        "faults": rng.randint(0, 1) if nr_pages == 1 else 0,
        "engine": rng.choice(ENGINES),
        "whole_tables": True,
        "shared_tables": kind == "file" and rng.random() < 0.2,
    }


@pytest.mark.parametrize("seed", range(12))
def test_reductions_agree_with_plain_search_on_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    done = 0
    while done < 12:
        kernel, asked = kernels.get(rng.choice(KERNELS)).to_json(), json.dumps(scenario(rng))
        for reductions in REDUCTIONS:
            options = {
                "invariants": [*DEFAULT_INVARIANTS, *TABLE_INVARIANTS, "I12"],
                "reductions": reductions,
                "states": STATES,
            }
            try:
                plain, _, undominated, unreachable, agree = _core.explore_audit(kernel, asked, json.dumps(options))
            except tlbcore.InputError as error:
                assert "stopped by" in str(error), (asked, str(error))  # noqa: PT017  # too large is no failure
                break
            assert plain > 0
            assert (undominated, unreachable, agree) == (0, 0, True), (asked, reductions)
        else:
            done += 1
