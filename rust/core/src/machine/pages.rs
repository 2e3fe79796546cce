//! Page frames, files with their page caches, and swap slots.
//!
//! Frames are handed out deterministically: the most recently freed first, else the next new number. Small frames count
//! from pfn 16, huge ones are `2^24 + 512 n`; pfn 0 is the zero page and pfn 512 the huge zero page, which have no
//! reference count, no reverse map and are never freed.
//!
//! Invariant: `refcount` of a frame is the number of its mappings, plus 1 in the page cache, plus 1 as swap cache, plus 1
//! for each queue that holds it (a gather, an operation's page list) and each fault that copies it; at 0 it is free. A transient state within one step
//! (a new page that is about to be mapped) holds the mapping's reference already.

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::Pfn;
use crate::cpumask::CpuId;
use crate::error::{Error, Result};
use crate::flush::MmId;

use super::rmap::{Mapping, Rmap};

/// Number of a file, from 1 in order of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct FileId(pub u32);

/// The zero page (`ZERO_PAGE`).
pub const ZERO_PFN: Pfn = Pfn(0);
/// The huge zero page.
pub const HUGE_ZERO_PFN: Pfn = Pfn(512);
/// The first frame that is handed out.
const FIRST_SMALL: u64 = 16;
/// Where huge frames begin.
const FIRST_HUGE: u64 = 1 << 24;
/// Pages of one hole, or added at the end at once, that are known not to be in the page cache: 4 GiB.
const MAX_ABSENT: u64 = 1 << 20;
/// Pages that are read at once around one that is missing (`VM_READAHEAD_PAGES`, 128 KiB).
const READ_AROUND: u64 = 32;
/// 4 KiB frames in a huge one.
pub const HUGE_PAGES: u64 = 512;
/// Words with a bit for each part of a huge page.
pub const PART_WORDS: usize = HUGE_PAGES as usize / 64;

/// Whether the frame is one of the zero pages.
#[inline]
pub const fn is_zero_pfn(pfn: Pfn) -> bool {
    pfn.0 == ZERO_PFN.0 || pfn.0 == HUGE_ZERO_PFN.0
}

/// The frame that a page record stands for: its own, or the huge one that a 4 KiB part lies in.
#[inline]
pub const fn head_of(pfn: Pfn) -> Pfn {
    if pfn.0 >= FIRST_HUGE { Pfn(pfn.0 & !(HUGE_PAGES - 1)) } else { pfn }
}

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageKind {
    /// Private anonymous memory.
    Anon,
    /// A page of a real file.
    File,
    /// A page of shared memory.
    Shmem,
}

impl PageKind {
    /// The name in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::File => "file",
            Self::Shmem => "shmem",
        }
    }
}

/// One allocated frame (`struct folio`).
#[expect(clippy::struct_excessive_bools, reason = "flags of a folio, which are set each on its own")]
#[derive(Clone, Debug)]
pub struct Page {
    /// What it holds.
    pub kind: PageKind,
    /// Its file and the page number there (file and shmem pages).
    pub place: Option<(FileId, u64)>,
    /// Whether the page cache of its file holds it.
    pub in_page_cache: bool,
    /// Written since it was cleaned last.
    pub dirty: bool,
    /// May be dropped instead of swapped out (`MADV_FREE`).
    pub lazyfree: bool,
    /// KSM merged it with others (`folio_test_ksm`): who writes gets a copy, however few map it.
    pub ksm: bool,
    /// Anonymous, and not shared since it was made or written last (`PageAnonExclusive`).
    pub exclusive: bool,
    /// The CPU in whose batch it waits to be put on the LRU; none if it is there.
    pub lru_cpu: Option<CpuId>,
    /// How many faults hold a reference while they copy it.
    pub nr_copied: u32,
    /// Of a huge page, the 4 KiB parts known to be zero still; none if nothing is known.
    pub zero_parts: Option<Box<[u64; PART_WORDS]>>,
    /// Its slot while it is swap cache.
    pub swap_slot: Option<u32>,
    /// References.
    pub refcount: u32,
    /// Who maps it.
    pub rmap: Rmap,
    /// Of anonymous memory, where a walk of the reverse map begins: this address space and its descendants (`anon_vma`).
    pub anon_mm: Option<MmId>,
}

