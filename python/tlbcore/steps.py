"""The step language: one function for each step, named as the kernel names it.

A program is a list of steps (nested lists are flattened, so that a part can be a function that returns a list):

    for_each_table(
        pte_offset_map_lock(),
        for_each_pte(
            ptep_get_and_clear(),
            when(dirty & file_backed, set_page_dirty(), set_force_flush()),
            tlb_remove_tlb_entry(),
            filter="present",
        ),
        pte_unmap_unlock(),
    )

`docs/steps.md` gives the meaning of each step and condition; `tlbcore.scheme` turns programs into a kernel. Nothing is
executed here: a step is data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

JsonStep: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Condition:
    """A condition of `when`: a test by name, or tests combined with ``&``, ``|`` and ``~``."""

    kind: str
    name: str = ""
    parts: tuple[Condition, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        """Both hold."""
        return Condition("all", parts=(*self._flat("all"), *other._flat("all")))

    def __or__(self, other: Condition) -> Condition:
        """At least one holds."""
        return Condition("any", parts=(*self._flat("any"), *other._flat("any")))

    def __invert__(self) -> Condition:
        """It does not hold."""
        return self.parts[0] if self.kind == "not" else Condition("not", parts=(self,))

    def _flat(self, kind: str) -> tuple[Condition, ...]:
        return self.parts if self.kind == kind else (self,)

    def resolve(self) -> object:
        """The plain structure: a name, or an object with the key ``not``, ``all`` or ``any``."""
        if self.kind == "test":
            return self.name
        if self.kind == "not":
            return {"not": self.parts[0].resolve()}
        return {self.kind: [part.resolve() for part in self.parts]}

    def __str__(self) -> str:
        """As a reader of C would write it."""
        if self.kind == "test":
            return self.name
        if self.kind == "not":
            inner = self.parts[0]
            return f"!{inner}" if inner.kind == "test" else f"!({inner})"
        sign = " && " if self.kind == "all" else " || "
        return sign.join(str(part) if part.kind in ("test", "not") else f"({part})" for part in self.parts)


@dataclass(frozen=True)
class Step:
    """One step: its name, its plain arguments and the blocks inside it, all as in `docs/steps.md`."""

    name: str
    arguments: Mapping[str, str | bool | int | None] = field(default_factory=dict)
    condition: Condition | None = None
    blocks: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)

    def resolve(self) -> JsonStep:
        """The plain structure of this step and all inside it."""
        plain: JsonStep = {"step": self.name, **self.arguments}
        if self.condition is not None:
            plain["if"] = self.condition.resolve()
        for label, block in self.blocks.items():
            if block or label in ("body", "then"):
                plain[label] = [step.resolve() for step in block]
        return plain


Block: TypeAlias = Sequence["Step | Block"]
"""Steps in their order; a part may be a block itself."""


def flatten(block: Block) -> tuple[Step, ...]:
    """The steps of a block whose parts may be blocks themselves."""

    def walk(part: Sequence[object]) -> Iterator[Step]:
        for item in part:
            if isinstance(item, Step):
                yield item
            elif isinstance(item, Sequence) and not isinstance(item, str):
                yield from walk(item)
            else:
                msg = f"found {item!r} in a block of steps, expected a step or a list of steps"
                raise TypeError(msg)

    return tuple(walk(block))


# --- control -------------------------------------------------------------------------------------------------------


def when(condition: Condition, *then: Step | Block, otherwise: Block = ()) -> Step:
    """If `condition` holds do `then`, else `otherwise`."""
    blocks = {"then": flatten(then), "else": flatten(otherwise)}
    return Step("when", condition=condition, blocks=blocks)


def for_each_vma(*body: Step | Block) -> Step:
    """The VMAs of the range (or those that were detached), by address."""
    return Step("for_each_vma", blocks={"body": flatten(body)})


def for_each_rmap_vma(*body: Step | Block) -> Step:
    """The VMAs, of any mm, that map a page of the operation's file range."""
    return Step("for_each_rmap_vma", blocks={"body": flatten(body)})


def for_each_table(*body: Step | Block, on_huge_pmd: Block = ()) -> Step:
    """The PTE tables of the VMA's range; a huge PMD runs `on_huge_pmd`. A table left early is visited again."""
    return Step("for_each_table", blocks={"body": flatten(body), "on_huge_pmd": flatten(on_huge_pmd)})


