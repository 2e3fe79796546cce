"""``CpuMask`` beside other sets of small numbers, called from Python: int, gmpy2, bitarray, pyroaring, intbitset, NumPy.

All forms of an operation give the same answer, which is checked, and are timed in turn in one process. Prints CPU
nanoseconds of a call (median, lowest and highest of the rounds) and how many times longer the others take. `iterate`
makes a list of ints, `iterate to array` an array, which peers that have none make of their list.
"""

from __future__ import annotations

import argparse
import random
from typing import TYPE_CHECKING

import numpy as np
import side_by_side

from tlbcore import CpuMask, CpuMaskArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTHS = (256, 1024, 8192)


def bits(value: int) -> Iterator[int]:
    """The numbers of the set bits of an int, ascending."""
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1
        value ^= lowest


Forms = dict[str, dict[str, "Callable[[], object]"]]


def forms_of_width(nr_cpus: int) -> Forms:
    """Each operation by each library on the same two half-full random sets."""
    rng = random.Random(nr_cpus)  # noqa: S311  # the same sets every time
    a, b = (sorted(rng.sample(range(nr_cpus), nr_cpus // 2)) for _ in range(2))
    m, n = (CpuMask(nr_cpus, cpus) for cpus in (a, b))
    i, j = (sum(1 << cpu for cpu in cpus) for cpus in (a, b))
    u, v = m.words(), n.words()
    forms: Forms = {
        "or": {"CpuMask": lambda: m | n, "int": lambda: i | j, "numpy": lambda: u | v},
        "and": {"CpuMask": lambda: m & n, "int": lambda: i & j, "numpy": lambda: u & v},
        "andnot": {"CpuMask": lambda: m - n, "int": lambda: i & ~j, "numpy": lambda: u & ~v},
        "weight": {"CpuMask": m.weight, "int": i.bit_count, "numpy": lambda: int(np.bitwise_count(u).sum())},
        "weight of or": {
            "CpuMask": lambda: m.weight_or(n),
            "int": lambda: (i | j).bit_count(),  # noqa: PLW0108  # the union is part of what is timed
            "numpy": lambda: int(np.bitwise_count(u | v).sum()),
        },
        "iterate": {"CpuMask": lambda: list(m), "int": lambda: list(bits(i)), "set": lambda: sorted(set(a))},
        "iterate to array": {
            "CpuMask": m.cpus,
            "numpy": lambda: np.flatnonzero(np.unpackbits(u.view(np.uint8), bitorder="little")),
        },
        "andnot, iterate to array": {
            "CpuMask": lambda: m.cpus_andnot(n),
            "numpy": lambda: np.flatnonzero(np.unpackbits((u & ~v).view(np.uint8), bitorder="little")),
        },
    }
    add_gmpy2(forms, i, j)
    add_bitarray(forms, nr_cpus, a, b)
    add_sets_of_numbers(forms, a, b)
    return forms


def add_gmpy2(forms: Forms, i: int, j: int) -> None:
    """The integers of GMP."""
    if gmpy2 := side_by_side.peer("gmpy2"):
        g, h, x = gmpy2.mpz(i), gmpy2.mpz(j), gmpy2.xmpz(i)
        forms["or"]["gmpy2"] = lambda: g | h
        forms["and"]["gmpy2"] = lambda: g & h
        forms["andnot"]["gmpy2"] = lambda: g & ~h
        forms["weight"]["gmpy2"] = lambda: gmpy2.popcount(g)
        forms["weight of or"]["gmpy2"] = lambda: gmpy2.popcount(g | h)
        forms["iterate"]["gmpy2"] = lambda: list(x.iter_set())
        forms["iterate to array"]["gmpy2"] = lambda: np.fromiter(x.iter_set(), np.uint16)
        forms["andnot, iterate to array"]["gmpy2"] = lambda: np.fromiter(gmpy2.xmpz(g & ~h).iter_set(), np.uint16)


def add_bitarray(forms: Forms, nr_cpus: int, a: list[int], b: list[int]) -> None:
    """Arrays of bits."""
    if bitarray := side_by_side.peer("bitarray"):
        p, q = bitarray.bitarray(nr_cpus, endian="little"), bitarray.bitarray(nr_cpus, endian="little")
        for made, cpus in ((p, a), (q, b)):
            made.setall(0)
            made[cpus] = 1
        forms["or"]["bitarray"] = lambda: p | q
        forms["and"]["bitarray"] = lambda: p & q
        forms["andnot"]["bitarray"] = lambda: p & ~q
        forms["weight"]["bitarray"] = p.count
        forms["weight of or"]["bitarray"] = lambda: (p | q).count()  # noqa: PLW0108  # as above
        forms["iterate"]["bitarray"] = lambda: list(p.search(1))


def add_sets_of_numbers(forms: Forms, a: list[int], b: list[int]) -> None:
    """Compressed sets of numbers."""
    for name, kind in (("pyroaring", "BitMap"), ("intbitset", "intbitset")):
        if module := side_by_side.peer(name):
            s, t = getattr(module, kind)(a), getattr(module, kind)(b)
            forms["or"][name] = lambda s=s, t=t: s | t
            forms["and"][name] = lambda s=s, t=t: s & t
            forms["andnot"][name] = lambda s=s, t=t: s - t
            forms["weight"][name] = lambda s=s: len(s)
            forms["weight of or"][name] = lambda s=s, t=t: len(s | t)
            forms["iterate"][name] = lambda s=s: list(s)


def batch_forms(nr_cpus: int, nr_masks: int) -> Forms:
    """One question to many masks."""
    rng = np.random.default_rng(nr_masks)
    words = rng.integers(0, 1 << 63, (nr_masks, nr_cpus // 64), np.uint64)
    array, mask = CpuMaskArray(nr_cpus, words), CpuMask.from_numpy(words[0])
    masks, one = [array[at] for at in range(nr_masks)], words[0]
    return {
        f"weights of {nr_masks}": {
            "CpuMask": array.weights,
            "one by one": lambda: np.array([mask.weight() for mask in masks], np.uint32),
            "numpy": lambda: np.bitwise_count(words).sum(axis=1, dtype=np.uint32),
        },
        f"weights of and of {nr_masks}": {
            "CpuMask": lambda: array.weights_and(mask),
            "one by one": lambda: np.array([other.weight_and(mask) for other in masks], np.uint32),
            "numpy": lambda: np.bitwise_count(words & one).sum(axis=1, dtype=np.uint32),
        },
    }


def plain(answer: object) -> object:
    """An answer in a form that compares."""
    if isinstance(answer, CpuMask):
        return int.from_bytes(answer.words().astype("<u8").tobytes(), "little")
    if isinstance(answer, np.ndarray):
        if answer.dtype == np.uint64:
            return int.from_bytes(answer.astype("<u8").tobytes(), "little")
        return answer.tolist()
    if type(answer).__name__ == "bitarray":
        return int.from_bytes(answer.tobytes(), "little")  # type: ignore[attr-defined]
    if type(answer).__name__ in {"BitMap", "intbitset"}:
        return sum(1 << cpu for cpu in answer)  # type: ignore[attr-defined]
    return int(answer) if type(answer).__name__ == "mpz" else answer  # type: ignore[call-overload]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    side_by_side.add_arguments(parser, 11)
    options = parser.parse_args()
    rows = []
    print(side_by_side.about_this_run())
    print(f"{'bits':>5} {'operation':<26} {'library':<10} {'ns':>9} {'lowest':>9} {'highest':>9} {'times longer':>12}")
    for nr_cpus in WIDTHS:
        table = forms_of_width(nr_cpus)
        if nr_cpus == max(WIDTHS):
            table |= batch_forms(nr_cpus, 1000)
        for name, forms in table.items():
            answers = {form: plain(call()) for form, call in forms.items()}
            if any(answer != answers["CpuMask"] for answer in answers.values()):
                raise SystemExit(f"bench_cpumask: the forms of {name} disagree, so their times mean nothing")
            timings = side_by_side.in_turn(forms, options.rounds)
            for form, timing in timings.items():
                ratio = timing.median_ns / timings["CpuMask"].median_ns
                row = {"bits": nr_cpus, "operation": name, "library": form, **vars(timing), "ratio": ratio}
                rows.append(row)
                print(
                    f"{nr_cpus:>5} {name:<26} {form:<10} {timing.median_ns:9.0f} {timing.min_ns:9.0f}"
                    f" {timing.max_ns:9.0f} {ratio:12.2f}"
                )
    side_by_side.write(options.json, rows)


if __name__ == "__main__":
    main()
