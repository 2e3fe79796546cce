//! Sets under LRU as a cascade of places, without a search and nearly without branches.
//!
//! The pages of a set, the newest first, stand in places. An access to the page in the first place changes nothing. Any
//! other takes the first place, and the page that stood there comes to the second; if that was the page accessed, this is
//! all, else its page comes to the third, and so on. So at each place an access comes by with the page that it pushes
//! down: that page takes the place, and the access goes on with the one that stood there, unless that is what it was
//! looking for. What comes out behind the last place has missed.
//!
//! What stands in a place afterwards does not depend on what stood there before: no access waits for the one before it,
//! and there is nothing to predict. Each place is a pass over a block of accesses, and each pass leaves few for the next: of
//! real programs half of all are to the page of the access before and drop out in wide registers, the first place keeps
//! five of six that are left, the second half of the others.

use super::compact::{self, AT_ONCE, Place};
use super::dense::Misses;
use super::key::{EMPTY, Key};
use super::ordered::Ordered;
use super::packed;

/// Accesses of one pass: what a pass reads and writes stays in the nearest cache.
const CHUNK: usize = 1 << 10;
/// Sets are numbered by a byte, so that no number is out of bounds.
const MAX_SETS: usize = 1 << u8::BITS;
/// Fewer accesses than these are not worth taking the sets apart.
pub(super) const MIN_ACCESSES: usize = 1 << 8;

/// Whether the cascade takes arrays of so many sets and ways, all under LRU.
pub(super) fn takes<'a>(mut arrays: impl Iterator<Item = &'a Ordered> + Clone) -> bool {
    let nr_sets: usize = arrays.clone().map(Ordered::nr_sets).sum();
    let is_fine = |array: &Ordered| array.is_lru() && array.nr_sets_if_masked().is_some();
    packed::is_available() && nr_sets <= MAX_SETS && arrays.all(is_fine)
}

/// From a key to the number of its set.
pub(super) trait Numbering: Copy {
    /// The number.
    fn set_of(self, key: u64) -> u8;
}

/// Pages of one size: the low bits of their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct OneSize {
    /// The number of sets less one.
    pub(super) mask: u8,
}

impl Numbering for OneSize {
    #[inline]
    fn set_of(self, key: u64) -> u8 {
        key as u8 & self.mask
    }
}

/// Pages of several sizes, whose arrays lie one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct BySize {
    /// The sets of each size less one, and the number of the first; the last is of no size.
    pub(super) sizes: [(u8, u8); 4],
}

impl Numbering for BySize {
    #[inline]
    fn set_of(self, key: u64) -> u8 {
        let (mask, first) = self.sizes[Key(key).size_index()];
        first.wrapping_add(key as u8 & mask)
    }
}

// Each pass is a function of its own, so that its loop has all registers for itself.

/// What passes write.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    keys: Vec<u64>,
    changed: Vec<u64>,
    /// A key, and the page that it pushes down.
    pushes: Vec<[u64; 2]>,
    places: Vec<Place>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { keys: Vec::new(), changed: Vec::new(), pushes: Vec::new(), places: Vec::new() }
    }

    fn make_room(&mut self) {
        for list in [&mut self.keys, &mut self.changed] {
            list.resize(CHUNK + AT_ONCE, EMPTY);
        }
        self.pushes.resize(CHUNK + AT_ONCE, [EMPTY; 2]);
    }
}

/// Takes sets apart into places, the first of them twice: the pass over it goes ahead of the others.
fn take_apart<const W: usize>(sets: &[[u64; W]], places: &mut Vec<Place>) {
    places.resize(W + 1, [EMPTY; MAX_SETS]);
    for (number, set) in sets.iter().enumerate() {
        places[0][number] = set[0];
        for (place, &key) in places[1..].iter_mut().zip(set) {
            place[number] = key;
        }
    }
}

fn put_together<const W: usize>(sets: &mut [[u64; W]], places: &[Place]) {
    for (number, set) in sets.iter_mut().enumerate() {
        for (key, place) in set.iter_mut().zip(&places[1..]) {
            *key = place[number];
        }
    }
}

/// Accesses to pages of one size, whose keys are `context | address >> shift`; the keys of those that miss go to `out`.
/// Returns the bits of all addresses. There are at least two ways.
pub(super) fn access<const W: usize>(
    sets: &mut [[u64; W]],
    (context, shift): (u64, u32),
    addresses: &[u64],
    out: &mut Misses<'_>,
    scratch: &mut Scratch,
) -> u64 {
    debug_assert!(sets.len() <= MAX_SETS && sets.len().is_power_of_two());
    let numbering = OneSize { mask: (sets.len() - 1) as u8 };
    let keys_of = |addresses: &[u64], keys: &mut [u64]| compact::drop_repeats(context, shift, addresses, keys);
    access_with(sets, numbering, addresses, keys_of, out, scratch)
}

