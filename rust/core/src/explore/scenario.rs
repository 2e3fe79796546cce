//! What is explored: a few pages, who maps them, which CPUs touch them, and which operations of the kernel run.
//!
//! A [`Scenario`] is what the caller writes (JSON); a [`World`] is the same with every choice made: address spaces, VMAs,
//! page tables, virtual pages in address order, page frames.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::program::ProgramName;

/// At most this many virtual pages; their sets are words of 32 bits.
pub const MAX_VIRTUAL_PAGES: usize = 16;
/// At most this many pages in a scenario.
pub const MAX_PAGES: usize = 8;
/// At most this many page frames.
pub const MAX_FRAMES: usize = 16;
/// At most this many user CPUs.
pub const MAX_USERS: usize = 8;

/// The operation that walks without locks.
const GUP_FAST: &str = "gup_fast";

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A page of a file, mapped shared.
    #[default]
    File,
    /// Anonymous memory.
    Anon,
}

/// How an entry of a page table begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapped {
    /// Nothing mapped.
    None,
    /// Read-only.
    Read,
    /// Writable, clean.
    #[default]
    Write,
    /// Writable, dirty.
    Dirty,
}

/// One virtual page of the first address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PageSpec {
    /// What it holds.
    pub kind: Kind,
    /// Which PTE table its entry stands in.
    pub table: u8,
    /// Which VMA it belongs to.
    pub vma: u8,
    /// Its entry at the start.
    pub mapped: Mapped,
    /// The page frame; its own if not given.
    pub frame: Option<u8>,
    /// It is one huge page, mapped by an upper entry; its table must hold nothing else.
    pub huge: bool,
    /// It is executable.
    pub exec: bool,
    /// A driver maps its own memory there (`VM_PFNMAP`): the entry holds no reference and counts in no map count.
    pub pfn: bool,
}

/// One kernel thread: an operation on a range of pages, run once.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadSpec {
    /// The kernel's program that runs.
    pub operation: String,
    /// The first page of its range.
    #[serde(default)]
    pub first: u8,
    /// Pages in its range; to the last if not given.
    #[serde(default)]
    pub count: Option<u8>,
    /// mprotect: whether the pages stay writable.
    #[serde(default)]
    pub write: bool,
    /// mprotect: nothing may be done with the pages (`PROT_NONE`).
    #[serde(default)]
    pub none: bool,
    /// mremap: the destination's table is one of its own.
    #[serde(default)]
    pub other_table: bool,
}

