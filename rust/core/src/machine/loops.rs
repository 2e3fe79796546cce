//! The loops of the step language: what each visits, in which order, and which registers it sets (`docs/steps.md`
//! section 3, and section 6 for the extents of mremap).

use crate::addr::{PAGE_SIZE, PMD_SHIFT, PMD_SIZE, PUD_SHIFT, PUD_SIZE, VaRange, VirtAddr};
use crate::error::Result;
use crate::page_table::{PMD_LEVEL, PTE_LEVEL, PUD_LEVEL, Pte, TableCursor, TableVisit, table_index};
use crate::program::{LoopKind, ProgramName, PteFilter};

use super::Machine;
use super::exclusion::maps;
use super::frame::{Frame, Loop, Place, TableStop};
use super::pages::{PageKind, head_of};
use super::probes::Probe;
use super::rmap::Mapping;
use super::rmap_walk::RmapVisit;

/// What a loop came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// An ordinary item: the body.
    Plain,
    /// A huge PMD.
    HugePmd,
    /// A whole table to move.
    Pmd,
    /// Nothing more.
    End,
}

/// Pushes the state of a loop.
pub(super) fn enter(machine: &Machine, frame: &mut Frame, kind: LoopKind) {
    let state = match kind {
        LoopKind::Vma => Loop::Vma { index: 0, at: frame.r.range.start },
        LoopKind::RmapVma => Loop::RmapVma { list: machine.vmas_of_file(frame), next: 0, saved: frame.r },
        LoopKind::Table => Loop::Table { at: frame.r.vma_range.start, stop: TableStop::Between },
        LoopKind::Pte(filter) => {
            frame.break_pte = false;
            Loop::Pte { filter }
        }
        LoopKind::Extent => Loop::Extent { at: frame.r.range.start },
        LoopKind::Page { keep } => Loop::Page { next: 0, keep },
        LoopKind::Mapping { shared_only } => {
            let list = frame.page.map_or(Vec::new(), |pfn| machine.mappings_by_index(pfn));
            let walk = match frame.page {
                Some(pfn) if machine.is_probing() && unmaps(frame.program) => machine.rmap_walk(pfn),
                _ => Vec::new(),
            };
            Loop::Mapping { list, next: 0, huge: None, walk, shared_only, saved: frame.r }
        }
    };
    frame.loops.push(state);
}

/// Advances the innermost loop; its state is gone when it is at its end.
#[inline]
pub(super) fn next(machine: &mut Machine, frame: &mut Frame) -> Result<Item> {
    if let Some(Loop::Pte { filter }) = frame.loops.last() {
        let filter = *filter;
        return Ok(next_pte(machine, frame, filter));
    }
    let Some(mut state) = frame.loops.pop() else {
        return Err(frame.error("a loop", "none"));
    };
    let item = match &mut state {
        Loop::Vma { index, at } => next_vma(machine, frame, index, at),
        Loop::RmapVma { list, next, saved } => {
            let item = next_rmap_vma(machine, frame, list, next);
            if item == Item::End {
                frame.r = *saved;
            }
            item
        }
        Loop::Table { at, stop } => next_table(machine, frame, at, stop),
        Loop::Pte { .. } => Item::End,
        Loop::Extent { at } => next_extent(machine, frame, at)?,
        Loop::Page { next, keep } => next_page(machine, frame, next, *keep),
        Loop::Mapping { list, next, huge, walk, shared_only, saved } => {
            if let Some(mapping) = huge.take() {
                let parts = split_mappings(machine, frame, mapping);
                list.splice(*next..*next, parts);
            }
            let mut item = Item::End;
            while item == Item::End && *next < list.len() {
                let mapping = list[*next];
                item = visit_mapping(machine, frame, mapping, *shared_only);
                *next += 1;
                *huge = (item == Item::HugePmd).then_some(mapping);
            }
            if item == Item::End {
                frame.r = *saved;
            } else {
                // Areas where the page could be are visited too; one more often visited is that of a huge page's parts.
                let is_here = |visit: &RmapVisit| visit.mm == frame.r.mm && frame.r.vma.range().contains(visit.addr);
                let nr_visited = walk.iter().position(is_here).map_or(0, |last| last + 1);
                for visit in walk.drain(..nr_visited) {
                    machine.hit(frame.by, visit.mm, Probe::UnmapOne { addr: visit.addr });
                }
            }
            item
        }
    };
    if item != Item::End {
        frame.loops.push(state);
    }
    Ok(item)
}

