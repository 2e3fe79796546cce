//! Sets of CPUs as bitmaps of a fixed width, with the operations of the kernel's `struct cpumask`
//! (`include/linux/cpumask.h`).
//!
//! A mask knows how many CPUs its machine has (1 to [`NR_CPUS_MAX`]) and keeps one bit for each, in words of 64 bits,
//! the lowest CPU in the lowest bit of the first word. Masks of up to 128 CPUs live inline, without the heap.
//!
//! Invariant: the bits of the last word at and above `nr_cpus` are zero, so that comparing, hashing and counting can
//! take whole words. All masks of one machine have one width; a binary operation on two widths, or a CPU outside the
//! mask, is a bug of the caller and panics. Input from outside goes through what returns a [`Result`]: [`CpuMask::new`],
//! [`CpuMask::try_set`], [`CpuMask::from_cpus`], [`CpuMask::from_words`] and the two parsers of text.
//!
//! Not here: atomic operations (the machine interleaves whole steps), NUMA nodes and topology.

mod array;
mod iter;
mod text;
mod words;

pub use array::CpuMaskArray;
pub use iter::Cpus;

use std::fmt;

use smallvec::{SmallVec, smallvec};

use crate::error::{Error, Result};

/// The most CPUs that a mask can have (`NR_CPUS` of x86 with `MAXSMP` in Linux: 8192).
pub const NR_CPUS_MAX: u32 = 8192;

/// Bits of one word of a mask (`BITS_PER_LONG`).
const BITS_PER_WORD: u32 = u64::BITS;

/// The number of a CPU, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct CpuId(pub u16);

impl CpuId {
    /// The number as an index of a slice with one element for each CPU.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The index of the word that holds the CPU's bit.
    #[inline]
    const fn word(self) -> usize {
        self.0 as usize / BITS_PER_WORD as usize
    }

