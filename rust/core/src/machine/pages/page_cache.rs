//! Files and what of them is in memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::Pfn;
use crate::error::Result;

use super::{PageKind, Pages};

/// Number of a file, from 1 in order of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct FileId(pub u32);

/// Pages of one hole, or added at the end at once, that are known not to be in the page cache: 4 GiB.
const MAX_ABSENT: u64 = 1 << 20;
/// Pages that are read at once around one that is missing (`VM_READAHEAD_PAGES`, 128 KiB).
const READ_AROUND: u64 = 32;

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

impl Pages {
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
}

#[cfg(test)]
mod tests {
    use crate::addr::VirtAddr;
    use crate::flush::MmId;

    use super::super::super::rmap::Mapping;
    use super::*;

    fn at(addr: u64) -> Mapping {
        Mapping { mm: MmId(1), addr: VirtAddr(addr) }
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
}
