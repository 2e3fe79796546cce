//! Locks, unrolled: the page-table lock, mmap_lock and the locks of VMAs, of the reverse map and of folios.

use crate::error::Result;
use crate::program::{LockMode, LockName};

use super::at::{At, Held};
use super::leaf::Here;
use super::op::{Class, Kind, OpIndex, PageRef, Test};
use super::unroll::Unroller;
use super::vars::{Local, Var, VarId};

impl Unroller<'_> {
    pub(super) fn acquire_folio(&mut self, frame: PageRef, next: OpIndex) -> OpIndex {
        self.by_frame(Var::FolioLock, true);
        let text = format!("folio_lock({})", self.frame_text(frame));
        self.op(Kind::AcquireFolio(frame), Class::Visible, next, 0, text)
    }

    pub(super) fn release_folio(&mut self, frame: PageRef, next: OpIndex) -> OpIndex {
        let text = format!("folio_unlock({})", self.frame_text(frame));
        let is_tried = match frame {
            PageRef::Fixed(frame) => self.is_lock_tried(frame),
            _ => (0..self.world.frames.len() as u8).any(|frame| self.is_lock_tried(frame)),
        };
        // Who only waits for a lock sees nothing between the step before the unlock and the unlock; who tries it does.
        let class = if is_tried { Class::Visible } else { Class::Urgent };
        self.op(Kind::ReleaseFolio(frame), class, next, 0, text)
    }

    /// Write faults try the lock of the frame: those that migration may have given a page, and has not mapped everywhere yet.
    pub(super) fn is_lock_tried(&self, frame: u8) -> bool {
        use crate::program::ProgramName::{Fault, MigratePages};
        self.world.frames[usize::from(frame)].is_spare && self.anybody_runs(MigratePages) && self.anybody_runs(Fault)
    }

    fn acquire_bit(&mut self, lock: Var, text: &str, next: OpIndex) -> OpIndex {
        let var = self.vars.read(lock);
        self.op(Kind::Acquire(var), Class::Visible, next, 0, text.to_owned())
    }

    fn rw(&mut self, lock: LockName, which: u8) -> (VarId, VarId) {
        let (readers, writer) = match lock {
            LockName::MmapLock => (Var::MmapReaders(0), Var::MmapWriter(0)),
            LockName::VmaLock => (Var::VmaReaders(which), Var::VmaWriter(which)),
            _ => (Var::RmapReaders, Var::RmapWriter),
        };
        (self.vars.read(readers), self.vars.read(writer))
    }

    pub(super) fn lock(&mut self, here: Here<'_>, lock: LockName, mode: LockMode, mut at: At) -> Result<OpIndex> {
        let Here { program, pc } = here;
        let before = at.clone();
        let unlocked = at.clone();
        let what = format!("{}_lock()", lock.name().trim_end_matches("_lock"));
        Ok(match lock {
            LockName::MmapLock | LockName::RmapLock => {
                at.held.push(if lock == LockName::MmapLock { Held::Mmap(mode) } else { Held::Rmap(mode) });
                let next = self.emit(program, pc + 1, at)?;
                let (readers, writer) = self.rw(lock, 0);
                let verb = if mode == LockMode::Read { "read" } else { "write" };
                let text = match lock {
                    LockName::MmapLock => format!("mmap_{verb}_lock()"),
                    _ => format!("i_mmap_lock_{verb}()"),
                };
                let kind = if mode == LockMode::Read {
                    Kind::AcquireRead { readers, writer }
                } else {
                    Kind::AcquireWrite { readers, writer }
                };
                self.op(kind, Class::Visible, next, 0, text)
            }
            LockName::VmaLock => {
                let vma = at.r.vma.unwrap_or(0);
                at.held.push(Held::Vma(vma));
                let mut next = self.emit(program, pc + 1, at.clone())?;
                if let Some((page, write)) = self.fault {
                    let abort = self.give_up(&at);
                    if write && self.world.threads.iter().any(|t| t.program == crate::program::ProgramName::Mprotect) {
                        let allowed = self.vars.read(Var::VmaWrite(page));
                        next = self.op(Kind::Branch(Test::Above(allowed, 0)), Class::Local, next, abort, String::new());
                    }
                    if self.has_prot_none() {
                        let none = self.vars.read(Var::VmaNone(page));
                        next = self.op(Kind::Branch(Test::Above(none, 0)), Class::Local, abort, next, String::new());
                    }
                    if self.vma_can_go(vma) {
                        let gone = self.vars.read(Var::VmaGone(page));
                        next = self.op(Kind::Branch(Test::Above(gone, 0)), Class::Local, abort, next, String::new());
                    }
                }
                let (readers, writer) = self.rw(lock, vma);
                self.op(Kind::AcquireRead { readers, writer }, Class::Visible, next, 0, "vma_start_read()".to_owned())
            }
            LockName::Ptl => {
                let Some(table) = at.r.table else { return Err(self.error("ptl outside a table")) };
                at.held.push(Held::Ptl(table));
                let mut next = self.emit(program, pc + 1, at.clone())?;
                if let Some((page, _)) = self.fault {
                    let changed = self.give_up(&at);
                    self.vars.read(Var::Pte(page));
                    let text = format!("pte_same({})", self.page_text(page));
                    next = self.op(Kind::PteSame(page), self.under_ptl(), next, changed, text);
                } else if let (true, Some(page), PageRef::Fixed(frame)) = (at.in_mapping_loop(), at.r.page, at.r.frame)
                {
                    let mut skipping = before;
                    skipping.held.clone_from(&at.held);
                    skipping.held.pop();
                    let loop_next = at.loops[at.loops.len() - 1].next;
                    let skip = self.emit(program, loop_next, skipping)?;
                    let skip = self.release_held(Held::Ptl(table), skip);
                    self.read_local(Local::Pte);
                    self.vars.read(Var::Pte(page));
                    let text = format!("page_vma_mapped_walk({})", self.page_text(page));
                    next = self.op(Kind::ReadIfMaps(page, frame), self.under_ptl(), next, skip, text);
                }
                if self.has_tables() {
                    return self.map_lock(here, table, &unlocked, next);
                }
                self.acquire_bit(Var::Ptl(table), "pte_offset_map_lock()", next)
            }
            LockName::NewPtl => {
                let new = at.r.target_table.filter(|new| Some(*new) != at.r.table);
                at.held.push(Held::NewPtl(new));
                let next = self.emit(program, pc + 1, at)?;
                match new {
                    Some(table) => self.acquire_bit(Var::Ptl(table), "spin_lock(new_ptl)", next),
                    None => next,
                }
            }
            LockName::Pml => {
                at.held.push(Held::Pml(0));
                let next = self.emit(program, pc + 1, at)?;
                let next = self.look_under_pml(here, &unlocked, next)?;
                self.acquire_bit(Var::Pml(0), "pmd_lock()", next)
            }
            LockName::NewPml => {
                at.held.push(Held::NewPml);
                self.emit(program, pc + 1, at)?
            }
            LockName::FolioLock => {
                let frame = self.frame(&at).map_err(|_| self.error(&what))?;
                at.held.push(Held::Folio(frame));
                let is_locked = at.listed_are_locked;
                let next = self.emit(program, pc + 1, at)?;
                if is_locked { next } else { self.acquire_folio(frame, next) }
            }
        })
    }

    fn release(&mut self, lock: Var, text: &str, next: OpIndex) -> OpIndex {
        let var = self.vars.read(lock);
        self.op(Kind::Set(var, 0), Class::Urgent, next, 0, text.to_owned())
    }

    pub(super) fn release_held(&mut self, held: Held, next: OpIndex) -> OpIndex {
        match held {
            Held::Mmap(LockMode::Read) => self.drop_reader(LockName::MmapLock, 0, "mmap_read_unlock()", next),
            Held::Mmap(LockMode::Write) => self.release(Var::MmapWriter(0), "mmap_write_unlock()", next),
            Held::Vma(vma) => self.drop_reader(LockName::VmaLock, vma, "vma_end_read()", next),
            Held::VmaWrite(vma) => self.release(Var::VmaWriter(vma), "vma_end_write()", next),
            Held::Rmap(LockMode::Read) => self.drop_reader(LockName::RmapLock, 0, "i_mmap_unlock_read()", next),
            Held::Rmap(LockMode::Write) => self.release(Var::RmapWriter, "i_mmap_unlock_write()", next),
            Held::Ptl(_) if self.has_tables() => self.map_unlock(next),
            Held::Ptl(table) => self.release(Var::Ptl(table), "pte_unmap_unlock()", next),
            Held::NewPtl(Some(table)) => self.release(Var::Ptl(table), "spin_unlock(new_ptl)", next),
            Held::NewPtl(None) | Held::NewPml => next,
            Held::Pml(mm) => self.release(Var::Pml(mm), "spin_unlock(pml)", next),
            Held::Folio(frame) => self.release_folio(frame, next),
            Held::Reference => self.reference(-1, "folio_put", next),
        }
    }

    fn drop_reader(&mut self, lock: LockName, which: u8, text: &str, next: OpIndex) -> OpIndex {
        let (readers, _) = self.rw(lock, which);
        self.op(Kind::Add(readers, -1), Class::Urgent, next, 0, text.to_owned())
    }

    pub(super) fn unlock(&mut self, here: Here<'_>, lock: LockName, mut at: At) -> Result<OpIndex> {
        let is_it = |held: &Held| match held {
            Held::Folio(frame) => lock == LockName::FolioLock && *frame == at.r.frame,
            held => held.name() == Some(lock),
        };
        let Some(index) = at.held.iter().rposition(is_it) else {
            return Err(self.error(&format!("unlock of {}, which is not held", lock.name())));
        };
        let held = at.held.remove(index);
        if lock == LockName::FolioLock && at.keeps_folios_locked {
            return self.emit(here.program, here.pc + 1, at);
        }
        let mut vma_locks = Vec::new();
        if lock == LockName::MmapLock {
            at.held.retain(|held| {
                let keeps = !matches!(held, Held::VmaWrite(_));
                if !keeps {
                    vma_locks.push(*held);
                }
                keeps
            });
        }
        // The outer section, in which that of the program was.
        let ends_section = lock == LockName::Ptl && std::mem::take(&mut at.lazy_mmu);
        let mut next = self.emit(here.program, here.pc + 1, at)?;
        if ends_section {
            next = self.leave_lazy_mmu(next);
        }
        next = self.release_held(held, next);
        for held in vma_locks {
            next = self.release_held(held, next);
        }
        Ok(next)
    }

    pub(super) fn downgrade(&mut self, here: Here<'_>, mut at: At) -> Result<OpIndex> {
        let mut vma_locks = Vec::new();
        at.held.retain(|held| {
            let keeps = !matches!(held, Held::VmaWrite(_));
            if !keeps {
                vma_locks.push(*held);
            }
            keeps
        });
        for held in &mut at.held {
            if *held == Held::Mmap(LockMode::Write) {
                *held = Held::Mmap(LockMode::Read);
            }
        }
        let next = self.emit(here.program, here.pc + 1, at)?;
        let (readers, writer) = self.rw(LockName::MmapLock, 0);
        let kind = Kind::Downgrade { readers, writer };
        let mut next = self.op(kind, Class::Urgent, next, 0, "mmap_write_downgrade()".to_owned());
        for held in vma_locks {
            next = self.release_held(held, next);
        }
        Ok(next)
    }

    /// `vma_start_write()` for the VMAs that a step changes; they stay locked until mmap_lock is dropped or downgraded.
    pub(super) fn vma_start_write(&self, at: &mut At) -> Vec<u8> {
        if !at.holds(LockName::MmapLock) {
            return Vec::new();
        }
        let mut vmas: Vec<u8> = match at.r.vma {
            Some(vma) => vec![vma],
            None => at.range.iter().map(|page| self.world.pages[usize::from(*page)].vma).collect(),
        };
        vmas.sort_unstable();
        vmas.dedup();
        vmas.retain(|vma| !at.held.contains(&Held::VmaWrite(*vma)));
        at.held.extend(vmas.iter().map(|vma| Held::VmaWrite(*vma)));
        vmas
    }

    pub(super) fn vma_locks(&mut self, vmas: &[u8], mut next: OpIndex) -> OpIndex {
        for vma in vmas {
            let (readers, writer) = self.rw(LockName::VmaLock, *vma);
            let kind = Kind::AcquireWrite { readers, writer };
            next = self.op(kind, Class::Visible, next, 0, "vma_start_write()".to_owned());
        }
        next
    }
}
