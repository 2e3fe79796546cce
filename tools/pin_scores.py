"""The scores that every given recording must keep: ``tests/data/scores.json``.

Scores may rise, never fall. ``python tools/pin_scores.py`` writes what is measured now, and refuses if anything fell,
unless ``--allow-lower FILE --because TEXT`` says that this file may fall and why; the reason is kept among the pins.
``tests/test_scores.py`` holds what is measured against what is pinned.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeAlias

from tlbcore import machines
from tlbcore.validate import Row, validate_folder

ROOT: Final = Path(__file__).parents[1]
DATA: Final = ROOT / "data"
PINS: Final = ROOT / "tests" / "data" / "scores.json"

#: What is pinned of one recording: by name either [good, all], whose quotient is the score, or one [count].
Scores: TypeAlias = Mapping[str, list[int]]


def measure(data: Path = DATA) -> dict[str, Scores]:
    """Validate every recording below a folder; return the scores of each, by its path inside.

    Raises:
        ValueError: One could not be read.
    """
    machine = machines.get("default").config()
    followed = validate_folder(data, machine)
    by_perf = [row.path for row in followed.rows if "lab" not in row.plain]
    alone = {row.path: row for row in validate_folder(by_perf, machine, follow_masks=False).rows}
    if followed.failures:
        raise ValueError(followed.failures[0].message)
    return {row.path.relative_to(data).as_posix(): scores_of(row, alone.get(row.path)) for row in followed.rows}


def scores_of(row: Row, alone: Row | None = None) -> Scores:
    """What is pinned of a recording; `alone` is its row without following masks."""
    plain = row.plain
    scores = {"with_targets": _score(plain), "without_targets": _score(plain["without_targets"])}
    if alone is not None:
        scores["without_following"] = _score(alone.plain)
    for side in ("single", "parallel"):
        if "lab" in plain and plain["lab"][side]["nr_entries"]:
            scores[f"lab_{side}"] = [plain["lab"][side]["nr_exact"], plain["lab"][side]["nr_entries"]]
    # Less that is compared would be less to be wrong about.
    scores["recorded_flushes"] = [plain["matched"] + plain["missed"]]
    if "lab" in plain:
        scores["lab_entries"] = [plain["lab"]["single"]["nr_entries"] + plain["lab"]["parallel"]["nr_entries"]]
    return scores


def _score(counts: Mapping[str, Any]) -> list[int]:
    return [counts["matched"], counts["matched"] + counts["missed"] + counts["extra"]]


def value(score: list[int]) -> Fraction:
    """A score as an exact fraction (1 if there was nothing), or a count."""
    good, everything = score if len(score) > 1 else (score[0], 1)
    return Fraction(good, everything) if everything else Fraction(1)


def shown(score: list[int] | None) -> str:
    """A score for people."""
    if score is None:
        return "nothing"
    return str(score[0]) if len(score) == 1 else f"{score[0]}/{score[1]} = {float(value(score)):.4f}"


def falls(pinned: Mapping[str, Scores], found: Mapping[str, Scores]) -> Iterator[tuple[str, str]]:
    """Yield what is worse than pinned: the file, and what fell from where to where."""
    for file, before in pinned.items():
        if file not in found:
            yield file, "is pinned and was not found"
            continue
        for name, score in before.items():
            now = found[file].get(name)
            if now is None or value(now) < value(score):
                yield file, f"{name} fell from {shown(score)} to {shown(now)}"


def read(path: Path = PINS) -> dict[str, Any]:
    """Return the pins: `recordings`, and `lowered`, the reasons for what once fell."""
    if not path.exists():
        return {"recordings": {}, "lowered": []}
    pins: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return pins


def text(pins: Mapping[str, Any]) -> str:
    """Return the pins as JSON with a line for each score, so that a change shows what changed."""
    files = []
    for file, scores in sorted(pins["recordings"].items()):
        lines = ",\n".join(f"      {json.dumps(name)}: {json.dumps(score)}" for name, score in scores.items())
        files.append(f"    {json.dumps(file)}: {{\n{lines}\n    }}")
    lowered = ",\n".join(f"    {json.dumps(reason)}" for reason in pins["lowered"])
    lowered = f"[\n{lowered}\n  ]" if lowered else "[]"
    return '{\n  "recordings": {\n' + ",\n".join(files) + f'\n  }},\n  "lowered": {lowered}\n}}\n'


def main() -> int:
    """Measure and write the pins; refuse to lower one without a reason."""
    parser = argparse.ArgumentParser(description="Pin the scores of the given recordings.")
    parser.add_argument(
        "--allow-lower", metavar="FILE", action="append", default=[], help="a file whose scores may fall"
    )
    parser.add_argument("--because", metavar="TEXT", help="why they may")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of recordings (without: data)")
    parser.add_argument("--pins", type=Path, default=PINS, help="where the pins are (without: tests/data/scores.json)")
    args = parser.parse_args()
    if bool(args.allow_lower) != bool(args.because):
        parser.error("--allow-lower and --because belong together")
    pins = read(args.pins)
    found = measure(args.data)
    fallen = list(falls(pins["recordings"], found))
    refused = [(file, what) for file, what in fallen if file not in args.allow_lower]
    for file, what in refused:
        print(f"{file}: {what}")
    if refused:
        print("nothing written; if that is right: --allow-lower FILE --because TEXT")
        return 1
    pins["lowered"] += [{"file": file, "what": what, "because": args.because} for file, what in fallen]
    nr_changed = sum(pins["recordings"].get(file) != scores for file, scores in found.items())
    args.pins.parent.mkdir(parents=True, exist_ok=True)
    args.pins.write_text(text({"recordings": found, "lowered": pins["lowered"]}), encoding="utf-8")
    print(f"{args.pins.name}: {nr_changed} of {len(found)} recordings changed, {len(fallen)} scores lowered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
