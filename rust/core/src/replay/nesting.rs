//! Which operations ran while another had its gather open in the same address space (`mm->tlb_flush_pending`).
//!
//! A replay runs calls one after the other, but the recording says when each began and ended. A call that ends its gather
//! while another's is open flushes everything (mm/mmu_gather.c:`tlb_finish_mmu`). Three things decide whether it is open:
//! - the time: from a call's begin to its end, less what the way into the kernel and out of it takes;
//! - `mmap_lock`: munmap, mprotect, mremap, brk and mmap take it for writing and so begin only when the readers and writers
//!   before them are done; munmap and brk go on as readers. MADV_COLD and PAGEOUT read. MADV_DONTNEED and FREE lock their
//!   area only, and wait for nobody (mm/madvise.c:`get_lock_mode`);
//! - the scheduler: a task that blocks in such a call (not `R`) waits for that lock, and has no gather yet. One that is
//!   preempted (`R+`) keeps what it has, for as long as it does not run.
//!
//! Whose gather is open is asked when a call opens its own; the walk that follows is short against the flush.
//!
//! A call that waited for the lock also takes effect only when it was woken: by then its CPU may be another, and other CPUs
//! may have left the address space.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::times::Times;
use crate::addr::PAGE_SIZE;
use crate::trace::kinds::ENTER_UNSEEN;
use crate::trace::{Event, EventKind, Recording};

/// Durations at or below this share of all are those of calls that find nothing to do.
const SHORTEST: u64 = 10;
const ENOMEM: i64 = -12;
const EINVAL: i64 = -22;

/// How a call holds `mmap_lock`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lock {
    /// For writing, to its end.
    Write,
    /// For writing, then for reading.
    WriteThenRead,
    /// For reading.
    Read,
    /// Not at all: areas have locks of their own.
    Area,
}

/// A call that may wait for others or let them wait.
#[derive(Clone, Copy, Debug)]
struct Holder {
    row: usize,
    lock: Lock,
    opens_gather: bool,
    start_ns: u64,
    end_ns: u64,
}

/// What other calls meant for those of a recording. Calls for which they meant nothing are absent.
#[derive(Clone, Default)]
pub(super) struct Nesting {
    /// How many gathers of others were open when it opened its own.
    nr_open: FxHashMap<usize, u32>,
    /// When it was woken for the last time, in ns.
    woken_ns: FxHashMap<usize, u64>,
}

impl Nesting {
    /// Of a recording of a machine on which calls ran as they came.
    pub(super) fn of(recording: &Recording) -> Self {
        let mut nested = FxHashMap::default();
        let mut woken_ns = FxHashMap::default();
        // Half of what a call takes that does nothing: from its begin to its gather.
        let mut durations = Times::default();
        holders(recording, |call| {
            if call.opens_gather {
                durations.add(call.end_ns - call.start_ns);
            }
            woken_ns.extend(call.woken_ns(recording).map(|woken_ns| (call.row, woken_ns)));
        });
        let margin_ns = durations.nth(durations.len() / SHORTEST).unwrap_or(0) / 2;
        let mut of_process: FxHashMap<u32, Vec<Holder>> = FxHashMap::default();
        holders(recording, |call| {
            let task = recording.events.task[call.row] as usize;
            let Some(pid) = recording.tasks.get(task).map(|task| task.pid) else { return };
            let before = of_process.entry(pid).or_default();
            before.retain(|other| other.end_ns > recording.events.time_ns[call.row]);
            before.push(Holder { start_ns: after_locks(&call, before), ..call });
            let last = before.len() - 1;
            count_open(before, last, margin_ns, &mut nested);
        });
        Self { nr_open: nested, woken_ns }
    }

    /// How many gathers of others were open.
    pub(super) fn of_call(&self, row: usize) -> u32 {
        self.nr_open.get(&row).copied().unwrap_or(0)
    }

    /// When the last call was woken, in ns; 0 if none was.
    pub(super) fn last_woken_ns(&self) -> u64 {
        self.woken_ns.values().fold(0, |last, &woken_ns| last.max(woken_ns))
    }

    /// When the call has got its lock, in ns, if it had to wait for that without its CPU.
    pub(super) fn woken_ns(&self, row: usize) -> Option<u64> {
        self.woken_ns.get(&row).copied()
    }
}

impl Holder {
    /// When a call that blocked was woken for the last time. mmap and mremap are done when they return in any case; a fork
    /// also waits for its child (`CLONE_VFORK`).
    fn woken_ns(&self, recording: &Recording) -> Option<u64> {
        let event = recording.events.get(self.row);
        let is_deferred = !matches!(event.kind(), EventKind::Mmap | EventKind::Mremap | EventKind::Fork);
        (is_deferred && self.start_ns > event.time_ns).then_some(self.start_ns)
    }
}

