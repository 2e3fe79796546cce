//! Compiled programs: flat code with jump targets, so that a running program is a program counter and registers, and can
//! be stopped and gone on with after any instruction.
//!
//! A loop compiles to
//!
//! ```text
//!        Enter(kind)              pushes the loop's state
//! next:  Next { body, on_huge_pmd, on_pmd, exit }   advances it and jumps
//! body:  ...                      Jump(next)
//! huge:  ...                      Jump(next)
//! pmd:   ...                      Jump(next)
//! exit:  (Next popped the state)
//! ```

use super::condition::Condition;
use super::leaf::Leaf;
use super::names::named_enum;

named_enum! {
    /// Which entries `for_each_pte` visits.
    PteFilter {
        /// Present or protnone.
        Present = "present",
        /// Anything but none.
        NotNone = "not_none",
    }
}

/// The loops of the language; `docs/steps.md` section 3 gives their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoopKind {
    /// `for_each_vma`.
    Vma,
    /// `for_each_rmap_vma`.
    RmapVma,
    /// `for_each_table`.
    Table,
    /// `for_each_pte`.
    Pte(PteFilter),
    /// `for_each_extent`.
    Extent,
    /// `for_each_page`.
    Page {
        /// The page list and its references stay for a later pass.
        keep: bool,
    },
    /// `for_each_mapping`.
    Mapping {
        /// VMAs without VM_SHARED are skipped.
        shared_only: bool,
    },
}

impl LoopKind {
    /// The step's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vma => "for_each_vma",
            Self::RmapVma => "for_each_rmap_vma",
            Self::Table => "for_each_table",
            Self::Pte(_) => "for_each_pte",
            Self::Extent => "for_each_extent",
            Self::Page { .. } => "for_each_page",
            Self::Mapping { .. } => "for_each_mapping",
        }
    }
}

/// A program counter within one program.
pub type Pc = u32;

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Instr {
    /// A leaf step.
    Leaf(Leaf),
    /// Goes on at `target` unless the condition holds.
    BranchUnless {
        /// The condition.
        condition: Condition,
        /// Where to go on when it does not hold.
        target: Pc,
        /// The condition asks whether a changed entry needs a flush (`pte_needs_flush`, `pte_demoted`): a "no" counts as a flush avoided.
        asks_for_flush: bool,
    },
    /// Goes on at the target.
    Jump(Pc),
    /// Pushes the state of a loop.
    Enter(LoopKind),
    /// Advances the innermost loop: on to one of its blocks, or, popping its state, to the exit.
    Next {
        /// For an ordinary item.
        body: Pc,
        /// For a huge PMD (the exit of the item, i.e. this very instruction, if the loop has no such block).
        on_huge_pmd: Pc,
        /// For an extent that is a whole PTE table (likewise).
        on_pmd: Pc,
        /// After the last item.
        exit: Pc,
    },
    /// The program ends.
    End,
}

/// One compiled program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The instructions; execution starts at 0 and ends at [`Instr::End`].
    pub code: Vec<Instr>,
}
