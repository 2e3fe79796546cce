//! The conditions of `when`: questions to the frame and the machine that change nothing (`docs/steps.md` section 4).

use crate::addr::PMD_SIZE;
use crate::page_table::{PMD_LEVEL, Pte};
use crate::program::{Test, Thp};

use super::Machine;
use super::frame::Frame;
use super::operation::AccessKind;
use super::pages::{Page, PageKind, Pages, is_zero_pfn};
use super::vma::{VmFlags, Vma};

impl Machine {
    /// The value of one condition.
    #[inline]
    pub(super) fn test(&self, frame: &Frame, test: Test) -> bool {
        let pte = frame.r.pte;
        let vma = &frame.r.vma;
        match test {
            Test::Present => pte.is_present(),
            Test::None => pte.is_none(),
            Test::Swap => pte.is_swap(),
            Test::Migration => pte.is_migration(),
            Test::Protnone => pte.is_protnone(),
            Test::Dirty => pte.dirty(),
            Test::Young => pte.young(),
            Test::Write => pte.write(),
            Test::UffdWp => pte.uffd_wp(),
            Test::PteAccessible => self.pte_accessible(frame, pte),
            Test::PteNeedsFlush => pte_needs_flush(pte, frame.r.new_pte, is_huge_entry(frame)),
            Test::PteDemoted => pte_demoted(pte, frame.r.new_pte),
            Test::PteChanged => pte != frame.r.new_pte,

            Test::Anon => self.of_page(frame, |page| page.kind == PageKind::Anon),
            Test::FileBacked => self.of_page(frame, |page| page.kind != PageKind::Anon),
            Test::PageShmem => self.of_page(frame, |page| page.kind == PageKind::Shmem),
            Test::PageMapped => self.of_page(frame, |page| !page.rmap.is_empty()),
            Test::PageDirty => self.of_page(frame, |page| page.dirty),
            Test::PageLazyfree => self.of_page(frame, |page| page.lazyfree),
            Test::PageInSwapCache => self.of_page(frame, |page| page.swap_slot.is_some()),
            Test::PageKsm => self.of_page(frame, |page| page.ksm),
            Test::PageExclusive => self.of_page(frame, |page| page.exclusive),
            Test::PageLru => self.of_page(frame, |page| page.lru_cpu.is_none()),
            Test::PageHeld => self.of_page(frame, |page| self.is_held(page, frame.by.cpu)),
            Test::PageShared => self.of_page(frame, |page| page.rmap.len() > 1),
            Test::PageSwapShared => {
                self.of_page(frame, |page| page.swap_slot.is_some_and(|slot| self.pages.swap_count(slot) > 0))
            }
            Test::ZeroPage => frame.page.is_some_and(is_zero_pfn),
            Test::PageHuge => frame.page.is_some_and(Pages::is_huge),

            Test::VmaShared => vma.is_shared(),
            Test::VmaAnonymous => vma.is_anonymous(),
            Test::VmaWritable => vma.is_writable(),
            Test::VmaDontcopy => vma.flags.contains(VmFlags::DONTCOPY),
            Test::VmaNeedsCopy => {
                let has_own_pages = vma.anon_vma.is_some() || vma.flags.contains(VmFlags::PFNMAP);
                has_own_pages && !vma.flags.contains(VmFlags::WIPEONFORK)
            }
            Test::ProtChanged => !frame.args.keeps_rights && vma.flags & VmFlags::ACCESS != frame.args.prot,
            Test::CowMapping => !vma.is_shared(),
            Test::VmaHugeAllowed => self.vma_huge_allowed(vma),

            Test::HaveVmas => !frame.detached.is_empty(),
            Test::WholePmd => frame.r.table_range.len_bytes() == PMD_SIZE, // which lies in one table
            Test::ForceFlush => frame.force_flush,
            Test::DelayRmap => frame.delay_rmap,
            Test::AnyChanged => frame.nr_changed > 0,
            Test::WriteFault => frame.args.kind == Some(AccessKind::Write),
            Test::ExecFault => frame.args.kind == Some(AccessKind::Exec),
            Test::HugeFaultFits => self.huge_fault_fits(frame),
            Test::PmdIsHuge => {
                let pmd = self.tables.pmd_entry(frame.r.root, frame.r.addr);
                !pmd.is_none() && !pmd.is_table()
            }
            // The machine has no hugetlb, and so no table of two address spaces.
            Test::PmdShared => false,
            Test::PmdPresent => !self.tables.pmd_entry(frame.r.root, frame.r.addr).is_none(),
            Test::ShouldDeferFlush => self.engine.mm_cpumask(frame.r.mm).any_but(frame.by.cpu).is_some(),
            Test::MmTlbFlushNested => self.mm(frame.r.mm).is_some_and(|mm| mm.tlb_flush_pending > 1),
            Test::MmTlbFlushPending => self.mm(frame.r.mm).is_some_and(|mm| mm.tlb_flush_pending > 0),
            Test::Moves => frame.args.mremap.moves,
            Test::Shrinks => frame.args.mremap.shrinks,
            Test::GrowsInPlace => frame.args.mremap.grows_in_place,
            Test::UnmapsNew => frame.args.mremap.unmaps_new,
            Test::CopiesDontunmap => frame.args.mremap.dontunmap,
            Test::Populates => frame.args.populate,
            Test::Proactive => frame.args.proactive,
        }
    }