fn next_vma(machine: &Machine, frame: &mut Frame, index: &mut usize, at: &mut VirtAddr) -> Item {
    if frame.walks_detached {
        let Some(vma) = frame.detached.get(*index) else {
            return Item::End;
        };
        frame.r.vma = *vma;
        frame.r.vma_range = vma.range().intersect(frame.r.range);
        *index += 1;
    } else {
        if *index > 0 {
            // The body may have changed the area: merged, it ends further on.
            *at = frame.r.vma.end;
        }
        let range = frame.r.range;
        let found = machine.mm(frame.r.mm).and_then(|mm| mm.vmas.find(*at));
        let Some(vma) = found.filter(|vma| vma.start < range.end && !range.is_empty()) else {
            return Item::End;
        };
        frame.r.vma = *vma;
        frame.r.vma_range = vma.range().intersect(range);
        *index = 1;
    }
    frame.nr_changed = 0;
    Item::Plain
}

fn next_rmap_vma(
    machine: &Machine,
    frame: &mut Frame,
    list: &[(crate::flush::MmId, VirtAddr)],
    next: &mut usize,
) -> Item {
    while let Some((id, start)) = list.get(*next).copied() {
        *next += 1;
        let Some(mm) = machine.mm(id) else { continue };
        let Some(vma) = mm.vmas.lookup(start).copied() else {
            continue;
        };
        let Some(range) = machine.file_range_in(frame, &vma) else {
            continue;
        };
        frame.r.mm = id;
        frame.r.root = mm.root;
        frame.r.vma = vma;
        frame.r.vma_range = range;
        frame.r.range = range;
        frame.nr_changed = 0;
        frame.tracked = None;
        return Item::Plain;
    }
    Item::End
}

fn next_table(machine: &Machine, frame: &mut Frame, at: &mut VirtAddr, stop: &mut TableStop) -> Item {
    let at_table = |place: Place| machine.tables.pte_table(frame.r.root, frame.r.reached) == Some(place.table);
    let goes_on = *stop == TableStop::Table && frame.r.reached < frame.r.table_range.end && frame.break_pte;
    // The lock was dropped meanwhile: the table may be another's.
    if goes_on && frame.r.place.is_some_and(at_table) {
        let reached = frame.r.reached;
        begin_table(frame);
        frame.r.reached = reached;
        return Item::Plain;
    }
    if *stop == TableStop::HugePmd {
        // The body may have put a table where a huge page was of which the range has only a part.
        *at = frame.r.table_range.start;
        let end = frame.r.table_range.end;
        let is_part = frame.r.table_range.len_bytes() < PMD_SIZE;
        if let Some(table) = machine.tables.pte_table(frame.r.root, *at).filter(|_| is_part) {
            frame.r.place = Some(Place { table, level: PTE_LEVEL });
            *at = end;
            *stop = TableStop::Table;
            begin_table(frame);
            return Item::Plain;
        }
        *at = end;
    }
    let mut cursor = TableCursor { root: frame.r.root, addr: *at, end: frame.r.vma_range.end };
    loop {
        let visit = cursor.next(&machine.tables);
        *at = cursor.addr;
        match visit {
            None => return Item::End,
            Some(TableVisit::PteTable { id, range }) => {
                frame.r.place = Some(Place { table: id, level: PTE_LEVEL });
                frame.r.table_range = range;
                *stop = TableStop::Table;
                begin_table(frame);
                return Item::Plain;
            }
            Some(TableVisit::HugePmd { range, table, index }) => {
                frame.r.table_range = range;
                *stop = TableStop::HugePmd;
                begin_table(frame);
                load_huge(frame, table, range.start, machine.tables.get(table, index));
                return Item::HugePmd;
            }
            // The machine makes no pages of 1 GiB.
            Some(TableVisit::HugePud { .. }) => {}
        }
    }
}

fn begin_table(frame: &mut Frame) {
    frame.r.reached = frame.r.table_range.start;
    frame.force_flush = false;
    frame.delay_rmap = false;
    frame.break_pte = false;
}

/// Makes the huge entry that maps `addr` the current one.
fn load_huge(frame: &mut Frame, table: crate::page_table::TableId, addr: VirtAddr, pte: Pte) {
    frame.r.place = Some(Place { table, level: PMD_LEVEL });
    frame.r.addr = addr.align_down(PMD_SHIFT);
    frame.r.pte = pte;
    frame.r.new_pte = pte;
    frame.page = pte.is_present().then(|| head_of(pte.pfn()));
}

