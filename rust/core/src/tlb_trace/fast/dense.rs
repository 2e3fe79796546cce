//! The common first levels, sets of 4, 6 or 8 ways under LRU, each by the loop that suits the stream.
//!
//! Where most accesses hit, they go through the [`cascade`]; where most miss, through whole sets in wide registers
//! ([`packed`]). A CPU without such registers has the plain loop here: an access to the newest key of its set changes
//! nothing, one comparison, and 84 to 93 of 100 accesses of real programs end there. One to the second newest swaps two
//! words. The rest shifts the set without a branch, and its key is written behind the misses always, but counted only if
//! it was one.

use super::cascade;
use super::ordered::Ordered;
use super::packed;

/// Whether the loops here take an array.
pub(super) fn takes(array: &Ordered) -> bool {
    array.is_lru() && array.nr_sets_if_masked().is_some() && matches!(array.ways(), 4 | 6 | 8)
}

/// Pages of one size through an array; the keys of misses go to the end of `misses`. `is_random` chooses the loop that
/// no branch slows down. Returns the bits of all addresses.
pub(super) fn access(
    array: &mut Ordered,
    context: u64,
    shift: u32,
    addresses: &[u64],
    misses: &mut Vec<u64>,
    is_random: bool,
    scratch: &mut cascade::Scratch,
) -> u64 {
    match array.ways() {
        4 => access_ways::<4>(array, context, shift, addresses, misses, is_random, scratch),
        6 => access_ways::<6>(array, context, shift, addresses, misses, is_random, scratch),
        _ => access_ways::<8>(array, context, shift, addresses, misses, is_random, scratch),
    }
}

fn access_ways<const W: usize>(
    array: &mut Ordered,
    context: u64,
    shift: u32,
    addresses: &[u64],
    misses: &mut Vec<u64>,
    is_random: bool,
    scratch: &mut cascade::Scratch,
) -> u64 {
    let takes_cascade = addresses.len() >= cascade::MIN_ACCESSES && cascade::takes(std::iter::once(&*array));
    let sets = array.keys_mut().as_chunks_mut::<W>().0;
    let mut out = Misses::behind(misses, addresses.len());
    let mut bits = 0;
    if is_random && packed::takes(W) {
        bits = packed::differing_bits(0, addresses);
        packed::access_sets(sets, context, shift, addresses, &mut out);
    } else if takes_cascade {
        bits = cascade::access(sets, (context, shift), addresses, &mut out, scratch);
    } else {
        for &address in addresses {
            bits |= address;
            let key = context | address >> shift;
            let set = &mut sets[key as usize & (sets.len() - 1)];
            touch(set, key, &mut out);
        }
    }
    out.keep();
    bits
}

/// An access to a set under LRU.
#[inline]
pub(super) fn touch<const W: usize>(set: &mut [u64; W], key: u64, out: &mut Misses<'_>) {
    if set[0] == key {
        return;
    }
    let old = *set;
    set[0] = key;
    set[1] = old[0];
    if old[1] == key {
        return;
    }
    set[2] = old[1];
    // Once the key was found, the slots behind it stay.
    let mut found = false;
    for way in 3..W {
        found |= old[way - 1] == key;
        set[way] = std::hint::select_unpredictable(found, old[way], old[way - 1]);
    }
    found |= old[W - 1] == key;
    out.put(key, !found);
}

/// Room behind the misses that are there, of which only what is counted stays.
pub(super) struct Misses<'a> {
    all: &'a mut Vec<u64>,
    next: *mut u64,
    nr_new: usize,
    nr_max: usize,
}

impl<'a> Misses<'a> {
    /// Room for `nr_max` more keys, one more to be written and not counted.
    pub(super) fn behind(all: &'a mut Vec<u64>, nr_max: usize) -> Self {
        all.reserve(nr_max + 1);
        let next = all.spare_capacity_mut().as_mut_ptr().cast();
        Self { all, next, nr_new: 0, nr_max }
    }

    /// Writes a key, and counts it if it is a miss. Called at most `nr_max` times, once for each access.
    #[inline]
    pub(super) fn put(&mut self, key: u64, is_miss: bool) {
        debug_assert!(self.nr_new <= self.nr_max, "more keys than there are accesses");
        // SAFETY: `nr_new` grows by at most one a call and calls are at most `nr_max`, so this is within the room.
        unsafe { self.next.add(self.nr_new).write(key) };
        self.nr_new += usize::from(is_miss);
    }

    /// The place behind what was counted, for a loop that holds it in registers: a count behind a reference would be
    /// written to memory and read again with every key.
    #[inline]
    pub(super) fn cursor(&self) -> Cursor {
        // SAFETY: at most `nr_max` were counted, within the room.
        Cursor { next: unsafe { self.next.add(self.nr_new) }, nr_new: 0, nr_max: self.nr_max - self.nr_new }
    }

    /// Counts what was put at a cursor.
    #[inline]
    pub(super) fn advance(&mut self, cursor: &Cursor) {
        self.nr_new += cursor.nr_new;
    }

    /// Keeps what was counted.
    pub(super) fn keep(self) {
        let len = self.all.len() + self.nr_new;
        // SAFETY: the first `nr_new` words of the room were written by `put`.
        unsafe { self.all.set_len(len) };
    }
}

/// A place in [`Misses`], to go on from; nothing else is put there meanwhile.
pub(super) struct Cursor {
    next: *mut u64,
    nr_new: usize,
    nr_max: usize,
}

impl Cursor {
    /// As [`Misses::put`], for as many accesses as there are still to come.
    #[inline]
    pub(super) fn put(&mut self, key: u64, is_miss: bool) {
        debug_assert!(self.nr_new <= self.nr_max, "more keys than there are accesses");
        // SAFETY: as for `Misses::put`: this is within its room.
        unsafe { self.next.add(self.nr_new).write(key) };
        self.nr_new += usize::from(is_miss);
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{Key, context};
    use super::*;
    use crate::addr::{PageSize, VirtAddr};
    use crate::tlb::ArrayGeometry;

    /// Keys of a small set, in a sequence without a pattern.
    fn sequence(nr_pages: u64, len: usize) -> Vec<u64> {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        (0..len).map(|_| ((next() % nr_pages) << 12) | (next() % 4096)).collect()
    }

    #[test]
    fn each_loop_does_what_the_plain_set_does() {
        for (ways, nr_pages) in [(4, 40), (6, 60), (8, 200)] {
            for is_random in [false, true] {
                let geometry = ArrayGeometry::new(ways * 8, ways);
                let (mut array, mut other) = (Ordered::new(geometry, true), Ordered::new(geometry, true));
                let mut misses = Vec::new();
                let mut expected = Vec::new();
                let mut scratch = cascade::Scratch::new();
                let context = context(3, PageSize::Size4K);
                let sizes = [777, 2100, 100, 1024, 1, 999];
                let all = sequence(nr_pages, 5001);
                let mut rest = &all[..];
                for size in sizes {
                    let (addresses, others) = rest.split_at(size);
                    rest = others;
                    access(&mut array, context, 12, addresses, &mut misses, is_random, &mut scratch);
                    for &address in addresses {
                        let key = Key::new(3, VirtAddr(address), PageSize::Size4K);
                        if !other.access(key) {
                            expected.push(key.0);
                        }
                    }
                    assert_eq!(array.keys(), other.keys());
                }
                assert_eq!(misses, expected);
                assert!(misses.len() > 500, "{}", misses.len());
            }
        }
    }
}
