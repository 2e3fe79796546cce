//! The first level: an array for each page size, of which an access looks up the one of its page's size.

use super::cascade;
use super::dense;
use super::key::{EMPTY, Key, context};
use super::mixed;
use super::ordered::Ordered;
use crate::addr::{PageSize, VirtAddr};
use crate::tlb::{Replacement, TlbGeometry};
use crate::tlb_trace::page_map::PageMap;

/// The arrays of one CPU.
#[derive(Clone, Debug)]
pub(super) struct FirstLevel {
    arrays: [Ordered; 3],
    /// Whether at least a quarter of the block before missed: then branches would be mispredicted all the time.
    is_random: bool,
    scratch: mixed::Scratch,
    passes: cascade::Scratch,
}

impl FirstLevel {
    pub(super) fn new(geometry: &TlbGeometry) -> Self {
        let is_lru = geometry.replacement == Replacement::Lru;
        Self {
            arrays: PageSize::ALL.map(|size| Ordered::new(geometry.l1(size), is_lru)),
            is_random: false,
            scratch: mixed::Scratch::new(),
            passes: cascade::Scratch::new(),
        }
    }

    /// Accesses in order; the keys of those that miss go to the end of `misses`. Returns the bits of all addresses: if any
    /// is too high, the rest means nothing.
    pub(super) fn access(&mut self, pages: &PageMap, pcid: u16, addresses: &[u64], misses: &mut Vec<u64>) -> u64 {
        let nr_before = misses.len();
        let bits = if let Some(size) = pages.only() {
            let array = &mut self.arrays[size as usize];
            let context = context(pcid, size);
            if dense::takes(array) {
                dense::access(array, context, size.shift(), addresses, misses, self.is_random, &mut self.passes)
            } else {
                access_any(array, context, size.shift(), addresses, misses)
            }
        } else {
            self.access_mixed(pages, pcid, addresses, misses)
        };
        self.is_random = (misses.len() - nr_before) * 4 >= addresses.len();
        bits
    }

    /// Whether the order of eviction is that of use.
    pub(super) fn is_lru(&self) -> bool {
        self.arrays.iter().all(Ordered::is_lru)
    }

    /// The array of a page size.
    pub(super) const fn array(&self, size: PageSize) -> &Ordered {
        &self.arrays[size as usize]
    }

    /// Takes some sets of a page size over from another first level of the same shape.
    pub(super) fn take_sets(&mut self, other: &Self, size: PageSize, is_theirs: impl Fn(usize) -> bool) {
        self.arrays[size as usize].take_sets(&other.arrays[size as usize], is_theirs);
        self.is_random = other.is_random;
    }

    /// Whether at least a quarter of the block before missed.
    pub(super) const fn is_random(&self) -> bool {
        self.is_random
    }

    /// Whether every set that accesses may go to is full.
    pub(super) fn is_full(&self, pages: &PageMap) -> bool {
        let is_full = |array: &Ordered| !array.keys().contains(&EMPTY);
        match pages.only() {
            Some(size) => is_full(&self.arrays[size as usize]),
            None => self.arrays.iter().all(is_full),
        }
    }

    /// The sets after accesses of which none hit: the latest of each come before those that it held.
    pub(super) fn take_newest(&mut self, size: PageSize, context: u64, addresses: &[u64]) {
        let array = &mut self.arrays[size as usize];
        let (ways, mut nr_open) = (array.ways(), array.nr_sets());
        let mut newest = Ordered::of_shape(array);
        let mut nr_taken = vec![0; array.nr_sets()];
        for address in addresses.iter().rev() {
            let key = Key(context | address >> size.shift());
            let set = array.set_index(key);
            if nr_taken[set] < ways {
                newest.keys_mut()[set * ways + nr_taken[set]] = key.0;
                nr_taken[set] += 1;
                nr_open -= usize::from(nr_taken[set] == ways);
                if nr_open == 0 {
                    break;
                }
            }
        }
        array.put_before(&newest, &nr_taken);
    }

    /// Goes on to what `later` became, which began with empty sets where this left off, without an event between; under
    /// LRU. `misses` are those of `later` in order, all or up to the moment when its sets were full: those that were hits
    /// in truth are taken out.
    pub(super) fn stitch(&mut self, later: &Self, misses: &mut Vec<u64>) {
        // For each set how many pages it took since then, up to its ways.
        let mut nr_taken = [0, 1, 2].map(|size: usize| vec![0; self.arrays[size].nr_sets()]);
        misses.retain(|&key| {
            let key = Key(key);
            let array = &mut self.arrays[key.size_index()];
            if array.is_absent() {
                return true;
            }
            let set = array.set_index(key);
            let (ways, taken) = (array.ways(), &mut nr_taken[key.size_index()][set]);
            if *taken == ways {
                return true;
            }
            // Of the pages before, those stay that the pages since leave room for.
            let room = ways - *taken;
            *taken += 1;
            !array.remove(set, key, room)
        });
        for ((array, later), nr_taken) in self.arrays.iter_mut().zip(&later.arrays).zip(nr_taken) {
            array.put_before(later, &nr_taken);
        }
        self.is_random = later.is_random;
    }

    fn access_mixed(&mut self, pages: &PageMap, pcid: u16, addresses: &[u64], misses: &mut Vec<u64>) -> u64 {
        if mixed::takes(&self.arrays) {
            let Self { arrays, scratch, passes, is_random } = self;
            return mixed::access(arrays, pcid, pages, addresses, misses, (scratch, passes), *is_random);
        }
        let mut bits = 0;
        for &address in addresses {
            bits |= address;
            let size = self.scratch.sizes.size_index(pages, address);
            let key = Key::new(pcid, VirtAddr(address), PageSize::ALL[size]);
            let array = &mut self.arrays[size];
            if array.is_absent() || !array.access(key) {
                misses.push(key.0);
            }
        }
        bits
    }

    pub(super) fn invalidate(&mut self, key: Key) {
        self.arrays[key.size_index()].invalidate(key);
    }

    pub(super) fn flush_pcid(&mut self, pcid: u16) {
        self.arrays.iter_mut().for_each(|array| array.flush_pcid(pcid));
    }

    pub(super) fn flush_all(&mut self) {
        self.arrays.iter_mut().for_each(Ordered::flush_all);
    }
}

/// Pages of one size through an array of any geometry, or none.
fn access_any(array: &mut Ordered, context: u64, shift: u32, addresses: &[u64], misses: &mut Vec<u64>) -> u64 {
    let (mut bits, mut last) = (0, None);
    for &address in addresses {
        bits |= address;
        let key = context | address >> shift;
        // The page of the access before is the newest of its set.
        if array.is_absent() || last != Some(key) && !array.access(Key(key)) {
            misses.push(key);
        }
        last = Some(key);
    }
    bits
}
