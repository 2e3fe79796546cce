//! Replays of groups that have nothing to do with each other, on several threads; the result does not depend on how many.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::driver::{Driver, Keep, Measured, Replayed, check_cpus, run};
use super::groups::groups;
use crate::error::{Error, Result};
use crate::machine::MachineConfig;
use crate::program::CompiledKernel;
use crate::trace::Recording;

/// How long the caller waits at most to be asked whether to stop.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// As [`replay`](super::replay), on up to so many threads: processes that share no CPU and no ancestor are replayed at the same time.
/// A recording of processes that all share something is replayed on one. With [`Keep::Sums`], memory does not grow with
/// the recording.
///
/// # Errors
/// As [`replay`](super::replay); of several errors, that of the first event.
pub fn replay_parallel(
    recording: &Recording,
    kernel: &Arc<CompiledKernel>,
    config: &MachineConfig,
    follow_masks: bool,
    threads: NonZero<usize>,
    keep: Keep,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Replayed> {
    recording.verify()?;
    check_cpus(recording, config)?;
    let groups = groups(recording);
    let nr_groups = groups.nr_events.len();
    if nr_groups <= 1 || threads.get() == 1 {
        return run(recording, kernel, config, follow_masks, (keep, false), stop).map(|(replayed, _)| replayed);
    }
    let measured = Measured::of(recording, config, follow_masks);
    if measured.has_woken_calls() {
        // When such a call takes effect hangs on the next event of anybody.
        return run(recording, kernel, config, follow_masks, (keep, false), stop).map(|(replayed, _)| replayed);
    }
    let mut order: Vec<usize> = (0..nr_groups).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(groups.nr_events[at])); // the longest first
    let (next, is_stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Times that a thread came to where a replay on one thread would ask; how often the caller was asked.
    let (nr_due, mut nr_asked) = (AtomicUsize::new(0), 0);
    let (sender, receiver) = channel();
    let mut parts: Vec<Option<std::result::Result<Replayed, (usize, Error)>>> = order.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.get().min(nr_groups) {
            let sender = sender.clone();
            let (order, groups, next, measured) = (&order, &groups, &next, &measured);
            let (is_stopped, nr_due) = (&is_stopped, &nr_due);
            scope.spawn(move || {
                while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut stop = || {
                        nr_due.fetch_add(1, Ordering::Relaxed);
                        is_stopped.load(Ordering::Relaxed)
                    };
                    let driver = Driver::new(recording, kernel, config, measured, keep).map_err(|error| (0, error));
                    let part = driver.and_then(|driver| driver.rows(groups.rows(recording, at), &mut stop));
                    if sender.send((at, part)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(ASK_EVERY) {
                Ok((at, part)) => parts[at] = Some(part),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while nr_asked < nr_due.load(Ordering::Relaxed) && !is_stopped.load(Ordering::Relaxed) {
                nr_asked += 1;
                is_stopped.store(stop(), Ordering::Relaxed);
            }
        }
    });
    let mut whole = Replayed::default();
    let mut first_error: Option<(usize, Error)> = None;
    for part in parts.into_iter().flatten() {
        match part {
            Ok(part) => whole.add(part),
            Err((row, error)) if first_error.as_ref().is_none_or(|(first, _)| row < *first) => {
                first_error = Some((row, error));
            }
            Err(_) => {}
        }
    }
    if let Some((_, error)) = first_error {
        return Err(error);
    }
    whole.put_in_order();
    Ok(whole)
}

impl Replayed {
    fn add(&mut self, part: Self) {
        self.predicted.extend(part.predicted);
        self.ledger.merge(&part.ledger);
        self.counters += part.counters;
        for (name, nr) in part.notes {
            *self.notes.entry(name).or_default() += nr;
        }
        self.noted.extend(part.noted);
        self.nr_events += part.nr_events;
        self.parallel.extend(part.parallel);
    }
}