/// What the flush engine has beyond requests that all CPUs answer, and bugs that it once had.
#[expect(clippy::struct_excessive_bools, reason = "each is a word of a scenario, and they go together in any way")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSpec {
    /// A flush request with generation 0 (reclaim's batch) counts as an old one and is skipped (aa44284960d5).
    pub gen_zero_is_old: bool,
    /// `tlb_flush_pending` is a bool, not a count (before 16af97dc5a89).
    pub tlb_flush_pending_is_bool: bool,
    /// No bug: flushes have generations, a mask says who is asked, and a handler has steps; without it each flush asks all.
    pub generations: bool,
    /// No bug: with generations, user CPUs switch to another address space and come back.
    pub switches: bool,
    /// No bug: with generations, user CPUs go idle and stay lazily in the address space.
    pub lazy: bool,
    /// No bug: CPUs without generations that keep translations of an address space that is not loaded, and judge by
    /// `active_mm` whether a request is for the one that is.
    pub by_active_mm: bool,
    /// No bug: arm64. Invalidations (TLBI) are broadcast, arrive at any time, and a DSB waits for those of its own CPU.
    pub tlbi: bool,
    /// `flush_tlb_batched_pending()` is but a DSB (before 4b634918384c).
    pub batched_pending_is_dsb: bool,
    /// Lazy-MMU sections do not keep the task on its CPU, whose batch they fill (before b9ef323ea168).
    pub lazy_mmu_preempts: bool,
    /// Lazy-MMU sections nest in one of the caller's, which ends after the page-table lock, and the end of the inner one leaves
    /// the batch to the outer one (no kernel had it: v7.0 counts sections, and drains at each end).
    pub inner_lazy_mmu_keeps_batch: bool,
    /// The batched flush of reclaim names physical addresses where virtual ones are meant (version 5 of 2015).
    pub batch_flushes_physical: bool,
    /// `switch_mm()` sets its bit in `mm_cpumask` after it loaded CR3 (as before 71b3c126e611 others could see it).
    pub mask_after_cr3: bool,
    /// `switch_mm_irqs_off()` reads the generation before it says that it switches (as before 83b0177a6c48).
    pub gen_before_loaded_mm: bool,
    /// A deferred flush raises the generation only if nobody did since it was deferred (RFC 15/20).
    pub bumps_once_per_deferral: bool,
    /// A CPU clears its bit in the mask of outstanding flushes after the full flush, not before (RFC 20/20).
    pub clears_batched_late: bool,
    /// A lazy CPU is not asked even if tables are freed (before b956575bed91).
    pub lazy_is_never_asked: bool,
    /// `use_mm()` takes interrupts between `active_mm` and the switch (before d53c3dfb23c4).
    pub irqs_on_in_use_mm: bool,
    /// The end of a nested gather forgets that it has tables to free (before 7a30df49f63a).
    pub nested_finish_forgets_tables: bool,
    /// A table for which the gather gets no batch is freed without a flush (before 0ed1325967ab).
    pub lone_table_freed_unflushed: bool,
    /// No bug: a gather of a whole address space asks for no flush unless it frees tables (arm64: the ASID is not used again
    /// before all is flushed).
    pub fullmm_is_not_flushed: bool,
    /// No bug: each page may be the last that a gather has room for (`tlb_next_batch()` finds none): the walk of the table is
    /// left, what was gathered is flushed and freed, and the walk goes on.
    pub batches_fill: bool,
    /// `free_pgtables()` takes a driver's VMA out of the reverse map before the flush (before b67fbebd4cf9).
    pub pfnmap_unlinked_unflushed: bool,
    /// The flush of freed tables is told by the last VMA whether instructions were fetched there, and then leaves the way to
    /// tables of executable memory cached (the series of 2021, on architectures that ask).
    pub table_flush_trusts_last_vma: bool,
}

impl EngineSpec {
    /// Whether user CPUs have more than TLBs that answer.
    pub const fn is_detailed(&self) -> bool {
        self.generations || self.switches || self.lazy || self.by_active_mm
    }
}

/// What to explore.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// CPUs on which threads of the process load and store at will.
    pub users: u8,
    /// The virtual pages, by address.
    pub pages: Vec<PageSpec>,
    /// The kernel threads.
    pub threads: Vec<ThreadSpec>,
    /// Threads that take page faults again and again, wherever the hardware would raise one.
    #[serde(default)]
    pub faults: u8,
    /// Page frames that can be allocated; what the operations need if not given.
    #[serde(default)]
    pub spare_frames: Option<u8>,
    /// Bugs of the flush engine.
    #[serde(default)]
    pub engine: EngineSpec,
    /// The pages are all that their PTE tables hold, so that tables are freed, moved and collapsed as a whole; else other
    /// pages around them keep the tables.
    #[serde(default)]
    pub whole_tables: bool,
    /// Another process maps the same pages, by the same tables (hugetlb).
    #[serde(default)]
    pub shared_tables: bool,
}

/// A VMA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmaInfo {
    /// Its address space.
    pub mm: u8,
    /// Anonymous or of a file.
    pub kind: Kind,
    /// Its virtual pages.
    pub pages: Vec<u8>,
    /// It is there at the start (a child's and a moved one are not).
    pub exists: bool,
}

/// A virtual page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualPage {
    /// Its address space.
    pub mm: u8,
    /// Its VMA.
    pub vma: u8,
    /// Its PTE table.
    pub table: u8,
    /// Its entry at the start.
    pub mapped: Mapped,
    /// The frames that it can map; the first is its own at the start, if any.
    pub frames: Vec<u8>,
    /// What it is called in traces.
    pub name: String,
    /// Mapped by an upper entry.
    pub huge: bool,
    /// Executable.
    pub exec: bool,
    /// Of a driver, without references.
    pub pfn: bool,
}

