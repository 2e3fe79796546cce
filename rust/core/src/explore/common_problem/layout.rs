//! Where each variable stands in the words of a state.
//!
//! Control comes first, then one lane for each page: nine bits of the page, and the TLB entry of each user CPU in `E` bits. All
//! of it is in one word where there is room (2 user CPUs with 3 pages and entries of two bits fill it); else control is word 0,
//! the lanes are in the others, and no lane straddles two words.
//!
//! No state is vacant: while neither kernel thread is past its first step, every page is present.

use super::Options;

/// The model at one size: `U` user CPUs and `P` pages in `W` words, entries of `E` bits; so that every loop over them is
/// unrolled.
///
/// An entry of three bits is a thermometer (invalid `000`, read-only `001`, writable clean `011`, writable dirty `111`), in which
/// more means inclusion of bits, as saturation asks for. One of two bits counts the same from 0 to 3.
#[derive(Clone, Copy, Debug)]
pub struct CommonProblem<const U: usize, const P: usize, const W: usize, const E: usize> {
    pub(super) options: Options,
}

/// The state.
pub(super) type Words<const W: usize> = [u64; W];

// The page's bits. P, W, D and A are those of its one PTE.
pub(super) const PRESENT: u64 = 1 << 0;
pub(super) const WRITE: u64 = 1 << 1;
pub(super) const DIRTY: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 3;
pub(super) const PTE: u64 = PRESENT | WRITE | DIRTY | ACCESSED;
/// The page is mapped as far as rmap knows.
pub(super) const RMAP: u64 = 1 << 4;
/// The mapping's reference to the page.
pub(super) const MAP_REF: u64 = 1 << 5;
/// The page cache's reference.
pub(super) const CACHE_REF: u64 = 1 << 6;
/// `PG_dirty`.
pub(super) const PAGE_DIRTY: u64 = 1 << 7;
/// Ghost: the page's data are newer than storage. Monotone, like the TLB entries above it.
pub(super) const NEWER: u64 = 1 << 8;
/// The first bit of the TLB entries.
pub(super) const TLB: usize = 9;

/// A variable of the control word: `width` bits from `shift`.
#[derive(Clone, Copy)]
pub(super) struct Field {
    shift: u32,
    width: u32,
}

impl Field {
    const fn new(shift: u32, width: u32) -> Self {
        Self { shift, width }
    }

    /// One of so many values, behind this field.
    const fn then(self, values: usize) -> Self {
        Self { shift: self.shift + self.width, width: usize::BITS - (values - 1).leading_zeros() }
    }

    const fn mask(self) -> u64 {
        (1 << self.width) - 1
    }

    #[inline]
    pub(super) const fn get<const W: usize>(self, state: &Words<W>) -> u64 {
        state[0] >> self.shift & self.mask()
    }

    #[inline]
    pub(super) const fn set<const W: usize>(self, state: &mut Words<W>, value: u64) {
        state[0] = state[0] & !(self.mask() << self.shift) | value << self.shift;
    }
}

pub(super) const UNMAP_PC: Field = Field::new(0, 4);
/// `tlb->force_flush`, or for `mprotect` that something changed.
pub(super) const UNMAP_FLUSH: Field = Field::new(4, 1);
pub(super) const CLEAN_PC: Field = Field::new(5, 4);
/// The cleaner found the PTE dirty.
pub(super) const CLEAN_DIRTY: Field = Field::new(9, 1);
/// `tlb_ubc->writable`.
pub(super) const BATCH_WRITABLE: Field = Field::new(10, 1);
/// `tlb_ubc->flush_required`.
pub(super) const BATCH_REQUIRED: Field = Field::new(11, 1);
/// `mm->tlb_flush_batched`.
pub(super) const MM_BATCHED: Field = Field::new(12, 1);

/// The fields whose width depends on the size, and where the lanes begin if they share the word.
#[derive(Clone, Copy)]
struct Sized {
    unmap_page: Field,
    clean_page: Field,
    ptl_of: Field,
    ptl_step: Field,
    unmap_ipis: Field,
    clean_ipis: Field,
}

const fn sized(users: usize, pages: usize) -> Sized {
    let unmap_page = MM_BATCHED.then(pages);
    let clean_page = unmap_page.then(pages);
    // Three values of the kernel, or a page and the unlocking.
    let ptl_step = clean_page.then(if pages < 2 { 3 } else { pages + 1 });
    let ptl_of = ptl_step.then(users + 1);
    let unmap_ipis = ptl_of.then(1 << users);
    Sized { unmap_page, clean_page, ptl_of, ptl_step, unmap_ipis, clean_ipis: unmap_ipis.then(1 << users) }
}

/// Bits of control.
const fn control(users: usize, pages: usize) -> usize {
    let last = sized(users, pages).clean_ipis;
    (last.shift + last.width) as usize
}

/// Words that a state of this size needs.
pub const fn words(users: usize, pages: usize, entry_bits: usize) -> usize {
    let lane = TLB + entry_bits * users;
    if control(users, pages) + pages * lane <= 64 { 1 } else { 1 + pages.div_ceil(64 / lane) }
}

/// Who holds the page-table lock: nobody,
pub(super) const PTL_FREE: u64 = 0;
/// the unmapper,
pub(super) const PTL_UNMAP: u64 = 1;
/// the cleaner, or else a write fault: see [`CommonProblem::in_fault`].
pub(super) const PTL_CLEAN: u64 = 2;

