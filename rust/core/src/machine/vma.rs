//! Virtual memory areas of one mm, and the tree that keeps them in order (`struct vm_area_struct`, mm/vma.c).
//!
//! Invariant: the areas of a tree are page aligned, not empty, disjoint and sorted by address; two neighbours that could
//! be one are joined by whoever changed them (merging is a step of an operation, not a property of the tree).
//!
//! Not here: page tables, locks, the reverse map. Detaching an area touches no PTE.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;

use crate::addr::{PAGE_SHIFT, VaRange, VirtAddr};
use crate::page_table::Prot;

use super::pages::FileId;

bitflags! {
    /// `vm_flags` (include/linux/mm.h, where the numbers fit).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct VmFlags: u32 {
        /// Readable.
        const READ = 0x1;
        /// Writable.
        const WRITE = 0x2;
        /// Executable.
        const EXEC = 0x4;
        /// Changes are shared with every other mapping of the same pages.
        const SHARED = 0x8;
        /// A stack: faults below the start extend it.
        const GROWSDOWN = 0x100;
        /// Frames without pages behind them (the kernel's own data for the vDSO): fork copies such areas.
        const PFNMAP = 0x400;
        /// Pages stay in memory (`mlock`).
        const LOCKED = 0x2000;
        /// Read from front to back (`MADV_SEQUENTIAL`).
        const SEQ_READ = 0x8000;
        /// Read in no order (`MADV_RANDOM`).
        const RAND_READ = 0x1_0000;
        /// Not inherited by `fork` (`MADV_DONTFORK`).
        const DONTCOPY = 0x2_0000;
        /// Empty in the child of a `fork` (`MADV_WIPEONFORK`).
        const WIPEONFORK = 0x200_0000;
        /// Private and writable since it was mapped, or once: its pages are accounted for.
        const ACCOUNT = 0x10_0000;
        /// Not in a core dump (`MADV_DONTDUMP`).
        const DONTDUMP = 0x400_0000;
        /// Created or moved since soft-dirty bits were cleared last.
        const SOFTDIRTY = 0x0800_0000;
        /// `MADV_HUGEPAGE`.
        const HUGEPAGE = 0x2000_0000;
        /// `MADV_NOHUGEPAGE`.
        const NOHUGEPAGE = 0x4000_0000;
        /// Equal pages may be merged (`MADV_MERGEABLE`).
        const MERGEABLE = 0x8000_0000;
    }
}

impl VmFlags {
    /// The rights that `mmap` and `mprotect` set (`VM_ACCESS_FLAGS`).
    pub const ACCESS: Self = Self::READ.union(Self::WRITE).union(Self::EXEC);

    /// Those of a new mapping: private writable memory is accounted for (mm/vma.c:`accountable_mapping`).
    #[must_use]
    pub fn accounted(self) -> Self {
        if self & (Self::SHARED | Self::WRITE) == Self::WRITE { self | Self::ACCOUNT } else { self }
    }
}

/// The head of the reverse map of an area's anonymous pages (`struct anon_vma`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnonVma {
    /// Areas with the same one may be merged, those with different ones not.
    pub id: u32,
    /// fork made the area from another, so that it has the parent's in its chain too (`anon_vma_chain` is not singular).
    pub cloned: bool,
}

/// One area of an address space: a range of bytes with the same rights and the same backing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vma {
    /// First byte, page aligned.
    pub start: VirtAddr,
    /// Byte after the last, page aligned.
    pub end: VirtAddr,
    /// Rights and advice.
    pub flags: VmFlags,
    /// The file mapped; none for anonymous private memory.
    pub file: Option<FileId>,
    /// Page of the file at `start`; for anonymous memory `start >> 12` at creation.
    pub pgoff: u64,
    /// Where the reverse map of anonymous pages begins (`vma->anon_vma`), if there ever were any: fork copies such areas.
    pub anon_vma: Option<AnonVma>,
    /// The generation that completes the deferred flushes of this area (consolidated schemes only).
    pub defer_gen: u64,
    /// Its place among areas that begin with the same page, in walks of the reverse map.
    pub born: Birth,
}