    /// The word in which only the CPU's bit is set.
    #[inline]
    const fn bit(self) -> u64 {
        1 << (self.0 as u32 % BITS_PER_WORD)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of the CPUs `0..nr_cpus` (`struct cpumask`).
///
/// `Display` and `Debug` print the kernel's list form (`0-3,8`), `LowerHex` its mask form (`ff,00000003`).
#[derive(PartialEq, Eq, Hash)]
pub struct CpuMask {
    nr_cpus: u16,
    words: SmallVec<[u64; 2]>,
}

/// The number of words that hold `nr_cpus` bits (`BITS_TO_LONGS`).
const fn words_of(nr_cpus: u32) -> usize {
    nr_cpus.div_ceil(BITS_PER_WORD) as usize
}

impl CpuMask {
    /// An empty mask of `nr_cpus` CPUs.
    ///
    /// # Errors
    /// If `nr_cpus` is not in `1..=NR_CPUS_MAX`.
    pub fn new(nr_cpus: u32) -> Result<Self> {
        if (1..=NR_CPUS_MAX).contains(&nr_cpus) {
            return Ok(Self { nr_cpus: nr_cpus as u16, words: smallvec![0; words_of(nr_cpus)] });
        }
        Err(Error::Value(format!("nr_cpus: found {nr_cpus}, expected 1 to {NR_CPUS_MAX}")))
    }

    /// A mask of `nr_cpus` CPUs that holds exactly `cpus`, in any order, repeated or not.
    ///
    /// # Errors
    /// If the width is out of bounds or a CPU lies outside it.
    pub fn from_cpus(nr_cpus: u32, cpus: impl IntoIterator<Item = CpuId>) -> Result<Self> {
        let mut mask = Self::new(nr_cpus)?;
        cpus.into_iter().try_for_each(|cpu| mask.try_set(cpu))?;
        Ok(mask)
    }

    /// A mask from its words, as [`CpuMask::words`] gives them.
    ///
    /// # Errors
    /// If the width is out of bounds, the number of words is not the one that `nr_cpus` bits take, or a bit at or
    /// above `nr_cpus` is set.
    pub fn from_words(nr_cpus: u32, words: &[u64]) -> Result<Self> {
        let mut mask = Self::new(nr_cpus)?;
        if words.len() != mask.words.len() {
            return Err(Error::Value(format!(
                "words of a mask of {nr_cpus} CPUs: found {}, expected {}",
                words.len(),
                mask.words.len()
            )));
        }
        mask.words.copy_from_slice(words);
        let excess = mask.last_word() & !mask.last_word_valid();
        if excess != 0 {
            let cpu = (words.len() as u32 - 1) * BITS_PER_WORD + excess.trailing_zeros();
            return Err(outside(u64::from(cpu), nr_cpus));
        }
        Ok(mask)
    }

    /// How many CPUs the machine has: the width of the mask in bits.
    #[inline]
    pub const fn nr_cpus(&self) -> u32 {
        self.nr_cpus as u32
    }

    /// The bits, 64 CPUs a word, the lowest CPU in the lowest bit of the first word.
    #[inline]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Adds `cpu` (`cpumask_set_cpu`).
    #[inline]
    pub fn set(&mut self, cpu: CpuId) {
        self.check(cpu);
        self.words[cpu.word()] |= cpu.bit();
    }

    /// Adds `cpu`, which comes from input.
    ///
    /// # Errors
    /// If `cpu` lies outside the mask; the mask is unchanged then.
    pub fn try_set(&mut self, cpu: CpuId) -> Result<()> {
        if cpu.0 >= self.nr_cpus {
            return Err(outside(u64::from(cpu.0), self.nr_cpus()));
        }
        self.set(cpu);
        Ok(())
    }

    /// Removes `cpu` (`cpumask_clear_cpu`).
    #[inline]
    pub fn clear(&mut self, cpu: CpuId) {
        self.check(cpu);
        self.words[cpu.word()] &= !cpu.bit();
    }

    /// Whether `cpu` is in the mask (`cpumask_test_cpu`).
    #[inline]
    pub fn test(&self, cpu: CpuId) -> bool {
        self.check(cpu);
        self.words[cpu.word()] & cpu.bit() != 0
    }

    /// Adds `cpu` and says whether it was there before (`cpumask_test_and_set_cpu`).
    #[inline]
    pub fn test_and_set(&mut self, cpu: CpuId) -> bool {
        let was_set = self.test(cpu);
        self.words[cpu.word()] |= cpu.bit();
        was_set
    }

    /// Removes `cpu` and says whether it was there before (`cpumask_test_and_clear_cpu`).
    #[inline]
    pub fn test_and_clear(&mut self, cpu: CpuId) -> bool {
        let was_set = self.test(cpu);
        self.words[cpu.word()] &= !cpu.bit();
        was_set
    }

    /// Removes every CPU (`cpumask_clear`).
    #[inline]
    pub fn clear_all(&mut self) {
        self.words.fill(0);
    }

    /// Adds every CPU (`cpumask_setall`).
    pub fn set_all(&mut self) {
        self.words.fill(u64::MAX);
        let valid = self.last_word_valid();
        if let Some(last) = self.words.last_mut() {
            *last = valid;
        }
    }

    /// Adds the CPUs from `first` to `last`, both included (`bitmap_set`).
    pub fn set_range(&mut self, first: CpuId, last: CpuId) {
        self.check(last);
        if first > last {
            return;
        }
        let from_first = u64::MAX << (u32::from(first.0) % BITS_PER_WORD);
        let to_last = u64::MAX >> (BITS_PER_WORD - 1 - u32::from(last.0) % BITS_PER_WORD);
        let (start, end) = (first.word(), last.word());
        if start == end {
            self.words[start] |= from_first & to_last;
        } else {
            self.words[start] |= from_first;
            self.words[start + 1..end].fill(u64::MAX);
            self.words[end] |= to_last;
        }
    }

    /// Makes the mask equal to `other`, of the same width, without allocation (`cpumask_copy`).
    #[inline]
    pub fn copy_from(&mut self, other: &Self) {
        self.check_width(other);
        self.words.copy_from_slice(&other.words);
    }

    /// Adds the CPUs of `other`.
    #[inline]
    pub fn or_assign(&mut self, other: &Self) {
        self.zip_assign(other, words::or_assign);
    }

    /// Keeps only the CPUs that `other` has too.
    #[inline]
    pub fn and_assign(&mut self, other: &Self) {
        self.zip_assign(other, words::and_assign);
    }

    /// Removes the CPUs of `other`.
    #[inline]
    pub fn andnot_assign(&mut self, other: &Self) {
        self.zip_assign(other, words::andnot_assign);
    }

    /// Keeps the CPUs that are in one of the two masks only.
    #[inline]
    pub fn xor_assign(&mut self, other: &Self) {
        self.zip_assign(other, words::xor_assign);
    }

    /// Adds the CPUs of `other` and returns the weight of the result, in one pass over the words.
    #[inline]
    pub fn or_assign_weight(&mut self, other: &Self) -> u32 {
        self.check_width(other);
        words::or_assign_weight(&mut self.words, &other.words)
    }

    /// The CPUs of either mask (`cpumask_or`).
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.zip_new(other, |a, b| a | b, words::or)
    }

    /// The CPUs of both masks (`cpumask_and`).
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.zip_new(other, |a, b| a & b, words::and)
    }

    /// The CPUs of this mask that are not in `other` (`cpumask_andnot`).
    #[must_use]
    pub fn andnot(&self, other: &Self) -> Self {
        self.zip_new(other, |a, b| a & !b, words::andnot)
    }

    /// The CPUs of exactly one of the masks (`cpumask_xor`).
    #[must_use]
    pub fn xor(&self, other: &Self) -> Self {
        self.zip_new(other, |a, b| a ^ b, words::xor)
    }

    /// How many CPUs the mask holds (`cpumask_weight`).
    #[inline]
    pub fn weight(&self) -> u32 {
        words::weight(&self.words)
    }

    /// How many CPUs both masks hold (`cpumask_weight_and`).
    #[inline]
    pub fn weight_and(&self, other: &Self) -> u32 {
        self.check_width(other);
        words::weight_and(&self.words, &other.words)
    }

