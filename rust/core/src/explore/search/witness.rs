//! The path to a finding.
//!
//! The engine's tables keep no parents: most large searches find nothing, and pay nothing. When there is a finding, the levels up
//! to its depth are searched once more and kept (a small search keeps them anyhow); from the violating state back, each level is searched for a state that leads
//! there. What results is a path of normal forms; it is then followed with concrete states from the initial one, each step
//! executed, so that a path printed is a path of the model, whatever the reductions did.

use std::time::Instant;

use super::kept::{Kept, Level};
use super::normal::Normal;
use super::table::Full;
use super::{Action, Control, Model, Reductions, Stopped};

/// One action of a path, with the state it leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step<S> {
    /// The action.
    pub action: Action,
    /// The state after it.
    pub state: S,
}

/// An initial state, and the steps taken from it.
pub type Run<S> = (S, Vec<Step<S>>);

/// Executes `path` from the initial state from which that is possible.
///
/// Of several successors by one action the first is taken. `None` if some action is not enabled where the path takes it.
pub fn follow<M: Model>(model: &M, path: &[Action]) -> Option<Run<M::State>> {
    model.initial().into_iter().find_map(|start| {
        let mut state = start;
        let mut steps = Vec::with_capacity(path.len());
        for &action in path {
            let mut reached = None;
            model.successors(&state, &mut |of, next| {
                if of == action && reached.is_none() {
                    reached = Some(next);
                }
            });
            state = reached?;
            steps.push(Step { action, state });
        }
        Some((start, steps))
    })
}

/// A shortest path to a violation that a search met at `depth` in `target`, with what its last state violates.
///
/// # Errors
/// What stopped it.
pub(super) fn shortest<M: Model>(
    model: &M,
    reductions: Reductions,
    depth: u32,
    target: M::State,
    control: &Control<'_>,
    since: Instant,
) -> Result<Option<(Vec<Action>, u32)>, Stopped> {
    debug_assert!(!reductions.eager_stores, "a store that was taken eagerly is an action of its own in a path");
    let normal = Normal { model, reductions };
    if depth == 0 {
        return Ok(path_to(&normal, &[], target));
    }
    let mut kept = Kept::begin(&normal, control.bounds.memory_bytes).map_err(|Full| Stopped::Memory)?;
    for _ in 1..depth {
        kept.expand(control, since)?;
    }
    Ok(path_to(&normal, &kept.levels, target))
}

/// The same from the levels before that of the violation.
pub(super) fn path_to<M: Model>(
    normal: &Normal<'_, M>,
    levels: &[Level<M::State>],
    target: M::State,
) -> Option<(Vec<Action>, u32)> {
    if levels.is_empty() {
        return concrete(normal, &[target]);
    }
    concrete(normal, &backwards(normal, levels, target)?)
}

/// One normal form for each level, the last being `target`, each with a successor whose form is the next: always the first
/// of its level that has one.
fn backwards<M: Model>(normal: &Normal<'_, M>, levels: &[Level<M::State>], target: M::State) -> Option<Vec<M::State>> {
    // Only the last step has to violate something, and it may be another parent that leads to it so.
    let violates = |state: &M::State| {
        let mut leads = false;
        normal.model.successors(state, &mut |_, successor| {
            let (form, passed) = normal.of(successor);
            leads |= form == target && (passed | normal.model.violations(&form)) != 0;
        });
        leads
    };
    let mut at = levels.last()?.states.iter().position(violates)?;
    let mut forms = vec![target];
    for level in levels.iter().rev() {
        forms.push(*level.states.get(at)?);
        at = level.parents[at] as usize;
    }
    forms.reverse();
    Some(forms)
}

/// Follows normal forms with concrete states, up to the first that violates an invariant.
fn concrete<M: Model>(normal: &Normal<'_, M>, forms: &[M::State]) -> Option<(Vec<Action>, u32)> {
    let (first, rest) = forms.split_first()?;
    let mut state = normal.model.initial().into_iter().find(|state| normal.of(*state).0 == *first)?;
    let mut path = Vec::new();
    let mut violated = normal.model.violations(&state);
    let take = |steps: Vec<(Action, M::State)>, state: &mut M::State, path: &mut Vec<Action>| {
        for (action, next) in steps {
            path.push(action);
            *state = next;
            let violated = normal.model.violations(&next);
            if violated != 0 {
                return violated;
            }
        }
        0
    };
    if violated == 0 {
        violated = take(normal.urgent_path(state), &mut state, &mut path);
    }
    for (at, form) in rest.iter().enumerate() {
        if violated != 0 {
            break;
        }
        let last = at + 1 == rest.len();
        let mut chosen = None;
        normal.model.successors(&state, &mut |action, next| {
            if chosen.is_none() {
                let (reached, passed) = normal.of(next);
                if reached == *form && (!last || (passed | normal.model.violations(&reached)) != 0) {
                    chosen = Some((action, next));
                }
            }
        });
        let (action, next) = chosen?;
        let mut steps = vec![(action, next)];
        steps.extend(normal.urgent_path(next));
        violated = take(steps, &mut state, &mut path);
    }
    (violated != 0).then_some((path, violated))
}
