//! The search over schedules of a parallel step: entry by entry, back to earlier entries where one cannot be right.
//!
//! Several schedules may suit an entry, and leave different states; which of them was the kernel's shows only later. So an
//! entry that no schedule makes right lets the entries before it be done again, up to [`MAX_BACK`] of them, under each
//! schedule that suits them as well as the first one did; what is kept has the fewest differences in sum. How much is tried
//! in a step is bounded ([`MAX_RECORDS`]), not by a clock, so that a replay comes out the same on every run.

use rustc_hash::FxHashMap;

use super::lab::Entries;
use super::lab::recorded::requests_of;
use super::parallel_step::{Check, Item, ParallelSteps, Step, Way};
use crate::addr::PMD_SIZE;
use crate::trace::{EventKind, FlushKind, Recording};

/// Tasks for which stopping or running on all the way is tried in every combination.
const MAX_UNIFORM_TASKS: u32 = 4;
/// Schedules that mix these, tried after those.
const NR_DRAWN: u64 = 32;
/// Records at which a walk may have stopped on the way.
const MAX_STOPS: usize = 12;
/// Entries that are done again if the one after them cannot be right.
const MAX_BACK: usize = 3;
/// Records that may be gone through in a step; beyond, the first schedule that can be carried out is taken.
const MAX_RECORDS: usize = 24_000;

/// Which schedule is tried: how far a task runs beyond a record, whether a switch is late.
#[derive(Clone, Copy)]
pub(super) struct Schedule {
    /// A bit for each task: it runs on.
    runs_on: u64,
    /// Switches take effect late.
    is_late: bool,
    /// The targets of requests are chosen again before the first CPU executes them.
    chooses_again: bool,
    /// All of it is drawn, for each record.
    drawn: Option<u64>,
    /// The record before which a walk stopped.
    stop: Option<usize>,
}

impl Schedule {
    /// The schedules of a part, one by one: each of the tasks stopping or running on with all switches at once or late and
    /// targets chosen once or again; then as many that mix these; then the walk stopped at one of the records.
    fn nth(index: u64, nr_tasks: u32, stops: &[usize]) -> Option<Self> {
        let nr_runs = 1 << nr_tasks.min(MAX_UNIFORM_TASKS);
        let plain = Self { runs_on: 0, is_late: false, chooses_again: false, drawn: None, stop: None };
        let nr_uniform = 4 * nr_runs;
        if index < nr_uniform {
            let (runs_on, how) = (index % nr_runs, index / nr_runs);
            return Some(Self { runs_on, is_late: how & 1 != 0, chooses_again: how & 2 != 0, ..plain });
        }
        let index = index - nr_uniform;
        if index < NR_DRAWN {
            return Some(Self { drawn: Some(index + NR_DRAWN), ..plain });
        }
        let index = usize::try_from(index - NR_DRAWN).unwrap_or(usize::MAX);
        let stop = stops.get(index / 2).copied()?;
        Some(Self { runs_on: if index % 2 == 0 { u64::MAX } else { 0 }, stop: Some(stop), ..plain })
    }

    /// Whether the `nth` task runs on to just before its next sign after the `at`-th record.
    pub(super) fn runs_on(self, nth: u32, at: usize) -> bool {
        self.draw(nth, at).unwrap_or(self.runs_on >> nth.min(MAX_UNIFORM_TASKS - 1) & 1 != 0)
    }

    /// Whether a request at the `at`-th record raises the generation late.
    pub(super) fn is_slow(self, at: usize) -> bool {
        self.draw(u32::MAX - 1, at).unwrap_or(false)
    }

    /// Whether a switch at the `at`-th record takes effect late.
    pub(super) fn is_late(self, at: usize) -> bool {
        self.draw(u32::MAX, at).unwrap_or(self.is_late)
    }

    /// Whether the request that is first executed at the `at`-th record had its targets chosen again.
    pub(super) fn chooses_again(self, at: usize) -> bool {
        self.draw(u32::MAX - 2, at).unwrap_or(self.chooses_again)
    }

    /// Whether a walk stopped on the way to the `at`-th record.
    pub(super) fn stops(self, at: usize) -> bool {
        self.stop == Some(at)
    }

    fn draw(self, nth: u32, at: usize) -> Option<bool> {
        let mut x = self.drawn?.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(nth) << 32 | at as u64);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((x ^ (x >> 31)) & 1 != 0)
    }
}

/// The records from the end of one entry to the end of the next, or, of an entry that ran alone, from request to request.
#[derive(Clone)]
struct Segment {
    from: usize,
    to: usize,
    check: Option<Check>,
    /// Records in it before which a walk may have stopped.
    stops: Vec<usize>,
}

impl Segment {
    const fn ends_entry(&self) -> bool {
        matches!(self.check, Some(Check::Entry(_)))
    }
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
    /// The flush records of each request, if one entry ran alone.
    requests: Vec<Vec<usize>>,
    nr_tasks: u32,
    nr_schedules: u64,
    /// Records that may still be gone through.
    nr_left: usize,
}

impl<'s> Search<'s> {
    pub(super) fn new(steps: &'s ParallelSteps, step: Step, items: &'s [Item], recording: &Recording) -> Self {
        let entries = steps.entries();
        let requests = step.alone.map_or(Vec::new(), |entry| requests_of(recording, entries, entry));
        let segments = segments(entries, step.alone, &requests, items, recording);
        let mut tasks: Vec<u32> = items.iter().filter_map(|item| beginning(item, recording)).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let nr_tasks = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        Self { steps, items, segments, requests, nr_tasks, nr_schedules: 0, nr_left: MAX_RECORDS }
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
        let entries = || self.segments.iter().zip(&done).filter(|(segment, _)| segment.ends_entry());
        Some(Found {
            way,
            nr_entries: entries().count(),
            nr_exact: entries().filter(|(_, done)| done.nr_differences == 0).count(),
            nr_schedules: self.nr_schedules,
        })
    }