#[inline]
fn next_pte(machine: &mut Machine, frame: &mut Frame, filter: PteFilter) -> Item {
    frame.delay_rmap = false;
    if let (false, Some(place)) = (frame.break_pte, frame.r.place) {
        let nr_left = frame.r.table_range.end.0.saturating_sub(frame.r.reached.0) / PAGE_SIZE;
        let first = table_index(frame.r.reached, PTE_LEVEL);
        let entries = &machine.tables.table(place.table)[first..];
        let fits = |pte: &Pte| match filter {
            PteFilter::Present => pte.is_present(),
            PteFilter::NotNone => !(pte.is_none() || frame.args.spares_cows && is_cow(machine, *pte)),
        };
        if let Some(nr_skipped) = entries.iter().take(nr_left as usize).position(fits) {
            let pte = entries[nr_skipped];
            let addr = VirtAddr(frame.r.reached.0 + nr_skipped as u64 * PAGE_SIZE);
            if machine.resched.is_some_and(|(op, at)| op == frame.by.op && at <= addr) && zaps(frame.program()) {
                machine.resched = None;
                frame.r.reached = addr;
                frame.break_pte = true;
                frame.loops.pop();
                return Item::End;
            }
            frame.r.addr = addr;
            frame.r.reached = VirtAddr(addr.0 + PAGE_SIZE);
            frame.r.pte = pte;
            frame.r.new_pte = pte;
            frame.page = pte.is_present().then(|| head_of(pte.pfn()));
            return Item::Plain;
        }
        frame.r.reached = frame.r.table_range.end;
    }
    frame.loops.pop();
    Item::End
}

/// Whether an entry is one of a copy: of anonymous memory, there or swapped out.
fn is_cow(machine: &Machine, pte: Pte) -> bool {
    if !pte.is_present() && !pte.is_migration() {
        return true;
    }
    machine.pages.get(head_of(pte.pfn())).is_some_and(|page| page.kind == PageKind::Anon)
}

/// Whether a program's walk is `zap_pte_range`, which stops where `need_resched()` holds.
const fn zaps(program: ProgramName) -> bool {
    matches!(
        program,
        ProgramName::Mmap
            | ProgramName::Munmap
            | ProgramName::MadviseDontneed
            | ProgramName::ExitMmap
            | ProgramName::UnmapMappingRange
    )
}

fn next_page(machine: &mut Machine, frame: &mut Frame, next: &mut usize, keep: bool) -> Item {
    if let Some(pfn) = frame.page_list.get(*next) {
        frame.page = Some(*pfn);
        *next += 1;
        return Item::Plain;
    }
    if !keep {
        if machine.stepping.is_some() {
            machine.locks.put_back(frame.by.op);
        }
        for pfn in std::mem::take(&mut frame.page_list) {
            machine.pages.put_ref(pfn);
        }
    }
    Item::End
}

/// Whether a walk over a page's mappings is that of `try_to_unmap`.
fn unmaps(program: ProgramName) -> bool {
    matches!(program, ProgramName::ShrinkFolioList | ProgramName::MadvisePageout)
}

fn visit_mapping(machine: &Machine, frame: &mut Frame, mapping: Mapping, shared_only: bool) -> Item {
    let still_there =
        frame.page.and_then(|pfn| machine.pages.get(pfn)).is_some_and(|page| page.rmap.as_slice().contains(&mapping));
    let Some(mm) = machine.mm(mapping.mm).filter(|_| still_there) else {
        return Item::End;
    };
    let Some(vma) = mm.vmas.lookup(mapping.addr).copied() else {
        return Item::End;
    };
    if shared_only && !vma.is_shared() {
        return Item::End;
    }
    frame.r.mm = mapping.mm;
    frame.r.root = mm.root;
    frame.r.vma = vma;
    if let Some(table) = machine.tables.pte_table(mm.root, mapping.addr) {
        frame.r.place = Some(Place { table, level: PTE_LEVEL });
        frame.r.addr = mapping.addr;
        frame.r.pte = machine.tables.get(table, table_index(mapping.addr, PTE_LEVEL));
        frame.r.new_pte = frame.r.pte;
        return if machine.stepping.is_none() || maps(frame.r.pte, frame.page) { Item::Plain } else { Item::End };
    }
    let Some(table) = machine.tables.table_at(mm.root, mapping.addr, PMD_LEVEL) else {
        return Item::End;
    };
    let pte = machine.tables.get(table, table_index(mapping.addr, PMD_LEVEL));
    if pte.is_none() || machine.stepping.is_some() && !maps(pte, frame.page) {
        return Item::End;
    }
    let page = frame.page;
    load_huge(frame, table, mapping.addr, pte);
    frame.page = page;
    Item::HugePmd
}

