"""The lab's rules on single requests: which become full, who asks for them, who must act on them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from lab_records import PAGE_SHIFT, Record, Run, bounds, is_full

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Whether one case agrees with the rule, and where it stands.
Verdict = tuple[bool, str]

PMD_SIZE = 1 << 21
CLEARED = {"freed_tables", "cleared_ptes", "cleared_pmds", "cleared_puds", "cleared_p4ds"}
#: The least level whose entries were cleared gives the stride of a gather's flush.
STRIDES = (("cleared_ptes", 12), ("cleared_pmds", 21), ("cleared_puds", 30), ("cleared_p4ds", 39))


def nr_strides(record: Record) -> int:
    """How many units the range has."""
    start, end = bounds(record)
    return (end - start) >> int(record["stride"])


def _executed(run: Run, index: int) -> Record | None:
    """What the requesting CPU does next about its request: tell others, or flush itself."""
    request = run.records[index]
    cpu = request["c"]
    found = run.next(
        index,
        12,
        lambda r: r["c"] == cpu and (r["k"] == "multi" or (r["k"] == "func" and r["icpu"] == cpu)),
    )
    return found if found is not None and found.get("mm") == request["mm"] else None


def ceiling(run: Run) -> Iterator[Verdict]:
    """Rule 1: full from more strides than the ceiling on, else exactly what was asked for."""
    for index, record in enumerate(run.records):
        if record["k"] == "mm_range":
            executed = _executed(run, index)
            if executed is not None:
                full = is_full(record) or nr_strides(record) > run.ceiling
                yield is_full(executed) == full, run.place(record)
        elif record["k"] == "func" and record.get("reason") == 3 and not is_full(record):
            # The flush of the requesting CPU itself; it may be full since the CPU had missed others.
            yield record["pages"] in (nr_strides(record), -1), run.place(record)


def tells_nobody_alone(run: Run) -> Iterator[Verdict]:
    """Rule 11: no other CPU in the mask, no IPI."""
    for index, record in enumerate(run.records):
        if record["k"] == "mm_range" and not set(record["mask"]) - {record["c"]}:
            executed = _executed(run, index)
            if executed is not None:
                yield executed["k"] == "func", run.place(record)


def _targets(run: Run) -> Iterator[tuple[Record, int, bool, bool]]:
    """Each CPU that a request could reach: the request, the CPU, whether it is lazy, whether it acted."""
    last_on: dict[int, str] = {}
    told: list[tuple[Record, set[int]]] = []
    acted: dict[tuple[str | None, int, int], set[int]] = defaultdict(set)
    for record in run.records:
        cpu, kind = record["c"], record["k"]
        if kind in ("sw", "actor", "task_exit"):
            last_on[cpu] = {"sw": record.get("next"), "actor": record.get("name")}.get(kind) or "exiting"
        elif kind == "multi" and record.get("mm"):
            others = set(record["mask"]) - {cpu}
            told.append((record, {c for c in others if last_on.get(c, "idle") not in run.actors}))
        elif kind == "func" and record["icpu"] != cpu:
            acted[record.get("mm"), record["gen"], record["icpu"]].add(cpu)
    for request, lazy in told:
        did = acted[request["mm"], request["gen"], request["icpu"]]
        for cpu in sorted(set(request["mask"]) - {request["c"]}):
            yield request, cpu, cpu in lazy, cpu in did


def running_cpus_act(run: Run) -> Iterator[Verdict]:
    """Rule 11: without freed tables, a CPU of the mask that is not lazy acts."""
    for request, cpu, lazy, acted in _targets(run):
        if not request["freed"] and not lazy:
            yield acted, f"{run.place(request)}, CPU {cpu}"


def lazy_cpus_are_spared(run: Run) -> Iterator[Verdict]:
    """Rule 11: without freed tables, a lazy CPU does not."""
    for request, cpu, lazy, acted in _targets(run):
        if not request["freed"] and lazy:
            yield not acted, f"{run.place(request)}, CPU {cpu}"


def freed_tables_spare_nobody(run: Run) -> Iterator[Verdict]:
    """Rule 11: with freed tables, every CPU of the mask acts."""
    for request, cpu, _, acted in _targets(run):
        if request["freed"]:
            yield acted, f"{run.place(request)}, CPU {cpu}"


def lazy_cpus_leave(run: Run) -> Iterator[Verdict]:
    """Rule 11: a lazy CPU that is told leaves the address space (reason 0: a task switch)."""
    last_on: dict[int, str] = {}
    for record in run.records:
        cpu, kind = record["c"], record["k"]
        if kind in ("sw", "actor", "task_exit"):
            last_on[cpu] = {"sw": record.get("next"), "actor": record.get("name")}.get(kind) or "exiting"
        elif kind == "func" and record["icpu"] != cpu and record.get("reason") is not None:
            lazy = last_on.get(cpu, "idle") not in run.actors
            yield from [(record["reason"] == 0, run.place(record))] if lazy else []


# --- gathers ---------------------------------------------------------------------------------------------------------

_ENDS = ("mm_range", "ret", "E", "finish", "gather", "exit_mmap", "task_exit")


def _finishes(run: Run) -> Iterator[tuple[Record, Record | None]]:
    """Each end of a gather, with the flush that it makes."""
    for index, record in enumerate(run.records):
        if record["k"] == "finish":
            after = run.next_of(index, 40, record["a"], _ENDS)
            yield record, after if after is not None and after["k"] == "mm_range" else None


def nested_gathers_flush_all(run: Run) -> Iterator[Verdict]:
    """Rule 9: another operation pending at the end of a gather: a full flush with freed tables."""
    for record, flush in _finishes(run):
        if record["pend"] > 1:
            yield flush is not None and is_full(flush) and flush["freed"] == 1, run.place(record)


def empty_gathers_flush_nothing(run: Run) -> Iterator[Verdict]:
    """Rule 9, the other side: alone and with nothing gathered, no flush."""
    for record, flush in _finishes(run):
        if record["pend"] <= 1 and not CLEARED & set(record["flags"]):
            yield flush is None, run.place(record)


def gathers_flush_their_range(run: Run) -> Iterator[Verdict]:
    """Rule 3: one flush of what was gathered; freed tables make it a flush with freed_tables."""
    for record, flush in _finishes(run):
        if record["pend"] > 1 or not CLEARED & set(record["flags"]):
            continue
        agrees = flush is not None and flush["freed"] == ("freed_tables" in record["flags"])
        if flush is not None and "fullmm" not in record["flags"]:
            agrees = agrees and bounds(flush) == bounds(record)
        yield agrees, run.place(record)


def _ranged(run: Run) -> Iterator[tuple[Record, Record]]:
    for record, flush in _finishes(run):
        if record["pend"] <= 1 and CLEARED & set(record["flags"]) and "fullmm" not in record["flags"] and flush:
            yield record, flush


def gathers_choose_the_least_stride(run: Run) -> Iterator[Verdict]:
    """Rules 3 and 12: that of the least level with a cleared entry; 4 KiB when only a folded level went."""
    for record, flush in _ranged(run):
        stride = next((stride for flag, stride in STRIDES if flag in record["flags"]), 12)
        yield flush["stride"] == stride, run.place(record)


def freed_tables_widen_the_range(run: Run) -> Iterator[Verdict]:
    """Rule 3: with freed tables the range starts where a page table does."""
    for record, flush in _ranged(run):
        if "freed_tables" in record["flags"]:
            yield bounds(flush)[0] % PMD_SIZE == 0, run.place(record)


def alone_one_is_pending(run: Run) -> Iterator[Verdict]:
    """Rule 14: outside joined steps tlb_flush_pending is 1 at the end of a gather."""
    step: dict[str, int] = {}
    for record in run.records:
        if record["k"] == "B":
            step[record["a"]] = record["step"]
        elif record["k"] == "E":
            step.pop(record["a"], None)
        elif record["k"] == "finish" and record["pend"] <= 1 and step.get(record["a"]) not in run.parallel_steps:
            yield record["pend"] == 1, run.place(record)


# --- reclaim, copy on write, huge pages, exit ------------------------------------------------------------------------


def outstanding_flushes_are_caught_up(run: Run) -> Iterator[Verdict]:
    """Rule 10: the next walk after deferred flushes makes one full flush, and only then."""
    for index, record in enumerate(run.records):
        if record["k"] != "batch_pending":
            continue
        pending, flushed = record["batched"] & 0xFFFF, record["batched"] >> 16
        after = next(
            (r for r in run.records[index + 1 : index + 30] if r.get("a") == record["a"] and r["k"] != "sw"), None
        )
        flush = after is not None and after["k"] == "mm_range" and is_full(after)
        if pending == flushed:
            # A full flush of the walk itself has a stride; one that catches up has none.
            yield not (flush and after is not None and after["stride"] == 0), run.place(record)
        else:
            yield flush, run.place(record)


def deferred_flushes_are_full(run: Run) -> Iterator[Verdict]:
    """Rule 10: a deferred flush drops everything."""
    for index, record in enumerate(run.records):
        if record["k"] == "batch_flush":
            after = (r for r in run.records[index + 1 : index + 10] if r["c"] == record["c"])
            executed = next((r for r in after if r["k"] in ("multi", "func")), None)
            if executed is not None:
                yield is_full(executed), run.place(record)


def unmapped_per_deferred_flush(run: Run) -> Iterator[int]:
    """Rule 10: how many pages each deferred flush stands for; those that were flushed at once do not count."""
    unmapped = 0
    previous = ""
    for record in run.records:
        if record.get("a") == "T0":
            if record["k"] == "unmap_one":
                unmapped += record["n"]
            elif record["k"] == "ptep_clear_flush" and previous == "unmap_one":
                unmapped -= 1
            previous = record["k"]
        if record["k"] == "batch_flush":
            yield unmapped
            unmapped = 0


def deferred_flushes_are_not_put_off_long(run: Run) -> Iterator[Verdict]:
    """Rule 10: one deferred flush for at most 32 pages of reclaim, or a page table of MADV_PAGEOUT."""
    most = {"memcg": 32, "reclaim": 512}.get(run.scenario.partition("_")[0])
    if most is not None:
        for unmapped in unmapped_per_deferred_flush(run):
            yield unmapped <= most, f"{run.config}_{run.scenario}: {unmapped} pages"


def copies_flush_their_page(run: Run) -> Iterator[Verdict]:
    """Rule 8: ptep_clear_flush asks for its one page, without freed tables."""
    for index, record in enumerate(run.records):
        if record["k"] == "ptep_clear_flush":
            flush = run.next_of(index, 10, record.get("a"))
            if flush is not None:
                start = int(record["addr"], 16)
                page = (start, start + (1 << PAGE_SHIFT))
                yield bounds(flush) == page and flush["freed"] == 0, run.place(record)


def splits_flush_the_huge_page(run: Run) -> Iterator[Verdict]:
    """Rule 12: the split of a huge page flushes its 512 pages in strides of 4 KiB, with freed tables."""
    for index, record in enumerate(run.records):
        if record["k"] == "pmdp_invalidate":
            flush = run.next_of(index, 10, record.get("a"))
            start = int(record["addr"], 16)
            yield (
                flush is not None
                and bounds(flush) == (start, start + PMD_SIZE)
                and (flush["stride"], flush["freed"]) == (PAGE_SHIFT, 1),
                run.place(record),
            )


def exits_end_with_a_full_flush(run: Run) -> Iterator[Verdict]:
    """Rule 13: an address space ends with a full flush with freed tables; those before it are full, without."""
    for index, record in enumerate(run.records):
        if record["k"] != "exit_mmap":
            continue
        flushes = []
        for after in run.records[index + 1 :]:
            if after.get("a") == record["a"] and after["k"] in ("B", "END"):
                break
            if after.get("a") == record["a"] and after["k"] == "mm_range" and after["mm"] == record["mm"]:
                flushes.append((is_full(after), after["freed"]))
        yield flushes == [(True, 0)] * (len(flushes) - 1) + [(True, 1)], run.place(record)


class Check(Protocol):
    """A rule on one run; its name is that in the documentation."""

    __name__: str

    def __call__(self, run: Run, /) -> Iterator[Verdict]:
        """Yield each case."""
        ...


#: The number of the rule that each check belongs to.
CHECKS: dict[Check, int] = {
    ceiling: 1,
    gathers_flush_their_range: 3,
    gathers_choose_the_least_stride: 3,
    freed_tables_widen_the_range: 3,
    copies_flush_their_page: 8,
    nested_gathers_flush_all: 9,
    empty_gathers_flush_nothing: 9,
    outstanding_flushes_are_caught_up: 10,
    deferred_flushes_are_full: 10,
    deferred_flushes_are_not_put_off_long: 10,
    tells_nobody_alone: 11,
    running_cpus_act: 11,
    lazy_cpus_are_spared: 11,
    freed_tables_spare_nobody: 11,
    lazy_cpus_leave: 11,
    splits_flush_the_huge_page: 12,
    exits_end_with_a_full_flush: 13,
    alone_one_is_pending: 14,
}
