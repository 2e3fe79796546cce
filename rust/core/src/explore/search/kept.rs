//! A breadth-first search that keeps its levels, so that the path to what it finds is at hand.
//!
//! One thread, and some more memory for each state than the plain engine takes. States of a level stand in the order in which
//! they were found, and each knows the first that led to it: paths do not depend on how the table happens to look.

use std::time::Instant;

use super::normal::Normal;
use super::queue::BLOCK;
use super::shard::Found;
use super::table::{Full, Table};
use super::{Control, Model, PackedState, Stopped};

/// Successors that are made before the first of them is looked up: by then memory has answered.
const AHEAD: usize = 64;

/// A level of a search.
pub(super) struct Level<S> {
    pub(super) states: Vec<S>,
    /// Of each state the first of the level before that leads to it, by its place there.
    pub(super) parents: Vec<u32>,
}

impl<S> Level<S> {
    const fn new() -> Self {
        Self { states: Vec::new(), parents: Vec::new() }
    }

    fn push(&mut self, state: S, parent: usize) {
        self.states.push(state);
        self.parents.push(u32::try_from(parent).unwrap_or(u32::MAX));
    }

    const fn bytes(&self) -> usize {
        self.states.capacity() * size_of::<S>() + self.parents.capacity() * size_of::<u32>()
    }
}

/// A search with its levels, the initial states first.
pub(super) struct Kept<'a, M: Model> {
    normal: &'a Normal<'a, M>,
    table: Table<M::State>,
    pub(super) levels: Vec<Level<M::State>>,
    /// What states of the last level violate, or those passed on the way to them.
    pub(super) found: Option<Found<M::State>>,
    pub(super) transitions: u64,
    budget_bytes: usize,
    levels_bytes: usize,
}

impl<'a, M: Model> Kept<'a, M> {
    /// A search that knows the initial states.
    pub(super) fn begin(normal: &'a Normal<'a, M>, budget_bytes: usize) -> Result<Self, Full> {
        let mut table = Table::new(budget_bytes)?;
        let mut found = None;
        let mut level = Level::new();
        for state in normal.model.initial() {
            let (state, passed) = normal.of(state);
            let mut violations = passed;
            if table.insert(state, state.hash_word()) {
                level.push(state, 0);
                violations |= normal.model.violations(&state);
            }
            note(&mut found, violations, state);
        }
        let levels_bytes = level.bytes();
        Ok(Self { normal, table, levels: vec![level], found, transitions: 0, budget_bytes, levels_bytes })
    }

    /// States found so far.
    pub(super) const fn states(&self) -> usize {
        self.table.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.table.bytes() + self.levels_bytes
    }

    /// The levels and the number of successors made, without the table.
    pub(super) fn into_levels(self) -> (Vec<Level<M::State>>, u64) {
        (self.levels, self.transitions)
    }

    /// Whether the last level has no state: there are no others than those found.
    pub(super) fn is_at_end(&self) -> bool {
        self.levels.last().is_none_or(|level| level.states.is_empty())
    }

    /// Makes the next level.
    pub(super) fn expand(&mut self, control: &Control<'_>, since: Instant) -> Result<(), Stopped> {
        let Self { normal, table, levels, .. } = self;
        let last = levels.last().map_or(&[][..], |level| &level.states);
        let budget = self.budget_bytes.saturating_sub(self.levels_bytes);
        let mut next = Level::new();
        let mut found = None;
        let mut reached = Vec::with_capacity(2 * AHEAD);
        for (block, states) in last.chunks(BLOCK).enumerate() {
            for (place, state) in states.iter().enumerate() {
                let parent = block * BLOCK + place;
                normal.model.successors(state, &mut |_, successor| {
                    let (form, passed) = normal.of(successor);
                    let hash = form.hash_word();
                    table.prefetch(hash);
                    note(&mut found, passed, form);
                    reached.push((form, hash, parent));
                });
                if reached.len() < AHEAD && place + 1 < states.len() {
                    continue;
                }
                self.transitions += reached.len() as u64;
                table
                    .reserve(reached.len(), None, budget.saturating_sub(next.bytes()))
                    .map_err(|Full| Stopped::Memory)?;
                for (form, hash, parent) in reached.drain(..) {
                    if table.insert(form, hash) {
                        next.push(form, parent);
                        note(&mut found, normal.model.violations(&form), form);
                    }
                }
            }
            if let Some(why) = Control::interrupted(&control.bounds, control.stop, since) {
                return Err(why);
            }
            // A place that a parent cannot name is beyond any memory.
            if block * BLOCK >= u32::MAX as usize {
                return Err(Stopped::Memory);
            }
        }
        self.levels_bytes += next.bytes();
        self.levels.push(next);
        self.found = found;
        Ok(())
    }
}

fn note<S: PackedState>(found: &mut Option<Found<S>>, violations: u32, state: S) {
    if violations != 0 {
        Found::merge(found, Found { violations, least: state });
    }
}