/// When an area came, for the last time, into the interval trees of the reverse map: at its making and at each change of
/// its ends. Of areas that begin with the same page a walk meets first the one that came first; but fork puts the child's area
/// of a file right behind the parent's (mm/interval_tree.c:`vma_interval_tree_insert_after`). Only the order means something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Birth {
    /// In the tree of its anonymous memory.
    pub of_anon: u64,
    /// In that of its file: its first forebear's, and how late before the end of time it and its parent were forked.
    pub of_file: (u64, u64, u64),
}

/// Counts births, of all machines: within one they only grow.
static NR_BIRTHS: AtomicU64 = AtomicU64::new(1);

impl Birth {
    fn now() -> Self {
        let at = NR_BIRTHS.fetch_add(1, Ordering::Relaxed);
        Self { of_anon: at, of_file: (at, 0, 0) }
    }

    /// That of a child's area. More than two generations are not told apart.
    fn forked(self) -> Self {
        let at = NR_BIRTHS.fetch_add(1, Ordering::Relaxed);
        let of_file = match self.of_file {
            (first, 0, _) => (first, u64::MAX - at, 0),
            (first, parent, 0) => (first, parent, u64::MAX - at),
            deeper => deeper,
        };
        Self { of_anon: at, of_file }
    }
}

impl Vma {
    /// A new area; soft-dirty as each new mapping is (mm/vma.c:`__mmap_complete`).
    pub fn new(range: VaRange, flags: VmFlags, file: Option<FileId>, pgoff: u64) -> Self {
        Self {
            start: range.start,
            end: range.end,
            flags: flags | VmFlags::SOFTDIRTY,
            file,
            pgoff,
            anon_vma: None,
            defer_gen: 0,
            born: Birth::default(),
        }
    }

    /// The bytes of the area.
    #[inline]
    pub const fn range(&self) -> VaRange {
        VaRange::new(self.start, self.end)
    }

    /// The file's page that stands at `addr`, or the same count for anonymous memory (`linear_page_index`).
    #[inline]
    pub const fn index_of(&self, addr: VirtAddr) -> u64 {
        self.pgoff + ((addr.0 - self.start.0) >> PAGE_SHIFT)
    }

    /// Anonymous private memory (`vma_is_anonymous`).
    #[inline]
    pub const fn is_anonymous(&self) -> bool {
        self.file.is_none()
    }

    /// `VM_SHARED` is set.
    #[inline]
    pub const fn is_shared(&self) -> bool {
        self.flags.contains(VmFlags::SHARED)
    }

    /// `VM_WRITE` is set.
    #[inline]
    pub const fn is_writable(&self) -> bool {
        self.flags.contains(VmFlags::WRITE)
    }

    /// `vma->vm_page_prot`; `real_file` says that [`Self::file`] is not shmem: its shared mappings start without W, so that
    /// the first write is seen, and so do all shared ones whose soft-dirty bits are tracked (`vma_wants_writenotify`).
    pub fn page_prot(&self, real_file: bool) -> Prot {
        let has = |flag| self.flags.contains(flag);
        let writes_through = self.is_shared() && !real_file && has(VmFlags::SOFTDIRTY);
        Prot::vm_page_prot(has(VmFlags::READ), has(VmFlags::WRITE), has(VmFlags::EXEC), writes_through)
    }

    /// Whether `next` continues this area, as far as they may differ in `but`.
    fn continues(&self, next: &Self, but: VmFlags) -> bool {
        self.end == next.start
            && (self.flags ^ next.flags).difference(but | VmFlags::SOFTDIRTY).is_empty()
            && self.file == next.file
            && self.index_of(self.end) == next.pgoff
    }