/// The same with any numbering. `keys_of` writes the keys of addresses, without those that repeat the page before if it
/// likes, and returns how many it wrote, and the bits of the addresses; [`AT_ONCE`] more have room.
pub(super) fn access_with<const W: usize>(
    sets: &mut [[u64; W]],
    numbering: impl Numbering,
    addresses: &[u64],
    mut keys_of: impl FnMut(&[u64], &mut [u64]) -> (usize, u64),
    out: &mut Misses<'_>,
    scratch: &mut Scratch,
) -> u64 {
    const { assert!(W >= 4, "the first two places and the last two have passes of their own") };
    scratch.make_room();
    let Scratch { keys, changed, pushes, places } = scratch;
    take_apart(sets, places);
    let mut bits = 0;
    for addresses in addresses.chunks(CHUNK) {
        let (nr_keys, bits_here) = keys_of(addresses, keys);
        bits |= bits_here;
        let Some(&newest_key) = keys[..nr_keys].last() else { continue };
        // Whole steps: the last key again changes nothing.
        let nr_whole = nr_keys.next_multiple_of(AT_ONCE);
        keys[nr_keys..nr_whole].fill(newest_key);
        let [newest, first, second, middle @ .., before_last, last] = places.as_mut_slice() else { continue };
        let set_of = |key| numbering.set_of(key);
        let nr_changed =
            compact::keep_displacing(newest, set_of, &keys[..nr_whole], changed, addresses.as_ptr_range().end);
        let mut nr = second_place(first, second, numbering, &changed[..nr_changed], pushes);
        for place in middle {
            nr = next_place(place, numbering, &mut pushes[..nr]);
        }
        last_places(before_last, last, numbering, &pushes[..nr], out);
    }
    put_together(sets, places);
    bits
}

/// Keys of which each has changed the first place of its set, from which it pushes the page to the second.
#[inline(never)]
fn second_place(
    first: &mut Place,
    second: &mut Place,
    numbering: impl Numbering,
    keys: &[u64],
    pushes: &mut [[u64; 2]],
) -> usize {
    let mut nr = 0;
    assert!(keys.len() <= pushes.len(), "no room for {} pushes", keys.len());
    for key in keys {
        let set = usize::from(numbering.set_of(*key));
        // SAFETY: `nr` is at most the number of keys before, for which there is room.
        let push = unsafe { pushes.get_unchecked_mut(nr) };
        // One store for both words: stores are what this loop waits for.
        write_pair(push, key, &second[set]);
        nr += usize::from(second[set] != *key);
        second[set] = std::mem::replace(&mut first[set], *key);
    }
    nr
}

/// A place between; the pushes that go on stay, at the front.
#[inline(never)]
fn next_place(place: &mut Place, numbering: impl Numbering, pushes: &mut [[u64; 2]]) -> usize {
    let mut nr = 0;
    for at in 0..pushes.len() {
        let [key, above] = pushes[at];
        let found = std::mem::replace(&mut place[usize::from(numbering.set_of(key))], above);
        pushes[nr] = [key, found];
        nr += usize::from(found != key);
    }
    nr
}

/// The last two places in one pass: what the last but one pushes comes to the last, unless it was looked for.
#[inline(never)]
fn last_places(
    before_last: &mut Place,
    last: &mut Place,
    numbering: impl Numbering,
    pushes: &[[u64; 2]],
    out: &mut Misses<'_>,
) {
    let mut cursor = out.cursor();
    for &[key, pushed] in pushes {
        let set = usize::from(numbering.set_of(key));
        let (found, behind) = (before_last[set], last[set]);
        before_last[set] = pushed;
        last[set] = std::hint::select_unpredictable(found == key, behind, found);
        // No short cut, which would be a branch.
        cursor.put(key, u8::from(found != key) & u8::from(behind != key) != 0);
    }
    out.advance(&cursor);
}

/// Asks for a word that will be read.
#[inline]
pub(super) fn prefetch(address: *const u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults, wherever it points.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[inline]
fn write_pair(pair: &mut [u64; 2], low: &u64, high: &u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: two words are read, one from each reference, and a pair of words is written; SSE2 is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_mm_castsi128_pd, _mm_loadh_pd, _mm_loadl_epi64, _mm_storeu_pd};
        let low = _mm_castsi128_pd(_mm_loadl_epi64(std::ptr::from_ref(low).cast()));
        _mm_storeu_pd(pair.as_mut_ptr().cast(), _mm_loadh_pd(low, std::ptr::from_ref(high).cast()));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        *pair = [*low, *high];
    }
}
