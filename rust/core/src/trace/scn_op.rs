//! One entry of the lab's scenario language: what a step asks for.
//!
//! Contract: region letter X begins at `0x100000000000 + (X - 'A') * 4 GiB`, offsets and counts are pages of 4 KiB, as the
//! runner in the lab reads them. Parsing only: who does an entry, and when, `scn.rs` and `lab.rs` know.

use super::events::Event;
use super::kinds::EventKind;
use super::tasks::Names;
use crate::addr::PAGE_SIZE;

const REGION_BASE: u64 = 0x1000_0000_0000;
const REGION_BYTES: u64 = 1 << 32;
const REGION_PAGES: u64 = REGION_BYTES / PAGE_SIZE;

const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MREMAP_MAYMOVE_FIXED: u64 = 3;
const MS_SYNC: u64 = 4;

/// How an actor waits for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Spin,
    Sleep,
}

impl Mode {
    pub(super) fn event_kind(self) -> EventKind {
        match self {
            Self::Spin => EventKind::ModeSpin,
            Self::Sleep => EventKind::ModeSleep,
        }
    }
}

/// An entry without its actor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Op<'a> {
    /// A new thread or process.
    Start {
        name: &'a str,
        cpu: u16,
        mode: Mode,
        thread: bool,
    },
    Exit,
    Wait {
        name: &'a str,
    },
    /// A system call of mm, by number and arguments, and the file that it maps, with 1 if shared.
    Call {
        nr: i32,
        args: [u64; 6],
        file: Option<(&'a str, u64)>,
    },
    /// Anything else of one event: kind, the file it is about, arguments (after the file).
    Other {
        kind: EventKind,
        file: Option<&'a str>,
        args: [u64; 4],
    },
}

/// What stands there instead of what should.
pub(super) struct Mismatch {
    pub found: String,
    pub expected: String,
}

type Parsed<T> = Result<T, Mismatch>;

const OPS: &[&str] = &[
    "thread",
    "fork",
    "exit",
    "wait",
    "mode",
    "cpu",
    "getpid",
    "nop",
    "nap",
    "mmap",
    "touch",
    "munmap",
    "mprotect",
    "madvise",
    "mremap",
    "mresize",
    "msync",
    "mkfile",
    "fsync",
    "ftrunc",
    "fpunch",
    "clearrefs",
    "creclaim",
];

/// Whether the word names an operation.
pub(super) fn is_op(word: &str) -> bool {
    OPS.contains(&word)
}

impl<'a> Op<'a> {
    /// Parses the operation and its arguments.
    pub(super) fn parse(text: &'a str) -> Parsed<Self> {
        let mut words = Words { words: text.split_ascii_whitespace() };
        let op = words.word("an operation")?;
        let parsed = match op {
            "thread" | "fork" => {
                let name = words.word("an actor's name")?;
                let cpu = words.cpu()?;
                Self::Start { name, cpu, mode: words.mode()?, thread: op == "thread" }
            }
            "exit" => Self::Exit,
            "wait" => Self::Wait { name: words.word("an actor's name")? },
            "mode" => Self::other(words.mode()?.event_kind(), None, &[]),
            "cpu" => Self::other(EventKind::SetCpu, None, &[words.cpu()?.into()]),
            "getpid" | "nop" => Self::other(EventKind::Nop, None, &[]),
            "nap" => {
                words.number("milliseconds")?;
                Self::other(EventKind::Nop, None, &[])
            }
            "mmap" => words.mmap()?,
            "touch" => {
                let (start, pages) = words.range()?;
                let write = words.choice("r or w", &[("r", 0), ("w", 1)])?;
                let stride = words.optional_number("a stride in pages")?.unwrap_or(1);
                if stride == 0 {
                    return Err(mismatch("0", "a stride of at least 1 page"));
                }
                Self::other(EventKind::Access, None, &[start, pages, stride, write])
            }
            "munmap" => {
                let (start, pages) = words.range()?;
                Self::call(11, &[start, pages * PAGE_SIZE])
            }
            "mprotect" => {
                let (start, pages) = words.range()?;
                Self::call(10, &[start, pages * PAGE_SIZE, words.prot()?])
            }
            "madvise" => {
                let (start, pages) = words.range()?;
                Self::call(28, &[start, pages * PAGE_SIZE, words.choice("an advice", ADVICE)?])
            }
            "mremap" => {
                let (old, pages) = words.range()?;
                let new = words.address()?;
                let new_pages = words.optional_number("a number of pages")?.unwrap_or(pages);
                Self::call(25, &[old, pages * PAGE_SIZE, in_region(new_pages)? * PAGE_SIZE, MREMAP_MAYMOVE_FIXED, new])
            }
            "mresize" => {
                let (start, pages) = words.range()?;
                let new_pages = in_region(words.number("a number of pages")?)?;
                Self::call(25, &[start, pages * PAGE_SIZE, new_pages * PAGE_SIZE])
            }
            "msync" => {
                let (start, pages) = words.range()?;
                Self::call(26, &[start, pages * PAGE_SIZE, MS_SYNC])
            }
            "mkfile" | "ftrunc" => {
                let file = words.word("a file's name")?;
                let pages = words.number("a number of pages")?;
                let kind = if op == "mkfile" { EventKind::Mkfile } else { EventKind::Ftruncate };
                Self::other(kind, Some(file), &[pages])
            }
            "fsync" => Self::other(EventKind::Fsync, Some(words.word("a file's name")?), &[]),
            "fpunch" => {
                let file = words.word("a file's name")?;
                let first = words.number("a page of the file")?;
                Self::other(EventKind::Fpunch, Some(file), &[first, words.number("a number of pages")?])
            }
            "clearrefs" => Self::other(EventKind::ClearRefs, None, &[words.number("1 or 4")?]),
            "creclaim" => Self::other(EventKind::Creclaim, None, &[words.number("a number of pages")?]),
            found => return Err(mismatch(found, &format!("one of {}", OPS.join(", ")))),
        };
        words.end()?;
        Ok(parsed)
    }

