"""Do the reductions of the explorer lose or invent states? Each is held against plain search, state by state.

>>> from tlbcore.audit import audit
>>> all(row.clean for row in audit("linux-6.18", ["munmap", "page_mkclean"]))
True
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core, kernels
from tlbcore.check import DEFAULT_INVARIANTS, DEFAULT_REDUCTIONS
from tlbcore.errors import InputError, TlbcoreError
from tlbcore.given import whole_number
from tlbcore.hunt.plan import KINDS, is_on, operations
from tlbcore.mutants import mutants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tlbcore.kernel import Kernel

__all__ = ["REDUCTIONS", "RandomAudit", "Row", "audit", "audit_random"]

#: What is held against plain search: each reduction alone, and all together.
REDUCTIONS: Final = (*((name,) for name in DEFAULT_REDUCTIONS), DEFAULT_REDUCTIONS)

#: What every audit looks for; I12 has variables of its own.
_INVARIANTS: Final = (*DEFAULT_INVARIANTS, "I12")
#: The switch that is none of x86's, which alone the explorer models.
_ARCHITECTURE: Final = "lazy_mmu"
#: The operation that is on huge entries alone.
_HUGE: Final = "collapse_huge_page"
_TOO_LARGE: Final = "audit: stopped by"
#: How many of two operations are twice the same, on the same pages: threads that may change names.
_TWINS: Final = 0.2


@dataclass(frozen=True)
class Row:
    """One set of reductions against plain search."""

    reductions: tuple[str, ...]
    #: States of the plain graph, and those that the reduced search keeps.
    plain_states: int
    reduced_states: int
    #: Plain states that no kept one includes: a violation could be missed.
    undominated: int
    #: Kept states that the plain graph does not reach: a violation could be false.
    unreachable: int
    #: Both find the same invariants violated.
    same_violations: bool

    @property
    def clean(self) -> bool:
        """The reductions did no harm."""
        return self.same_violations and not self.undominated and not self.unreachable


def _audited(kernel_json: str, scenario: Mapping[str, object], states: int) -> Iterator[Row]:
    for reductions in REDUCTIONS:
        options = {"invariants": list(_INVARIANTS), "reductions": list(reductions), "states": states}
        yield Row(reductions, *_core.explore_audit(kernel_json, json.dumps(scenario), json.dumps(options)))


def audit(  # noqa: PLR0913 - what to run, on what, how far
    kernel: str | Kernel,
    operations: Sequence[str | Mapping[str, object]],
    *,
    users: int = 1,
    pages: int | Sequence[Mapping[str, object]] = 1,
    kind: str = "file",
    faults: int = 0,
    engine: Mapping[str, bool] | None = None,
    states: int = 2_000_000,
    progress: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Hold each reduction, and all together, against plain search. Arguments as `tlbcore.check` takes them.

    `progress` is given each row as it is known: one for each of `REDUCTIONS`.

    Raises:
        InputError: A scenario that cannot be, or whose plain graph has more than `states` states.

    """
    found = kernels.get(kernel)
    scenario = {
        "users": users,
        "pages": [{"kind": kind}] * pages if isinstance(pages, int) else [dict(page) for page in pages],
        "threads": [{"operation": item} if isinstance(item, str) else dict(item) for item in operations],
        "faults": faults,
        "engine": dict(engine or {}),
    }
    rows = []
    for row in _audited(found.to_json(), scenario, states):
        rows.append(row)
        if progress is not None:
            progress(row)
    return rows


@dataclass(frozen=True)
class RandomAudit:
    """What random small programs came to."""

    seed: int
    #: Scenarios audited, each with every set of reductions.
    nr_audited: int
    #: Plain states of all of them.
    nr_plain_states: int
    #: How many of them violate something: reductions must find that too.
    nr_violating: int
    #: How many were left out: the plain graph is too large, or the explorer refuses a step.
    nr_too_large: int
    nr_refused: int
    #: What was not clean: kernel, scenario (JSON) and row.
    dirty: tuple[tuple[str, str, Row], ...]
    #: Why it ended early; None: all programs were audited.
    stopped: str | None = None


