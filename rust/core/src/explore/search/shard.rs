//! One thread's part of the plain search: the states whose hash falls to it, and the batch between them and the model.

use super::normal::Normal;
use super::queue::{BLOCK, Queue};
use super::recent::Recent;
use super::table::{Full, Table};
use super::tokens::Tokens;
use super::{Model, PackedState, Sink, Stopped};

/// Successors that are looked up together: the memory is asked for all of them before the first is needed.
const BATCH: usize = 256;

/// What a level found: the least violating state, so that the result does not depend on the order of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<S> {
    pub(super) violations: u32,
    pub(super) least: S,
}

impl<S: PackedState> Found<S> {
    pub(super) fn merge(into: &mut Option<Self>, other: Self) {
        *into = Some(match *into {
            None => other,
            Some(found) => {
                Self { violations: found.violations | other.violations, least: found.least.min(other.least) }
            }
        });
    }
}

/// The part of one thread.
pub(super) struct Shard<S> {
    pub(super) table: Table<S>,
    pub(super) current: Queue<S>,
    pub(super) next: Queue<S>,
    pub(super) transitions: u64,
    pub(super) found: Option<Found<S>>,
    pub(super) stopped: Option<Stopped>,
    /// States that the table is likely to have in the end.
    pub(super) expected: Option<usize>,
    /// All of these are in a table, or on their way there.
    recent: Recent<S>,
    /// Scratch of [`Table::insert_all`].
    waiting: Vec<(S, usize)>,
    memory_bytes: usize,
}

impl<S: PackedState> Shard<S> {
    pub(super) fn new(memory_bytes: usize) -> Result<Self, Full> {
        Ok(Self {
            table: Table::new(memory_bytes)?,
            current: Queue::new(),
            next: Queue::new(),
            transitions: 0,
            found: None,
            stopped: None,
            expected: None,
            recent: Recent::new(memory_bytes),
            waiting: Vec::with_capacity(BATCH),
            memory_bytes,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.bytes() + self.bytes_besides()
    }

    fn bytes_besides(&self) -> usize {
        self.recent.bytes() + self.current.bytes() + self.next.bytes()
    }

    /// Stores those of `states` that are new.
    fn store<M: Model<State = S>>(&mut self, model: &M, tokens: &Tokens, states: &mut [S], hashes: &[u64]) {
        // The block that is being expanded, and the one that these states may begin.
        let blocks = 2 * BLOCK * size_of::<S>();
        let budget = self.memory_bytes.saturating_sub(self.bytes_besides() + blocks);
        if self.stopped.is_some() {
            return;
        }
        if self.table.reserve(states.len(), self.expected, budget).is_err() || self.table.bytes() > budget {
            self.stopped = Some(Stopped::Memory);
            return;
        }
        if !tokens.take_batch(states.len() as u64) {
            self.store_last(model, tokens, states);
            return;
        }
        let fresh = self.table.insert_all(states, hashes, &mut self.waiting);
        self.add(model, &states[..fresh]);
        tokens.end_batch((states.len() - fresh) as u64);
    }

    /// The same near the bound on states: one by one.
    #[cold]
    fn store_last<M: Model<State = S>>(&mut self, model: &M, tokens: &Tokens, states: &[S]) {
        for &state in states {
            if self.table.contains(state) {
                continue;
            }
            if !tokens.take_one() {
                self.stopped = Some(Stopped::States);
                return;
            }
            self.table.insert(state, state.hash_word());
            self.add(model, &[state]);
        }
    }

    fn add<M: Model<State = S>>(&mut self, model: &M, states: &[S]) {
        self.next.extend(states);
        for &state in states {
            let violations = model.violations(&state);
            if violations != 0 {
                Found::merge(&mut self.found, Found { violations, least: state });
            }
        }
    }
}

/// Which shard a state belongs to. Tables use the upper bits of the hash, this the lower.
#[inline]
pub(super) fn owner(hash: u64, shards: usize) -> usize {
    ((hash & 0xffff) as usize * shards) >> 16
}

/// Takes successors, in batches, to their shard.
pub(super) struct Collector<'a, M: Model, const REDUCED: bool> {
    pub(super) normal: &'a Normal<'a, M>,
    tokens: &'a Tokens,
    pub(super) shard: &'a mut Shard<M::State>,
    own: usize,
    /// For the other shards.
    pub(super) outboxes: &'a mut [Vec<M::State>],
    len: usize,
    /// How many of them are hashed, and their places asked for.
    hashed: usize,
    states: [M::State; BATCH],
    hashes: [u64; BATCH],
}

impl<'a, M: Model, const REDUCED: bool> Collector<'a, M, REDUCED> {
    pub(super) fn new(
        normal: &'a Normal<'a, M>,
        tokens: &'a Tokens,
        shard: &'a mut Shard<M::State>,
        own: usize,
        outboxes: &'a mut [Vec<M::State>],
    ) -> Self {
        let states = [M::State::VACANT; BATCH];
        Self { normal, tokens, shard, own, outboxes, len: 0, hashed: 0, states, hashes: [0; BATCH] }
    }

