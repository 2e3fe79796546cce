//! Files: msync, fsync, truncate, write protection of all mappings.

use crate::addr::{Pfn, VaRange};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::Args;
use super::super::operation::{Errno, Outcome};
use super::super::pages::FileId;

impl Machine {
    pub(super) fn msync(&mut self, by: Initiator, mm: MmId, addr: u64, len: u64, sync: bool) -> Result<Outcome> {
        let range = match self.page_range(addr, len, Errno::Enomem) {
            Ok(range) => range,
            Err(errno) => return Ok(Outcome::Errno(errno)),
        };
        if range.is_empty() {
            return Ok(Outcome::None);
        }
        let has_hole = self.mapped_until(mm, range)? < range.end;
        if sync {
            let parts: Vec<(FileId, u64, u64)> = self
                .mm_ref(mm)?
                .vmas
                .overlapping(range)
                .filter(|vma| vma.is_shared())
                .filter_map(|vma| {
                    let part: VaRange = vma.range().intersect(range);
                    Some((vma.file?, vma.index_of(part.start), vma.index_of(part.end)))
                })
                .collect();
            for (file, from, to) in parts {
                self.writeback(by, mm, file, from, to)?;
            }
        }
        Ok(if has_hole { Outcome::Errno(Errno::Enomem) } else { Outcome::None })
    }

    pub(super) fn fsync(&mut self, by: Initiator, mm: MmId, file: FileId) -> Result<Outcome> {
        self.writeback(by, mm, file, 0, u64::MAX)?;
        Ok(Outcome::None)
    }

    /// Cleans the dirty pages of a part of a real file, for writing them.
    fn writeback(&mut self, by: Initiator, mm: MmId, file: FileId, from: u64, to: u64) -> Result<()> {
        let Some(content) = self.pages.file(file).filter(|content| !content.shmem) else {
            return Ok(());
        };
        let is_dirty = |pfn: &Pfn| self.pages.get(*pfn).is_some_and(|page| page.dirty);
        let dirty: Vec<Pfn> = content.pages.range(from..to).map(|(_, pfn)| *pfn).filter(is_dirty).collect();
        if dirty.is_empty() {
            return Ok(());
        }
        let mut frame = self.frame(ProgramName::PageMkclean, by, mm, Args::default())?;
        for pfn in dirty {
            self.pages.get_ref(pfn);
            frame.page_list.push(pfn);
        }
        self.run(&mut frame)
    }

    pub(super) fn truncate(
        &mut self,
        by: Initiator,
        mm: MmId,
        file: FileId,
        from: u64,
        nr_pages: Option<u64>,
    ) -> Result<Outcome> {
        let to = nr_pages.map_or(u64::MAX, |nr_pages| from.saturating_add(nr_pages));
        self.run_on_file(ProgramName::UnmapMappingRange, by, mm, (file, from, to))?;
        let gone: Vec<Pfn> = match self.pages.file(file) {
            Some(content) if from < to => content.pages.range(from..to).map(|(_, pfn)| *pfn).collect(),
            _ => Vec::new(),
        };
        for pfn in gone {
            self.pages.leave_page_cache(pfn);
        }
        if nr_pages.is_none() {
            // mm/truncate.c:`truncate_pagecache`: a private mapping may have copied a page in between.
            self.run_on_file(ProgramName::UnmapMappingRange, by, mm, (file, from, to))?;
        }
        Ok(Outcome::None)
    }

    pub(super) fn wp_shared_mapping_range(
        &mut self,
        by: Initiator,
        mm: MmId,
        file: FileId,
        from: u64,
        nr_pages: u64,
    ) -> Result<Outcome> {
        let part = (file, from, from.saturating_add(nr_pages));
        self.run_on_file(ProgramName::WpSharedMappingRange, by, mm, part)?;
        Ok(Outcome::None)
    }

    fn run_on_file(&mut self, program: ProgramName, by: Initiator, mm: MmId, part: (FileId, u64, u64)) -> Result<()> {
        let args = Args { file: Some(part), ..Args::default() };
        let mut frame = self.frame(program, by, mm, args)?;
        self.run(&mut frame)
    }
}
