//! The n-th smallest of many durations, exactly, in memory that does not grow with how many there are: short ones are
//! counted nanosecond by nanosecond, only long ones are kept.

/// Durations below this, in ns, are counted; about a millisecond.
const COUNTED: u64 = 1 << 20;

/// A collection of durations in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// How often each short duration came.
    counts: Vec<u64>,
    nr_short: u64,
    long: Vec<u64>,
}

impl Times {
    /// Takes one in.
    pub(super) fn add(&mut self, time_ns: u64) {
        if time_ns >= COUNTED {
            self.long.push(time_ns);
            return;
        }
        let at = time_ns as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.nr_short += 1;
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.nr_short + self.long.len() as u64
    }

    /// The one at a place of their ascending order.
    pub(super) fn nth(&mut self, mut place: u64) -> Option<u64> {
        if place >= self.nr_short {
            self.long.sort_unstable();
            return self.long.get(usize::try_from(place - self.nr_short).ok()?).copied();
        }
        for (time_ns, &count) in (0..).zip(&self.counts) {
            if place < count {
                return Some(time_ns);
            }
            place -= count;
        }
        None
    }

    /// The upper one of the middle; none of none.
    pub(super) fn median(&mut self) -> Option<u64> {
        self.nth(self.len() / 2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_place_in_the_sorted_list(
            times in prop::collection::vec(
                prop_oneof![0..100u64, 0..COUNTED, Just(COUNTED - 1), Just(COUNTED), any::<u64>()],
                0..60,
            ),
        ) {
            let mut collected = Times::default();
            for &time in &times {
                collected.add(time);
            }
            let mut sorted = times;
            sorted.sort_unstable();
            prop_assert_eq!(collected.len(), sorted.len() as u64);
            for place in 0..=sorted.len() {
                prop_assert_eq!(collected.nth(place as u64), sorted.get(place).copied());
            }
            prop_assert_eq!(collected.median(), sorted.get(sorted.len() / 2).copied());
        }
    }
}