    /// The first schedule from `first` on under which a segment has at most `enough` differences, else that with the fewest.
    fn best<'a>(&mut self, way: &Way<'a>, at: usize, first: u64, enough: usize) -> Option<(u64, usize, Way<'a>)> {
        let segment = self.segments[at].clone();
        let mut best: Option<(u64, usize, Way<'a>)> = None;
        for index in first.. {
            let Some(schedule) = Schedule::nth(index, self.nr_tasks, &segment.stops) else { break };
            let mut trial = way.clone();
            self.nr_schedules += 1;
            self.nr_left = self.nr_left.saturating_sub(segment.to - segment.from);
            if trial.go(self.items, segment.from, segment.to, schedule).is_err() {
                continue;
            }
            let nr = segment.check.map_or(0, |check| trial.nr_differences(self.steps, check, &self.requests));
            if best.as_ref().is_none_or(|(_, least, _)| nr < *least) {
                best = Some((index, nr, trial));
            }
            if nr <= enough || self.nr_left == 0 {
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
        while least > 0 && self.nr_left > 0 {
            let Some((schedule, nr, mut way)) = self.best(before, from, next, done[from].nr_differences) else { break };
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

/// The task that begins an entry with a record.
fn beginning(item: &Item, recording: &Recording) -> Option<u32> {
    let Item::Event(row) = *item else { return None };
    (recording.events.kind[row] == EventKind::StepBegin.number()).then(|| recording.events.task[row])
}

fn segments(
    entries: &Entries,
    alone: Option<usize>,
    requests: &[Vec<usize>],
    items: &[Item],
    recording: &Recording,
) -> Vec<Segment> {
    let ends_entry = |item: &Item| {
        let Item::Event(row) = *item else { return None };
        let is_end = recording.events.kind[row] == EventKind::StepEnd.number();
        entries.of_event(row).filter(|_| is_end)
    };
    let mut ends: Vec<(usize, Option<Check>)> = (0..items.len())
        .filter_map(|at| ends_entry(&items[at]).map(|entry| (at + 1, Some(Check::Entry(entry)))))
        .collect();
    if let (Some(entry), Some(&(end, _))) = (alone, ends.last()) {
        let between = ends_of_requests(entries.list[entry].task, requests, items, recording);
        let before = between.into_iter().take_while(|(to, _)| *to < end);
        let checks: Vec<_> = before.map(|(to, nr)| (to, Some(Check::Requests { entry, nr }))).collect();
        ends.splice(0..0, checks);
    }
    if ends.last().is_none_or(|(to, _)| *to < items.len()) {
        ends.push((items.len(), None));
    }
    let stops = stops(items, recording);
    let mut from = 0;
    let mut segments = Vec::new();
    for (to, check) in ends {
        let within = stops.iter().copied().filter(|at| (from..to).contains(at)).take(MAX_STOPS).collect();
        segments.push(Segment { from, to, check, stops: within });
        from = to;
    }
    segments
}

/// Where each request of a task has returned: behind the task's first record after all that came of it; how many they are.
fn ends_of_requests(task: u32, requests: &[Vec<usize>], items: &[Item], recording: &Recording) -> Vec<(usize, usize)> {
    let at_of: FxHashMap<usize, usize> = items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| if let Item::Flush(row) = *item { Some((row, at)) } else { None })
        .collect();
    let is_own = |item: &Item| match *item {
        Item::Event(row) => recording.events.task[row] == task && recording.events.get(row).kind() != EventKind::Switch,
        Item::Return(row) => recording.events.task[row] == task,
        Item::Flush(row) => {
            recording.flushes.task[row] == task && recording.flushes.kind[row] != FlushKind::Func.number()
        }
    };
    let mut ends: Vec<(usize, usize)> = Vec::new();
    for (nr, rows) in (1..).zip(requests) {
        let last = rows.iter().filter_map(|row| at_of.get(row)).max().copied();
        let next = last.and_then(|last| (last + 1..items.len()).find(|at| is_own(&items[*at])));
        let Some(to) = next.map(|at| at + 1) else { break };
        match ends.last_mut() {
            Some(end) if end.0 >= to => end.1 = nr,
            _ => ends.push((to, nr)),
        }
    }
    ends
}

/// The records before which a walk may have stopped: the task looks at the table again, or flushes a part of one.
fn stops(items: &[Item], recording: &Recording) -> Vec<usize> {
    let mut walks: FxHashMap<u32, bool> = FxHashMap::default();
    let mut stops = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let Item::Flush(row) = *item else { continue };
        let flush = recording.flushes.get(row);
        let walks = walks.entry(flush.task).or_insert(false);
        match FlushKind::from_number(flush.kind) {
            Some(FlushKind::BatchPending) => {
                if *walks || flush.count > 1 {
                    stops.push(at);
                }
                *walks = true;
            }
            Some(FlushKind::MmRange) if *walks && flush.freed_tables == 0 && !flush.end.is_multiple_of(PMD_SIZE) => {
                stops.push(at);
            }
            Some(FlushKind::Gather | FlushKind::GatherFull | FlushKind::Finish) => *walks = false,
            _ => {}
        }
    }
    stops
}
