//! Exact miss counts of address traces that anyone can make again, counted by several independent simulators.
//!
//! Three traces of ten million addresses: uniform over 1 GiB, Zipf(0.99) over 65,536 shuffled pages, and every 64th
//! byte in order. The first two are drawn as NumPy's `Generator(PCG64(1))` and `PCG64(2)` draw them, which is written
//! out below. The counts were found equal by DynamoRIO's TLB simulator and more than ten other programs with the same
//! rules: set = page number modulo sets, second level used only on a first-level miss, fills go to both, cold start.
//!
//! Builds with debug assertions count the first million; release builds count all.

use std::sync::LazyLock;

use tlbcore::addr::{PageSize, Pfn, VirtAddr};
use tlbcore::tlb::{ArrayGeometry, HitLevel, PscLevel, Replacement, StlbGeometry, TlbEntry, TlbGeometry, Tlbs};

const BASE: u64 = 0x7f00_0000_0000;
const NR_ACCESSES: usize = 10_000_000;
const NR_COUNTED: usize = if cfg!(debug_assertions) { 1_000_000 } else { NR_ACCESSES };
const NR_ZIPF_PAGES: usize = 65_536;

/// PCG XSL-RR 128/64, with the halves of a word handed out low half first.
struct Pcg64 {
    state: u128,
    increment: u128,
    half: Option<u32>,
}

impl Pcg64 {
    /// NumPy's `PCG64(1)`.
    fn one() -> Self {
        Self {
            state: 0x9c5b_484b_fedb_756c_2a6e_7d6f_320f_bc7e,
            increment: 0x922a_f2da_2645_f895_a198_57b9_5740_937b,
            half: None,
        }
    }
    /// NumPy's `PCG64(2)`.
    fn two() -> Self {
        Self {
            state: 0x6924_16b3_311e_c79c_2a21_eb1b_c4f4_83cc,
            increment: 0x5bae_0a57_4388_2ba5_d1ad_0f9f_2cb8_dbef,
            half: None,
        }
    }

    fn next_u64(&mut self) -> u64 {
        const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
        ((self.state >> 64) as u64 ^ self.state as u64).rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let word = self.next_u64();
            self.half = Some((word >> 32) as u32);
            word as u32
        })
    }

    /// Uniform below 2^27: as NumPy's bounded integers, a multiplication that keeps the upper bits.
    fn next_27_bits(&mut self) -> u64 {
        u64::from(self.next_u32() >> 5)
    }

    /// Uniform in `0..=last`: as NumPy's shuffle, lower bits drawn until they are small enough.
    fn at_most(&mut self, last: u32) -> u32 {
        let mask = u32::MAX >> last.leading_zeros();
        loop {
            let drawn = self.next_u32() & mask;
            if drawn <= last {
                return drawn;
            }
        }
    }

    /// Uniform in [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

static UNIFORM: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let mut random = Pcg64::one();
    (0..NR_COUNTED).map(|_| BASE + random.next_27_bits() * 8).collect()
});

/// Page addresses; the random byte in the page does not matter.
static ZIPF: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let mut sum = 0.0;
    let mut cdf: Vec<f64> = (1..=NR_ZIPF_PAGES as u32)
        .map(|rank| {
            sum += 1.0 / f64::from(rank).powf(0.99);
            sum
        })
        .collect();
    for p in &mut cdf {
        *p /= sum;
    }
    let mut random = Pcg64::two();
    let ranks: Vec<usize> =
        (0..NR_COUNTED).map(|_| random.next_f64()).map(|drawn| cdf.partition_point(|p| *p < drawn)).collect();
    // The shuffle comes after all ranks were drawn, counted or not.
    for _ in NR_COUNTED..NR_ACCESSES {
        random.next_u64();
    }
    let mut pages: Vec<u64> = (0..NR_ZIPF_PAGES as u64).collect();
    for last in (1..NR_ZIPF_PAGES).rev() {
        let other = random.at_most(last as u32) as usize;
        pages.swap(last, other);
    }
    ranks.into_iter().map(|rank| BASE + (pages[rank] << 12)).collect()
});

