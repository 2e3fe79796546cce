//! The small steps of a model as text: two programs with the same listing are the same to the explorer.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::Blueprint;
use super::op::{Kind, OpIndex, Test};

impl Blueprint {
    /// The steps of all threads in the order in which they are reached, each with what comes next. Variables have their
    /// names, and steps that do nothing are passed over, so that it does not matter how the code came about.
    pub fn listing(&self) -> String {
        let mut numbers: HashMap<OpIndex, usize> = HashMap::new();
        let mut order = Vec::new();
        let mut todo: Vec<OpIndex> = self.starts().iter().rev().map(|start| self.passed_over(*start)).collect();
        while let Some(at) = todo.pop() {
            if numbers.contains_key(&at) {
                continue;
            }
            numbers.insert(at, order.len());
            order.push(at);
            todo.extend(self.ops()[at as usize].targets().into_iter().rev().map(|next| self.passed_over(next)));
        }
        let mut text = String::new();
        for at in order {
            let op = &self.ops()[at as usize];
            let next: Vec<usize> = op.targets().into_iter().map(|next| numbers[&self.passed_over(next)]).collect();
            let kind = match &op.kind {
                Kind::Idle(choices) => {
                    let faults: Vec<(u8, bool)> = choices.iter().map(|(page, write, _)| (*page, *write)).collect();
                    format!("Idle({faults:?})")
                }
                kind => self.named(&format!("{kind:?}")),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}: {} {kind} {:?} -> {next:?}", op.thread, numbers[&at], op.class);
        }
        text
    }

    /// The first step from here on that does something.
    fn passed_over(&self, mut at: OpIndex) -> OpIndex {
        while self.ops()[at as usize].kind == Kind::Branch(Test::Const(true)) {
            at = self.ops()[at as usize].next;
        }
        at
    }

    /// The numbers of variables replaced by their names.
    pub(super) fn named(&self, text: &str) -> String {
        let mut parts = text.split("VarId(");
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (number, rest) = part.split_once(')').unwrap_or((part, ""));
            let var = number.parse::<usize>().ok().and_then(|number| self.variable_names().get(number));
            let _ = write!(named, "{}", var.map_or_else(|| number.to_owned(), |var| format!("{var:?}")));
            named.push_str(rest);
        }
        named
    }
}
