"""`tlbcore check --mutate`: which steps of a scheme safety hangs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import print_json
from tlbcore.given import whole_number
from tlbcore.mutate import WHY, mutate
from tlbcore.progress import Progress
from tlbcore.report.mutation import CHANGE, grouped, reasons
from tlbcore.report.table import counted, is_terminal, table

if TYPE_CHECKING:
    import argparse

    from tlbcore.mutate import MutationReport

#: At most so many states of each search, unless told.
_STATES = 300_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The option, and those that only it has."""
    group = parser.add_argument_group("mutation")
    group.add_argument(
        "--mutate",
        metavar="SCHEME",
        help="drop, swap or move each step of a scheme's programs in turn, and explore each beside the kernel's other"
        " operations; with --op only the programs of these",
    )
    group.add_argument("--kernel", dest="mutate_kernel", metavar="KERNEL", help="the kernel that the scheme is part of")
    group.add_argument("--jobs", type=int, metavar="N", help="mutants explored at a time (1)")


def run(args: argparse.Namespace) -> int:
    """Mutate and print; 1 only if the scheme itself is unsafe."""
    jobs = 1 if args.jobs is None else args.jobs
    whole_number("--jobs", jobs, least=1, most=2**32 - 1)
    with Progress("mutants") as progress:
        report = mutate(
            args.mutate,
            args.mutate_kernel or args.kernel,
            operations=args.op,
            states=args.states or _STATES,
            threads=jobs,
            progress=progress,
        )
    if args.json:
        print_json(report.to_dict())
    else:
        show(report)
    # What was not tried is no proof.
    return OK if report.safe and not report.partial else NEGATIVE


def show(report: MutationReport) -> None:
    """Print what was found."""
    bounds = ", ".join(f"{name} {value}" for name, value in report.bounds.items())
    done = len(report.mutations)
    print(f"{report.scheme} in {report.kernel}: {counted(done, 'mutant')}, up to {bounds}")
    if report.partial:
        print(f"interrupted: {done} of {report.nr_mutants}")
    print(
        f"unsafe {len(report.unsafe)}, survive {len(report.survivors)}, cannot run {len(report.refused)},"
        f" undecided {len(report.undecided)}"
    )
    for finding in report.baseline:
        print(f"as it is: UNSAFE, {' '.join(finding.violated)} after {finding.length} steps, {finding.scenario}")
    print("\nUnsafe")
    rows = [
        [
            CHANGE[g.kind],
            g.change,
            " ".join(g.violated),
            str(g.shortest.length),
            g.shortest.scenario,
            " ".join(g.operations),
        ]
        for g in grouped(report.unsafe)
    ]
    head = ["", "step", "violates", "steps", "shortest", "programs"]
    print(table(head, rows, emphasis=is_terminal(), left=len(head)))
    survivors = grouped(report.survivors)
    for why, says in WHY.items():
        chosen = [group for group in survivors if group.why == why]
        if not chosen:
            continue
        print(f"\nSurvive, {why}: {says}")
        rows = [[CHANGE[g.kind], g.change, g.mutations[0].path, " ".join(g.operations)] for g in chosen]
        print(table(["", "step", "first at", "programs"], rows, emphasis=is_terminal(), left=4))
    for title, others in (("Cannot run", report.refused), ("Undecided", report.undecided)):
        if others:
            print(f"\n{title}")
            rows = [[why, str(count)] for why, count in reasons(others)]
            print(table(["why", "mutants"], rows, emphasis=is_terminal(), left=1))
