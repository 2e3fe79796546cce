//! Lines of a text file, plain or compressed, with their numbers.
//!
//! Contract: lines are bytes without the newline; a damaged or truncated compressed stream is one clear error, never a
//! short file. The format of the lines is the importers' business.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::io_error;
use crate::error::{Error, Result};

/// Told how many bytes of a file were read so far (as they are stored, compressed or not); `true` ends the reading, with
/// an error that says no more.
pub type Watch = Box<dyn FnMut(u64) -> bool + Send>;

const BUFFER_BYTES: usize = 1 << 18;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A reader of numbered lines that can look ahead to the first line with content.
pub(super) struct Lines {
    file: String,
    base_name: String,
    reader: Box<dyn BufRead + Send>,
    compressed: bool,
    line: Vec<u8>,
    nr_line: u64,
    ahead: VecDeque<Vec<u8>>,
    is_cut: bool,
}

impl Lines {
    pub(super) fn open(path: &Path, watch: Option<Watch>) -> Result<Self> {
        let file = File::open(path).map_err(|source| io_error(path, source))?;
        let watched = Watched { file, nr_bytes: 0, watch };
        Self::new(path, Box::new(BufReader::with_capacity(BUFFER_BYTES, watched)))
    }

    pub(super) fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self> {
        Self::new(Path::new(name), Box::new(Cursor::new(bytes.to_vec())))
    }

    fn new(path: &Path, mut raw: Box<dyn BufRead + Send>) -> Result<Self> {
        let head = raw.fill_buf().map_err(|source| io_error(path, source))?;
        let gzip = head.starts_with(&GZIP_MAGIC);
        let zstd = head.starts_with(&ZSTD_MAGIC);
        let inner: Box<dyn Read + Send> = if gzip {
            Box::new(MultiGzDecoder::new(raw))
        } else if zstd {
            Box::new(zstd::stream::read::Decoder::with_buffer(raw).map_err(|source| io_error(path, source))?)
        } else {
            raw
        };
        Ok(Self {
            file: path.display().to_string(),
            base_name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            reader: Box::new(BufReader::with_capacity(BUFFER_BYTES, inner)),
            compressed: gzip || zstd,
            line: Vec::with_capacity(1 << 10),
            nr_line: 0,
            ahead: VecDeque::new(),
            is_cut: false,
        })
    }

    /// The file's name without its folder.
    pub(super) fn base_name(&self) -> &str {
        &self.base_name
    }

    /// Whether the last line lacks its newline, so that it may have been cut.
    pub(super) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The number of the line that [`Self::next`] gave last, from 1.
    pub(super) fn nr_line(&self) -> u64 {
        self.nr_line
    }

    /// The next line, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        if let Some(line) = self.ahead.pop_front() {
            self.line = line;
        } else if !self.fill()? {
            return Ok(None);
        }
        self.nr_line += 1;
        Ok(Some(&self.line))
    }

    /// The first line from here that is neither blank nor a comment; all lines are still to come. A scenario's `#!`
    /// counts as a comment too: some other line must tell what the file is.
    pub(super) fn peek_content(&mut self) -> Result<Option<&[u8]>> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            let content = self.line.trim_ascii().first().is_some_and(|&byte| byte != b'#');
            self.ahead.push_back(self.line.clone());
            if content {
                return Ok(self.ahead.back().map(Vec::as_slice));
            }
        }
    }

    fn fill(&mut self) -> Result<bool> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line).map_err(|source| {
            if self.compressed {
                let place = format!("line {}", self.nr_line + 1);
                let found = format!("a damaged or truncated compressed stream ({source})");
                input_error(&self.file, &place, &found, "the whole file")
            } else {
                Error::Io { file: self.file.clone(), source }
            }
        })?;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else {
            self.is_cut |= read > 0; // only the last line can lack it
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(read > 0)
    }

    /// Whether [`Self::peek_content`] read any line.
    pub(super) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// An error at the line that [`Self::peek_content`] found.
    pub(super) fn error_ahead(&self, found: &str, expected: &str) -> Error {
        let line = self.nr_line + self.ahead.len() as u64;
        input_error(&self.file, &format!("line {}", line.max(1)), found, expected)
    }

    /// An error at the line that [`Self::next`] gave last.
    pub(super) fn error(&self, found: &str, expected: &str) -> Error {
        input_error(&self.file, &format!("line {}", self.nr_line.max(1)), found, expected)
    }
}

/// A file, and who is told how far it is. A signal that interrupts a read ends up here again, so that somebody who waits
/// at a pipe can look for it.
struct Watched {
    file: File,
    nr_bytes: u64,
    watch: Option<Watch>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some(watch) = &mut self.watch
            && watch(self.nr_bytes)
        {
            return Err(std::io::Error::other("given up"));
        }
        let nr_read = self.file.read(buffer)?;
        self.nr_bytes += nr_read as u64;
        Ok(nr_read)
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

/// The beginning of a line, quoted, for an error of one line.
pub(super) fn excerpt(line: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
    let dots = if line.len() > SHOWN { "..." } else { "" };
    format!("`{}{dots}`", text.trim().escape_debug())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn all(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut lines = Lines::from_bytes("folder/name", bytes)?;
        let mut all = Vec::new();
        while let Some(line) = lines.next()? {
            all.push(line.to_vec());
        }
        Ok(all)
    }

    #[test]
    fn plain_gzip_and_zstd_read_the_same_even_in_many_frames() {
        let (head, tail) = (b"one\ntwo\r\n".as_slice(), b"\nfour".as_slice());
        let expected = [b"one".as_slice(), b"two", b"", b"four"].map(<[u8]>::to_vec);
        assert_eq!(all(&[head, tail].concat()).unwrap(), expected);
        assert_eq!(all(&[gzip(head), gzip(tail)].concat()).unwrap(), expected);
        let zstd = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
        assert_eq!(all(&[zstd(head), zstd(tail)].concat()).unwrap(), expected);
    }

    #[test]
    fn a_truncated_stream_is_an_error_with_its_place() {
        let text: Vec<u8> = (0..2000u32).flat_map(|n| format!("{n} {}\n", n * n).into_bytes()).collect();
        for whole in [gzip(&text), zstd::encode_all(text.as_slice(), 3).unwrap()] {
            let error = all(&whole[..whole.len() - 5]).unwrap_err().to_string();
            assert!(error.starts_with("folder/name: line "), "{error}");
            assert!(error.contains("truncated compressed stream"), "{error}");
        }
    }

    #[test]
    fn peeking_loses_nothing() {
        let mut lines = Lines::from_bytes("f", b"# c\n\nx y\nz").unwrap();
        assert_eq!(lines.peek_content().unwrap(), Some(b"x y".as_slice()));
        let mut seen = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            seen.push(line.to_vec());
        }
        assert_eq!(seen, [b"# c".as_slice(), b"", b"x y", b"z"]);
        assert_eq!(lines.nr_line(), 4);
    }
}
