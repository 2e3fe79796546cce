//! One set-associative array, held for many CPUs at once as flat columns `[cpu][set][way]`.
//!
//! The set of a page is its number, in units of its own page size, modulo the number of sets (any number, powers of
//! two are only faster). Two layouts of a set, by the policy:
//! - ordered (LRU, FIFO): entries stand at the front, the one to be evicted last; so a repeated hit finds its tag
//!   first, and exact LRU needs neither stamps nor ranks;
//! - fixed (tree PLRU, random): an entry stays in its way; empty ways are filled before any entry is evicted.
//!
//! Memory: 16 bytes per slot. The columns come zeroed from the operating system, which backs only what is touched, so
//! CPUs that never run cost nothing; 4096 CPUs with the default geometry stay below 120 MiB when all are full.
//!
//! The array does not know PCIDs: callers pass [`Key`]s and are told the tags of entries that left.

use serde::{Deserialize, Serialize};

use super::entry::{Key, tag_number, tag_size_index};
use super::geometry::ArrayGeometry;

/// Which entry of a full set makes room for a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Replacement {
    /// The entry used longest ago, exactly.
    #[default]
    Lru,
    /// The entry that a binary tree of use bits points at; needs a power of two of at most 64 ways.
    TreePlru,
    /// The entry inserted longest ago; hits and overwrites do not move it.
    Fifo,
    /// An entry drawn by a generator that is seeded per CPU from `seed`.
    Random {
        /// The seed: equal seeds give equal runs.
        seed: u64,
    },
}

/// A set-associative array of `(tag, data)` slots for each of many CPUs.
#[derive(Clone, Debug)]
pub struct SetArray {
    nr_sets: usize,
    ways: usize,
    /// `nr_sets - 1` if that is a mask.
    set_mask: Option<u64>,
    replacement: Replacement,
    /// `[cpu][set][way]`; 0 = empty.
    tags: Vec<u64>,
    /// `[cpu][set][way]`.
    data: Vec<u64>,
    /// `[cpu][set / 64]`: a bit for each set that holds an entry, so that flushes of a sparse array are cheap.
    used_sets: Vec<u64>,
    /// `[cpu][set]`: the tree's bits, only for [`Replacement::TreePlru`].
    trees: Vec<u64>,
    /// `[cpu]`: the generator's state, only for [`Replacement::Random`].
    draws: Vec<u64>,
    /// `[cpu][page size]`: entries held; tells at once that a look-up must miss.
    nr_used: Vec<[u32; 3]>,
}

impl SetArray {
    /// Empty arrays of a valid `geometry` for `nr_cpus` CPUs.
    pub fn new(geometry: ArrayGeometry, replacement: Replacement, nr_cpus: usize) -> Self {
        let ways = geometry.ways as usize;
        let nr_sets = geometry.nr_sets() as usize;
        let nr_slots = nr_cpus * nr_sets * ways;
        let trees = if replacement == Replacement::TreePlru { nr_cpus * nr_sets } else { 0 };
        let draws = match replacement {
            Replacement::Random { seed } => (0..nr_cpus as u64).map(|cpu| mix(seed ^ mix(cpu))).collect(),
            _ => Vec::new(),
        };
        Self {
            nr_sets,
            ways,
            set_mask: nr_sets.is_power_of_two().then(|| nr_sets as u64 - 1),
            replacement,
            tags: vec![0; nr_slots],
            data: vec![0; nr_slots],
            used_sets: vec![0; nr_cpus * nr_sets.div_ceil(64)],
            trees: vec![0; trees],
            draws,
            nr_used: vec![[0; 3]; nr_cpus],
        }
    }

    /// Entries that `cpu` holds.
    #[inline]
    pub fn nr_used(&self, cpu: usize) -> u32 {
        self.nr_used[cpu].iter().sum()
    }

    /// Whether the array has no slots at all.
    #[inline]
    pub const fn is_absent(&self) -> bool {
        self.nr_sets == 0
    }

