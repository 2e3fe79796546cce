//! What an engine asks of a model: states packed into words, actions by number, and which reductions are sound for it.
//!
//! A model that gives only [`Model::initial`], [`Model::successors`] and [`Model::violations`] can be searched without
//! reductions. Each further method promises something (written at the method) that [`audit`](super::audit) can test
//! and no engine takes on trust: a reduction that the caller switched off is not called at all.

use std::fmt::{self, Debug};
use std::hash::Hash;

use super::Reductions;

mod sealed {
    pub trait Sealed {}
    impl<const W: usize> Sealed for [u64; W] {}
}

/// A state as the tables of the engines keep it: whole, in words, never as a fingerprint.
///
/// One value is set aside as *vacant*, which marks the empty places of a table; a model must never produce it.
/// Implemented for arrays of words and for nothing else, with all zeros vacant: a model keeps some bit set in every state.
pub trait PackedState: sealed::Sealed + Copy + Ord + Hash + Debug + Send + Sync + 'static {
    /// No state. Also the neutral element of [`PackedState::or`].
    const VACANT: Self;

    /// A hash whose upper bits are good: tables take their places from these.
    fn hash_word(&self) -> u64;

    /// The words, lowest first.
    fn words(&self) -> &[u64];

    /// Equality without a branch for each word.
    fn is(&self, other: &Self) -> bool;

    /// Bitwise and.
    fn and(self, other: Self) -> Self;

    /// Bitwise or.
    fn or(self, other: Self) -> Self;

    /// The bits that `other` has not.
    fn and_not(self, other: Self) -> Self;

    /// Whether every bit of `self` is in `other`.
    #[inline]
    fn is_subset(self, other: Self) -> bool {
        self.and_not(other) == Self::VACANT
    }
}

/// Multiplies to 128 bits and folds the halves: every bit of both factors reaches the middle bits.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl<const W: usize> PackedState for [u64; W] {
    const VACANT: Self = [0; W];

    #[inline]
    fn hash_word(&self) -> u64 {
        // Odd constants without pattern (digits of pi); the last round brings everything into the upper bits.
        const KEYS: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345];
        let mut hash = 0x4528_21e6_38d0_1377_u64;
        let mut at = 0;
        while at < W {
            let second = if at + 1 < W { self[at + 1] } else { 0 };
            hash = fold(self[at] ^ KEYS[0] ^ hash, second ^ KEYS[1]);
            at += 2;
        }
        hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[inline]
    fn words(&self) -> &[u64] {
        self
    }

    #[inline]
    fn is(&self, other: &Self) -> bool {
        let mut differs = 0;
        let mut at = 0;
        while at < W {
            differs |= self[at] ^ other[at];
            at += 1;
        }
        differs == 0
    }

    #[inline]
    fn and(mut self, other: Self) -> Self {
        for (word, other) in self.iter_mut().zip(other) {
            *word &= other;
        }
        self
    }

    #[inline]
    fn or(mut self, other: Self) -> Self {
        for (word, other) in self.iter_mut().zip(other) {
            *word |= other;
        }
        self
    }

    #[inline]
    fn and_not(mut self, other: Self) -> Self {
        for (word, other) in self.iter_mut().zip(other) {
            *word &= !other;
        }
        self
    }
}

/// One atomic step that a model can take, named by a number that the model can turn into words.
///
/// The number need only tell apart the actions that are enabled in one state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Action(pub u32);

/// Where a model puts successors.
pub trait Sink<S> {
    /// Takes one successor.
    fn emit(&mut self, action: Action, state: S);

    /// Takes it only if `enabled`. A model whose guard is a coin flip calls this instead of branching: an engine can
    /// write the state and advance by 0 or 1.
    #[inline]
    fn emit_if(&mut self, enabled: bool, action: Action, state: S) {
        if enabled {
            self.emit(action, state);
        }
    }
}

/// A closure is a sink.
impl<S, F: FnMut(Action, S)> Sink<S> for F {
    #[inline]
    fn emit(&mut self, action: Action, state: S) {
        self(action, state);
    }
}

/// When the saturating engine expands a successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A step that only makes TLBs stronger (it may set A or D on the way): followed before anything else.
    Fill,
    /// Any other step.
    Step,
}

/// Why a model must not be saturated: it names what needs the absence of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotMonotone(pub String);

impl fmt::Display for NotMonotone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "saturation is not sound here: {}", self.0)
    }
}

