//! From the tree of steps to flat code.

use super::condition::{Condition, Test};
use super::instr::{Instr, Pc, Program};
use super::parse::{Block, Node};

/// Compiles a validated block.
pub fn compile(block: &Block) -> Program {
    let mut code = Vec::new();
    emit_block(block, &mut code);
    code.push(Instr::End);
    Program { code }
}

fn here(code: &[Instr]) -> Pc {
    code.len() as Pc
}

fn emit_block(block: &Block, code: &mut Vec<Instr>) {
    for node in block {
        emit(node, code);
    }
}

fn emit(node: &Node, code: &mut Vec<Instr>) {
    match node {
        Node::Leaf(leaf) => code.push(Instr::Leaf(*leaf)),
        Node::When { condition, then, otherwise } => {
            let branch = code.len();
            code.push(Instr::Jump(0));
            emit_block(then, code);
            let mut otherwise_at = here(code);
            if !otherwise.is_empty() {
                let jump = code.len();
                code.push(Instr::Jump(0));
                otherwise_at = here(code);
                emit_block(otherwise, code);
                code[jump] = Instr::Jump(here(code));
            }
            code[branch] = Instr::BranchUnless {
                condition: condition.clone(),
                target: otherwise_at,
                asks_for_flush: asks_for_flush(condition),
            };
        }
        Node::Loop { kind, body, on_huge_pmd, on_pmd } => {
            code.push(Instr::Enter(*kind));
            let next = here(code);
            code.push(Instr::Jump(0));
            let mut emit_part = |part: &Block| {
                if part.is_empty() {
                    return next;
                }
                let at = here(code);
                emit_block(part, code);
                code.push(Instr::Jump(next));
                at
            };
            let body = emit_part(body);
            let on_huge_pmd = emit_part(on_huge_pmd);
            let on_pmd = emit_part(on_pmd);
            let exit = here(code);
            code[next as usize] = Instr::Next { body, on_huge_pmd, on_pmd, exit };
        }
    }
}

fn asks_for_flush(condition: &Condition) -> bool {
    match condition {
        Condition::Test(test) => matches!(test, Test::PteNeedsFlush | Test::PteDemoted),
        Condition::Not(_) => false,
        Condition::All(list) | Condition::Any(list) => list.iter().any(asks_for_flush),
    }
}
