//! A set-associative array of keys, each set in the order of its eviction: the newest first, empty slots last.
//!
//! With LRU a hit moves its key to the front, with FIFO it does not. Any number of sets and ways.

use super::key::{EMPTY, Key};
use crate::tlb::ArrayGeometry;

/// The array.
#[derive(Clone, Debug)]
pub(super) struct Ordered {
    /// `[set][way]`.
    keys: Vec<u64>,
    nr_sets: u64,
    ways: usize,
    /// `nr_sets - 1` if that is a mask.
    mask: Option<u64>,
    is_lru: bool,
}

impl Ordered {
    /// An empty array.
    pub(super) fn new(geometry: ArrayGeometry, is_lru: bool) -> Self {
        let nr_sets = u64::from(geometry.nr_sets());
        Self {
            keys: vec![EMPTY; geometry.entries as usize],
            nr_sets,
            ways: geometry.ways as usize,
            mask: nr_sets.is_power_of_two().then(|| nr_sets - 1),
            is_lru,
        }
    }

    /// An empty array of the shape of another.
    pub(super) fn of_shape(other: &Self) -> Self {
        Self { keys: vec![EMPTY; other.keys.len()], ..*other }
    }

    /// Whether there is no slot at all, so that every access misses.
    #[inline]
    pub(super) const fn is_absent(&self) -> bool {
        self.nr_sets == 0
    }

    pub(super) const fn ways(&self) -> usize {
        self.ways
    }

    pub(super) const fn is_lru(&self) -> bool {
        self.is_lru
    }

    /// The number of sets if a page number's low bits select the set.
    pub(super) fn nr_sets_if_masked(&self) -> Option<usize> {
        self.mask.map(|mask| mask as usize + 1)
    }

    /// All keys, set after set.
    pub(super) fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// The same, to be changed in the order of eviction.
    pub(super) fn keys_mut(&mut self) -> &mut [u64] {
        &mut self.keys
    }

    /// The set of a key; the array must not be absent.
    #[inline]
    pub(super) fn set_index(&self, key: Key) -> usize {
        let number = key.number();
        (match self.mask {
            Some(mask) => number & mask,
            None => number % self.nr_sets,
        }) as usize
    }

    #[inline]
    fn set(&mut self, key: Key) -> &mut [u64] {
        let start = self.set_index(key) * self.ways;
        &mut self.keys[start..start + self.ways]
    }

    /// An access; a key that misses is put in. Tells whether it was there. The array must not be absent.
    #[inline]
    pub(super) fn access(&mut self, key: Key) -> bool {
        let is_lru = self.is_lru;
        let set = self.set(key);
        if set[0] == key.0 {
            return true;
        }
        let found = set.iter().position(|&other| other == key.0);
        let from = match found {
            Some(_) if !is_lru => return true,
            Some(way) => way,
            None => set.len() - 1,
        };
        set.copy_within(..from, 1);
        set[0] = key.0;
        found.is_some()
    }

    /// The number of sets.
    pub(super) const fn nr_sets(&self) -> usize {
        self.nr_sets as usize
    }

    /// Takes a key out of the first `room` slots of its set. Tells whether it was there.
    pub(super) fn remove(&mut self, set: usize, key: Key, room: usize) -> bool {
        let set = &mut self.keys[set * self.ways..][..self.ways];
        let Some(way) = set[..room].iter().position(|&other| other == key.0) else { return false };
        set.copy_within(way + 1.., way);
        set[set.len() - 1] = EMPTY;
        true
    }

    /// Puts the first keys of each set of `later`, as many as `nr_taken` says, before those that are there.
    pub(super) fn put_before(&mut self, later: &Self, nr_taken: &[usize]) {
        if self.is_absent() {
            return;
        }
        let sets = self.keys.chunks_exact_mut(self.ways).zip(later.keys.chunks_exact(self.ways));
        for ((set, later), &nr_taken) in sets.zip(nr_taken) {
            set.copy_within(..set.len() - nr_taken, nr_taken);
            set[..nr_taken].copy_from_slice(&later[..nr_taken]);
        }
    }

    /// Takes some sets over from another array of the same shape.
    pub(super) fn take_sets(&mut self, other: &Self, is_theirs: impl Fn(usize) -> bool) {
        let sets = self.keys.chunks_exact_mut(self.ways).zip(other.keys.chunks_exact(self.ways));
        for (set, (mine, theirs)) in sets.enumerate() {
            if is_theirs(set) {
                mine.copy_from_slice(theirs);
            }
        }
    }

    /// Drops a key.
    pub(super) fn invalidate(&mut self, key: Key) {
        if self.is_absent() {
            return;
        }
        let set = self.set(key);
        if let Some(way) = set.iter().position(|&other| other == key.0) {
            set.copy_within(way + 1.., way);
            set[set.len() - 1] = EMPTY;
        }
    }

    /// Drops the keys of a PCID.
    pub(super) fn flush_pcid(&mut self, pcid: u16) {
        if self.is_absent() {
            return;
        }
        for set in self.keys.chunks_exact_mut(self.ways) {
            let mut kept = 0;
            for way in 0..set.len() {
                let key = set[way];
                set[kept] = key;
                kept += usize::from(key != EMPTY && Key(key).pcid() != pcid);
            }
            set[kept..].fill(EMPTY);
        }
    }

    /// Drops all keys.
    pub(super) fn flush_all(&mut self) {
        self.keys.fill(EMPTY);
    }
}
