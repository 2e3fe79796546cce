//! The set of states seen: open addressing, whole states, memory that grows in place.
//!
//! Places stand in groups of about one cache line, which are compared at once. A state's home is a group: the upper part of
//! `hash * groups`; a state whose home is full goes to the next group with room. So any number of groups will do, and the states
//! stand in the order of their hashes, but for collisions. Hence the table can grow where it is: runs of full groups are taken
//! from the last to the first, and no state moves to a lower group. No second table is needed while it grows, and address
//! space is reserved once.

#![expect(clippy::inline_always, reason = "only what is inlined is compiled for the wider registers")]

use std::hint::select_unpredictable;
use std::mem::ManuallyDrop;

use super::PackedState;
use super::group::{LINE, Look, Places, Plain, Work, widest};
use super::memory::Memory;

/// Groups after the last home, for the collisions there: far more than the longest run of a table that is not full.
const TAIL: usize = 256;
/// Groups at the start: small models should not pay for memory.
const FIRST: usize = 1 << 9;
/// A table grows when more than this part of its places is taken,
const MAX_LOAD: (usize, usize) = (18, 25);
/// or this part, if no more states are expected than that.
const FULL_LOAD: (usize, usize) = (22, 25);
/// Up to this many bytes a table doubles. What is larger grows by a third at least, so that 16 bytes of state cost at most 31; and
/// for as many states as are expected and a fifth, up to [`MOST_TIMES`], as states have to move whenever it grows.
const DOUBLES: usize = 2 << 20;
const MOST_TIMES: usize = 4;
/// Below this many bytes pages of 4 KiB serve better.
#[cfg(target_os = "linux")]
const HUGE: usize = 1 << 20;

/// The table cannot take another state within its budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// What became of a state in one group; neither if it was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Probe {
    /// It was not there, and is now.
    is_new: bool,
    /// It is not there, and there is no room.
    is_full: bool,
}

/// Bytes of a group: a line, or a state that is longer.
const fn group_bytes<S>() -> usize {
    let places = LINE / size_of::<S>();
    size_of::<S>() * if places == 0 { 1 } else { places }
}

/// A set of states.
pub(super) struct Table<S> {
    /// Taken out when the table is dropped, and only then.
    memory: ManuallyDrop<Memory>,
    groups: usize,
    len: usize,
    /// Where a state goes that has no place to go to. In memory that others could read, or the store would become a branch.
    nowhere: S,
}

impl<S: PackedState> Table<S> {
    /// Places of a group.
    const GROUP: usize = group_bytes::<S>() / size_of::<S>();
    /// Words of a state.
    const WORDS: u32 = (size_of::<S>() / 8) as u32;
    const GROUP_BYTES: usize = group_bytes::<S>();

