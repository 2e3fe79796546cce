//! Address traces: virtual addresses of data accesses in the order in which a program made them, from files of several
//! tools.
//!
//! [`read_file`] takes arrays of 64-bit words ([`Format::Raw`], [`Format::Npy`], which are mapped, not read), differences
//! in byte planes ([`Format::Delta`]), ChampSim's records, and the text of valgrind's lackey and of DynamoRIO's view tool;
//! all but mapped ones may be compressed with gzip, xz or zstd. What a file is, its content tells, not its name; a
//! caller may insist on a format.
//!
//! Contract: loads and stores are kept, a modify once; instruction fetches and whatever else stands in a file are counted,
//! not silently dropped. Memory: 8 bytes for each access, 4 more where there are threads; a mapped file takes none.

mod binary;
mod text;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use memmap2::Mmap;

use super::column::Column;
use super::io_error;
use crate::error::{Error, Result};

/// Enough for a look at what a file is.
const HEAD_BYTES: usize = 1 << 16;

/// What an address trace is written in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// Little-endian words of 64 bits, one for each access.
    Raw,
    /// A NumPy file with an array of 64-bit integers.
    Npy,
    /// Differences to the address before, the eight byte planes one after the other.
    Delta,
    /// ChampSim's records of 64 bytes, one for each instruction.
    ChampSim,
    /// `valgrind --tool=lackey --trace-mem=yes`.
    Lackey,
    /// The text of DynamoRIO's view tool (`drrun -t drmemtrace -tool view`).
    Memref,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::Raw, Self::Npy, Self::Delta, Self::ChampSim, Self::Lackey, Self::Memref];

    /// The format's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Npy => "npy",
            Self::Delta => "delta",
            Self::ChampSim => "champsim",
            Self::Lackey => "lackey",
            Self::Memref => "memref",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::Value(format!("format of an address trace: found {name:?}, expected one of {names}"))
        })
    }
}

/// An address trace.
#[derive(Clone, Debug)]
pub struct AddressTrace {
    /// What it was written in.
    pub format: Format,
    /// The addresses of the accesses, in bytes.
    pub addresses: Column<u64>,
    /// The thread of each access, numbered from 0 as they come; empty where the format knows no threads.
    pub threads: Column<u32>,
    /// The threads' own names, by number.
    pub thread_names: Vec<String>,
    /// Instructions that stand in the trace beside the accesses.
    pub nr_instructions: u64,
    /// Lines that are neither an access nor an instruction: markers, what the program printed.
    pub nr_other_lines: u64,
}

impl AddressTrace {
    fn of_addresses(format: Format, addresses: Column<u64>) -> Self {
        Self {
            format,
            addresses,
            threads: Column::default(),
            thread_names: Vec::new(),
            nr_instructions: 0,
            nr_other_lines: 0,
        }
    }
}

/// Reads an address trace; without a `format`, its content tells what it is.
///
/// # Errors
/// One line with the file, the byte or line, what was found and what was expected.
pub fn read_file(path: &Path, format: Option<Format>) -> Result<AddressTrace> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let mut source = Source::new(&name, file)?;
    let head = source.head()?;
    let format = match format {
        Some(format) => format,
        None => recognise(&head).ok_or_else(|| source.error("byte 0", &binary::excerpt(&head), EXPECTED))?,
    };
    match format {
        Format::Lackey => text::read_lackey(source),
        Format::Memref => text::read_memref(source),
        Format::ChampSim => binary::read_champsim(source),
        Format::Npy | Format::Raw | Format::Delta if source.compression.is_some() => {
            binary::words_of(&name, &source.rest()?, format)
        }
        _ => {
            // SAFETY: the map is read-only. If another process truncates the file while it is mapped, access faults:
            // that cannot be excluded, and files are replaced by renaming, which leaves a map intact.
            let map = unsafe { Mmap::map(&source.file) }.map_err(|source| io_error(path, source))?;
            binary::words_in(&name, &Arc::new(map), format)
        }
    }
}

const EXPECTED: &str = "64-bit words, .npy, ChampSim records, lackey text or text of DynamoRIO's view tool";

/// The format of a file that begins so. Raw words and differences look alike here: `binary` tells them by their end.
fn recognise(head: &[u8]) -> Option<Format> {
    if head.starts_with(binary::NPY_MAGIC) {
        Some(Format::Npy)
    } else if let Some(format) = text::recognise(head) {
        Some(format)
    } else if binary::looks_like_champsim(head) {
        Some(Format::ChampSim)
    } else {
        (!head.is_empty() && !text::is_text(head)).then_some(Format::Raw)
    }
}

/// A file's content, decompressed as it is read.
struct Source {
    name: String,
    /// The file itself, for mapping.
    file: File,
    compression: Option<&'static str>,
    reader: Box<dyn BufRead + Send>,
}

impl Source {
    fn new(name: &str, file: File) -> Result<Self> {
        let fail = |source| Error::Io { file: name.to_owned(), source };
        let mut raw = BufReader::with_capacity(HEAD_BYTES, file.try_clone().map_err(fail)?);
        let magic = raw.fill_buf().map_err(fail)?;
        let (compression, reader): (_, Box<dyn Read + Send>) = if magic.starts_with(&[0x1f, 0x8b]) {
            (Some("gzip"), Box::new(MultiGzDecoder::new(raw)))
        } else if magic.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            (Some("xz"), Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(raw)))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            (Some("zstd"), Box::new(zstd::stream::read::Decoder::with_buffer(raw).map_err(fail)?))
        } else {
            (None, Box::new(raw))
        };
        let reader = Box::new(BufReader::with_capacity(HEAD_BYTES, reader));
        Ok(Self { name: name.to_owned(), file, compression, reader })
    }

    /// The beginning; it is still to come.
    fn head(&mut self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        (&mut self.reader)
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .map_err(|error| self.broken("byte 0", &error))?;
        let reader = std::mem::replace(&mut self.reader, Box::new(std::io::empty()));
        self.reader = Box::new(BufReader::with_capacity(HEAD_BYTES, std::io::Cursor::new(head.clone()).chain(reader)));
        Ok(head)
    }

    /// All that is left.
    fn rest(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.broken(&format!("byte {}", bytes.len()), &error)),
        }
    }

    /// An error of the file's own, or of its compressed stream.
    fn broken(&self, place: &str, error: &std::io::Error) -> Error {
        match self.compression {
            Some(compression) => self.error(
                place,
                &format!("a damaged or truncated compressed stream ({error})"),
                &format!("{compression} data up to its end"),
            ),
            None => Error::Io { file: self.name.clone(), source: std::io::Error::new(error.kind(), error.to_string()) },
        }
    }

    fn error(&self, place: &str, found: &str, expected: &str) -> Error {
        input_error(&self.name, place, found, expected)
    }
}

fn input_error(file: &str, place: &str, found: &str, expected: &str) -> Error {
    Error::Input {
        file: file.to_owned(),
        place: place.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}
