//! The saturating engine: keeps maximal states only.
//!
//! # Why it is sound
//!
//! Hardware may drop a TLB entry at any moment, so a state with more or stronger entries can do all that the same state
//! with fewer can: it evicts first. Let `a <= b` mean that `a` and `b` have the same base and `b` has every monotone bit of `a`
//! ([`Model::monotone`]). The model promises
//!
//! 1. *simulation*: if `a <= b` and `a` steps to `a'`, then `b` reaches some `b'` with `a' <= b'`;
//! 2. *monotone violations*: if `a <= b`, then `b` violates whatever `a` does;
//! 3. *completeness*: each action of [`Model::successors`] leads to a state `<=` one that [`Model::saturated_successors`] and
//!    the closures [`Model::with_fills`] and [`Model::with_stores`] reach from the same state (an eviction leads below the state
//!    itself and needs no successor);
//! 4. *reality*: all of those lead to reachable states only.
//!
//! By induction over the length of a path, from 1 and 3 every reachable state is `<=` a state that the engine stored at some
//! time; a stored state is dropped only for a greater one, so every reachable state is `<=` one that is kept; by 2 a violation
//! anywhere shows in one that is kept. So "safe" is a proof. By 4 each stored state is reachable, so "unsafe" is true as well.
//! The order is finite and each base keeps an antichain, so the search ends.
//!
//! A closure changes only monotone bits, upwards: its result is `>=` the state and reachable from it, so storing the result
//! in place of the state loses nothing.
//! The reductions below combine with this since each maps `a <= b` to comparable forms or is applied after the closures:
//! urgent steps are taken by the base alone (a model must not ask monotone bits in [`Model::urgent`]); dead variables likewise;
//! sorting renames CPUs or pages, which keeps steps, violations and the order between states of one naming. (Two comparable
//! states may be sorted differently and both be kept: that costs a state, not a verdict.)
//!
//! Where a step or an invariant needs the *absence* of an entry, 1 or 2 fails; such a model returns
//! [`NotMonotone`] and [`saturate`] does not start.
//!
//! # Order of work
//!
//! 0-1 breadth first: successors by fills are expanded before anything else, last first, since they lead to the greater
//! states; what they make superfluous is then never expanded. A counterexample found here is not the shortest and has fused
//! steps: [`search`](super::search) finds it again, plainly, at the smallest size that fails.

use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::antichain::{Antichains, VectorId};
use super::bounds::Teller;
use super::normal::Normal;
use super::{Class, Control, Model, NotMonotone, PackedState, Reductions, Stopped};

/// States expanded between two looks at the clock.
const LOOK: u64 = 256;

/// What a saturated search found out.
#[derive(Clone, PartialEq, Debug)]
pub struct SaturatedOutcome {
    /// Maximal states kept at the end.
    pub maximal: u64,
    /// Bases, each with its antichain.
    pub bases: u64,
    /// Bases without what belongs to the interchangeable CPUs. Where this number does not grow with theirs, one more CPU lets the
    /// others come to nothing new: evidence, not proof, for any number of them.
    pub projections: u64,
    /// States stored at some time.
    pub stored: u64,
    /// States expanded.
    pub expanded: u64,
    /// Successors made.
    pub transitions: u64,
    /// The longest antichain.
    pub widest: u32,
    /// Rounds of the 0-1 search; fills count nothing.
    pub rounds: u32,
    /// The invariants violated, by bits.
    pub violations: u32,
    /// What cut the search short.
    pub stopped: Option<Stopped>,
    /// Bytes of tables and queues at their largest.
    pub memory_bytes: usize,
    /// Wall time.
    pub elapsed: Duration,
}

impl SaturatedOutcome {
    /// Whether every reachable state is included in one that was searched, and none violates an invariant.
    pub const fn is_proof(&self) -> bool {
        self.violations == 0 && self.stopped.is_none()
    }
}

/// Searches `model` for its maximal states; `reductions.saturate` and `reductions.eager_stores` are taken as set.
///
/// With `to_first` the search ends with the first violation.
///
/// # Errors
///
/// If the model is not monotone, with what stands in the way.
pub fn saturate<M: Model>(
    model: &M,
    reductions: Reductions,
    to_first: bool,
    control: &mut Control<'_>,
) -> Result<SaturatedOutcome, NotMonotone> {
    let mut saturation = Saturation::new(model, reductions)?;
    Ok(saturation.run(to_first, control))
}

/// A saturated search and what it keeps.
pub(super) struct Saturation<'a, M: Model> {
    normal: Normal<'a, M>,
    monotone: M::State,
    chains: FxHashMap<M::State, u32>,
    antichains: Antichains<M::State>,
    /// States of this round, last first, and of the next.
    current: Vec<(M::State, VectorId)>,
    next: Vec<(M::State, VectorId)>,
    stored: u64,
    violations: u32,
}

