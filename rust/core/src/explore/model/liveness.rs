//! Which registers of a thread still matter at each of its steps.

use super::NO_WAIT;
use super::op::{Kind, Op, PageRef, Test};
use super::vars::Local;

/// Registers whose last use the steps tell; ghosts and the IPIs' answers are kept.
const TRACKED: [Local; 2] = [Local::Pte, Local::New];

const PTE: u8 = 1;
const NEW: u8 = 2;

fn of_page(page: PageRef) -> u8 {
    if matches!(page, PageRef::OfPte | PageRef::None) { PTE } else { 0 }
}

fn of_test(test: &Test) -> u8 {
    match test {
        Test::Pte { .. }
        | Test::PteMaps
        | Test::PteAccessible { .. }
        | Test::FrameIn(_)
        | Test::FrameAbove(..)
        | Test::SwapShared(_)
        | Test::Listed(_) => PTE,
        Test::PteNeedsFlush | Test::PteDemoted | Test::PteChanged => PTE | NEW,
        Test::Not(inner) => of_test(inner),
        Test::All(list) | Test::Any(list) => list.iter().fold(0, |mask, test| mask | of_test(test)),
        Test::Const(_) | Test::Above(..) | Test::Bit(..) | Test::Differ(..) | Test::Exceeds(..) => 0,
    }
}

/// (read, wholly overwritten).
fn uses(kind: &Kind) -> (u8, u8) {
    match kind {
        Kind::Branch(test) => (of_test(test), 0),
        Kind::AcquireFolio(page)
        | Kind::ReleaseFolio(page)
        | Kind::SetDirty(page)
        | Kind::MarkLazyfree(page)
        | Kind::Isolate(page)
        | Kind::Copy(page) => (of_page(*page), 0),
        Kind::ReadPte(_) | Kind::Xchg { .. } => (0, PTE | NEW),
        Kind::Table(step) if step.reads_pte() => (PTE, 0),
        Kind::ReadIfMaps(..) | Kind::Modify(..) | Kind::Mkwrite { .. } | Kind::ClearNewBits(_) | Kind::SetPte(_) => {
            (NEW, 0)
        }
        Kind::PteSame(_)
        | Kind::SetSwap(_)
        | Kind::SetMigration(_)
        | Kind::UseOld
        | Kind::Reference { .. }
        | Kind::Queue(_)
        | Kind::Invalidate(_)
        | Kind::DelayRmap(_) => (PTE, 0),
        Kind::ClearPteBits(..) | Kind::SetPteBits(..) | Kind::Reuse(..) => (0, NEW),
        Kind::SetPteAs { of_new, .. } | Kind::QueueMulticall { of_new, .. } => (if *of_new { NEW } else { PTE }, 0),
        Kind::MapPage { frame, .. } | Kind::AddFrame { frame, .. } | Kind::SetFrame { frame, .. } => {
            (of_page(*frame), 0)
        }
        _ => (0, 0),
    }
}

/// For each step that is waited at, everything but the registers of its thread that nobody reads from there on.
pub(super) fn keep_masks<const W: usize>(
    ops: &[Op],
    waits: &[u32],
    bits: impl Fn(u8, Local) -> [u64; W],
) -> Vec<[u64; W]> {
    let mut live = vec![0_u8; ops.len()];
    loop {
        let mut changed = false;
        for (index, op) in ops.iter().enumerate() {
            let after = match &op.kind {
                Kind::Done => 0,
                Kind::Idle(choices) => choices.iter().fold(0, |mask, (_, _, target)| mask | live[*target as usize]),
                _ => live[op.next as usize] | live[op.other as usize],
            };
            let (reads, writes) = uses(&op.kind);
            let before = reads | after & !writes;
            if before != live[index] {
                live[index] = before;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    ops.iter()
        .enumerate()
        .map(|(index, op)| {
            let mut keep = [u64::MAX; W];
            if waits[index] == NO_WAIT {
                return keep;
            }
            for (bit, local) in TRACKED.into_iter().enumerate() {
                if live[index] >> bit & 1 == 0 {
                    for (word, dead) in keep.iter_mut().zip(bits(op.thread, local)) {
                        *word &= !dead;
                    }
                }
            }
            keep
        })
        .collect()
}
