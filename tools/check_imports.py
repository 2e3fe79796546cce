"""Check that the arrows between the parts of tlbcore go one way; print each violation, exit 1 if there is one.

The rules are the tables in ``import_rules_python`` and ``import_rules_rust``. What is checked is the text: every path
in Rust, every import statement in Python (inside functions and under ``TYPE_CHECKING`` too, since the arrow is there).
"""

import argparse
import sys
from pathlib import Path

import import_rules_python
import import_rules_rust


def check(root: Path) -> list[str]:
    """Check the tree at ``root``; return one line for each violation, in the order of the files."""
    return [*import_rules_rust.check(root / "rust" / "core"), *import_rules_python.check(root / "python")]


def main() -> int:
    """Check the tree given on the command line, or the one this file stands in."""
    parser = argparse.ArgumentParser(description="Check that imports go one way only.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    violations = check(parser.parse_args().root)
    for violation in violations:
        print(violation)
    print(f"import rules: {len(violations)} violations" if violations else "import rules: fine")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