/// Counts for the newest of the calls in progress, and for those before it that come to their gather only after it.
fn count_open(calls: &[Holder], newest: usize, margin_ns: u64, nested: &mut FxHashMap<usize, u32>) {
    let new = calls[newest];
    for old in &calls[..newest] {
        if !(old.opens_gather && new.opens_gather) {
            continue;
        }
        for (own, other) in [(old, &new), (&new, old)] {
            // Both open their gather a margin after they got their lock, and looking takes as long again.
            let after = |time_ns: u64, nr_margins: u64| time_ns.saturating_add(margin_ns.saturating_mul(nr_margins));
            let asked_ns = after(own.start_ns, 2);
            if after(other.start_ns, 1) < asked_ns && after(asked_ns, 1) < other.end_ns {
                *nested.entry(own.row).or_default() += 1;
            }
        }
    }
}

/// When the call has its lock: when those that exclude it are done. One that ended first cannot have waited.
fn after_locks(call: &Holder, before: &[Holder]) -> u64 {
    let excludes = |other: &&Holder| match call.lock {
        Lock::Write | Lock::WriteThenRead => other.lock != Lock::Area,
        Lock::Read => other.lock == Lock::Write,
        Lock::Area => false,
    };
    let ends = before.iter().filter(excludes).map(|other| other.end_ns).filter(|end_ns| *end_ns < call.end_ns);
    ends.fold(call.start_ns, u64::max)
}

/// Gives the calls that hold locks, by row; each starts when its task was last woken in it. Only those in progress are kept
/// meanwhile, unless time goes back in the recording: then a call may be woken in any later row.
fn holders(recording: &Recording, mut give: impl FnMut(Holder)) {
    let events = &recording.events;
    let is_sorted = events.time_ns.is_sorted();
    // The calls not given yet, and how many were.
    let (mut open, mut nr_given): (VecDeque<Holder>, usize) = (VecDeque::new(), 0);
    // Per task: its latest call here, and whether it is off its CPU without having been preempted.
    let mut latest: FxHashMap<u32, (usize, bool)> = FxHashMap::default();
    for row in 0..events.len() {
        let kind = EventKind::from_number(events.kind[row]).unwrap_or(EventKind::OtherCall);
        if kind != EventKind::Switch && !may_hold(kind) {
            continue;
        }
        let event = events.get(row);
        if kind == EventKind::Switch {
            if let Some((_, is_blocked)) = latest.get_mut(&event.task) {
                *is_blocked = event.a2 == 0 && event.a1 != u64::from(b'R');
            }
            let next = u32::try_from(event.a0).unwrap_or(u32::MAX);
            if let Some((at, is_blocked)) = latest.get_mut(&next)
                && std::mem::take(is_blocked)
                && let Some(call) = at.checked_sub(nr_given).and_then(|at| open.get_mut(at))
                && event.time_ns < call.end_ns
            {
                call.start_ns = event.time_ns;
            }
        } else if let Some((lock, opens_gather)) = kind_of(&event) {
            latest.insert(event.task, (nr_given + open.len(), false));
            let (start_ns, end_ns) = (event.time_ns, event.end_ns.max(event.time_ns));
            open.push_back(Holder { row, lock, opens_gather, start_ns, end_ns });
        }
        while is_sorted && open.front().is_some_and(|call| call.end_ns < event.time_ns) {
            open.pop_front().into_iter().for_each(&mut give);
            nr_given += 1;
        }
    }
    open.into_iter().for_each(give);
}

/// Whether events of this kind can hold a lock at all.
const fn may_hold(kind: EventKind) -> bool {
    use EventKind as K;
    matches!(kind, K::Munmap | K::Mprotect | K::Mmap | K::Mremap | K::Fork | K::Brk | K::Madvise | K::ProcessMadvise)
}

/// How a call locks, and whether it opens a gather; none for events that do neither.
fn kind_of(event: &Event) -> Option<(Lock, bool)> {
    if event.flags & ENTER_UNSEEN != 0 {
        return None;
    }
    let is_done = event.ret == 0 || event.ret == ENOMEM;
    let advised = |advice: u64| match advice {
        4 | 8 | 24 => Some((Lock::Area, true)),
        20 | 21 => Some((Lock::Read, true)),
        22 | 23 => Some((Lock::Read, false)),
        _ => Some((Lock::Write, false)),
    };
    match event.kind() {
        EventKind::Munmap if event.ret == 0 => Some((Lock::WriteThenRead, true)),
        EventKind::Mprotect if is_done => Some((Lock::Write, true)),
        EventKind::Mmap | EventKind::Mremap | EventKind::Fork => Some((Lock::Write, false)),
        EventKind::Brk => Some((Lock::WriteThenRead, false)),
        // An area that the advice does not suit ends a call that has its gather already.
        EventKind::Madvise if is_done || event.ret == EINVAL && event.a0.is_multiple_of(PAGE_SIZE) => advised(event.a2),
        EventKind::ProcessMadvise if event.ret >= 0 => advised(event.a3),
        _ => None,
    }
}
