//! The search over schedules of a parallel step: entry by entry, back to earlier entries where one cannot be right.
//!
//! Several schedules may suit an entry, and leave different states; which of them was the kernel's shows only later. So an
//! entry that no schedule makes right lets the entries before it be done again, up to [`MAX_BACK`] of them, under each
//! schedule that suits them as well as the first one did; what is kept has the fewest differences in sum. How much is tried
//! in a step is bounded ([`MAX_RECORDS`]), not by a clock, so that a replay comes out the same on every run.

use super::lab::Entries;
use super::parallel_step::{Item, ParallelSteps, Way};
use crate::trace::{EventKind, Recording};

/// Schedules tried from the end of one entry to the end of the next: each of four tasks stopping or running on, all
/// switches at once or late, and as many that mix these.
const MAX_SCHEDULES: u64 = 64;
/// Tasks for which stopping or running on all the way is tried in every combination.
const MAX_UNIFORM_TASKS: u32 = 4;
/// Entries that are done again if the one after them cannot be right.
const MAX_BACK: usize = 3;
/// Records that may be gone through in a step while entries are done again.
const MAX_RECORDS: usize = 60_000;

/// Which schedule is tried: how far a task runs beyond a record, whether a switch is late.
#[derive(Clone, Copy)]
pub(super) struct Schedule(u64);

impl Schedule {
    /// Whether the `nth` task runs on to just before its next sign after the `at`-th record.
    pub(super) fn runs_on(self, nth: u32, at: usize) -> bool {
        if self.0 < 2 << MAX_UNIFORM_TASKS {
            return self.0 >> nth.min(MAX_UNIFORM_TASKS - 1) & 1 != 0;
        }
        self.drawn(nth, at)
    }

    /// Whether a request at the `at`-th record raises the generation late.
    pub(super) fn is_slow(self, at: usize) -> bool {
        if self.0 < 2 << MAX_UNIFORM_TASKS {
            return false;
        }
        self.drawn(u32::MAX - 1, at)
    }

    /// Whether a switch at the `at`-th record takes effect late.
    pub(super) fn is_late(self, at: usize) -> bool {
        if self.0 < 2 << MAX_UNIFORM_TASKS {
            return self.0 >> MAX_UNIFORM_TASKS & 1 != 0;
        }
        self.drawn(u32::MAX, at)
    }

    fn drawn(self, nth: u32, at: usize) -> bool {
        let mut x = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(nth) << 32 | at as u64);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) & 1 != 0
    }
}

/// The records from the end of one entry to the end of the next.
#[derive(Clone, Copy)]
struct Segment {
    from: usize,
    to: usize,
    entry: Option<usize>,
}

/// A segment that was gone through: where it began, and under which schedule.
#[derive(Clone)]
struct Done<'a> {
    /// None if it is not gone to again.
    before: Option<Way<'a>>,
    schedule: u64,
    nr_differences: usize,
}

/// What a search came to.
pub(super) struct Found<'a> {
    /// The end of the step.
    pub(super) way: Way<'a>,
    /// Its entries.
    pub(super) nr_entries: usize,
    /// Those that are right in every column.
    pub(super) nr_exact: usize,
    /// Schedules tried, of one segment each.
    pub(super) nr_schedules: u64,
}

/// A step that is searched.
pub(super) struct Search<'s> {
    steps: &'s ParallelSteps,
    items: &'s [Item],
    segments: Vec<Segment>,
    nr_schedules: u64,
    /// Records that may still be gone through again.
    nr_left: usize,
}

impl<'s> Search<'s> {
    pub(super) fn new(steps: &'s ParallelSteps, items: &'s [Item], recording: &Recording) -> Self {
        let segments = segments(steps.entries(), items, recording);
        Self { steps, items, segments, nr_schedules: 0, nr_left: MAX_RECORDS }
    }

