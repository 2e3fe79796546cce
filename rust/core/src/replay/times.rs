//! The n-th smallest of many durations, exactly, in memory that does not grow with how many there are: short ones are
//! counted nanosecond by nanosecond, only long ones are kept.

/// Durations below this, in ns, are counted; about a millisecond.
const COUNTED: u64 = 1 << 20;
/// As long as there are no more than these, all are kept, which is less than the counts take.
const KEPT: usize = 1 << 14;

/// A collection of durations in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// How often each short duration came; empty while all durations are kept.
    counts: Vec<u64>,
    nr_short: u64,
    kept: Vec<u64>,
}

impl Times {
    /// Takes one in.
    pub(super) fn add(&mut self, time_ns: u64) {
        if self.counts.is_empty() && self.kept.len() < KEPT || time_ns >= COUNTED {
            self.kept.push(time_ns);
            return;
        }
        if self.counts.is_empty() {
            for time_ns in std::mem::take(&mut self.kept) {
                if time_ns < COUNTED { self.count(time_ns) } else { self.kept.push(time_ns) }
            }
        }
        self.count(time_ns);
    }

    fn count(&mut self, time_ns: u64) {
        let at = time_ns as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.nr_short += 1;
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.nr_short + self.kept.len() as u64
    }

    /// The one at a place of their ascending order.
    pub(super) fn nth(&mut self, mut place: u64) -> Option<u64> {
        if place >= self.nr_short {
            self.kept.sort_unstable();
            return self.kept.get(usize::try_from(place - self.nr_short).ok()?).copied();
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
            many in prop::bool::weighted(0.1),
        ) {
            let mut collected = Times::default();
            // With what is kept alone, and with counts.
            let times = if many { times.repeat(KEPT / times.len().max(1) + 1) } else { times };
            for &time in &times {
                collected.add(time);
            }
            let mut sorted = times;
            sorted.sort_unstable();
            prop_assert_eq!(collected.len(), sorted.len() as u64);
            for place in (0..=sorted.len()).step_by(1 + sorted.len() / 100) {
                prop_assert_eq!(collected.nth(place as u64), sorted.get(place).copied());
            }
            prop_assert_eq!(collected.median(), sorted.get(sorted.len() / 2).copied());
        }
    }
}
