"""Random sequences of operations that mostly make sense.

There are several processes, threads, CPUs and files, and ranges that overlap within a few page tables, so that flushes,
nesting and page-table freeing happen all the time.

The generator looks at a running reference machine to choose arguments (a thread that runs, a VMA that exists), and now
and then at nothing at all, so that errors are compared too. It draws from any `random.Random`, also from Hypothesis'
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tlbcore import kernels
from tlbcore.reference.config import PMD_SHIFT
from tlbcore.reference.vma import VM_SHARED

if TYPE_CHECKING:
    from random import Random

    from tlbcore.reference import ReferenceMachine
    from tlbcore.reference.mm import Mm, Task

PAGE, PMD = 4096, 1 << 21
MAX_TASKS, MAX_FILES = 6, 3
#: Mappings are made around these addresses: within one PMD table, at the end of a PMD table, at the end of a PUD table.
BASES = (0x7F0000000000, 0x7F003FE00000, 0x7F7FFFE00000, 0x10000000, 0x7FFFF7C00000)
#: Where nothing else is mapped: below the place that mmap chooses, above the others.
FAR = 0x7FFF00000000
ADVICE = [
    "dontneed",
    "dontneed_locked",
    "free",
    "cold",
    "pageout",
    "hugepage",
    "nohugepage",
    "dontfork",
    "dofork",
    "populate_read",
    "populate_write",
    "random",
    "sequential",
    "normal",
    "mergeable",
    "unmergeable",
    "dontdump",
    "dodump",
    "wipeonfork",
    "keeponfork",
    "other",
]

Operation = dict[str, Any]

#: Programs of operations whose arguments are a range and rights, which may be run by hand.
RUNNABLE = [
    "munmap",
    "mprotect",
    "madvise_dontneed",
    "madvise_free",
    "madvise_cold",
    "madvise_pageout",
    "clear_refs_soft_dirty",
    "change_prot_numa",
]
PROGRAMS: list[list[dict[str, Any]]] = [
    programs[name]
    for family in kernels.FAMILIES
    for programs in [cast("dict[str, Any]", kernels.get(family).resolve()["programs"])]
    for name in RUNNABLE
]
#: What hugetlb does with a table that another process has too, and collapse at the end: no program by hand of a kernel has it.
UNSHARED: list[dict[str, Any]] = [
    {"step": "lock", "lock": "mmap_lock", "mode": "read"},
    {"step": "tlb_gather_mmu"},
    {
        "step": "for_each_vma",
        "body": [
            {
                "step": "for_each_table",
                "body": [
                    {"step": "lock", "lock": "ptl", "mode": "write"},
                    *({"step": name} for name in ("pud_clear", "ptdesc_pmd_pts_dec", "tlb_flush_pud_range")),
                    {"step": "unlock", "lock": "ptl"},
                ],
                "on_huge_pmd": [],
            },
        ],
    },
    {"step": "tlb_finish_mmu"},
    {"step": "tlb_remove_table_sync_one"},
    {"step": "pte_free_defer"},
    {"step": "unlock", "lock": "mmap_lock"},
]
#: What no kernel asks, or asks only elsewhere, is asked of each entry in a program by hand.
QUESTIONS = [
    "migration",
    "uffd_wp",
    "pte_accessible",
    "pte_changed",
    "delay_rmap",
    "mm_tlb_flush_nested",
    "mm_tlb_flush_pending",
    "page_ksm",
    "page_lru",
    "page_held",
    "page_exclusive",
    "page_huge",
    "page_shared",
    "page_shmem",
    "vma_huge_allowed",
    "vma_writable",
    "vma_needs_copy",
    "zero_page",
    "page_mapped",
    "pte_needs_flush",
    "pte_demoted",
    "young",
    "pmd_is_huge",
    "pmd_present",
    "pmd_shared",
]
CHANGES = ("ptep_clear_young", "clear_young_dirty", "ptep_set_wrprotect")

#: Arguments of 64 bits, which have to be taken whatever they are.
EXTREME_ARGUMENTS = ("addr", "len", "old", "old_len", "new_len", "new", "from_page", "nr_pages", "pgoff")
EXTREME_SHARE = 0.02
LAST = (1 << 64) - 1

WEIGHTS = {
    "access": 40,
    "fault": 4,
    "schedule": 12,
    "mmap": 10,
    "munmap": 8,
    "mprotect": 8,
    "madvise": 10,
    "mremap": 6,
    "reclaim": 6,
    "migrate": 3,
    "fork": 3,
    "clone_thread": 3,
    "create_process": 2,
    "create_file": 1,
    "exec": 1,
    "exit": 1,
    "brk": 2,
    "msync": 2,
    "fsync": 1,
    "truncate": 2,
    "clear_refs": 2,
    "numa_hint": 3,
    "ksm_merge": 3,
    "wp_shared_mapping_range": 2,
    "collapse": 3,
    "advance_time": 2,
    "run": 4,
}


class Generator:
    """Chooses the next operation for the state that a reference machine is in."""

    def __init__(self, rng: Random, machine: ReferenceMachine) -> None:
        """Draw from `rng`, look at `machine`."""
        self.rng, self.machine = rng, machine
        # Sequences differ in what they do often (swarm testing): together they come to more states than equal ones.
        self.names = list(WEIGHTS)
        self.weights = [weight * rng.choice([0.3, 1, 1, 1, 3]) for weight in WEIGHTS.values()]
        self.likes_huge = rng.random() < 0.2
        #: Said first, last one first: a huge page to begin with, if the machine has any.
        self.opening: list[Operation] = []
        if self.likes_huge:
            self.opening = [{"op": "access", "addr": base, "kind": "write"} for base in BASES[:1]]
            self.opening += [{"op": "madvise", "addr": base, "len": PMD, "advice": "hugepage"} for base in BASES[:1]]
            mapping: Operation = {"prot": 3, "shared": False, "fixed": True, "noreplace": False, "populate": False}
            mapping |= {"growsdown": False, "file": None, "pgoff": 0, "len": 2 * PMD}
            self.opening += [{"op": "mmap", "addr": base, **mapping} for base in BASES[:1]]

    def next(self) -> Operation:
        """One operation; seldom one with an argument at the end of what 64 bits hold."""
        operation: Operation = self.sensible()
        if self.rng.random() < EXTREME_SHARE:
            names = [name for name in operation if name in EXTREME_ARGUMENTS and operation[name] is not None]
            if names and not str(operation.get("advice", "")).startswith("populate"):
                operation[self.rng.choice(names)] = self.rng.choice(self.extremes())
                if "populate" in operation:  # what fits is so large that it would take years
                    operation["populate"] = False
        return operation

    def extremes(self) -> tuple[int, ...]:
        """Around the ends of user space and of the numbers."""
        end = self.machine.config.user_end
        return (0, 1, 4095, end - 2 * PAGE, end - PAGE, end - 1, end, end + PAGE, 1 << 63, LAST - 4095, LAST)

    def sensible(self) -> Operation:
        """One operation with arguments that fit."""
        m, rng = self.machine, self.rng
        if not m.tasks:
            return {"op": "create_process"}
        running = [task for task in m.tasks.values() if task.running]
        if not running:
            return self.schedule(list(m.tasks.values()))
        if self.opening:
            return self.opening.pop() | {"task": running[0].id}
        name = rng.choices(self.names, self.weights)[0]
        if len(m.tasks) > 1 and name in ("exit", "exec") and rng.random() < 0.5:
            name = "access"
        if name in ("create_process", "fork", "clone_thread") and len(m.tasks) >= MAX_TASKS:
            name = "exit" if rng.random() < 0.3 else "schedule"
        if not self.real_files() and rng.random() < 0.2:
            name = "create_file"
        elif name == "create_file" and len(self.real_files()) >= MAX_FILES:
            name = "access"
        task = rng.choice(running)
        if len(m.engine.mms[task.mm].vmas.vmas) < 3 and rng.random() < 0.5:
            name = "mmap"
        if name == "schedule":
            return self.schedule(list(m.tasks.values()))
        if name in ("exit", "exec", "clone_thread"):
            return {"op": name, "task": rng.choice(list(m.tasks.values())).id}
        if name in ("create_process", "advance_time", "create_file"):
            choices: dict[str, Operation] = {
                "create_process": {"op": name},
                "advance_time": {"op": name, "ns": rng.choice([1, 10**6, 2 * 10**9])},
                "create_file": {"op": name, "shmem": rng.random() < 0.4, "nr_pages": rng.choice([None, 8, 40, 1100])},
            }
            return choices[name]
        make = getattr(self, name)
        operation: Operation = {"op": name, "task": task.id} | make(task, m.engine.mms[task.mm])
        return operation

    def schedule(self, tasks: list[Task]) -> Operation:
        """A switch to a thread, or to nothing."""
        cpu = self.rng.randrange(self.machine.config.nr_cpus)
        candidates: list[int | None] = [task.id for task in tasks if not task.running or task.cpu == cpu]
        choice = self.rng.choice([*candidates, None]) if self.rng.random() < 0.85 else None
        return {"op": "schedule", "cpu": cpu, "task": choice}

    # --- where ------------------------------------------------------------------------------------------------------

    def span(self, mm: Mm) -> tuple[int, int]:
        """A range that often lies in a VMA, sometimes over several, sometimes anywhere."""
        rng, vmas = self.rng, mm.vmas.vmas
        if not vmas or rng.random() < 0.08:
            return rng.choice(BASES) + rng.randrange(1024) * PAGE, self.length()
        vma = rng.choice(vmas)
        pages = (vma.end - vma.start) // PAGE
        shape = rng.random()
        huge = self.huge_pages(mm) if self.likes_huge else []
        if huge and shape < 0.5:
            return rng.choice(huge), PMD
        if self.likes_huge and shape < 0.6:
            start = (vma.start + PMD - 1) & ~(PMD - 1)
            return start + rng.choice([0, 0, 1]) * PMD, PMD * rng.choice([1, 1, 2])
        if shape < 0.25:
            return vma.start, vma.end - vma.start
        if shape < 0.4:
            start = vma.start & ~(PMD - 1)
            return max(start, 0), PMD * rng.choice([1, 1, 2])
        first = rng.randrange(pages)
        return vma.start + first * PAGE, PAGE * rng.choice([1, 1, 2, 5, 33, 34, max(1, pages - first)])

    @staticmethod
    def huge_pages(mm: Mm) -> list[int]:
        """Where huge pages are mapped."""
        return [addr for addr, shift, _ in mm.page_table.leaves() if shift == PMD_SHIFT]

    @staticmethod
    def whole_tables(mm: Mm) -> list[int]:
        """Where a PTE table lies in one area."""
        starts = {start for vma in mm.vmas for start in range(-(-vma.start // PMD) * PMD, vma.end - PMD + 1, PMD)[:64]}
        return sorted(start for start in starts if mm.page_table.table(start, 0) is not None)

    def length(self) -> int:
        """How long a mapping is."""
        return self.rng.choice([1, 2, 3, 8, 20, 33, 34, 40, 100, 512, 513, 600, 1024]) * PAGE

    def place(self, mm: Mm) -> int:
        """An address, mostly in a VMA, near the ends more often."""
        rng, vmas = self.rng, mm.vmas.vmas
        if not vmas or rng.random() < 0.02:
            return rng.choice(BASES) + rng.randrange(1024) * PAGE
        vma = rng.choice(vmas)
        pages = (vma.end - vma.start) // PAGE
        number = rng.choice([0, pages - 1, rng.randrange(pages), rng.randrange(min(pages, 8))])
        return vma.start + number * PAGE + rng.choice([0, 0, 0, 8, 4095])

    def pages(self) -> list[list[int]]:
        """Mapped pages of all address spaces."""
        rng, found = self.rng, []
        for mm in self.machine.live_mms():
            leaves = [addr for addr, _, pte in mm.page_table.leaves() if pte.present]
            if leaves:
                count = min(len(leaves), rng.choice([1, 2, 5, 20]))
                first = rng.randrange(len(leaves))
                found += [[mm.id, addr] for addr in leaves[first : first + count]]
        rng.shuffle(found)
        return found[:40] or [[1, BASES[0]]]

    def real_files(self) -> list[int]:
        """The files that are not shared memory."""
        return [file.id for file in self.machine.memory.files.values() if not file.shmem]

    def some_file(self) -> int | None:
        """A file of the machine, or none."""
        files = self.real_files() if self.rng.random() < 0.6 else list(self.machine.memory.files)
        return self.rng.choice(files) if files and self.rng.random() < 0.6 else None

    def dirty_file(self) -> int | None:
        """A file that has something to write back, if there is one; else any, or none."""
        files = self.machine.memory.files
        dirty = [number for number in self.real_files() if any(page.dirty for page in files[number].pages.values())]
        return self.rng.choice(dirty) if dirty else self.some_file()

    # --- operations with arguments ----------------------------------------------------------------------------------

    def access(self, _task: Task, mm: Mm) -> Operation:
        """A load, a store, seldom a fetch."""
        return {"addr": self.place(mm), "kind": self.rng.choices(["read", "write", "exec"], [4, 6, 1])[0]}

    fault = access

    def run(self, _task: Task, mm: Mm) -> Operation:
        """A program by hand: one of any kernel's, or a walk that asks and changes."""
        addr, length = self.span(mm)
        steps = self.walk(mm) if self.rng.random() < 0.4 else self.rng.choice(PROGRAMS)
        if self.rng.random() < 0.1:
            steps = UNSHARED
        if self.rng.random() < 0.2:  # as if another operation of the same mm were under way
            steps = [{"step": "inc_tlb_flush_pending"}, *steps, {"step": "dec_tlb_flush_pending"}]
        return {"addr": addr, "len": length, "prot": self.rng.choice([None, 0, 1, 3, 3, 7]), "steps": steps}

    def walk(self, mm: Mm) -> list[dict[str, Any]]:
        """Flushes each page of which something is true, and changes each entry in place."""
        rng = self.rng
        question: Any = rng.choice(QUESTIONS)
        question = rng.choice(
            [question, {"not": question}, {"any": [question, "swap"]}, {"all": ["present", question]}]
        )
        asked = {"step": "when", "if": question, "then": [{"step": "flush_tlb_range", "range": "page"}]}
        entries = [asked, {"step": rng.choice(CHANGES)}] if rng.random() < 0.7 else [asked]
        table = [
            {"step": "lock", "lock": "ptl", "mode": "write"},
            {"step": "for_each_pte", "filter": rng.choice(["present", "not_none"]), "body": entries},
            {"step": "unlock", "lock": "ptl"},
        ]
        addr, length = self.span(mm)
        other = {"step": "select_range_at", "addr": addr, "len": length, "prot": rng.choice([None, 1, 3])}
        return [
            {"step": "lock", "lock": "mmap_lock", "mode": "read"},
            *([other] if rng.random() < 0.5 else []),
            {"step": "for_each_vma", "body": [{"step": "for_each_table", "body": table, "on_huge_pmd": []}]},
            {"step": "unlock", "lock": "mmap_lock"},
        ]

    def fork(self, _task: Task, _mm: Mm) -> Operation:
        """No more to say."""
        return {}

    def mmap(self, _task: Task, mm: Mm) -> Operation:
        """A mapping; mostly readable and writable, often near others."""
        rng = self.rng
        where = rng.random()  # address 0 asks for a choice, whatever the flags say
        addr = 0 if where < 0.3 else rng.choice(BASES) + rng.choice([0, 1, 7, 256, 500, 511, 512, 1024]) * PAGE
        if where > 0.9 and mm.vmas.vmas:
            addr = rng.choice(mm.vmas.vmas).end
        length = self.length()
        if self.likes_huge and rng.random() < 0.7:
            addr, length = addr & ~(PMD - 1), rng.choice([1, 1, 2, 3]) * PMD
        return {
            "addr": addr,
            "len": length,
            "prot": rng.choices([3, 1, 7, 0, 5], [12, 2, 2, 1, 1])[0],
            "shared": rng.random() < 0.3,
            "fixed": rng.random() < 0.3,
            "noreplace": rng.random() < 0.05,
            "populate": rng.random() < 0.1,
            "growsdown": rng.random() < 0.05,
            "file": self.some_file(),
            "pgoff": rng.choice([0, 0, 1, 30]),
        }

    def munmap(self, _task: Task, mm: Mm) -> Operation:
        """A range."""
        addr, length = self.span(mm)
        return {"addr": addr, "len": length}

    numa_hint = munmap
    ksm_merge = munmap

    def mprotect(self, _task: Task, mm: Mm) -> Operation:
        """A range and its new rights."""
        addr, length = self.span(mm)
        return {"addr": addr, "len": length, "prot": self.rng.choice([0, 1, 1, 3, 3, 3, 3, 3, 5, 7])}

    def madvise(self, _task: Task, mm: Mm) -> Operation:
        """A range and an advice."""
        addr, length = self.span(mm)
        tables = self.whole_tables(mm) if self.rng.random() < 0.2 else []
        if tables:
            addr, length = self.rng.choice(tables), PMD
        advice = self.rng.choices(ADVICE, [20, 2, 16, 10, 12, 8, 4, 2, 2, 4, 6, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1])[0]
        return {"addr": addr, "len": min(length, PMD * 2), "advice": advice}

    def mremap(self, _task: Task, mm: Mm) -> Operation:
        """Shrink, grow, move, with and without a place of its own."""
        rng = self.rng
        addr, length = self.span(mm)
        new_len = rng.choice([length, length, length + PAGE, length * 2, max(PAGE, length // 2 & ~(PAGE - 1))])
        fixed = rng.random() < 0.4
        new = (rng.choice(BASES) + rng.choice([0, PAGE, PMD, PMD * 2, 3 * PAGE])) if fixed else 0
        whole = [start for vma in mm.vmas for start in range(-(-vma.start // PMD) * PMD, vma.end - PMD + 1, PMD)][:64]
        if self.likes_huge and whole and rng.random() < 0.6:  # whole tables and huge pages move to a place of their own
            addr, length, new, fixed = rng.choice(whole), PMD, FAR + rng.randrange(64) * PMD, True
        dontunmap = rng.random() < 0.1
        return {
            "old": addr,
            "old_len": length,
            "new_len": length if dontunmap or new - FAR in range(64 * PMD) else new_len,
            "maymove": rng.random() < 0.9,
            "fixed": fixed,
            "dontunmap": dontunmap,
            "new": new,
        }

    def brk(self, _task: Task, mm: Mm) -> Operation:
        """Up, down, or a question."""
        rng = self.rng
        return {"addr": rng.choice([0, mm.brk + rng.randrange(80) * PAGE, max(0, mm.brk - rng.randrange(40) * PAGE)])}

    def msync(self, _task: Task, mm: Mm) -> Operation:
        """A range; mostly a mapping that could be written back."""
        addr, length = self.span(mm)
        shared = [vma for vma in mm.vmas if vma.has(VM_SHARED) and vma.file in self.real_files()]
        if shared and self.rng.random() < 0.7:
            vma = self.rng.choice(shared)
            addr, length = vma.start, vma.end - vma.start
        return {"addr": addr, "len": length, "sync": self.rng.random() < 0.8}

    def fsync(self, _task: Task, _mm: Mm) -> Operation:
        """A file (1 may not exist: an error of use then)."""
        part = {"from_page": self.rng.randrange(40), "nr_pages": self.rng.choice([1, 10])}
        return {"file": self.dirty_file() or 1} | (part if self.rng.random() < 0.5 else {})

    def truncate(self, _task: Task, _mm: Mm) -> Operation:
        """A part of a file."""
        rng = self.rng
        return {"file": self.some_file() or 1, "from_page": rng.randrange(40), "nr_pages": rng.choice([None, 1, 10])}

    def wp_shared_mapping_range(self, _task: Task, _mm: Mm) -> Operation:
        """A part of a file."""
        return {
            "file": self.dirty_file() or 1,
            "from_page": self.rng.randrange(10),
            "nr_pages": self.rng.choice([1, 60]),
        }

    def clear_refs(self, _task: Task, _mm: Mm) -> Operation:
        """Accessed or soft-dirty bits."""
        return {"kind": self.rng.choice([1, 4])}

    def reclaim(self, _task: Task, _mm: Mm) -> Operation:
        """Some pages of anybody; or the end of a list that went on."""
        pages, chance = self.pages(), self.rng.random()
        if chance > 0.95:
            pages = []
        return {"pages": pages, "proactive": chance < 0.3, "goes_on": 0.2 < chance < 0.5}

    def migrate(self, _task: Task, _mm: Mm) -> Operation:
        """Some pages of anybody."""
        return {"pages": self.pages()}

    def collapse(self, _task: Task, mm: Mm) -> Operation:
        """2 MiB: those of anonymous memory that a table of present entries maps, if there are any."""
        spans = [
            range(vma.start + PMD - 1 & ~(PMD - 1), vma.end - PMD + 1, PMD)
            for vma in mm.vmas
            if vma.anon_vma and vma.file is None
        ]
        # A stack may grow over terabytes.
        few = 64
        starts = [start for span in spans for start in (span if len(span) <= few else self.rng.sample(span, few))]
        tables = {start: mm.page_table.table(start, 0) for start in starts}
        starts = [
            start
            for start, table in tables.items()
            if table is not None and all(getattr(entry, "present", False) for entry in table.entries.values())
        ] or starts
        return {"addr": self.rng.choice(starts) if starts else self.place(mm) & ~(PMD - 1)}


SMALL_TLB: dict[str, Any] = {
    "l1_4k": {"entries": 8, "ways": 2},
    "l1_2m": {"entries": 4, "ways": 2},
    "l1_1g": {"entries": 0, "ways": 0},
    "stlb": {"entries": 24, "ways": 4},
    "pde_cache": {"entries": 4, "ways": 4},
    "pdpte_cache": {"entries": 2, "ways": 2},
    "pml4e_cache": {"entries": 1, "ways": 1},
    "pml5e_cache": {"entries": 1, "ways": 1},
}
_NO_ARRAY = {"entries": 0, "ways": 0}
#: Small arrays, so that entries are replaced; arrays that are missing; other rules; and those of a real CPU. Not
#: `invlpg_drops_psc` none: x86 kernels leave it to INVLPG that no freed table is walked, and what a walk of freed
#: memory finds is not defined.
TLBS: tuple[dict[str, Any], ...] = (
    SMALL_TLB,
    SMALL_TLB | {"invlpg_drops_psc": "covering"},
    SMALL_TLB | {"pde_cache": {"entries": 4, "ways": 2}},
    SMALL_TLB | {"stlb": {"entries": 12, "ways": 3, "holds_2m": False}},
    SMALL_TLB | {"stlb": {"entries": 6, "ways": 6, "holds_4k": False}},
    SMALL_TLB | {"stlb": _NO_ARRAY, "pde_cache": _NO_ARRAY, "pml4e_cache": _NO_ARRAY},
    {
        "l1_4k": {"entries": 64, "ways": 4},
        "l1_2m": {"entries": 32, "ways": 4},
        "l1_1g": {"entries": 4, "ways": 4},
        "stlb": {"entries": 1536, "ways": 12},
        "stlb_1g": {"entries": 16, "ways": 4},
        "pde_cache": {"entries": 32, "ways": 32},
        "pdpte_cache": {"entries": 4, "ways": 4},
        "pml4e_cache": {"entries": 2, "ways": 2},
    },
)


def random_machine(rng: Random) -> dict[str, Any]:
    """A machine configuration with something of everything."""
    return {
        "nr_cpus": rng.choice([1, 2, 3, 4, 9]),
        "levels": rng.choice([4, 5]),
        "pcid": rng.random() < 0.6,
        "invlpg_keeps_psc": rng.random() < 0.3,
        "tlb_enabled": rng.random() < 0.9,
        "swap": rng.random() < 0.8,
        "thp": rng.choice(["never", "madvise", "always", "always"]),
        "tlb": rng.choice(TLBS),
    }
