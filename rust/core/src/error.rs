//! Errors of the core that carry their place: every one prints as one line that says where, what was found and what
//! was expected.

use thiserror::Error;

/// What can go wrong on input. A broken invariant of the core itself is a panic, and a bug.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that cannot be what it should be: `what` names it, with what was found and expected.
    #[error("{0}")]
    Value(String),
    /// A file that cannot be read as what it should be.
    #[error("{file}: {place}: found {found}, expected {expected}")]
    Input {
        /// The file's name as the user gave it.
        file: String,
        /// The line or byte, as `line 12` or `byte 40`.
        place: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: String,
    },
    /// A program of steps that cannot run; the place is the path of the step, as `munmap[3].for_each_table[1]`.
    #[error("program {program}: step {step}: {message}")]
    Program {
        /// Kernel and operation.
        program: String,
        /// Path of the offending step.
        step: String,
        /// What is wrong with it.
        message: String,
    },
    /// The operating system refused.
    #[error("{file}: {source}")]
    Io {
        /// The file's name as the user gave it.
        file: String,
        /// The system's own error.
        source: std::io::Error,
    },
}

/// A result with the core's error.
pub type Result<T> = std::result::Result<T, Error>;