/// A page frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it holds.
    pub kind: Kind,
    /// Free at the start.
    pub is_spare: bool,
    /// A driver's, which entries map without references.
    pub pfn: bool,
}

/// What a thread works on.
#[expect(clippy::struct_excessive_bools, reason = "independent ways in which an operation is told from others")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thread {
    /// The program.
    pub program: ProgramName,
    /// What the caller called it.
    pub operation: String,
    /// Its virtual pages.
    pub range: Vec<u8>,
    /// mremap: where each goes; fork: the child's.
    pub target: Vec<u8>,
    /// mprotect: the pages stay writable. fault: a write.
    pub write: bool,
    /// mprotect: nothing may be done with the pages.
    pub none: bool,
    /// It takes faults, for ever.
    pub is_faulter: bool,
    /// It walks page tables without locks and takes pages (GUP-fast); its program is the explorer's own.
    pub is_walker: bool,
    /// After the program the pages leave the page cache (truncation).
    pub truncates: bool,
}

/// A scenario with every choice made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct World {
    /// User CPUs.
    pub users: u8,
    /// VMAs.
    pub vmas: Vec<VmaInfo>,
    /// The address space of each PTE table.
    pub tables: Vec<u8>,
    /// For each, the table that stands in its place at the start: none where mremap moves one to, that of another address
    /// space where tables are shared.
    pub table_at_start: Vec<Option<u8>>,
    /// A second address space maps all pages by the tables of the first.
    pub shared_tables: bool,
    /// Tables go and move as a whole.
    pub whole_tables: bool,
    /// Virtual pages, in address order within an address space.
    pub pages: Vec<VirtualPage>,
    /// Page frames.
    pub frames: Vec<Frame>,
    /// Kernel threads; those that take faults come last.
    pub threads: Vec<Thread>,
    /// Bugs of the flush engine.
    pub engine: EngineSpec,
}

/// The page number of the first virtual page: user space begins far above where memory ends.
const FIRST_VPN: u64 = 0x5_5555_5555;
/// The page number of the first frame.
const FIRST_PFN: u64 = 0x10_0000;

impl World {
    /// The virtual page at an address, in pages.
    pub fn page_at(&self, number: u64) -> Option<u8> {
        let index = number.checked_sub(FIRST_VPN)?;
        (index < self.pages.len() as u64).then_some(index as u8)
    }

    /// Where a frame lies in physical memory, in pages.
    pub const fn pfn(frame: u8) -> u64 {
        FIRST_PFN + frame as u64
    }
}

fn bad(message: impl std::fmt::Display) -> Error {
    Error::Value(format!("scenario: {message}"))
}

