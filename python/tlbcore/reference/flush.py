"""The flush engine of arch/x86/mm/tlb.c (machine.md, section 2): who is told to drop what, and what they then do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tlbcore.reference.config import ALL, INIT_MM, PAGE_SHIFT, PAGE_SIZE, Config, Constants
from tlbcore.reference.cpumask import bit, cpulist, cpus_of, weight
from tlbcore.reference.mm import AsidSlot, Cpu, Mm, Task
from tlbcore.reference.page_table import PageTable
from tlbcore.reference.tlb import CpuTlb

if TYPE_CHECKING:
    from collections import Counter

ON_TASK_SWITCH, REMOTE_SHOOTDOWN, LOCAL_SHOOTDOWN, LOCAL_MM_SHOOTDOWN, REMOTE_SEND_IPI, REMOTE_WRONG_CPU = range(6)
_NO_REQUEST = -1


@dataclass(frozen=True)
class Initiator:
    """Who asks for a flush: which operation, task and CPU."""

    op: int
    task: int
    cpu: int


@dataclass
class FlushInfo:
    """`flush_tlb_info`, with its row of the log."""

    mm: Mm | None
    start: int
    end: int
    stride_shift: int
    freed_tables: bool
    gen: int
    initiating_cpu: int
    request: int
    row: dict[str, Any]
    trim: bool = False
    told: int = 0
    lazy_skipped: int = 0
    lazy_left: int = 0
    gone: int = 0
    nothing_cached: int = 0


@dataclass
class LazyMmu:
    """The lazy-MMU batch of one CPU: of one mm, page addresses in order."""

    active: bool = False
    mm: Mm | None = None
    entries: list[int] = field(default_factory=list)


class Engine:
    """Per-CPU TLB state and TLBs, generations, and the log."""

    def __init__(self, config: Config, constants: Constants, counters: Counter[str]) -> None:
        """Make idle CPUs that have init_mm loaded."""
        self.config, self.constants, self.counters = config, constants, counters
        self.nr_slots = constants.tlb_nr_dyn_asids if config.pcid else 1
        self.mms: dict[int, Mm] = {INIT_MM: Mm(INIT_MM, 1, PageTable(config.levels))}
        self.cpus = [Cpu(cpu, [AsidSlot() for _ in range(self.nr_slots)]) for cpu in range(config.nr_cpus)]
        for cpu in self.cpus:
            cpu.ctxs[0] = AsidSlot(1, 1)
        self.tlbs = [CpuTlb(config.geometry) for _ in self.cpus]
        self.lazy_mmu = [LazyMmu() for _ in self.cpus]
        self.now_ns = 0
        self.log: list[dict[str, Any]] = []
        self.events: list[dict[str, int]] = []

    def new_mm(self) -> Mm:
        """An address space that no CPU has loaded yet."""
        number = len(self.mms)
        mm = Mm(number, number + 1, PageTable(self.config.levels))
        mm.next_trim_ns = self.now_ns + self.constants.trim_cpumask_interval_ns
        self.mms[number] = mm
        return mm

    def pcid(self, slot: int) -> int:
        """The PCID of a slot in the TLB arrays."""
        return slot + 1 if self.config.pcid else 0

    # --- requests ------------------------------------------------------------------------------------------------

    def flush_tlb_mm_range(
        self, by: Initiator, mm: Mm, start: int, end: int, stride_shift: int, *, freed_tables: bool
    ) -> None:
        """Drop start..end of `mm` everywhere."""
        rules = self.constants
        if rules.lazy_mmu == "per_pte":
            return
        mm.tlb_gen += 1
        original = (start, end)
        if end == ALL or (end - start) >> stride_shift > rules.tlb_single_page_flush_ceiling:
            start, end = 0, ALL
        info = self._request(by, "mm_range", mm, (start, end), original, stride_shift, freed_tables, mm.tlb_gen)
        others = mm.mm_cpumask & ~bit(by.cpu)
        if rules.mm_cpumask_rule == "lazy" and others and self.now_ns >= mm.next_trim_ns:
            info.trim = True
            mm.next_trim_ns = self.now_ns + rules.trim_cpumask_interval_ns
        loaded_here = self.cpus[by.cpu].loaded_mm == mm.id
        if rules.local_flush_first:
            if loaded_here:
                self._flush_tlb_func(self.cpus[by.cpu], info)
            if others:
                self._flush_tlb_multi(others, info)
        elif others:
            self._flush_tlb_multi(mm.mm_cpumask, info)
        elif loaded_here:
            self._flush_tlb_func(self.cpus[by.cpu], info)
        self._close(info)

    def flush_tlb_page(self, by: Initiator, mm: Mm, addr: int) -> None:
        """One small page."""
        self.flush_tlb_mm_range(by, mm, addr, addr + PAGE_SIZE, PAGE_SHIFT, freed_tables=False)

    def flush_tlb_range(self, by: Initiator, mm: Mm, start: int, end: int) -> None:
        """A range of small pages."""
        freed_tables = self.constants.flush_tlb_range_freed_tables
        self.flush_tlb_mm_range(by, mm, start, end, PAGE_SHIFT, freed_tables=freed_tables)

    def flush_tlb_mm(self, by: Initiator, mm: Mm) -> None:
        """All of an mm."""
        self.flush_tlb_mm_range(by, mm, 0, ALL, 0, freed_tables=True)

    def arch_tlbbatch_flush(self, by: Initiator, task: Task) -> None:
        """Flush the CPUs that the task's batch names; whatever they have loaded."""
        mask = task.ubc.cpumask
        info = self._request(by, "batch", None, (0, ALL), (0, ALL), 0, freed_tables=False, gen=0, mask=mask)
        here = bit(by.cpu)
        if self.constants.local_flush_first:
            if mask & here:
                self._flush_tlb_func(self.cpus[by.cpu], info)
            if mask & ~here:
                self._flush_tlb_multi(mask & ~here, info)
        elif mask & ~here:
            self._flush_tlb_multi(mask, info)
        elif mask & here:
            self._flush_tlb_func(self.cpus[by.cpu], info)
        task.ubc.cpumask = 0
        self._close(info)

    # --- what a told CPU does --------------------------------------------------------------------------------------

    def _flush_tlb_multi(self, mask: int, info: FlushInfo) -> None:
        info.row["remote"] = True
        pages = -1 if info.end == ALL else (info.end - info.start) >> PAGE_SHIFT
        self._trace(info.request, info.initiating_cpu, REMOTE_SEND_IPI, pages)
        candidates = mask
        if not info.freed_tables:
            for cpu in cpus_of(mask):
                if not self._should_flush_tlb(self.cpus[cpu], info):
                    candidates &= ~bit(cpu)
                    info.lazy_skipped |= bit(cpu) if self.cpus[cpu].is_lazy else 0
        info.told = candidates & ~bit(info.initiating_cpu)
        for cpu in cpus_of(info.told):
            if not self._caches_any(self.cpus[cpu], info.mm, info.start, info.end):
                info.nothing_cached |= bit(cpu)
        if candidates & bit(info.initiating_cpu):
            self._flush_tlb_func(self.cpus[info.initiating_cpu], info)
        for cpu in cpus_of(info.told):
            self._flush_tlb_func(self.cpus[cpu], info)

    def _should_flush_tlb(self, cpu: Cpu, info: FlushInfo) -> bool:
        if cpu.is_lazy:
            return False
        if self.constants.should_flush_tlb == "is_lazy":
            return True
        return info.mm is None or cpu.loaded_mm == info.mm.id or info.trim

    def _flush_tlb_func(self, cpu: Cpu, info: FlushInfo) -> None:
        lazy_rule = self.constants.mm_cpumask_rule == "lazy"
        if info.mm is not None and cpu.loaded_mm != info.mm.id:
            info.gone |= bit(cpu.id)
            if lazy_rule:
                info.mm.mm_cpumask &= ~bit(cpu.id)
                self._trace(info.request, cpu.id, REMOTE_WRONG_CPU, 0)
            return
        if cpu.loaded_mm == INIT_MM:
            info.gone |= bit(cpu.id)
            return
        if cpu.is_lazy:
            info.lazy_left |= bit(cpu.id)
            self.switch_mm(cpu, self.mms[INIT_MM])
            return
        slot, loaded = cpu.ctxs[cpu.slot], self.mms[cpu.loaded_mm]
        reached, wanted = slot.tlb_gen, loaded.tlb_gen
        if self.constants.flush_skips_old_gen and info.gen != 0 and info.gen <= reached:
            return
        pages = 0
        if reached == wanted:
            if not self.constants.flush_skips_old_gen:
                return
        elif info.end != ALL and info.gen == reached + 1 and info.gen == wanted:
            stride = 1 << info.stride_shift
            for va in range(info.start, info.end, stride):
                self.tlbs[cpu.id].invlpg(self.pcid(cpu.slot), va)
            pages = (info.end - info.start) >> info.stride_shift
        else:
            self.tlbs[cpu.id].flush_pcid(self.pcid(cpu.slot))
            pages = -1
        slot.tlb_gen = wanted
        if cpu.id == info.initiating_cpu and reached != wanted:
            self.counters["nr_local_flushes"] += 1
        if cpu.id != info.initiating_cpu:  # noqa: SIM108 - a chain of two choices reads worse
            reason = REMOTE_SHOOTDOWN
        else:
            reason = LOCAL_SHOOTDOWN if info.mm is None else LOCAL_MM_SHOOTDOWN
        self._trace(info.request, cpu.id, reason, pages)

    # --- switches --------------------------------------------------------------------------------------------------

    def switch_mm(self, cpu: Cpu, following: Mm) -> None:
        """`switch_mm_irqs_off()`."""
        previous = self.mms[cpu.loaded_mm]
        was_lazy, cpu.is_lazy = cpu.is_lazy, False
        if previous is following:
            slot = cpu.ctxs[cpu.slot]
            if was_lazy and slot.tlb_gen != following.tlb_gen:
                slot.tlb_gen = following.tlb_gen
                self._flush_on_switch(cpu, cpu.slot)
            return
        if self.constants.mm_cpumask_rule == "eager" and previous.id != INIT_MM:
            previous.mm_cpumask &= ~bit(cpu.id)
        if following.id != INIT_MM:
            following.mm_cpumask |= bit(cpu.id)
        chosen, need_flush = self._choose_new_asid(cpu, following)
        if need_flush:
            cpu.ctxs[chosen] = AsidSlot(following.ctx_id, following.tlb_gen)
            self._flush_on_switch(cpu, chosen)
        cpu.loaded_mm, cpu.slot = following.id, chosen

    def _choose_new_asid(self, cpu: Cpu, following: Mm) -> tuple[int, bool]:
        if not self.config.pcid:
            return 0, True
        for number, slot in enumerate(cpu.ctxs):
            if slot.ctx_id == following.ctx_id:
                return number, slot.tlb_gen < following.tlb_gen
        chosen = cpu.next_asid
        cpu.next_asid += 1
        if chosen >= self.nr_slots:
            chosen, cpu.next_asid = 0, 1
        return chosen, True

    def _flush_on_switch(self, cpu: Cpu, slot: int) -> None:
        self.tlbs[cpu.id].flush_pcid(self.pcid(slot))
        self._trace(_NO_REQUEST, cpu.id, ON_TASK_SWITCH, -1)

    def enter_lazy_tlb(self, cpu: Cpu) -> None:
        """The CPU keeps the mm loaded but does not use it."""
        if cpu.loaded_mm != INIT_MM:
            cpu.is_lazy = True

    # --- lazy MMU mode ---------------------------------------------------------------------------------------------

    def entry_changed(self, by: Initiator, mm: Mm, addr: int, *, was_hw_present: bool) -> None:
        """The kernel changed an entry: what a hash MMU or a hypervisor has to be told."""
        kind, batch = self.constants.lazy_mmu, self.lazy_mmu[by.cpu]
        if kind == "none" or (kind == "per_pte" and not was_hw_present) or (kind == "multicall" and not batch.active):
            return
        if kind == "per_pte" and batch.mm is not mm:
            self.lazy_mmu_drain(by)
        batch.mm = mm
        batch.entries.append(addr)
        if not batch.active or len(batch.entries) >= self.constants.lazy_mmu_batch:
            self.lazy_mmu_drain(by)

    def lazy_mmu_drain(self, by: Initiator) -> None:
        """Issue what the CPU's batch holds."""
        batch = self.lazy_mmu[by.cpu]
        entries, mm = batch.entries, batch.mm
        if not entries:
            return
        assert mm is not None
        batch.entries, batch.mm = [], None
        self.counters["nr_lazy_mmu_drains"] += 1
        self.counters["nr_lazy_mmu_entries"] += len(entries)
        if self.constants.lazy_mmu != "per_pte":
            return
        span = (min(entries), max(entries) + PAGE_SIZE)
        info = self._request(by, "lazy_mmu", mm, span, span, PAGE_SHIFT, freed_tables=False, gen=0)
        info.told = mm.mm_cpumask & ~bit(by.cpu)
        info.row["remote"] = info.told != 0
        self.counters["nr_local_flushes"] += mm.mm_cpumask >> by.cpu & 1
        for cpu in cpus_of(mm.mm_cpumask):
            pages = ((addr, addr + PAGE_SIZE) for addr in entries)
            if info.told & bit(cpu) and not any(self._caches_any(self.cpus[cpu], mm, *page) for page in pages):
                info.nothing_cached |= bit(cpu)
            pcid = self._pcid_of(self.cpus[cpu], mm)
            if pcid is not None:
                for addr in entries:
                    self.tlbs[cpu].drop_translations(pcid, addr)
        self._close(info, pages=len(entries))

    # --- the log ---------------------------------------------------------------------------------------------------

    def _pcid_of(self, cpu: Cpu, mm: Mm) -> int | None:
        for number, slot in enumerate(cpu.ctxs):
            if slot.ctx_id == mm.ctx_id:
                return self.pcid(number)
        return None

    def _caches_any(self, cpu: Cpu, mm: Mm | None, start: int, end: int) -> bool:
        if not self.config.tlb_enabled:
            return True  # unknown: nobody is called idle
        pcid = self.pcid(cpu.slot) if mm is None else self._pcid_of(cpu, mm)
        return pcid is not None and self.tlbs[cpu.id].caches_any(pcid, start, end)

    def _request(
        self,
        by: Initiator,
        kind: str,
        mm: Mm | None,
        span: tuple[int, int],
        original: tuple[int, int],
        stride_shift: int,
        freed_tables: bool,  # noqa: FBT001 - a field of the row
        gen: int,
        mask: int | None = None,
    ) -> FlushInfo:
        before = mask if mask is not None else (mm.mm_cpumask if mm is not None else 0)
        row: dict[str, Any] = {
            "op": by.op,
            "task": by.task,
            "cpu": by.cpu,
            "kind": kind,
            "mm": None if mm is None else mm.id,
            "start": span[0],
            "end": span[1],
            "range_start": original[0],
            "range_end": original[1],
            "stride_shift": stride_shift,
            "freed_tables": freed_tables,
            "gen": gen,
            "mask": cpulist(before),
            "remote": False,
        }
        self.log.append(row)
        return FlushInfo(mm, *span, stride_shift, freed_tables, gen, by.cpu, len(self.log) - 1, row)

    def _close(self, info: FlushInfo, pages: int | None = None) -> None:
        """Complete the row and count it."""
        names = ("told", "lazy_skipped", "lazy_left", "gone", "nothing_cached")
        for name in names:
            info.row[name] = cpulist(getattr(info, name))
        count = self.counters
        count["nr_flush_requests"] += 1
        if info.end == ALL:
            count["nr_flush_full"] += 1
        else:
            count["nr_flush_ranged"] += 1
            count["nr_flush_pages"] += (info.end - info.start) >> info.stride_shift if pages is None else pages
        count["nr_flush_remote"] += info.row["remote"]
        count["nr_ipis"] += weight(info.told)
        count["nr_told_lazy"] += weight(info.lazy_left & info.told)
        count["nr_told_gone"] += weight(info.gone & info.told)
        count["nr_told_nothing_cached"] += weight(info.nothing_cached)
        count["nr_lazy_skipped"] += weight(info.lazy_skipped)

    def _trace(self, request: int, cpu: int, reason: int, pages: int) -> None:
        self.events.append({"request": request, "cpu": cpu, "reason": reason, "pages": pages})
