//! State that evidence proves without an operation: a recording starts in the middle of a process's life, so its areas
//! and pages are found when something happens to them. Nothing here flushes, faults or counts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::addr::{PAGE_SHIFT, Pfn, VaRange, VirtAddr};
use crate::error::{Error, Result};
use crate::flush::MmId;
use crate::page_table::{PTE_LEVEL, Pte, table_index};

use super::Machine;
use super::frame::Place;
use super::pages::{FileId, PageKind, Pages, ZERO_PFN};
use super::rmap::Mapping;
use super::vma::{VmFlags, Vma};

/// What a page that was there before is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AdoptKind {
    /// The zero page.
    ZeroPage,
    /// A page of the area's file, mapped without W or D.
    FileReadOnly,
    /// An anonymous page of its own; mapped with W and D if `write`.
    Anon {
        /// Whether the entry lets write.
        write: bool,
    },
    /// An anonymous page of its own that was written and may not be written any more; mapped with D, without W.
    AnonProtected,
}

impl Machine {
    /// Inserts an area that was there before; it is merged with no neighbour.
    ///
    /// # Errors
    /// If the mm or file does not exist, the range is not of whole pages in user space, or something is mapped there.
    pub fn adopt_vma(
        &mut self,
        mm: MmId,
        start: VirtAddr,
        end: VirtAddr,
        flags: VmFlags,
        file: Option<FileId>,
        pgoff: u64,
    ) -> Result<()> {
        let is_sound =
            start < end && start.is_aligned(PAGE_SHIFT) && end.is_aligned(PAGE_SHIFT) && end <= self.user_end();
        if !is_sound {
            return Err(Error::Value(format!("area {start} to {end}: expected whole pages below {}", self.user_end())));
        }
        if let Some(id) = file
            && self.pages.file(id).is_none()
        {
            return Err(Error::Value(format!("file {}: found none, expected a file that was created", id.0)));
        }
        let range = VaRange::new(start, end);
        let vmas = &mut self.mm_mut(mm)?.vmas;
        if !vmas.is_free(range) {
            return Err(Error::Value(format!("area {start} to {end} of mm {mm}: found an area there, expected none")));
        }
        let flags = flags.accounted();
        vmas.insert(Vma { flags, ..Vma::new(range, flags, file, pgoff) });
        Ok(())
    }

    /// Maps a page that was there before; the entry must be none. The entry is accessed, and dirty only if writable.
    ///
    /// # Errors
    /// If no area holds the address, it has no file for a file page, or something is mapped there.
    pub fn adopt_page(&mut self, mm: MmId, addr: VirtAddr, kind: AdoptKind) -> Result<()> {
        let addr = addr.align_down(PAGE_SHIFT);
        let root = self.mm_ref(mm)?.root;
        let vma = *self
            .vma_at(mm, addr)
            .ok_or_else(|| Error::Value(format!("address {addr} of mm {mm}: found no area, expected one")))?;
        if let Some((pte, _)) = self.leaf(mm, addr) {
            return Err(Error::Value(format!("address {addr} of mm {mm}: found `{pte}`, expected no entry")));
        }
        let prot = self.page_prot(&vma);
        let mapping = Mapping { mm, addr };
        let pte = match kind {
            AdoptKind::ZeroPage => Pte::new(ZERO_PFN, prot).wrprotect().mk_special(),
            AdoptKind::FileReadOnly => {
                let file = vma.file.ok_or_else(|| {
                    Error::Value(format!("address {addr} of mm {mm}: found anonymous memory, expected a file"))
                })?;
                let page = self.pages.find_get_page(file, vma.index_of(addr))?;
                self.pages.map(page, mapping);
                Pte::new(page, prot).wrprotect().mk_young()
            }
            AdoptKind::Anon { .. } | AdoptKind::AnonProtected => {
                let page = self.pages.alloc(PageKind::Anon, false)?;
                self.pages.add_rmap(page, mapping);
                self.prepare_anon_vma(mm, vma.start)?;
                let pte = Pte::new(page, prot).wrprotect().mk_young();
                match kind {
                    AdoptKind::Anon { write: true } => pte.mk_write().mk_dirty().mk_soft_dirty(),
                    AdoptKind::AnonProtected => pte.mk_dirty().mk_soft_dirty(),
                    _ => pte,
                }
            }
        };
        let table = self.tables.alloc_pte_table(root, addr)?;
        self.tables.set(table, table_index(addr, PTE_LEVEL), pte);
        Ok(())
    }

    /// Maps one anonymous page in several address spaces, as forks leave one that was there before them; all entries must be
    /// none. They are of a kind that may not be written.
    ///
    /// # Errors
    /// As [`Self::adopt_page`].
    pub fn adopt_shared_page(&mut self, mms: &[MmId], addr: VirtAddr, kind: AdoptKind) -> Result<()> {
        let addr = addr.align_down(PAGE_SHIFT);
        let mut shared = None;
        for &mm in mms {
            self.adopt_page(mm, addr, kind)?;
            let root = self.mm_ref(mm)?.root;
            let Some(Place { table, .. }) = self.place_at(root, addr) else { continue };
            let pte = self.tables.get(table, table_index(addr, PTE_LEVEL));
            let Some(own) = Self::page_of(pte) else { continue };
            let page = *shared.get_or_insert(own);
            self.pages.get_mut(page).into_iter().for_each(|page| page.exclusive = mms.len() == 1);
            if page != own {
                self.pages.remove_rmap(own, Mapping { mm, addr });
                self.pages.put_ref(own);
                self.pages.map(page, Mapping { mm, addr });
                self.tables.set(table, table_index(addr, PTE_LEVEL), pte.with_pfn(page));
            }
        }
        Ok(())
    }

