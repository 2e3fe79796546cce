//! The numbers of frames: small ones, huge ones, the two zero pages; which are free.

use crate::addr::Pfn;

use super::Page;

/// The zero page (`ZERO_PAGE`).
pub const ZERO_PFN: Pfn = Pfn(0);
/// The huge zero page.
pub const HUGE_ZERO_PFN: Pfn = Pfn(512);
/// The first frame that is handed out.
pub(super) const FIRST_SMALL: u64 = 16;
/// Where huge frames begin.
pub(super) const FIRST_HUGE: u64 = 1 << 24;
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

/// One column of frames of a size, with its free list.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    pub(super) slots: Vec<Option<Page>>,
    pub(super) free: Vec<u32>,
}

impl Frames {
    pub(super) fn put(&mut self, page: Page) -> usize {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(page);
            return index as usize;
        }
        self.slots.push(Some(page));
        self.slots.len() - 1
    }
}

/// Small frames leave out the numbers of the huge zero page.
pub(super) const fn small_pfn(index: usize) -> Pfn {
    let pfn = index as u64 + FIRST_SMALL;
    Pfn(if pfn < HUGE_ZERO_PFN.0 { pfn } else { pfn + HUGE_PAGES })
}

pub(super) const fn small_index(pfn: Pfn) -> usize {
    (if pfn.0 < HUGE_ZERO_PFN.0 { pfn.0 - FIRST_SMALL } else { pfn.0 - HUGE_PAGES - FIRST_SMALL }) as usize
}
