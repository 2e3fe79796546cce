"""Is a kernel safe? Every interleaving of a few operations on a few CPUs.

>>> import tlbcore
>>> verdict = tlbcore.check("linux-6.18", ["munmap", "page_mkclean"])
>>> verdict.safe
True
>>> tlbcore.check("linux-5.10", ["munmap", "page_mkclean"]).violated
('I4',)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tlbcore import _core, kernels
from tlbcore.errors import InputError
from tlbcore.finding import name_of, pack
from tlbcore.given import bound_seconds, several, whole_number, wrong_kind
from tlbcore.lookup import find, nearest
from tlbcore.plain_words import in_plain_words
from tlbcore.report.columns import columns
from tlbcore.report.html import html_columns
from tlbcore.report.table import counted
from tlbcore.results import Cell, Result
from tlbcore.scheme import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlbcore.kernel import Kernel

__all__ = ["INVARIANTS", "Event", "Size", "UnsafeError", "Verdict", "check"]

#: The invariants by their short names: what a violation of each means.
INVARIANTS: dict[str, str] = {name: says for name, _, says in _core.invariants()}

#: What `check` looks for unless told.
DEFAULT_INVARIANTS = ("I1", "I2", "I3", "I4", "I5")

#: What it looks for as well where page tables are objects (`whole_tables`).
TABLE_INVARIANTS = ("I6",)
#: What there is only with the flush engine, and what brings that.
ENGINE_INVARIANTS = ("I8", "I9")
_ENGINES = ("generations", "switches", "lazy", "by_active_mm")

#: Reductions that keep shortest counterexamples; each can be switched off.
DEFAULT_REDUCTIONS = ("saturate", "urgent", "symmetry", "dead")


class UnsafeError(AssertionError):
    """`Verdict.assert_safe` found a violation, or a search that was not through."""


@dataclass(frozen=True)
class Event:
    """One step of a counterexample."""

    #: The CPU on which it happens: kernel threads come first, then user CPUs.
    cpu: int
    #: What runs there.
    who: str
    #: What happens, in the kernel's words.
    text: str
    #: The hardware does it.
    hardware: bool


@dataclass(frozen=True)
class Size:
    """How large a scenario was, and what its search came to."""

    users: int
    pages: int
    #: Nothing was violated, and all was searched.
    safe: bool
    states: int
    #: As in `Verdict.projections`.
    projections: int | None


@dataclass(frozen=True, repr=False)
class Verdict(Result):
    """What a search found, and how far it went."""

    kernel: str
    safe: bool
    #: The short names of the invariants that the last state of the counterexample violates.
    violated: tuple[str, ...]
    #: The short names of the invariants that were looked at.
    checked: tuple[str, ...]
    counterexample: tuple[Event, ...]
    #: The numbers of the actions: the counterexample for a machine.
    path: tuple[int, ...]
    #: What each state of the counterexample looks like, the first one before any event.
    snapshots: tuple[dict[str, Any], ...]
    states: int
    transitions: int
    depth: int
    #: Why the search ended early; None: it was through.
    stopped: str | None
    #: The bounds within which the verdict holds.
    bounds: dict[str, object]
    #: The locks that the programs take, which the verdict relies on.
    locks: tuple[str, ...]
    cpus: tuple[str, ...]
    seconds: float
    #: `saturating` (its states are maximal ones) or `plain`.
    engine: str = "plain"
    state_bits: int = field(compare=False, default=0)
    #: What kernel threads and pages came to, whatever the user CPUs hold; the saturating engine counts it. Where it
    #: does not grow with the number of user CPUs, that is evidence, not proof, that more of them change nothing.
    projections: int | None = None
    #: What was explored, as the core takes it.
    scenario: dict[str, Any] = field(compare=False, default_factory=dict)
    #: The counterexample as one word, for `tlbcore check --replay` (`tlbcore.finding`); empty if there is none, or if no
    #: name leads to the kernel.
    finding: str = field(compare=False, default="")
    #: The sizes tried, from small to large, if there were several (`tlbcore.widen`).
    sizes: tuple[Size, ...] = field(compare=False, default=())

    @property
    def turns(self) -> int:
        """Runs of steps of one CPU in the counterexample, without what hardware does."""
        cpus = [event.cpu for event in self.counterexample if not event.hardware]
        return sum(before != after for before, after in zip([None, *cpus], cpus, strict=False))

    def diagram(self, width: int = 75) -> str:
        """The counterexample in columns, one for each CPU, as in commit messages."""
        ends = [INVARIANTS[name] for name in self.violated]
        return columns(self.cpus, [(event.cpu, event.text) for event in self.counterexample], ends, width)

    def assert_safe(self) -> None:
        """Nothing.

        Raises:
            UnsafeError: Something is violated (the message has the counterexample), or not everything was searched.

        """
        if self.violated:
            raise UnsafeError(f"{self}\n\n{self.diagram()}")
        if not self.safe:
            raise UnsafeError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain structures."""
        return asdict(self)

    def to_rows(self) -> list[dict[str, Cell]]:
        """The counterexample, a row for each step; none if nothing is violated."""
        return [
            {"step": step, "cpu": event.cpu, "who": event.who, "what": event.text, "hardware": event.hardware}
            for step, event in enumerate(self.counterexample, 1)
        ]

    def _repr_html_(self) -> str:
        """The counterexample in columns, as a notebook shows it."""
        ends = [INVARIANTS[name] for name in self.violated]
        return html_columns(str(self), self.cpus, [(event.cpu, event.text) for event in self.counterexample], ends)

    def __str__(self) -> str:
        """One line."""
        return self.headline()

    def headline(self) -> str:
        """One line: what is violated, or within which bounds nothing is."""
        if self.violated:
            says = "; ".join(f"{name}: {INVARIANTS[name]}" for name in self.violated)
            if not self.counterexample:
                return f"{self.kernel}: UNSAFE, the search for a trace stopped by {self.stopped} ({says})"
            return f"{self.kernel}: UNSAFE after {counted(len(self.counterexample), 'step')} ({says})"
        size = f"{counted(self.states, 'state')}, {self.seconds:.2f} s"
        bounds = ", ".join(f"{name} {value}" for name, value in self.bounds.items())
        if self.sizes:
            states = counted(sum(tried.states for tried in self.sizes), "state")
            size = f"{counted(len(self.sizes), 'size')}, {states}, {self.seconds:.2f} s"
        if not self.safe:
            return f"{self.kernel}: undecided, stopped by {self.stopped} after {size} ({bounds})"
        return f"{self.kernel}: safe for {' '.join(self.checked)} within {bounds} ({size})"


