"""The address traces of the tests: those that come with the project, and synthetic ones that NumPy makes."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore import tlb

if TYPE_CHECKING:
    import numpy.typing as npt

FOLDER = Path(__file__).parents[1] / "data" / "traces"
REAL = ("sort", "python", "bigpython")
SYNTHETIC = ("uniform1g", "zipf64k", "seq64")
NR_ACCESSES = 10_000_000
BASE = np.uint64(0x7F0000000000)


@functools.cache
def reference() -> dict[str, Any]:
    """The counts that other simulators agree on."""
    path = Path(__file__).parent / "data" / "tlb_misses.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@functools.cache
def trace(name: str) -> npt.NDArray[np.uint64]:
    """The addresses of a trace; those of synthetic ones are checked, since they depend on NumPy's generators."""
    if name in REAL:
        return tlb.open_trace(FOLDER / f"{name}.delta.zst").addresses
    addresses = _synthetic(name).astype("<u8")
    digest = hashlib.sha256(addresses.tobytes()).hexdigest()
    if digest != reference()["sha256"][name]:
        message = f"{name}: this NumPy makes other numbers than those that were counted"
        raise AssertionError(message)
    return addresses


def _synthetic(name: str) -> npt.NDArray[np.uint64]:
    if name == "uniform1g":
        words = np.random.Generator(np.random.PCG64(1)).integers(0, 1 << 27, NR_ACCESSES, dtype=np.uint64)
        return BASE + words * np.uint64(8)
    if name == "zipf64k":
        rng = np.random.Generator(np.random.PCG64(2))
        weights = np.cumsum(1.0 / np.arange(1, 65537) ** 0.99)
        ranks = np.searchsorted(weights / weights[-1], rng.random(NR_ACCESSES))
        pages = rng.permutation(65536).astype(np.uint64)[ranks]
        return BASE + pages * np.uint64(4096) + rng.integers(0, 512, NR_ACCESSES, dtype=np.uint64) * np.uint64(8)
    return BASE + np.arange(NR_ACCESSES, dtype=np.uint64) * np.uint64(64)
