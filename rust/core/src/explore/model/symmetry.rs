//! Who may change names: user CPUs, and kernel threads that run the same on the same pages.
//!
//! A state and the same with two of them exchanged have the same futures and the same violations, up to the names. Of all
//! states that differ in names only, one is kept: threads stand in the order of their registers, CPUs in that of their
//! columns, and where registers are alike, the least state of all orders is taken. So two states that differ in names only
//! always come to the same one.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::KernelModel;
use super::blueprint::Blueprint;
use super::op::{Kind, OpIndex};
use super::vars::{Field, Local, Var};

/// Two neighbours among the threads that run the same.
#[derive(Clone, Debug)]
pub(super) struct Twins {
    /// Registers of the one and of the other, the position first.
    registers: Vec<(Field, Field)>,
    /// What they wait for from CPUs.
    pending: Vec<(Field, Field)>,
    /// Their names, as other variables hold them.
    names: (u64, u64),
}

impl Blueprint {
    /// The threads that may change names, as pairs of neighbours: exchanges of these make all orders.
    ///
    /// None where the flush engine has steps of its own, in which CPUs are asked by name.
    pub(super) fn twins(&self) -> Vec<Twins> {
        if self.world.engine.is_detailed() {
            return Vec::new();
        }
        let nr_threads = self.world.threads.len();
        let next_alike = |one: usize| (one + 1..nr_threads).find(|other| self.run_the_same(one, *other));
        (0..nr_threads)
            .filter_map(|one| next_alike(one).and_then(|other| self.twins_of(one as u8, other as u8)))
            .collect()
    }

    /// Whether what two threads do differs in nothing but whose registers they use.
    fn run_the_same(&self, one: usize, other: usize) -> bool {
        if self.world.threads[one] != self.world.threads[other] {
            return false;
        }
        let mut matched: HashMap<OpIndex, OpIndex> = HashMap::new();
        let mut todo = vec![(self.starts()[one], self.starts()[other])];
        while let Some((a, b)) = todo.pop() {
            match matched.insert(a, b) {
                Some(known) if known == b => continue,
                Some(_) => return false,
                None => {}
            }
            let (of_a, of_b) = (&self.ops()[a as usize], &self.ops()[b as usize]);
            let (next_a, next_b) = (of_a.targets(), of_b.targets());
            if of_a.class != of_b.class
                || self.wait_of(a) != self.wait_of(b)
                || next_a.len() != next_b.len()
                || self.words_for(&of_a.kind, one) != self.words_for(&of_b.kind, other)
            {
                return false;
            }
            todo.extend(next_a.into_iter().zip(next_b));
        }
        true
    }

    /// A step in words, the thread's own registers without its name.
    fn words_for(&self, kind: &Kind, thread: usize) -> String {
        let own = format!("Thread({thread}, ");
        let words = match kind {
            // Where each leads to is looked at for itself.
            Kind::Idle(choices) => {
                let faults: Vec<(u8, bool)> = choices.iter().map(|(page, write, _)| (*page, *write)).collect();
                format!("Idle({faults:?})")
            }
            kind => self.named(&format!("{kind:?}")),
        };
        words.replace(&own, "Thread(own, ")
    }

    fn twins_of(&self, one: u8, other: u8) -> Option<Twins> {
        let of = |thread: u8| -> Vec<(Local, Field)> {
            let local = |(var, field)| if let Var::Thread(of, local) = var { Some((of, local, field)) } else { None };
            let mut own: Vec<(Local, Field)> = self
                .variables()
                .filter_map(local)
                .filter_map(|(of, local, field)| (of == thread).then_some((local, field)))
                .collect();
            own.sort_unstable_by_key(|(local, _)| *local);
            own
        };
        let (a, b) = (of(one), of(other));
        let alike = |((l, f), (m, g)): (&(Local, Field), &(Local, Field))| l == m && f.mask == g.mask;
        if a.len() != b.len() || !a.iter().zip(&b).all(alike) {
            return None;
        }
        let (pending, registers) = a
            .into_iter()
            .zip(b)
            .partition::<Vec<_>, _>(|((local, _), _)| matches!(local, Local::Pending(_) | Local::BatchMask(_)));
        let fields =
            |list: Vec<((Local, Field), (Local, Field))>| list.into_iter().map(|((_, f), (_, g))| (f, g)).collect();
        Some(Twins {
            registers: fields(registers),
            pending: fields(pending),
            names: (u64::from(one) + 1, u64::from(other) + 1),
        })
    }
}

