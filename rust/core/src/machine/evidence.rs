//! What a driver asks and corrects when a recording knows better than the machine. As in `adopt.rs`, nothing here
//! flushes or counts.

use crate::addr::{Levels, VaRange, VirtAddr};
use crate::error::{Error, Result};
use crate::flush::MmId;
use crate::page_table::{TableCursor, TableVisit};

use super::operation::AccessKind;
use super::vma::{VmFlags, Vma};
use super::{MMAP_MIN, Machine};

impl Machine {
    /// How deep the page tables are.
    pub const fn levels(&self) -> Levels {
        self.tables.levels()
    }

    /// The CPU on which a task runs, if it does.
    pub fn running_on(&self, task: u32) -> Option<u32> {
        self.task(task).ok().filter(|task| task.running).map(|task| u32::from(task.cpu.0))
    }

    /// The first area that ends behind `addr`.
    pub fn next_vma(&self, mm: MmId, addr: VirtAddr) -> Option<&Vma> {
        self.mm(mm)?.vmas.find(addr)
    }

    /// The unmapped range in which `addr` lies (empty if something is mapped there).
    pub fn gap_around(&self, mm: MmId, addr: VirtAddr) -> VaRange {
        let Some(mm) = self.mm(mm) else { return VaRange::default() };
        if mm.vmas.lookup(addr).is_some() {
            return VaRange::default();
        }
        let start = mm.vmas.find_before(addr).map_or(MMAP_MIN, |vma| vma.end);
        VaRange::new(start, mm.vmas.find(addr).map_or(self.user_end(), |vma| vma.start))
    }

    /// Whether the area at `addr` allows an access.
    pub fn allows(&self, mm: MmId, addr: VirtAddr, kind: AccessKind) -> bool {
        self.vma_at(mm, addr).is_some_and(|vma| match kind {
            AccessKind::Read => vma.flags.intersects(VmFlags::ACCESS),
            AccessKind::Write => vma.flags.contains(VmFlags::WRITE),
            AccessKind::Exec => vma.flags.contains(VmFlags::EXEC),
        })
    }

    /// mm/mlock.c:`apply_vma_lock_flags`: the areas of a range are locked in memory, or no longer.
    ///
    /// # Errors
    /// If the task does not run.
    pub fn set_locked(&mut self, task: u32, range: VaRange, locked: bool) -> Result<()> {
        let by = self.initiator(task)?;
        let mm = self.task_mm(task)?;
        let mut at = range.start;
        while let Some(vma) = self.mm_ref(mm)?.vmas.find(at).copied().filter(|vma| vma.start < range.end) {
            at = vma.end;
            let mut flags = vma.flags;
            flags.set(VmFlags::LOCKED, locked);
            if flags != vma.flags {
                self.set_vma_flags(by, mm, vma.range().intersect(range), flags)?;
            }
        }
        Ok(())
    }

    /// Other operations have so many gathers open in this mm, until [`Self::release_gathers`].
    ///
    /// # Errors
    /// If there is no such mm.
    pub fn hold_gathers(&mut self, mm: MmId, nr_gathers: u32) -> Result<()> {
        self.mm_mut(mm)?.tlb_flush_pending += nr_gathers;
        Ok(())
    }

    /// They have ended. Nothing if the mm is gone.
    ///
    /// # Errors
    /// If so many were not open.
    pub fn release_gathers(&mut self, mm: MmId, nr_gathers: u32) -> Result<()> {
        let Ok(mm) = self.mm_mut(mm) else { return Ok(()) };
        let pending = mm.tlb_flush_pending.checked_sub(nr_gathers);
        mm.tlb_flush_pending = pending.ok_or_else(|| Error::Value("found fewer gathers open than held".to_owned()))?;
        Ok(())
    }

    /// Takes write permission from the entry at `addr`, which by evidence has none, and from what TLBs hold of it.
    pub fn write_protect(&mut self, mm: MmId, addr: VirtAddr) {
        let Some(root) = self.mm(mm).map(|mm| mm.root) else { return };
        let Some(place) = self.place_at(root, addr) else { return };
        let index = crate::page_table::table_index(addr, place.level);
        let pte = self.tables.get(place.table, index);
        self.tables.set(place.table, index, pte.wrprotect());
        self.engine.forget_translation(mm, addr);
    }

    /// Drops all that is mapped in a range and its areas: a recording shows that nothing is there.
    ///
    /// # Errors
    /// If there is no such mm.
    pub fn forget_range(&mut self, mm: MmId, range: VaRange) -> Result<()> {
        let root = self.mm_ref(mm)?.root;
        let mut cursor = TableCursor::new(root, range);
        while let Some(visit) = cursor.next(&self.tables) {
            if let TableVisit::PteTable { range, .. } = visit {
                let mut addr = range.start;
                while addr < range.end {
                    self.forget_page(mm, addr)?;
                    addr = VirtAddr(addr.0 + crate::addr::PAGE_SIZE);
                }
            }
        }
        let mut detached = Vec::new();
        self.mm_mut(mm)?.vmas.detach(range, &mut detached);
        Ok(())
    }
}