/// A file or a shared-memory object.
#[derive(Clone, Debug)]
pub struct File {
    /// Shared memory (tmpfs, shared anonymous memory) rather than a file on a disk.
    pub shmem: bool,
    /// Its size in pages; none = not known, without bound.
    pub nr_pages: Option<u64>,
    /// The page cache.
    pub pages: BTreeMap<u64, Pfn>,
    /// Pages below the end that are not in the page cache until they are looked for: of holes and of what was added at the end.
    pub absent: BTreeSet<u64>,
    /// Pages of shared memory that were written to swap, and not read back since.
    pub swapped: BTreeSet<u64>,
}

/// A swap slot in use.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Swap entries that name it.
    nr_entries: u32,
    /// Not on the free list.
    in_use: bool,
    /// The page that is its swap cache.
    cached: Option<Pfn>,
}

/// One column of frames of a size, with its free list.
#[derive(Clone, Debug, Default)]
struct Frames {
    slots: Vec<Option<Page>>,
    free: Vec<u32>,
}

impl Frames {
    fn put(&mut self, page: Page) -> usize {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(page);
            return index as usize;
        }
        self.slots.push(Some(page));
        self.slots.len() - 1
    }
}

/// All frames, files and swap slots of a machine.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    small: Frames,
    huge: Frames,
    files: Vec<File>,
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    nr_freed: u64,
    /// Pages that another call than the one that runs has locked: their swap cache is not to be freed.
    locked: Vec<Pfn>,
    /// By CPU: pages on their way to the LRU; [`ZERO_PFN`] for one that this machine has no record of any more.
    lru_batches: Vec<Vec<Pfn>>,
}

/// Small frames leave out the numbers of the huge zero page.
const fn small_pfn(index: usize) -> Pfn {
    let pfn = index as u64 + FIRST_SMALL;
    Pfn(if pfn < HUGE_ZERO_PFN.0 { pfn } else { pfn + HUGE_PAGES })
}

const fn small_index(pfn: Pfn) -> usize {
    (if pfn.0 < HUGE_ZERO_PFN.0 { pfn.0 - FIRST_SMALL } else { pfn.0 - HUGE_PAGES - FIRST_SMALL }) as usize
}

impl Pages {
    /// Allocates a frame with one reference, not mapped.
    ///
    /// # Errors
    /// If the model has no more small frames (64 GiB).
    pub fn alloc(&mut self, kind: PageKind, huge: bool) -> Result<Pfn> {
        let page = Page {
            kind,
            place: None,
            in_page_cache: false,
            dirty: false,
            lazyfree: false,
            ksm: false,
            exclusive: kind == PageKind::Anon,
            lru_cpu: None,
            nr_copied: 0,
            zero_parts: None,
            swap_slot: None,
            refcount: 1,
            rmap: Rmap::Empty,
            anon_mm: None,
        };
        if huge {
            return Ok(Pfn(FIRST_HUGE + HUGE_PAGES * self.huge.put(page) as u64));
        }
        let pfn = small_pfn(self.small.put(page));
        if pfn.0 >= FIRST_HUGE {
            return Err(Error::Value(format!(
                "memory: found more than {} pages of 4 KiB in use, expected at most as many",
                FIRST_HUGE - FIRST_SMALL - HUGE_PAGES
            )));
        }
        Ok(pfn)
    }

    #[inline]
    fn slot(&self, pfn: Pfn) -> Option<&Page> {
        if pfn.0 >= FIRST_HUGE {
            self.huge.slots.get(((pfn.0 - FIRST_HUGE) / HUGE_PAGES) as usize)?.as_ref()
        } else if is_zero_pfn(pfn) {
            None
        } else {
            self.small.slots.get(small_index(pfn))?.as_ref()
        }
    }

    #[inline]
    fn slot_mut(&mut self, pfn: Pfn) -> Option<&mut Page> {
        if pfn.0 >= FIRST_HUGE {
            self.huge.slots.get_mut(((pfn.0 - FIRST_HUGE) / HUGE_PAGES) as usize)?.as_mut()
        } else if is_zero_pfn(pfn) {
            None
        } else {
            self.small.slots.get_mut(small_index(pfn))?.as_mut()
        }
    }