def for_each_pte(*body: Step | Block, filter: str = "present") -> Step:  # noqa: A002 - the language's own word
    """The entries of the current table that are `present` or `not_none`."""
    return Step("for_each_pte", {"filter": filter}, blocks={"body": flatten(body)})


def for_each_extent(*body: Step | Block, on_pmd: Block = (), on_huge_pmd: Block = ()) -> Step:
    """The pieces of mremap inside one source and one destination PTE table; whole tables run `on_pmd`."""
    blocks = {"body": flatten(body), "on_pmd": flatten(on_pmd), "on_huge_pmd": flatten(on_huge_pmd)}
    return Step("for_each_extent", blocks=blocks)


def for_each_page(*body: Step | Block, keep: bool = False) -> Step:
    """The pages of the operation's list; `keep` leaves the list for a second pass."""
    return Step("for_each_page", {"keep": True} if keep else {}, blocks={"body": flatten(body)})


def for_each_mapping(*body: Step | Block, on_huge_pmd: Block = (), shared_only: bool = False) -> Step:
    """The places where the current page is mapped (rmap walk)."""
    blocks = {"body": flatten(body), "on_huge_pmd": flatten(on_huge_pmd)}
    return Step("for_each_mapping", {"shared_only": True} if shared_only else {}, blocks=blocks)


# --- steps with arguments ------------------------------------------------------------------------------------------


def lock(name: str, mode: str = "write") -> Step:
    """Take a lock: ``mmap_lock vma_lock ptl new_ptl pml new_pml rmap_lock folio_lock``, ``read`` or ``write``."""
    return Step("lock", {"lock": name, "mode": mode})


def unlock(name: str) -> Step:
    """Drop a lock."""
    return Step("unlock", {"lock": name})


def mmap_write_lock() -> Step:
    """Take mmap_lock for writing."""
    return lock("mmap_lock")


def mmap_read_lock() -> Step:
    """Take mmap_lock for reading."""
    return lock("mmap_lock", "read")


def mmap_write_downgrade() -> Step:
    """Go on with mmap_lock held for reading."""
    return Step("downgrade", {"lock": "mmap_lock"})


def mmap_unlock() -> Step:
    """Drop mmap_lock."""
    return unlock("mmap_lock")


def pte_offset_map_lock() -> Step:
    """Take the lock of the current PTE table."""
    return lock("ptl")


def pte_unmap_unlock() -> Step:
    """Drop it."""
    return unlock("ptl")


def pmd_lock() -> Step:
    """Take the lock of the current PMD table."""
    return lock("pml")


def pmd_unlock() -> Step:
    """Drop it."""
    return unlock("pml")


def select_range(name: str) -> Step:
    """Work on the operation's range ``args``, ``tail``, ``new`` or ``old``."""
    return Step("select_range", {"range": name})


def select_range_at(addr: int, length: int, prot: int | None = None) -> Step:
    """Work on this range, in bytes, and on these rights; only in a program that is run by hand (operation `run`)."""
    return Step("select_range_at", {"addr": addr, "len": length, "prot": prot})


def pte_modify(prot: str = "vma") -> Step:
    """Give `new_pte` the VMA's protection, or none (a NUMA hint)."""
    return Step("pte_modify", {"prot": prot})


def pte_mkwrite(only_if: str) -> Step:
    """Make `new_pte` writable: ``always``, ``can_change_pte_writable`` or ``dirty_accountable``."""
    return Step("pte_mkwrite", {"only_if": only_if})


def flush_tlb_range(name: str) -> Step:
    """Flush at once: the ``vma`` range, the ``table``, the ``extent``, the ``pmd``, the ``page``.

    An ``entry`` is the same page, as a range of one.
    """
    return Step("flush_tlb_range", {"range": name})


def flush_tlb_page() -> Step:
    """Flush the page at the current address at once."""
    return flush_tlb_range("page")


def tlb_gather_mmu(*, fullmm: bool = False, light: bool = False) -> Step:
    """Open the mmu_gather; raises tlb_flush_pending. `light`: without a page list."""
    return Step("tlb_gather_mmu", {k: True for k, v in {"fullmm": fullmm, "light": light}.items() if v})


def set_pte_file(*, write: bool = False) -> Step:
    """Map the file page at the fault's address."""
    return Step("set_pte_file", {"write": True} if write else {})


# --- steps without arguments ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlainStep:
    """A step without arguments; call it to put it into a program."""

    name: str
    help: str

    def __call__(self) -> Step:
        """The step."""
        return Step(self.name)