impl<'a, M: Model> Saturation<'a, M> {
    pub(super) fn new(model: &'a M, reductions: Reductions) -> Result<Self, NotMonotone> {
        let monotone = model.monotone()?;
        let reductions = Reductions { saturate: true, eager_stores: true, ..reductions };
        Ok(Self {
            normal: Normal { model, reductions },
            monotone,
            chains: FxHashMap::default(),
            antichains: Antichains::new(monotone),
            current: Vec::new(),
            next: Vec::new(),
            stored: 0,
            violations: 0,
        })
    }

    pub(super) fn run(&mut self, to_first: bool, control: &mut Control<'_>) -> SaturatedOutcome {
        let since = Instant::now();
        let mut teller = Teller::new(control.progress.as_deref_mut(), since);
        let (bounds, stop) = (control.bounds, control.stop);
        let (mut expanded, mut transitions, mut rounds, mut memory_bytes) = (0, 0, 0, 0);
        let mut stopped = None;
        for state in self.normal.model.initial() {
            self.store(state, Class::Fill);
        }
        let (model, reductions) = (self.normal.model, self.normal.reductions);
        loop {
            let Some((state, id)) = self.current.pop() else {
                if self.next.is_empty() {
                    break;
                }
                if rounds == bounds.depth {
                    stopped = Some(Stopped::Depth);
                    break;
                }
                rounds += 1;
                // What was found first is expanded first.
                self.next.reverse();
                std::mem::swap(&mut self.current, &mut self.next);
                continue;
            };
            if expanded % LOOK == 0 {
                memory_bytes = memory_bytes.max(self.bytes());
                stopped = Control::interrupted(&bounds, stop, since);
                // The vectors double when they grow, and for a moment the old half is there as well.
                if memory_bytes > bounds.memory_bytes / 2 && self.bytes_after_growth() > bounds.memory_bytes {
                    stopped = Some(Stopped::Memory);
                }
                if stopped.is_some() {
                    break;
                }
                teller.tell(self.stored, (self.current.len() + self.next.len()) as u64, rounds);
            }
            if !self.antichains.take(id) {
                continue;
            }
            expanded += 1;
            model.saturated_successors(&state, reductions, &mut |_, successor, class| {
                transitions += 1;
                if self.stored < bounds.states {
                    self.store(successor, class);
                } else {
                    stopped = Some(Stopped::States);
                }
            });
            if stopped.is_some() || (to_first && self.violations != 0) {
                break;
            }
        }
        SaturatedOutcome {
            maximal: self.antichains.live(),
            bases: self.chains.len() as u64,
            projections: self.projections(),
            stored: self.stored,
            expanded,
            transitions,
            widest: self.antichains.widest(),
            rounds,
            violations: self.violations,
            stopped,
            memory_bytes: memory_bytes.max(self.bytes()),
            elapsed: since.elapsed(),
        }
    }

    fn store(&mut self, state: M::State, class: Class) {
        let (state, passed) = self.normal.of(state);
        self.violations |= passed;
        let antichains = &mut self.antichains;
        let chain = *self.chains.entry(state.and_not(self.monotone)).or_insert_with(|| antichains.open());
        if let Some(id) = antichains.add(chain, state.and(self.monotone)) {
            self.stored += 1;
            self.violations |= self.normal.model.violations(&state);
            match class {
                Class::Fill => self.current.push((state, id)),
                Class::Step => self.next.push((state, id)),
            }
        }
    }

    /// Every state kept, in no particular order but always the same.
    pub(super) fn maximal(&self) -> Vec<M::State> {
        let mut chains: Vec<_> = self.chains.iter().map(|(base, chain)| (*chain, *base)).collect();
        chains.sort_unstable();
        let with = |(chain, base): (u32, M::State)| {
            self.antichains.vectors(chain).into_iter().map(move |vector| vector.or(base))
        };
        chains.into_iter().flat_map(with).collect()
    }

    fn projections(&self) -> u64 {
        self.chains.keys().map(|base| self.normal.model.without_cpus(base)).collect::<FxHashSet<_>>().len() as u64
    }

    fn chains_bytes(&self) -> usize {
        // A hash map of this kind is at most seven eighths full and has one byte of control for each place.
        self.chains.capacity() * 8 / 7 * (size_of::<(M::State, u32)>() + 1)
    }

    fn queues_bytes(&self) -> usize {
        (self.current.capacity() + self.next.capacity()) * size_of::<(M::State, VectorId)>()
    }

    fn bytes(&self) -> usize {
        self.chains_bytes() + self.antichains.bytes() + self.queues_bytes()
    }

    /// What the largest of the parts would need on top if it grew now.
    fn bytes_after_growth(&self) -> usize {
        self.bytes() + 2 * self.chains_bytes().max(self.antichains.bytes()).max(self.queues_bytes())
    }
}
