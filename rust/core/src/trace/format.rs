//! The file of a recording, `.tlbr`: a header that describes columns, then the columns themselves.
//!
//! Layout, all little-endian: `TLBCREC\0`; version (u32); bytes of the header (u32); CRC-32 of the header (u32); 0 (u32);
//! the header (JSON: meta, tasks, names, column directory); the columns, each at a multiple of 64 bytes, zeros between.
//! Offsets count from the first multiple of 64 after the header.
//!
//! Contract: a file is written whole or not at all; opening maps it, so that its size does not matter. A file of less
//! than 64 MiB is verified when it is opened, a larger one by [`verify`].

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::column::{Column, ColumnSource, ColumnView, Dtype, Scalar};
use super::events::{EventColumns, FlushColumns, Meta, Recording, TaskInfo};
use super::io_error;
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"TLBCREC\0";
/// The version that is written and the only one that is read.
///
/// 2: events have a `site`.
pub const VERSION: u32 = 2;
const PREAMBLE_BYTES: usize = 24;
const ALIGN: usize = 64;
/// Files below this are verified when opened.
const VERIFY_ON_OPEN_BYTES: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Header {
    meta: Meta,
    tasks: Vec<TaskInfo>,
    names: Vec<String>,
    nr_events: u64,
    nr_flushes: u64,
    columns: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    dtype: Dtype,
    offset: u64,
    bytes: u64,
    crc32: u32,
}

/// Whether the file begins as a recording does.
///
/// # Errors
/// If it cannot be read.
pub fn is_recording(path: &Path) -> Result<bool> {
    let mut head = Vec::with_capacity(MAGIC.len());
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut head).map_err(|source| io_error(path, source))?;
    Ok(head == MAGIC)
}

/// Writes the recording to `path`, replacing what is there only when all is written.
///
/// # Errors
/// If the system refuses; then `path` is as before and no partial file stays.
pub fn write(recording: &Recording, path: &Path) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let what = "found a device or a pipe, expected a file";
        return Err(Error::Value(format!("{}: {what}", path.display())));
    }
    // What a symbolic link leads to is replaced, not the link.
    let meant = fs::canonicalize(path);
    let path = meant.as_deref().unwrap_or(path);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(name);
    let written = write_to(recording, &partial)
        .and_then(|()| fs::rename(&partial, path).map_err(|source| io_error(path, source)));
    if written.is_err() {
        // Nothing more can be done if this fails too: the first error is the one to report.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_to(recording: &Recording, partial: &Path) -> Result<()> {
    let views = all_views(recording);
    let mut offset = 0;
    let mut columns = Vec::with_capacity(views.len());
    for (name, view) in &views {
        let bytes = view.bytes();
        columns.push(Entry {
            name: name.clone(),
            dtype: view.dtype(),
            offset: offset as u64,
            bytes: bytes.len() as u64,
            crc32: crc32fast::hash(bytes),
        });
        offset = (offset + bytes.len()).next_multiple_of(ALIGN);
    }
    let header = Header {
        meta: recording.meta.clone(),
        tasks: recording.tasks.clone(),
        names: recording.names.clone(),
        nr_events: recording.events.len() as u64,
        nr_flushes: recording.flushes.len() as u64,
        columns,
    };
    let header = serde_json::to_vec(&header)
        .map_err(|error| Error::Value(format!("the recording's header cannot be written: {error}")))?;
    let header_bytes = u32::try_from(header.len())
        .map_err(|_| Error::Value(format!("the header takes {} bytes, expected less than 4 GiB", header.len())))?;
    let write_all = || -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(partial)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&MAGIC)?;
        for word in [VERSION, header_bytes, crc32fast::hash(&header), 0] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&header)?;
        let mut at = PREAMBLE_BYTES + header.len();
        for (_, view) in &views {
            let padding = at.next_multiple_of(ALIGN) - at;
            out.write_all(&[0; ALIGN][..padding])?;
            out.write_all(view.bytes())?;
            at += padding + view.bytes().len();
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    write_all().map_err(|source| io_error(partial, source))
}

fn all_views(recording: &Recording) -> Vec<(String, ColumnView<'_>)> {
    let events =
        EventColumns::NAMES.iter().filter_map(|name| Some((format!("{EVENTS}{name}"), recording.events.view(name)?)));
    let flushes =
        FlushColumns::NAMES.iter().filter_map(|name| Some((format!("{FLUSHES}{name}"), recording.flushes.view(name)?)));
    events.chain(flushes).collect()
}

const EVENTS: &str = "events.";
const FLUSHES: &str = "flushes.";

/// Opens a recording by mapping it. Below 64 MiB it is verified as by [`verify`]. It is called as the file is called now.
///
/// # Errors
/// One line with the file, the byte, what was found and what was expected.
pub fn open(path: &Path) -> Result<Recording> {
    let mapped = MappedFile::open(path)?;
    let mut recording = mapped.load()?;
    if let Some(name) = path.file_name() {
        recording.meta.file = name.to_string_lossy().into_owned();
    }
    if mapped.map.len() < VERIFY_ON_OPEN_BYTES {
        mapped.verify_checksums()?;
        verify_content(path, &recording)?;
    }
    Ok(recording)
}

/// Reads all of a file, compares the checksums of its columns and checks what they refer to.
///
/// # Errors
/// One line with the file, the byte, what was found and what was expected.
pub fn verify(path: &Path) -> Result<()> {
    let mapped = MappedFile::open(path)?;
    mapped.verify_checksums()?;
    verify_content(path, &mapped.load()?)
}

fn verify_content(path: &Path, recording: &Recording) -> Result<()> {
    recording.verify().map_err(|error| Error::Value(format!("{}: {error}", path.display())))
}

