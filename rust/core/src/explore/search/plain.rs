//! The plain engine: exact breadth-first search, level by level.
//!
//! The whole state stands in the table, so that two states are never taken for one; a verdict without bound is a proof for
//! the model. States belong to shards by their hash, one for each thread; where the frontier is large, each shard is expanded
//! by its own thread, and successors of others are exchanged in rounds. A level is always finished before anything is
//! concluded from it, so that states, transitions, depth and findings do not depend on the number of threads. (Where a bound
//! or the stop flag cut a level, what was counted of it may.)

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bounds::Teller;
use super::forecast::Forecast;
use super::kept::Kept;
use super::normal::Normal;
use super::queue::{BLOCK, Queue};
use super::shard::{Collector, Found, Shard, owner};
use super::tokens::Tokens;
use super::{Action, Bounds, Control, Model, PackedState, Reductions, Stopped, small, witness};

/// A frontier of fewer states is expanded by one thread.
const PARALLEL: usize = 4 * BLOCK;
/// Blocks that a thread expands between two exchanges.
const ROUND: usize = 4;

/// What a plain search found out.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// States stored.
    pub states: u64,
    /// Successors made, those already known included.
    pub transitions: u64,
    /// Actions from an initial state to the deepest state stored.
    pub depth: u32,
    /// The invariants violated in what was searched, by bits.
    pub violations: u32,
    /// The first violation.
    pub finding: Option<Finding>,
    /// What cut the search short, or that for the path of its finding; `None` if all of it was searched, or all until the level
    /// of the finding.
    pub stopped: Option<Stopped>,
    /// Bytes of tables and frontiers at their largest.
    pub memory_bytes: usize,
    /// Wall time.
    pub elapsed: Duration,
}

impl Outcome {
    /// Whether every reachable state was searched and none violates an invariant.
    pub const fn is_proof(&self) -> bool {
        self.violations == 0 && self.stopped.is_none()
    }
}

/// A violation at the least depth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The invariants that the state at the end of the path violates, by bits.
    pub violations: u32,
    /// The level in which the search met it. With urgent steps the path is longer.
    pub depth: u32,
    /// A shortest path from an initial state (the first of [`Model::initial`] from which it can be followed); `None` if
    /// finding it again was stopped, as [`Outcome::stopped`] tells.
    pub path: Option<Vec<Action>>,
}

impl Finding {
    /// What a level was found to violate, with the path to it and what its last state violates.
    pub(super) fn new(depth: u32, violations: u32, path: Option<(Vec<Action>, u32)>) -> Self {
        match path {
            Some((path, violations)) => Self { violations, depth, path: Some(path) },
            None => Self { violations, depth, path: None },
        }
    }
}

/// Searches `model` with `threads` threads; `reductions.saturate` is not this engine's and is ignored.
///
/// With `to_first` the search ends with the first level that holds a violation.
pub fn search<M: Model>(
    model: &M,
    reductions: Reductions,
    threads: usize,
    to_first: bool,
    control: &mut Control<'_>,
) -> Outcome {
    let reductions = Reductions { saturate: false, ..reductions };
    if reductions.is_exact() {
        search_as::<M, false>(model, reductions, threads, to_first, control)
    } else {
        search_as::<M, true>(model, reductions, threads, to_first, control)
    }
}

fn search_as<M: Model, const REDUCED: bool>(
    model: &M,
    reductions: Reductions,
    threads: usize,
    to_first: bool,
    control: &mut Control<'_>,
) -> Outcome {
    let since = Instant::now();
    let normal = Normal { model, reductions };
    let kept = match small::search(&normal, to_first, control, since) {
        ControlFlow::Break(outcome) => return outcome,
        ControlFlow::Continue(kept) => kept,
    };
    let mut levels = Levels::<M, REDUCED>::new(model, reductions, threads.max(1), control.bounds, control.stop, since);
    let mut teller = Teller::new(control.progress.as_deref_mut(), since);
    let mut depth = 0;
    let mut first = None;
    match kept {
        Some(kept) => depth = levels.begin_with(kept),
        None => levels.begin(),
    }
    loop {
        if let Some(found) = levels.take_found() {
            levels.violations |= found.violations;
            first.get_or_insert((depth, found));
        }
        if levels.stopped.is_some() || (to_first && first.is_some()) || !levels.turn() {
            break;
        }
        if depth == control.bounds.depth {
            levels.stopped = Some(Stopped::Depth);
            break;
        }
        levels.expand(depth, &mut teller);
        if levels.frontier() > 0 {
            depth += 1;
        } else if levels.shards.iter().any(|shard| shard.found.is_some()) {
            depth += 1; // passed on urgent steps to a state already known
        }
    }
    let mut outcome = Outcome {
        states: levels.states(),
        transitions: levels.shards.iter().map(|shard| shard.transitions).sum(),
        depth,
        violations: levels.violations,
        finding: None,
        stopped: levels.stopped,
        memory_bytes: levels.memory_bytes,
        elapsed: since.elapsed(),
    };
    drop(levels);
    if reductions.eager_stores && first.is_some() {
        // Eager stores are no actions of a path: the finding is the one that a search without them has.
        let witness = search_as::<M, true>(model, reductions.for_witness(), threads, true, control);
        (outcome.finding, outcome.stopped) = (witness.finding, outcome.stopped.or(witness.stopped));
        outcome.elapsed = since.elapsed();
        return outcome;
    }
    if let Some((depth, found)) = first {
        let path = witness::shortest(model, reductions, depth, found.least, control, since);
        outcome.stopped = outcome.stopped.or(path.as_ref().err().copied());
        outcome.finding = Some(Finding::new(depth, found.violations, path.ok().flatten()));
    }
    outcome.elapsed = since.elapsed();
    outcome
}