    fn call(nr: i32, given: &[u64]) -> Self {
        let mut args = [0; 6];
        args[..given.len()].copy_from_slice(given);
        Self::Call { nr, args, file: None }
    }

    fn other(kind: EventKind, file: Option<&'a str>, given: &[u64]) -> Self {
        let mut args = [0; 4];
        args[..given.len()].copy_from_slice(given);
        Self::Other { kind, file, args }
    }

    /// The event for an entry that is no system call of its own, and for the file that an mmap maps.
    pub(super) fn step_event(&self, time_ns: u64, cpu: u16, task: u32, names: &mut Names) -> Option<Event> {
        match *self {
            Self::Other { kind, file, args } => {
                let event = Event::new(kind, time_ns, cpu, task);
                Some(match file {
                    Some(file) => event.with_args(&[names.intern(file.as_bytes()), args[0], args[1]]),
                    None => event.with_args(&args),
                })
            }
            Self::Call { file: Some((file, shared)), .. } => {
                let event = Event::new(EventKind::StepFile, time_ns, cpu, task);
                Some(event.with_args(&[names.intern(file.as_bytes()), shared]))
            }
            _ => None,
        }
    }
}

const ADVICE: &[(&str, u64)] = &[
    ("dontneed", 4),
    ("free", 8),
    ("remove", 9),
    ("dontfork", 10),
    ("hugepage", 14),
    ("nohugepage", 15),
    ("cold", 20),
    ("pageout", 21),
    ("populate", 23),
    ("collapse", 25),
];

fn mismatch(found: &str, expected: &str) -> Mismatch {
    Mismatch { found: format!("`{}`", found.escape_debug()), expected: expected.to_owned() }
}

fn in_region(pages: u64) -> Parsed<u64> {
    if pages <= REGION_PAGES {
        return Ok(pages);
    }
    Err(mismatch(&pages.to_string(), &format!("at most {REGION_PAGES} pages, the size of a region")))
}