/// The operations by name: the programs of a kernel; truncation, which is one of them and a little more; and GUP-fast, which
/// flushes nothing and so is no program.
fn program_of(operation: &str) -> Result<(ProgramName, bool)> {
    if operation == GUP_FAST {
        return Ok((ProgramName::Custom, false));
    }
    if operation == "truncate" {
        return Ok((ProgramName::UnmapMappingRange, true));
    }
    ProgramName::parse(operation)
        .filter(|program| *program != ProgramName::Custom)
        .map(|program| (program, false))
        .ok_or_else(|| {
            bad(format!("found operation {operation}, expected truncate, gup_fast or a program of the kernel"))
        })
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// One line: what is wrong with the text.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| bad(error.to_string()))
    }

    /// Makes every choice that the scenario leaves open.
    ///
    /// # Errors
    /// One line: what cannot be.
    pub fn world(&self) -> Result<World> {
        let nr_pages = self.pages.len();
        if nr_pages == 0 || nr_pages > MAX_PAGES {
            return Err(bad(format!("found {nr_pages} pages, expected 1 to {MAX_PAGES}")));
        }
        if usize::from(self.users) > MAX_USERS {
            return Err(bad(format!("found {} users, expected at most {MAX_USERS}", self.users)));
        }
        if self.engine.is_detailed() && self.faults > 0 {
            return Err(bad(
                "found faults beside generations, which would rise for ever, expected the one or the other",
            ));
        }
        if self.faults > 0 && self.pages.iter().any(|page| page.pfn) {
            return Err(bad("found faults beside pages with pfn, expected the one or the other"));
        }
        if self.whole_tables && (self.engine.by_active_mm || self.engine.tlbi) {
            return Err(bad("found whole_tables beside by_active_mm or tlbi, expected the one or the other"));
        }
        let mut world = World {
            users: self.users,
            vmas: Vec::new(),
            tables: Vec::new(),
            table_at_start: Vec::new(),
            shared_tables: self.shared_tables,
            whole_tables: self.whole_tables,
            pages: Vec::new(),
            frames: Vec::new(),
            threads: Vec::new(),
            engine: self.engine,
        };
        for (index, page) in self.pages.iter().enumerate() {
            Self::add_page(&mut world, index, *page)?;
        }
        let nr_tables = world.tables.len() as u8;
        if self.shared_tables {
            Self::add_sharer(&mut world, self.whole_tables)?;
        }
        for table in 0..nr_tables {
            let pages = world.pages_of_table(table);
            if pages.len() > 1 && pages.iter().any(|page| world.pages[usize::from(*page)].huge) {
                return Err(bad(format!(
                    "table {table}: found {} pages, expected nothing beside a huge one",
                    pages.len()
                )));
            }
        }
        for spec in &self.threads {
            self.add_thread(&mut world, spec)?;
        }
        Self::add_merged_frames(&mut world);
        self.add_spare_frames(&mut world)?;
        for _ in 0..self.faults {
            world.threads.push(Thread {
                program: ProgramName::Fault,
                operation: "fault".to_owned(),
                range: (0..nr_pages as u8).collect(),
                target: Vec::new(),
                write: true,
                none: false,
                is_faulter: true,
                is_walker: false,
                truncates: false,
            });
        }
        if world.pages.len() > MAX_VIRTUAL_PAGES {
            return Err(bad(format!(
                "found {} virtual pages, expected at most {MAX_VIRTUAL_PAGES}",
                world.pages.len()
            )));
        }
        let home = |table: u8| {
            if self.shared_tables && (nr_tables..2 * nr_tables).contains(&table) { table - nr_tables } else { table }
        };
        world.table_at_start =
            (0..world.tables.len() as u8).map(|table| (!world.is_moved_to(table)).then(|| home(table))).collect();
        Ok(world)
    }

    fn add_page(world: &mut World, index: usize, page: PageSpec) -> Result<()> {
        let vma = usize::from(page.vma);
        if vma > world.vmas.len() || vma + 1 < world.vmas.len() {
            return Err(bad(format!("page {index}: found vma {vma}, expected them to be numbered in order")));
        }
        if vma == world.vmas.len() {
            world.vmas.push(VmaInfo { mm: 0, kind: page.kind, pages: Vec::new(), exists: true });
        }
        if world.vmas[vma].kind != page.kind {
            return Err(bad(format!("page {index}: found another kind than the rest of vma {vma}")));
        }
        let is_pfn = |other: &u8| world.pages[usize::from(*other)].pfn;
        if page.pfn && page.kind != Kind::File || world.vmas[vma].pages.iter().any(|other| is_pfn(other) != page.pfn) {
            return Err(bad(format!("page {index}: found pfn, expected it of file pages, and of all of a VMA")));
        }
        let table = usize::from(page.table);
        if table > world.tables.len() || table + 1 < world.tables.len() {
            return Err(bad(format!("page {index}: found table {table}, expected them to be numbered in order")));
        }
        if table == world.tables.len() {
            world.tables.push(0);
        }
        let frame = page.frame.map_or(world.frames.len(), usize::from);
        if frame > world.frames.len() {
            return Err(bad(format!("page {index}: found frame {frame}, expected at most {}", world.frames.len())));
        }
        if frame == world.frames.len() {
            world.frames.push(Frame { kind: page.kind, is_spare: false, pfn: page.pfn });
        }
        world.vmas[vma].pages.push(index as u8);
        world.pages.push(VirtualPage {
            mm: 0,
            vma: page.vma,
            table: page.table,
            mapped: page.mapped,
            frames: vec![frame as u8],
            name: format!("p{index}"),
            huge: page.huge,
            exec: page.exec,
            pfn: page.pfn,
        });
        Ok(())
    }

    /// The second process, whose pages are behind the same tables.
    fn add_sharer(world: &mut World, whole_tables: bool) -> Result<()> {
        if !whole_tables {
            return Err(bad("found shared_tables, expected whole_tables as well"));
        }
        let nr_vmas = world.vmas.len();
        let all: Vec<u8> = (0..world.pages.len() as u8).collect();
        add_copies(world, &all, 1, "c", true);
        world.vmas[nr_vmas..].iter_mut().for_each(|vma| vma.exists = true);
        Ok(())
    }

    fn add_thread(&self, world: &mut World, spec: &ThreadSpec) -> Result<()> {
        let (program, truncates) = program_of(&spec.operation)?;
        let nr_pages = self.pages.len() as u8;
        let end = spec.count.map_or(nr_pages, |count| spec.first.saturating_add(count));
        if spec.first >= end || end > nr_pages {
            let range = format!("pages {}..{end}", spec.first);
            return Err(bad(format!("{}: found {range}, expected them within 0..{nr_pages}", spec.operation)));
        }
        let range: Vec<u8> = (spec.first..end).collect();
        let runs_on_pfn = matches!(
            program,
            ProgramName::Munmap
                | ProgramName::Mmap
                | ProgramName::Mprotect
                | ProgramName::ExitMmap
                | ProgramName::UnmapMappingRange
        );
        if !runs_on_pfn && self.pages.iter().any(|page| page.pfn) {
            let expected = "expected munmap, mmap, mprotect, exit_mmap, unmap_mapping_range or truncate";
            return Err(bad(format!("{}: found pages with pfn, {expected}", spec.operation)));
        }
        if spec.none && (program != ProgramName::Mprotect || spec.write) {
            return Err(bad(format!("{}: found none, expected it for mprotect, without write", spec.operation)));
        }
        if spec.none && range.iter().any(|page| self.pages[usize::from(*page)].huge) {
            return Err(bad(format!("{}: found none on a huge page, expected small ones", spec.operation)));
        }
        let target = match program {
            ProgramName::Mremap => {
                add_copies(world, &range, 0, if spec.other_table { "'" } else { "*" }, spec.other_table)
            }
            ProgramName::Fork => add_copies(world, &(0..nr_pages).collect::<Vec<_>>(), 1, "c", true),
            _ => Vec::new(),
        };
        let range = if program == ProgramName::Fork { (0..nr_pages).collect() } else { range };
        world.threads.push(Thread {
            program,
            operation: spec.operation.clone(),
            range,
            target,
            write: spec.write,
            none: spec.none,
            is_faulter: false,
            is_walker: spec.operation == GUP_FAST,
            truncates,
        });
        Ok(())
    }

    /// The first page of a range is the one that KSM merges the others with; a copy of an entry may come to map it too.
    fn add_merged_frames(world: &mut World) {
        for thread in world.threads.iter().filter(|thread| thread.program == ProgramName::KsmMerge) {
            let own: Vec<u8> = thread.range.iter().map(|page| world.pages[usize::from(*page)].frames[0]).collect();
            for page in world.pages.iter_mut().filter(|page| own.contains(&page.frames[0])) {
                if !page.frames.contains(&own[0]) {
                    page.frames.push(own[0]);
                }
            }
        }
    }

    /// Spare frames for pages that can get a new one: one of its own for each page that migrates, one for each fault; or so
    /// many as the scenario says, for whoever comes first.
    fn add_spare_frames(&self, world: &mut World) -> Result<()> {
        let all: Vec<u8> = (0..self.pages.len() as u8).collect();
        let has_anon = self.pages.iter().any(|page| page.kind == Kind::Anon);
        let mut wanted: Vec<Vec<u8>> = Vec::new();
        for thread in &world.threads {
            match thread.program {
                ProgramName::MigratePages => wanted.extend(thread.range.iter().map(|page| vec![*page])),
                ProgramName::Fault if has_anon => wanted.push(thread.range.clone()),
                _ => {}
            }
        }
        if has_anon {
            wanted.extend((0..self.faults).map(|_| all.clone()));
        }
        if let Some(nr_spare) = self.spare_frames {
            wanted = vec![all; usize::from(nr_spare)];
        }
        if world.frames.len() + wanted.len() > MAX_FRAMES {
            let nr_frames = world.frames.len() + wanted.len();
            return Err(bad(format!("found {nr_frames} frames, expected at most {MAX_FRAMES}")));
        }
        for users in wanted {
            let spare = world.frames.len() as u8;
            let kind = self.pages[usize::from(users[0])].kind;
            world.frames.push(Frame { kind, is_spare: true, pfn: false });
            let own: Vec<u8> = users.iter().map(|page| world.pages[usize::from(*page)].frames[0]).collect();
            // Whoever else maps the same page maps the new one too.
            for page in &mut world.pages {
                if page.frames.iter().any(|frame| own.contains(frame)) {
                    page.frames.push(spare);
                }
            }
        }
        Ok(())
    }
}