impl<const U: usize, const P: usize, const W: usize, const E: usize> CommonProblem<U, P, W, E> {
    pub(super) const UNMAP_PAGE: Field = sized(U, P).unmap_page;
    pub(super) const CLEAN_PAGE: Field = sized(U, P).clean_page;
    /// The page-table lock, with what the write fault that holds it has done: there is one at most.
    pub(super) const PTL: Field = {
        let (step, of) = (sized(U, P).ptl_step, sized(U, P).ptl_of);
        Field::new(step.shift, step.width + of.width)
    };
    const PTL_STEP: Field = sized(U, P).ptl_step;
    const PTL_OF: Field = sized(U, P).ptl_of;
    /// CPUs with an IPI of the unmapper under way, by bits.
    pub(super) const UNMAP_IPIS: Field = sized(U, P).unmap_ipis;
    /// The same of the cleaner.
    pub(super) const CLEAN_IPIS: Field = sized(U, P).clean_ipis;

    // The entry of one CPU, after a shift by `Self::entry`.
    pub(super) const READ_ONLY: u64 = 1;
    pub(super) const WRITABLE_DIRTY: u64 = (1 << E) - 1;
    /// All its bits.
    pub(super) const ENTRY: u64 = (1 << E) - 1;

    pub(super) const LANE: usize = TLB + E * U;
    /// The first word with lanes, and where they begin.
    pub(super) const FIRST: usize = if W == 1 { 0 } else { 1 };
    const BEGIN: usize = if W == 1 { control(U, P) } else { 0 };
    const PER_WORD: usize = if W == 1 { P } else { 64 / Self::LANE };
    pub(super) const LANE_MASK: u64 = (1 << Self::LANE) - 1;
    pub(super) const ALL_CPUS: u64 = (1 << U) - 1;
    /// The handler's last step, in [`Self::fault`].
    pub(super) const FAULT_UNLOCK: u64 = P as u64 + 1;

    /// The model; the size in `options` must be that of the type.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn new(options: Options) -> Self {
        const { assert!(W == words(U, P, E) && (E == 2 || E == 3) && U >= 1 && P >= 1 && control(U, P) <= 64) };
        assert_eq!((options.users, options.pages), (U, P), "the size of the options is not that of the type");
        Self { options }
    }

    #[inline]
    pub(super) fn start() -> Words<W> {
        Self::every(PRESENT | WRITE | RMAP | MAP_REF | CACHE_REF)
    }

    /// `bits` in the lane of every page.
    pub(super) const fn every(bits: u64) -> Words<W> {
        let mut all = [0; W];
        let mut page = 0;
        while page < P {
            let (word, shift) = Self::place(page);
            all[word] |= bits << shift;
            page += 1;
        }
        all
    }

    /// The word and the shift of a page's lane.
    #[inline]
    pub(super) const fn place(page: usize) -> (usize, usize) {
        if W <= 2 {
            (Self::FIRST, Self::BEGIN + page * Self::LANE)
        } else {
            (1 + page / Self::PER_WORD, page % Self::PER_WORD * Self::LANE)
        }
    }

    /// The first bit of a CPU's entry in a lane.
    #[inline]
    pub(super) const fn entry(cpu: usize) -> usize {
        TLB + E * cpu
    }

    #[inline]
    pub(super) fn lane(state: &Words<W>, page: usize) -> u64 {
        let (word, shift) = Self::place(page);
        state[word] >> shift & Self::LANE_MASK
    }

    #[inline]
    pub(super) fn has(state: &Words<W>, page: usize, bits: u64) -> bool {
        Self::lane(state, page) & bits != 0
    }

    #[inline]
    pub(super) fn set(state: &mut Words<W>, page: usize, bits: u64) {
        let (word, shift) = Self::place(page);
        state[word] |= bits << shift;
    }

    #[inline]
    pub(super) fn clear(state: &mut Words<W>, page: usize, bits: u64) {
        let (word, shift) = Self::place(page);
        state[word] &= !(bits << shift);
    }

    #[inline]
    pub(super) fn clear_every(state: &mut Words<W>, bits: u64) {
        let all = Self::every(bits);
        for word in Self::FIRST..W {
            state[word] &= !all[word];
        }
    }

    #[inline]
    pub(super) fn any_has(state: &Words<W>, bits: u64) -> bool {
        let all = Self::every(bits);
        (Self::FIRST..W).any(|word| state[word] & all[word] != 0)
    }

    /// What [`Self::PTL`] is while this CPU's fault handler, which holds it, is at `step` of [`Self::fault`].
    #[inline]
    pub(super) const fn in_fault(cpu: usize, step: u64) -> u64 {
        (step - 1) | (cpu as u64 + 1) << Self::PTL_STEP.width
    }

    /// The write fault that a CPU is in: 0 none, `page + 1` its locks are taken, [`Self::FAULT_UNLOCK`] the PTE is set.
    #[inline]
    pub(super) fn fault(state: &Words<W>, cpu: usize) -> u64 {
        if Self::is_in_user_mode(state, cpu) { 0 } else { Self::PTL_STEP.get(state) + 1 }
    }

    /// The CPU that is in a write fault, and at which step.
    #[inline]
    pub(super) fn faulting(state: &Words<W>) -> Option<(usize, u64)> {
        let cpu = (Self::PTL_OF.get(state) as usize).checked_sub(1)?;
        Some((cpu, Self::PTL_STEP.get(state) + 1))
    }

    /// Whether the CPU is in no write fault.
    #[inline]
    pub(super) fn is_in_user_mode(state: &Words<W>, cpu: usize) -> bool {
        Self::PTL_OF.get(state) != cpu as u64 + 1
    }
}