struct Words<'a> {
    words: std::str::SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn word(&mut self, expected: &str) -> Parsed<&'a str> {
        self.words
            .next()
            .ok_or_else(|| Mismatch { found: "the end of the entry".to_owned(), expected: expected.to_owned() })
    }

    fn end(&mut self) -> Parsed<()> {
        self.words.next().map_or(Ok(()), |word| Err(mismatch(word, "the end of the entry")))
    }

    fn number(&mut self, expected: &str) -> Parsed<u64> {
        let word = self.word(expected)?;
        word.parse().map_err(|_| mismatch(word, expected))
    }

    fn optional_number(&mut self, expected: &str) -> Parsed<Option<u64>> {
        let Some(word) = self.words.next() else { return Ok(None) };
        word.parse().map(Some).map_err(|_| mismatch(word, expected))
    }

    fn cpu(&mut self) -> Parsed<u16> {
        let word = self.word("a CPU's number")?;
        word.parse().map_err(|_| mismatch(word, "a CPU's number"))
    }

    fn choice(&mut self, expected: &str, choices: &[(&str, u64)]) -> Parsed<u64> {
        let word = self.word(expected)?;
        let known = || choices.iter().map(|choice| choice.0).collect::<Vec<_>>().join(", ");
        let found = choices.iter().find(|choice| choice.0 == word);
        found.map(|choice| choice.1).ok_or_else(|| mismatch(word, &format!("{expected} ({})", known())))
    }

    fn mode(&mut self) -> Parsed<Mode> {
        let sleeps = self.choice("a way to wait", &[("spin", 0), ("sleep", 1)])? == 1;
        Ok(if sleeps { Mode::Sleep } else { Mode::Spin })
    }

    fn prot(&mut self) -> Parsed<u64> {
        self.choice("a protection", &[("none", 0), ("r", 1), ("rw", 3), ("rx", 5), ("rwx", 7)])
    }

    fn address(&mut self) -> Parsed<u64> {
        let word = self.word("a region's letter")?;
        let &[letter @ b'A'..=b'Z'] = word.as_bytes() else {
            return Err(mismatch(word, "a region's letter, A to Z"));
        };
        let page = in_region(self.number("a page of the region")?)?;
        Ok(REGION_BASE + u64::from(letter - b'A') * REGION_BYTES + page * PAGE_SIZE)
    }

    fn range(&mut self) -> Parsed<(u64, u64)> {
        let start = self.address()?;
        Ok((start, in_region(self.number("a number of pages")?)?))
    }

    fn mmap(&mut self) -> Parsed<Op<'a>> {
        let (start, pages) = self.range()?;
        let prot = self.prot()?;
        let expected = "anon, shared, file:NAME or sfile:NAME";
        let word = self.word(expected)?;
        let (flags, file) = match word.split_once(':') {
            None if word == "anon" => (MAP_PRIVATE | MAP_ANONYMOUS, None),
            None if word == "shared" => (MAP_SHARED | MAP_ANONYMOUS, None),
            Some(("file", name)) => (MAP_PRIVATE, Some((name, 0))),
            Some(("sfile", name)) => (MAP_SHARED, Some((name, 1))),
            _ => return Err(mismatch(word, expected)),
        };
        let file_page = in_region(self.optional_number("a page of the file")?.unwrap_or(0))?;
        let args = [start, pages * PAGE_SIZE, prot, flags | MAP_FIXED, u64::MAX, file_page * PAGE_SIZE];
        Ok(Op::Call { nr: 9, args, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_become_calls_with_the_runner_s_addresses() {
        let parsed = Op::parse("mmap C 5 2 rw sfile:f 3").ok().unwrap();
        let args = [0x1002_0000_5000, 0x2000, 3, 0x11, u64::MAX, 0x3000];
        assert_eq!(parsed, Op::Call { nr: 9, args, file: Some(("f", 1)) });
        let parsed = Op::parse("mremap A 0 4 B 1").ok().unwrap();
        let args = [0x1000_0000_0000, 0x4000, 0x4000, 3, 0x1001_0000_1000, 0];
        assert_eq!(parsed, Op::Call { nr: 25, args, file: None });
        let parsed = Op::parse("touch A 1 3 w 2").ok().unwrap();
        assert_eq!(parsed, Op::other(EventKind::Access, None, &[0x1000_0000_1000, 3, 2, 1]));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, found, expected) in [
            ("munmap A 0", "the end of the entry", "a number of pages"),
            ("munmap a 0 1", "`a`", "a region's letter, A to Z"),
            ("munmap A 0 1 2", "`2`", "the end of the entry"),
            ("munmap A 0 1048577", "`1048577`", "at most 1048576 pages, the size of a region"),
            ("mprotect A 0 1 w", "`w`", "a protection (none, r, rw, rx, rwx)"),
            ("touch A 0 1 r 0", "`0`", "a stride of at least 1 page"),
            ("mmap A 0 1 rw disk:x", "`disk:x`", "anon, shared, file:NAME or sfile:NAME"),
        ] {
            let error = Op::parse(text).err().unwrap();
            assert_eq!((error.found.as_str(), error.expected.as_str()), (found, expected));
        }
    }
}
