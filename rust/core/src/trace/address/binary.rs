//! Address traces in words and records: raw arrays, NumPy files, differences in byte planes, ChampSim.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use memmap2::Mmap;

use super::{AddressTrace, Format, Source, input_error};
use crate::error::Result;
use crate::trace::column::Column;

pub(super) const NPY_MAGIC: &[u8] = b"\x93NUMPY";

/// `struct input_instr` of ChampSim: 8 bytes of instruction pointer, two flags, two and four registers, then the
/// addresses that it writes and that it reads, 0 for none.
const RECORD_BYTES: usize = 64;
const FLAGS_AT: usize = 8;
const WRITTEN_AT: usize = 16;
const READ_AT: usize = 32;

/// The beginning of a file in hexadecimal, for an error of one line.
pub(super) fn excerpt(head: &[u8]) -> String {
    if head.is_empty() {
        return "an empty file".to_owned();
    }
    let shown: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("`{}{}`", shown.join(" "), if head.len() > 8 { " ..." } else { "" })
}

/// Whether every whole record at the beginning of a file has flags that are 0 or 1, as ChampSim writes them: arrays of
/// addresses have other bytes there.
pub(super) fn looks_like_champsim(head: &[u8]) -> bool {
    let records = head.as_chunks::<RECORD_BYTES>().0;
    let sane = |record: &[u8; RECORD_BYTES]| record[FLAGS_AT] <= 1 && record[FLAGS_AT + 1] <= record[FLAGS_AT];
    let some_pointer = |record: &[u8; RECORD_BYTES]| record[..FLAGS_AT].iter().any(|&byte| byte != 0);
    !records.is_empty() && records.iter().all(sane) && records.iter().any(some_pointer)
}

/// What an instruction reads, then what it writes.
pub(super) fn read_champsim(mut source: Source) -> Result<AddressTrace> {
    let mut addresses = Vec::new();
    let mut nr_records = 0_u64;
    let mut record = [0_u8; RECORD_BYTES];
    loop {
        let mut filled = 0;
        while filled < RECORD_BYTES {
            let read = source.reader.read(&mut record[filled..]);
            let place = nr_records * RECORD_BYTES as u64 + filled as u64;
            match read {
                Ok(0) if filled == 0 => {
                    let mut trace = AddressTrace::of_addresses(Format::ChampSim, addresses.into());
                    trace.nr_instructions = nr_records;
                    return Ok(trace);
                }
                Ok(0) => {
                    let found = format!("the end of the file, {filled} bytes into a record");
                    return Err(source.error(&format!("byte {place}"), &found, "whole records of 64 bytes"));
                }
                Ok(nr_bytes) => filled += nr_bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(source.broken(&format!("byte {place}"), &error)),
            }
        }
        let flags = [record[FLAGS_AT], record[FLAGS_AT + 1]];
        if flags.iter().any(|&flag| flag > 1) {
            let place = nr_records * RECORD_BYTES as u64 + FLAGS_AT as u64;
            let found = format!("the flags {} and {}", flags[0], flags[1]);
            return Err(source.error(&format!("byte {place}"), &found, "0 or 1 each, as ChampSim's records have them"));
        }
        let words = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>();
        let accesses = words(&record[READ_AT..]).into_iter().chain(words(&record[WRITTEN_AT..READ_AT]));
        addresses.extend(accesses.filter(|&address| address != 0));
        nr_records += 1;
    }
}

/// The words of a mapped file, where they lie.
pub(super) fn words_in(name: &str, map: &Arc<Mmap>, format: Format) -> Result<AddressTrace> {
    let (format, start, len) = layout(name, map, format)?;
    let column = if format == Format::Delta { None } else { Column::mapped(map, start, len) };
    let addresses = column.unwrap_or_else(|| decode(&map[start..], len, format));
    Ok(AddressTrace::of_addresses(format, addresses))
}

/// The words of a file that was read.
pub(super) fn words_of(name: &str, bytes: &[u8], format: Format) -> Result<AddressTrace> {
    let (format, start, len) = layout(name, bytes, format)?;
    Ok(AddressTrace::of_addresses(format, decode(&bytes[start..], len, format)))
}