impl World {
    /// The virtual pages of a PTE table's 2 MiB, by address.
    pub fn pages_of_table(&self, table: u8) -> Vec<u8> {
        (0..self.pages.len() as u8).filter(|page| self.pages[usize::from(*page)].table == table).collect()
    }

    /// Where a thread moves the whole of a table: mremap of all its pages to a place of their own.
    pub fn moves_whole(&self, thread: &Thread, table: u8) -> Option<u8> {
        if !self.whole_tables || thread.program != ProgramName::Mremap {
            return None;
        }
        let target_of = |page: &u8| thread.range.iter().position(|p| p == page).map(|index| thread.target[index]);
        let targets: Option<Vec<u8>> = self.pages_of_table(table).iter().map(target_of).collect();
        let targets = targets.filter(|targets| !targets.is_empty())?;
        let to = self.pages[usize::from(targets[0])].table;
        (to != table && self.pages_of_table(to) == targets).then_some(to)
    }

    /// The first page that the VMA of a page has in its table: what leaves the reverse map together.
    pub fn part_of(&self, page: u8) -> u8 {
        let info = &self.pages[usize::from(page)];
        let is_there = |other: &u8| self.pages[usize::from(*other)].vma == info.vma;
        self.pages_of_table(info.table).into_iter().find(is_there).unwrap_or(page)
    }

