"""Many random sequences on both machines, in processes: `campaign.py --sequences N --operations M --seed S --jobs J`.

Each sequence has a kernel in turn. Exit status 1 and a shrunk example for the first difference of each kernel, 0 if
there is none.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

from differential.compare import random_run, report, shrink  # noqa: E402 - found by the line before
from tlbcore import kernels  # noqa: E402


def _specs() -> tuple[str, ...]:
    """Each kernel as it is, with each value of each switch that is not the default, and some combinations."""
    found = []
    for family in kernels.FAMILIES.values():
        found.append(family.name)
        found += [
            f"{family.name}:{s.name}={value}" for s in family.switches for value in s.values if value != s.default
        ]
    consolidated = kernels.FAMILIES["consolidated"]
    found += [f"consolidated:none,{s.name}={s.default}" for s in consolidated.switches]
    return (*found, "consolidated:none")


SPECS = _specs()
#: Constants that are made small in every second round, so that gathers fill up, lists are cut and slots run out.
SMALL: dict[str, Any] = {
    "gather_bundle": 3,
    "gather_batch": 5,
    "gather_batch_count": 2,
    "swap_cluster_max": 3,
    "lru_add_batch": 3,
    "tlb_nr_dyn_asids": 2,
    "tlb_single_page_flush_ceiling": 4,
    "fault_around_pages": 4,
}
SMALL_LAZY_MMU_BATCH = 3


def kernel_of(seed: int) -> tuple[str, dict[str, Any]]:
    """The kernel of a sequence, each in turn; in every second round with small constants."""
    spec = SPECS[seed % len(SPECS)]
    kernel: dict[str, Any] = dict(kernels.get(spec).resolve())
    if seed // len(SPECS) % 2 == 1:
        kernel["constants"] = {**kernel["constants"], **SMALL}
        if kernel["constants"]["lazy_mmu_batch"]:
            kernel["constants"]["lazy_mmu_batch"] = SMALL_LAZY_MMU_BATCH
        spec += " (small constants)"
    return spec, kernel


def run_one(seed: int, nr_operations: int) -> str | None:
    """One sequence; the account of the first difference."""
    spec, kernel = kernel_of(seed)
    run = random_run(Random(seed), kernel, nr_operations)
    if run.difference is None:
        return None
    return f"seed {seed}: " + report(shrink(run, kernel), spec)


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--operations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the first sequence")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.sequences)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        reports = [found for found in pool.map(run_one, seeds, [arguments.operations] * len(seeds)) if found]
    for found in reports[:5]:
        print(found, end="\n\n")  # noqa: T201 - the script's result
    total = arguments.sequences * arguments.operations
    print(f"{arguments.sequences} sequences, at most {total} operations: {len(reports)} with a difference")  # noqa: T201
    return 1 if reports else 0


if __name__ == "__main__":
    sys.exit(main())