impl Twins {
    #[inline]
    fn order<const W: usize>(&self, state: &[u64; W]) -> Ordering {
        let differ = self.registers.iter().map(|(a, b)| a.get(state).cmp(&b.get(state)));
        differ.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl<const W: usize> KernelModel<W> {
    fn exchanged(&self, state: &[u64; W], twins: &Twins) -> [u64; W] {
        let mut next = *state;
        for (a, b) in twins.registers.iter().chain(&twins.pending) {
            b.set(&mut next, a.get(state));
            a.set(&mut next, b.get(state));
        }
        let (one, other) = twins.names;
        for frame in self.frames.iter().filter(|frame| frame.freer.mask != 0) {
            let named = frame.freer.get(state);
            if named == one || named == other {
                frame.freer.set(&mut next, one + other - named);
            }
        }
        next
    }

    /// The state that is kept of all that differ in names only.
    pub(super) fn with_names_sorted(&self, state: &[u64; W]) -> [u64; W] {
        if self.twins.is_empty() {
            return self.with_columns_sorted(state);
        }
        let mut next = *state;
        let mut is_sorted = false;
        while !is_sorted {
            is_sorted = true;
            for twins in &self.twins {
                if twins.order(&next).is_gt() {
                    next = self.exchanged(&next, twins);
                    is_sorted = false;
                }
            }
        }
        let mut least = self.with_columns_sorted(&next);
        let alike: Vec<&Twins> = self.twins.iter().filter(|twins| twins.order(&next).is_eq()).collect();
        if !alike.is_empty() {
            for other in Self::orbit(next, |state| alike.iter().map(|twins| self.exchanged(state, twins)).collect()) {
                least = least.min(self.with_columns_sorted(&other));
            }
        }
        least
    }

    /// All states that `neighbours` leads to.
    fn orbit(state: [u64; W], neighbours: impl Fn(&[u64; W]) -> Vec<[u64; W]>) -> Vec<[u64; W]> {
        let mut found = vec![state];
        let mut at = 0;
        while at < found.len() {
            for other in neighbours(&found[at]) {
                if !found.contains(&other) {
                    found.push(other);
                }
            }
            at += 1;
        }
        found
    }

    fn with_columns_sorted(&self, state: &[u64; W]) -> [u64; W] {
        let mut next = *state;
        let nr_columns = self.columns.len();
        // Insertion by exchange: a handful of columns.
        for end in 1..nr_columns {
            for at in (0..end).rev() {
                let (a, b) = (self.columns[at].get(&next), self.columns[at + 1].get(&next));
                if a <= b {
                    break;
                }
                self.columns[at].set(&mut next, b);
                self.columns[at + 1].set(&mut next, a);
            }
        }
        next
    }

    /// The CPU before this one holds the same: what this one does differs in its name only.
    #[inline]
    pub(super) fn is_like_the_one_before(&self, state: &[u64; W], cpu: usize) -> bool {
        cpu > 0 && !self.columns.is_empty() && self.columns[cpu].get(state) == self.columns[cpu - 1].get(state)
    }

    /// All states that differ from this one in names only.
    pub(super) fn all_renamed(&self, state: &[u64; W]) -> Vec<[u64; W]> {
        Self::orbit(*state, |state| {
            let columns = self.columns.windows(2).map(|pair| {
                let mut next = *state;
                pair[0].set(&mut next, pair[1].get(state));
                pair[1].set(&mut next, pair[0].get(state));
                next
            });
            columns.chain(self.twins.iter().map(|twins| self.exchanged(state, twins))).collect()
        })
    }
}
