//! The sizes that are compiled: each is its own copy of the model, with every loop unrolled.

use super::layout::words;
use super::{CommonProblem, Options};
use crate::error::{Error, Result};
use crate::explore::search::Model;

/// The most user CPUs.
pub const MAX_USERS: usize = 6;
/// The most pages.
pub const MAX_PAGES: usize = 6;

/// What is to be done with a model whose size is known at run time only.
pub trait Visitor {
    /// What comes of it.
    type Output;

    /// Does it.
    fn visit<M: Model>(self, model: &M) -> Self::Output;
}

macro_rules! dispatch {
    ($options:expr, $visitor:expr, $entry_bits:literal) => {
        dispatch!(
            $options, $visitor, $entry_bits,
            1 x 1, 1 x 2, 1 x 3, 1 x 4, 2 x 1, 2 x 2, 2 x 3, 2 x 4, 3 x 1, 3 x 2, 3 x 3, 3 x 4, 4 x 1, 4 x 2, 4 x 3, 4 x 4,
            5 x 5, 6 x 5, 4 x 6, 6 x 6,
        )
    };
    ($options:expr, $visitor:expr, $entry_bits:literal, $($users:literal x $pages:literal),+ $(,)?) => {
        match ($options.users, $options.pages) {
            $(($users, $pages) => {
                const WORDS: usize = words($users, $pages, $entry_bits);
                Ok($visitor.visit(&CommonProblem::<$users, $pages, WORDS, $entry_bits>::new($options)))
            })+
            (users, pages) => Err(Error::Value(format!(
                "the common problem: found {users} user CPUs and {pages} pages, expected one of {}",
                [$(concat!(stringify!($users), " x ", stringify!($pages))),+].join(", ")
            ))),
        }
    };
}

/// Gives the model of `options` to `visitor`, in as few words as it goes.
///
/// # Errors
///
/// If the size is not one of those that are compiled: 1 to 4 user CPUs with 1 to 4 pages, and 5 x 5, 6 x 5, 4 x 6, 6 x 6.
pub fn with_model<V: Visitor>(options: Options, visitor: V) -> Result<V::Output> {
    dispatch!(options, visitor, 2)
}

/// The same in more bits, such that it can be saturated (see [`Model::monotone`]).
///
/// # Errors
///
/// As [`with_model`].
pub fn with_monotone_model<V: Visitor>(options: Options, visitor: V) -> Result<V::Output> {
    dispatch!(options, visitor, 3)
}
