"""Which steps of a scheme does safety hang on? Each step is dropped, swapped or moved, and the mutant explored.

>>> import tlbcore
>>> report = tlbcore.mutate("per-table", operations=["mremap"], steps=["flush_tlb_range"])
>>> [(m.kind, m.path, m.violated) for m in report.unsafe if m.kind == "drop"]
[('drop', 'mremap[4].when[2].for_each_extent[6].when[0]', ('I2',))]
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core, kernels, scheme_lookup
from tlbcore.errors import InputError, TlbcoreError
from tlbcore.given import several, whole_number
from tlbcore.lookup import find, nearest
from tlbcore.mutants import Mutant, mutants
from tlbcore.mutation_trial import Finding, Trial
from tlbcore.report.table import counted
from tlbcore.results import Cell, Result
from tlbcore.scheme import OPERATIONS, Scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from tlbcore.kernel import Kernel

__all__ = ["WHY", "Mutation", "MutationReport", "mutate"]

#: Why a mutant survives, as far as that can be known.
WHY: Final = {
    "unreached": "the explorer never comes to the step: huge pages, zero pages, parts of an operation that it leaves out",
    "not modelled": "the step acts on something that the model has not: without it the small steps are the same",
    "result": "alone or before or after another, the operation leaves something else behind: no invariant asks for that",
    "flushes": "only the number of flushes differs: it is there for speed, or a longer run is needed to see why",
    "on request": "only an invariant that is not asked for by default notices it",
    "unnoticed": "redundant within these bounds, or an invariant is missing",
}

#: The kernels in which a scheme is looked for, if none is named.
_WHERE: Final = ("linux-6.18", "consolidated", "linux-5.10")


@dataclass(frozen=True)
class Mutation:
    """A mutant and what became of it."""

    operation: str
    #: ``drop`` (a step that opens something goes with what closes it), ``swap`` (with the next), or ``move`` (out of its
    #: locked section, over its end or its beginning).
    kind: str
    #: The step, as `munmap[2].for_each_vma[0]`.
    path: str
    step: str
    #: The change in the kernel's words.
    change: str
    #: ``unsafe``, ``survives``, ``refused`` or ``undecided``.
    outcome: str
    #: Why it survives (a key of `WHY`), is refused, or undecided.
    why: str = ""
    violated: tuple[str, ...] = ()
    #: The scenario of the shortest counterexample, in words.
    scenario: str = ""
    #: Steps of the shortest counterexample.
    length: int = 0
    #: How many scenarios of that size notice it, of those that were tried.
    nr_noticed: int = 0
    nr_tried: int = 0


@dataclass(frozen=True, repr=False)
class MutationReport(Result):
    """What became of all mutants of a scheme's programs in a kernel."""

    scheme: str
    kernel: str
    mutations: tuple[Mutation, ...]
    #: Violations of the scheme as it is: scenario and invariants. What it violates there, its mutants may too.
    baseline: tuple[Finding, ...]
    #: Ctrl-C or an error of another kind ended it early.
    partial: bool = False
    nr_mutants: int = 0
    bounds: dict[str, object] = field(default_factory=dict)

    @property
    def safe(self) -> bool:
        """The scheme itself violates nothing, as far as all scenarios tell."""
        return not self.partial and not self.baseline

    @property
    def unsafe(self) -> tuple[Mutation, ...]:
        """The mutants that violate an invariant which the scheme does not."""
        return self._of("unsafe")

    @property
    def survivors(self) -> tuple[Mutation, ...]:
        """The mutants that no invariant notices."""
        return self._of("survives")

    @property
    def refused(self) -> tuple[Mutation, ...]:
        """The mutants that cannot run."""
        return self._of("refused")

    @property
    def undecided(self) -> tuple[Mutation, ...]:
        """The mutants whose search was cut short, and that nothing has noticed until then."""
        return self._of("undecided")

    def _of(self, outcome: str) -> tuple[Mutation, ...]:
        return tuple(mutation for mutation in self.mutations if mutation.outcome == outcome)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain structures."""
        return asdict(self) | {"safe": self.safe}

    def to_rows(self) -> list[dict[str, Cell]]:
        """A row for each mutant."""
        return [asdict(mutation) | {"violated": " ".join(mutation.violated)} for mutation in self.mutations]

    def headline(self) -> str:
        """One line: how many mutants, and what became of them."""
        return (
            f"{self.scheme} in {self.kernel}: {counted(len(self.mutations), 'mutant')}, unsafe {len(self.unsafe)}, survive"
            f" {len(self.survivors)}, cannot run {len(self.refused)}, undecided {len(self.undecided)}"
        )


def mutate(  # noqa: PLR0913 - what to mutate, and how far to look
    scheme: str | Scheme,
    kernel: str | Kernel | None = None,
    *,
    operations: Sequence[str] | None = None,
    steps: Collection[str] | None = None,
    partners: Sequence[str] | None = None,
    states: int = 300_000,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> MutationReport:
    """Mutate the programs of a scheme and explore each mutant beside the other operations of a kernel.

    Args:
        scheme: A scheme or its name, as `scheme_lookup.get` takes it.
        kernel: The kernel that it is part of, or its name; the programs that this kernel has of the scheme are taken as
            they are there, the others are put in. Without: the first of linux-6.18, consolidated and linux-5.10 that has
            the scheme.
        operations: Only the programs of these.
        steps: Only steps of these names.
        partners: The operations beside which mutants run; without: all that the kernel has, truncation, page faults.
        states: At most so many states in each search.
        threads: Mutants explored at a time; the report is the same.
        progress: Called with the mutants done and all of them.

    Raises:
        InputError: A scheme, a kernel, an operation or a step that cannot be.

    """
    whole_number("threads", threads, least=1, most=2**32 - 1)
    whole_number("states", states)
    found = scheme_lookup.get(scheme)
    if kernel is None:
        home = next((name for name in _WHERE if _serves(kernels.get(name), found)), _WHERE[0])
        where = kernels.get(home)
    else:
        where = kernels.get(kernel)
    if operations is not None:
        several("operations", operations)
    for step in steps or ():
        find("step", step, _core.step_names())
    trials: list[Trial] = []
    jobs: list[tuple[Trial, Mutant]] = []
    for operation, home_of, names in _programs(found, where, operations):
        trial = Trial(home_of, operation, states=states, partners=partners)
        wanted = names if steps is None else (set(steps) if names is None else names & set(steps))
        trials.append(trial)
        jobs += [(trial, mutant) for mutant in mutants(operation, trial.program, wanted)]
    done, partial = _run(jobs, threads, progress)
    seen = trials if not partial else list(dict.fromkeys(trial for trial, _ in jobs[: len(done)]))
    baseline = tuple(finding for trial in seen for finding in trial.baseline_findings)
    return MutationReport(
        scheme=type(found).__name__,
        kernel=where.name,
        mutations=tuple(done),
        baseline=baseline,
        partial=partial,
        nr_mutants=len(jobs),
        bounds={"users": 1, "pages": 2, "tables": 2, "states": states},
    )


def _serves(kernel: Kernel, scheme: Scheme) -> bool:
    return any(type(other) is type(scheme) for other in kernel.schemes.values())


def _programs(
    scheme: Scheme, kernel: Kernel, wanted: Sequence[str] | None
) -> Iterator[tuple[str, Kernel, set[str] | None]]:
    """Each program to be mutated: its operation, the kernel that has it, and the names of its steps (none: all)."""
    section = getattr(scheme, "section", None)
    names: set[str] | None = None
    served = scheme.operations()
    if not served and section is not None:
        # A scheme without programs of its own is steps in those of others.
        names = {step.name for step in section()}
        served = OPERATIONS
    for operation in wanted or ():
        if operation not in served:
            expected = f"{', '.join(served) or 'none'}{nearest(operation, served)}"
            raise InputError(f"scheme {type(scheme).__name__}: found operation {operation}, expected one of {expected}")
    for operation in served:
        if wanted is not None and operation not in wanted:
            continue
        if names is None and type(kernel.schemes.get(operation)) is not type(scheme):
            own: dict[str, Any] = {operation: scheme}
            yield operation, kernel.derive(kernel.name, **own), None
        else:
            yield operation, kernel, names


def _run(
    jobs: Sequence[tuple[Trial, Mutant]], threads: int, progress: Callable[[int, int], None] | None
) -> tuple[list[Mutation], bool]:
    """Explores the mutants; what was done, and whether that is not all."""
    done: list[Mutation] = []

    def explore(job: tuple[Trial, Mutant]) -> Mutation:
        trial, mutant = job
        return Mutation(
            mutant.operation, mutant.kind, mutant.path, mutant.step, mutant.change, **_outcome(trial, mutant)
        )

    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        for mutation in pool.map(explore, jobs):
            done.append(mutation)
            if progress is not None:
                progress(len(done), len(jobs))
    except KeyboardInterrupt:
        return done, True
    finally:
        pool.shutdown(cancel_futures=True)
    return done, False


def _outcome(trial: Trial, mutant: Mutant) -> dict[str, Any]:
    """What a mutation says of its exploration."""
    try:
        trial.validate(mutant.program)
    except TlbcoreError as error:
        return {"outcome": "refused", "why": str(error).split(": ", 2)[-1]}
    found = trial.explore(mutant)
    common = {"nr_tried": found.nr_tried}
    if found.shortest is not None:
        return common | {
            "outcome": "unsafe",
            "violated": found.shortest.violated,
            "scenario": found.shortest.scenario,
            "length": found.shortest.length,
            "nr_noticed": found.nr_noticed,
        }
    if found.refused:
        return {"outcome": "refused", "why": found.refused}
    if found.stopped:
        return common | {"outcome": "undecided", "why": found.stopped}
    return common | {"outcome": "survives", "why": trial.why_it_survives(mutant, found)}
