//! What a program must hold to before it may run: each step where it has a meaning, locks and gathers paired.
//!
//! The check walks the tree once with an abstract state (locks held, gather open, lazy-MMU mode, tlb_flush_pending). The
//! two ways of a choice must leave the same state, a loop's block must leave the state that it found.

use super::instr::LoopKind;
use super::kernel::ProgramName;
use super::leaf::{Leaf, LockMode, LockName, Needs};
use super::parse::{Block, Node, Path};
use crate::error::Result;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct State {
    held: Vec<(LockName, LockMode)>,
    gather: bool,
    light: bool,
    lazy_mmu: bool,
    pending: u32,
}

#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that the walk has around it")]
struct Place {
    in_vma: bool,
    in_table: bool,
    in_entry: bool,
    in_page: bool,
    in_extent: bool,
    at_huge: bool,
}

/// The programs whose steps a program of one's own (operation `run`) may have.
const CUSTOM_MAY: [&str; 8] = [
    "custom",
    "munmap",
    "mprotect",
    "madvise_dontneed",
    "madvise_free",
    "madvise_cold",
    "madvise_pageout",
    "clear_refs_soft_dirty",
];

/// Checks a program.
///
/// # Errors
/// The path of the first step that cannot be, and why.
pub fn validate(block: &Block, program: ProgramName, path: &Path) -> Result<()> {
    let mut state = State::default();
    let mut place = Place::default();
    match program {
        // The fault's VMA, address and entry stand for the whole program.
        ProgramName::Fault | ProgramName::CollapseHugePage => {
            place = Place { in_vma: true, in_entry: true, in_page: true, ..place };
        }
        _ => {}
    }
    check_block(block, program, place, &mut state, path)?;
    let end = path.step(block.len());
    if let Some((lock, _)) = state.held.first() {
        return Err(end.error(format!("{} is still held at the end", lock.name())));
    }
    if state.gather {
        return Err(end.error("the mmu_gather is still open at the end, expected tlb_finish_mmu"));
    }
    if state.lazy_mmu {
        return Err(end.error("lazy-MMU mode is still on at the end"));
    }
    if state.pending != 0 {
        return Err(end.error("tlb_flush_pending is still raised at the end, expected dec_tlb_flush_pending"));
    }
    Ok(())
}

fn check_block(block: &Block, program: ProgramName, place: Place, state: &mut State, path: &Path) -> Result<()> {
    for (index, node) in block.iter().enumerate() {
        check(node, program, place, state, &path.step(index))?;
    }
    Ok(())
}

fn check(node: &Node, program: ProgramName, place: Place, state: &mut State, path: &Path) -> Result<()> {
    match node {
        Node::Leaf(leaf) => {
            check_place(*leaf, program, place, state, path)?;
            apply(*leaf, state, path)
        }
        Node::When { then, otherwise, .. } => {
            let mut other = state.clone();
            check_block(then, program, place, state, &path.block("when"))?;
            check_block(otherwise, program, place, &mut other, &path.block("else"))?;
            if *state == other {
                return Ok(());
            }
            Err(path.error(format!(
                "the two ways of when do not end alike: {} against {}",
                describe(state),
                describe(&other)
            )))
        }
        Node::Loop { kind, body, on_huge_pmd, on_pmd } => {
            check_loop(*kind, place, path)?;
            if program == ProgramName::Custom && matches!(kind, LoopKind::RmapVma | LoopKind::Extent) {
                return Err(path.error(format!("{} has no meaning in a program run by hand", kind.name())));
            }
            let inner = enter(*kind, place);
            // What a walk of tables does at a huge PMD may be the work on a list of pages that it has just made.
            let at_huge = *kind == LoopKind::Table;
            let huge = Place { in_entry: true, in_page: true, at_huge, ..inner };
            let parts = [(body, kind.name(), inner), (on_huge_pmd, "on_huge_pmd", huge), (on_pmd, "on_pmd", huge)];
            for (part, name, place) in parts {
                let mut after = state.clone();
                check_block(part, program, place, &mut after, &path.block(name))?;
                if after != *state {
                    return Err(path.error(format!(
                        "the block {name} does not end as it began: {} against {}",
                        describe(state),
                        describe(&after)
                    )));
                }
            }
            Ok(())
        }
    }
}

fn check_loop(kind: LoopKind, place: Place, path: &Path) -> Result<()> {
    let (fits, expected) = match kind {
        LoopKind::Vma | LoopKind::RmapVma => (!place.in_vma, "outside any other walk"),
        LoopKind::Table => (place.in_vma && !place.in_table, "inside for_each_vma or for_each_rmap_vma"),
        LoopKind::Pte(_) => {
            ((place.in_table || place.in_extent) && !place.in_entry, "inside for_each_table or for_each_extent")
        }
        LoopKind::Extent => (!place.in_extent && !place.in_table, "outside any table walk"),
        LoopKind::Page { .. } => (place.at_huge || !(place.in_entry || place.in_page), "outside any entry"),
        LoopKind::Mapping { .. } => (place.in_page, "inside for_each_page"),
    };
    if fits { Ok(()) } else { Err(path.error(format!("{} cannot stand here, expected {expected}", kind.name()))) }
}

