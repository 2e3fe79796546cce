//! How far a search may go, and how it is watched and stopped from outside.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How far a search may go. What it reaches within them is part of its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// States stored.
    pub states: u64,
    /// Bytes of all tables and queues together.
    pub memory_bytes: usize,
    /// Wall time.
    pub time: Duration,
    /// Actions from the initial state (plain engine), rounds (saturating engine).
    pub depth: u32,
}

impl Default for Bounds {
    /// 4 GiB, and otherwise practically none.
    fn default() -> Self {
        Self { states: u64::MAX, memory_bytes: 4 << 30, time: Duration::MAX, depth: u32::MAX }
    }
}

/// What ended a search before it was through: its verdict holds for what was searched only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stopped {
    /// [`Bounds::states`].
    States,
    /// [`Bounds::memory_bytes`].
    Memory,
    /// [`Bounds::time`].
    Time,
    /// [`Bounds::depth`].
    Depth,
    /// The stop flag.
    Asked,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::States => "the bound on states",
            Self::Memory => "the bound on memory",
            Self::Time => "the bound on time",
            Self::Depth => "the bound on depth",
            Self::Asked => "a request to stop",
        })
    }
}

/// Where a running search is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Progress {
    /// States stored so far.
    pub states: u64,
    /// States stored and not expanded yet.
    pub frontier: u64,
    /// Actions from the initial state.
    pub depth: u32,
    /// Since the start.
    pub elapsed: Duration,
}

impl Progress {
    /// States stored in a second, on average since the start.
    pub fn states_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
        let states = self.states as f64;
        states / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The caller's hold on a running search.
pub struct Control<'a> {
    /// The bounds.
    pub bounds: Bounds,
    /// Set by anybody, at any time: the search returns soon, with what it has.
    pub stop: &'a AtomicBool,
    /// Called about every [`Control::PROGRESS`], by the thread that called the search.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl Control<'_> {
    /// How often progress is told.
    pub const PROGRESS: Duration = Duration::from_millis(100);

    /// Why to stop at this moment, if there is a reason that a clock or a flag gives.
    pub(super) fn interrupted(bounds: &Bounds, stop: &AtomicBool, since: Instant) -> Option<Stopped> {
        if stop.load(Ordering::Relaxed) {
            Some(Stopped::Asked)
        } else if since.elapsed() > bounds.time {
            Some(Stopped::Time)
        } else {
            None
        }
    }
}

/// Calls the progress call-back at the right moments.
pub(super) struct Teller<'a, 'b> {
    tell: Option<&'a mut (dyn FnMut(Progress) + 'b)>,
    since: Instant,
    last: Instant,
}

impl<'a, 'b> Teller<'a, 'b> {
    pub(super) fn new(tell: Option<&'a mut (dyn FnMut(Progress) + 'b)>, since: Instant) -> Self {
        Self { tell, since, last: since }
    }

    pub(super) fn tell(&mut self, states: u64, frontier: u64, depth: u32) {
        let Some(tell) = &mut self.tell else { return };
        if self.last.elapsed() >= Control::PROGRESS {
            self.last = Instant::now();
            tell(Progress { states, frontier, depth, elapsed: self.since.elapsed() });
        }
    }
}