    /// How many CPUs of this mask are not in `other` (`cpumask_weight_andnot`).
    #[inline]
    pub fn weight_andnot(&self, other: &Self) -> u32 {
        self.check_width(other);
        words::weight_andnot(&self.words, &other.words)
    }

    /// The numbers of the CPUs, ascending.
    pub fn numbers(&self) -> Vec<u16> {
        let mut numbers = vec![0; self.weight() as usize];
        words::numbers(&self.words, &mut numbers);
        numbers
    }

    /// Whether the mask holds no CPU (`cpumask_empty`).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Whether some CPU is in both masks (`cpumask_intersects`).
    #[inline]
    pub fn intersects(&self, other: &Self) -> bool {
        self.check_width(other);
        words::intersects(&self.words, &other.words)
    }

    /// Whether `other` holds every CPU of this mask (`cpumask_subset`).
    #[inline]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.check_width(other);
        !words::exceeds(&self.words, &other.words)
    }

    /// The lowest CPU (`cpumask_first`).
    #[inline]
    pub fn first(&self) -> Option<CpuId> {
        self.iter().next()
    }

    /// The lowest CPU above `after` (`cpumask_next`); `after` itself may lie outside the mask.
    #[inline]
    pub fn next(&self, after: CpuId) -> Option<CpuId> {
        // `after` may be the last number of its type, so the comparison comes before the sum.
        if after.0 >= self.nr_cpus - 1 {
            return None;
        }
        let from = CpuId(after.0 + 1);
        let not_before = u64::MAX << (u32::from(from.0) % BITS_PER_WORD);
        Cpus::starting(&self.words, from.word(), not_before).next()
    }

    /// The lowest CPU other than `cpu` (`cpumask_any_but`, which Linux answers with the lowest one too).
    #[inline]
    pub fn any_but(&self, cpu: CpuId) -> Option<CpuId> {
        self.iter().find(|&other| other != cpu)
    }

    /// The pairs of words of two masks of the same width.
    #[inline]
    fn zip(&self, other: &Self) -> impl Iterator<Item = (u64, u64)> {
        self.check_width(other);
        self.words.iter().copied().zip(other.words.iter().copied())
    }

    // None of the operations given here may set a bit that both words have clear: that keeps the invariant.
    #[inline]
    fn zip_assign(&mut self, other: &Self, op: impl Fn(&mut [u64], &[u64])) {
        self.check_width(other);
        op(&mut self.words, &other.words);
    }

    /// `short` does for the two words of a mask that lives inline what `long` does for many.
    #[inline]
    fn zip_new(
        &self,
        other: &Self,
        short: impl Fn(u64, u64) -> u64,
        long: impl Fn(&[u64], &[u64]) -> Vec<u64>,
    ) -> Self {
        self.check_width(other);
        let words = if self.words.spilled() {
            SmallVec::from_vec(long(&self.words, &other.words))
        } else {
            self.words.iter().zip(&other.words).map(|(&a, &b)| short(a, b)).collect()
        };
        Self { nr_cpus: self.nr_cpus, words }
    }

    /// Words that are known to be those of a mask of so many CPUs.
    fn of_words(nr_cpus: u32, words: Vec<u64>) -> Self {
        let words = if words.len() > 2 { SmallVec::from_vec(words) } else { SmallVec::from_slice(&words) };
        Self { nr_cpus: nr_cpus as u16, words }
    }

    #[inline]
    fn last_word(&self) -> u64 {
        self.words.last().copied().unwrap_or(0)
    }

    /// The bits of the last word that stand for CPUs (`BITMAP_LAST_WORD_MASK`).
    #[inline]
    const fn last_word_valid(&self) -> u64 {
        u64::MAX >> (self.nr_cpus().wrapping_neg() % BITS_PER_WORD)
    }

    #[inline]
    #[track_caller]
    fn check(&self, cpu: CpuId) {
        assert!(cpu.0 < self.nr_cpus, "CPU {cpu} is outside a mask of {} CPUs", self.nr_cpus);
    }

    #[inline]
    #[track_caller]
    fn check_width(&self, other: &Self) {
        assert!(
            self.nr_cpus == other.nr_cpus,
            "masks of different widths: {} and {} CPUs",
            self.nr_cpus,
            other.nr_cpus
        );
    }
}

/// The error of a CPU that a mask of `nr_cpus` CPUs does not have.
fn outside(cpu: u64, nr_cpus: u32) -> Error {
    Error::Value(format!("CPU: found {cpu}, expected 0 to {}", nr_cpus - 1))
}

impl Clone for CpuMask {
    fn clone(&self) -> Self {
        // A copy of plain words: the derived form would clone them one at a time.
        Self { nr_cpus: self.nr_cpus, words: SmallVec::from_slice(&self.words) }
    }

    fn clone_from(&mut self, source: &Self) {
        if self.nr_cpus == source.nr_cpus {
            self.copy_from(source);
        } else {
            *self = source.clone();
        }
    }
}