    /// Swaps a page out that, by evidence, reclaim took unseen: an anonymous page that one 4 KiB entry maps, on a machine
    /// with swap. No flush. Tells whether it was such a page.
    ///
    /// # Errors
    /// If there is no such mm.
    pub fn swap_out_unseen(&mut self, mm: MmId, addr: VirtAddr) -> Result<bool> {
        let addr = addr.align_down(PAGE_SHIFT);
        let root = self.mm_ref(mm)?.root;
        let Some(Place { table, level: PTE_LEVEL }) = self.place_at(root, addr) else {
            return Ok(false);
        };
        let index = table_index(addr, PTE_LEVEL);
        let pte = self.tables.get(table, index);
        let Some(pfn) = Self::page_of(pte).filter(|_| self.has_swap) else {
            return Ok(false);
        };
        if !self.pages.get(pfn).is_some_and(|page| page.kind == PageKind::Anon && page.rmap.len() == 1) {
            return Ok(false);
        }
        self.pages.add_to_swap(pfn);
        let Some(slot) = self.pages.get(pfn).and_then(|page| page.swap_slot) else {
            return Ok(false);
        };
        self.pages.swap_duplicate(slot);
        self.tables.set(table, index, pte.to_swap(u64::from(slot)));
        self.pages.remove_rmap(pfn, Mapping { mm, addr });
        self.pages.leave_swap_cache(pfn);
        self.pages.put_ref(pfn);
        self.engine.forget_translation(mm, addr);
        Ok(true)
    }

    /// Splits a huge page that, by evidence, was split unseen: each 4 KiB that is still mapped is a page of its own from now
    /// on. No flush: whoever split it did that. Tells whether it could be; a huge page that a PMD maps stays.
    ///
    /// # Errors
    /// If the model has no more frames.
    pub fn split_folio_unseen(&mut self, pfn: Pfn) -> Result<bool> {
        let Some(old) = self.pages.get(pfn).filter(|old| Pages::is_huge(pfn) && old.swap_slot.is_none()).cloned()
        else {
            return Ok(false);
        };
        let mut places = Vec::new();
        for mapping in old.rmap.as_slice() {
            let root = self.mm_ref(mapping.mm)?.root;
            match self.place_at(root, mapping.addr) {
                Some(Place { table, level: PTE_LEVEL }) => places.push((*mapping, table)),
                _ => return Ok(false),
            }
        }
        let mut parts: BTreeMap<u64, Pfn> = BTreeMap::new();
        for (mapping, table) in places {
            let index = table_index(mapping.addr, PTE_LEVEL);
            let pte = self.tables.get(table, index);
            let part = match parts.entry(pte.pfn().0) {
                Entry::Occupied(part) => {
                    self.pages.map(*part.get(), mapping);
                    *part.get()
                }
                Entry::Vacant(part) => {
                    let part = *part.insert(self.pages.alloc(old.kind, false)?);
                    if let Some(page) = self.pages.get_mut(part) {
                        (page.dirty, page.anon_mm, page.exclusive) = (old.dirty, old.anon_mm, old.exclusive);
                        page.lazyfree = old.lazyfree && !pte.dirty();
                    }
                    self.pages.add_rmap(part, mapping);
                    part
                }
            };
            self.tables.set(table, index, pte.with_pfn(part));
            self.pages.remove_rmap(pfn, mapping);
            self.pages.put_ref(pfn);
            self.engine.forget_translation(mapping.mm, mapping.addr);
        }
        Ok(true)
    }

    /// Drops a 4 KiB entry that, by evidence, never was there: its page, its swap slot, and what TLBs hold of it, without
    /// a flush. Tells whether there was one; huge entries stay.
    ///
    /// # Errors
    /// If there is no such mm.
    pub fn forget_page(&mut self, mm: MmId, addr: VirtAddr) -> Result<bool> {
        let addr = addr.align_down(PAGE_SHIFT);
        let root = self.mm_ref(mm)?.root;
        let Some(Place { table, level: PTE_LEVEL }) = self.place_at(root, addr) else {
            return Ok(false);
        };
        let index = table_index(addr, PTE_LEVEL);
        let pte = self.tables.get(table, index);
        if pte.is_none() {
            return Ok(false);
        }
        self.tables.set(table, index, Pte::NONE);
        if let Some(page) = Self::page_of(pte) {
            self.pages.remove_rmap(page, Mapping { mm, addr });
            self.pages.put_ref_and_swap_cache(page);
        } else if let Some(slot) = pte.swap_slot() {
            self.pages.free_swap_and_cache(slot as u32);
        }
        self.engine.forget_translation(mm, addr);
        Ok(true)
    }
}
