//! Recordings: what programs did to their address spaces and which TLB flushes the kernel did for it, as columns.
//!
//! [`import_file`] reads whatever it understands: a recording of ours ([`mod@format`]), the text of `perf script` ([`perf`]),
//! the records of the kernel lab ([`lab`]) and its scenarios ([`scn`]); text may be compressed with gzip or zstd. What a
//! file is, its content tells, not its name.
//!
//! Contract: a recording is data. Nothing here knows page tables, schemes or machines; nothing is dropped silently:
//! what an importer cannot put into columns it counts in [`Meta`].

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

pub mod address;
mod attribute;
mod callers;
pub mod column;
pub mod events;
pub mod format;
pub mod kinds;
pub mod lab;
mod lab_record;
pub mod perf;
mod perf_line;
pub mod scn;
mod scn_op;
mod tasks;
mod text;

pub use events::{Event, EventColumns, Flush, FlushColumns, Meta, Recording, RunnerImage, TaskInfo};
pub use kinds::{Attribution, EventKind, FlushKind};

use crate::error::{Error, Result};
use text::Lines;
pub use text::Watch;

/// Reads a recording from any file that is understood.
///
/// # Errors
/// One line with the file, the place, what was found and what was expected.
pub fn import_file(path: &Path) -> Result<Recording> {
    import_file_watched(path, None)
}

/// The same, with somebody who is told how far it is, and can end it.
///
/// # Errors
/// As [`import_file`], and if the watch says so.
pub fn import_file_watched(path: &Path, watch: Option<Watch>) -> Result<Recording> {
    // A pipe cannot be mapped and can be read once only, so it holds text.
    let is_pipe = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    if !is_pipe && format::is_recording(path)? {
        return format::open(path);
    }
    import_lines(Lines::open(path, watch)?)
}

/// The same for text in memory; `name` stands for the file in errors and in [`Meta::file`].
///
/// # Errors
/// As [`import_file`].
pub fn import_text(name: &str, text: &[u8]) -> Result<Recording> {
    import_lines(Lines::from_bytes(name, text)?)
}

fn import_lines(mut lines: Lines) -> Result<Recording> {
    let Some(first) = lines.peek_content()? else {
        let found = if lines.has_ahead() { "only comments and blank lines" } else { "an empty file" };
        return Err(lines.error(found, EXPECTED));
    };
    if first.first() == Some(&b'{') {
        return lab::import(lines);
    }
    if perf_line::parse_header(first).is_some() {
        return perf::import(lines);
    }
    if scn::looks_like(first) {
        return scn::import(lines);
    }
    let found = text::excerpt(first);
    Err(lines.error_ahead(&found, EXPECTED))
}

const EXPECTED: &str = "a recording (.tlbr), perf script text, lab records (.jsonl) or a scenario (.scn)";

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { file: path.display().to_string(), source }
}
