"""A comparison as tables for a terminal: what flushing costs under each kernel, and who causes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore import costs
from tlbcore.report.table import assumptions, counted, heading, number, table, warned

if TYPE_CHECKING:
    from tlbcore.compare import Comparison

__all__ = ["comparison_report"]


def comparison_report(comparison: Comparison, *, emphasis: bool = False) -> str:
    """All of it, as text."""
    replays = comparison.replays
    config = replays[0].config
    head, rows = comparison.table()
    events, cpus = (
        counted(replays[0].result.nr_events, "event", group=" "),
        counted(config["nr_cpus"], "CPU", group=" "),
    )
    lines = [
        heading(
            f"{replays[0].recording.meta['file']}: {events}, {cpus},"
            f" {config['levels']} levels, {'with' if config['pcid'] else 'without'} PCID",
            emphasis=emphasis,
        ),
        *warned(comparison.warnings),
        "",
        table(head, rows, emphasis=emphasis),
        f"* {costs.LABEL}: counts times the costs of `tlbcore machines show`, without contention or overlap",
        "",
        heading("Who causes the flushes: flushes (of these full; CPUs told), by operation", emphasis=emphasis),
        "",
        _by_operation(comparison, emphasis=emphasis),
    ]
    return "\n".join([*lines, *assumptions(replays[0].notes, emphasis=emphasis)])


def _by_operation(comparison: Comparison, *, emphasis: bool) -> str:
    kinds: dict[str, int] = {}
    for replayed in comparison.replays:
        for kind, row in replayed.by_operation.items():
            kinds[kind] = max(kinds.get(kind, 0), row["nr_flush_requests"])
    rows = []
    for kind in sorted((k for k, n in kinds.items() if n), key=lambda k: (-kinds[k], k)):
        cells = [kind, number(max(r.by_operation.get(kind, {}).get("nr_operations", 0) for r in comparison.replays))]
        for replayed in comparison.replays:
            found = replayed.by_operation.get(kind)
            cells.append(
                f"{number(found['nr_flush_requests'])} ({number(found['nr_flush_full'])}; {number(found['nr_ipis'])})"
                if found
                else "0"
            )
        rows.append(cells)
    return table(["operation", "times", *(r.kernel.name for r in comparison.replays)], rows, emphasis=emphasis)
