//! Walking the CPUs of a mask in ascending order (`for_each_cpu`, `for_each_cpu_and`) without allocation.

use std::iter::{Copied, FusedIterator};
use std::slice;

use super::{BITS_PER_WORD, CpuId, CpuMask};

/// The CPUs whose bits are set in a sequence of words, in ascending order.
#[derive(Clone, Debug)]
pub struct Cpus<W> {
    /// The words that come after `word`.
    rest: W,
    /// The bits of the current word that were not given yet.
    word: u64,
    /// The number of the CPU in the lowest bit of `word`.
    base: u16,
}

impl<W: Iterator<Item = u64>> Cpus<W> {
    #[inline]
    fn new(mut words: W) -> Self {
        let word = words.next().unwrap_or(0);
        Self { rest: words, word, base: 0 }
    }
}

impl<'a> Cpus<Copied<slice::Iter<'a, u64>>> {
    /// Begins in the middle: at `words[at]`, of which only the bits in `keep` count.
    #[inline]
    pub(super) fn starting(words: &'a [u64], at: usize, keep: u64) -> Self {
        let base = (at * BITS_PER_WORD as usize) as u16;
        Self { rest: words[at + 1..].iter().copied(), word: words[at] & keep, base }
    }
}

impl<W: Iterator<Item = u64>> Iterator for Cpus<W> {
    type Item = CpuId;

    #[inline]
    fn next(&mut self) -> Option<CpuId> {
        while self.word == 0 {
            self.word = self.rest.next()?;
            self.base += BITS_PER_WORD as u16;
        }
        let cpu = CpuId(self.base + self.word.trailing_zeros() as u16);
        self.word &= self.word - 1;
        Some(cpu)
    }
}

// At the end `rest` gives nothing and `word` stays zero.
impl<W: Iterator<Item = u64> + FusedIterator> FusedIterator for Cpus<W> {}

impl CpuMask {
    /// The CPUs in ascending order (`for_each_cpu`).
    #[inline]
    pub fn iter(&self) -> Cpus<Copied<slice::Iter<'_, u64>>> {
        Cpus::new(self.words().iter().copied())
    }

    /// The CPUs that both masks hold, in ascending order (`for_each_cpu_and`).
    #[inline]
    pub fn iter_and<'a>(&'a self, other: &'a Self) -> Cpus<impl Iterator<Item = u64> + 'a> {
        Cpus::new(self.zip(other).map(|(a, b)| a & b))
    }

    /// The CPUs of this mask that `other` does not hold, in ascending order (`for_each_cpu_andnot`).
    #[inline]
    pub fn iter_andnot<'a>(&'a self, other: &'a Self) -> Cpus<impl Iterator<Item = u64> + 'a> {
        Cpus::new(self.zip(other).map(|(a, b)| a & !b))
    }
}

impl<'a> IntoIterator for &'a CpuMask {
    type Item = CpuId;
    type IntoIter = Cpus<Copied<slice::Iter<'a, u64>>>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
