//! The states found lately, to tell apart cheaply what need not be looked up in the table.
//!
//! Most successors are known already, and many of these are found by neighbours of one another, soon one after the other: that
//! costs no memory that is far away. States are kept whole: what is said to be known is.

use super::PackedState;

/// Bytes: a fraction of the L2 cache of a CPU.
const BYTES: usize = 256 << 10;
/// At most this part of the memory that a search may use.
const PART: usize = 64;
const LEAST_PLACES: usize = 64;

/// One state at each place that hashes lead to: the last that came.
pub(super) struct Recent<S> {
    places: Vec<S>,
    shift: u32,
}

impl<S: PackedState> Recent<S> {
    pub(super) fn new(memory_bytes: usize) -> Self {
        let places = (BYTES.min(memory_bytes / PART) / size_of::<S>()).max(LEAST_PLACES);
        let bits = places.ilog2();
        Self { places: vec![S::VACANT; 1 << bits], shift: u64::BITS - bits }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.places.len() * size_of::<S>()
    }

    /// Notes a state; tells whether it has been noted before, as far as that is still known.
    #[inline]
    pub(super) fn note(&mut self, state: S, hash: u64) -> bool {
        let place = &mut self.places[(hash >> self.shift) as usize];
        let is_known = place.is(&state);
        *place = state;
        is_known
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_knows_what_it_has_room_for_and_stays_within_its_part() {
        let mut recent = Recent::<[u64; 2]>::new(1 << 40);
        assert_eq!(recent.bytes(), BYTES);
        let states = (1..=1000).map(|n| [n, n]);
        let known = |recent: &mut Recent<_>| states.clone().filter(|s| recent.note(*s, s.hash_word())).count();
        assert_eq!(known(&mut recent), 0);
        assert!(known(&mut recent) > 900);
        assert_eq!(Recent::<[u64; 3]>::new(1 << 20).bytes(), 512 * 24);
        assert_eq!(Recent::<[u64; 1]>::new(0).bytes(), 512);
    }

    proptest! {
        /// Two states with one hash are two states.
        #[test]
        fn what_is_said_to_be_known_was_noted(states in prop::collection::vec((1..9_u64, 0..3_u64), 1..200)) {
            let mut recent = Recent::<[u64; 1]>::new(0);
            let mut noted = HashSet::new();
            for (word, hash) in states {
                let is_known = recent.note([word], hash << 62);
                prop_assert!(!is_known || noted.contains(&word));
                prop_assert!(recent.note([word], hash << 62));
                noted.insert(word);
            }
        }
    }
}
