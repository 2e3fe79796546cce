"""One program on trial: the scenarios in which its mutants run, what it violates itself, why a mutant survives."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core, mutants
from tlbcore.check import DEFAULT_INVARIANTS, DEFAULT_REDUCTIONS, INVARIANTS
from tlbcore.errors import TlbcoreError
from tlbcore.hunt.plan import KINDS, is_on
from tlbcore.scheme import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tlbcore.kernel import Kernel
    from tlbcore.mutants import Mutant, PlainStep

__all__ = ["Finding", "Trial"]

#: Page faults, wherever the hardware would raise one: not a thread that runs once.
_FAULTS: Final = "fault"
#: How the reason begins for which a search of programs that drop more than they have stops.
_MISCOUNTS: Final = "a counter"
#: Loops that come upon each page table.
_WALKS: Final = ("for_each_table", "for_each_extent")
#: What a snapshot's variables are called that are no bookkeeping of a thread's or of flushing.
_LASTING: Final = ("Dirty(", "Mapcount(", "Refs(", "Lazyfree(", "Cached(", "Lru(", "VmaGone(", "VmaWrite(", "Freer(")


@dataclass(frozen=True)
class Finding:
    """A violation: where, of what, after how many steps."""

    scenario: str
    violated: tuple[str, ...]
    length: int


@dataclass(frozen=True)
class _Scenario:
    """What is explored, and what of it the program as it is does not violate."""

    words: str
    #: Larger scenarios come later.
    size: int
    partner: str
    text: str


@dataclass
class Explored:
    """What became of a mutant in all scenarios."""

    shortest: Finding | None = None
    nr_noticed: int = 0
    nr_tried: int = 0
    #: The bound that cut a search short.
    stopped: str = ""
    #: What the explorer cannot run of it.
    refused: str = ""
    #: Scenarios in which its small steps are not those of the program as it is.
    differing: list[_Scenario] = field(default_factory=list)


class Trial:
    """The program of one operation of a kernel, and the scenarios for it."""

    def __init__(self, kernel: Kernel, operation: str, *, states: int, partners: Sequence[str] | None = None) -> None:
        """Take the program; nothing is explored yet."""
        self._kernel: dict[str, Any] = dict(kernel.resolve())
        self._operation = operation
        self._states = states
        self.program: list[PlainStep] = self._kernel["programs"][operation]
        self._json = json.dumps(self._kernel)
        self._scenarios = tuple(self._all_scenarios(partners))
        self._baseline = lru_cache(maxsize=None)(self._explore_baseline)
        self._ended_of_baseline = lru_cache(maxsize=None)(lambda text: self._ends(self._json, text))

    def _with(self, program: Sequence[PlainStep]) -> str:
        programs = {**self._kernel["programs"], self._operation: list(program)}
        return json.dumps({**self._kernel, "programs": programs})

    def validate(self, program: Sequence[PlainStep]) -> None:
        """Check that the program can run in the kernel.

        Raises:
            ProgramError: It cannot.
        """
        _core.validate_kernel(self._with(program))

    # --- scenarios ---------------------------------------------------------------------------------------------------

    def _all_scenarios(self, partners: Sequence[str] | None) -> Iterator[_Scenario]:
        """Alone and with each partner, on one page, on two, and on two in two tables if the program walks tables."""
        names = [*OPERATIONS, "truncate"] if partners is None else list(partners)
        shapes: list[tuple[str, tuple[int, ...]]] = [("1 page", (0,)), ("2 pages", (0, 0))]
        if any(walk in json.dumps(self.program) for walk in _WALKS):
            shapes.append(("2 pages in 2 tables", (0, 1)))
        for size, (shape, tables) in enumerate(shapes):
            for partner in ("", *names):
                for kind in KINDS:
                    if not all(is_on(name, kind) for name in (self._operation, partner)):
                        continue
                    beside = f"beside {partner}" if partner else "alone"
                    words = f"{self._operation} {beside}, {shape}, {kind}"
                    text = self._scenario(partner, kind, tables)
                    yield _Scenario(words, 2 * size + bool(partner), partner, text)

    def _scenario(self, partner: str, kind: str, tables: tuple[int, ...]) -> str:
        both = [name for name in (self._operation, partner) if name]
        threads = [
            {"operation": name, "other_table": len(tables) > 1 and name == "mremap"} for name in both if name != _FAULTS
        ]
        pages = [{"kind": kind, "table": table} for table in tables]
        return json.dumps({"users": 1, "pages": pages, "threads": threads, "faults": both.count(_FAULTS)})

    # --- exploring ---------------------------------------------------------------------------------------------------

    def _search(
        self, kernel: str, scenario: str, invariants: Sequence[str], depth: int | None = None
    ) -> dict[str, Any]:
        options = {
            "invariants": list(invariants),
            "reductions": list(DEFAULT_REDUCTIONS),
            "states": self._states,
            "depth": depth,
        }
        answer: dict[str, Any] = json.loads(_core.explore(kernel, scenario, json.dumps(options)))
        return answer

    def _listing(self, kernel: str, scenario: str) -> str:
        return _core.explore_listing(kernel, scenario, json.dumps({"invariants": list(INVARIANTS)}))

    def _explore_baseline(self, scenario: _Scenario) -> tuple[tuple[str, ...], tuple[Finding, ...], str] | None:
        """Which invariants the program keeps, what it violates, its small steps; nothing if it cannot be explored."""
        kept: tuple[str, ...] = DEFAULT_INVARIANTS
        findings: list[Finding] = []
        try:
            listing = self._listing(self._json, scenario.text)
            while kept:
                answer = self._search(self._json, scenario.text, kept)
                if answer["safe"]:
                    break
                if not answer["violated"]:
                    return None  # too large for the bounds: nothing can be said of its mutants there
                violated = tuple(answer["violated"])
                findings.append(Finding(scenario.words, violated, len(answer["counterexample"]["path"])))
                kept = tuple(name for name in kept if name not in violated)
        except TlbcoreError:
            return None
        return kept, tuple(findings), listing

    @property
    def baseline_findings(self) -> tuple[Finding, ...]:
        """What the program as it is violates, in all scenarios."""
        found = [self._baseline(scenario) for scenario in self._scenarios]
        return tuple(finding for known in found if known for finding in known[1])

    def explore(self, mutant: Mutant) -> Explored:
        """Explore a mutant in all scenarios of each size, up to the first size at which it is noticed."""
        kernel = self._with(mutant.program)
        explored = Explored()
        size = 0
        for scenario in self._scenarios_by_size():
            if scenario.size != size and explored.shortest is not None:
                break
            size = scenario.size
            known = self._baseline(scenario)
            if known is None:
                continue
            kept, _, listing = known
            try:
                if self._listing(kernel, scenario.text) == listing:
                    continue
                answer = self._search(kernel, scenario.text, kept)
            except TlbcoreError as error:
                explored.refused = str(error).rsplit("cannot run ", 1)[-1]
                break
            explored.nr_tried += 1
            explored.differing.append(scenario)
            if answer["violated"]:
                explored.nr_noticed += 1
                trace = answer["counterexample"]
                length = len(trace["path"]) if trace else answer["depth"]
                if explored.shortest is None or length < explored.shortest.length:
                    explored.shortest = Finding(scenario.words, tuple(answer["violated"]), length)
            elif answer["stopped"] and answer["stopped"].startswith(_MISCOUNTS):
                explored.refused = f"{answer['stopped']}"
            elif answer["stopped"]:
                explored.stopped = f"{answer['stopped']} ({scenario.words})"
        return explored

    def _scenarios_by_size(self) -> list[_Scenario]:
        return sorted(self._scenarios, key=lambda scenario: scenario.size)

    # --- survivors ---------------------------------------------------------------------------------------------------

    def why_it_survives(self, mutant: Mutant, explored: Explored) -> str:
        """Why nothing notices a mutant, as far as that can be known: a key of `mutate.WHY`."""
        if not explored.differing:
            return "not modelled" if self._comes_to(mutant) else "unreached"
        kernel = self._with(mutant.program)
        on_request = [name for name in INVARIANTS if name not in DEFAULT_INVARIANTS]
        flushes_differ = False
        for scenario in explored.differing:
            if _FAULTS in (scenario.partner, self._operation):
                continue
            ends = self._ends(kernel, scenario.text)
            known = self._ended_of_baseline(scenario.text)
            if [end for end, _ in ends] != [end for end, _ in known]:
                return "result"
            flushes_differ |= ends != known
        for scenario in explored.differing:
            noticed = [
                name
                for name in on_request
                if self._search(kernel, scenario.text, [name])["violated"]
                and self._search(self._json, scenario.text, [name])["safe"]
            ]
            if noticed:
                return "on request"
        return "flushes" if flushes_differ else "unnoticed"

    def _comes_to(self, mutant: Mutant) -> bool:
        """Whether the explorer comes to the mutant's step in any scenario."""
        kernel = self._with(mutants.probe(mutant, self.program))
        for scenario in self._scenarios:
            known = self._baseline(scenario)
            if known is None:
                continue
            if self._listing(kernel, scenario.text) != known[2]:
                return True
        return False

    @staticmethod
    def _ends(kernel: str, scenario: str) -> list[tuple[str, int]]:
        """What is left after the threads one after the other, in both orders, and how many flushes were asked for."""
        plain = json.loads(scenario)
        found = []
        for order in (plain["threads"], plain["threads"][::-1]):
            try:
                answer = json.loads(_core.explore_in_order(kernel, json.dumps({**plain, "threads": order})))
            except TlbcoreError as error:
                found.append((str(error), 0))  # one of them waits for ever
                continue
            end = answer["end"]
            lasting = [[name, value] for name, value in end["variables"] if name.startswith(_LASTING)]
            flushes = sum(event["text"].endswith("send IPIs") for event in answer["events"])
            found.append((json.dumps([end["ptes"], lasting]), flushes))
        return found