    /// The page of a frame; none for zero pages and free frames.
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Option<&Page> {
        self.slot(pfn)
    }

    /// The page of a frame, to change it; none for zero pages and free frames.
    #[inline]
    pub fn get_mut(&mut self, pfn: Pfn) -> Option<&mut Page> {
        self.slot_mut(pfn)
    }

    /// Something is written to a frame.
    pub fn write_part(&mut self, pfn: Pfn) {
        let part = (pfn.0 % HUGE_PAGES) as usize;
        if let Some(parts) = self.slot_mut(head_of(pfn)).and_then(|page| page.zero_parts.as_mut()) {
            parts[part / 64] &= !(1 << (part % 64));
        }
    }

    /// Whether a part of a huge page is known to be zero still.
    pub fn is_zero_part(&self, pfn: Pfn) -> bool {
        let part = (pfn.0 % HUGE_PAGES) as usize;
        let parts = self.get(head_of(pfn)).and_then(|page| page.zero_parts.as_ref());
        parts.is_some_and(|parts| parts[part / 64] >> (part % 64) & 1 != 0)
    }

    /// Whether a huge page was ever made.
    pub fn has_huge(&self) -> bool {
        !self.huge.slots.is_empty()
    }

    /// Whether the frame is huge.
    #[inline]
    pub const fn is_huge(pfn: Pfn) -> bool {
        pfn.0 >= FIRST_HUGE || pfn.0 == HUGE_ZERO_PFN.0
    }

    /// How many frames were freed so far.
    pub const fn nr_freed(&self) -> u64 {
        self.nr_freed
    }

    /// Takes a reference (nothing for zero pages).
    #[inline]
    pub fn get_ref(&mut self, pfn: Pfn) {
        if let Some(page) = self.slot_mut(pfn) {
            page.refcount += 1;
        }
    }

    /// Drops a reference; the last one frees the frame (`folio_put`).
    #[inline]
    pub fn put_ref(&mut self, pfn: Pfn) {
        let Some(page) = self.slot_mut(pfn) else {
            return;
        };
        page.refcount = page.refcount.saturating_sub(1);
        if page.refcount == 0 {
            self.free(pfn);
        }
    }

    /// Drops a reference of a mapping that is gone; an unmapped page whose slot no swap entry names leaves the swap cache
    /// first (mm/swap_state.c:`free_swap_cache`).
    #[inline]
    pub fn put_ref_and_swap_cache(&mut self, pfn: Pfn) {
        if let Some(slot) = self.get(pfn).and_then(|page| page.swap_slot) {
            self.free_swap_cache(slot);
        }
        self.put_ref(pfn);
    }

    /// Says which pages calls other than the one that runs have locked.
    pub(super) fn set_locked(&mut self, locked: impl Iterator<Item = Pfn>) {
        self.locked.clear();
        self.locked.extend(locked);
    }

    /// Frees the swap cache of a page that was locked when its last swap entry went.
    pub(super) fn free_unused_swap_cache(&mut self, pfn: Pfn) {
        if let Some(slot) = self.get(pfn).and_then(|page| page.swap_slot) {
            self.free_swap_cache(slot);
        }
    }

    /// Takes an unmapped page out of the swap cache of a slot that no swap entry names.
    fn free_swap_cache(&mut self, slot: u32) {
        let Slot { nr_entries, cached, .. } = self.slots[slot as usize - 1];
        if let (0, Some(pfn)) = (nr_entries, cached)
            && !self.locked.contains(&pfn)
            && self.get(pfn).is_some_and(|page| page.rmap.is_empty())
        {
            self.leave_swap_cache(pfn);
        }
    }

    fn free(&mut self, pfn: Pfn) {
        self.nr_freed += 1;
        // The batch keeps the frame until it is emptied; nothing else knows it any more.
        if let Some(cpu) = self.get(pfn).and_then(|page| page.lru_cpu)
            && let Some(waiting) = self.lru_batches[cpu.index()].iter_mut().find(|waiting| **waiting == pfn)
        {
            *waiting = ZERO_PFN;
        }
        let (frames, index) = if pfn.0 >= FIRST_HUGE {
            (&mut self.huge, ((pfn.0 - FIRST_HUGE) / HUGE_PAGES) as usize)
        } else {
            (&mut self.small, small_index(pfn))
        };
        frames.slots[index] = None;
        frames.free.push(index as u32);
    }

