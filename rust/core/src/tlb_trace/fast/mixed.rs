//! Pages of several sizes through first-level arrays of four ways each: first the key and the set of every access, in
//! wide registers, then the sets, which lie one array after the other.

use super::cascade::{self, BySize};
use super::compact;
use super::dense::{Misses, touch};
use super::key::context;
use super::ordered::Ordered;
use super::packed;
use crate::addr::{PAGE_SHIFT, PageSize};
use crate::tlb_trace::page_map::{PageMap, SizeCache};

const WAYS: usize = 4;
/// More ranges of pages than these are looked up access by access.
const MAX_RANGES: usize = 4;

/// Accesses whose keys stay in the nearest cache.
const NEAR: usize = 1 << 10;

/// What a pass needs besides the arrays.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    pub(super) sizes: SizeCache,
    sets: Vec<[u64; WAYS]>,
    keys: Vec<u64>,
    numbers: Vec<u32>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { sizes: SizeCache::new(), sets: Vec::new(), keys: Vec::new(), numbers: Vec::new() }
    }
}

/// How the numbers of 4 KiB pages become keys of pages of one size, and numbers of sets.
#[derive(Clone, Copy, Default)]
struct Rule {
    context: u64,
    shift: u32,
    mask: u64,
    first_set: u64,
}

impl Rule {
    #[inline]
    const fn apply(self, page: u64) -> (u64, u32) {
        let number = page >> self.shift;
        (self.context | number, (self.first_set + (number & self.mask)) as u32)
    }
}

/// Whether [`access`] takes the arrays.
pub(super) fn takes(arrays: &[Ordered; 3]) -> bool {
    arrays.iter().all(|array| array.is_lru() && array.ways() == WAYS && array.nr_sets_if_masked().is_some())
}

/// Accesses in order; the keys of those that miss go to the end of `misses`. Returns the bits of all addresses.
pub(super) fn access(
    arrays: &mut [Ordered; 3],
    pcid: u16,
    pages: &PageMap,
    addresses: &[u64],
    misses: &mut Vec<u64>,
    (scratch, passes): (&mut Scratch, &mut cascade::Scratch),
    is_random: bool,
) -> u64 {
    let takes_cascade = addresses.len() >= cascade::MIN_ACCESSES && cascade::takes(arrays.iter());
    let Scratch { sizes, sets, keys, numbers } = scratch;
    sets.clear();
    let rules = PageSize::ALL.map(|size| {
        let array = &arrays[size as usize];
        let first_set = sets.len() as u64;
        sets.extend_from_slice(array.keys().as_chunks::<WAYS>().0);
        Rule {
            context: context(pcid, size),
            shift: size.shift() - PAGE_SHIFT,
            mask: array.nr_sets() as u64 - 1,
            first_set,
        }
    });
    keys.resize(NEAR, 0);
    numbers.resize(NEAR, 0);
    let rule_of = |size: PageSize| rules[size as usize];
    let ranges = pages.ranges().iter();
    let ranges: Vec<_> =
        ranges.map(|&(start, end, size)| (start >> PAGE_SHIFT, (end - start) >> PAGE_SHIFT, rule_of(size))).collect();
    // Numbers of 4 KiB pages become keys, and the numbers of their sets.
    let mut find_keys = |keys: &mut [u64], numbers: &mut [u32]| {
        if ranges.len() <= MAX_RANGES {
            split(rule_of(pages.default()), &ranges, keys, numbers);
        } else {
            for (key, number) in keys.iter_mut().zip(numbers) {
                (*key, *number) = rules[sizes.size_index(pages, *key << PAGE_SHIFT)].apply(*key);
            }
        }
    };
    let mut out = Misses::behind(misses, addresses.len());
    let mut bits = 0;
    if takes_cascade && !is_random {
        let by_size = |size: usize| rules.get(size).map_or((0, 0), |rule| (rule.mask as u8, rule.first_set as u8));
        let numbering = BySize { sizes: [0, 1, 2, 3].map(by_size) };
        // Who repeats a page of 4 KiB repeats it whatever its size.
        let keys_of = |addresses: &[u64], keys: &mut [u64]| {
            let (nr_keys, bits) = compact::drop_repeats(0, PAGE_SHIFT, addresses, keys);
            find_keys(&mut keys[..nr_keys], &mut numbers[..nr_keys]);
            (nr_keys, bits)
        };
        bits = cascade::access_with(sets, numbering, addresses, keys_of, &mut out, passes);
    } else {
        for addresses in addresses.chunks(NEAR) {
            let (keys, numbers) = (&mut keys[..addresses.len()], &mut numbers[..addresses.len()]);
            bits |= packed::differing_bits(0, addresses);
            for (key, &address) in keys.iter_mut().zip(addresses) {
                *key = address >> PAGE_SHIFT;
            }
            find_keys(keys, numbers);
            if is_random && packed::takes(WAYS) {
                packed::access_keys(sets, keys, numbers, &mut out);
            } else {
                for (&key, &number) in keys.iter().zip(&*numbers) {
                    touch(&mut sets[number as usize], key, &mut out);
                }
            }
        }
    }
    out.keep();
    let mut rest = sets.as_flattened();
    for array in arrays {
        let (keys, others) = rest.split_at(array.keys().len());
        array.keys_mut().copy_from_slice(keys);
        rest = others;
    }
    bits
}

fn split(default: Rule, ranges: &[(u64, u64, Rule)], keys: &mut [u64], numbers: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if packed::is_available() {
        // SAFETY: the CPU has the features.
        unsafe { split_wide(default, ranges, keys, numbers) };
        return;
    }
    split_any(default, ranges, keys, numbers);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
fn split_wide(default: Rule, ranges: &[(u64, u64, Rule)], keys: &mut [u64], numbers: &mut [u32]) {
    split_any(default, ranges, keys, numbers);
}

/// The key, in place of the page, and the set of each access; a loop for each number of ranges, so that the compiler can make it wide.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the features of its caller")]
fn split_any(default: Rule, ranges: &[(u64, u64, Rule)], keys: &mut [u64], numbers: &mut [u32]) {
    match *ranges {
        [] => split_ranges(default, [], keys, numbers),
        [a] => split_ranges(default, [a], keys, numbers),
        [a, b] => split_ranges(default, [a, b], keys, numbers),
        [a, b, c] => split_ranges(default, [a, b, c], keys, numbers),
        [a, b, c, d, ..] => split_ranges(default, [a, b, c, d], keys, numbers),
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the features of its caller")]
fn split_ranges<const N: usize>(default: Rule, ranges: [(u64, u64, Rule); N], keys: &mut [u64], numbers: &mut [u32]) {
    for (key, number) in keys.iter_mut().zip(numbers) {
        let page = *key;
        let mut chosen = default.apply(page);
        for (start, len, rule) in ranges {
            let other = rule.apply(page);
            let is_inside = page.wrapping_sub(start) < len;
            chosen.0 = if is_inside { other.0 } else { chosen.0 };
            chosen.1 = if is_inside { other.1 } else { chosen.1 };
        }
        (*key, *number) = chosen;
    }
}
