"""`tlbcore check --audit`: the reductions of the explorer held against plain search."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from tlbcore.audit import REDUCTIONS, audit, audit_random
from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import print_json, refuse_given
from tlbcore.progress import Progress
from tlbcore.report.table import is_terminal, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from tlbcore.audit import Row

_HEAD = ["reductions", "plain states", "kept", "not included", "not reached", "violations"]


def run_audit(args: argparse.Namespace, operations: Sequence[dict[str, object]]) -> int:
    """Audit the scenario that the arguments describe, or random small programs if they name no kernel.

    Raises:
        InputError: Bounds that an audit has not.
    """
    refuse_given(
        args, ("memory", "depth", "without", "seconds", "invariant"), "found it with --audit, expected it alone"
    )
    if not args.kernel:
        return _run_random(args)
    rows: list[Row] = []
    with suppress(KeyboardInterrupt):  # what is known until then is told
        audit(
            args.kernel,
            operations,
            users=1 if args.users is None else args.users,
            pages=1 if args.pages is None else args.pages,
            kind=args.kind or "file",
            faults=args.faults or 0,
            progress=rows.append,
            **({} if args.states is None else {"states": args.states}),
        )
    if args.json:
        print_json([asdict(row) | {"clean": row.clean} for row in rows])
    else:
        print(_table(rows))
    if len(rows) < len(REDUCTIONS):
        print(f"stopped by a request to stop after {len(rows)} of {len(REDUCTIONS)}", file=sys.stderr)
        return NEGATIVE
    return OK if all(row.clean for row in rows) else NEGATIVE


def _run_random(args: argparse.Namespace) -> int:
    options = {name: value for name, value in (("states", args.states),) if value is not None}
    with Progress("programs") as progress:
        found = audit_random(args.programs, seed=args.seed, progress=progress, **options)
    if args.json:
        print_json(asdict(found))
        return NEGATIVE if found.dirty or found.stopped else OK
    if found.stopped:
        print(f"stopped by {found.stopped}: {found.nr_audited} of {args.programs} programs")
    print(
        f"{found.nr_audited} random programs (seed {found.seed}), {found.nr_plain_states:,} plain states,"
        f" {found.nr_violating} with a violation: {len(found.dirty) or 'no'} disagreement{'s' * (len(found.dirty) > 1)}"
    )
    print(
        f"left out: {found.nr_too_large} too large for the bound on states, {found.nr_refused} that the explorer refuses"
    )
    for name, scenario, row in found.dirty:
        print(f"\n{name}: {scenario}\n{_table([row])}")
    return NEGATIVE if found.dirty or found.stopped else OK


def _table(rows: Iterable[Row]) -> str:
    cells = [
        [
            " ".join(row.reductions),
            f"{row.plain_states:,}",
            f"{row.reduced_states:,}",
            str(row.undominated),
            str(row.unreachable),
            "the same" if row.same_violations else "DIFFER",
        ]
        for row in rows
    ]
    return table(_HEAD, cells, emphasis=is_terminal(), left=1)
