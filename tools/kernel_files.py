"""Writes the resolved kernels that the tests of the Rust core read (`rust/core/tests/data/*.json`).

    python tools/kernel_files.py            # writes them anew
    python tools/kernel_files.py --check    # says which are not what Python resolves now, and fails

Sources are for readers and are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tlbcore import kernels

FOLDER = Path(__file__).parent.parent / "rust" / "core" / "tests" / "data"


def text_of(name: str) -> str:
    """The plain structure of a kernel, as one line of JSON."""
    plain = {key: value for key, value in kernels.get(name).resolve().items() if key != "sources"}
    return json.dumps(plain, separators=(",", ":")) + "\n"


def stale() -> list[Path]:
    """The files that differ from what Python resolves."""
    return [path for path in sorted(FOLDER.glob("*.json")) if path.read_text(encoding="utf-8") != text_of(path.stem)]


def main() -> int:
    """Writes, or checks."""
    found = stale()
    for path in found:
        if "--check" in sys.argv[1:]:
            print(f"{path.relative_to(FOLDER.parents[3])}: found another kernel, expected what Python resolves")
        else:
            path.write_text(text_of(path.stem), encoding="utf-8")
    return 1 if found and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