/// The search between two levels.
struct Levels<'a, M: Model, const REDUCED: bool> {
    normal: Normal<'a, M>,
    tokens: Tokens,
    bounds: Bounds,
    stop: &'a AtomicBool,
    since: Instant,
    shards: Vec<Shard<M::State>>,
    forecast: Forecast,
    violations: u32,
    stopped: Option<Stopped>,
    memory_bytes: usize,
}

impl<'a, M: Model, const REDUCED: bool> Levels<'a, M, REDUCED> {
    fn new(
        model: &'a M,
        reductions: Reductions,
        threads: usize,
        bounds: Bounds,
        stop: &'a AtomicBool,
        since: Instant,
    ) -> Self {
        let each = bounds.memory_bytes / threads;
        let shards: Result<Vec<_>, _> = (0..threads).map(|_| Shard::new(each)).collect();
        Self {
            normal: Normal { model, reductions },
            tokens: Tokens::new(bounds.states),
            bounds,
            stop,
            since,
            stopped: shards.is_err().then_some(Stopped::Memory),
            shards: shards.unwrap_or_default(),
            forecast: Forecast::default(),
            violations: 0,
            memory_bytes: 0,
        }
    }

    /// Stores the initial states.
    fn begin(&mut self) {
        let initial: Vec<_> = self.normal.model.initial().into_iter().map(|state| self.normal.of(state)).collect();
        let mut outboxes = self.outboxes();
        let Some(first) = self.shards.first_mut() else { return };
        let mut collector = Collector::<M, REDUCED>::new(&self.normal, &self.tokens, first, 0, &mut outboxes);
        for &(state, passed) in &initial {
            collector.take(state, passed);
        }
        collector.flush();
        collector.shard.transitions = 0;
        self.deliver(&mut outboxes);
        self.note();
    }

    /// Takes over a search that has found nothing yet; tells how deep it is.
    fn begin_with(&mut self, kept: Kept<'_, M>) -> u32 {
        let Some(first) = self.shards.first_mut() else { return 0 };
        // Its table goes first: the states do not stand in two.
        let (kept, transitions) = kept.into_levels();
        first.transitions = transitions;
        let depth = kept.len() - 1;
        for (level, states) in kept.into_iter().map(|level| level.states).enumerate() {
            let mut outboxes = self.outboxes();
            for state in states {
                outboxes[owner(state.hash_word(), self.shards.len())].push(state);
            }
            self.deliver(&mut outboxes);
            if level < depth {
                self.forecast.after(self.frontier());
                self.shards.iter_mut().for_each(|shard| shard.next = Queue::new());
            }
        }
        self.note();
        u32::try_from(depth).unwrap_or(u32::MAX)
    }

    fn outboxes(&self) -> Vec<Vec<M::State>> {
        vec![Vec::new(); self.shards.len()]
    }

    fn deliver(&mut self, outboxes: &mut [Vec<M::State>]) {
        for (own, states) in outboxes.iter_mut().enumerate() {
            if !states.is_empty() {
                let shard = &mut self.shards[own];
                Collector::<M, REDUCED>::new(&self.normal, &self.tokens, shard, own, &mut []).receive(states);
                states.clear();
            }
        }
    }

    fn states(&self) -> u64 {
        self.shards.iter().map(|shard| shard.table.len() as u64).sum()
    }

    /// States found in the level that is being made.
    fn frontier(&self) -> usize {
        self.shards.iter().map(|shard| shard.next.len()).sum()
    }

    fn take_found(&mut self) -> Option<Found<M::State>> {
        let mut all = None;
        for found in self.shards.iter_mut().filter_map(|shard| shard.found.take()) {
            Found::merge(&mut all, found);
        }
        all
    }