struct MappedFile {
    file: String,
    map: Arc<Mmap>,
    header: Header,
    /// First byte of the columns.
    base: usize,
}

impl MappedFile {
    fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        if cfg!(target_endian = "big") {
            return Err(fail(
                &name,
                0,
                "a big-endian machine",
                "a little-endian one: columns are used as they are stored",
            ));
        }
        let file = File::open(path).map_err(|source| io_error(path, source))?;
        // SAFETY: the map is read-only. If another process truncates the file while it is mapped, access faults: that
        // cannot be excluded, and files are replaced by renaming, which leaves a map intact.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| io_error(path, source))?;
        let (header, base) = parse_header(&name, &map)?;
        Ok(Self { file: name, map: Arc::new(map), header, base })
    }

    fn load(&self) -> Result<Recording> {
        let events = EventColumns::load(&Table { file: self, prefix: EVENTS, nr_rows: self.header.nr_events })?;
        let flushes = FlushColumns::load(&Table { file: self, prefix: FLUSHES, nr_rows: self.header.nr_flushes })?;
        let Header { meta, tasks, names, .. } = &self.header;
        Ok(Recording { meta: meta.clone(), tasks: tasks.clone(), names: names.clone(), events, flushes })
    }

    fn verify_checksums(&self) -> Result<()> {
        for entry in &self.header.columns {
            // `parse_header` checked that every entry lies in the file.
            let at = self.base + entry.offset as usize;
            let found = crc32fast::hash(&self.map[at..at + entry.bytes as usize]);
            if found != entry.crc32 {
                let expected = format!("{:#010x} for column {}", entry.crc32, entry.name);
                return Err(fail(&self.file, at, &format!("checksum {found:#010x}"), &expected));
            }
        }
        Ok(())
    }
}

fn parse_header(file: &str, map: &[u8]) -> Result<(Header, usize)> {
    let word =
        |at: usize| map.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    if !map.starts_with(&MAGIC) {
        return Err(fail(file, 0, &super::text::excerpt(&map[..map.len().min(8)]), "a recording (TLBCREC)"));
    }
    if map.len() < PREAMBLE_BYTES {
        return Err(fail(file, map.len(), "the end of the file", &format!("{PREAMBLE_BYTES} bytes before the header")));
    }
    if word(8) != VERSION {
        return Err(fail(file, 8, &format!("version {}", word(8)), &format!("version {VERSION}")));
    }
    if word(20) != 0 {
        return Err(fail(file, 20, &word(20).to_string(), "0"));
    }
    let end = PREAMBLE_BYTES + word(12) as usize;
    let Some(json) = map.get(PREAMBLE_BYTES..end) else {
        return Err(fail(file, map.len(), "the end of the file", &format!("a header up to byte {end}")));
    };
    let found = crc32fast::hash(json);
    if found != word(16) {
        return Err(fail(file, 16, &format!("checksum {found:#010x}"), &format!("{:#010x} for the header", word(16))));
    }
    let header: Header = serde_json::from_slice(json).map_err(|error| {
        fail(file, PREAMBLE_BYTES, &format!("a header that does not parse ({error})"), "a recording's header")
    })?;
    let base = end.next_multiple_of(ALIGN);
    let mut expected_end = end as u64;
    for entry in &header.columns {
        let column_end = (base as u64).checked_add(entry.offset).and_then(|at| at.checked_add(entry.bytes));
        let Some(column_end) = column_end.filter(|&end| end <= map.len() as u64) else {
            let found = format!("{} bytes in the file", map.len());
            let expected = format!("column {} of {} bytes at {}", entry.name, entry.bytes, entry.offset);
            return Err(fail(file, map.len(), &found, &expected));
        };
        expected_end = expected_end.max(column_end);
    }
    // Empty columns at the end need padding that belongs to none of them.
    let padded_end = if header.columns.is_empty() { end } else { base }.max(expected_end as usize);
    if map.len() > padded_end {
        return Err(fail(file, padded_end, &format!("{} more bytes", map.len() - padded_end), "the end of the file"));
    }
    Ok((header, base))
}

/// One of the two tables of a file.
struct Table<'a> {
    file: &'a MappedFile,
    prefix: &'static str,
    nr_rows: u64,
}

impl ColumnSource for Table<'_> {
    fn column<T: Scalar>(&self, name: &str) -> Result<Column<T>> {
        let MappedFile { file, map, header, base } = self.file;
        let full_name = || format!("{}{name}", self.prefix);
        let is_it = |entry: &&Entry| entry.name.strip_prefix(self.prefix) == Some(name);
        let Some(entry) = header.columns.iter().find(is_it) else {
            return Err(fail(file, PREAMBLE_BYTES, "no such entry", &format!("column {}", full_name())));
        };
        let at = base + entry.offset as usize;
        if entry.dtype != T::DTYPE {
            let found = format!("type {:?}", entry.dtype);
            return Err(fail(file, at, &found, &format!("{:?} for column {}", T::DTYPE, full_name())));
        }
        if self.nr_rows.checked_mul(size_of::<T>() as u64) != Some(entry.bytes) {
            let expected = format!("{} rows in column {}", self.nr_rows, full_name());
            return Err(fail(file, at, &format!("{} bytes", entry.bytes), &expected));
        }
        Column::mapped(map, at, self.nr_rows as usize)
            .ok_or_else(|| fail(file, at, "a place that is not aligned", &format!("column {}", full_name())))
    }
}

fn fail(file: &str, byte: usize, found: &str, expected: &str) -> Error {
    Error::Input {
        file: file.to_owned(),
        place: format!("byte {byte}"),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}
