//! Address traces as text: valgrind's lackey and DynamoRIO's view tool.
//!
//! Lackey: `I  04001000,3` is an instruction, ` L 1ffeffe7e0,8`, ` S ...` and ` M ...` a load, a store and a modify;
//! valgrind's own lines begin with `==`, and what the program printed may stand between.
//!
//! The view tool: `10  2: 3256418 write  8 byte(s) @ 0x00007fff9a9e3528 by PC 0x00007fc205a61943`, with `ifetch` for an
//! instruction, `read` and `write` for accesses, and markers in angle brackets. Older versions leave out numbers and write
//! threads as `T3256418`, newer ones may write `W0.T292`: whatever stands before the kind names the thread.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::{AddressTrace, Format, Source};
use crate::error::Result;
use crate::trace::text::excerpt;

const NR_LINES_LOOKED_AT: usize = 200;

/// Whether the beginning of a file is text: no control characters but white space.
pub(super) fn is_text(head: &[u8]) -> bool {
    !head.is_empty()
        && head.iter().all(|&byte| byte >= b' ' && byte != 0x7f || byte.is_ascii_whitespace())
        && head.iter().filter(|byte| byte.is_ascii()).count() * 10 >= head.len() * 9
}

/// The format of a text that begins so: that of its first line which only one of the formats has.
pub(super) fn recognise(head: &[u8]) -> Option<Format> {
    let lines = head.split(|&byte| byte == b'\n').take(NR_LINES_LOOKED_AT);
    lines
        .into_iter()
        .find_map(|line| {
            if matches!(parse_lackey(line), Some(Ok(_))) || line.starts_with(b"==") && contains(line, b"Lackey") {
                Some(Format::Lackey)
            } else if contains(line, b"<--record#-->") || contains(line, b"<marker: ") || contains(line, AT) {
                Some(Format::Memref)
            } else {
                None
            }
        })
        .filter(|_| is_text(head))
}

/// What a line of a trace says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Instruction,
    Access(u64),
}

fn contains(line: &[u8], what: &[u8]) -> bool {
    line.windows(what.len()).any(|window| window == what)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let is_one = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    is_one.then(|| {
        digits.iter().fold(0, |value, &digit| value << 4 | u64::from((digit as char).to_digit(16).unwrap_or(0)))
    })
}

/// `None` for a line that is none of lackey's; `Err` for one that begins like one and is not.
fn parse_lackey(line: &[u8]) -> Option<std::result::Result<Said, ()>> {
    let is_access = matches!(line, [b' ', b'L' | b'S' | b'M', b' ', ..]);
    if !is_access && !line.starts_with(b"I  ") {
        return None;
    }
    let rest = &line[3..];
    let Some(comma) = rest.iter().position(|&byte| byte == b',') else { return Some(Err(())) };
    let size = rest[comma + 1..].trim_ascii_end();
    let has_size = !size.is_empty() && size.iter().all(u8::is_ascii_digit);
    let Some(address) = hexadecimal(&rest[..comma]).filter(|_| has_size) else { return Some(Err(())) };
    Some(Ok(if is_access { Said::Access(address) } else { Said::Instruction }))
}

pub(super) fn read_lackey(mut source: Source) -> Result<AddressTrace> {
    let mut trace = AddressTrace::of_addresses(Format::Lackey, Vec::new().into());
    let mut addresses = Vec::new();
    for_each_line(&mut source, |source, nr_line, line| {
        match parse_lackey(line) {
            Some(Ok(Said::Access(address))) => addresses.push(address),
            Some(Ok(Said::Instruction)) => trace.nr_instructions += 1,
            Some(Err(())) => {
                let place = format!("line {nr_line}");
                return Err(source.error(&place, &excerpt(line), "`I  ADDRESS,SIZE`, ` L ...`, ` S ...` or ` M ...`"));
            }
            None => trace.nr_other_lines += u64::from(!line.trim_ascii().is_empty()),
        }
        Ok(())
    })?;
    trace.addresses = addresses.into();
    Ok(trace)
}

const AT: &[u8] = b"byte(s) @ 0x";

/// What a record of the view tool says, and the word before its kind; `None` for a line that is no record.
fn parse_memref(line: &[u8]) -> Option<(Option<Said>, &[u8])> {
    let at = line.windows(AT.len()).position(|window| window == AT)?;
    let digits = &line[at + AT.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(digits.len());
    let mut before = line[..at].rsplit(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let size = before.next()?;
    let kind = before.next()?;
    let thread = before.next().unwrap_or_default();
    let said = match kind {
        b"read" | b"write" if size.iter().all(u8::is_ascii_digit) => hexadecimal(&digits[..end]).map(Said::Access),
        b"ifetch" => Some(Said::Instruction),
        // Prefetches, cache flushes, instructions that were not fetched: no access that a TLB must answer.
        _ => return None,
    };
    Some((said, thread))
}

pub(super) fn read_memref(mut source: Source) -> Result<AddressTrace> {
    let mut trace = AddressTrace::of_addresses(Format::Memref, Vec::new().into());
    let (mut addresses, mut threads) = (Vec::new(), Vec::new());
    let mut numbers: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for_each_line(&mut source, |source, nr_line, line| {
        match parse_memref(line) {
            Some((Some(Said::Access(address)), thread)) => {
                let next = numbers.len() as u32;
                let number = if let Some(&number) = numbers.get(thread) {
                    number
                } else {
                    trace.thread_names.push(String::from_utf8_lossy(thread).trim_end_matches(':').to_owned());
                    *numbers.entry(thread.to_vec()).or_insert(next)
                };
                addresses.push(address);
                threads.push(number);
            }
            Some((Some(Said::Instruction), _)) => trace.nr_instructions += 1,
            Some((None, _)) => {
                let place = format!("line {nr_line}");
                return Err(source.error(&place, &excerpt(line), "`... read|write N byte(s) @ 0xADDRESS ...`"));
            }
            None => trace.nr_other_lines += u64::from(!line.trim_ascii().is_empty()),
        }
        Ok(())
    })?;
    trace.addresses = addresses.into();
    trace.threads = threads.into();
    Ok(trace)
}

fn for_each_line(source: &mut Source, mut each: impl FnMut(&Source, u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut line = Vec::with_capacity(256);
    for nr_line in 1.. {
        line.clear();
        let read = source.reader.read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(source.broken(&format!("line {nr_line}"), &error)),
        }
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        each(source, nr_line, &line)?;
    }
    Ok(())
}
