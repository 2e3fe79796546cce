//! The engines against each other: what a reduced search keeps, held against the plain graph, state by state.

use std::time::Instant;

use rustc_hash::{FxHashMap, FxHashSet};

use super::normal::Normal;
use super::saturate::Saturation;
use super::{Control, Model, NotMonotone, PackedState, Reductions, Stopped};

/// What an audit found. The reductions did no harm if [`Audit::is_clean`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audit {
    /// States of the plain graph.
    pub plain_states: u64,
    /// States that the reduced search keeps.
    pub reduced_states: u64,
    /// Plain states whose normal form is not included in any that is kept: a violation could be missed.
    pub undominated: u64,
    /// Kept states that the plain graph does not reach: a violation could be false.
    pub unreachable: u64,
    /// The invariants that the plain search found violated, by bits.
    pub plain_violations: u32,
    /// The same for the reduced search.
    pub reduced_violations: u32,
}

impl Audit {
    /// Whether reduced and plain search agree both ways.
    pub const fn is_clean(&self) -> bool {
        self.undominated == 0 && self.unreachable == 0 && self.plain_violations == self.reduced_violations
    }
}

/// Why an audit could not be held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoAudit {
    /// The model cannot be saturated.
    NotMonotone(NotMonotone),
    /// One of the two searches was cut short.
    Stopped(Stopped),
}

/// Searches `model` plainly and with `reductions`, and compares. Small models only: the plain graph is held in memory, and the
/// bounds are looked at once in a while.
///
/// # Errors
///
/// If the model is not monotone and `reductions` wants it saturated, or if a search was stopped.
pub fn audit<M: Model>(model: &M, reductions: Reductions, control: &mut Control<'_>) -> Result<Audit, NoAudit> {
    let plain = Kept::search(&Normal { model, reductions: Reductions::NONE }, control)?;
    let reduced = if reductions.saturate {
        let mut saturation = Saturation::new(model, reductions).map_err(NoAudit::NotMonotone)?;
        let outcome = saturation.run(false, control);
        if let Some(stopped) = outcome.stopped {
            return Err(NoAudit::Stopped(stopped));
        }
        Kept { states: saturation.maximal(), violations: outcome.violations }
    } else {
        Kept::search(&Normal { model, reductions }, control)?
    };
    Ok(compare(model, reductions, &plain, &reduced))
}

fn compare<M: Model>(model: &M, reductions: Reductions, plain: &Kept<M::State>, reduced: &Kept<M::State>) -> Audit {
    let ordered = reductions.saturate || reductions.eager_stores;
    let monotone = if ordered { model.monotone().unwrap_or(M::State::VACANT) } else { M::State::VACANT };
    // Sorting is undone by looking at every state that differs in names only.
    let names = reductions.symmetry || reductions.retired;
    let orbit = |state: M::State| if names { model.renamed(&state) } else { vec![state] };
    let unsorted = Normal { model, reductions: Reductions { symmetry: false, retired: false, ..reductions } };

    let forgets = |state: M::State| if reductions.dead { model.without_dead(&state) } else { state };
    let reachable: FxHashSet<M::State> = plain.states.iter().map(|&state| forgets(state)).collect();
    let mut vectors: FxHashMap<M::State, Vec<M::State>> = FxHashMap::default();
    let mut unreachable = 0;
    for &state in &reduced.states {
        let orbit = orbit(state);
        unreachable += u64::from(!orbit.iter().any(|state| reachable.contains(state)));
        for state in orbit {
            vectors.entry(state.and_not(monotone)).or_default().push(state.and(monotone));
        }
    }
    let undominated = plain.states.iter().filter(|&&state| {
        let (form, _) = unsorted.of(state);
        let of_base = vectors.get(&form.and_not(monotone));
        !of_base.is_some_and(|of_base| of_base.iter().any(|&vector| form.and(monotone).is_subset(vector)))
    });
    Audit {
        plain_states: plain.states.len() as u64,
        reduced_states: reduced.states.len() as u64,
        undominated: undominated.count() as u64,
        unreachable,
        plain_violations: plain.violations,
        reduced_violations: reduced.violations,
    }
}

/// What a search kept.
struct Kept<S> {
    states: Vec<S>,
    violations: u32,
}

impl<S: PackedState> Kept<S> {
    /// A search as plain as can be, not by the engine that it is to watch.
    fn search<M: Model<State = S>>(normal: &Normal<'_, M>, control: &Control<'_>) -> Result<Self, NoAudit> {
        let since = Instant::now();
        let mut seen = FxHashSet::default();
        let mut kept = Self { states: Vec::new(), violations: 0 };
        let mut found = normal.model.initial();
        let mut at = 0;
        loop {
            for state in found.drain(..) {
                let (state, passed) = normal.of(state);
                kept.violations |= passed;
                if seen.insert(state) {
                    kept.violations |= normal.model.violations(&state);
                    kept.states.push(state);
                }
            }
            let Some(state) = kept.states.get(at) else { return Ok(kept) };
            normal.model.successors(state, &mut |_, next| found.push(next));
            at += 1;
            if at % 4096 == 0 {
                let bytes = (kept.states.capacity() + seen.capacity() * 8 / 7) * size_of::<S>();
                let stopped = if kept.states.len() as u64 > control.bounds.states {
                    Some(Stopped::States)
                } else if bytes > control.bounds.memory_bytes {
                    Some(Stopped::Memory)
                } else {
                    Control::interrupted(&control.bounds, control.stop, since)
                };
                if let Some(stopped) = stopped {
                    return Err(NoAudit::Stopped(stopped));
                }
            }
        }
    }
}
