//! Steps on areas: which range a program works on, and what it inserts, splits, takes out and changes (mm/vma.c).

use crate::addr::{PMD_SHIFT, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::page_table::{PMD_LEVEL, PTE_LEVEL, table_index};
use crate::program::{ProgramName, RangeArg};

use super::Machine;
use super::frame::{Args, Frame, Place};
use super::vma::{VmFlags, Vma};

impl Frame {
    /// Chooses the range to work on; areas detached for another are forgotten.
    pub(super) fn select_range(&mut self, range: RangeArg) {
        self.r.range = match range {
            RangeArg::Args => self.args.range,
            RangeArg::Tail => self.args.mremap.tail(),
            RangeArg::New => self.args.mremap.new_range(),
            RangeArg::Old => self.args.mremap.old_range(),
        };
        self.detached.clear();
        self.walks_detached = false;
    }
}

impl Machine {
    /// Splits the area at `addr`. A huge page cannot belong to two areas: one across the border is split first
    /// (mm/huge_memory.c:`vma_adjust_trans_huge`).
    pub(super) fn split_vma_at(&mut self, by: Initiator, id: MmId, addr: VirtAddr) -> Result<()> {
        let mm = self.mm_ref(id)?;
        let root = mm.root;
        if mm.vmas.lookup(addr).is_none_or(|vma| vma.start == addr) {
            return Ok(());
        }
        let pmd = self.tables.pmd_entry(root, addr);
        if !addr.is_aligned(PMD_SHIFT) && !pmd.is_none() && !pmd.is_table() {
            let mut frame = Frame::new(ProgramName::Munmap, by, id, root, Args::default());
            frame.r.addr = addr.align_down(PMD_SHIFT);
            frame.r.place = self.tables.table_at(root, addr, PMD_LEVEL).map(|table| Place { table, level: PMD_LEVEL });
            self.split_at_once(&mut frame)?;
        }
        self.mm_mut(id)?.vmas.split_at(addr);
        Ok(())
    }

    pub(super) fn vms_gather_munmap_vmas(&mut self, frame: &mut Frame) -> Result<()> {
        let range = frame.r.range;
        for border in [range.start, range.end] {
            self.split_vma_at(frame.by, frame.r.mm, border)?;
        }
        frame.detached.clear();
        frame.walks_detached = true;
        self.mm_mut(frame.r.mm)?.vmas.detach(range, &mut frame.detached);
        if !frame.detached.is_empty() {
            self.lru_add_drain_unmapping(frame.by.cpu);
        }
        Ok(())
    }

    pub(super) fn mmap_region(&mut self, frame: &mut Frame) -> Result<()> {
        let vma = frame.args.new_vma.ok_or_else(|| frame.error("the arguments of mmap", "none"))?;
        let either = self.kernel.constants.anon_vma_merges_either_way;
        let vmas = &mut self.mm_mut(frame.r.mm)?.vmas;
        if !vmas.is_free(vma.range()) {
            return Err(frame.error("free space for the new VMA", "a VMA there"));
        }
        vmas.insert(vma);
        frame.r.vma = vmas.merge_at(vma.start, either);
        Ok(())
    }

    pub(super) fn mprotect_fixup(&mut self, frame: &mut Frame) -> Result<()> {
        let prot = frame.args.prot;
        if frame.args.keeps_rights || frame.r.vma.flags & VmFlags::ACCESS == prot {
            return Ok(());
        }
        let vma = &frame.r.vma;
        let mut flags = vma.flags.difference(VmFlags::ACCESS) | prot;
        if flags.contains(VmFlags::WRITE) {
            flags = flags.accounted();
        } else if self.kernel.constants.mprotect_unaccounts && vma.is_anonymous() && vma.anon_vma.is_none() {
            flags.remove(VmFlags::ACCOUNT);
        }
        frame.r.vma = self.set_vma_flags(frame.by, frame.r.mm, frame.r.vma_range, flags)?;
        Ok(())
    }

    /// Gives the part `range` of one area other flags, with the splits and merges that takes.
    pub(super) fn set_vma_flags(
        &mut self,
        by: Initiator,
        id: MmId,
        range: crate::addr::VaRange,
        flags: VmFlags,
    ) -> Result<Vma> {
        for border in [range.start, range.end] {
            self.split_vma_at(by, id, border)?;
        }
        let either = self.kernel.constants.anon_vma_merges_either_way;
        let vmas = &mut self.mm_mut(id)?.vmas;
        if let Some(vma) = vmas.lookup(range.start).copied() {
            vmas.update(Vma { flags, ..vma });
        }
        Ok(vmas.merge_at(range.start, either))
    }

    pub(super) fn clear_vma_soft_dirty(&mut self, frame: &mut Frame) -> Result<()> {
        frame.r.vma.flags.remove(VmFlags::SOFTDIRTY);
        let Vma { start, flags, .. } = frame.r.vma;
        let vmas = &mut self.mm_mut(frame.r.mm)?.vmas;
        // A fault may have given it an anon_vma meanwhile.
        if let Some(vma) = vmas.lookup(start).copied() {
            vmas.update(Vma { flags, ..vma });
        }
        Ok(())
    }

    /// Grows the area of mremap's old range over the free space behind it.
    pub(super) fn vma_expand(&mut self, frame: &mut Frame) -> Result<()> {
        let args = frame.args.mremap;
        let either = self.kernel.constants.anon_vma_merges_either_way;
        let vmas = &mut self.mm_mut(frame.r.mm)?.vmas;
        if let Some(start) = vmas.lookup(args.old).map(|vma| vma.start) {
            vmas.expand_up(start, VirtAddr(args.old.0 + args.new_len));
            frame.r.vma = vmas.merge_at(start, either);
        }
        Ok(())
    }

    /// Makes the area that mremap moves to; the old one stays until it is unmapped.
    pub(super) fn copy_vma(&mut self, frame: &mut Frame) -> Result<()> {
        let args = frame.args.mremap;
        let vmas = &mut self.mm_mut(frame.r.mm)?.vmas;
        let Some(old) = vmas.lookup(args.old).copied() else {
            return Err(frame.error("a VMA at the old address", "none"));
        };
        let range = args.new_range();
        let never_faulted = old.is_anonymous() && old.anon_vma.is_none();
        let copy = Vma {
            start: range.start,
            end: range.end,
            pgoff: if never_faulted { args.new.0 >> crate::addr::PAGE_SHIFT } else { old.index_of(args.old) },
            flags: old.flags | VmFlags::SOFTDIRTY,
            ..old
        };
        if !vmas.is_free(range) {
            return Err(frame.error("free space for the moved VMA", "a VMA there"));
        }
        vmas.insert(copy);
        frame.r.vma = old;
        frame.r.vma_range = args.old_range();
        Ok(())
    }

    /// The areas that map a page of the operation's file range, in the order of the file's interval tree
    /// (mm/interval_tree.c:`vma_interval_tree_iter_next`): by their first page, of equals the one first that came first.
    pub(super) fn vmas_of_file(&self, frame: &Frame) -> Vec<(MmId, VirtAddr)> {
        let mut areas: Vec<(MmId, &Vma)> = self
            .live_mms()
            .flat_map(|(id, mm)| mm.vmas.iter().map(move |vma| (id, vma)))
            .filter(|(_, vma)| self.file_range_in(frame, vma).is_some())
            .collect();
        areas.sort_by_key(|(id, vma)| (vma.pgoff, vma.born.of_file, *id, vma.start));
        areas.into_iter().map(|(id, vma)| (id, vma.start)).collect()
    }

    /// The addresses at which an area maps the operation's file range.
    #[expect(clippy::unused_self, reason = "read beside vmas_of_file")]
    pub(super) fn file_range_in(&self, frame: &Frame, vma: &Vma) -> Option<crate::addr::VaRange> {
        let (file, from, to) = frame.args.file?;
        if vma.file != Some(file) {
            return None;
        }
        let nr_pages = vma.range().len_bytes() >> crate::addr::PAGE_SHIFT;
        let first = from.saturating_sub(vma.pgoff).min(nr_pages);
        let last = to.saturating_sub(vma.pgoff).min(nr_pages);
        let at = |page: u64| VirtAddr(vma.start.0 + (page << crate::addr::PAGE_SHIFT));
        (first < last).then(|| crate::addr::VaRange::new(at(first), at(last)))
    }

    /// The table of the current entry's address, at the level where a page stands or could stand.
    pub(super) fn find_place(&self, frame: &Frame) -> Option<Place> {
        let pmd_table = self.tables.table_at(frame.r.root, frame.r.addr, PMD_LEVEL)?;
        let pmd = self.tables.get(pmd_table, table_index(frame.r.addr, PMD_LEVEL));
        if pmd.is_none() {
            return None;
        }
        let huge = Place { table: pmd_table, level: PMD_LEVEL };
        Some(if pmd.is_table() { Place { table: pmd.table_id(), level: PTE_LEVEL } } else { huge })
    }
}
