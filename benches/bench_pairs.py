"""How long the proof takes for each pair of operations of Linux 6.18, at 4 user CPUs and 4 pages in one table.

Both operations work on all four pages. Where a pair is known to violate something (`tlbcore check linux-6.18 --pairs` tells
what), the proof is of the other invariants. Pages are anonymous where that is possible, else of a file; a pair that no page can
have is left out and said. Times are CPU seconds of one call from Python, on one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path

import tlbcore
from tlbcore import build_profile, kernels
from tlbcore.check import DEFAULT_INVARIANTS
from tlbcore.hunt.plan import OF_ONE_KIND

#: The operations by what they are called in short.
OPERATIONS = {
    "zap": "madvise_dontneed",
    "mprotect": "mprotect",
    "mremap": "mremap",
    "fork": "fork",
    "reclaim": "shrink_folio_list",
    "mkclean": "page_mkclean",
    "migrate": "migrate_pages",
    "KSM": "ksm_merge",
}


def kind_of(pair: tuple[str, str]) -> str | None:
    """The kind of page that both operations are for."""
    for kind in ("anon", "file"):
        if all(OF_ONE_KIND.get(OPERATIONS[name], (kind, ""))[0] == kind for name in pair):
            return kind
    return None


def invariants_of(pair: tuple[str, str], kind: str) -> tuple[str, ...]:
    """Those that the pair does not violate at a size at which a search is short."""
    wanted = list(DEFAULT_INVARIANTS)
    for size in (1, 2):
        while wanted:
            verdict = tlbcore.check(
                "linux-6.18", [OPERATIONS[name] for name in pair], kind=kind, pages=size, invariants=wanted
            )
            if not verdict.violated:
                break
            wanted = [name for name in wanted if name not in verdict.violated]
    return tuple(wanted)


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60, help="give up on a pair after that")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    users, pages = arguments.users, arguments.pages
    print(f"{build_profile()} build, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, {users} x {pages}")
    print(f"{'pair':<22}{'pages':<6}{'CPU s':>9}{'maximal':>10}{'transitions':>13}{'bits':>6}  proven")
    kernel = kernels.get("linux-6.18")
    text = kernel.to_json()
    measured: list[dict[str, object]] = []
    for pair in itertools.combinations_with_replacement(OPERATIONS, 2):
        name = " x ".join(pair)
        kind = kind_of(pair)
        if kind is None:
            print(f"{name:<22}no page is for both")
            continue
        invariants = invariants_of(pair, kind)
        start = time.process_time()
        verdict = tlbcore.check(
            kernel,
            [OPERATIONS[item] for item in pair],
            users=users,
            pages=pages,
            kind=kind,
            invariants=invariants,
            seconds=arguments.seconds,
            kernel_json=text,
        )
        seconds = time.process_time() - start
        proven = " ".join(invariants) if verdict.safe else f"NO: {verdict.stopped or verdict.violated}"
        row = f"{seconds:>9.2f}{verdict.states:>10}{verdict.transitions:>13}{verdict.state_bits:>6}  {proven}"
        print(f"{name:<22}{kind:<6}{row}", flush=True)
        measured.append(
            {
                "pair": name,
                "kind": kind,
                "seconds": round(seconds, 3),
                "states": verdict.states,
                "transitions": verdict.transitions,
                "safe": verdict.safe,
            }
        )
    slowest = max(measured, key=lambda row: float(str(row["seconds"])))
    print(f"slowest: {slowest['pair']}, {slowest['seconds']} s")
    if arguments.json:
        text = json.dumps({"profile": build_profile(), "pairs": measured}, indent=2)
        arguments.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
