"""The hunt: all pairs (or triples) of a kernel's operations, on ranges that meet in every way, from small to large.

>>> import tlbcore
>>> found = tlbcore.hunt("linux-5.10", operations=["madvise_dontneed", "page_mkclean"], users=1, pages=1, faults=0)
>>> found.violated
('I4',)
>>> print(found.findings[0])
madvise_dontneed x page_mkclean (file, same range, 1 user CPU, 1 page; 11 steps)
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tlbcore import _core, kernels
from tlbcore.check import DEFAULT_INVARIANTS, INVARIANTS, TABLE_INVARIANTS, Verdict, check, refuse_what_cannot_be
from tlbcore.errors import InputError
from tlbcore.given import bound_seconds, several, whole_number
from tlbcore.hunt.findings import Cause, Finding, Hunt, SizeCount, grouped
from tlbcore.hunt.plan import KINDS, Operation, Scenario, Size, groups, left_out, operations, scenarios, sizes
from tlbcore.lookup import find, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tlbcore.kernel import Kernel

__all__ = ["Cause", "Finding", "Hunt", "Operation", "Progress", "SizeCount", "hunt"]

#: At most so many maximal states for one scenario, unless told: some seconds, and half a gigabyte.
DEFAULT_STATES = 3_000_000

#: Operations at the same time: the set, and what its pages hold.
Group = tuple[str, tuple[Operation, ...]]


@dataclass(frozen=True)
class Progress:
    """How far a hunt is."""

    size: Size
    threads: int
    #: Sets of operations done, of this size.
    done: int
    of: int
    #: Maximal states of the hunt so far.
    states: int
    findings: int


@dataclass
class _Outcome:
    """What came of one set of operations at one size."""

    verdicts: list[tuple[Scenario, Verdict]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    settled: int = 0
    #: Scenarios that were stopped or not begun.
    left: int = 0


@dataclass(kw_only=True)
class _Hunter:
    """A running hunt."""

    kernel: Kernel
    number: int
    chosen: Sequence[Operation]
    kinds: Sequence[str]
    plan: Sequence[Size]
    invariants: tuple[str, ...]
    states: int
    seconds: float | None
    engine: Mapping[str, bool] | None
    whole_tables: bool
    workers: int
    progress: Callable[[Progress], None] | None
    kernel_json: str
    since: float = field(default_factory=time.monotonic)
    asked: threading.Event = field(default_factory=threading.Event)
    #: Invariants that a set of operations is known to violate.
    known: defaultdict[Group, set[str]] = field(default_factory=lambda: defaultdict(set))
    findings: list[Finding] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    #: The first who was refused, by reason.
    refused: dict[str, str] = field(default_factory=dict)
    #: Operations that are refused on their own.
    refusing: set[Group] = field(default_factory=set)
    counts: list[SizeCount] = field(default_factory=list)
    #: Of each scenario, by the number of user CPUs too.
    projections: dict[tuple[object, ...], int] = field(default_factory=dict)
    #: States of what ended, for progress.
    nr_told: int = 0

    def is_over(self) -> bool:
        """Whether to stop: somebody asked, or the time is over."""
        return self.asked.is_set() or (self.seconds is not None and time.monotonic() - self.since > self.seconds)

    def masked(self, group: Group) -> set[str]:
        """The invariants that some of the operations are known to violate on their own, or all of them together."""
        kind, ops = group
        found = set(self.known.get(group, ()))
        for number in range(1, len(ops)):
            for smaller in set(combinations(ops, number)):
                found |= self.known.get((kind, smaller), set())
        return found

    def search(self, group: Group, size: Size, masked: set[str]) -> _Outcome:
        """All scenarios of a set of operations at a size; each invariant until it is violated once."""
        kind, ops = group
        outcome = _Outcome()
        masked = set(masked)
        for scenario in scenarios(ops, kind, size, whole_tables=self.whole_tables):
            while True:
                wanted = [name for name in self.invariants if name not in masked and name not in scenario.without]
                if not wanted:
                    outcome.settled += 1
                    break
                if self.is_over():
                    outcome.left += 1
                    break
                try:
                    verdict = check(
                        self.kernel,
                        **self.arguments(scenario, size, wanted),
                        states=self.states,
                        is_over=self.is_over,
                        kernel_json=self.kernel_json,
                    )
                except InputError as error:
                    outcome.refused.append(str(error))
                    break
                if not verdict.violated and verdict.stopped == "a request to stop":
                    outcome.left += 1
                    break
                outcome.verdicts.append((scenario, verdict))
                if not verdict.violated:
                    break
                masked |= set(verdict.violated)
        return outcome

    def arguments(self, scenario: Scenario, size: Size, invariants: Iterable[str]) -> dict[str, Any]:
        """The arguments of `check` for a scenario."""
        found: dict[str, Any] = {
            "operations": [dict(thread) for thread in scenario.threads],
            "users": size.users,
            "pages": [dict(page) for page in scenario.pages],
            "faults": size.faults,
            "invariants": tuple(invariants),
        }
        found |= {"whole_tables": True} if self.whole_tables else {}
        return found | ({"engine": dict(self.engine)} if self.engine else {})

    def take(self, group: Group, size: Size, outcome: _Outcome, count: SizeCount) -> None:
        """Keep what came of a set of operations."""
        kind, ops = group
        names = tuple(map(str, ops))
        unsafe: set[int] = set()
        for scenario, verdict in outcome.verdicts:
            count.states += verdict.states
            for name in verdict.violated:
                self.known[group].add(name)
                arguments = self.arguments(scenario, size, verdict.checked)
                self.findings.append(Finding(name, names, kind, scenario.relation, size, arguments, verdict))
            if verdict.violated:
                unsafe.add(id(scenario))
            elif verdict.safe:
                count.safe += id(scenario) not in unsafe
                self.compare(scenario, size, verdict, count)
            else:
                count.undecided += 1
                where = f"{kind}, {scenario.relation}, {size}: {verdict.stopped}"
                self.undecided.append(f"{' x '.join(names)} ({where})")
        count.unsafe += len(unsafe)
        for reason in outcome.refused:
            if len(ops) == 1:
                self.refusing.add(group)
            self.refused.setdefault(reason, f"{' x '.join(names)} ({kind}, {size})")
        count.refused += len(outcome.refused)
        count.left += outcome.left
        count.settled += outcome.settled

    def compare(self, scenario: Scenario, size: Size, verdict: Verdict, count: SizeCount) -> None:
        """Whether one user CPU more let threads and pages come to anything new."""
        if verdict.projections is None:
            return
        key = (str(scenario), size.pages, size.faults, verdict.checked)
        fewer = self.projections.get((*key, size.users - 1))
        self.projections[*key, size.users] = verdict.projections
        if fewer is not None:
            count.compared += 1
            count.same_projections += fewer == verdict.projections

    def run_size(self, size: Size, number: int, pool: ThreadPoolExecutor) -> None:
        """All sets of so many operations at a size, in the order of the plan whatever ends first."""
        count = SizeCount(size, number)
        self.counts.append(count)
        todo = [(kind, ops) for kind in self.kinds for ops in groups(self.chosen, kind, number)]
        todo = [group for group in todo if not any((group[0], (op,)) in self.refusing for op in group[1])]
        futures = [pool.submit(self.search, group, size, self.masked(group)) for group in todo]
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                self.tell(size, number, len(todo) - len(waiting), len(todo), done)
        except KeyboardInterrupt:
            self.asked.set()
            wait(futures)
        for group, future in zip(todo, futures, strict=True):
            outcome = future.result()
            count.scenarios += outcome.left + outcome.settled + len(outcome.refused)
            count.scenarios += len({id(scenario) for scenario, _ in outcome.verdicts})
            self.take(group, size, outcome, count)

    def tell(self, size: Size, number: int, done: int, of: int, ended: Iterable[Any]) -> None:
        """Report progress."""
        if self.progress is not None:
            outcomes = [future.result() for future in ended]
            self.nr_told += sum(v.states for outcome in outcomes for _, v in outcome.verdicts)
            self.progress(Progress(size, number, done, of, self.nr_told, len(self.findings)))

    def run(self) -> Hunt:
        """Hunt."""
        with ThreadPoolExecutor(self.workers) as pool:
            for size in self.plan:
                for number in range(1, self.number + 1):
                    if not self.is_over():
                        self.run_size(size, number, pool)
        return self.result()

    def result(self) -> Hunt:
        """What there is."""
        begun = {(count.size, count.threads) for count in self.counts}
        for size in self.plan:
            for number in range(1, self.number + 1):
                if (size, number) not in begun:
                    sets = sum(len(groups(self.chosen, kind, number)) for kind in self.kinds)
                    self.counts.append(SizeCount(size, number, left=sets))
        stopped = "Ctrl-C" if self.asked.is_set() else "the bound on time" if any(c.left for c in self.counts) else None
        bounds: dict[str, object] = {"sizes": [str(size) for size in self.plan], "states": self.states}
        if self.whole_tables:
            bounds["whole_tables"] = True
        if self.seconds is not None:
            bounds["seconds"] = self.seconds
        return Hunt(
            kernel=self.kernel.name,
            threads=self.number,
            operations=tuple(map(str, self.chosen)),
            causes=grouped(self.findings),
            counts=tuple(self.counts),
            refused=left_out(self.chosen, self.kinds) | {where: reason for reason, where in self.refused.items()},
            undecided=tuple(self.undecided),
            stopped=stopped,
            invariants=self.invariants,
            seconds=time.monotonic() - self.since,
            bounds=bounds,
            masked={
                f"{' x '.join(map(str, ops))} ({kind})": tuple(sorted(names))
                for (kind, ops), names in self.known.items()
            },
        )


def _chosen(names: Sequence[str] | None, *, whole_tables: bool) -> list[Operation]:
    known = {str(operation): operation for operation in operations(whole_tables=whole_tables)}
    if names is None:
        return list(known.values())
    for name in names:
        if name not in known:
            raise InputError(f"operations: found {name}, expected one of {', '.join(known)}{nearest(name, known)}")
    return [operation for name, operation in known.items() if name in names]


def hunt(  # noqa: PLR0913  # what to run, on what, how far
    kernel: str | Kernel,
    threads: int = 2,
    *,
    operations: Sequence[str] | None = None,
    kinds: Sequence[str] = KINDS,
    users: int = 2,
    pages: int = 2,
    faults: int = 1,
    invariants: Sequence[str] | None = None,
    states: int = DEFAULT_STATES,
    seconds: float | None = None,
    engine: Mapping[str, bool] | None = None,
    whole_tables: bool = False,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Hunt:
    """Run all sets of a kernel's operations against each other, from the smallest scenarios on.

    Sets of one operation come first, then pairs, then triples, at each size. An invariant that a set of operations
    violates is not looked for again in larger scenarios and sets with the same operations. The result does not depend
    on `workers`, unless the time is over or somebody presses Ctrl-C, which both end the hunt with what it has.

    Args:
        kernel: A kernel or its name, as `kernels.get` takes it.
        threads: Operations at the same time: 2 for all pairs, 3 for all triples.
        operations: Only these (without: all that kernels have, in each way of `tlbcore.hunt.plan.operations`).
        kinds: What the pages hold: file, anon.
        users: User CPUs, at most.
        pages: Pages, at most.
        faults: Threads that take page faults, at most.
        invariants: What to look for, by short names; without: I1 to I5, and I6 with `whole_tables`.
        states: At most so many maximal states for each scenario.
        seconds: At most so much wall time for all.
        engine: Bugs of the flush engine, as `check` takes them.
        whole_tables: The pages are all that their page tables hold, and GUP-fast is an operation, as `check` has it.
        workers: Threads of the hunt; as many as there are CPUs if not given.
        progress: Called now and then.

    Raises:
        InputError: An operation, a kind or a number that cannot be.

    """
    found = kernels.get(kernel)
    for name, value, least, most in (
        ("threads", threads, 1, None),
        ("users", users, 1, _core.MAX_USERS),
        ("pages", pages, 1, _core.MAX_PAGES),
        ("faults", faults, 0, None),
    ):
        if value < least:
            raise InputError(f"{name}: found {value}, expected at least {least}")
        if most is not None and value > most:
            raise InputError(f"{name}: found {value}, expected at most {most}")
    whole_number("states", states)
    if workers is not None:
        whole_number("workers", workers, least=1, most=2**32 - 1)
    seconds = bound_seconds("seconds", seconds)
    if operations is not None:
        several("operations", operations)
    for kind in several("kinds", kinds):
        if kind not in KINDS:
            raise InputError(f"kinds: found {kind}, expected some of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    if invariants is None:
        invariants = (*DEFAULT_INVARIANTS, *(TABLE_INVARIANTS if whole_tables else ()))
    names = tuple(find("invariant", name, INVARIANTS) for name in several("invariants", invariants))
    refuse_what_cannot_be(names, whole_tables=whole_tables, engine=engine or {})
    hunter = _Hunter(
        kernel=found,
        number=threads,
        chosen=_chosen(operations, whole_tables=whole_tables),
        kinds=tuple(kinds),
        plan=sizes(users, pages, faults),
        invariants=names,
        states=states,
        seconds=seconds,
        engine=engine,
        whole_tables=whole_tables,
        workers=workers or os.cpu_count() or 1,
        progress=progress,
        kernel_json=found.to_json(),
    )
    return hunter.run()