    /// Whether the entries of a set stand in front, in the order of their eviction.
    #[inline]
    const fn is_ordered(&self) -> bool {
        matches!(self.replacement, Replacement::Lru | Replacement::Fifo)
    }

    #[inline]
    fn set_of(&self, tag: u64) -> usize {
        let number = tag_number(tag);
        (match self.set_mask {
            Some(mask) => number & mask,
            None => number % self.nr_sets as u64,
        }) as usize
    }

    /// The first slot of a set.
    #[inline]
    const fn base(&self, cpu: usize, set: usize) -> usize {
        (cpu * self.nr_sets + set) * self.ways
    }

    /// The set of `key` and the slot that matches it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "most look-ups end at the first test, several of them per access")]
    fn find(&self, cpu: usize, key: Key) -> Option<(usize, usize)> {
        if self.nr_used[cpu][tag_size_index(key.private)] == 0 {
            return None;
        }
        self.probe(cpu, key)
    }

    fn probe(&self, cpu: usize, key: Key) -> Option<(usize, usize)> {
        let set = self.set_of(key.private);
        let base = self.base(cpu, set);
        let way = self.tags[base..base + self.ways].iter().position(|&tag| tag == key.private || tag == key.global)?;
        Some((set, base + way))
    }

    /// The matching entry's tag and data; nothing changes.
    #[inline]
    pub fn peek(&self, cpu: usize, key: Key) -> Option<(u64, u64)> {
        self.find(cpu, key).map(|(_, slot)| (self.tags[slot], self.data[slot]))
    }

    /// The matching entry's tag and data, which counts as a use of it.
    #[inline]
    pub fn hit(&mut self, cpu: usize, key: Key) -> Option<(u64, u64)> {
        let (set, slot) = self.find(cpu, key)?;
        let found = (self.tags[slot], self.data[slot]);
        self.touch(cpu, set, slot);
        Some(found)
    }

    /// Replaces the data of the matching entry, which is no use of it. Tells whether there was one.
    pub fn update(&mut self, cpu: usize, key: Key, change: impl FnOnce(u64) -> u64) -> bool {
        let Some((_, slot)) = self.find(cpu, key) else {
            return false;
        };
        self.data[slot] = change(self.data[slot]);
        true
    }

    /// Puts an entry in, as the most recently used; one that matches `key` is overwritten in its place.
    ///
    /// Returns the tag of the entry that made room, by being overwritten or evicted. The array must not be absent.
    pub fn insert(&mut self, cpu: usize, key: Key, global: bool, data: u64) -> Option<u64> {
        let found = self.find(cpu, key);
        self.put(cpu, key.tag(global), data, found)
    }

    /// As [`Self::insert`], of a key of which a look-up has just found no entry.
    pub fn insert_absent(&mut self, cpu: usize, key: Key, global: bool, data: u64) -> Option<u64> {
        debug_assert!(self.find(cpu, key).is_none(), "there is an entry");
        self.put(cpu, key.tag(global), data, None)
    }

    /// Puts an entry in, over the one found.
    #[inline]
    fn put(&mut self, cpu: usize, tag: u64, data: u64, found: Option<(usize, usize)>) -> Option<u64> {
        let (displaced, set, slot) = if let Some((set, slot)) = found {
            self.touch(cpu, set, slot);
            // An ordered set keeps its most recently used entry in front.
            let slot = if self.replacement == Replacement::Lru { self.base(cpu, set) } else { slot };
            (self.tags[slot], set, slot)
        } else {
            let set = self.set_of(tag);
            let slot = self.make_room(cpu, set);
            (self.tags[slot], set, slot)
        };
        self.tags[slot] = tag;
        self.data[slot] = data;
        self.used_sets[cpu * self.nr_sets.div_ceil(64) + set / 64] |= 1 << (set % 64);
        self.nr_used[cpu][tag_size_index(tag)] += 1;
        if displaced == 0 {
            return None;
        }
        self.nr_used[cpu][tag_size_index(displaced)] -= 1;
        Some(displaced)
    }