    /// Makes what was found the frontier; false if there is nothing.
    fn turn(&mut self) -> bool {
        let count = self.shards.len();
        for shard in &mut self.shards {
            std::mem::swap(&mut shard.current, &mut shard.next);
        }
        let level = self.shards.iter().map(|shard| shard.current.len()).sum();
        let expected = self.forecast.after(level).map(|left| self.states() as usize + left);
        for shard in &mut self.shards {
            shard.expected = expected.map(|all| all / count);
        }
        self.shards.iter().any(|shard| !shard.current.is_empty())
    }

    fn note(&mut self) {
        self.memory_bytes = self.memory_bytes.max(self.shards.iter().map(Shard::bytes).sum());
        self.stopped = self
            .stopped
            .or_else(|| self.shards.iter().find_map(|shard| shard.stopped))
            .or_else(|| Control::interrupted(&self.bounds, self.stop, self.since));
    }

    /// Expands one level.
    fn expand(&mut self, depth: u32, teller: &mut Teller<'_, '_>) {
        let frontier: usize = self.shards.iter().map(|shard| shard.current.len()).sum();
        if self.shards.len() > 1 && frontier >= PARALLEL {
            self.expand_in_parallel(depth, teller);
            self.note();
            return;
        }
        let mut outboxes = self.outboxes();
        for own in 0..self.shards.len() {
            while self.stopped.is_none()
                && let Some(block) = self.shards[own].current.pop_block()
            {
                let shard = &mut self.shards[own];
                let mut collector = Collector::<M, REDUCED>::new(&self.normal, &self.tokens, shard, own, &mut outboxes);
                collector.expand(&block);
                collector.flush();
                self.deliver(&mut outboxes);
                self.note();
                let left = self.shards.iter().map(|shard| shard.current.len() + shard.next.len()).sum::<usize>();
                teller.tell(self.states(), left as u64, depth);
            }
        }
    }

    /// The same with one thread for each shard: expand some blocks, exchange, store what came, until nobody has more.
    fn expand_in_parallel(&mut self, depth: u32, teller: &mut Teller<'_, '_>) {
        let count = self.shards.len();
        let mail: Vec<Mutex<Vec<M::State>>> = (0..count * count).map(|_| Mutex::new(Vec::new())).collect();
        let barrier = Barrier::new(count);
        let (more, halt) = (AtomicU64::new(0), AtomicBool::new(false));
        let totals: Vec<[AtomicU64; 2]> = (0..count).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        let (normal, tokens) = (&self.normal, &self.tokens);
        let (bounds, stop, since) = (self.bounds, self.stop, self.since);
        let work = |own: usize, shard: &mut Shard<M::State>, mut teller: Option<&mut Teller<'_, '_>>| {
            let mut outboxes = vec![Vec::new(); count];
            loop {
                let mut collector = Collector::<M, REDUCED>::new(normal, tokens, shard, own, &mut outboxes);
                for _ in 0..ROUND {
                    let Some(block) = collector.shard.current.pop_block() else { break };
                    collector.expand(&block);
                }
                collector.flush();
                for (to, outbox) in outboxes.iter_mut().enumerate() {
                    // The box that comes back is the one that was emptied in the round before.
                    std::mem::swap(outbox, &mut mail[to * count + own].lock().unwrap_or_else(PoisonError::into_inner));
                }
                barrier.wait();
                more.store(0, Ordering::Relaxed);
                let mut collector = Collector::<M, REDUCED>::new(normal, tokens, shard, own, &mut []);
                for from in 0..count {
                    let mut states = mail[own * count + from].lock().unwrap_or_else(PoisonError::into_inner);
                    collector.receive(&states);
                    states.clear();
                }
                barrier.wait();
                more.fetch_add(shard.current.len() as u64, Ordering::Relaxed);
                totals[own][0].store(shard.table.len() as u64, Ordering::Relaxed);
                totals[own][1].store((shard.current.len() + shard.next.len()) as u64, Ordering::Relaxed);
                if shard.stopped.is_some() || Control::interrupted(&bounds, stop, since).is_some() {
                    halt.store(true, Ordering::Relaxed);
                }
                barrier.wait();
                if let Some(teller) = &mut teller {
                    let total = |at: usize| totals.iter().map(|total| total[at].load(Ordering::Relaxed)).sum();
                    teller.tell(total(0), total(1), depth);
                }
                if more.load(Ordering::Relaxed) == 0 || halt.load(Ordering::Relaxed) {
                    break;
                }
                barrier.wait();
            }
        };
        std::thread::scope(|scope| {
            let mut shards = self.shards.iter_mut().enumerate();
            let first = shards.next();
            for (own, shard) in shards {
                scope.spawn(move || work(own, shard, None));
            }
            if let Some((own, shard)) = first {
                work(own, shard, Some(teller));
            }
        });
        if halt.load(Ordering::Relaxed) {
            self.note();
            self.stopped = self.stopped.or(Some(Stopped::Asked));
        }
    }
}
