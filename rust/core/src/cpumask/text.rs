//! The two texts that Linux writes a set of CPUs in, both ways.
//!
//! - The list (`%*pbl`): `0-3,8`, as in `/sys/devices/system/cpu/online` and in `Cpus_allowed_list` of
//!   `/proc/PID/status`. Reading also takes the grouped form `0-31:2/4` of the kernel parameters: of each 4 CPUs from
//!   0 to 31 the first 2 (`Documentation/admin-guide/kernel-parameters.rst`, "cpu lists").
//! - The mask (`%*pb`): `ff,00000003`, groups of 32 bits in hexadecimal, the highest first, as in `Cpus_allowed` of
//!   `/proc/PID/status` and in `/proc/irq/N/smp_affinity`.
//!
//! Both parsers ignore white space around the text, and around the commas of a list; an empty list is an empty mask.
//! Stricter than the kernel: an empty item is an error, and the words `all` and `N` of a list are not known.

use std::fmt::{self, Write as _};

use super::{BITS_PER_WORD, CpuId, CpuMask, words_of};
use crate::error::{Error, Result};

/// Bits of one comma-separated group of the mask form (`CHUNKSZ` in `lib/vsprintf.c`).
const GROUP_BITS: u32 = 32;
/// Hexadecimal digits of one group.
const GROUP_DIGITS: usize = 8;
/// Characters of a faulty text that an error repeats.
const QUOTED_CHARS: usize = 40;

impl CpuMask {
    /// Reads the list form, such as `0-3,8` or `0-31:2/4`.
    ///
    /// # Errors
    /// If the width is out of bounds, or the text is not a list of CPUs below `nr_cpus`: the message has the column
    /// (from 1), what stands there and what was expected.
    pub fn from_cpulist(text: &str, nr_cpus: u32) -> Result<Self> {
        let mut mask = Self::new(nr_cpus)?;
        let mut cursor = Cursor { form: "cpulist", text, at: 0 };
        cursor.skip_space();
        if cursor.peek().is_none() {
            return Ok(mask);
        }
        loop {
            read_range(&mut cursor, &mut mask)?;
            cursor.skip_space();
            if cursor.peek().is_none() {
                return Ok(mask);
            }
            if !cursor.take(b',') {
                return Err(cursor.unexpected("\",\" or the end"));
            }
            cursor.skip_space();
        }
    }

    /// Reads the mask form, such as `ff,00000003`; each group has 1 to 8 digits in either case.
    ///
    /// # Errors
    /// If the width is out of bounds, the text is not such a mask, or a bit at or above `nr_cpus` is set: the message
    /// has the column (from 1), what stands there and what was expected.
    pub fn from_hex_mask(text: &str, nr_cpus: u32) -> Result<Self> {
        let mut mask = Self::new(nr_cpus)?;
        let mut cursor = Cursor { form: "cpumask", text, at: 0 };
        let mut groups: Vec<(usize, u32)> = Vec::new();
        cursor.skip_space();
        loop {
            let start = cursor.at;
            groups.push((start, cursor.hex_group()?));
            if !cursor.take(b',') {
                break;
            }
        }
        cursor.skip_space();
        if cursor.peek().is_some() {
            return Err(cursor.unexpected("a hexadecimal digit, \",\" or the end"));
        }
        let last = groups.len() - 1;
        for (i, &(start, group)) in groups.iter().enumerate() {
            // Digits may stand far above the mask as long as they are zeros; `nr_valid` is 0 for those.
            let first_cpu = (last - i).saturating_mul(GROUP_BITS as usize);
            let nr_valid = (nr_cpus as usize).saturating_sub(first_cpu).min(GROUP_BITS as usize) as u32;
            if group.checked_shr(nr_valid).unwrap_or(0) != 0 {
                let highest = first_cpu + group.ilog2() as usize;
                return Err(cursor.fault(start, &format!("CPU {highest}"), &format!("CPUs 0 to {}", nr_cpus - 1)));
            }
            if group != 0 {
                let word = first_cpu / BITS_PER_WORD as usize;
                mask.words[word] |= u64::from(group) << (first_cpu as u32 % BITS_PER_WORD);
            }
        }
        Ok(mask)
    }
}