def audit_random(
    programs: int = 200, *, seed: int = 0, states: int = 20_000, progress: Callable[[int, int], None] | None = None
) -> RandomAudit:
    """Audit random small programs: operations of random kernels under random switches, half of them with a step missing.

    Ctrl-C ends it with what was audited until then.

    Args:
        programs: Scenarios to audit.
        seed: The same seed gives the same programs.
        states: Plain graphs with more states are left out, and counted.
        progress: Told how many are done, of how many.

    Raises:
        InputError: No program at all.

    """
    whole_number("programs", programs, least=1, most=2**32 - 1)
    whole_number("states", states)
    rng = random.Random(seed)  # noqa: S311 - to repeat, not to guard
    done, too_large, refused, plain, violating = 0, 0, 0, 0, 0
    dirty: list[tuple[str, str, Row]] = []
    stopped = None
    while done < programs:
        try:
            name, kernel_json, scenario = _random_scenario(rng)
            rows = list(_audited(kernel_json, scenario, states))
            options = {"invariants": list(_INVARIANTS), "reductions": [], "states": states}
            answer = json.loads(_core.explore(kernel_json, json.dumps(scenario), json.dumps(options)))
        except TlbcoreError as error:
            if str(error).startswith(_TOO_LARGE):
                too_large += 1
            else:
                refused += 1
            continue
        except KeyboardInterrupt:
            stopped = "a request to stop"
            break
        if answer["stopped"]:
            # A program that drops more than it has: what lies behind that means nothing.
            refused += 1
            continue
        done += 1
        plain += rows[0].plain_states
        violating += bool(answer["violated"])
        dirty += [(name, json.dumps(scenario), row) for row in rows if not row.clean]
        if progress is not None:
            progress(done, programs)
    return RandomAudit(seed, done, plain, violating, too_large, refused, tuple(dirty), stopped)


def _random_kernel(rng: random.Random) -> Kernel:
    family = kernels.FAMILIES[rng.choice(sorted(kernels.FAMILIES))]
    while True:
        chosen = {switch.name: rng.choice(switch.values) for switch in family.switches if switch.name != _ARCHITECTURE}
        try:
            return family.make(chosen)
        except InputError:
            continue


def _random_scenario(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    """A kernel (its name, its JSON) and a scenario of one or two threads on one or two pages."""
    kernel = _random_kernel(rng)
    kind = rng.choice(KINDS)
    fitting = [each for each in operations() if is_on(each.program, kind) and each.program != _HUGE]
    nr_pages = rng.randint(1, 2)
    pages = [
        {"kind": kind, "table": page * rng.randint(0, 1), "mapped": rng.choice(("none", "read", "write", "dirty"))}
        for page in range(nr_pages)
    ]
    chosen = rng.choices(fitting, k=rng.randint(1, 2))
    threads = []
    for operation in chosen:
        first = rng.randrange(nr_pages)
        threads.append(operation.thread(range(first, rng.randint(first, nr_pages - 1) + 1)))
    if len(threads) > 1 and rng.random() < _TWINS:
        threads[1] = threads[0]
    plain: dict[str, Any] = dict(kernel.resolve())
    victim = chosen[0].program
    if rng.getrandbits(1) and victim in plain["programs"]:
        known = [mutant for mutant in mutants(victim, plain["programs"][victim]) if mutant.kind == "drop"]
        if known:
            plain["programs"] = {**plain["programs"], victim: list(rng.choice(known).program)}
    scenario: dict[str, Any] = {"users": rng.randint(1, 2), "pages": pages, "threads": threads}
    if len(threads) == 1 and rng.getrandbits(1):
        scenario |= {"users": 1, "faults": 1}
    return kernel.name, json.dumps(plain), scenario
