//! A search for a first finding, while it is small: it keeps its levels, and need not be repeated for the path.

use std::ops::ControlFlow;
use std::time::Instant;

use super::kept::Kept;
use super::normal::Normal;
use super::plain::{Finding, Outcome};
use super::{Control, Model, witness};

/// Up to so many states, and one level more.
const MOST_STATES: usize = 1 << 17;

/// The outcome of a small search, or what the engine goes on with: nothing if it has to begin itself, as where a bound was met
/// that it has to tell.
pub(super) fn search<'a, M: Model>(
    normal: &'a Normal<'a, M>,
    to_first: bool,
    control: &Control<'_>,
    since: Instant,
) -> ControlFlow<Outcome, Option<Kept<'a, M>>> {
    // Eager stores are no actions of a path.
    if !to_first || normal.reductions.eager_stores {
        return ControlFlow::Continue(None);
    }
    let Ok(mut kept) = Kept::begin(normal, control.bounds.memory_bytes) else { return ControlFlow::Continue(None) };
    let mut depth = 0;
    while kept.found.is_none() && !kept.is_at_end() {
        if kept.states() > MOST_STATES || depth == control.bounds.depth {
            return ControlFlow::Continue(Some(kept));
        }
        if kept.expand(control, since).is_err() || kept.states() as u64 > control.bounds.states {
            return ControlFlow::Continue(None);
        }
        if kept.found.is_some() || !kept.is_at_end() {
            depth += 1;
        }
    }
    let finding = kept.found.map(|found| {
        let path = witness::path_to(normal, &kept.levels[..depth as usize], found.least);
        Finding::new(depth, found.violations, path)
    });
    ControlFlow::Break(Outcome {
        states: kept.states() as u64,
        transitions: kept.transitions,
        depth,
        violations: kept.found.map_or(0, |found| found.violations),
        finding,
        stopped: None,
        memory_bytes: kept.bytes(),
        elapsed: since.elapsed(),
    })
}
