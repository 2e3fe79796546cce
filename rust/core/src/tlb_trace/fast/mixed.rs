//! Pages of several sizes through first-level arrays of four ways each: first the key and the set of every access, in
//! wide registers, then the sets, which lie one array after the other.

use super::dense::{Misses, touch};
use super::key::context;
use super::ordered::Ordered;
use super::packed;
use crate::addr::PageSize;
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

/// How the pages of one size become keys and numbers of sets.
#[derive(Clone, Copy, Default)]
struct Rule {
    context: u64,
    shift: u32,
    mask: u64,
    first_set: u64,
}

impl Rule {
    #[inline]
    const fn apply(self, address: u64) -> (u64, u32) {
        let number = address >> self.shift;
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
    scratch: &mut Scratch,
    is_random: bool,
) -> u64 {
    let Scratch { sizes, sets, keys, numbers } = scratch;
    sets.clear();
    let rules = PageSize::ALL.map(|size| {
        let array = &arrays[size as usize];
        let first_set = sets.len() as u64;
        sets.extend_from_slice(array.keys().as_chunks::<WAYS>().0);
        Rule { context: context(pcid, size), shift: size.shift(), mask: array.nr_sets() as u64 - 1, first_set }
    });
    keys.resize(NEAR, 0);
    numbers.resize(NEAR, 0);
    let rule_of = |size: PageSize| rules[size as usize];
    let ranges: Vec<_> = pages.ranges().iter().map(|&(start, end, size)| (start, end - start, rule_of(size))).collect();
    let mut out = Misses::behind(misses, addresses.len());
    let mut bits = 0;
    for addresses in addresses.chunks(NEAR) {
        let (keys, numbers) = (&mut keys[..addresses.len()], &mut numbers[..addresses.len()]);
        bits |= packed::differing_bits(0, addresses);
        if ranges.len() <= MAX_RANGES {
            split(rule_of(pages.default()), &ranges, addresses, keys, numbers);
        } else {
            for ((&address, key), number) in addresses.iter().zip(&mut *keys).zip(&mut *numbers) {
                (*key, *number) = rules[sizes.size_index(pages, address)].apply(address);
            }
        }
        if is_random && packed::takes(WAYS) {
            packed::access_keys(sets, keys, numbers, &mut out);
        } else {
            for (&key, &number) in keys.iter().zip(&*numbers) {
                touch(&mut sets[number as usize], key, &mut out);
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

fn split(default: Rule, ranges: &[(u64, u64, Rule)], addresses: &[u64], keys: &mut [u64], numbers: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if packed::is_available() {
        // SAFETY: the CPU has the features.
        unsafe { split_wide(default, ranges, addresses, keys, numbers) };
        return;
    }
    split_any(default, ranges, addresses, keys, numbers);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
fn split_wide(default: Rule, ranges: &[(u64, u64, Rule)], addresses: &[u64], keys: &mut [u64], numbers: &mut [u32]) {
    split_any(default, ranges, addresses, keys, numbers);
}

/// The key and the set of each access; a loop for each number of ranges, so that the compiler can make it wide.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the features of its caller")]
fn split_any(default: Rule, ranges: &[(u64, u64, Rule)], addresses: &[u64], keys: &mut [u64], numbers: &mut [u32]) {
    match *ranges {
        [] => split_ranges(default, [], addresses, keys, numbers),
        [a] => split_ranges(default, [a], addresses, keys, numbers),
        [a, b] => split_ranges(default, [a, b], addresses, keys, numbers),
        [a, b, c] => split_ranges(default, [a, b, c], addresses, keys, numbers),
        [a, b, c, d, ..] => split_ranges(default, [a, b, c, d], addresses, keys, numbers),
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the features of its caller")]
fn split_ranges<const N: usize>(
    default: Rule,
    ranges: [(u64, u64, Rule); N],
    addresses: &[u64],
    keys: &mut [u64],
    numbers: &mut [u32],
) {
    for ((&address, key), number) in addresses.iter().zip(keys).zip(numbers) {
        let mut chosen = default.apply(address);
        for (start, len, rule) in ranges {
            let other = rule.apply(address);
            let is_inside = address.wrapping_sub(start) < len;
            chosen.0 = if is_inside { other.0 } else { chosen.0 };
            chosen.1 = if is_inside { other.1 } else { chosen.1 };
        }
        (*key, *number) = chosen;
    }
}