    /// The slot for a new entry of a set; a tag that is still in it is the victim's.
    fn make_room(&mut self, cpu: usize, set: usize) -> usize {
        let (base, ways) = (self.base(cpu, set), self.ways);
        match self.replacement {
            Replacement::Lru | Replacement::Fifo => {
                // Entries stand in front: no more need to move than there are.
                let tags = &mut self.tags[base..base + ways];
                let nr_behind = tags.iter().position(|&tag| tag == 0).unwrap_or(ways - 1);
                let victim = tags[nr_behind];
                let data = &mut self.data[base..base + ways];
                for way in (0..nr_behind).rev() {
                    tags[way + 1] = tags[way];
                    data[way + 1] = data[way];
                }
                tags[0] = victim;
                base
            }
            Replacement::TreePlru => {
                let way = self.empty_way(base).unwrap_or_else(|| {
                    let tree = self.trees[cpu * self.nr_sets + set];
                    let mut node = 1;
                    while node < ways {
                        node = 2 * node + (tree >> node & 1) as usize;
                    }
                    node - ways
                });
                self.touch(cpu, set, base + way);
                base + way
            }
            Replacement::Random { .. } => base + self.empty_way(base).unwrap_or_else(|| self.draw(cpu, ways)),
        }
    }

    fn empty_way(&self, base: usize) -> Option<usize> {
        self.tags[base..base + self.ways].iter().position(|&tag| tag == 0)
    }