    /// Whether `changed`, which was changed just now, can be one with its neighbour `self` as far as their anonymous pages
    /// go (`is_mergeable_anon_vma`); `either` says that it does not matter which of them has some (v6.16).
    fn takes_in(&self, changed: &Self, either: bool) -> bool {
        match (self.anon_vma, changed.anon_vma) {
            (None, None) => true,
            (Some(own), None) => !own.cloned,
            (None, Some(other)) => either && !other.cloned,
            (Some(own), Some(other)) => own.id == other.id,
        }
    }
}

/// The areas of one mm.
#[derive(Clone, Debug, Default)]
pub struct VmaTree {
    by_start: BTreeMap<VirtAddr, Vma>,
}

impl VmaTree {
    /// How many areas there are (`mm->map_count`).
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// All areas by address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.by_start.values()
    }

    /// The area that holds `addr` (`vma_lookup`).
    #[inline]
    pub fn lookup(&self, addr: VirtAddr) -> Option<&Vma> {
        let (_, vma) = self.by_start.range(..=addr).next_back()?;
        (addr < vma.end).then_some(vma)
    }

    /// The first area with `end > addr` (`find_vma`).
    #[inline]
    pub fn find(&self, addr: VirtAddr) -> Option<&Vma> {
        self.lookup(addr).or_else(|| self.by_start.range(addr..).next().map(|(_, vma)| vma))
    }

    /// The last area with `start < addr`.
    pub fn find_before(&self, addr: VirtAddr) -> Option<&Vma> {
        self.by_start.range(..addr).next_back().map(|(_, vma)| vma)
    }

    /// The areas that share a byte with `range`, by address.
    pub fn overlapping(&self, range: VaRange) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.end, |vma| vma.start);
        // An empty range must not reach the map, which refuses a range that ends before it starts.
        self.by_start
            .range(first..first.max(range.end))
            .map(|(_, vma)| vma)
            .filter(move |vma| !range.is_empty() && vma.start < range.end)
    }

    /// Whether no area shares a byte with `range`.
    pub fn is_free(&self, range: VaRange) -> bool {
        self.overlapping(range).next().is_none()
    }

    /// Inserts an area over free space.
    pub fn insert(&mut self, vma: Vma) {
        debug_assert!(self.is_free(vma.range()), "areas overlap at {}", vma.start);
        self.by_start.insert(vma.start, Vma { born: Birth::now(), ..vma });
    }

    /// Inserts the copy of a parent's area over free space.
    pub fn insert_forked(&mut self, vma: Vma) {
        debug_assert!(self.is_free(vma.range()), "areas overlap at {}", vma.start);
        self.by_start.insert(vma.start, Vma { born: vma.born.forked(), ..vma });
    }

    /// Replaces the area that starts where `vma` does; used to change flags and marks in place.
    pub fn update(&mut self, vma: Vma) {
        let old = self.by_start.insert(vma.start, vma);
        debug_assert!(old.is_some_and(|old| old.end == vma.end), "no area {:?} to update", vma.range());
    }

    /// Splits the area that holds `addr` inside, so that one starts there (`split_vma`).
    pub fn split_at(&mut self, addr: VirtAddr) {
        let Some(left) = self.lookup(addr).copied().filter(|vma| vma.start < addr) else {
            return;
        };
        let right = Vma { start: addr, pgoff: left.index_of(addr), born: Birth::now(), ..left };
        self.by_start.insert(left.start, Vma { end: addr, born: Birth::now(), ..left });
        self.by_start.insert(addr, right);
    }

    /// Takes the parts of areas inside `range` out of the tree, by address (`vms_gather_munmap_vmas`).
    pub fn detach(&mut self, range: VaRange, into: &mut Vec<Vma>) {
        self.split_at(range.start);
        self.split_at(range.end);
        let first = into.len();
        into.extend(self.overlapping(range).copied());
        for vma in &into[first..] {
            self.by_start.remove(&vma.start);
        }
    }

    /// Joins the area that starts at `start` with its neighbours, where they fit; returns the result. If both fit but have
    /// anonymous pages of different origin, with the left one. `either`: see `Vma::takes_in`.
    ///
    /// There must be such an area.
    pub fn merge_at(&mut self, start: VirtAddr, either: bool) -> Vma {
        let mut vma = self.by_start[&start];
        let fits = |left: &Vma, right: &Vma| left.continues(right, VmFlags::empty());
        let left = self.find_before(start).copied().filter(|left| fits(left, &vma) && left.takes_in(&vma, either));
        let right = self.by_start.get(&vma.end).copied();
        let right = right.filter(|right| fits(&vma, right) && right.takes_in(&vma, either));
        let agree = |left: &Vma, right: &Vma| match (left.anon_vma, right.anon_vma) {
            (Some(left), Some(right)) => left.id == right.id,
            _ => true,
        };
        let right = right.filter(|right| left.is_none_or(|left| agree(&left, right)));
        if let Some(left) = left {
            self.by_start.remove(&start);
            vma = join(&left, &vma);
        }
        if let Some(right) = right {
            self.by_start.remove(&right.start);
            vma = join(&vma, &right);
        }
        self.by_start.insert(vma.start, vma);
        vma
    }

    /// The head of a neighbour's reverse map that the area at `start` can have too (`find_mergeable_anon_vma`).
    pub fn mergeable_anon_vma(&self, start: VirtAddr) -> Option<AnonVma> {
        let vma = self.by_start.get(&start)?;
        let reusable = |near: &Vma| near.anon_vma.filter(|anon_vma| !anon_vma.cloned);
        let next = self.by_start.get(&vma.end).filter(|next| vma.continues(next, VmFlags::ACCESS));
        let before = self.find_before(start).filter(|before| before.continues(vma, VmFlags::ACCESS));
        next.and_then(reusable).or_else(|| before.and_then(reusable))
    }

    /// Moves the start of the area at `start` down to `new_start`, over free space (`expand_downwards`).
    pub fn expand_down(&mut self, start: VirtAddr, new_start: VirtAddr) -> Option<Vma> {
        let old = self.by_start.remove(&start)?;
        let pages = (start.0 - new_start.0) >> PAGE_SHIFT;
        let vma = Vma { start: new_start, pgoff: old.pgoff.saturating_sub(pages), born: Birth::now(), ..old };
        self.by_start.insert(new_start, vma);
        Some(vma)
    }

    /// Moves the end of the area at `start` up to `new_end`, over free space (`vma_expand`).
    pub fn expand_up(&mut self, start: VirtAddr, new_end: VirtAddr) -> Option<Vma> {
        let vma = self.by_start.get_mut(&start)?;
        vma.end = new_end;
        vma.born = Birth::now();
        Some(*vma)
    }

    /// The highest free range of `len` bytes that ends at or below `top` and does not reach below `bottom`
    /// (`arch_get_unmapped_area_topdown`).
    pub fn find_gap_topdown(&self, len: u64, bottom: VirtAddr, top: VirtAddr) -> Option<VirtAddr> {
        let mut gap_end = top;
        for vma in self.by_start.range(..top).rev().map(|(_, vma)| vma) {
            let gap_start = vma.end.max(bottom);
            if gap_end.0.saturating_sub(gap_start.0) >= len {
                return Some(VirtAddr(gap_end.0 - len));
            }
            gap_end = gap_end.min(vma.start);
        }
        (gap_end.0.saturating_sub(bottom.0) >= len).then(|| VirtAddr(gap_end.0 - len))
    }
}