/// Reads `first[-last[:used/group]]` and adds its CPUs.
fn read_range(cursor: &mut Cursor<'_>, mask: &mut CpuMask) -> Result<()> {
    let start = cursor.at;
    let first = cursor.cpu(mask.nr_cpus())?;
    if !cursor.take(b'-') {
        mask.set(first);
        return Ok(());
    }
    let last = cursor.cpu(mask.nr_cpus())?;
    if first > last {
        return Err(cursor.fault(start, &format!("{first}-{last}"), "a range whose end is not before its start"));
    }
    if !cursor.take(b':') {
        mask.set_range(first, last);
        return Ok(());
    }
    let pattern = cursor.at;
    let used = cursor.number("the number of CPUs to take from each group")?;
    if !cursor.take(b'/') {
        return Err(cursor.unexpected("\"/\" and the size of the groups"));
    }
    let group = cursor.number("the size of the groups")?;
    if group == 0 || used > group {
        return Err(cursor.fault(
            pattern,
            &format!("{used}/{group}"),
            "at least 1 CPU a group and no more used than that",
        ));
    }
    if used > 0 {
        for from in (first.0..=last.0).step_by(group as usize) {
            let to = (u32::from(from)).saturating_add(used - 1).min(u32::from(last.0));
            mask.set_range(CpuId(from), CpuId(to as u16));
        }
    }
    Ok(())
}

/// A place in a text that is being read. All that is accepted is ASCII, so `at` is always on a character's border.
struct Cursor<'a> {
    /// The name of the form, for errors.
    form: &'static str,
    text: &'a str,
    /// Bytes read.
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// A decimal number; one that does not fit is taken as the greatest, which no caller accepts as a CPU.
    fn number(&mut self, expected: &str) -> Result<u32> {
        let mut value = None;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            value = Some(value.unwrap_or(0_u32).saturating_mul(10).saturating_add(u32::from(digit - b'0')));
            self.at += 1;
        }
        value.ok_or_else(|| self.unexpected(expected))
    }

    fn cpu(&mut self, nr_cpus: u32) -> Result<CpuId> {
        let start = self.at;
        let value = self.number("a CPU number")?;
        if value < nr_cpus {
            return Ok(CpuId(value as u16));
        }
        Err(self.fault(
            start,
            &format!("CPU {}", shorten(&self.text[start..self.at])),
            &format!("0 to {}", nr_cpus - 1),
        ))
    }

    /// One group of the mask form: 1 to 8 hexadecimal digits.
    fn hex_group(&mut self) -> Result<u32> {
        let start = self.at;
        let mut value = 0;
        while let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) {
            if self.at - start == GROUP_DIGITS {
                return Err(self.unexpected("\",\" after 8 hexadecimal digits"));
            }
            value = value << 4 | digit;
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("a hexadecimal digit")) } else { Ok(value) }
    }

    /// The error of the character at the cursor.
    fn unexpected(&self, expected: &str) -> Error {
        let found = self.text[self.at..].chars().next();
        let found = found.map_or_else(|| "the end".to_owned(), |c| format!("{:?}", c.to_string()));
        self.fault(self.at, &found, expected)
    }

    fn fault(&self, at: usize, found: &str, expected: &str) -> Error {
        let (form, text, column) = (self.form, shorten(self.text), at + 1);
        Error::Value(format!("{form} {text:?}: column {column}: found {found}, expected {expected}"))
    }
}

/// The beginning of a text, so that an error stays one readable line.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The list form: ranges in ascending order; an empty mask prints nothing.
impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(cpu) = cpus.next_if(|cpu| cpu.0 == last.0 + 1) {
                last = cpu;
            }
            write!(f, "{separator}{first}")?;
            if last != first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuMask({self} of {})", self.nr_cpus())
    }
}

/// The mask form. As in the kernel the digits depend on the width only: the highest group has as many as its bits
/// need, the others 8.
impl fmt::LowerHex for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nr_groups = self.nr_cpus().div_ceil(GROUP_BITS);
        for group in (0..nr_groups).rev() {
            let first_cpu = group * GROUP_BITS;
            let digits = (self.nr_cpus() - first_cpu).min(GROUP_BITS).div_ceil(4) as usize;
            let word = self.words()[words_of(first_cpu + 1) - 1];
            let bits = (word >> (first_cpu % BITS_PER_WORD)) as u32;
            write!(f, "{bits:0digits$x}")?;
            if group > 0 {
                f.write_char(',')?;
            }
        }
        Ok(())
    }
}