/// A transition system on packed states.
pub trait Model: Sync {
    /// The packed state.
    type State: PackedState;

    /// The initial states, in a fixed order.
    fn initial(&self) -> Vec<Self::State>;

    /// Every enabled action in a fixed order, with its successor. Two actions may lead to the same state.
    fn successors(&self, state: &Self::State, sink: &mut impl Sink<Self::State>);

    /// Bit `i` set: invariant `i` is violated in this state (or was by the action that led here, as the state recalls).
    fn violations(&self, state: &Self::State) -> u32;

    /// An enabled step that may be taken at once, before any other: if it is returned, nothing else of this state is
    /// explored.
    ///
    /// The promise: until the step is taken, every action of anybody else commutes with it (neither disables the other,
    /// both orders end in the same state) and it hides no violation, since the engine tests every state that it passes.
    /// A chain of urgent steps must come to an end.
    fn urgent(&self, _state: &Self::State) -> Option<(Action, Self::State)> {
        None
    }

    /// The state with every variable that nobody reads any more set to a fixed value.
    ///
    /// The promise: both states have the same futures and the same violations.
    fn without_dead(&self, state: &Self::State) -> Self::State {
        *state
    }

    /// The state with the pages that all loops have passed in a fixed order. The promise is that of
    /// [`Model::without_dead`], up to the names of those pages.
    fn with_retired_sorted(&self, state: &Self::State) -> Self::State {
        *state
    }

    /// The state with the interchangeable CPUs in a fixed order, those of user threads and those of kernel threads that run the
    /// same. The promise is that of [`Model::without_dead`], up to the names of those CPUs; and that states which differ in
    /// those names only come to the same one.
    fn with_cpus_sorted(&self, state: &Self::State) -> Self::State {
        *state
    }

    /// All states that differ from `state` only in the names of interchangeable CPUs and passed pages, itself included: what
    /// [`Model::with_retired_sorted`] and [`Model::with_cpus_sorted`] choose from. For audits only.
    fn renamed(&self, state: &Self::State) -> Vec<Self::State> {
        vec![*state]
    }

    /// The state after every store that can happen now and changes nothing but monotone bits.
    ///
    /// The promise: the result is reachable by actions, and it has every bit of `state` and the same base.
    fn with_stores(&self, state: &Self::State) -> Self::State {
        *state
    }

    /// The state without all that belongs to the interchangeable CPUs: what is left of the kernel threads and the pages.
    fn without_cpus(&self, state: &Self::State) -> Self::State {
        *state
    }

    /// The monotone bits, or what stands in the way.
    ///
    /// The *base* of a state are its other bits, its *vector* are these. Codes must be such that more means inclusion of
    /// bits: a TLB entry is a thermometer (invalid `000`, read-only `001`, writable clean `011`, writable dirty `111`).
    ///
    /// The promise, for states `a` and `b` of the same base where `b` has all bits of `a`: whatever violation `a` has,
    /// `b` has; and for each action from `a` to `a'` there are actions from `b` to some `b'` that includes `a'` likewise.
    /// A model in which a guard, an invariant or a computed value needs a monotone bit to be *clear* must return
    /// [`NotMonotone`].
    ///
    /// # Errors
    ///
    /// If the model has no monotone bits, or must not be saturated.
    fn monotone(&self) -> Result<Self::State, NotMonotone> {
        Err(NotMonotone("the model declares no monotone bits".to_owned()))
    }

    /// The successors that the saturating engine needs: no evictions; eviction and fill in one step where the fill changes
    /// the base or strengthens the entry; likewise with the walk that sets D; all other actions as they are.
    ///
    /// The promise: every result is reachable by actions, and every action of [`Model::successors`] leads to a state that
    /// is included in one that these reach with the same base.
    /// Which reductions are on is said, since a dead variable that is forgotten need not be set either.
    fn saturated_successors(
        &self,
        _state: &Self::State,
        _reductions: Reductions,
        _emit: &mut impl FnMut(Action, Self::State, Class),
    ) {
        unreachable!("a model that is monotone gives its saturated successors");
    }

    /// The state after every fill that can happen now and changes nothing but monotone bits; the promise is that of
    /// [`Model::with_stores`], up to dead variables where those are forgotten.
    fn with_fills(&self, state: &Self::State, _reductions: Reductions) -> Self::State {
        *state
    }

    /// The words for an action in the state in which it is taken.
    fn describe(&self, state: &Self::State, action: Action) -> String {
        let _ = state;
        format!("action {}", action.0)
    }
}