#: What a kernel thread can run: a program of the kernel, or one that is made of some.
_KNOWN = (*OPERATIONS, "truncate", "gup_fast")


def _threads(operations: Sequence[str | Mapping[str, object]]) -> list[dict[str, object]]:
    threads: list[dict[str, object]] = []
    for item in several("operations", operations):
        if not isinstance(item, str | Mapping):
            raise wrong_kind("operations", item, 'a name such as "munmap" or a dictionary with one as `operation`')
        threads.append({"operation": item} if isinstance(item, str) else dict(item))
    for thread in threads:
        name = str(thread.get("operation", ""))
        if name not in _KNOWN:
            expected = f"{', '.join(_KNOWN)}{nearest(name, _KNOWN)}"
            raise InputError(f"scenario: found operation {name}, expected one of {expected}")
    return threads


def refuse_what_cannot_be(invariants: Sequence[str], *, whole_tables: bool, engine: Mapping[str, bool]) -> None:
    """Refuse invariants of what the scenario does not have: that these hold would say nothing.

    Raises:
        InputError: There is one.
    """
    for name in invariants:
        if name in TABLE_INVARIANTS and not whole_tables:
            raise InputError(f"invariant: found {name} without page tables as objects, expected whole_tables as well")
        if name in ENGINE_INVARIANTS and not any(engine.get(word) for word in _ENGINES):
            raise InputError(f"invariant: found {name} without the flush engine, expected one of {', '.join(_ENGINES)}")


