//! From what the caller wrote to a world: every choice that the scenario leaves open is made, what cannot be is refused.

use crate::error::Result;
use crate::program::ProgramName;

use super::world::{Frame, Thread, VirtualPage, VmaInfo, World};
use super::{Kind, MAX_FRAMES, MAX_PAGES, MAX_USERS, MAX_VIRTUAL_PAGES, Mapped, PageSpec, Scenario, ThreadSpec, bad};

/// The operation that walks without locks.
const GUP_FAST: &str = "gup_fast";

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
        // With `batches_fill` a walk leaves its table and comes back to one that may be another: such walks have no end here.
        if self.whole_tables && (self.engine.by_active_mm || self.engine.tlbi || self.engine.batches_fill) {
            let message = "found whole_tables beside by_active_mm, tlbi or batches_fill, expected the one or the other";
            return Err(bad(message));
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
