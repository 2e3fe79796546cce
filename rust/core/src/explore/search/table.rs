//! The set of states seen: open addressing, whole states, memory that grows in place.
//!
//! Places stand in groups of about one cache line, which are compared at once. A state's home is a group: the upper part of
//! `hash * groups`; a state whose home is full goes to the next group with room. So any number of groups will do, and the states
//! stand in the order of their hashes, but for collisions. Hence the table can grow where it is: runs of full groups are taken
//! from the last to the first, and no state moves to a lower group. No second table is needed while it grows, and address
//! space is reserved once.

use std::marker::PhantomData;

use memmap2::{MmapMut, MmapOptions};

use super::PackedState;

/// Groups after the last home, for the collisions there: far more than the longest run of a table that is not full.
const TAIL: usize = 256;
/// Groups at the start: small models should not pay for memory.
const FIRST: usize = 1 << 9;
/// A table grows when more than this part of its places is taken.
const MAX_LOAD: (usize, usize) = (17, 20);
/// Below this many bytes pages of 4 KiB serve better.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

/// The table cannot take another state within its budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// Reserves address space, zeroed: as much of `bytes` as the system gives, at least `least`.
fn map(mut bytes: usize, least: usize) -> Option<MmapMut> {
    loop {
        match MmapOptions::new().len(bytes).no_reserve_swap().map_anon() {
            Ok(map) => return Some(map),
            // A system that promises no more memory than it has refuses large reservations.
            Err(_) if bytes > least => bytes = (bytes / 2).max(least),
            Err(_) => return None,
        }
    }
}

/// A set of states.
pub(super) struct Table<S> {
    map: MmapMut,
    groups: usize,
    len: usize,
    #[cfg(target_os = "linux")]
    huge: bool,
    states: PhantomData<S>,
}

impl<S: PackedState> Table<S> {
    /// Places of a group.
    const GROUP: usize = if size_of::<S>() >= 64 { 1 } else { 64 / size_of::<S>() };
    const GROUP_BYTES: usize = Self::GROUP * size_of::<S>();

    /// An empty table that can grow to `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Result<Self, Full> {
        let least = (FIRST + TAIL) * Self::GROUP_BYTES;
        let map = map(max_bytes.max(least), least).ok_or(Full)?;
        Ok(Self {
            map,
            groups: FIRST,
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
        (self.groups + TAIL) * Self::GROUP_BYTES
    }

    #[inline]
    fn places(&self) -> &[S] {
        // SAFETY: as in `places_mut`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), (self.groups + TAIL) * Self::GROUP) }
    }

    #[inline]
    fn places_mut(&mut self) -> &mut [S] {
        // SAFETY: the map is zeroed, aligned to a page and at least `bytes()` long (`new`, `grow`); `PackedState` is sealed to
        // arrays of words, for which every content is valid and zeros are `VACANT`.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), (self.groups + TAIL) * Self::GROUP) }
    }

    /// The first place of a hash's home.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (u128::from(hash) * self.groups as u128 >> 64) as usize * Self::GROUP
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
        while (self.len + additional) * MAX_LOAD.1 > self.groups * Self::GROUP * MAX_LOAD.0 {
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
            let group = &mut places[at..at + Self::GROUP];
            // Sums of all comparisons instead of a branch for each: where in its group a state stands is a guess, and a
            // wrong guess would also wait for the memory that was asked for.
            let (mut found, mut vacant) = (0_u32, 0_u32);
            for (number, place) in group.iter().enumerate() {
                found |= u32::from(place.is(&state)) << number;
                vacant |= u32::from(place.is(&S::VACANT)) << number;
            }
            // Places are taken in order, so that the first of all these is the state's own, old or new.
            if found | vacant != 0 {
                let first = (found | vacant).trailing_zeros();
                group[first as usize] = state;
                let new = vacant >> first & 1;
                self.len += new as usize;
                return new != 0;
            }
            at += Self::GROUP;
        }
    }

    /// Whether the state is in the table.
    pub(super) fn contains(&self, state: S) -> bool {
        let rest = &self.places()[self.home(state.hash_word())..];
        rest.iter().take_while(|&&place| place != S::VACANT).any(|&place| place == state)
    }

    #[cold]
    fn grow(&mut self, budget_bytes: usize) -> Result<(), Full> {
        let most = (budget_bytes.min(self.map.len()) / Self::GROUP_BYTES).saturating_sub(TAIL);
        let groups = (self.groups + self.groups / 2).min(most);
        if groups < self.groups + self.groups / 16 {
            return Err(Full);
        }
        let mut end = self.places().len();
        self.groups = groups;
        #[cfg(target_os = "linux")]
        if !self.huge && self.bytes() > HUGE && self.bytes() + end * size_of::<S>() <= budget_bytes {
            self.huge = true;
            return self.move_to_huge_pages(end);
        }
        let mut run = Vec::new();
        while end > 0 {
            let places = self.places_mut();
            let mut begin = end - Self::GROUP;
            // Places of a group are taken from the first on, so that the last one tells whether it is full.
            while begin > 0 && places[begin - 1] != S::VACANT {
                begin -= Self::GROUP;
            }
            run.extend(places[begin..end].iter().filter(|place| **place != S::VACANT));
            places[begin..end].fill(S::VACANT);
            end = begin;
            self.len -= run.len();
            for state in run.drain(..) {
                self.insert(state, state.hash_word());
            }
        }
        Ok(())
    }

    /// Takes the first `end` places to a new map of huge pages: memory that was touched before the advice would keep its
    /// small ones, and an address in four would be looked up slowly for good.
    #[cfg(target_os = "linux")]
    fn move_to_huge_pages(&mut self, end: usize) -> Result<(), Full> {
        let new = map(self.map.len(), self.bytes()).ok_or(Full)?;
        // Advice: a kernel without huge pages refuses, and the table works without.
        let _ = new.advise(memmap2::Advice::HugePage);
        let old_map = std::mem::replace(&mut self.map, new);
        // SAFETY: as in `places_mut`; `end` places of the old map were in use.
        let old: &[S] = unsafe { std::slice::from_raw_parts(old_map.as_ptr().cast(), end) };
        self.len = 0;
        for state in old.iter().filter(|place| **place != S::VACANT) {
            self.insert(*state, state.hash_word());
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
        assert!((18..=29).contains(&per_state), "{per_state} bytes for a state of 16");
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
