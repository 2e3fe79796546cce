"""Which functions of the kernel are watched, and what is read of their arguments.

Contract: definitions for /sys/kernel/tracing/kprobe_events in group `lab`; arguments come in registers as the x86-64
ABI says (di, si, dx, cx, r8), members of structures at offsets of this very kernel. A function that the kernel does not
have (inlined, renamed) is no error here: the guest notes it, and the recording says so. Functions: mm/mmu_gather.c,
arch/x86/mm/tlb.c, mm/rmap.c, mm/pgtable-generic.c, mm/mmap.c, mm/mremap.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.btf import Types

# The flags of an mmu_gather that say something about a flush (include/asm-generic/tlb.h).
GATHER_FLAGS = (
    "fullmm",
    "need_flush_all",
    "freed_tables",
    "cleared_ptes",
    "cleared_pmds",
    "cleared_puds",
    "cleared_p4ds",
    "vma_exec",
)


def gather_flags(types: Types) -> dict[str, int]:
    """The bit of each flag, counted from the byte that has `fullmm`: other flags came between them over the years."""
    base = types.byte_offset("mmu_gather", "fullmm") * 8
    found = {name: types.bit_offset("mmu_gather", name) for name in GATHER_FLAGS}
    return {name: bit - base for name, bit in found.items() if bit is not None}


def definitions(types: Types) -> list[str]:
    """The probes, one a line.

    Raises:
        LabError: the kernel lacks a structure's member that they read.
    """
    pending = types.byte_offset("mm_struct", "tlb_flush_pending")
    batched = types.byte_offset("mm_struct", "tlb_flush_batched")
    # The mask lies behind the structure; the member there is called flexible_array since 6.19.
    mask = types.byte_offset("mm_struct", "cpu_bitmap", "flexible_array")
    vma_mm = types.byte_offset("vm_area_struct", "vm_mm")

    def request(register: str) -> str:
        read = (
            ("mm", "mm", "x64"),
            ("start", "start", "x64"),
            ("end", "end", "x64"),
            ("gen", "new_tlb_gen", "u64"),
            ("icpu", "initiating_cpu", "u32"),
            ("stride", "stride_shift", "u8"),
            ("freed", "freed_tables", "u8"),
        )
        offsets = ((name, types.byte_offset("flush_tlb_info", member), size) for name, member, size in read)
        return " ".join(f"{name}=+{offset}({register}):{size}" for name, offset, size in offsets)

    gather_mm = types.byte_offset("mmu_gather", "mm")
    gather = (
        f"mm=+{gather_mm}(%di):x64 start=+{types.byte_offset('mmu_gather', 'start')}(%di):x64 "
        f"end=+{types.byte_offset('mmu_gather', 'end')}(%di):x64 "
        f"flags=+{types.byte_offset('mmu_gather', 'fullmm')}(%di):x16 "
        f"nbatch=+{types.byte_offset('mmu_gather', 'batch_count')}(%di):u32 pend=+{pending}(+{gather_mm}(%di)):u32"
    )
    if types.bit_offset("pagetable_move_control", "old_addr") is not None:  # since 6.16
        control = {
            name: types.byte_offset("pagetable_move_control", name) for name in ("old_addr", "new_addr", "len_in")
        }
        moved = "old=+{old_addr}(%di):x64 new=+{new_addr}(%di):x64 len=+{len_in}(%di):x64".format(**control)
    else:
        moved = "old=%si new=%cx len=%r8"
    of_vma = f"mm=+{vma_mm}(%di):x64 addr=%si"
    probes = {
        "mm_range flush_tlb_mm_range": "mm=%di start=%si end=%dx stride=%cx:u32 freed=%r8:u8 "
        f"pend=+{pending}(%di):u32 mask=+{mask}(%di):x64",
        "multi native_flush_tlb_multi": f"mask=+0(%di):x64 {request('%si')}",
        "func flush_tlb_func": request("%di"),
        "gather tlb_gather_mmu": f"mm=%si pend=+{pending}(%si):u32",
        "gather_full tlb_gather_mmu_fullmm": f"mm=%si pend=+{pending}(%si):u32",
        "finish tlb_finish_mmu": gather,
        "flush_mmu tlb_flush_mmu": gather,
        "batch_flush arch_tlbbatch_flush": "mask=+0(%di):x64",
        "batch_pending flush_tlb_batched_pending": f"mm=%di batched=+{batched}(%di):x32",
        "unmap_flush try_to_unmap_flush": "",
        "unmap_flush_dirty try_to_unmap_flush_dirty": "",
        "unmap_one try_to_unmap_one": f"vma=%si addr=%dx mm=+{vma_mm}(%si):x64",
        "ptep_clear_flush ptep_clear_flush": of_vma,
        "pmdp_clear_flush pmdp_huge_clear_flush": of_vma,
        "pmdp_invalidate pmdp_invalidate": of_vma,
        "flush_all flush_tlb_all": "",
        "flush_kernel flush_tlb_kernel_range": "start=%di end=%si",
        "exit_mmap exit_mmap": "mm=%di",
        "free_pgtables free_pgtables": "",
        "move_tables move_page_tables": moved,
        "leave_mm leave_mm": "",
    }
    return [f"p:lab/{name} {arguments}".rstrip() for name, arguments in probes.items()]