inc_tlb_flush_pending = PlainStep("inc_tlb_flush_pending", "one more operation has flushes pending for this mm")
dec_tlb_flush_pending = PlainStep("dec_tlb_flush_pending", "one less")
vms_gather_munmap_vmas = PlainStep("vms_gather_munmap_vmas", "split VMAs at the range's ends, detach those inside")
mmap_region = PlainStep("mmap_region", "insert the new VMA")
mprotect_fixup = PlainStep("mprotect_fixup", "split the VMA to the range, set its flags, merge it")
arch_enter_lazy_mmu_mode = PlainStep("arch_enter_lazy_mmu_mode", "the architecture may batch PTE changes from here")
arch_leave_lazy_mmu_mode = PlainStep("arch_leave_lazy_mmu_mode", "to here; the batch is drained")
flush_tlb_batched_pending = PlainStep("flush_tlb_batched_pending", "flush what reclaim left unflushed in this mm")
ptep_get_and_clear = PlainStep("ptep_get_and_clear", "take the entry out, atomically")
pte_clear = PlainStep("pte_clear", "empty a not-present entry")
pte_wrprotect = PlainStep("pte_wrprotect", "take write permission from new_pte")
pte_mkclean = PlainStep("pte_mkclean", "take D from new_pte")
pte_mkold = PlainStep("pte_mkold", "take A from new_pte")
pte_clear_soft_dirty = PlainStep("pte_clear_soft_dirty", "take soft-dirty from new_pte")
set_pte_at = PlainStep("set_pte_at", "store new_pte")
ptep_set_wrprotect = PlainStep("ptep_set_wrprotect", "clear W in place")
ptep_clear_young = PlainStep("ptep_clear_young", "clear A in place, without a flush (x86)")
ptep_clear_flush = PlainStep("ptep_clear_flush", "take the entry out and flush its page if it was accessible")
count_changed = PlainStep("count_changed", "count a changed entry")
set_force_flush = PlainStep("set_force_flush", "this table must be flushed before its lock is dropped")
set_delay_rmap = PlainStep("set_delay_rmap", "this page's rmap goes only after the flush")
flush_tlb_mm = PlainStep("flush_tlb_mm", "flush the whole address space")
tlb_remove_tlb_entry = PlainStep("tlb_remove_tlb_entry", "record a removed entry in the gather")
tlb_flush_pte_range = PlainStep("tlb_flush_pte_range", "record a changed entry in the gather")
tlb_remove_pmd_tlb_entry = PlainStep("tlb_remove_pmd_tlb_entry", "record a removed huge entry")
tlb_flush_pmd_range = PlainStep("tlb_flush_pmd_range", "record a changed huge entry")
tlb_remove_page = PlainStep("tlb_remove_page", "queue the page for after the flush; a full batch forces one")
tlb_flush_mmu_tlbonly = PlainStep("tlb_flush_mmu_tlbonly", "flush what is gathered; free nothing")
tlb_flush_rmaps = PlainStep("tlb_flush_rmaps", "remove the delayed rmaps")
tlb_flush_mmu = PlainStep("tlb_flush_mmu", "flush, then free tables and pages")
tlb_finish_mmu = PlainStep(
    "tlb_finish_mmu", "end the gather: flush (in full if nested), free; lowers tlb_flush_pending"
)
free_pgtables = PlainStep("free_pgtables", "free the page tables of the VMAs just walked")
try_get_and_clear_pmd = PlainStep("try_get_and_clear_pmd", "take a table that is empty now out of the tree")
free_pte = PlainStep("free_pte", "free the table that was taken out, after the flush")
note_deferred_flush = PlainStep("note_deferred_flush", "note the generation at which a flush is outstanding here")
check_deferred_flush = PlainStep(
    "check_deferred_flush", "take over a flush that another operation has outstanding here"
)
mark_tlb_gen_done = PlainStep("mark_tlb_gen_done", "all generations so far are flushed")
page_remove_rmap = PlainStep("page_remove_rmap", "remove the mapping from the page's rmap")
put_page = PlainStep("put_page", "drop the mapping's reference")
set_page_dirty = PlainStep("set_page_dirty", "mark the page dirty")
clear_page_dirty = PlainStep("clear_page_dirty", "mark the page clean")
set_tlb_ubc_flush_pending = PlainStep("set_tlb_ubc_flush_pending", "defer the flush of a cleared entry")
try_to_unmap_flush = PlainStep("try_to_unmap_flush", "do this task's deferred flush")
try_to_unmap_flush_dirty = PlainStep("try_to_unmap_flush_dirty", "do it if a dirty entry is among those deferred")
isolate_folio = PlainStep("isolate_folio", "put the page on the operation's list")
add_to_swap = PlainStep("add_to_swap", "give the page a swap slot")
set_swap_pte = PlainStep("set_swap_pte", "store a swap entry for the page")
pageout = PlainStep("pageout", "write the page out")
remove_mapping_and_free = PlainStep("remove_mapping_and_free", "free the page if nothing maps it and it is clean")
set_migration_entry = PlainStep("set_migration_entry", "store a migration entry for the page")
migrate_copy = PlainStep("migrate_copy", "copy the page to a new one")
remove_migration_ptes = PlainStep("remove_migration_ptes", "replace its migration entries by the new page")
pmdp_huge_get_and_clear = PlainStep("pmdp_huge_get_and_clear", "take a huge entry out, atomically")
pmdp_invalidate = PlainStep("pmdp_invalidate", "make a huge entry not present for the hardware and flush it")
pmdp_invalidate_ad = PlainStep("pmdp_invalidate_ad", "the same without a flush")
set_pmd_at = PlainStep("set_pmd_at", "store new_pte as the huge entry")
split_huge_pmd = PlainStep("split_huge_pmd", "replace a huge entry by a table (with a flush)")
split_folio = PlainStep("split_folio", "replace a huge page of one's own, and its entry, by small ones (with a flush)")
pmdp_collapse_flush = PlainStep("pmdp_collapse_flush", "take a PTE table out of the tree and flush its range")
pud_clear = PlainStep("pud_clear", "hugetlb: clear the upper entry that names a shared table")
ptdesc_pmd_pts_dec = PlainStep("ptdesc_pmd_pts_dec", "hugetlb: one user less of the table just unhooked")
tlb_flush_pud_range = PlainStep("tlb_flush_pud_range", "hugetlb: record all that is behind the current table")
tlb_remove_table_sync_one = PlainStep(
    "tlb_remove_table_sync_one", "wait for all who walk page tables without locks; flushes nothing"
)
pte_free_defer = PlainStep("pte_free_defer", "free the table that was taken out, once those walkers are through (RCU)")
collapse_copy = PlainStep("collapse_copy", "copy the small pages into a new huge one")
set_pmd_huge = PlainStep("set_pmd_huge", "map the new huge page")
pte_alloc = PlainStep("pte_alloc", "allocate the tables of the address and read its entry")
do_huge_pmd_anonymous_page = PlainStep("do_huge_pmd_anonymous_page", "map a new huge page")
alloc_anon_page = PlainStep("alloc_anon_page", "allocate a zeroed page")
copy_user_page = PlainStep("copy_user_page", "copy the old page's content")
find_get_page = PlainStep("find_get_page", "look the file page up, or make it")
set_pte_anon = PlainStep("set_pte_anon", "map the new anonymous page")
set_pte_zero = PlainStep("set_pte_zero", "map the zero page")
map_around = PlainStep("map_around", "map the resident file pages around the address (fault-around)")
wp_page_reuse = PlainStep("wp_page_reuse", "make the entry writable in place")
ptep_set_access_flags = PlainStep("ptep_set_access_flags", "set A (and D) in place")
swap_in = PlainStep("swap_in", "bring the page back from its swap slot")
set_pte_swap_in = PlainStep("set_pte_swap_in", "map it")
set_pte_numa = PlainStep("set_pte_numa", "make a NUMA-hinted entry present again")
folio_get = PlainStep("folio_get", "take a reference of the page that is to be copied")
folio_put = PlainStep("folio_put", "drop the reference that was taken of the page that was copied")
put_old_page = PlainStep("put_old_page", "drop the reference of the entry of the page that was copied")
dup_mm = PlainStep("dup_mm", "make the child's mm")
dup_vma = PlainStep("dup_vma", "copy the VMA into the child")
pte_alloc_child = PlainStep("pte_alloc_child", "make the child's table")
page_dup_rmap = PlainStep("page_dup_rmap", "add the child's mapping to the page")
set_pte_at_child = PlainStep("set_pte_at_child", "store the child's entry")
swap_duplicate = PlainStep("swap_duplicate", "share a swap or migration entry with the child")
set_pmd_at_child = PlainStep("set_pmd_at_child", "store the child's huge entry")
vma_expand = PlainStep("vma_expand", "grow the VMA in place")
copy_vma = PlainStep("copy_vma", "make the VMA at the destination")
vma_dontunmap = PlainStep("vma_dontunmap", "keep the old VMA, empty")
move_normal_pmd = PlainStep("move_normal_pmd", "move a whole PTE table")
set_pte_at_new = PlainStep("set_pte_at_new", "store the moved entry at its new address")
move_huge_pmd = PlainStep("move_huge_pmd", "move a huge entry")
track_flush_range = PlainStep("track_flush_range", "widen the tracked range by the entry's page")
flush_tracked_range = PlainStep("flush_tracked_range", "flush the tracked range, or the whole VMA's if nested")
clear_vma_soft_dirty = PlainStep("clear_vma_soft_dirty", "take VM_SOFTDIRTY from the VMA")
clear_young_dirty = PlainStep("clear_young_dirty", "clear A and D in place")
mark_lazyfree = PlainStep("mark_lazyfree", "the page may be dropped instead of swapped")
folio_try_share_anon_rmap = PlainStep(
    "folio_try_share_anon_rmap", "take PageAnonExclusive from the page: who writes looks at its references from now on"
)
stable_tree_search = PlainStep("stable_tree_search", "find the KSM page of this content; the first page becomes it")
pages_identical = PlainStep("pages_identical", "compare the page with the KSM page")
set_pte_ksm = PlainStep("set_pte_ksm", "map the KSM page, read-only")