fn join(left: &Vma, right: &Vma) -> Vma {
    Vma {
        end: right.end,
        born: Birth::now(),
        flags: left.flags | right.flags,
        anon_vma: left.anon_vma.or(right.anon_vma),
        defer_gen: left.defer_gen.max(right.defer_gen),
        ..*left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 1 << PAGE_SHIFT;

    fn pages(start: u64, end: u64) -> VaRange {
        VaRange::new(VirtAddr(start * PAGE), VirtAddr(end * PAGE))
    }

    fn anon(start: u64, end: u64) -> Vma {
        Vma::new(pages(start, end), VmFlags::READ, None, start)
    }

    fn ranges(tree: &VmaTree) -> Vec<(u64, u64)> {
        tree.iter().map(|vma| (vma.start.0 / PAGE, vma.end.0 / PAGE)).collect()
    }

    #[test]
    fn neighbours_merge_if_nothing_tells_them_apart() {
        let mut tree = VmaTree::default();
        for (start, end) in [(0, 4), (8, 12), (4, 8)] {
            tree.insert(anon(start, end));
        }
        assert_eq!(tree.merge_at(VirtAddr(4 * PAGE), false).range(), pages(0, 12));
        tree.insert(Vma { pgoff: 99, ..anon(12, 13) });
        assert_eq!(tree.merge_at(VirtAddr(12 * PAGE), false).range(), pages(12, 13));
        tree.insert(Vma { flags: VmFlags::READ | VmFlags::WRITE, ..anon(20, 21) });
        tree.insert(anon(21, 22));
        assert_eq!(tree.merge_at(VirtAddr(21 * PAGE), false).range(), pages(21, 22));
    }

    #[test]
    fn soft_dirty_tells_no_areas_apart() {
        let mut tree = VmaTree::default();
        let anon_vma = Some(AnonVma { id: 1, cloned: false });
        tree.insert(Vma { flags: VmFlags::READ, ..anon(0, 1) });
        tree.insert(Vma { anon_vma, defer_gen: 7, ..anon(1, 2) });
        let joined = tree.merge_at(VirtAddr(0), false);
        assert_eq!(joined.flags, VmFlags::READ | VmFlags::SOFTDIRTY);
        assert_eq!((joined.anon_vma, joined.defer_gen), (anon_vma, 7));
    }

    /// Three areas in a row with these heads; the middle one was changed. How many are left?
    fn nr_after_merge(heads: [Option<(u32, bool)>; 3], either: bool) -> usize {
        let mut tree = VmaTree::default();
        for (page, head) in (0..).zip(heads) {
            let anon_vma = head.map(|(id, cloned)| AnonVma { id, cloned });
            tree.insert(Vma { anon_vma, ..anon(page, page + 1) });
        }
        tree.merge_at(VirtAddr(PAGE), either);
        tree.len()
    }

    #[test]
    fn anonymous_pages_of_different_origin_tell_areas_apart() {
        let (one, two, cloned) = (Some((1, false)), Some((2, false)), Some((1, true)));
        assert_eq!(nr_after_merge([one, None, one], false), 1);
        assert_eq!(nr_after_merge([one, None, two], false), 2, "with the left one");
        assert_eq!(nr_after_merge([one, one, two], false), 2);
        assert_eq!(nr_after_merge([cloned, None, None], false), 2, "a child's area does not grow");
        assert_eq!(nr_after_merge([None, one, None], false), 3);
        assert_eq!(nr_after_merge([None, one, None], true), 1, "since 6.16");
        assert_eq!(nr_after_merge([None, cloned, None], true), 3);
    }

    #[test]
    fn neighbours_share_the_head_of_the_reverse_map() {
        let mut tree = VmaTree::default();
        let anon_vma = Some(AnonVma { id: 1, cloned: false });
        tree.insert(Vma { flags: VmFlags::READ | VmFlags::WRITE, anon_vma, ..anon(0, 1) });
        tree.insert(anon(1, 2));
        assert_eq!(tree.mergeable_anon_vma(VirtAddr(PAGE)), anon_vma);
        tree.insert(Vma { pgoff: 9, ..anon(2, 3) });
        assert_eq!(tree.mergeable_anon_vma(VirtAddr(2 * PAGE)), None);
    }

    #[test]
    fn a_split_part_keeps_its_place_in_the_file() {
        let mut tree = VmaTree::default();
        tree.insert(Vma { pgoff: 100, file: Some(FileId(1)), ..anon(10, 20) });
        let mut taken = Vec::new();
        tree.detach(pages(12, 15), &mut taken);
        assert_eq!(ranges(&tree), [(10, 12), (15, 20)]);
        assert_eq!(taken[0].pgoff, 102);
        assert_eq!(tree.lookup(VirtAddr(16 * PAGE)).map(|vma| vma.index_of(VirtAddr(16 * PAGE))), Some(106));
    }

    #[test]
    fn gaps_are_found_from_the_top() {
        let mut tree = VmaTree::default();
        for (start, end) in [(10, 20), (24, 30), (31, 40)] {
            tree.insert(anon(start, end));
        }
        let find = |nr_pages, top| {
            let found = tree.find_gap_topdown(nr_pages * PAGE, VirtAddr(2 * PAGE), VirtAddr(top * PAGE));
            found.map(|addr| addr.0 / PAGE)
        };
        assert_eq!(find(1, 50), Some(49));
        assert_eq!(find(1, 40), Some(30));
        assert_eq!(find(3, 40), Some(21));
        assert_eq!(find(8, 40), Some(2));
        assert_eq!(find(9, 40), None);
        assert_eq!(find(1, 35), Some(30), "an area over the top leaves nothing there");
    }

    #[test]
    fn protection_bits_follow_the_kernel() {
        let with = |flags, real| Vma { flags, ..anon(0, 1) }.page_prot(real);
        let shared = VmFlags::READ | VmFlags::WRITE | VmFlags::SHARED;
        assert_eq!(with(VmFlags::empty(), false), Prot::NONE);
        assert_eq!(with(VmFlags::READ | VmFlags::WRITE, false), Prot::READONLY);
        assert_eq!(with(shared | VmFlags::SOFTDIRTY, false), Prot::SHARED);
        assert_eq!(with(shared, false), Prot::READONLY, "soft-dirty bits are tracked here");
        assert_eq!(with(shared | VmFlags::SOFTDIRTY, true), Prot::READONLY);
        assert_eq!(with(VmFlags::READ | VmFlags::EXEC, false), Prot::READONLY_EXEC);
    }

    proptest! {
        /// Like an array with one cell per page: what is mapped, found, free and taken out.
        #[test]
        fn like_an_array_of_pages(ops in prop::collection::vec((0_u8..4, 0_u64..40, 1_u64..12), 1..60)) {
            let mut tree = VmaTree::default();
            let mut model = [false; 64];
            for (kind, start, len) in ops {
                let end = start + len;
                let cells = start as usize..end as usize;
                let range = pages(start, end);
                prop_assert_eq!(tree.is_free(range), model[cells.clone()].iter().all(|mapped| !mapped));
                match kind {
                    0 | 1 if tree.is_free(range) => {
                        tree.insert(anon(start, end));
                        model[cells].fill(true);
                        if kind == 1 {
                            tree.merge_at(range.start, false);
                        }
                    }
                    2 => {
                        let mut taken = Vec::new();
                        tree.detach(range, &mut taken);
                        let nr_taken: u64 = taken.iter().map(|vma| vma.range().len_bytes() / PAGE).sum();
                        prop_assert_eq!(nr_taken, model[cells.clone()].iter().filter(|mapped| **mapped).count() as u64);
                        model[cells].fill(false);
                    }
                    _ => tree.split_at(range.start),
                }
                for page in 0..64 {
                    let found = tree.lookup(VirtAddr(page * PAGE + 5));
                    prop_assert_eq!(found.is_some(), model[page as usize]);
                    let next = (page..64).find(|page| model[*page as usize]);
                    let first = tree.find(VirtAddr(page * PAGE)).map(|vma| (vma.start.0 / PAGE).max(page));
                    prop_assert_eq!(first, next);
                }
                prop_assert!(tree.iter().all(|vma| vma.start < vma.end && vma.pgoff == vma.start.0 / PAGE));
            }
        }
    }
}
