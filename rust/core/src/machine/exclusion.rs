//! Who waits for whom when several calls are in progress: what each lock step takes, which steps need something to be free
//! without a lock step of their own, and what a fault finds changed when it gets its lock (`docs/machine.md`, section
//! "Operations at the same time"). Nothing here is asked when an operation runs alone.

use smallvec::smallvec;

use crate::addr::{PMD_SHIFT, PMD_SIZE, Pfn, VaRange, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::page_table::{Pte, table_index};
use crate::program::{Instr, Leaf, LockMode, LockName, ProgramName};

use super::Machine;
use super::frame::{Frame, Loop};
use super::locks::{LockKey, Want, Wants, ptls_of};
use super::operation::{Advice, Operation};
use super::pages::{FileId, head_of};
use super::vma::Vma;

impl Machine {
    /// What the lock step of a program takes.
    pub(super) fn wants(&self, frame: &Frame, lock: LockName, mode: LockMode) -> Wants {
        let write = mode == LockMode::Write;
        let (mm, addr) = (frame.r.mm, locked_addr(frame));
        match lock {
            LockName::MmapLock => {
                let anywhere = frame.program == ProgramName::Mremap;
                let range = if anywhere { self.everywhere() } else { frame.args.range };
                let mut wants = smallvec![Want { range, ..Want::new(LockKey::Mmap(mm), write) }];
                if frame.program == ProgramName::CollapseHugePage {
                    wants.push(Want::new(LockKey::ptl(mm, frame.args.addr), true));
                }
                wants
            }
            LockName::VmaLock => {
                let vma = &frame.r.vma;
                smallvec![Want { range: vma.range(), ..Want::new(LockKey::Vma(mm, vma.start), false) }]
            }
            LockName::Ptl => {
                let mut wants = smallvec![Want::new(LockKey::ptl(mm, addr), true)];
                wants.extend(self.folio_of_fault(frame).map(|pfn| Want::new(LockKey::Folio(pfn), true)));
                wants
            }
            LockName::NewPtl => smallvec![Want::new(LockKey::ptl(mm, frame.new_addr), true)],
            LockName::Pml => {
                let mut wants = smallvec![Want::new(LockKey::pml(mm, addr), true)];
                if matches!(frame.loops.last(), Some(Loop::Extent { .. })) {
                    self.add_move(frame, &mut wants);
                }
                wants
            }
            LockName::NewPml => smallvec![Want::new(LockKey::pml(mm, frame.new_addr), true)],
            LockName::RmapLock => {
                self.file_of(frame).map(|file| Want::new(LockKey::Rmap(file), write)).into_iter().collect()
            }
            LockName::FolioLock => frame.page.map(|pfn| Want::new(LockKey::Folio(pfn), true)).into_iter().collect(),
        }
    }

    /// A table that moves is out of reach of who finds pages by their mappings (mm/mremap.c:`take_rmap_locks`).
    fn add_move(&self, frame: &Frame, wants: &mut Wants) {
        let new = VaRange::new(frame.new_addr, VirtAddr(frame.new_addr.0 + frame.extent.len_bytes()));
        wants.extend(ptls_of(frame.r.mm, frame.extent));
        wants.extend(ptls_of(frame.r.mm, new));
        let vma = self.vma_at(frame.r.mm, frame.extent.start);
        wants.extend(vma.and_then(|vma| vma.file).map(|file| Want::new(LockKey::Rmap(file), true)));
    }

    fn everywhere(&self) -> VaRange {
        VaRange::new(VirtAddr(0), self.user_end())
    }

    /// The file by whose mappings a program walks.
    fn file_of(&self, frame: &Frame) -> Option<FileId> {
        let of_page = || self.pages.get(frame.page?)?.place.map(|(file, _)| file);
        frame.args.file.map(|(file, _, _)| file).or_else(of_page)
    }

    /// The page that a fault locks before it maps it: of the page cache or of the swap cache.
    fn folio_of_fault(&self, frame: &Frame) -> Option<Pfn> {
        let maps_cached = frame.r.pte.is_none() && frame.r.vma.file.is_some() || frame.r.pte.swap_slot().is_some();
        frame.page.filter(|pfn| frame.program == ProgramName::Fault && maps_cached && self.pages.get(*pfn).is_some())
    }

    /// What a step that is no lock step needs to be free of other calls.
    pub(super) fn needs_free(&self, frame: &Frame, leaf: Leaf) -> Vec<Want> {
        let border =
            |addr: VirtAddr| (!addr.is_aligned(PMD_SHIFT)).then(|| Want::new(LockKey::pml(frame.r.mm, addr), true));
        match leaf {
            // A huge page across the border of an area is split there.
            Leaf::VmsGatherMunmapVmas => {
                [frame.r.range.start, frame.r.range.end].into_iter().filter_map(border).collect()
            }
            Leaf::MprotectFixup => {
                [frame.r.vma_range.start, frame.r.vma_range.end].into_iter().filter_map(border).collect()
            }
            // Areas leave the trees of their files before tables go (mm/memory.c:`unlink_file_vma`).
            Leaf::FreePgtables => {
                let files = frame.detached.iter().filter_map(|vma| vma.file);
                files.map(|file| Want::new(LockKey::Rmap(file), true)).collect()
            }
            // An entry that mremap has taken out and not yet put in elsewhere must not be missed: any table may be its.
            Leaf::RemoveMigrationPtes => self.locks.ptls_of_others(frame.by.op),
            _ => Vec::new(),
        }
    }

    /// Where migration entries of a page stand, by mm and address.
    pub(super) fn migration_entries(&self, page: Pfn) -> Vec<(MmId, VirtAddr)> {
        let of_page = |pte: &Pte| pte.is_migration() && head_of(pte.pfn()) == page;
        let mms = self.live_mms().map(|(mm, _)| mm);
        mms.flat_map(|mm| self.leaves(mm).into_iter().map(move |(addr, _, pte)| (mm, addr, pte)))
            .filter(|(_, _, pte)| of_page(pte))
            .map(|(mm, addr, _)| (mm, addr))
            .collect()
    }

    /// What an operation has to wait for before its arguments are looked at: whatever is found then is protected by the
    /// lock that its program takes first.
    pub(super) fn blocks_begin(&self, operation: &Operation) -> Result<Option<LockKey>> {
        let Some(op) = self.stepping else { return Ok(None) };
        if let Operation::Schedule { cpu, .. } = operation {
            let curr = self.cpus.get(*cpu as usize).and_then(|cpu| cpu.curr);
            return Ok(curr.and_then(|task| self.locks.spinlock_of(task)));
        }
        let (Some(program), Some(task)) = (program_of(operation), operation.task()) else { return Ok(None) };
        let mm = self.task_mm(task)?;
        let Some(Instr::Leaf(Leaf::Lock { lock: LockName::MmapLock, mode })) =
            self.kernel.program(program).code.first()
        else {
            return Ok(None);
        };
        let mut write = *mode == LockMode::Write;
        let mut range = self.everywhere();
        let mut wants = Wants::new();
        match *operation {
            Operation::Munmap { addr, len, .. }
            | Operation::Mprotect { addr, len, .. }
            | Operation::Mmap { addr, len, .. }
            | Operation::NumaHint { addr, len, .. }
            | Operation::KsmMerge { addr, len, .. } => range = bytes(addr, len),
            Operation::Madvise { addr, len, advice, .. } => {
                range = bytes(addr, len);
                if changes_areas(advice) {
                    write = true;
                    wants.extend([range.start, range.end].map(|at| Want::new(LockKey::pml(mm, at), true)));
                }
            }
            Operation::Collapse { addr, .. } => {
                let start = VirtAddr(addr).align_down(PMD_SHIFT);
                range = VaRange::new(start, VirtAddr(start.0.saturating_add(PMD_SIZE)));
                wants.push(Want::new(LockKey::ptl(mm, start), true));
            }
            _ => {}
        }
        wants.push(Want { range, ..Want::new(LockKey::Mmap(mm), write) });
        Ok(self.locks.blocker(op, &wants))
    }

    /// What a fault in an area has to wait for: a change of the area, or a page on its way elsewhere.
    pub(super) fn blocks_fault(&self, mm: MmId, page: VirtAddr, vma: &Vma) -> Option<LockKey> {
        let op = self.stepping?;
        let mut wants: Wants = smallvec![Want { range: vma.range(), ..Want::new(LockKey::Vma(mm, vma.start), false) }];
        if page < vma.start {
            wants.push(Want { range: VaRange::new(page, vma.end), ..Want::new(LockKey::Mmap(mm), true) });
        }
        let entry = self.leaf(mm, page).filter(|(pte, _)| pte.is_migration());
        wants.extend(entry.map(|(pte, _)| Want::new(LockKey::Folio(head_of(pte.pfn())), true)));
        self.locks.blocker(op, &wants)
    }

    /// The first of these pages that another call has locked.
    pub(super) fn blocks_pages(&self, pages: &[Pfn]) -> Option<LockKey> {
        let wants: Vec<Want> = pages.iter().map(|pfn| Want::new(LockKey::Folio(*pfn), true)).collect();
        self.stepping.and_then(|op| self.locks.blocker(op, &wants))
    }

    /// Takes a page off the LRU for a list of one's own; false if another call has it there.
    pub(super) fn isolates(&mut self, op: u32, pfn: Pfn) -> bool {
        self.stepping.is_none() || self.locks.isolate(op, pfn)
    }

    /// The entry is not what the fault read before it got the lock (mm/memory.c:`vmf_pte_changed`, and the look at the page
    /// after it was locked): then there is nothing to do but to try again.
    pub(super) fn fault_is_stale(&self, frame: &Frame, lock: LockName) -> bool {
        if frame.program != ProgramName::Fault || !matches!(lock, LockName::Ptl | LockName::Pml) {
            return false;
        }
        let Some(place) = frame.r.place else {
            return !self.tables.pmd_entry(frame.r.root, frame.r.addr).is_none();
        };
        let entry = self.tables.get(place.table, table_index(frame.r.addr, place.level));
        if self.find_place(frame) != Some(place) || entry != frame.r.pte {
            return true;
        }
        if let Some(slot) = entry.swap_slot() {
            return self.pages.swap_cache_of(slot as u32) != frame.page;
        }
        let Some(pfn) = frame.page.filter(|_| entry.is_none()) else { return false };
        let Some(file) = frame.r.vma.file else { return false };
        let index = frame.r.vma.index_of(frame.r.addr);
        self.pages.file(file).and_then(|content| content.pages.get(&index)) != Some(&pfn)
    }

    /// No entry names the swap slot any more.
    pub(super) fn swap_entry_is_gone(&self, frame: &Frame) -> bool {
        frame.r.pte.swap_slot().is_some_and(|slot| self.pages.swap_count(slot as u32) == 0)
    }

    /// The fault returns without having done anything.
    pub(super) fn give_up_fault(&mut self, frame: &mut Frame) {
        if let Some(page) = frame.new_page.take() {
            self.pages.put_ref(page);
        }
        self.folio_put(frame);
    }

    /// An unlock step.
    pub(super) fn unlock(&mut self, frame: &Frame, lock: LockName) -> Result<()> {
        let op = frame.by.op;
        if lock != LockName::FolioLock {
            self.locks.release(op, lock);
            return Ok(());
        }
        let page = frame.page()?;
        if frame.program == ProgramName::MigratePages {
            // Folios stay locked from the first migration entry to the last that goes (mm/migrate.c).
            if self.locks.is_first_unlock(op, LockKey::Folio(page)) {
                return Ok(());
            }
            self.restore_migration_entries(frame, page);
        }
        self.locks.release_key(op, LockKey::Folio(page));
        self.pages.free_unused_swap_cache(page);
        Ok(())
    }

    /// The page did not move, because somebody mapped it meanwhile: its entries become what they were.
    fn restore_migration_entries(&mut self, frame: &Frame, page: Pfn) {
        if self.pages.get(page).is_none() {
            return;
        }
        for (mm, addr) in self.migration_entries(page) {
            self.remove_migration_pte(frame.by, mm, addr, page, page);
        }
    }
}

/// The program that an operation begins with, if its arguments are looked at under `mmap_lock`.
const fn program_of(operation: &Operation) -> Option<ProgramName> {
    Some(match operation {
        Operation::Munmap { .. } | Operation::Brk { .. } => ProgramName::Munmap,
        Operation::Mmap { .. } => ProgramName::Mmap,
        Operation::Mprotect { .. } => ProgramName::Mprotect,
        Operation::Mremap { .. } => ProgramName::Mremap,
        Operation::Fork { .. } => ProgramName::Fork,
        Operation::Collapse { .. } => ProgramName::CollapseHugePage,
        Operation::ClearRefs { .. } => ProgramName::ClearRefsSoftDirty,
        Operation::NumaHint { .. } => ProgramName::ChangeProtNuma,
        Operation::KsmMerge { .. } => ProgramName::KsmMerge,
        Operation::Madvise { advice, .. } => match advice {
            Advice::Free => ProgramName::MadviseFree,
            Advice::Cold => ProgramName::MadviseCold,
            Advice::Pageout => ProgramName::MadvisePageout,
            Advice::PopulateRead | Advice::PopulateWrite | Advice::Other => return None,
            _ => ProgramName::MadviseDontneed,
        },
        _ => return None,
    })
}

/// Advice that splits, changes and merges areas (mm/madvise.c:`madvise_need_mmap_write`).
const fn changes_areas(advice: Advice) -> bool {
    use Advice as A;
    !matches!(advice, A::Dontneed | A::Free | A::Cold | A::Pageout | A::PopulateRead | A::PopulateWrite | A::Other)
}

fn bytes(addr: u64, len: u64) -> VaRange {
    VaRange::new(VirtAddr(addr), VirtAddr(addr.saturating_add(len.max(1))))
}

/// The address whose table a lock step locks.
fn locked_addr(frame: &Frame) -> VirtAddr {
    match frame.loops.last() {
        Some(Loop::Table { .. }) => frame.r.table_range.start,
        Some(Loop::Extent { .. }) => frame.extent.start,
        _ => frame.r.addr,
    }
}

/// Whether an entry maps a page (mm/page_vma_mapped.c:`check_pte`).
pub(super) fn maps(pte: Pte, page: Option<Pfn>) -> bool {
    pte.is_present() && page == Some(head_of(pte.pfn()))
}