#: All steps without arguments, by name.
PLAIN_STEPS: dict[str, PlainStep] = {v.name: v for v in list(globals().values()) if isinstance(v, PlainStep)}


# --- conditions ----------------------------------------------------------------------------------------------------


def _test(name: str) -> Condition:
    return Condition("test", name)


present = _test("present")
none = _test("none")
swap = _test("swap")
migration = _test("migration")
protnone = _test("protnone")
dirty = _test("dirty")
young = _test("young")
write = _test("write")
uffd_wp = _test("uffd_wp")
pte_accessible = _test("pte_accessible")
pte_needs_flush = _test("pte_needs_flush")
pte_demoted = _test("pte_demoted")
pte_changed = _test("pte_changed")
anon = _test("anon")
file_backed = _test("file_backed")
zero_page = _test("zero_page")
page_mapped = _test("page_mapped")
page_dirty = _test("page_dirty")
page_lazyfree = _test("page_lazyfree")
page_in_swap_cache = _test("page_in_swap_cache")
page_swap_shared = _test("page_swap_shared")
page_huge = _test("page_huge")
page_shared = _test("page_shared")
page_ksm = _test("page_ksm")
page_exclusive = _test("page_exclusive")
page_lru = _test("page_lru")
page_held = _test("page_held")
page_shmem = _test("page_shmem")
vma_shared = _test("vma_shared")
vma_anonymous = _test("vma_anonymous")
vma_writable = _test("vma_writable")
vma_dontcopy = _test("vma_dontcopy")
vma_needs_copy = _test("vma_needs_copy")
prot_changed = _test("prot_changed")
cow_mapping = _test("cow_mapping")
vma_huge_allowed = _test("vma_huge_allowed")
have_vmas = _test("have_vmas")
whole_pmd = _test("whole_pmd")
force_flush = _test("force_flush")
delay_rmap = _test("delay_rmap")
any_changed = _test("any_changed")
write_fault = _test("write_fault")
exec_fault = _test("exec_fault")
huge_fault_fits = _test("huge_fault_fits")
pmd_is_huge = _test("pmd_is_huge")
pmd_present = _test("pmd_present")
pmd_shared = _test("pmd_shared")
should_defer_flush = _test("should_defer_flush")
mm_tlb_flush_nested = _test("mm_tlb_flush_nested")
mm_tlb_flush_pending = _test("mm_tlb_flush_pending")
moves = _test("moves")
shrinks = _test("shrinks")
grows_in_place = _test("grows_in_place")
unmaps_new = _test("unmaps_new")
copies_dontunmap = _test("copies_dontunmap")
populates = _test("populates")
proactive = _test("proactive")

#: All conditions, by name.
CONDITIONS: dict[str, Condition] = {v.name: v for v in list(globals().values()) if isinstance(v, Condition)}