/// What maps the page now where a huge PMD did (mm/page_vma_mapped.c:`page_vma_mapped_walk` goes on with the PTEs).
fn split_mappings(machine: &Machine, frame: &Frame, huge: Mapping) -> Vec<Mapping> {
    let table = machine.mm(huge.mm).and_then(|mm| machine.tables.pte_table(mm.root, huge.addr));
    let page = frame.page.filter(|_| table.is_some()).and_then(|pfn| machine.pages.get(pfn));
    let range = VaRange::new(huge.addr, VirtAddr(huge.addr.0 + PMD_SIZE));
    let stands_there = |mapping: &&Mapping| mapping.mm == huge.mm && range.contains(mapping.addr);
    page.map_or(Vec::new(), |page| page.rmap.as_slice().iter().filter(stands_there).copied().collect())
}

/// How far an extent of pages of `1 << shift` bytes reaches from `old`, if it goes to `new` (mm/mremap.c:`get_extent`).
fn extent_len(shift: u32, old: VirtAddr, old_end: VirtAddr, new: VirtAddr) -> u64 {
    let to_boundary = |addr: VirtAddr| VirtAddr(addr.0 + (1 << shift)).align_down(shift).0 - addr.0;
    to_boundary(old).min(old_end.0 - old.0).min(to_boundary(new))
}

fn next_extent(machine: &mut Machine, frame: &mut Frame, at: &mut VirtAddr) -> Result<Item> {
    let end = frame.r.range.end;
    let root = frame.r.root;
    while *at < end {
        let old = *at;
        let new = VirtAddr(frame.args.mremap.new.0 + (old.0 - frame.args.mremap.old.0));
        frame.new_addr = new;
        let huge_len = extent_len(PUD_SHIFT, old, end, new);
        let pud = machine
            .tables
            .table_at(root, old, PUD_LEVEL)
            .map_or(Pte::NONE, |table| machine.tables.get(table, table_index(old, PUD_LEVEL)));
        if pud.is_none() {
            *at = VirtAddr(old.0 + huge_len);
            continue;
        }
        let moves_pud = machine.kernel.constants.pud_move && huge_len == PUD_SIZE && pud.is_table();
        if moves_pud {
            let new_table = machine.tables.alloc_table_at(root, new, PUD_LEVEL)?;
            if machine.tables.get(new_table, table_index(new, PUD_LEVEL)).is_none() {
                set_extent(frame, at, PUD_SIZE);
                frame.new_place = Some(Place { table: new_table, level: PUD_LEVEL });
                return Ok(Item::Pmd);
            }
        }
        let len = extent_len(PMD_SHIFT, old, end, new);
        let pmd = machine.tables.pmd_entry(root, old);
        if pmd.is_none() {
            *at = VirtAddr(old.0 + len);
            continue;
        }
        if len == PMD_SIZE && machine.kernel.constants.pmd_move {
            let new_table = machine.tables.alloc_table_at(root, new, PMD_LEVEL)?;
            if machine.tables.get(new_table, table_index(new, PMD_LEVEL)).is_none() {
                set_extent(frame, at, PMD_SIZE);
                frame.new_place = Some(Place { table: new_table, level: PMD_LEVEL });
                if pmd.is_table() {
                    return Ok(Item::Pmd);
                }
                if let Some(table) = machine.tables.table_at(root, old, PMD_LEVEL) {
                    load_huge(frame, table, old, pmd);
                }
                return Ok(Item::HugePmd);
            }
        }
        if !pmd.is_table() {
            if let Some(table) = machine.tables.table_at(root, old, PMD_LEVEL) {
                load_huge(frame, table, old, pmd);
            }
            machine.split_at_once(frame)?;
        }
        let new_table = machine.tables.alloc_pte_table(root, new)?;
        set_extent(frame, at, len);
        frame.new_place = Some(Place { table: new_table, level: PTE_LEVEL });
        frame.r.place = machine.tables.pte_table(root, old).map(|table| Place { table, level: PTE_LEVEL });
        begin_table(frame);
        return Ok(Item::Plain);
    }
    Ok(Item::End)
}

fn set_extent(frame: &mut Frame, at: &mut VirtAddr, len: u64) {
    frame.extent = VaRange::new(*at, VirtAddr(at.0 + len));
    frame.r.table_range = frame.extent;
    frame.r.addr = *at;
    *at = frame.extent.end;
}
