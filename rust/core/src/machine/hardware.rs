//! The hardware's part: a load, store or fetch through the TLB, the walk on a miss, A and D bits, faults
//! (`docs/machine.md` section 3).

use crate::addr::{PageSize, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::{Error, Result};
use crate::flush::{Initiator, MmId};
use crate::page_table::{PTE_LEVEL, PageTables, TableId, Walk, WalkEnd};
use crate::program::{LazyMmu, ProgramName};
use crate::tlb::{PscLevel, PscScope, TlbEntry};

use super::Machine;
use super::operation::{AccessKind, Errno, Outcome};
use super::pages::Pages;
use super::probes::Probe;
use super::resolve::{Stage, Todo, Tries};

/// How often an access is tried again after its fault was handled.
pub(super) const MAX_FAULTS: u32 = 8;

impl Machine {
    /// Accesses `addr` on the CPU of `by`, which has `mm` loaded; a fault is handled and the access tried again.
    pub(super) fn access(
        &mut self,
        by: Initiator,
        mm: MmId,
        addr: VirtAddr,
        kind: AccessKind,
        tries: Tries,
    ) -> Result<Stage> {
        if addr >= self.user_end() {
            // The tables have no entry of its own for it: bits above the top level name nothing.
            return Ok(Stage::Done(Outcome::Errno(Errno::Sigsegv)));
        }
        if self.try_access(by.cpu, mm, addr, kind)? {
            if kind == AccessKind::Write && self.pages.has_huge() {
                self.note_write(mm, addr);
            }
            return Ok(Stage::Done(Outcome::None));
        }
        // The exception comes a moment after the walk: others may change the entry in between.
        if self.stepping.is_some() {
            return Ok(Stage::Do(Todo::PageFault(tries)));
        }
        self.page_fault(by, mm, addr, kind, tries)
    }

    /// A part of a huge page is not zero any more.
    fn note_write(&mut self, mm: MmId, addr: VirtAddr) {
        let Some((pte, size)) = self.leaf(mm, addr) else { return };
        let pfn = PageTables::frame_in_leaf(pte, size, addr);
        if Pages::is_huge(pfn) {
            self.pages.write_part(pfn);
        }
    }

    /// The exception of an access that found no entry, or one that does not allow it.
    pub(super) fn page_fault(
        &mut self,
        by: Initiator,
        mm: MmId,
        addr: VirtAddr,
        kind: AccessKind,
        mut tries: Tries,
    ) -> Result<Stage> {
        if !tries.again(self.locks.turn(), MAX_FAULTS + 1) {
            return Err(Error::Program {
                program: ProgramName::Fault.name().to_owned(),
                step: "as a whole".to_owned(),
                message: format!(
                    "found a fault at {addr} of mm {mm} after {MAX_FAULTS} that were handled, expected the program to make \
                     the access possible"
                ),
            });
        }
        let stage = self.fault(by, mm, addr, kind, Todo::Access(tries))?;
        if !matches!(stage, Stage::Blocked(_)) {
            self.hit(by, mm, Probe::Fault { addr });
        }
        Ok(stage)
    }

    /// One try; false is a page fault.
    fn try_access(&mut self, cpu: CpuId, mm: MmId, addr: VirtAddr, kind: AccessKind) -> Result<bool> {
        let root = self.mm_ref(mm)?.root;
        let pcid = self.engine.loaded_pcid(cpu);
        let hit = self.engine.tlbs_mut().and_then(|tlbs| tlbs.lookup(cpu.index(), pcid, addr));
        let done = match hit {
            Some((entry, _)) => self.use_entry(cpu, root, pcid, addr, kind, entry),
            None => self.walk_and_fill(cpu, root, pcid, addr, kind),
        };
        // Without a hit there is nothing to drop: a walk that faults caches nothing.
        if !done && hit.is_some() {
            self.drop_faulting(cpu, addr);
        }
        Ok(done)
    }

    /// A CPU drops the translation that made it fault; the paging-structure caches stay.
    pub(super) fn drop_faulting(&mut self, cpu: CpuId, addr: VirtAddr) {
        let pcid = self.engine.loaded_pcid(cpu);
        if let Some(tlbs) = self.engine.tlbs_mut() {
            tlbs.invalidate_page_with(cpu.index(), pcid, addr, PscScope::None);
        }
    }

    /// An access with a cached translation.
    fn use_entry(
        &mut self,
        cpu: CpuId,
        root: TableId,
        pcid: u16,
        addr: VirtAddr,
        kind: AccessKind,
        entry: TlbEntry,
    ) -> bool {
        match kind {
            AccessKind::Read => true,
            AccessKind::Exec => !entry.nx,
            AccessKind::Write if !entry.write => false,
            AccessKind::Write if entry.dirty => true,
            AccessKind::Write => {
                // The first write through the entry walks again, to set D in memory.
                let marked = self.tables.set_dirty(root, self.tables.levels().top(), addr).is_some();
                if marked && let Some(tlbs) = self.engine.tlbs_mut() {
                    tlbs.update_dirty(cpu.index(), pcid, addr);
                }
                marked
            }
        }
    }

    /// An access without one: walk, set A and D, fill.
    fn walk_and_fill(&mut self, cpu: CpuId, root: TableId, pcid: u16, addr: VirtAddr, kind: AccessKind) -> bool {
        let cached = self.engine.tlbs_mut().and_then(|tlbs| tlbs.psc_lookup(cpu.index(), pcid, addr));
        let (table, level) =
            cached.map_or((root, self.tables.levels().top()), |(level, table)| (TableId(table), level.table_level()));
        let walk = self.tables.walk_from(table, level, addr);
        let WalkEnd::Leaf(size) = walk.end else {
            return false;
        };
        let leaf = walk.last().entry;
        let allowed = match kind {
            AccessKind::Read => true,
            AccessKind::Write => leaf.write(),
            AccessKind::Exec => !leaf.nx(),
        };
        if !allowed {
            return false;
        }
        if kind == AccessKind::Write {
            self.tables.set_dirty(table, level, addr);
        } else {
            self.tables.set_accessed(table, level, addr);
        }
        self.fill(cpu, pcid, addr, &walk, size, kind);
        true
    }

    fn fill(&mut self, cpu: CpuId, pcid: u16, addr: VirtAddr, walk: &Walk, size: PageSize, kind: AccessKind) {
        // A hash MMU has no tree to remember parts of.
        let keeps_tables = self.kernel.constants.lazy_mmu != LazyMmu::PerPte;
        let Some(tlbs) = self.engine.tlbs_mut() else {
            return;
        };
        let leaf = walk.last().entry;
        if keeps_tables {
            for step in walk.steps().iter().filter(|step| step.level > PTE_LEVEL) {
                if step.entry.is_table()
                    && let Some(level) = PscLevel::from_table_level(step.level - 1)
                {
                    tlbs.psc_insert(cpu.index(), pcid, level, addr, step.entry.table_id().0);
                }
            }
        }
        let start = addr.align_down(size.shift());
        tlbs.insert_missed(
            cpu.index(),
            pcid,
            TlbEntry {
                vpn: start.vpn(),
                pfn: PageTables::frame_in_leaf(leaf, size, start),
                size,
                write: leaf.write(),
                user: leaf.user(),
                dirty: leaf.dirty() || kind == AccessKind::Write,
                nx: leaf.nx(),
                global: leaf.global(),
            },
        );
        self.counters.nr_tlb_fills += 1;
    }
}
