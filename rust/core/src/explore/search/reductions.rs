//! Which reductions a search uses, each on its own switch.

use crate::error::{Error, Result};

/// The switches. What each needs from the model is promised at the method of [`Model`](super::Model) that it calls.
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each named where it is set")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Reductions {
    /// Keep maximal states only; the saturating engine.
    pub saturate: bool,
    /// Take urgent steps at once.
    pub urgent: bool,
    /// Sort the interchangeable CPUs.
    pub symmetry: bool,
    /// Sort the pages that all loops have passed.
    pub retired: bool,
    /// Forget dead variables.
    pub dead: bool,
    /// Let stores happen as soon as they can. The saturating engine always does.
    pub eager_stores: bool,
}

impl Reductions {
    /// The names of the switches.
    pub const NAMES: [&'static str; 6] = ["saturate", "urgent", "symmetry", "retired", "dead", "eager_stores"];

    /// The reductions of these names, the others off.
    ///
    /// # Errors
    ///
    /// If a name is none of [`Reductions::NAMES`].
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut reductions = Self::NONE;
        for name in names {
            let switch = match name {
                "saturate" => &mut reductions.saturate,
                "urgent" => &mut reductions.urgent,
                "symmetry" => &mut reductions.symmetry,
                "retired" => &mut reductions.retired,
                "dead" => &mut reductions.dead,
                "eager_stores" => &mut reductions.eager_stores,
                _ => {
                    let names = Self::NAMES.join(", ");
                    return Err(Error::Value(format!("reductions: found {name:?}, expected one of {names}")));
                }
            };
            *switch = true;
        }
        Ok(reductions)
    }

    /// Plain, exact search.
    pub const NONE: Self =
        Self { saturate: false, urgent: false, symmetry: false, retired: false, dead: false, eager_stores: false };

    /// Everything.
    pub const ALL: Self =
        Self { saturate: true, urgent: true, symmetry: true, retired: true, dead: true, eager_stores: true };

    /// Whether states are stored as the model makes them.
    pub const fn is_exact(self) -> bool {
        !(self.saturate || self.urgent || self.symmetry || self.retired || self.dead || self.eager_stores)
    }

    /// Those under which every stored state stands for concrete ones with the same futures, so that a path can be followed:
    /// all but saturation and eager stores.
    pub const fn for_witness(self) -> Self {
        Self { saturate: false, eager_stores: false, ..self }
    }
}