fn enter(kind: LoopKind, place: Place) -> Place {
    match kind {
        LoopKind::Vma | LoopKind::RmapVma => Place { in_vma: true, ..place },
        LoopKind::Table => Place { in_table: true, ..place },
        LoopKind::Pte(_) => Place { in_entry: true, in_page: true, ..place },
        LoopKind::Extent => Place { in_extent: true, in_vma: true, ..place },
        LoopKind::Page { .. } => Place { in_page: true, in_entry: false, at_huge: false, ..place },
        LoopKind::Mapping { .. } => Place { in_entry: true, in_vma: true, ..place },
    }
}

fn check_place(leaf: Leaf, program: ProgramName, place: Place, state: &State, path: &Path) -> Result<()> {
    let name = leaf.name();
    let programs = leaf.programs();
    let has_meaning = programs.is_empty()
        || programs.contains(&program.name())
        || (program == ProgramName::Custom && programs.iter().any(|p| CUSTOM_MAY.contains(p)));
    if !has_meaning {
        return Err(path.error(format!(
            "{name} has no meaning in {}, only in {}",
            program.name(),
            programs.join(", ")
        )));
    }
    let locked = state.held.iter().any(|(lock, _)| matches!(lock, LockName::Ptl | LockName::Pml));
    let missing = match leaf.needs() {
        Needs::Nothing => None,
        Needs::Entry => miss(place.in_entry, "a current entry").or_else(|| miss(locked, "ptl or pml held")),
        Needs::EntryUnlocked => miss(place.in_entry, "a current entry"),
        Needs::Page => miss(place.in_page, "a current page"),
        Needs::Vma => miss(place.in_vma, "a current VMA"),
        Needs::TableLock => miss(locked, "ptl or pml held"),
        Needs::Gather => miss(state.gather, "an open mmu_gather"),
        Needs::GatherEntry => miss(state.gather, "an open mmu_gather")
            .or_else(|| miss(place.in_entry, "a current entry"))
            .or_else(|| miss(locked, "ptl or pml held")),
    };
    match missing {
        Some(what) => Err(path.error(format!("{name} needs {what}"))),
        None => Ok(()),
    }
}

fn miss(there: bool, what: &'static str) -> Option<&'static str> {
    if there { None } else { Some(what) }
}

fn apply(leaf: Leaf, state: &mut State, path: &Path) -> Result<()> {
    let held = |state: &State, lock| state.held.iter().position(|(l, _)| *l == lock);
    match leaf {
        Leaf::Lock { lock, mode } => {
            if held(state, lock).is_some() {
                return Err(path.error(format!("{} is taken twice", lock.name())));
            }
            state.held.push((lock, mode));
            state.held.sort_unstable();
        }
        Leaf::Unlock { lock } => {
            let at = held(state, lock).ok_or_else(|| path.error(format!("{} is not held", lock.name())))?;
            state.held.remove(at);
        }
        Leaf::Downgrade { lock } => {
            let at = held(state, lock).ok_or_else(|| path.error(format!("{} is not held", lock.name())))?;
            if state.held[at].1 == LockMode::Read {
                return Err(path.error(format!("{} is held for reading already", lock.name())));
            }
            state.held[at].1 = LockMode::Read;
        }
        Leaf::TlbGatherMmu { light, .. } => {
            if state.gather {
                return Err(path.error("the mmu_gather is open already"));
            }
            state.gather = true;
            state.light = light;
        }
        Leaf::TlbFinishMmu => (state.gather, state.light) = (false, false),
        Leaf::TlbRemovePage | Leaf::FreePgtables | Leaf::FreePte if state.light => {
            return Err(path.error(format!("{} needs a gather with a page list, found a light one", leaf.name())));
        }
        Leaf::ArchEnterLazyMmuMode => {
            if state.lazy_mmu {
                return Err(path.error("lazy-MMU mode is on already"));
            }
            state.lazy_mmu = true;
        }
        Leaf::ArchLeaveLazyMmuMode => {
            if !state.lazy_mmu {
                return Err(path.error("lazy-MMU mode is off already"));
            }
            state.lazy_mmu = false;
        }
        Leaf::IncTlbFlushPending => state.pending += 1,
        Leaf::DecTlbFlushPending => {
            state.pending = state
                .pending
                .checked_sub(1)
                .ok_or_else(|| path.error("tlb_flush_pending was not raised by this program"))?;
        }
        _ => {}
    }
    Ok(())
}

fn describe(state: &State) -> String {
    let mut parts: Vec<_> = state.held.iter().map(|(lock, _)| format!("{} held", lock.name())).collect();
    if state.gather {
        parts.push("gather open".to_owned());
    }
    if state.lazy_mmu {
        parts.push("lazy-MMU mode on".to_owned());
    }
    if state.pending > 0 {
        parts.push(format!("tlb_flush_pending + {}", state.pending));
    }
    if parts.is_empty() { "nothing held".to_owned() } else { parts.join(", ") }
}
