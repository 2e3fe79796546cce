//! Actions and states in words, for counterexamples.

use serde::Serialize;

use super::hardware::{Actor, Deed, READ, WRITE, actor};
use super::op::Kind;
use super::tables::TableStep;
use super::vars::Var;
use super::{KernelModel, pte};
use crate::explore::search::Action;

/// One step of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Event {
    /// The CPU: kernel threads first, then user CPUs.
    pub cpu: usize,
    /// What runs there.
    pub who: String,
    /// What happens, as kernel developers say it.
    pub text: String,
    /// The hardware does it, not a program.
    pub hardware: bool,
}

/// What a state looks like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Snapshot {
    /// Page-table entries by the page's name.
    pub ptes: Vec<(String, String)>,
    /// TLB entries that are there: CPU, page, what it allows.
    pub tlbs: Vec<(usize, String, String)>,
    /// Everything else that is not 0.
    pub variables: Vec<(String, u64)>,
}

impl<const W: usize> KernelModel<W> {
    fn page_name(&self, page: u8) -> &str {
        &self.blueprint.world.pages[usize::from(page)].name
    }

    /// The CPU on which an action is taken: kernel threads first, then user CPUs.
    pub fn cpu_of(&self, action: Action) -> usize {
        match actor(action) {
            Actor::Thread { thread, .. } => thread,
            Actor::User { cpu, .. } | Actor::Upper { cpu, .. } | Actor::Ipi { cpu, .. } => self.threads.len() + cpu,
        }
    }

    /// Which CPU does what, in the state in which the action is taken.
    pub fn event(&self, state: &[u64; W], action: Action) -> Event {
        let threads = &self.blueprint.world.threads;
        match actor(action) {
            Actor::Thread { thread, choice } => {
                let op = self.op_of(state, &self.threads[thread]);
                let text = match &op.kind {
                    Kind::Idle(choices) => {
                        let (page, write, _) = choices[choice];
                        format!("page fault, {} of {}", if write { "write" } else { "read" }, self.page_name(page))
                    }
                    Kind::Branch(test) => {
                        let holds = self.holds(state, &self.threads[thread], test);
                        format!("{}? {}", op.text, if holds { "yes" } else { "no" })
                    }
                    Kind::Table(TableStep::Batch) => {
                        format!("{}? {}", op.text, if choice == 0 { "yes" } else { "no" })
                    }
                    _ => op.text.clone(),
                };
                Event { cpu: thread, who: threads[thread].operation.clone(), text, hardware: false }
            }
            Actor::User { cpu, slot, deed } => {
                let (page, frame) = self.slots[slot];
                let name = self.page_name(page);
                let entry = self.entry_now(state, page).get(state);
                let flags = match entry & (pte::WRITE | pte::DIRTY) {
                    pte::WRITE => " W",
                    bits if bits == pte::WRITE | pte::DIRTY => " W D",
                    _ => "",
                };
                let is_stale = !pte::is_present(entry) || pte::frame(entry) != frame || entry & pte::WRITE == 0;
                let text = match deed {
                    Deed::Fill | Deed::Refill => format!("[TLB fill {name}{flags}]"),
                    Deed::Evict => format!("[TLB evict {name}]"),
                    Deed::SetDirty => format!("[D set in the PTE of {name}]"),
                    Deed::RefillDirty => format!("[TLB fill {name} W, D set in the PTE]"),
                    Deed::Store if is_stale => format!("user store {name} through stale entry"),
                    Deed::Store => format!("user store {name}"),
                };
                let hardware = deed != Deed::Store;
                Event { cpu: threads.len() + cpu, who: format!("user {cpu}"), text, hardware }
            }
            Actor::Upper { cpu, number, deed } => {
                let what = if deed == Deed::Evict { "evict" } else { "cache" };
                let text = format!("[{what} the way to the {}]", self.upper_name(number));
                Event { cpu: threads.len() + cpu, who: format!("user {cpu}"), text, hardware: true }
            }
            Actor::Ipi { cpu, thread } => Event {
                cpu: threads.len() + cpu,
                who: format!("user {cpu}"),
                text: format!("[IPI of CPU{thread}: flush]"),
                hardware: true,
            },
        }
    }

    /// A state in words.
    pub fn snapshot(&self, state: &[u64; W]) -> Snapshot {
        let pages = &self.blueprint.world.pages;
        let ptes = pages
            .iter()
            .zip(0..)
            .map(|(page, number)| (page.name.clone(), pte::text(self.entry_now(state, number).get(state))))
            .collect();
        let mut tlbs = Vec::new();
        for (cpu, entries) in self.tlb.iter().enumerate() {
            for (slot, field) in entries.iter().enumerate() {
                let rights = match field.get(state) {
                    0 => continue,
                    READ => "R",
                    WRITE => "W",
                    _ => "W D",
                };
                let (page, frame) = self.slots[slot];
                tlbs.push((cpu, self.page_name(page).to_owned(), format!("frame {frame}, {rights}")));
            }
        }
        let variables = self
            .blueprint
            .variables()
            .filter(|(var, _)| !matches!(var, Var::Pte(_) | Var::Tlb(..) | Var::One))
            .map(|(var, field)| (format!("{var:?}"), field.get(state)))
            .filter(|(_, value)| *value != 0)
            .collect();
        Snapshot { ptes, tlbs, variables }
    }

    /// Whether a thread's program has ended, or waits for a fault.
    pub fn has_ended(&self, state: &[u64; W], thread: usize) -> bool {
        matches!(self.op_of(state, &self.threads[thread]).kind, Kind::Done)
    }

    /// Whether an action is a step of the thread.
    pub fn is_step_of(&self, action: Action, of: usize) -> bool {
        matches!(actor(action), Actor::Thread { thread, .. } if thread == of)
    }

    /// Whether an action answers an IPI.
    pub fn is_answer(&self, action: Action) -> bool {
        matches!(actor(action), Actor::Ipi { .. })
    }
}