    /// Takes one state in normal form; urgent steps on the way to it passed `passed`.
    pub(super) fn take(&mut self, state: M::State, passed: u32) {
        let mut successors = Successors { len: self.len, collector: self };
        successors.take(state, passed);
        self.len = successors.len;
    }

    /// Expands one block of states.
    pub(super) fn expand(&mut self, block: &[M::State]) {
        let model = self.normal.model;
        for state in block {
            let mut successors = Successors { len: self.len, collector: self };
            model.successors(state, &mut successors);
            self.len = successors.len;
            self.count();
            // Not all at the end: memory answers while the next states are computed.
            self.hash();
        }
    }

    /// Takes states that other shards found, already in normal form.
    pub(super) fn receive(&mut self, states: &[M::State]) {
        for chunk in states.chunks(BATCH) {
            self.states[..chunk.len()].copy_from_slice(chunk);
            self.len = chunk.len();
            self.hash();
            self.store(self.len);
        }
    }

    /// Hands over what has come so far.
    #[inline(never)]
    pub(super) fn flush(&mut self) {
        self.hash();
        let shards = self.outboxes.len();
        if shards == 1 {
            self.store(self.len);
            return;
        }
        let mut kept = 0;
        for at in 0..self.len {
            let (state, hash) = (self.states[at], self.hashes[at]);
            let owner = owner(hash, shards);
            if owner == self.own {
                (self.states[kept], self.hashes[kept]) = (state, hash);
                kept += 1;
            } else {
                self.outboxes[owner].push(state);
            }
        }
        self.store(kept);
    }

    /// Counts what has come since the last was hashed.
    #[inline]
    fn count(&mut self) {
        self.shard.transitions += (self.len - self.hashed) as u64;
    }

    /// Hashes what has come, drops what came a short time ago, and asks for the places of the others in the table.
    #[inline]
    fn hash(&mut self) {
        let unhashed = self.hashed..self.len;
        let mut kept = self.hashed;
        for at in unhashed {
            let state = self.states[at];
            let hash = state.hash_word();
            // Whether it is known is a guess: no branch.
            (self.states[kept], self.hashes[kept]) = (state, hash);
            kept += usize::from(!self.shard.recent.note(state, hash));
        }
        for &hash in &self.hashes[self.hashed..kept] {
            self.shard.table.prefetch(hash);
        }
        (self.len, self.hashed) = (kept, kept);
    }

    #[inline]
    fn store(&mut self, kept: usize) {
        self.shard.store(self.normal.model, self.tokens, &mut self.states[..kept], &self.hashes[..kept]);
        self.len = 0;
        self.hashed = 0;
    }
}

/// Takes the successors of one state. How many are there stands here, not behind the reference: it stays in a register.
struct Successors<'c, 'a, M: Model, const REDUCED: bool> {
    collector: &'c mut Collector<'a, M, REDUCED>,
    len: usize,
}

impl<M: Model, const REDUCED: bool> Successors<'_, '_, M, REDUCED> {
    /// A place for one more.
    #[inline]
    fn place(&mut self) -> &mut M::State {
        if self.len >= BATCH {
            self.collector.len = BATCH;
            self.collector.count();
            self.collector.flush();
            self.len = 0;
        }
        &mut self.collector.states[self.len]
    }

    #[inline]
    fn take(&mut self, state: M::State, passed: u32) {
        if passed != 0 {
            Found::merge(&mut self.collector.shard.found, Found { violations: passed, least: state });
        }
        *self.place() = state;
        self.len += 1;
    }
}

impl<M: Model, const REDUCED: bool> Sink<M::State> for Successors<'_, '_, M, REDUCED> {
    #[inline]
    fn emit(&mut self, _: super::Action, state: M::State) {
        let (state, passed) = if REDUCED { self.collector.normal.of(state) } else { (state, 0) };
        self.take(state, passed);
    }

    #[inline]
    fn emit_if(&mut self, enabled: bool, action: super::Action, state: M::State) {
        if REDUCED {
            if enabled {
                self.emit(action, state);
            }
            return;
        }
        *self.place() = state;
        self.len += usize::from(enabled);
    }
}
