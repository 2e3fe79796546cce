//! Files: msync, fsync, truncate, write protection of all mappings.

use crate::addr::{Pfn, VaRange};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::{Args, Frame};
use super::super::operation::{Errno, Outcome};
use super::super::pages::{File, FileId};
use super::super::vma::Vma;
use super::stage::{Stage, Todo};

/// `fsync`: all of a file.
pub(super) fn fsync(file: FileId, from: u64, to: u64) -> Stage {
    Stage::Do(Todo::Writeback { parts: vec![(file, from, to)], next: 0, outcome: Outcome::None })
}

impl Machine {
    pub(super) fn msync(&self, mm: MmId, addr: u64, len: u64, sync: bool) -> Result<Stage> {
        let range = match self.page_range(addr, len, Errno::Enomem) {
            Ok(range) => range,
            Err(errno) => return Ok(Stage::Done(Outcome::Errno(errno))),
        };
        if range.is_empty() {
            return Ok(Stage::Done(Outcome::None));
        }
        let has_hole = self.mapped_until(mm, range)? < range.end;
        let outcome = if has_hole { Outcome::Errno(Errno::Enomem) } else { Outcome::None };
        if !sync {
            return Ok(Stage::Done(outcome));
        }
        let part_of = |vma: &Vma| {
            let part: VaRange = vma.range().intersect(range);
            Some((vma.file?, vma.index_of(part.start), vma.index_of(part.end)))
        };
        let vmas = &self.mm_ref(mm)?.vmas;
        let parts = vmas.overlapping(range).filter(|vma| vma.is_shared()).filter_map(part_of).collect();
        Ok(Stage::Do(Todo::Writeback { parts, next: 0, outcome }))
    }

    /// Cleans the dirty pages of the next part of a real file, for writing them.
    pub(super) fn writeback(
        &mut self,
        by: Initiator,
        mm: MmId,
        parts: Vec<(FileId, u64, u64)>,
        mut next: usize,
        outcome: Outcome,
    ) -> Result<Stage> {
        while let Some(&(file, from, to)) = parts.get(next) {
            next += 1;
            let dirty = self.dirty_pages(file, from, to);
            if !dirty.is_empty() {
                self.lru_add_drain(by.cpu); // the batches of pages that are looked up (mm/swap.c:__pagevec_release)
                let mut frame = self.frame(ProgramName::PageMkclean, by, mm, Args::default())?;
                for pfn in dirty {
                    self.pages.get_ref(pfn);
                    frame.page_list.push(pfn);
                }
                return Ok(Stage::Run(frame, Todo::Writeback { parts, next, outcome }));
            }
        }
        Ok(Stage::Done(outcome))
    }

    fn dirty_pages(&self, file: FileId, from: u64, to: u64) -> Vec<Pfn> {
        let Some(content) = self.pages.file(file).filter(|content| !content.shmem) else {
            return Vec::new();
        };
        let is_dirty = |pfn: &Pfn| self.pages.get(*pfn).is_some_and(|page| page.dirty);
        content.pages.range(from..to).map(|(_, pfn)| *pfn).filter(is_dirty).collect()
    }

    pub(super) fn truncate(
        &mut self,
        by: Initiator,
        mm: MmId,
        file: FileId,
        from: u64,
        nr_pages: Option<u64>,
    ) -> Result<Stage> {
        let to = nr_pages.map_or(u64::MAX, |nr_pages| from.saturating_add(nr_pages));
        if nr_pages.is_none() {
            self.pages.set_file_size(file, from);
        }
        let mut frame = self.frame_on_file(ProgramName::UnmapMappingRange, by, mm, (file, from, to))?;
        frame.args.spares_cows = nr_pages.is_some();
        Ok(Stage::Run(frame, Todo::DropPages { file, from, to, again: nr_pages.is_none() }))
    }

    /// Pages of a part of a file leave the page cache.
    pub(super) fn drop_pages(
        &mut self,
        by: Initiator,
        mm: MmId,
        (file, from, to): (FileId, u64, u64),
        again: bool,
    ) -> Result<Stage> {
        let gone: Vec<Pfn> = match self.pages.file(file) {
            Some(content) if from < to => content.pages.range(from..to).map(|(_, pfn)| *pfn).collect(),
            _ => Vec::new(),
        };
        if let Some(key) = self.blocks_pages(&gone) {
            return Ok(Stage::Blocked(key));
        }
        let has_content = |file: &File| !file.shmem && file.nr_pages.is_none_or(|nr_pages| from < nr_pages || again);
        if !gone.is_empty() || self.pages.file(file).is_some_and(has_content) {
            self.lru_add_drain(by.cpu); // as above
        }
        for pfn in gone {
            self.pages.leave_page_cache(pfn);
        }
        self.pages.forget_content(file, from, to);
        self.pages.forget_swapped(file, from, to);
        if !again {
            return Ok(Stage::Done(Outcome::None));
        }
        // mm/truncate.c:`truncate_pagecache`: a private mapping may have copied a page in between.
        let frame = self.frame_on_file(ProgramName::UnmapMappingRange, by, mm, (file, from, to))?;
        Ok(Stage::run(frame, Outcome::None))
    }

    pub(super) fn wp_shared_mapping_range(
        &self,
        by: Initiator,
        mm: MmId,
        file: FileId,
        from: u64,
        nr_pages: u64,
    ) -> Result<Stage> {
        let part = (file, from, from.saturating_add(nr_pages));
        Ok(Stage::run(self.frame_on_file(ProgramName::WpSharedMappingRange, by, mm, part)?, Outcome::None))
    }

    fn frame_on_file(
        &self,
        program: ProgramName,
        by: Initiator,
        mm: MmId,
        part: (FileId, u64, u64),
    ) -> Result<Box<Frame>> {
        self.frame(program, by, mm, Args { file: Some(part), ..Args::default() })
    }
}