    /// An empty table that can grow to `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Result<Self, Full> {
        let least = (FIRST + TAIL) * Self::GROUP_BYTES;
        let mut memory = Memory::new(max_bytes.max(least), least).ok_or(Full)?;
        memory.zero(0, least);
        Ok(Self { memory: ManuallyDrop::new(memory), groups: FIRST, len: 0, nowhere: S::VACANT })
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
        // SAFETY: as in `places_and_nowhere`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), (self.groups + TAIL) * Self::GROUP) }
    }

    #[inline]
    fn places_mut(&mut self) -> &mut [S] {
        self.places_and_nowhere().0
    }

    #[inline]
    fn places_and_nowhere(&mut self) -> (&mut [S], &mut S) {
        let len = (self.groups + TAIL) * Self::GROUP;
        // SAFETY: the map is zeroed, aligned to a page and at least `bytes()` long (`new`, `grow`); `PackedState` is sealed to
        // arrays of words, for which every content is valid and zeros are `VACANT`.
        (unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), len) }, &mut self.nowhere)
    }

    /// The first place of a hash's home.
    #[inline]
    const fn home(groups: usize, hash: u64) -> usize {
        ((hash as u128 * groups as u128) >> 64) as usize * Self::GROUP
    }

    /// Brings the home of a state near.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        Self::prefetch_group(self.memory.as_ptr(), Self::home(self.groups, hash));
    }

    /// Brings the group at a place of the map near.
    #[inline]
    fn prefetch_group(map: *const u8, at: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program could see, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(map.wrapping_add(at * size_of::<S>()).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (map, at);
    }

    /// Makes room for `additional` states, where all in all `expected` may come.
    #[inline]
    pub(super) fn reserve(
        &mut self,
        additional: usize,
        expected: Option<usize>,
        budget_bytes: usize,
    ) -> Result<(), Full> {
        while self.len + additional > self.most_states(MAX_LOAD) {
            if expected.is_some_and(|all| all.max(self.len + additional) <= self.most_states(FULL_LOAD)) {
                break;
            }
            self.grow(expected.unwrap_or(0), budget_bytes)?;
        }
        Ok(())
    }

    /// States at which this part of the places is taken.
    #[inline]
    const fn most_states(&self, load: (usize, usize)) -> usize {
        self.groups * Self::GROUP * load.0 / load.1
    }

    /// Adds a state for which there is room (see [`Table::reserve`]); tells whether it is new.
    pub(super) fn insert(&mut self, state: S, hash: u64) -> bool {
        let mut at = Self::home(self.groups, hash);
        let (places, nowhere) = self.places_and_nowhere();
        loop {
            // SAFETY: any CPU will do.
            let probe = unsafe { Self::probe::<Plain>(places, nowhere, state, at) };
            if !probe.is_full {
                self.len += usize::from(probe.is_new);
                return probe.is_new;
            }
            at += Self::GROUP;
        }
    }

    /// Adds states for which there is room; moves those that are new to the front and returns their number.
    ///
    /// A state whose home is full waits until the others are done: by then the next group, asked for now, is near.
    pub(super) fn insert_all(&mut self, states: &mut [S], hashes: &[u64], waiting: &mut Vec<(S, usize)>) -> usize {
        waiting.resize(states.len(), (S::VACANT, 0));
        let fresh = widest(InsertAll(self, states, hashes, waiting));
        self.len += fresh;
        fresh
    }

    /// The same. What becomes of a state is a guess at every turn, so that all of it goes without branches.
    ///
    /// # Safety
    ///
    /// As for [`Look::look`].
    #[inline(always)]
    unsafe fn insert_all_as<L: Look>(&mut self, states: &mut [S], hashes: &[u64], waiting: &mut [(S, usize)]) -> usize {
        let groups = self.groups;
        let (places, nowhere) = self.places_and_nowhere();
        // The group after `at`, brought near if it is needed.
        let near_next = |places: &[S], at: usize, probe: Probe| {
            let next = at + Self::GROUP;
            Self::prefetch_group(places.as_ptr().cast(), select_unpredictable(probe.is_full, next, at));
            next
        };
        let (mut fresh, mut nr_waiting) = (0, 0);
        for (at, &hash) in hashes[..states.len()].iter().enumerate() {
            let state = states[at];
            states[fresh] = state;
            let home = Self::home(groups, hash);
            // SAFETY: as the caller says.
            let probe = unsafe { Self::probe::<L>(places, nowhere, state, home) };
            fresh += usize::from(probe.is_new);
            waiting[nr_waiting] = (state, near_next(places, home, probe));
            nr_waiting += usize::from(probe.is_full);
        }
        while nr_waiting > 0 {
            let mut left = 0;
            for number in 0..nr_waiting {
                let (state, at) = waiting[number];
                states[fresh] = state;
                // SAFETY: as the caller says.
                let probe = unsafe { Self::probe::<L>(places, nowhere, state, at) };
                fresh += usize::from(probe.is_new);
                waiting[left] = (state, near_next(places, at, probe));
                left += usize::from(probe.is_full);
            }
            nr_waiting = left;
        }
        fresh
    }

    /// Looks for a state in one group, and puts it there if it has room.
    ///
    /// # Safety
    ///
    /// As for [`Look::look`].
    #[inline(always)]
    unsafe fn probe<L: Look>(places: &mut [S], nowhere: &mut S, state: S, at: usize) -> Probe {
        let group = &mut places[at..at + Self::GROUP];
        // SAFETY: as the caller says.
        let Places { found, vacant } = unsafe { L::look(group, &state) };
        // Places are taken in order, so that the first of all these is the state's own, old or new.
        let own = (found | vacant) & (found | vacant).wrapping_neg();
        let is_new = vacant & own != 0;
        // Without a store to a line that stays as it is: it would have to be written back to memory.
        let place = &mut group[(own.trailing_zeros() / Self::WORDS) as usize % Self::GROUP];
        *select_unpredictable(is_new, place, nowhere) = state;
        Probe { is_new, is_full: own == 0 }
    }

    /// Whether the state is in the table.
    pub(super) fn contains(&self, state: S) -> bool {
        let rest = &self.places()[Self::home(self.groups, state.hash_word())..];
        rest.iter().take_while(|&&place| place != S::VACANT).any(|&place| place == state)
    }

    #[cold]
    fn grow(&mut self, expected: usize, budget_bytes: usize) -> Result<(), Full> {
        let most = (budget_bytes.min(self.memory.len()) / Self::GROUP_BYTES).saturating_sub(TAIL);
        let with_margin = expected.saturating_add(expected / 5);
        let wanted = with_margin.saturating_mul(MAX_LOAD.1) / (Self::GROUP * MAX_LOAD.0);
        let third = self.groups + self.groups / 3;
        let least = if self.bytes() <= DOUBLES { 2 * self.groups } else { third };
        // Near the budget not all of it at once: frontiers have to grow as well.
        let half = self.groups.midpoint(most.max(self.groups));
        let groups = wanted.clamp(least, MOST_TIMES * self.groups).min(half.max(third)).min(most);
        if groups < self.groups + self.groups / 16 {
            return Err(Full);
        }
        let (end, end_bytes) = (self.places().len(), size_of_val(self.places()));
        self.groups = groups;
        #[cfg(target_os = "linux")]
        if !self.memory.is_huge() && self.bytes() > HUGE && self.bytes() + end_bytes <= budget_bytes {
            return self.move_to_huge_pages(end);
        }
        let bytes = self.bytes();
        self.memory.zero(end_bytes, bytes);
        widest(Regroup(self, end));
        Ok(())
    }

    /// Takes the states of the first `end` places to the groups that are theirs now, from the last to the first.
    ///
    /// # Safety
    ///
    /// As for [`Look::look`].
    #[inline(always)]
    unsafe fn regroup<L: Look>(&mut self, mut end: usize) {
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
                // SAFETY: as the caller says.
                unsafe { self.settle::<L>(*state) };
            }
        }
    }

    /// Puts a state that is counted already, and nowhere in the table, to its place.
    ///
    /// # Safety
    ///
    /// As for [`Look::look`].
    #[inline(always)]
    unsafe fn settle<L: Look>(&mut self, state: S) {
        let mut at = Self::home(self.groups, state.hash_word());
        let places = self.places_mut();
        loop {
            let group = &mut places[at..at + Self::GROUP];
            // SAFETY: as the caller says.
            let vacant = unsafe { L::look(group, &state) }.vacant;
            if vacant != 0 {
                group[(vacant.trailing_zeros() / Self::WORDS) as usize % Self::GROUP] = state;
                return;
            }
            at += Self::GROUP;
        }
    }

    /// Takes the first `end` places to a new map of huge pages: memory that was touched before the advice would keep its
    /// small ones, and an address in four would be looked up slowly for good.
    #[cfg(target_os = "linux")]
    fn move_to_huge_pages(&mut self, end: usize) -> Result<(), Full> {
        let new = Memory::huge(self.memory.len(), self.bytes()).ok_or(Full)?;
        let old_memory = std::mem::replace(&mut *self.memory, new);
        // SAFETY: as in `places_and_nowhere`; `end` places of the old map were in use.
        let old: &[S] = unsafe { std::slice::from_raw_parts(old_memory.as_ptr().cast(), end) };
        for state in old.iter().filter(|place| **place != S::VACANT) {
            // SAFETY: any CPU will do.
            unsafe { self.settle::<Plain>(*state) };
        }
        Ok(())
    }
}

