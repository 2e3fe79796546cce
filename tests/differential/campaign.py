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

sys.path[:0] = [str(Path(__file__).parent)]

from compare import CoreMachine, random_run, report, shrink

from tlbcore import kernels

SPECS = (
    "linux-5.10",
    "linux-6.1",
    "linux-6.18",
    "consolidated",
    "consolidated:none",
    "consolidated:pending=vma",
    "consolidated:pending=mm",
    "consolidated:light_gather=off",
    "linux-5.10:lazy_mmu=sparc64",
    "linux-6.18:lazy_mmu=powerpc-hash",
    "linux-6.1:lazy_mmu=xen-pv",
)
#: Constants that are made small now and then, so that gathers fill up and lists are cut.
SMALL: dict[str, Any] = {"gather_bundle": 3, "gather_batch": 5, "gather_batch_count": 2, "swap_cluster_max": 3}


def kernel_of(seed: int, specs: tuple[str, ...] = SPECS) -> tuple[str, dict[str, Any]]:
    """The kernel of a sequence; every third has small constants."""
    spec = specs[seed % len(specs)]
    kernel: dict[str, Any] = dict(kernels.get(spec).resolve())
    if seed // len(specs) % 3 == 0:
        kernel["constants"] = {**kernel["constants"], **SMALL}
    return spec, kernel


def run_one(seed: int, nr_operations: int) -> str | None:
    """One sequence; the account of the first difference."""
    spec, kernel = kernel_of(seed)
    run = random_run(Random(seed), kernel, nr_operations, CoreMachine)
    if run.difference is None:
        return None
    return f"seed {seed}: " + report(shrink(run, kernel, CoreMachine), spec)


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
