//! The form in which a state is stored: what the reductions make of it.

use super::{Action, Model, PackedState, Reductions};

/// No chain of urgent steps is longer; if a model's is, the rest is explored as usual, which is sound.
const MAX_URGENT: usize = 1 << 12;

/// A model with its reductions.
pub(super) struct Normal<'a, M> {
    pub(super) model: &'a M,
    pub(super) reductions: Reductions,
}

impl<M: Model> Normal<'_, M> {
    /// The form in which `state` is stored, and the violations of the states that urgent steps pass on the way.
    #[inline]
    pub(super) fn of(&self, mut state: M::State) -> (M::State, u32) {
        let Reductions { saturate, urgent, symmetry, retired, dead, eager_stores } = self.reductions;
        let mut passed = 0;
        if urgent {
            for _ in 0..MAX_URGENT {
                let Some((_, next)) = self.model.urgent(&state) else { break };
                passed |= self.model.violations(&state);
                state = next;
            }
        }
        if saturate {
            state = self.model.with_fills(&state, self.reductions);
        }
        if saturate || eager_stores {
            state = self.model.with_stores(&state);
        }
        if dead {
            state = self.model.without_dead(&state);
        }
        if retired {
            state = self.model.with_retired_sorted(&state);
        }
        if symmetry {
            state = self.model.with_cpus_sorted(&state);
        }
        debug_assert_ne!(state, M::State::VACANT, "a model made the vacant state");
        (state, passed)
    }

    /// The states that urgent steps lead through from `state`, with their actions; the last is where they end.
    pub(super) fn urgent_path(&self, state: M::State) -> Vec<(Action, M::State)> {
        let mut path = Vec::new();
        if self.reductions.urgent {
            let mut state = state;
            while path.len() < MAX_URGENT
                && let Some((action, next)) = self.model.urgent(&state)
            {
                path.push((action, next));
                state = next;
            }
        }
        path
    }
}
