"""From what a guest left to files that `tlbcore import` reads.

Contract: a directory `raw` holds what the guest wrote, `scenarios/NAME.scn` and `machine.json` from the host; for each
scenario comes one `LABEL_NAME.jsonl.gz`, the same bytes for the same raw trace. Whatever makes a recording incomplete
is returned, one line each.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

from lab import raw_trace
from lab.convert import Converter, missing_entries
from lab.errors import LabError
from lab.scenario import load

if TYPE_CHECKING:
    from pathlib import Path


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""


def _tlb_interrupts(path: Path) -> list[int]:
    """The row TLB of /proc/interrupts: one number for each CPU."""
    return [int(word) for word in _text(path).split() if word.isdigit()]


def _machine(raw: Path) -> dict[str, Any]:
    try:
        machine: dict[str, Any] = json.loads((raw / "machine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{raw}: found no machine.json ({error}), expected what `python -m lab run` leaves") from error
    return machine


def _convert(raw: Path, name: str, machine: dict[str, Any], out: Path) -> list[str]:
    scenario = load(raw / "scenarios" / f"{name}.scn")
    trace = raw / "trace"
    with (trace / f"{name}.txt").open(encoding="utf-8", errors="replace") as file:
        converter = Converter(raw_trace.read(file), machine["gather_flags"])
    converter.run()
    status, _, lost = _text(trace / f"{name}.status").partition(" ")
    before, after = (_tlb_interrupts(trace / f"{name}.{when}") for when in ("before", "after"))
    meta = {
        "config": machine["label"],
        "kernel": _text(raw / "uname"),
        "qemu": machine["qemu"],
        "cpu": machine["cpu"],
        "smp": machine["smp"],
        "accel": "tcg",
        "pcid": "pcid" in _text(raw / "cpu_flags").split(),
        "ceiling": int(_text(raw / "ceiling") or 0),
        "work_fs": _text(raw / "work_fs"),
        "swap": _text(raw / "swap"),
        "scenario": name,
        "thp": scenario.settings.get("thp", "never"),
        "rc": int(status or -1),
        "lost_events": int(lost or 0),
        "interrupts_TLB": [new - old for old, new in zip(before, after, strict=True)],
        "steps": [" | ".join(map(str, step)) for step in scenario.steps],
        "missing_probes": [line for line in _text(raw / "missing").splitlines() if line],
        "runner": machine["runner"],
        "actors": converter.actors,
    }
    path = out / f"{machine['label']}_{name}.jsonl.gz"
    lines = [json.dumps({"meta": meta}, separators=(",", ":"))]
    lines += [json.dumps(record, separators=(",", ":")) for record in converter.records]
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode(), mtime=0))
    problems = [f"{path}: kernel lost {lost} events"] if meta["lost_events"] else []
    if meta["rc"] != 0:
        said = _text(trace / f"{name}.log").splitlines()
        problems.append(f"{path}: the runner ended with status {meta['rc']} {said[-1] if said else ''}".rstrip())
    missing = missing_entries(converter.records, [[entry.actor for entry in step] for step in scenario.steps])
    if missing:
        problems.append(f"{path}: {len(missing)} entries did not end, the first is {missing[0]}")
    problems += [f"{path}: {number} events {event} are not known" for event, number in converter.unknown.items()]
    return problems


def convert(raw: Path, out: Path) -> list[str]:
    """Writes a recording for each trace; returns what is wrong with them.

    Raises:
        LabError: the directory is not what a guest leaves.
    """
    machine = _machine(raw)
    out.mkdir(parents=True, exist_ok=True)
    names = sorted(path.stem for path in (raw / "trace").glob("*.txt"))
    if not names:
        raise LabError(f"{raw}: found no trace/*.txt, expected one for each scenario")
    problems = [f"this kernel has no probe or event: {line}" for line in _text(raw / "missing").splitlines()]
    for name in names:
        problems += _convert(raw, name, machine, out)
    return problems