    /// A number below `bound`; bias is below 2^-32 for any real number of ways.
    fn draw(&mut self, cpu: usize, bound: usize) -> usize {
        let state = &mut self.draws[cpu];
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(*state)) * bound as u128) >> 64) as usize
    }

    /// Moves a slot to the front of its set and the slots before it one back.
    #[inline]
    fn bring_to_front(&mut self, base: usize, slot: usize) {
        let (tags, data) = (&mut self.tags[base..=slot], &mut self.data[base..=slot]);
        // Sets are short: a loop is over before a call of memmove would begin.
        let (tag, word) = (tags[slot - base], data[slot - base]);
        for way in (1..tags.len()).rev() {
            tags[way] = tags[way - 1];
            data[way] = data[way - 1];
        }
        (tags[0], data[0]) = (tag, word);
    }

    #[inline]
    fn touch(&mut self, cpu: usize, set: usize, slot: usize) {
        let base = self.base(cpu, set);
        match self.replacement {
            Replacement::Lru if slot == base => {}
            Replacement::Lru => self.bring_to_front(base, slot),
            Replacement::TreePlru => {
                // Every node on the way points to the half that was not used.
                let tree = &mut self.trees[cpu * self.nr_sets + set];
                let mut node = self.ways + slot - base;
                while node > 1 {
                    let was_right = node & 1;
                    node /= 2;
                    *tree = *tree & !(1 << node) | ((was_right as u64 ^ 1) << node);
                }
            }
            Replacement::Fifo | Replacement::Random { .. } => {}
        }
    }

    /// Drops the matching entry and returns its tag.
    #[inline]
    pub fn remove(&mut self, cpu: usize, key: Key) -> Option<u64> {
        let (set, slot) = self.find(cpu, key)?;
        let tag = self.tags[slot];
        self.vacate(cpu, set, slot);
        self.unmark_if_empty(cpu, set);
        Some(tag)
    }

    /// Drops those entries of the key's set whose tag `drop` says yes to.
    pub fn remove_in_set(&mut self, cpu: usize, key: Key, drop: impl FnMut(u64) -> bool) {
        if !self.is_absent() && self.nr_used(cpu) > 0 {
            self.clean_set(cpu, self.set_of(key.private), drop);
        }
    }

    /// Drops the entries whose tag `drop` says yes to; only sets that hold something are read. `limit` is how many there
    /// are at most: when so many were found, the rest of the scan is saved. Returns how many were dropped.
    pub fn remove_if(&mut self, cpu: usize, limit: u32, mut drop: impl FnMut(u64) -> bool) -> u32 {
        let words = self.nr_sets.div_ceil(64);
        let mut nr_left = limit.min(self.nr_used(cpu));
        if nr_left == 0 {
            return 0;
        }
        let nr_start = nr_left;
        for word in 0..words {
            let mut bits = self.used_sets[cpu * words + word];
            while bits != 0 && nr_left > 0 {
                let set = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                nr_left -= self.clean_set(cpu, set, &mut drop).min(nr_left);
            }
        }
        nr_start - nr_left
    }

    fn clean_set(&mut self, cpu: usize, set: usize, mut drop: impl FnMut(u64) -> bool) -> u32 {
        let base = self.base(cpu, set);
        let is_ordered = self.is_ordered();
        let mut nr_dropped = 0;
        for slot in base..base + self.ways {
            let tag = self.tags[slot];
            if tag == 0 {
                if is_ordered {
                    break;
                }
            } else if drop(tag) {
                self.nr_used[cpu][tag_size_index(tag)] -= 1;
                self.tags[slot] = 0;
                nr_dropped += 1;
            } else if is_ordered && nr_dropped > 0 {
                // Those that stay close the gap in their order.
                self.tags[slot] = 0;
                self.tags[slot - nr_dropped] = tag;
                self.data[slot - nr_dropped] = self.data[slot];
            }
        }
        if nr_dropped > 0 {
            self.unmark_if_empty(cpu, set);
        }
        nr_dropped as u32
    }

    /// Empties a slot; an ordered set closes the gap.
    fn vacate(&mut self, cpu: usize, set: usize, slot: usize) {
        self.nr_used[cpu][tag_size_index(self.tags[slot])] -= 1;
        let end = self.base(cpu, set) + self.ways;
        let mut last = slot;
        if self.is_ordered() {
            // Entries stand in front: the first empty slot ends them.
            while last + 1 < end && self.tags[last + 1] != 0 {
                self.tags[last] = self.tags[last + 1];
                self.data[last] = self.data[last + 1];
                last += 1;
            }
        }
        self.tags[last] = 0;
    }

    fn unmark_if_empty(&mut self, cpu: usize, set: usize) {
        let base = self.base(cpu, set);
        let nr_looked_at = if self.is_ordered() { 1 } else { self.ways };
        if self.tags[base..base + nr_looked_at].iter().all(|&tag| tag == 0) {
            self.used_sets[cpu * self.nr_sets.div_ceil(64) + set / 64] &= !(1 << (set % 64));
        }
    }

    /// Whether `cpu` holds an entry whose tag `is` says yes to.
    pub fn any(&self, cpu: usize, mut is: impl FnMut(u64) -> bool) -> bool {
        let words = self.nr_sets.div_ceil(64);
        if self.nr_used(cpu) == 0 {
            return false;
        }
        for word in 0..words {
            let mut bits = self.used_sets[cpu * words + word];
            while bits != 0 {
                let base = self.base(cpu, word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
                if self.tags[base..base + self.ways].iter().any(|&tag| tag != 0 && is(tag)) {
                    return true;
                }
            }
        }
        false
    }

    /// The tags and data that `cpu` holds, set by set; within a set in the order of the slots.
    pub fn iter(&self, cpu: usize) -> impl Iterator<Item = (u64, u64)> + '_ {
        let words = self.nr_sets.div_ceil(64);
        (0..words).flat_map(move |word| {
            let lowest = |rest: u64| (rest != 0).then_some(rest);
            let used = std::iter::successors(lowest(self.used_sets[cpu * words + word]), move |bits| {
                lowest(bits & (bits - 1))
            });
            used.flat_map(move |bits| {
                let base = self.base(cpu, word * 64 + bits.trailing_zeros() as usize);
                let slots = base..base + self.ways;
                self.tags[slots.clone()]
                    .iter()
                    .copied()
                    .zip(self.data[slots].iter().copied())
                    .filter(|slot| slot.0 != 0)
            })
        })
    }
}

/// The finalizer of SplitMix64: a bijection whose outputs look independent.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