impl<S> Drop for Table<S> {
    fn drop(&mut self) {
        let used_bytes = (self.groups + TAIL) * group_bytes::<S>();
        // SAFETY: here only, and it is used no more.
        unsafe { ManuallyDrop::take(&mut self.memory) }.give_back(used_bytes);
    }
}

/// [`Table::insert_all`] with its arguments.
struct InsertAll<'a, S>(&'a mut Table<S>, &'a mut [S], &'a [u64], &'a mut [(S, usize)]);

impl<S: PackedState> Work for InsertAll<'_, S> {
    type Output = usize;

    #[inline(always)]
    unsafe fn with<L: Look>(self) -> usize {
        // SAFETY: as the caller says.
        unsafe { self.0.insert_all_as::<L>(self.1, self.2, self.3) }
    }
}

/// [`Table::regroup`] with its argument.
struct Regroup<'a, S>(&'a mut Table<S>, usize);

impl<S: PackedState> Work for Regroup<'_, S> {
    type Output = ();

    #[inline(always)]
    unsafe fn with<L: Look>(self) {
        // SAFETY: as the caller says.
        unsafe { self.0.regroup::<L>(self.1) }
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
            table.reserve(1, None, 64 << 20).unwrap();
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
    fn it_grows_by_what_is_expected_a_third_at_least_and_at_most_four_times() {
        let full = || {
            let mut table = Table::<[u64; 2]>::new(64 << 20).unwrap();
            while table.bytes() <= DOUBLES {
                table.grow(0, 64 << 20).unwrap();
            }
            table.len = table.most_states(MAX_LOAD);
            table
        };
        let grown = |expected_per_cent: usize| {
            let mut table = full();
            let groups = table.groups;
            table.reserve(1, Some(table.len * expected_per_cent / 100), 64 << 20).unwrap();
            table.groups * 100 / groups // per cent
        };
        assert_eq!((grown(100), grown(120), grown(123)), (100, 100, 147), "what fits is not worth a move");
        assert_eq!((grown(200), grown(1000)), (239, 400));
        let mut table = full();
        let groups = table.groups;
        table.reserve(1, None, 64 << 20).unwrap();
        assert_eq!(table.groups, groups + groups / 3);
        table.len = table.most_states(FULL_LOAD);
        table.reserve(1, Some(0), 64 << 20).unwrap();
        assert_eq!(table.groups, (groups + groups / 3) * 4 / 3, "whatever was expected, there is room for what comes");
    }

    #[test]
    fn near_the_budget_it_leaves_room_for_frontiers() {
        let mut table = Table::<[u64; 2]>::new(64 << 20).unwrap();
        while table.bytes() <= 8 << 20 {
            table.grow(0, 64 << 20).unwrap();
        }
        let before = table.bytes();
        table.grow(1 << 30, 16 << 20).unwrap();
        assert!(before.midpoint(16 << 20) >= table.bytes() && table.bytes() >= before * 5 / 4, "{}", table.bytes());
    }

    #[test]
    fn the_budget_is_kept() {
        let budget = 1 << 20;
        let mut table = Table::<[u64; 2]>::new(budget).unwrap();
        let mut n = 0;
        while table.reserve(1, None, budget).is_ok() {
            n += 1;
            table.insert([1, n], [1, n].hash_word());
            assert!(table.bytes() <= budget);
        }
        assert!(n * 16 * 3 > budget as u64, "{n} states in a budget of {budget} bytes");
    }
}
