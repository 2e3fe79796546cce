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
const MAX_LOAD: (usize, usize) = (7, 10);
/// By how much a table of at most so many bytes grows: one part in so many. What is large grows by little, so that at least half of
/// its places are taken, and 16 bytes of state cost at most 31.
const GROWTH: [(usize, usize); 3] = [(2 << 20, 1), (64 << 20, 2), (usize::MAX, 3)];
/// Below this many bytes pages of 4 KiB serve better.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

/// The table cannot take another state within its budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// What a look into one group told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    /// The state was there.
    Old,
    /// It was not, and is now.
    New,
    /// It is not there, and there is no room.
    Next,
}

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
        ((u128::from(hash) * self.groups as u128) >> 64) as usize * Self::GROUP
    }

    /// Brings the home of a state near.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.prefetch_group(self.home(hash));
    }

    #[inline]
    fn prefetch_group(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program could see, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.map.as_ptr().wrapping_add(at * size_of::<S>()).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
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
    pub(super) fn insert(&mut self, state: S, hash: u64) -> bool {
        let mut at = self.home(hash);
        loop {
            match self.probe(state, at) {
                Probe::Old => return false,
                Probe::New => return true,
                Probe::Next => at += Self::GROUP,
            }
        }
    }

    /// Adds states for which there is room; moves those that are new to the front and returns their number.
    ///
    /// A state whose home is full waits until the others are done: by then the next group, asked for now, is near.
    pub(super) fn insert_all(&mut self, states: &mut [S], hashes: &[u64], waiting: &mut Vec<(S, usize)>) -> usize {
        let mut fresh = 0;
        for (at, &hash) in hashes[..states.len()].iter().enumerate() {
            let state = states[at];
            states[fresh] = state;
            let home = self.home(hash);
            let probe = self.probe(state, home);
            fresh += usize::from(probe == Probe::New);
            if probe == Probe::Next {
                self.prefetch_group(home + Self::GROUP);
                waiting.push((state, home + Self::GROUP));
            }
        }
        while !waiting.is_empty() {
            let mut left = 0;
            for number in 0..waiting.len() {
                let (state, at) = waiting[number];
                match self.probe(state, at) {
                    Probe::Old => {}
                    Probe::New => {
                        states[fresh] = state;
                        fresh += 1;
                    }
                    Probe::Next => {
                        self.prefetch_group(at + Self::GROUP);
                        waiting[left] = (state, at + Self::GROUP);
                        left += 1;
                    }
                }
            }
            waiting.truncate(left);
        }
        fresh
    }

    /// Looks for a state in one group, and puts it there if it has room.
    #[inline]
    fn probe(&mut self, state: S, at: usize) -> Probe {
        let group = &mut self.places_mut()[at..at + Self::GROUP];
        // Sums of all comparisons instead of a branch for each: where in its group a state stands is a guess, and a
        // wrong guess would also wait for the memory that was asked for.
        let (mut found, mut vacant) = (0_u32, 0_u32);
        for (number, place) in group.iter().enumerate() {
            found |= u32::from(place.is(&state)) << number;
            vacant |= u32::from(place.is(&S::VACANT)) << number;
        }
        if found | vacant == 0 {
            return Probe::Next;
        }
        // Places are taken in order, so that the first of all these is the state's own, old or new.
        let first = (found | vacant).trailing_zeros();
        group[first as usize] = state;
        let new = vacant >> first & 1;
        self.len += new as usize;
        if new == 0 { Probe::Old } else { Probe::New }
    }

    /// Whether the state is in the table.
    pub(super) fn contains(&self, state: S) -> bool {
        let rest = &self.places()[self.home(state.hash_word())..];
        rest.iter().take_while(|&&place| place != S::VACANT).any(|&place| place == state)
    }

    #[cold]
    fn grow(&mut self, budget_bytes: usize) -> Result<(), Full> {
        let most = (budget_bytes.min(self.map.len()) / Self::GROUP_BYTES).saturating_sub(TAIL);
        let part = GROWTH.iter().find(|(bytes, _)| self.bytes() <= *bytes).map_or(1, |(_, part)| *part);
        let groups = (self.groups + self.groups / part).min(most);
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
            if run.len() < end - begin {
                run.resize(end - begin, S::VACANT);
            }
            let mut len = 0;
            for place in &mut places[begin..end] {
                run[len] = *place; // without a branch: whether a place is taken is a guess
                len += usize::from(!place.is(&S::VACANT));
                *place = S::VACANT;
            }
            end = begin;
            for state in &run[..len] {
                self.settle(*state);
            }
        }
        Ok(())
    }

    /// Puts a state that is counted already, and nowhere in the table, to its place.
    #[inline]
    fn settle(&mut self, state: S) {
        let mut at = self.home(state.hash_word());
        let places = self.places_mut();
        loop {
            let group = &mut places[at..at + Self::GROUP];
            let taken = group.iter().map(|place| usize::from(!place.is(&S::VACANT))).sum::<usize>();
            if let Some(place) = group.get_mut(taken) {
                *place = state;
                return;
            }
            at += Self::GROUP;
        }
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
        for state in old.iter().filter(|place| **place != S::VACANT) {
            self.settle(*state);
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
        assert!((20..=31).contains(&per_state), "{per_state} bytes for a state of 16");
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
