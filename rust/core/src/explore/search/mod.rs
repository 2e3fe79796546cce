//! The search engines, generic over a [`Model`].

mod model;

pub use model::{Action, Class, Model, NotMonotone, PackedState, Sink};