    /// Adds a mapping and its reference (nothing for zero pages).
    #[inline]
    pub fn map(&mut self, pfn: Pfn, mapping: Mapping) {
        if let Some(page) = self.slot_mut(pfn) {
            page.anon_mm.get_or_insert(mapping.mm);
            page.rmap.add(mapping);
            page.refcount += 1;
        }
    }

    /// Adds a mapping whose reference is there already.
    #[inline]
    pub fn add_rmap(&mut self, pfn: Pfn, mapping: Mapping) {
        if let Some(page) = self.slot_mut(pfn) {
            page.anon_mm.get_or_insert(mapping.mm);
            page.rmap.add(mapping);
        }
    }

    /// Replaces one mapping of a huge page by `nr` of 4 KiB each, in its place in the order, with their references.
    pub fn split_mapping(&mut self, pfn: Pfn, mapping: Mapping, nr: u32) {
        if let Some(page) = self.slot_mut(pfn)
            && page.rmap.split(mapping, nr)
        {
            page.refcount += nr - 1;
        }
    }

    /// Removes a mapping, not its reference.
    #[inline]
    pub fn remove_rmap(&mut self, pfn: Pfn, mapping: Mapping) {
        if let Some(page) = self.slot_mut(pfn) {
            page.rmap.remove(mapping);
        }
    }

    /// A page joins the batch of those that a CPU puts on the LRU together (mm/swap.c:`folio_add_lru`). One of `size` pages is
    /// full.
    pub fn lru_add(&mut self, cpu: CpuId, pfn: Pfn, size: u32) {
        if size == 0 {
            return;
        }
        if let Some(page) = self.slot_mut(pfn) {
            page.lru_cpu = Some(cpu);
        }
        if self.lru_batches.len() <= cpu.index() {
            self.lru_batches.resize(cpu.index() + 1, Vec::new());
        }
        let batch = &mut self.lru_batches[cpu.index()];
        batch.push(pfn);
        if batch.len() >= size as usize {
            self.lru_drain(cpu);
        }
    }

    /// All of a CPU's batch is put on the LRU.
    pub fn lru_drain(&mut self, cpu: CpuId) {
        let batch = self.lru_batches.get_mut(cpu.index()).map(std::mem::take).unwrap_or_default();
        for pfn in batch {
            if let Some(page) = self.slot_mut(pfn) {
                page.lru_cpu = None;
            }
        }
    }

    /// How many pages wait in a CPU's batch.
    pub fn nr_lru_waiting(&self, cpu: CpuId) -> usize {
        self.lru_batches.get(cpu.index()).map_or(0, Vec::len)
    }