/// The format for certain, the byte where the words start, and how many there are.
fn layout(name: &str, bytes: &[u8], format: Format) -> Result<(Format, usize, usize)> {
    if format == Format::Npy {
        return npy_layout(name, bytes).map(|(start, len)| (format, start, len));
    }
    let len = bytes.len() / 8;
    if !bytes.len().is_multiple_of(8) {
        let (place, found) = (format!("byte {}", len * 8), format!("{} bytes at the end", bytes.len() % 8));
        return Err(input_error(name, &place, &found, "whole words of 64 bits"));
    }
    let format = if format == Format::Raw && looks_like_planes(bytes) { Format::Delta } else { format };
    Ok((format, 0, len))
}

/// Whether the two uppermost byte planes are signs only: differences of addresses are small, and addresses as words have
/// other bytes there. Few words do not tell; those count as addresses.
fn looks_like_planes(bytes: &[u8]) -> bool {
    let signs = &bytes[bytes.len() / 8 * 6..];
    bytes.len() >= 64 * 8 && signs.iter().all(|&byte| byte == 0 || byte == 0xff)
}

fn decode(bytes: &[u8], len: usize, format: Format) -> Column<u64> {
    let mut addresses = vec![0; len];
    if format == Format::Delta {
        for (shift, plane) in (0..64).step_by(8).zip(bytes.chunks_exact(len.max(1))) {
            for (word, &byte) in addresses.iter_mut().zip(plane) {
                *word |= u64::from(byte) << shift;
            }
        }
        let mut last = 0_u64;
        for word in &mut addresses {
            last = last.wrapping_add(*word);
            *word = last;
        }
    } else {
        for (word, bytes) in addresses.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
    }
    addresses.into()
}

/// Where the words of a NumPy file start, and how many there are.
fn npy_layout(name: &str, bytes: &[u8]) -> Result<(usize, usize)> {
    const VERSIONED: &str = "a NumPy header of version 1, 2 or 3";
    let fail = |place: usize, found: &str, expected: &str| input_error(name, &format!("byte {place}"), found, expected);
    let field = |at: usize, nr_bytes: usize| {
        let bytes = bytes.get(at..at + nr_bytes)?;
        Some(bytes.iter().rev().fold(0_usize, |value, &byte| value << 8 | usize::from(byte)))
    };
    let version = bytes.get(6).copied().unwrap_or(0);
    let (at, nr_bytes): (usize, _) = match version {
        1 => (10, field(8, 2)),
        2 | 3 => (12, field(8, 4)),
        _ => return Err(fail(6, &format!("version {version}"), VERSIONED)),
    };
    let header = nr_bytes.and_then(|nr_bytes| bytes.get(at..at.checked_add(nr_bytes)?));
    let Some(header) = header else { return Err(fail(8, "the end of the file", VERSIONED)) };
    let text = String::from_utf8_lossy(header);
    let value = |key: &str| {
        let after = text.split_once(&format!("'{key}':"))?.1.trim_start();
        let end = if after.starts_with('(') { after.find(')')? + 1 } else { after.find(',')? };
        Some(&after[..end])
    };
    let descr = value("descr").unwrap_or("nothing");
    if !matches!(descr, "'<u8'" | "'<i8'") {
        return Err(fail(at, &format!("elements of type {descr}"), "'<u8' or '<i8': 64-bit integers"));
    }
    let shape = value("shape").unwrap_or("nothing");
    let len = shape.trim_matches(['(', ')']).trim_end().trim_end_matches(',').parse::<usize>();
    let Ok(len) = len else { return Err(fail(at, &format!("shape {shape}"), "one dimension")) };
    let start = at + header.len();
    let nr_there = (bytes.len() - start) / 8;
    if nr_there < len {
        return Err(fail(start + nr_there * 8, "the end of the file", &format!("{len} words of 64 bits")));
    }
    Ok((start, len))
}