    #[inline]
    fn of_page(&self, frame: &Frame, question: impl FnOnce(&Page) -> bool) -> bool {
        frame.page.and_then(|pfn| self.pages.get(pfn)).is_some_and(question)
    }

    /// Whether some TLB may hold the entry (x86 `pte_accessible`): also a protnone one while a flush is outstanding.
    #[inline]
    pub(super) fn pte_accessible(&self, frame: &Frame, pte: Pte) -> bool {
        pte.is_hw_present() || pte.is_protnone() && self.mm(frame.r.mm).is_some_and(|mm| mm.tlb_flush_pending > 0)
    }

    fn vma_huge_allowed(&self, vma: &Vma) -> bool {
        let wanted = match self.thp {
            Thp::Never => false,
            Thp::Madvise => vma.flags.contains(VmFlags::HUGEPAGE),
            Thp::Always => true,
        };
        wanted && !vma.flags.contains(VmFlags::NOHUGEPAGE) && vma.is_anonymous() && !vma.is_shared()
    }

    fn huge_fault_fits(&self, frame: &Frame) -> bool {
        let around = frame.pmd_range();
        let vma = &frame.r.vma;
        self.vma_huge_allowed(vma)
            && vma.start <= around.start
            && around.end <= vma.end
            && self.tables.pmd_entry(frame.r.root, frame.r.addr).is_none()
    }
}

#[inline]
fn is_huge_entry(frame: &Frame) -> bool {
    frame.r.place.is_some_and(|place| place.level == PMD_LEVEL)
}

/// x86's `pte_needs_flush`, `huge_pmd_needs_flush` (arch/x86/include/asm/tlbflush.h): a hardware-present entry changed
/// in a way that a TLB would not notice by itself. A page that becomes writable needs none by safety, but x86 asks for
/// one, since it flushes on each change of a flag that it did not think about.
pub(super) fn pte_needs_flush(old: Pte, new: Pte, huge: bool) -> bool {
    if !old.is_hw_present() {
        return false;
    }
    if !new.is_hw_present() || old.pfn() != new.pfn() {
        return true;
    }
    let lost_dirty = old.dirty() && !new.dirty();
    let lost_young = huge && old.young() && !new.young();
    let rights = |pte: Pte| (pte.write(), pte.user(), pte.nx(), pte.global());
    lost_dirty || lost_young || rights(old) != rights(new)
}

/// The rule of the 2021 series: only what takes a right away needs a flush; write permission of a page that was never
/// written through this entry is no right, since the first write walks again.
pub(super) fn pte_demoted(old: Pte, new: Pte) -> bool {
    if !old.is_hw_present() {
        return false;
    }
    if !new.is_hw_present() || old.pfn() != new.pfn() {
        return true;
    }
    let lost_user = old.user() && !new.user();
    let lost_exec = !old.nx() && new.nx();
    let lost_write = old.write() && !new.write() && old.dirty();
    let lost_dirty = old.dirty() && !new.dirty();
    lost_user || lost_exec || lost_write || lost_dirty
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::page_table::Prot;

    fn entry() -> Pte {
        Pte::new(Pfn(20), Prot::SHARED)
    }

    #[test]
    fn x86_flushes_on_a_right_gained_or_lost() {
        let old = entry();
        assert!(!pte_needs_flush(old, old.mk_dirty().mk_soft_dirty(), false));
        assert!(pte_needs_flush(old, old.wrprotect(), false));
        assert!(pte_needs_flush(old.wrprotect(), old, false));
        assert!(pte_needs_flush(old.mk_dirty(), old, false));
        assert!(!pte_needs_flush(old, old.mk_old(), false));
        assert!(pte_needs_flush(old, old.mk_old(), true));
        assert!(pte_needs_flush(old, Pte::NONE, false));
        assert!(!pte_needs_flush(Pte::NONE, old, false));
        assert!(!pte_needs_flush(old.mk_invalid(), old, false));
    }

    #[test]
    fn the_series_flushes_on_a_right_lost() {
        let old = entry();
        assert!(!pte_demoted(old, old.wrprotect()), "a clean entry's W is harmless");
        assert!(pte_demoted(old.mk_dirty(), old.mk_dirty().wrprotect()));
        assert!(!pte_demoted(old.wrprotect(), old));
        assert!(pte_demoted(old.mk_dirty(), old));
        assert!(pte_demoted(old, old.with_pfn(Pfn(21))));
        assert!(pte_demoted(old, old.mk_invalid()));
        assert!(!pte_demoted(old.mk_invalid(), Pte::NONE));
    }
}
