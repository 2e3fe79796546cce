"""Why model and kernel may disagree about an operation: the rules that tell the likely cause.

A rule looks at nothing but the recording and the replay of it (`Case`). The first that holds names the cause, so a rule
may rely on those before it having failed. A rule that only describes how the two sides differ is marked "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlbcore.validate.case import Case

#: Where a cause lies: what the recording does not tell, what hangs on times that a replay has otherwise, what the
#: model does otherwise, or nobody knows.
Place = Literal["recording", "timing", "model", "unknown"]

#: Notes of a replay that say: what was there was not known, and taken over from what the event shows.
_OLDER: Final = (
    "mapping made before the recording or by exec, taken over",
    "page that fault-around was thought to have mapped",
    "page mapped before it was seen",
    "mapping that was only guessed, dropped",
    "mapping whose rights must have been changed before",
    "write fault on an entry thought writable",
)


@dataclass(frozen=True)
class Rule:
    """A cause, and how it is told."""

    name: str
    title: str
    lies_in: Place
    how: str
    holds: Callable[[Case], bool]


def _told(case: Case) -> int:
    """How many more of the differing flushes told others in the model than in the kernel."""
    return sum(told for _, told in case.extra) - sum(told for _, told in case.missed)


def _pages(flushes: Sequence[tuple[int, bool]]) -> list[int]:
    return [pages for pages, _ in flushes]


def _is_full(flushes: Sequence[tuple[int, bool]]) -> bool:
    return any(pages == -1 for pages, _ in flushes)


_EXEC_EXIT: Final = Rule(
    "exec_exit",
    "Set-up of a new program, or the end of one",
    "model",
    "the operation is an exec or an exit",
    lambda case: case.kind in {"exec", "exit"},
)

RULES: Final[tuple[Rule, ...]] = (
    _EXEC_EXIT,
    Rule(
        "ranges_not_recorded",
        "Calls whose ranges were not recorded",
        "recording",
        "the operation is a process_madvise: its ranges lie in memory",
        lambda case: case.kind == "process_madvise",
    ),
    Rule(
        "switch_meanwhile",
        "mm_cpumask: a thread was switched while the operation ran",
        "timing",
        "sizes agree, only who was told differs, and a switch to or from the process lies between begin and flush",
        lambda case: case.sizes_agree and len(case.switched) > 0,
    ),
    Rule(
        "mask_wrong_cpu",
        "mm_cpumask: a flush found the CPU in another address space",
        "timing",
        'sizes agree, only who was told differs, and "remote wrong CPU" was recorded since the process last flushed',
        lambda case: case.sizes_agree and case.wrong_cpu is not None,
    ),
    Rule(
        "mask_kept",
        "mm_cpumask: the model keeps a CPU that the kernel took out",
        "unknown",
        "sizes agree, and the model tells others where the kernel does not",
        lambda case: case.sizes_agree and _told(case) >= 0,
    ),
    Rule(
        "mask_lost",
        "mm_cpumask: the model took out a CPU that the kernel keeps",
        "unknown",
        "sizes agree, and the kernel tells others where the model does not",
        lambda case: case.sizes_agree,
    ),
    Rule(
        "overlap_full",
        "Overlap: everything flushed, as another operation was open",
        "timing",
        "only the kernel flushes in full, while another thread's operation or flush ran: gathers nest, or a CPU is"
        " behind by more than one generation",
        lambda case: (
            _is_full(case.missed)
            and not _is_full(case.extra)
            and (len(case.overlapping) > 0 or case.flushes_of_others > 0)
        ),
    ),
    Rule(
        "overlap_race",
        "Overlap: another thread was at the same pages",
        "timing",
        "a call or fault of another thread of the process that touches the range ran at the same time",
        lambda case: len(case.met) > 0,
    ),
    Rule(
        "older",
        "Pages older than the recording, or never recorded",
        "recording",
        "the replay had to take over or drop mappings or pages in this range, from the evidence of a fault or call",
        lambda case: not case.notes.isdisjoint(_OLDER),
    ),
    Rule(
        "fault_kind",
        "A fault of another kind: copied or reused, spurious or real",
        "model",
        "the operation is a fault, and only one side flushes",
        lambda case: case.kind == "fault" and not (case.predicted and case.recorded),
    ),
    Rule(
        "walk_split",
        "The same pages in more or fewer flushes",
        "model",
        "all flushes are ranged, their sum is the same, their number is not",
        lambda case: not _is_full([*case.missed, *case.extra]) and sum(_pages(case.missed)) == sum(_pages(case.extra)),
    ),
    Rule(
        "range_differs",
        "Not explained: as many ranged flushes, of other sizes",
        "unknown",
        "both sides flush ranges, equally often, and of different lengths",
        lambda case: not _is_full([*case.missed, *case.extra]) and len(case.missed) == len(case.extra),
    ),
    Rule(
        "full_for_range",
        "Not explained: full on one side, a range on the other",
        "unknown",
        "one side flushes in full where the other flushes a range, and nothing of the process overlapped",
        lambda case: bool(case.missed and case.extra) and _is_full(case.missed) != _is_full(case.extra),
    ),
    Rule(
        "kernel_only",
        "Not explained: only the kernel flushes",
        "unknown",
        "only the kernel has flushes beyond the common ones",
        lambda case: not case.extra,
    ),
    Rule(
        "model_only",
        "Not explained: only the model flushes",
        "unknown",
        "only the model has flushes beyond the common ones",
        lambda case: not case.missed,
    ),
    Rule("unknown", "Not explained: anything else", "unknown", "no other rule holds", lambda _: True),
)
"""The rules for flushes that differ; the first that holds is taken."""

_WHO: Final = frozenset(
    ("ipi_sends", "mask_cpus", "ran_cpus", "lazy_left_cpus", "lazy_skipped_cpus", "local_flushes", "tlb_flush_list"),
)
_WHAT: Final = frozenset(("flush_list", "flushes", "batch_flushes", "noise_flushes"))

COLUMN_RULES: Final[tuple[Rule, ...]] = (
    _EXEC_EXIT,
    Rule(
        "columns_parallel",
        "Lab columns: steps that ran at the same time",
        "timing",
        "an entry of steps joined by `|`, whose flushes agree in size and told",
        lambda case: case.entry is not None and bool(case.entry["parallel"]),
    ),
    Rule(
        "columns_who",
        "Lab columns: who was told, obeyed, or left",
        "unknown",
        "flushes agree in size and told; columns on masks, lazy CPUs and what each CPU flushed do not, all others do",
        lambda case: case.columns <= _WHO,
    ),
    Rule(
        "columns_what",
        "Lab columns: ranges, strides or freed tables of the requests",
        "unknown",
        "flushes agree in size and told; the list of requests with their ranges does not",
        lambda case: not case.columns.isdisjoint(_WHAT),
    ),
    Rule(
        "columns_how",
        "Lab columns: gathers, deferred flushes, faults",
        "unknown",
        "all flushes agree; how often some function was entered does not",
        lambda _: True,
    ),
)
"""The rules for entries of the lab whose flushes agree and which differ in some other column."""


PROVEN: Final = "the records of the entry show it: each with its records in docs/differences.md"
"""How a cause of an entry of the lab is told (`LabReason`); before all rules."""


def _is_proven(case: Case) -> bool:
    return bool(case.entry and case.entry["reasons"])


def rule_of(case: Case) -> Rule:
    """The first rule that holds; of an entry of the lab whose records show causes, the first of these is one."""
    if case.entry and (reasons := case.entry["reasons"]):
        first = reasons[0]
        return Rule(first["name"], f"Lab, shown by records: {first['cause']}", first["lies_in"], PROVEN, _is_proven)
    rules = RULES if case.nr_flushes else COLUMN_RULES
    return next(rule for rule in rules if rule.holds(case))
