//! Where each variable stands in the words of a state.
//!
//! Word 0 is control. The other words hold one lane for each page: nine bits of the page, then a thermometer of three bits
//! for the TLB entry of each user CPU (invalid `000`, read-only `001`, writable clean `011`, writable dirty `111`). No lane
//! straddles two words.

use super::Options;

/// The model at one size: `U` user CPUs and `P` pages in `W` words, so that every loop over them is unrolled.
#[derive(Clone, Copy, Debug)]
pub struct CommonProblem<const U: usize, const P: usize, const W: usize> {
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

// The entry of one CPU, after a shift by `TLB + 3 * cpu`.
pub(super) const VALID: u64 = 1;
pub(super) const WRITABLE: u64 = 2;
pub(super) const STORES: u64 = 4;
pub(super) const ENTRY: u64 = VALID | WRITABLE | STORES;

/// A variable of the control word: `WIDTH` bits from `SHIFT`.
pub(super) struct Field<const SHIFT: u32, const WIDTH: u32>;

#[expect(clippy::unused_self, reason = "`PTL.get(state)` names the variable by a constant of its type")]
impl<const SHIFT: u32, const WIDTH: u32> Field<SHIFT, WIDTH> {
    const MASK: u64 = (1 << WIDTH) - 1;

    #[inline]
    pub(super) fn get<const W: usize>(&self, state: &Words<W>) -> u64 {
        state[0] >> SHIFT & Self::MASK
    }

    #[inline]
    pub(super) fn set<const W: usize>(&self, state: &mut Words<W>, value: u64) {
        state[0] = state[0] & !(Self::MASK << SHIFT) | value << SHIFT;
    }
}

pub(super) const UNMAP_PC: Field<0, 4> = Field;
pub(super) const UNMAP_PAGE: Field<4, 3> = Field;
/// `tlb->force_flush`, or for `mprotect` that something changed.
pub(super) const UNMAP_FLUSH: Field<7, 1> = Field;
pub(super) const CLEAN_PC: Field<8, 4> = Field;
pub(super) const CLEAN_PAGE: Field<12, 3> = Field;
/// The cleaner found the PTE dirty.
pub(super) const CLEAN_DIRTY: Field<15, 1> = Field;
/// `tlb_ubc->writable`.
pub(super) const BATCH_WRITABLE: Field<16, 1> = Field;
/// `tlb_ubc->flush_required`.
pub(super) const BATCH_REQUIRED: Field<17, 1> = Field;
/// `mm->tlb_flush_batched`.
pub(super) const MM_BATCHED: Field<18, 1> = Field;
/// Who holds the page-table lock: see `PTL_*`.
pub(super) const PTL: Field<19, 2> = Field;
const IPIS: u32 = 21;
/// Keeps every state different from the vacant one.
const OCCUPIED: u64 = 1 << 63;

pub(super) const PTL_UNMAP: u64 = 1;
pub(super) const PTL_CLEAN: u64 = 2;
pub(super) const PTL_FAULT: u64 = 3;

/// Words that a state of this size needs.
pub const fn words(users: usize, pages: usize) -> usize {
    1 + pages.div_ceil(64 / (TLB + 3 * users))
}

impl<const U: usize, const P: usize, const W: usize> CommonProblem<U, P, W> {
    pub(super) const LANE: usize = TLB + 3 * U;
    const PER_WORD: usize = 64 / Self::LANE;
    pub(super) const LANE_MASK: u64 = (1 << Self::LANE) - 1;
    pub(super) const ALL_CPUS: u64 = (1 << U) - 1;
    /// The handler's last step, in [`Self::fault`].
    pub(super) const FAULT_UNLOCK: u64 = P as u64 + 1;
    const FAULTS: u32 = IPIS + 2 * U as u32;

    /// The model; the size in `options` must be that of the type.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn new(options: Options) -> Self {
        const { assert!(W == words(U, P) && U >= 1 && P >= 1 && Self::FAULTS + 3 * U as u32 <= 63 && P <= 6) };
        assert_eq!((options.users, options.pages), (U, P), "the size of the options is not that of the type");
        Self { options }
    }

    #[inline]
    pub(super) fn start() -> Words<W> {
        let mut state = Self::every(PRESENT | WRITE | RMAP | MAP_REF | CACHE_REF);
        state[0] = OCCUPIED;
        state
    }

    /// `bits` in the lane of every page.
    pub(super) const fn every(bits: u64) -> Words<W> {
        let mut all = [0; W];
        let mut page = 0;
        while page < P {
            all[1 + page / Self::PER_WORD] |= bits << (page % Self::PER_WORD * Self::LANE);
            page += 1;
        }
        all
    }

    /// The word and the shift of a page's lane.
    #[inline]
    pub(super) const fn place(page: usize) -> (usize, usize) {
        if W == 2 { (1, page * Self::LANE) } else { (1 + page / Self::PER_WORD, page % Self::PER_WORD * Self::LANE) }
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
        for word in 1..W {
            state[word] &= !all[word];
        }
    }

    #[inline]
    pub(super) fn any_has(state: &Words<W>, bits: u64) -> bool {
        let all = Self::every(bits);
        (1..W).any(|word| state[word] & all[word] != 0)
    }

    /// CPUs with an IPI of the unmapper under way, by bits.
    #[inline]
    pub(super) fn unmap_ipis(state: &Words<W>) -> u64 {
        state[0] >> IPIS & Self::ALL_CPUS
    }

    #[inline]
    pub(super) fn set_unmap_ipis(state: &mut Words<W>, cpus: u64) {
        state[0] = state[0] & !(Self::ALL_CPUS << IPIS) | cpus << IPIS;
    }

    /// CPUs with an IPI of the cleaner under way, by bits.
    #[inline]
    pub(super) fn clean_ipis(state: &Words<W>) -> u64 {
        state[0] >> (IPIS + U as u32) & Self::ALL_CPUS
    }

    #[inline]
    pub(super) fn set_clean_ipis(state: &mut Words<W>, cpus: u64) {
        let shift = IPIS + U as u32;
        state[0] = state[0] & !(Self::ALL_CPUS << shift) | cpus << shift;
    }

    /// The write fault that a CPU is in: 0 none, `page + 1` its locks are taken, [`Self::FAULT_UNLOCK`] the PTE is set.
    #[inline]
    pub(super) fn fault(state: &Words<W>, cpu: usize) -> u64 {
        state[0] >> (Self::FAULTS + 3 * cpu as u32) & 7
    }

    #[inline]
    pub(super) fn set_fault(state: &mut Words<W>, cpu: usize, to: u64) {
        let shift = Self::FAULTS + 3 * cpu as u32;
        state[0] = state[0] & !(7 << shift) | to << shift;
    }
}
