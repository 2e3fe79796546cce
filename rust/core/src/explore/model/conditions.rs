//! Conditions of programs: decided while a program is unrolled where the scenario decides them, else tests on the state.

use crate::error::Result;
use crate::explore::scenario::{Kind as Content, Mapped, Thread, VirtualPage};
use crate::program::{Condition, CowReuse, ProgramName, Test as Asked};

use super::at::At;
use super::op::{Class, PageRef, Test};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var};

impl Unroller<'_> {
    /// A condition as a test, and whether it is a step of its own.
    pub(super) fn test(&mut self, condition: &Condition, at: &At) -> Result<(Test, Class)> {
        let test = simplify(self.build(condition, at)?);
        let class = if self.is_shared(&test) { Class::Visible } else { Class::Local };
        Ok((test, class))
    }

    fn build(&mut self, condition: &Condition, at: &At) -> Result<Test> {
        Ok(match condition {
            Condition::Test(asked) => self.single(*asked, at)?,
            Condition::Not(inner) => Test::Not(Box::new(self.build(inner, at)?)),
            Condition::All(list) => Test::All(self.build_until(list, false, at)?),
            Condition::Any(list) => Test::Any(self.build_until(list, true, at)?),
        })
    }

    /// Tests until one is always what decides them all: what those behind it ask for is not looked at, and need not be
    /// in the state.
    fn build_until(&mut self, list: &[Condition], decides: bool, at: &At) -> Result<Vec<Test>> {
        let mut tests = Vec::with_capacity(list.len());
        for condition in list {
            let test = simplify(self.build(condition, at)?);
            let is_decided = test == Test::Const(decides);
            tests.push(test);
            if is_decided {
                break;
            }
        }
        Ok(tests)
    }

    fn single(&mut self, asked: Asked, at: &At) -> Result<Test> {
        let bits = |mask: u64| Test::Pte { mask, value: mask };
        let absent = |kind: u64| Test::Pte { mask: pte::PRESENT | 0x30, value: kind };
        let operation = self.spec().program;
        if matches!(
            asked,
            Asked::Present
                | Asked::None
                | Asked::Swap
                | Asked::Migration
                | Asked::Protnone
                | Asked::Dirty
                | Asked::Young
                | Asked::Write
                | Asked::PteAccessible
                | Asked::PteNeedsFlush
                | Asked::PteDemoted
                | Asked::PteChanged
        ) {
            self.read_local(Local::Pte);
        }
        Ok(match asked {
            Asked::Present => Test::PteMaps,
            Asked::None => absent(0),
            Asked::Swap => absent(pte::SWAP),
            Asked::Migration => absent(pte::MIGRATION),
            Asked::Protnone if self.can_be_protnone() => absent(pte::PROTNONE),
            Asked::Dirty => bits(pte::DIRTY),
            Asked::Young => {
                self.young_matters = true;
                bits(pte::YOUNG)
            }
            Asked::Write => bits(pte::WRITE),
            Asked::PteAccessible => self.pte_accessible().0,
            Asked::PteNeedsFlush | Asked::PteDemoted | Asked::PteChanged => {
                self.read_local(Local::New);
                match asked {
                    Asked::PteNeedsFlush => Test::PteNeedsFlush,
                    Asked::PteDemoted => Test::PteDemoted,
                    _ => Test::PteChanged,
                }
            }
            Asked::Anon | Asked::FileBacked if self.is_pfn(at) => Test::Const(false),
            Asked::Anon => self.content(at, Content::Anon),
            Asked::FileBacked => self.content(at, Content::File),
            Asked::PageMapped => self.page_var(at, Var::Mapcount, 0)?,
            Asked::PageShared => self.page_var(at, Var::Mapcount, 1)?,
            Asked::PageDirty => self.page_var(at, Var::Dirty, 0)?,
            Asked::PageLazyfree if self.anybody_runs(ProgramName::MadviseFree) => {
                self.page_var(at, Var::Lazyfree, 0)?
            }
            Asked::PageKsm if self.anybody_runs(ProgramName::KsmMerge) => self.page_ksm(at)?,
            Asked::PageExclusive if self.tells_exclusive() => {
                Test::Not(Box::new(self.page_var(at, Var::NotExclusive, 0)?))
            }
            Asked::PageHeld => self.page_held(at)?,
            Asked::PageSwapShared => self.swap_shared(),
            Asked::PageInSwapCache => self.page_var(at, Var::Cached, 0)?,
            Asked::VmaShared => Test::Const(self.vma_content(at) == Content::File),
            Asked::VmaAnonymous | Asked::VmaNeedsCopy | Asked::CowMapping => {
                Test::Const(self.vma_content(at) == Content::Anon)
            }
            Asked::VmaWritable => self.vma_write(at),
            Asked::ProtChanged if operation == ProgramName::Mprotect => self.prot_changed(at),
            // Where it is no bit of its own, all have it; and the pages of a scenario were made long ago.
            Asked::PageExclusive | Asked::PageLru => Test::Const(true),
            // A scenario's munmap finds VMAs, its mremap moves.
            Asked::HaveVmas => Test::Const(!at.range.is_empty()),
            Asked::Moves => Test::Const(operation == ProgramName::Mremap),
            Asked::ForceFlush => Test::Above(self.read_local(Local::ForceFlush), 0),
            Asked::DelayRmap => Test::Above(self.read_local(Local::DelayRmap), 0),
            Asked::AnyChanged => Test::Above(self.read_local(Local::Changed), 0),
            Asked::WriteFault => Test::Const(self.fault.is_some_and(|(_, write)| write)),
            Asked::ShouldDeferFlush => Test::Const(self.world.users > 0),
            Asked::MmTlbFlushPending if self.pending_matters() => Test::Above(self.vars.read(Var::FlushPending(0)), 0),
            Asked::PmdShared => self.table_is_shared(at),
            Asked::WholePmd | Asked::PageHuge => Test::Const(self.is_huge(at)),
            Asked::PmdPresent => self.pmd_present(at),
            Asked::MmTlbFlushNested => Test::Above(self.vars.read(Var::FlushPending(0)), 1),
            // No MADV_FREE or KSM runs; nobody gathers; only mprotect changes rights; nothing makes an entry protnone; and what no scenario has: huge pages, zero pages, userfaultfd, shmem, VM_DONTCOPY,
            // fetches, mremap's other ways, populating.
            Asked::PageLazyfree
            | Asked::PageKsm
            | Asked::MmTlbFlushPending
            | Asked::ProtChanged
            | Asked::Protnone
            | Asked::UffdWp
            | Asked::ZeroPage
            | Asked::PageShmem
            | Asked::VmaDontcopy
            | Asked::VmaHugeAllowed
            | Asked::ExecFault
            | Asked::HugeFaultFits
            | Asked::PmdIsHuge
            | Asked::Shrinks
            | Asked::GrowsInPlace
            | Asked::UnmapsNew
            | Asked::CopiesDontunmap
            | Asked::Populates
            | Asked::Proactive => Test::Const(false),
        })
    }

    fn swap_shared(&mut self) -> Test {
        self.read_local(Local::Pte);
        let frames: Vec<u8> = (0..self.world.frames.len() as u8).filter(|frame| self.is_lock_tried(*frame)).collect();
        Test::SwapShared(frames.into_iter().map(|frame| (frame, self.vars.read(Var::FolioLock(frame)))).collect())
    }

    fn page_ksm(&mut self, at: &At) -> Result<Test> {
        self.page_var(at, Var::Ksm, 0)
    }

    /// Somebody has a reference of the page because of which a write fault copies it (`wp_can_reuse_anon_folio()` wants a
    /// single one): KSM, which has write-protected it, or another fault that copies it.
    fn page_held(&mut self, at: &At) -> Result<Test> {
        let mut holders = Vec::new();
        let runs = |(_, thread): &(usize, &Thread)| thread.program == ProgramName::KsmMerge;
        let threads: Vec<u8> =
            self.world.threads.iter().enumerate().filter(runs).map(|(index, _)| index as u8).collect();
        if !threads.is_empty() {
            let lists = threads.into_iter().map(|thread| self.vars.read(Var::Thread(thread, Local::Listed))).collect();
            self.read_local(Local::Pte);
            holders.push(Test::Listed(lists));
        }
        let nr_faulting = self.world.threads.iter().filter(|thread| thread.program == ProgramName::Fault).count();
        if nr_faulting > 1 {
            holders.push(self.page_var(at, Var::Copied, 0)?);
        }
        if holders.is_empty() {
            return Ok(Test::Const(false));
        }
        let held = Test::Any(holders);
        if !self.tells_exclusive() || self.kernel.constants.cow_reuse == CowReuse::PageCount {
            return Ok(held);
        }
        Ok(Test::All(vec![self.page_var(at, Var::NotExclusive, 0)?, held]))
    }

    /// Whether PageAnonExclusive is a bit of its own: where KSM or fork takes it, or a page is shared from the start. Elsewhere all
    /// anonymous pages have it.
    pub(super) fn tells_exclusive(&self) -> bool {
        let is_shared = |frame: u8| {
            let maps = |page: &&VirtualPage| page.frames[0] == frame && page.mapped != Mapped::None;
            self.world.frames[usize::from(frame)].kind == Content::Anon
                && self.world.pages.iter().filter(maps).count() > 1
        };
        self.anybody_runs(ProgramName::KsmMerge)
            || self.anybody_runs(ProgramName::Fork)
            || (0..self.world.frames.len() as u8).any(is_shared)
    }

    pub(super) fn anybody_runs(&self, program: ProgramName) -> bool {
        self.world.threads.iter().any(|thread| thread.program == program)
    }

    /// Whether the current VMA has VM_WRITE: of its first page here, since its pages change together.
    fn vma_write(&mut self, at: &At) -> Test {
        let page = at.r.page.or_else(|| self.pages_here(at).first().copied()).unwrap_or(0);
        Test::Above(self.vars.read(Var::VmaWrite(page)), 0)
    }

    /// Whether the current VMA has other rights than mprotect is to give it.
    fn prot_changed(&mut self, at: &At) -> Test {
        let (write, none) = (self.vma_write(at), self.vma_none(at));
        match (self.spec().none, self.spec().write) {
            (true, _) => Test::Not(Box::new(none)),
            (false, true) => Test::Not(Box::new(write)),
            (false, false) => Test::Any(vec![write, none]),
        }
    }

    /// Likewise whether it allows nothing.
    fn vma_none(&mut self, at: &At) -> Test {
        if !self.has_prot_none() {
            return Test::Const(false);
        }
        let page = at.r.page.or_else(|| self.pages_here(at).first().copied()).unwrap_or(0);
        Test::Above(self.vars.read(Var::VmaNone(page)), 0)
    }

    fn vma_content(&self, at: &At) -> Content {
        self.world.vmas[usize::from(at.r.vma.unwrap_or(0))].kind
    }

    fn content(&mut self, at: &At, wanted: Content) -> Test {
        let is = |frame: u8| self.world.frames[usize::from(frame)].kind == wanted;
        if let PageRef::Fixed(frame) = at.r.frame {
            return Test::Const(is(frame));
        }
        let candidates: Vec<u8> = match at.r.page {
            Some(page) => self.world.pages[usize::from(page)].frames.clone(),
            None => (0..self.world.frames.len() as u8).collect(),
        };
        let mask = candidates.iter().filter(|frame| is(**frame)).fold(0, |mask, frame| mask | 1 << frame);
        let all = candidates.iter().fold(0, |mask, frame| mask | 1 << frame);
        if mask == all || mask == 0 {
            return Test::Const(mask == all);
        }
        self.read_local(Local::Pte);
        Test::FrameIn(mask)
    }

    fn page_var(&mut self, at: &At, var: impl Fn(u8) -> Var, above: u64) -> Result<Test> {
        if let PageRef::Fixed(frame) = self.frame(at)? {
            return Ok(Test::Above(self.vars.read(var(frame)), above));
        }
        self.read_local(Local::Pte);
        Ok(Test::FrameAbove(self.by_frame(var, true), above))
    }

    fn is_shared(&self, test: &Test) -> bool {
        match test {
            Test::Above(var, _) => {
                !matches!(self.vars.all()[usize::from(var.0)], Var::Thread(..) | Var::VmaWrite(_) | Var::VmaNone(_))
            }
            Test::FrameAbove(..)
            | Test::SwapShared(_)
            | Test::Listed(_)
            | Test::PteAccessible { .. }
            | Test::Exceeds(..) => true,
            Test::Not(inner) => self.is_shared(inner),
            Test::All(list) | Test::Any(list) => list.iter().any(|test| self.is_shared(test)),
            _ => false,
        }
    }

    /// A test in words.
    pub(super) fn test_text(&self, test: &Test, at: &At) -> String {
        match test {
            Test::Above(var, above) => match self.vars.all()[usize::from(var.0)] {
                Var::Mapcount(_) if *above == 0 => format!("page_mapped({})", self.frame_name(at)),
                Var::Mapcount(_) => format!("page_shared({})", self.frame_name(at)),
                Var::Dirty(_) => format!("folio_test_dirty({})", self.frame_name(at)),
                Var::Cached(_) => format!("folio_test_swapcache({})", self.frame_name(at)),
                Var::Lazyfree(_) => format!("folio_test_lazyfree({})", self.frame_name(at)),
                Var::NotExclusive(_) => format!("PageAnonExclusive({})", self.frame_name(at)),
                Var::Ksm(_) => format!("folio_test_ksm({})", self.frame_name(at)),
                Var::FlushPending(_) if *above == 0 => "mm_tlb_flush_pending()".to_owned(),
                Var::Shared(_) => "ptdesc_pmd_is_shared()".to_owned(),
                Var::Pmd(_) => "pmd_present()".to_owned(),
                Var::FlushPending(_) => "mm_tlb_flush_nested()".to_owned(),
                _ => String::new(),
            },
            Test::Listed(_) => format!("folio_ref_count({})", self.frame_name(at)),
            Test::SwapShared(_) => format!("folio_trylock({}), its swap count", self.frame_name(at)),
            Test::FrameAbove(..) => format!("looks at {}", self.frame_name(at)),
            Test::Not(inner) => self.test_text(inner, at),
            Test::All(list) | Test::Any(list) => {
                let mut parts: Vec<String> = Vec::new();
                for text in list.iter().map(|test| self.test_text(test, at)) {
                    if !text.is_empty() && !parts.contains(&text) {
                        parts.push(text);
                    }
                }
                parts.join(", ")
            }
            _ => String::new(),
        }
    }
}

/// Decides what constants decide.
fn simplify(test: Test) -> Test {
    match test {
        Test::Not(inner) => match simplify(*inner) {
            Test::Const(value) => Test::Const(!value),
            inner => Test::Not(Box::new(inner)),
        },
        Test::All(list) => fold(list, true),
        Test::Any(list) => fold(list, false),
        test => test,
    }
}

/// `neutral` changes nothing, its opposite decides.
fn fold(list: Vec<Test>, neutral: bool) -> Test {
    let mut kept = Vec::new();
    for test in list.into_iter().map(simplify) {
        match test {
            Test::Const(value) if value == neutral => {}
            Test::Const(value) => return Test::Const(value),
            test => kept.push(test),
        }
    }
    match (kept.len(), neutral) {
        (0, _) => Test::Const(neutral),
        (1, _) => kept.swap_remove(0),
        (_, true) => Test::All(kept),
        (_, false) => Test::Any(kept),
    }
}