    /// The first page that a VMA has in each of its tables.
    pub fn parts_of_vma(&self, vma: u8) -> Vec<u8> {
        let pages = (0..self.pages.len() as u8).filter(|page| self.pages[usize::from(*page)].vma == vma);
        pages.filter(|page| self.part_of(*page) == *page).collect()
    }

    /// Some thread moves a whole table there.
    fn is_moved_to(&self, table: u8) -> bool {
        let tables = 0..self.tables.len() as u8;
        self.threads.iter().any(|thread| tables.clone().any(|from| self.moves_whole(thread, from) == Some(table)))
    }
}

/// Virtual pages without a mapping that take over what others map: a moved range, a child's address space.
fn add_copies(world: &mut World, range: &[u8], mm: u8, mark: &str, own_table: bool) -> Vec<u8> {
    let mut tables: Vec<(u8, u8)> = Vec::new();
    let mut vmas: Vec<(u8, u8)> = Vec::new();
    let mut copies = Vec::new();
    for &page in range {
        let from = world.pages[usize::from(page)].clone();
        let copy = world.pages.len() as u8;
        let table = if own_table || mm != from.mm {
            if let Some((_, new)) = tables.iter().find(|(old, _)| *old == from.table) {
                *new
            } else {
                world.tables.push(mm);
                tables.push((from.table, world.tables.len() as u8 - 1));
                world.tables.len() as u8 - 1
            }
        } else {
            from.table
        };
        let vma = if let Some((_, new)) = vmas.iter().find(|(old, _)| *old == from.vma) {
            *new
        } else {
            let kind = world.vmas[usize::from(from.vma)].kind;
            world.vmas.push(VmaInfo { mm, kind, pages: Vec::new(), exists: false });
            vmas.push((from.vma, world.vmas.len() as u8 - 1));
            world.vmas.len() as u8 - 1
        };
        world.vmas[usize::from(vma)].pages.push(copy);
        let name = format!("{}{mark}", from.name);
        world.pages.push(VirtualPage { mm, vma, table, mapped: Mapped::None, name, ..from });
        copies.push(copy);
    }
    copies
}