static SEQUENTIAL: LazyLock<Vec<u64>> = LazyLock::new(|| (0..NR_COUNTED as u64).map(|at| BASE + at * 64).collect());

fn two_levels(l1: ArrayGeometry, stlb: ArrayGeometry) -> TlbGeometry {
    TlbGeometry { l1_4k: l1, stlb: StlbGeometry::new(stlb.entries, stlb.ways), ..TlbGeometry::default() }
}

/// Runs a trace and returns (first-level misses, second-level misses). `event` comes before each access.
fn misses(
    geometry: &TlbGeometry,
    size: PageSize,
    trace: &[u64],
    mut event: impl FnMut(&mut Tlbs, usize, VirtAddr),
) -> (u64, u64) {
    let mut tlbs = Tlbs::new(geometry, 1).expect("a valid geometry");
    for (at, &va) in trace.iter().enumerate() {
        let va = VirtAddr(va);
        event(&mut tlbs, at, va);
        if tlbs.lookup(0, 0, va).is_none() {
            tlbs.insert(0, 0, TlbEntry::user_data(va.vpn(), Pfn(va.vpn().0), size));
        }
    }
    let counters = tlbs.counters(0);
    assert_eq!(counters.nr_l1_hits + counters.nr_stlb_hits + counters.nr_misses, trace.len() as u64);
    (counters.nr_stlb_hits + counters.nr_misses, counters.nr_misses)
}

/// Compares with the counts over the first million and over all ten million accesses.
#[track_caller]
fn check(geometry: &TlbGeometry, size: PageSize, trace: &[u64], first_million: (u64, u64), all: (u64, u64)) {
    let expected = if NR_COUNTED == NR_ACCESSES { all } else { first_million };
    assert_eq!(misses(geometry, size, trace, |_, _, _| ()), expected);
}

const L1: ArrayGeometry = ArrayGeometry::new(64, 4);
const STLB: ArrayGeometry = ArrayGeometry::new(1536, 12);

#[test]
fn the_generators_are_numpys() {
    let offsets: Vec<u64> = UNIFORM[..4].iter().map(|va| (va - BASE) / 8).collect();
    assert_eq!(offsets, [63_510_311, 68_695_535, 101_356_867, 127_569_077]);
    let first = Pcg64::two().next_f64();
    assert_eq!(first.to_bits(), 0x3fd0_be40_d235_9ad6);
    let pages: Vec<u64> = ZIPF[..8].iter().map(|va| (va - BASE) >> 12).collect();
    assert_eq!(pages, [48_043, 21_120, 29_342, 63_980, 34_310, 15_155, 17_557, 18_442]);
}

#[test]
fn usual_geometry() {
    let geometry = two_levels(L1, STLB);
    check(&geometry, PageSize::Size4K, &UNIFORM, (999_762, 994_089), (9_997_592, 9_940_834));
    check(&geometry, PageSize::Size4K, &ZIPF, (761_322, 445_455), (7_612_354, 4_453_116));
    check(&geometry, PageSize::Size4K, &SEQUENTIAL, (15_625, 15_625), (156_250, 156_250));
}

#[test]
fn fully_associative_first_level() {
    let geometry = two_levels(ArrayGeometry::fully_associative(64), STLB);
    check(&geometry, PageSize::Size4K, &ZIPF, (752_210, 445_537), (7_520_288, 4_453_754));
}

#[test]
fn larger_second_level() {
    let geometry = two_levels(L1, ArrayGeometry::new(2048, 8));
    check(&geometry, PageSize::Size4K, &ZIPF, (761_322, 417_273), (7_612_354, 4_170_704));
}

#[test]
fn six_ways() {
    let geometry = two_levels(ArrayGeometry::new(96, 6), ArrayGeometry::new(2048, 8));
    check(&geometry, PageSize::Size4K, &ZIPF, (720_613, 417_364), (7_207_072, 4_171_569));
}

