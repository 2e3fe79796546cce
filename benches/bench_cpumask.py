"""``CpuMask`` against a Python int and NumPy words, at 8192 CPUs and in one process.

Prints the median nanoseconds of one operation, and how many times longer the others take than ``CpuMask``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlbcore import CpuMask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NR_CPUS = 8192


def bits(value: int) -> Iterator[int]:
    """The numbers of the set bits of an int, ascending."""
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1
        value ^= lowest


def numpy_cpus(words: np.ndarray) -> list[int]:
    """The numbers of the set bits of little-endian words, ascending, as Python ints."""
    listed: list[int] = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist()
    return listed


def operations() -> dict[str, dict[str, Callable[[], object]]]:
    """Each operation in its three forms, on the same two half-full random sets; all forms give the same answer."""
    rng = random.Random(1)  # noqa: S311  # the same sets every time
    sets = [{cpu for cpu in range(NR_CPUS) if rng.getrandbits(1)} for _ in range(2)]
    m, n = (CpuMask(NR_CPUS, cpus) for cpus in sets)
    i, j = (sum(1 << cpu for cpu in cpus) for cpus in sets)
    a, b = m.words(), n.words()
    table: dict[str, dict[str, Callable[[], object]]] = {
        "or": {"CpuMask": lambda: m | n, "int": lambda: i | j, "numpy": lambda: a | b},
        "and": {"CpuMask": lambda: m & n, "int": lambda: i & j, "numpy": lambda: a & b},
        "andnot": {"CpuMask": lambda: m - n, "int": lambda: i & ~j, "numpy": lambda: a & ~b},
        "weight": {
            "CpuMask": m.weight,
            "int": i.bit_count,
            "numpy": lambda: int(np.bitwise_count(a).sum()),
        },
        "weight_and": {
            "CpuMask": lambda: m.weight_and(n),
            "int": lambda: (i & j).bit_count(),  # noqa: PLW0108  # the conjunction is part of what is timed
            "numpy": lambda: int(np.bitwise_count(a & b).sum()),
        },
        "iteration": {"CpuMask": lambda: list(m), "int": lambda: list(bits(i)), "numpy": lambda: numpy_cpus(a)},
    }
    for name, forms in table.items():
        answers = [plain(form()) for form in forms.values()]
        if any(answer != answers[0] for answer in answers):
            raise SystemExit(f"bench_cpumask: the forms of {name} disagree, so their times mean nothing")
    return table


def plain(answer: object) -> object:
    """An answer in a form that compares: the bits of a mask as an int, all else as it is."""
    words = answer.words() if isinstance(answer, CpuMask) else answer
    return int.from_bytes(words.astype("<u8").tobytes(), "little") if isinstance(words, np.ndarray) else words


def median_ns(call: Callable[[], object], repeats: int) -> float:
    """The median over the repeats, each long enough for the clock, in nanoseconds of one call."""
    timer = timeit.Timer(call)
    number, _ = timer.autorange()
    number = max(1, number // 10)
    return statistics.median(timer.repeat(repeats, number)) / number * 1e9


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the medians and ratios to this file too")
    parser.add_argument("--repeats", type=int, default=15, help="timings of each operation (default 15)")
    options = parser.parse_args()

    results: dict[str, dict[str, float]] = {}
    print(f"{NR_CPUS} CPUs  {'CpuMask ns':>12} {'int ns':>12} {'numpy ns':>12} {'int/mask':>9} {'numpy/mask':>10}")
    for name, forms in operations().items():
        times = {form: median_ns(call, options.repeats) for form, call in forms.items()}
        ratios = {form: times[form] / times["CpuMask"] for form in ("int", "numpy")}
        results[name] = {f"{form}_ns": ns for form, ns in times.items()}
        results[name] |= {f"{form}_ratio": ratio for form, ratio in ratios.items()}
        print(
            f"{name:<10} {times['CpuMask']:12.0f} {times['int']:12.0f} {times['numpy']:12.0f}"
            f" {ratios['int']:9.2f} {ratios['numpy']:10.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"nr_cpus": NR_CPUS, "operations": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