def check(  # noqa: PLR0913  # what to run, on what, how far
    kernel: str | Kernel,
    operations: Sequence[str | Mapping[str, object]],
    *,
    users: int = 1,
    pages: int | Sequence[Mapping[str, object]] = 1,
    kind: str = "file",
    faults: int = 0,
    spare_frames: int | None = None,
    engine: Mapping[str, bool] | None = None,
    whole_tables: bool = False,
    shared_tables: bool = False,
    invariants: Sequence[str] | None = None,
    reductions: Sequence[str] = DEFAULT_REDUCTIONS,
    states: int | None = None,
    seconds: float | None = None,
    memory_bytes: int | None = None,
    depth: int | None = None,
    threads: int = 1,
    is_over: Callable[[], bool] | None = None,
    progress: Callable[[int, int, int], object] | None = None,
    kernel_json: str | None = None,
) -> Verdict:
    """Run operations of a kernel against each other in every order.

    Args:
        kernel: A kernel or its name, as `kernels.get` takes it.
        operations: One kernel thread each: the name of a program, or a dictionary with `operation` and `first`, `count`
            (its pages), `write`, `none` (mprotect with PROT_NONE), `other_table`.
        users: CPUs that load and store at will.
        pages: So many pages of one VMA in one page table, or one dictionary for each: `kind` (file, anon), `table`,
            `vma`, `mapped` (none, read, write, dirty), `frame`, `huge` (alone in its table), `exec`, `pfn` (a driver's
            memory, mapped without references).
        kind: What `pages` hold, if it is a number.
        faults: Threads that take a page fault wherever the hardware would raise one, again and again.
        spare_frames: Page frames that can be allocated.
        engine: What the flush engine has (`generations`, `switches`, `lazy`, `by_active_mm`, `tlbi`,
            `batches_fill`, `fullmm_is_not_flushed`), and bugs that no scheme expresses, each a name and true: of the flush
            engine (`docs/explorer.md`, section 2), and of the gather `nested_finish_forgets_tables`,
            `lone_table_freed_unflushed`, `table_flush_trusts_last_vma`, `pfnmap_unlinked_unflushed`.
        whole_tables: The pages are all that their page tables hold: tables are freed, and move, as a whole.
        shared_tables: Another process maps all pages by the same tables, as hugetlb does; with `whole_tables`.
        invariants: What to look for, by short names; without: I1 to I5, and I6 with `whole_tables`.
        reductions: Of `saturate`, `urgent`, `symmetry`, `dead`: each keeps verdicts and shortest counterexamples.
        states: At most so many states.
        seconds: At most so much wall time.
        memory_bytes: At most so much memory.
        depth: At most so many steps.
        threads: Threads of the search.
        is_over: Asked now and then; once it says true, the search stops with what it has.
        progress: Called now and then with states stored, states waiting, and depth.
        kernel_json: What `Kernel.to_json` says of the kernel, for those who ask much about one.

    Raises:
        InputError: A scenario that cannot be, or a step that the explorer cannot run.

    """
    for name, bound, most in (
        ("states", states, 2**64 - 1),
        ("memory", memory_bytes, 2**64 - 1),
        ("depth", depth, 2**32 - 1),
    ):
        if bound is not None:
            whole_number(name, bound, most=most)
    whole_number("threads", threads, least=1, most=2**32 - 1)
    seconds = bound_seconds("seconds", seconds)
    found = kernels.get(kernel)
    text = found.to_json() if kernel_json is None else kernel_json
    for page in () if isinstance(pages, int) else several("pages", pages):
        if not isinstance(page, Mapping):
            raise wrong_kind("pages", page, "a number, or a dictionary for each, such as {'kind': 'file'}")
    if not isinstance(engine or {}, Mapping):
        raise wrong_kind("engine", engine, "a dictionary, such as {'generations': True}")
    specs = [{"kind": kind}] * pages if isinstance(pages, int) else [dict(page) for page in pages]
    scenario = {
        "users": users,
        "pages": specs,
        "threads": _threads(operations),
        "faults": faults,
        "spare_frames": spare_frames,
        "engine": dict(engine or {}),
        "whole_tables": whole_tables,
        "shared_tables": shared_tables,
    }
    if invariants is None:
        invariants = (*DEFAULT_INVARIANTS, *(TABLE_INVARIANTS if whole_tables else ()))
    names = [find("invariant", name, INVARIANTS) for name in several("invariants", invariants)]
    refuse_what_cannot_be(names, whole_tables=whole_tables, engine=engine or {})
    options = {
        "invariants": names,
        "reductions": list(reductions),
        "states": states,
        "seconds": seconds,
        "memory_bytes": memory_bytes,
        "depth": depth,
        "threads": threads,
    }
    with in_plain_words():
        answer = json.loads(_core.explore(text, json.dumps(scenario), json.dumps(options), is_over, progress))
    trace = answer["counterexample"] or {"events": [], "path": [], "states": []}
    named = name_of(kernel) if trace["path"] else None
    bounds: dict[str, object] = {"users": users, "pages": len(specs), "faulting threads": faults}
    bounds |= {
        name: value
        for name, value in (("states", states), ("seconds", seconds), ("memory_bytes", memory_bytes), ("depth", depth))
        if value is not None
    }
    return Verdict(
        kernel=found.name,
        safe=answer["safe"],
        violated=tuple(answer["violated"]),
        checked=tuple(answer["checked"]),
        counterexample=tuple(Event(**event) for event in trace["events"]),
        path=tuple(trace["path"]),
        snapshots=tuple(trace["states"]),
        states=answer["states"],
        transitions=answer["transitions"],
        depth=answer["depth"],
        stopped=answer["stopped"],
        bounds=bounds,
        locks=tuple(answer["locks"]),
        cpus=tuple(answer["cpus"]),
        seconds=answer["seconds"],
        engine=answer["engine"],
        state_bits=answer["state_bits"],
        projections=answer.get("projections"),
        scenario=scenario,
        finding=pack(named, scenario, names, trace["path"]) if named else "",
    )