    /// Goes through the step; none if no schedule could be carried out somewhere.
    pub(super) fn run<'a>(mut self, mut way: Way<'a>) -> Option<Found<'a>> {
        let mut done: Vec<Done<'a>> = Vec::new();
        for at in 0..self.segments.len() {
            let (schedule, nr_differences, after) = self.best(&way, at, 0, 0)?;
            done.push(Done { before: Some(way), schedule, nr_differences });
            way = after;
            if nr_differences > 0 {
                for back in 1..=MAX_BACK.min(at) {
                    if let Some((again, after)) = self.again(&done, at, back) {
                        done.truncate(at - back);
                        done.extend(again);
                        way = after;
                        break;
                    }
                }
            }
            // What lies further back is not gone to again.
            if let Some(old) = at.checked_sub(MAX_BACK + 1) {
                done[old].before = None;
            }
        }
        let entries = || self.segments.iter().zip(&done).filter(|(segment, _)| segment.entry.is_some());
        Some(Found {
            way,
            nr_entries: entries().count(),
            nr_exact: entries().filter(|(_, done)| done.nr_differences == 0).count(),
            nr_schedules: self.nr_schedules,
        })
    }

    /// The first schedule from `first` on under which a segment has at most `enough` differences, else that with the fewest.
    fn best<'a>(&mut self, way: &Way<'a>, at: usize, first: u64, enough: usize) -> Option<(u64, usize, Way<'a>)> {
        let segment = self.segments[at];
        let mut best: Option<(u64, usize, Way<'a>)> = None;
        for schedule in first..MAX_SCHEDULES {
            let mut trial = way.clone();
            self.nr_schedules += 1;
            self.nr_left = self.nr_left.saturating_sub(segment.to - segment.from);
            if trial.go(self.items, segment.from, segment.to, Schedule(schedule)).is_err() {
                continue;
            }
            let nr = segment.entry.map_or(0, |entry| trial.nr_differences(self.steps, entry));
            if best.as_ref().is_none_or(|(_, least, _)| nr < *least) {
                best = Some((schedule, nr, trial));
            }
            if nr <= enough {
                break;
            }
        }
        best
    }

    /// Does the `back` segments before `at` again, the first of them under another schedule, and `at` after them; nothing
    /// if that is not better in sum.
    fn again<'a>(&mut self, done: &[Done<'a>], at: usize, back: usize) -> Option<(Vec<Done<'a>>, Way<'a>)> {
        let from = at - back;
        let before = done[from].before.as_ref()?;
        let old: usize = done[from..].iter().map(|done| done.nr_differences).sum();
        let mut least = old;
        let mut found = None;
        let mut next = done[from].schedule + 1;
        while next < MAX_SCHEDULES && least > 0 && self.nr_left > 0 {
            let (schedule, nr, mut way) = self.best(before, from, next, done[from].nr_differences)?;
            next = schedule + 1;
            if nr > done[from].nr_differences {
                break;
            }
            let mut again = vec![Done { before: Some(before.clone()), schedule, nr_differences: nr }];
            let mut sum = nr;
            for later in from + 1..=at {
                if sum >= least {
                    break;
                }
                let Some((schedule, nr, after)) = self.best(&way, later, 0, 0) else {
                    sum = usize::MAX;
                    break;
                };
                sum += nr;
                again.push(Done { before: Some(std::mem::replace(&mut way, after)), schedule, nr_differences: nr });
            }
            if sum < least {
                least = sum;
                found = Some((again, way));
            }
        }
        found
    }
}

fn segments(entries: &Entries, items: &[Item], recording: &Recording) -> Vec<Segment> {
    let ends_entry = |item: &Item| {
        let Item::Event(row) = *item else { return None };
        let is_end = recording.events.kind[row] == EventKind::StepEnd.number();
        entries.of_event(row).filter(|_| is_end)
    };
    let mut segments = Vec::new();
    let mut from = 0;
    while from < items.len() {
        let end = (from..items.len()).find(|at| ends_entry(&items[*at]).is_some());
        let to = end.map_or(items.len(), |at| at + 1);
        segments.push(Segment { from, to, entry: end.and_then(|at| ends_entry(&items[at])) });
        from = to;
    }
    segments
}
