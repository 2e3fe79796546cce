//! Call chains of `perf script`: where in a program a call or a fault was caused, as one short text.
//!
//! Contract: a chain follows the event's line, one frame each, innermost first. Frames of the kernel are the same for all
//! and left out, as are those that nothing is known of: a walk along frame pointers ends in rubbish where code keeps
//! none. What is left of a chain is [`NR_FRAMES`] frames, `symbol (module) < symbol < symbol (module)`: a module is named
//! where it begins, and what is unknown of it once.

use super::perf_line;

/// Frames that are kept: wrapper, allocator and the program's own function; more would tell every request apart.
const NR_FRAMES: usize = 4;

/// The chain of the latest event.
#[derive(Default)]
pub(super) struct Callers {
    /// Row of the event; none if there is nothing to follow.
    row: Option<usize>,
    nr_frames: usize,
    text: Vec<u8>,
    /// That of the frame before.
    module: Vec<u8>,
}

impl Callers {
    /// An event that may be followed by a chain.
    pub(super) fn begin(&mut self, row: usize) {
        self.row = Some(row);
    }

    /// A line of a chain.
    pub(super) fn line(&mut self, line: &[u8]) {
        const UNKNOWN: &[u8] = b"[unknown]";
        let Some((is_kernel, symbol, module)) = perf_line::frame(line) else {
            return;
        };
        if is_kernel || module == UNKNOWN || self.row.is_none() || self.nr_frames == NR_FRAMES {
            return;
        }
        let is_same = self.module == module;
        if is_same && symbol == UNKNOWN {
            return;
        }
        if self.nr_frames > 0 {
            self.text.extend_from_slice(b" < ");
        }
        self.nr_frames += 1;
        if symbol != UNKNOWN {
            self.text.extend_from_slice(symbol);
        }
        if !is_same {
            self.text.extend_from_slice(if symbol == UNKNOWN { b"(".as_slice() } else { b" (" });
            self.text.extend_from_slice(module);
            self.text.push(b')');
            self.module.clear();
            self.module.extend_from_slice(module);
        }
    }

    /// The next event begins: the row of the one before and its callers, if any are known.
    pub(super) fn end(&mut self) -> Option<(usize, Vec<u8>)> {
        let row = self.row.take()?;
        self.nr_frames = 0;
        self.module.clear();
        (!self.text.is_empty()).then(|| (row, std::mem::take(&mut self.text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[&str]) -> Option<(usize, String)> {
        let mut callers = Callers::default();
        callers.begin(7);
        for line in lines {
            callers.line(line.as_bytes());
        }
        let found = callers.end().map(|(row, text)| (row, String::from_utf8(text).unwrap()));
        assert!(callers.end().is_none(), "a chain is given once");
        found
    }

    #[test]
    fn frames_of_the_program_are_kept_innermost_first() {
        let chain = [
            "\tffffffff821ef81a do_syscall_64 ([kernel.kallsyms])",
            "\t          101a07 __munmap (/usr/lib/x86_64-linux-gnu/libc.so.6)",
            "\t            1200 [unknown] (/opt/x/prog)",
            "\t            1250 [unknown] (/opt/x/prog)",
            "\t               0 [unknown] ([unknown])",
            "\t            1300 std::vector<int, a (b)>::~vector (/opt/x/prog)",
            "\t            1400 main (/opt/x/prog)",
            "\t            1500 _start (/opt/x/prog)",
        ];
        let expected = "__munmap (libc.so.6) < (prog) < std::vector<int, a (b)>::~vector < main";
        assert_eq!(text(&chain), Some((7, expected.to_owned())));
    }

    #[test]
    fn a_chain_without_a_known_frame_is_none() {
        assert_eq!(text(&["\tffffffff821ef81a do_syscall_64 ([kernel.kallsyms])", "\t 0 [unknown] ([unknown])"]), None);
        assert_eq!(text(&[]), None);
        assert_eq!(text(&["\t zzz", "\t 12", "\t 12 x"]), None);
    }
}
