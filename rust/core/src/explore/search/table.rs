//! The set of states seen: open addressing, whole states, memory that grows in place.
//!
//! A state's place is the upper part of `hash * capacity`, so that any capacity will do and the states stand in the order of
//! their hashes, but for collisions. Hence the table can grow where it is: the clusters are taken from the last to the
//! first, and a state never moves down. No second table is needed while it grows, and address space is reserved once.

use std::marker::PhantomData;

use memmap2::{MmapMut, MmapOptions};

use super::PackedState;

/// Places after the last home, for the collisions there: far more than the longest cluster of a table that is at most
/// four fifths full.
const TAIL: usize = 1024;
/// Places at the start: small models should not pay for memory.
const FIRST: usize = 1 << 12;
/// Below this many bytes pages of 4 KiB serve better.
#[cfg(target_os = "linux")]
const HUGE: usize = 8 << 20;

/// The table cannot take another state within its budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// A set of states.
pub(super) struct Table<S> {
    map: MmapMut,
    homes: usize,
    len: usize,
    #[cfg(target_os = "linux")]
    huge: bool,
    states: PhantomData<S>,
}

impl<S: PackedState> Table<S> {
    /// An empty table that can grow to `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Result<Self, Full> {
        let least = (FIRST + TAIL) * size_of::<S>();
        let mut bytes = max_bytes.max(least);
        // A system that promises no more memory than it has refuses large reservations.
        let map = loop {
            match MmapOptions::new().len(bytes).no_reserve_swap().map_anon() {
                Ok(map) => break map,
                Err(_) if bytes > least => bytes = (bytes / 2).max(least),
                Err(_) => return Err(Full),
            }
        };
        Ok(Self {
            map,
            homes: FIRST,
            len: 0,
            #[cfg(target_os = "linux")]
            huge: false,
            states: PhantomData,
        })
    }

    /// States in the table.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes in use.
    pub(super) const fn bytes(&self) -> usize {
        (self.homes + TAIL) * size_of::<S>()
    }

    #[inline]
    fn places(&self) -> &[S] {
        // SAFETY: as in `places_mut`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.homes + TAIL) }
    }

    #[inline]
    fn places_mut(&mut self) -> &mut [S] {
        // SAFETY: the map is zeroed, aligned to a page and at least `bytes()` long (`new`, `grow`); `PackedState` is sealed to
        // arrays of words, for which every content is valid and zeros are `VACANT`.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.homes + TAIL) }
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (u128::from(hash) * self.homes as u128 >> 64) as usize
    }

    /// Brings the place of a state near.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program could see; the address is inside the map.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.map.as_ptr().add(self.home(hash) * size_of::<S>()).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    /// Makes room for `additional` states.
    #[inline]
    pub(super) fn reserve(&mut self, additional: usize, budget_bytes: usize) -> Result<(), Full> {
        while (self.len + additional) * 5 > self.homes * 4 {
            self.grow(budget_bytes)?;
        }
        Ok(())
    }

    /// Adds a state for which there is room (see [`Table::reserve`]); tells whether it is new.
    #[inline]
    pub(super) fn insert(&mut self, state: S, hash: u64) -> bool {
        let mut at = self.home(hash);
        let places = self.places_mut();
        loop {
            let place = &mut places[at];
            if *place == state {
                return false;
            }
            if *place == S::VACANT {
                *place = state;
                self.len += 1;
                return true;
            }
            at += 1;
        }
    }

    /// Whether the state is in the table.
    pub(super) fn contains(&self, state: S) -> bool {
        let rest = &self.places()[self.home(state.hash_word())..];
        rest.iter().take_while(|&&place| place != S::VACANT).any(|&place| place == state)
    }

    #[cold]
    fn grow(&mut self, budget_bytes: usize) -> Result<(), Full> {
        let old_end = self.homes + TAIL;
        let most = (budget_bytes.min(self.map.len()) / size_of::<S>()).saturating_sub(TAIL);
        let homes = (self.homes + self.homes * 2 / 5).min(most);
        if homes < self.homes + self.homes / 16 {
            return Err(Full);
        }
        self.homes = homes;
        #[cfg(target_os = "linux")]
        if !self.huge && self.bytes() > HUGE {
            self.huge = true;
            // Advice: a kernel without huge pages refuses, and the table works without.
            let _ = self.map.advise(memmap2::Advice::HugePage);
        }
        let mut cluster = Vec::new();
        let mut end = old_end;
        while end > 0 {
            let places = self.places_mut();
            if places[end - 1] == S::VACANT {
                end -= 1;
                continue;
            }
            let begin = places[..end].iter().rposition(|place| *place == S::VACANT).map_or(0, |vacant| vacant + 1);
            cluster.extend_from_slice(&places[begin..end]);
            places[begin..end].fill(S::VACANT);
            end = begin;
            self.len -= cluster.len();
            for state in cluster.drain(..) {
                self.insert(state, state.hash_word());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_in_place_loses_and_doubles_nothing() {
        let mut table = Table::<[u64; 2]>::new(64 << 20).unwrap();
        let state = |n: u64| [n % 7 + 1, n];
        for n in 0..1_000_000 {
            table.reserve(1, 64 << 20).unwrap();
            assert!(table.insert(state(n), state(n).hash_word()));
        }
        assert_eq!(table.len(), 1_000_000);
        for n in 0..1_000_000 {
            assert!(!table.insert(state(n), state(n).hash_word()), "{n} was lost");
        }
        assert!(!table.contains([1, 1_000_000]));
        let per_state = table.bytes() / table.len();
        assert!((20..=29).contains(&per_state), "{per_state} bytes for a state of 16");
    }

    #[test]
    fn the_budget_is_kept() {
        let budget = 1 << 20;
        let mut table = Table::<[u64; 2]>::new(budget).unwrap();
        let mut n = 0;
        while table.reserve(1, budget).is_ok() {
            n += 1;
            table.insert([1, n], [1, n].hash_word());
            assert!(table.bytes() <= budget);
        }
        assert!(n * 16 * 3 > budget as u64, "{n} states in a budget of {budget} bytes");
    }
}