#[test]
fn direct_mapped_first_level() {
    let geometry = two_levels(ArrayGeometry::new(64, 1), ArrayGeometry::new(1536, 3));
    check(&geometry, PageSize::Size4K, &UNIFORM, (999_747, 994_092), (9_997_545, 9_941_052));
    check(&geometry, PageSize::Size4K, &ZIPF, (783_986, 457_135), (7_841_824, 4_570_047));
}

#[test]
fn huge_pages() {
    let geometry = two_levels(L1, STLB);
    check(&geometry, PageSize::Size2M, &UNIFORM, (937_312, 512), (9_374_270, 512));
    check(&geometry, PageSize::Size2M, &ZIPF, (606_316, 128), (6_061_836, 128));
    check(&geometry, PageSize::Size2M, &SEQUENTIAL, (31, 31), (306, 306));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the counts are of ten million accesses: run with --release")]
fn fifo() {
    let geometry = TlbGeometry { replacement: Replacement::Fifo, ..two_levels(L1, STLB) };
    let count = |trace| misses(&geometry, PageSize::Size4K, trace, |_, _, _| ());
    assert_eq!(count(&UNIFORM), (9_997_592, 9_940_830));
    assert_eq!(count(&ZIPF), (7_887_007, 4_832_825));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the counts are of ten million accesses: run with --release")]
fn with_invalidations() {
    let geometry = two_levels(L1, STLB);
    let flushed = misses(&geometry, PageSize::Size4K, &ZIPF, |tlbs, at, _| {
        if at > 0 && at % 100_000 == 0 {
            tlbs.flush_pcid(0, 0);
        }
    });
    assert_eq!(flushed, (7_612_983, 4_478_220));
    let invalidated = misses(&geometry, PageSize::Size4K, &ZIPF, |tlbs, at, va| {
        if at > 0 && at % 1000 == 0 {
            tlbs.invalidate_page(0, 0, va);
        }
    });
    assert_eq!(invalidated, (7_614_737, 4_458_637));
}

/// Walks by the number of tables they read, with paging-structure caches of 32 (4 ways), 4 and 2 entries.
fn walks_by_loads(trace: &[u64]) -> [u64; 4] {
    let geometry = TlbGeometry {
        pde_cache: ArrayGeometry::new(32, 4),
        pdpte_cache: ArrayGeometry::fully_associative(4),
        pml4e_cache: ArrayGeometry::fully_associative(2),
        ..two_levels(L1, STLB)
    };
    let mut tlbs = Tlbs::new(&geometry, 1).expect("a valid geometry");
    let mut walks = [0; 4];
    for &va in trace {
        let va = VirtAddr(va);
        match tlbs.lookup(0, 0, va) {
            Some((_, HitLevel::L1 | HitLevel::Stlb)) => continue,
            None => tlbs.insert(0, 0, TlbEntry::user_data(va.vpn(), Pfn(va.vpn().0), PageSize::Size4K)),
        }
        let nr_skippable = tlbs.psc_lookup(0, 0, va).map_or(3, |(level, _)| level as usize);
        for level in &PscLevel::ALL[..nr_skippable] {
            tlbs.psc_insert(0, 0, *level, va, 7);
        }
        walks[nr_skippable] += 1;
    }
    let counters = tlbs.counters(0);
    assert_eq!(counters.nr_psc_hits[..3], walks[..3]);
    assert_eq!(counters.nr_psc_misses, walks[3]);
    walks
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the counts are of ten million accesses: run with --release")]
fn with_paging_structure_caches() {
    assert_eq!(walks_by_loads(&UNIFORM), [620_930, 9_319_903, 0, 1]);
    assert_eq!(walks_by_loads(&ZIPF), [1_111_411, 3_341_704, 0, 1]);
    assert_eq!(walks_by_loads(&SEQUENTIAL), [155_944, 305, 0, 1]);
}