    /// The pages in use, by frame number.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, &Page)> {
        let small =
            self.small.slots.iter().enumerate().filter_map(|(index, page)| Some((small_pfn(index), page.as_ref()?)));
        let huge = self
            .huge
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, page)| Some((Pfn(FIRST_HUGE + HUGE_PAGES * index as u64), page.as_ref()?)));
        small.chain(huge)
    }

    /// Makes a file.
    pub fn create_file(&mut self, shmem: bool, nr_pages: Option<u64>) -> FileId {
        self.files.push(File {
            shmem,
            nr_pages,
            pages: BTreeMap::new(),
            absent: BTreeSet::new(),
            swapped: BTreeSet::new(),
        });
        FileId(self.files.len() as u32)
    }

    /// A file by its number.
    #[inline]
    pub fn file(&self, id: FileId) -> Option<&File> {
        self.files.get((id.0 as usize).checked_sub(1)?)
    }

    /// The files, by number.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &File)> {
        (1..).map(FileId).zip(&self.files)
    }

    /// The page of a file from its page cache, or a new one put there (`filemap_get_folio`, with the read done).
    ///
    /// # Errors
    /// If the model has no more frames.
    pub fn find_get_page(&mut self, id: FileId, index: u64) -> Result<Pfn> {
        let number = id.0 as usize - 1;
        if let Some(pfn) = self.files[number].pages.get(&index) {
            return Ok(*pfn);
        }
        let kind = if self.files[number].shmem { PageKind::Shmem } else { PageKind::File };
        let pfn = self.alloc(kind, false)?;
        // What is read back has no other copy (mm/shmem.c:`shmem_swapin_folio`).
        let was_swapped = self.files[number].swapped.remove(&index);
        if let Some(page) = self.slot_mut(pfn) {
            page.place = Some((id, index));
            page.in_page_cache = true;
            page.dirty = was_swapped;
        }
        self.files[number].pages.insert(index, pfn);
        self.read_around(id, index);
        Ok(pfn)
    }

    /// A page that is not in the page cache is read with those around it (mm/filemap.c:`do_sync_mmap_readahead`).
    pub fn read_around(&mut self, id: FileId, index: u64) {
        let Some(file) = self.files.get_mut((id.0 as usize).wrapping_sub(1)) else { return };
        if file.absent.contains(&index) {
            let first = index.saturating_sub(READ_AROUND / 2);
            for page in first..first.saturating_add(READ_AROUND) {
                file.absent.remove(&page);
            }
        }
    }

    /// A file of known size ends elsewhere (`i_size_write`).
    pub fn set_file_size(&mut self, id: FileId, nr_pages: u64) {
        let Some(file) = self.files.get_mut((id.0 as usize).wrapping_sub(1)) else { return };
        if let Some(old) = file.nr_pages.replace(nr_pages) {
            file.absent.extend(old..nr_pages.min(old.saturating_add(MAX_ABSENT)));
        } else {
            file.nr_pages = None;
        }
    }

    /// Pages of a real file are not in the page cache any more.
    pub fn forget_content(&mut self, id: FileId, from: u64, to: u64) {
        let Some(file) = self.files.get_mut((id.0 as usize).wrapping_sub(1)) else { return };
        if let (false, Some(nr_pages)) = (file.shmem, file.nr_pages) {
            file.absent.extend(from..to.min(nr_pages).min(from.saturating_add(MAX_ABSENT)));
        }
    }

    /// Whether a fault nearby would find this page in the page cache: a real file's pages are, except those of a hole or
    /// added at the end, which have to be touched before, as those of shared memory.
    pub fn is_resident(&self, id: FileId, index: u64) -> bool {
        self.file(id).is_some_and(|file| {
            if file.shmem {
                file.pages.contains_key(&index)
            } else {
                file.nr_pages.is_none_or(|nr_pages| index < nr_pages) && !file.absent.contains(&index)
            }
        })
    }

    /// A page is written, anonymous and shared memory to swap; without swap those stay as they are (`pageout`).
    pub fn page_out(&mut self, pfn: Pfn, has_swap: bool) {
        let Some(page) = self.slot_mut(pfn).filter(|page| has_swap || page.kind == PageKind::File) else { return };
        page.dirty = false;
        if let (PageKind::Shmem, true, Some((file, index))) = (page.kind, page.in_page_cache, page.place) {
            self.files[file.0 as usize - 1].swapped.insert(index);
        }
    }

    /// What shared memory has on swap of a part is gone.
    pub fn forget_swapped(&mut self, id: FileId, from: u64, to: u64) {
        if let Some(file) = self.files.get_mut((id.0 as usize).wrapping_sub(1)) {
            file.swapped.retain(|index| !(from..to).contains(index));
        }
    }

    /// Takes a page out of its page cache and drops that reference.
    pub fn leave_page_cache(&mut self, pfn: Pfn) {
        let Some(page) = self.slot_mut(pfn).filter(|page| page.in_page_cache) else {
            return;
        };
        page.in_page_cache = false;
        if let Some((file, index)) = page.place {
            self.files[file.0 as usize - 1].pages.remove(&index);
        }
        self.put_ref(pfn);
    }

    /// Puts `new` where `old` stood in page cache and swap cache, with everything known of it (`folio_migrate_mapping`).
    pub fn replace(&mut self, old: Pfn, new: Pfn) {
        let Some(from) = self.slot_mut(old) else {
            return;
        };
        let in_page_cache = std::mem::take(&mut from.in_page_cache);
        let swap_slot = from.swap_slot.take();
        let (kind, place, dirty, lazyfree, ksm) = (from.kind, from.place, from.dirty, from.lazyfree, from.ksm);
        let (exclusive, zero_parts) = (from.exclusive, from.zero_parts.take());
        let nr_moved = u32::from(in_page_cache) + u32::from(swap_slot.is_some());
        if let Some(to) = self.slot_mut(new) {
            (to.kind, to.place, to.dirty, to.lazyfree, to.ksm) = (kind, place, dirty, lazyfree, ksm);
            (to.in_page_cache, to.swap_slot, to.exclusive) = (in_page_cache, swap_slot, exclusive);
            to.zero_parts = zero_parts;
            to.refcount += nr_moved;
        }
        if let (true, Some((file, index))) = (in_page_cache, place) {
            self.files[file.0 as usize - 1].pages.insert(index, new);
        }
        if let Some(slot) = swap_slot {
            self.slots[slot as usize - 1].cached = Some(new);
        }
        (0..nr_moved).for_each(|_| self.put_ref(old));
    }

    /// Makes the page swap cache of a new slot, unless it has one (`add_to_swap`).
    pub fn add_to_swap(&mut self, pfn: Pfn) {
        if self.get(pfn).is_none_or(|page| page.swap_slot.is_some()) {
            return;
        }
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32
        });
        self.slots[slot as usize - 1].in_use = true;
        self.enter_swap_cache(pfn, slot);
        if let Some(page) = self.slot_mut(pfn) {
            page.dirty = true;
        }
    }

    /// Makes the page the swap cache of a slot, with the cache's reference.
    pub fn enter_swap_cache(&mut self, pfn: Pfn, slot: u32) {
        self.slots[slot as usize - 1].cached = Some(pfn);
        if let Some(page) = self.slot_mut(pfn) {
            page.swap_slot = Some(slot);
            page.refcount += 1;
        }
    }

    /// Takes a page out of the swap cache and drops that reference; the slot is free if no entry names it.
    pub fn leave_swap_cache(&mut self, pfn: Pfn) {
        let Some(slot) = self.slot_mut(pfn).and_then(|page| page.swap_slot.take()) else {
            return;
        };
        self.slots[slot as usize - 1].cached = None;
        self.release_slot_if_unused(slot);
        self.put_ref(pfn);
    }

    /// One more swap entry names the slot (`swap_duplicate`).
    pub fn swap_duplicate(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut((slot as usize).wrapping_sub(1)) {
            found.nr_entries += 1;
        }
    }

    /// One swap entry less names the slot; the swap cache stays (`swap_free`).
    pub fn swap_free(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut((slot as usize).wrapping_sub(1)) {
            found.nr_entries = found.nr_entries.saturating_sub(1);
            self.release_slot_if_unused(slot);
        }
    }

    /// As [`Self::swap_free`]; with the last entry an unmapped page leaves the swap cache (`free_swap_and_cache`).
    pub fn free_swap_and_cache(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut((slot as usize).wrapping_sub(1)) {
            found.nr_entries = found.nr_entries.saturating_sub(1);
            self.free_swap_cache(slot);
            self.release_slot_if_unused(slot);
        }
    }

    fn release_slot_if_unused(&mut self, slot: u32) {
        let found = self.slots[slot as usize - 1];
        if found.in_use && found.nr_entries == 0 && found.cached.is_none() {
            self.slots[slot as usize - 1].in_use = false;
            self.free_slots.push(slot);
        }
    }

    /// Swap entries that name the slot.
    pub fn swap_count(&self, slot: u32) -> u32 {
        self.slots.get((slot as usize).wrapping_sub(1)).map_or(0, |found| found.nr_entries)
    }

    /// The page that is the slot's swap cache.
    pub fn swap_cache_of(&self, slot: u32) -> Option<Pfn> {
        self.slots.get((slot as usize).wrapping_sub(1))?.cached
    }

    /// The slots in use by number, each with its number of swap entries.
    pub fn swap_slots(&self) -> impl Iterator<Item = (u32, u32)> {
        (1_u32..).zip(&self.slots).filter(|(_, slot)| slot.in_use).map(|(number, slot)| (number, slot.nr_entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::VirtAddr;

    fn at(addr: u64) -> Mapping {
        Mapping { mm: MmId(1), addr: VirtAddr(addr) }
    }

    #[test]
    fn frames_come_back_last_freed_first() {
        let mut pages = Pages::default();
        let first: Vec<u64> = (0..3).map(|_| pages.alloc(PageKind::Anon, false).unwrap().0).collect();
        assert_eq!(first, [16, 17, 18]);
        pages.put_ref(Pfn(16));
        pages.put_ref(Pfn(18));
        assert_eq!(pages.nr_freed(), 2);
        let again: Vec<u64> = (0..3).map(|_| pages.alloc(PageKind::Anon, false).unwrap().0).collect();
        assert_eq!(again, [18, 16, 19]);
        assert_eq!(pages.alloc(PageKind::Anon, true).unwrap().0, 1 << 24);
        assert_eq!(pages.alloc(PageKind::Anon, true).unwrap().0, (1 << 24) + 512);
    }

    #[test]
    fn small_frames_leave_out_the_huge_zero_page() {
        let mut pages = Pages::default();
        let last = (0..497).map(|_| pages.alloc(PageKind::Anon, false).unwrap()).last();
        assert_eq!(last, Some(Pfn(1024)));
        assert_eq!(pages.iter().map(|(pfn, _)| pfn.0).filter(|pfn| (512..1024).contains(pfn)).count(), 0);
    }

    #[test]
    fn a_cached_page_outlives_its_mapping() {
        let mut pages = Pages::default();
        let file = pages.create_file(false, None);
        let pfn = pages.find_get_page(file, 7).unwrap();
        pages.map(pfn, at(0x1000));
        assert_eq!(pages.get(pfn).unwrap().refcount, 2);
        pages.remove_rmap(pfn, at(0x1000));
        pages.put_ref(pfn);
        assert_eq!(pages.find_get_page(file, 7).unwrap(), pfn);
        pages.leave_page_cache(pfn);
        assert!(pages.get(pfn).is_none());
        assert!(pages.file(file).unwrap().pages.is_empty());
    }

    #[test]
    fn a_slot_lives_as_long_as_an_entry_or_the_cache() {
        let mut pages = Pages::default();
        let pfn = pages.alloc(PageKind::Anon, false).unwrap();
        pages.add_rmap(pfn, at(0x1000));
        pages.add_to_swap(pfn);
        pages.add_to_swap(pfn);
        assert_eq!(pages.swap_slots().collect::<Vec<_>>(), [(1, 0)]);
        pages.swap_duplicate(1);
        pages.remove_rmap(pfn, at(0x1000));
        pages.put_ref_and_swap_cache(pfn);
        assert_eq!(pages.get(pfn).unwrap().refcount, 1, "the swap cache keeps it while an entry names the slot");
        pages.leave_swap_cache(pfn);
        assert!(pages.get(pfn).is_none());
        assert_eq!(pages.swap_slots().collect::<Vec<_>>(), [(1, 1)]);
        pages.free_swap_and_cache(1);
        assert_eq!(pages.swap_slots().count(), 0);
        let other = pages.alloc(PageKind::Anon, false).unwrap();
        pages.add_to_swap(other);
        assert_eq!(pages.get(other).unwrap().swap_slot, Some(1));
    }

    #[test]
    fn migration_takes_everything_over() {
        let mut pages = Pages::default();
        let file = pages.create_file(true, Some(8));
        let old = pages.find_get_page(file, 3).unwrap();
        pages.get_mut(old).unwrap().dirty = true;
        let new = pages.alloc(PageKind::Anon, false).unwrap();
        pages.replace(old, new);
        assert!(pages.get(old).is_none());
        let page = pages.get(new).unwrap();
        assert_eq!((page.kind, page.dirty, page.refcount), (PageKind::Shmem, true, 2));
        assert_eq!(pages.file(file).unwrap().pages[&3], new);
    }
}
