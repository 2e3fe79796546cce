//! Many masks of one width, one after the other in memory, for questions to all of them at once.

use super::{CpuMask, words, words_of};
use crate::error::{Error, Result};

/// Masks of `nr_cpus` CPUs. Each keeps the invariant of [`CpuMask`]: no bit at or above `nr_cpus`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuMaskArray {
    nr_cpus: u32,
    /// `[mask][word]`.
    words: Vec<u64>,
}

impl CpuMaskArray {
    /// Masks from their words, one mask after the other.
    ///
    /// # Errors
    /// If the width is out of bounds, the words are not those of whole masks, or a mask has a bit at or above `nr_cpus`.
    pub fn from_words(nr_cpus: u32, words: Vec<u64>) -> Result<Self> {
        let empty = CpuMask::new(nr_cpus)?;
        let per_mask = words_of(nr_cpus);
        if !words.len().is_multiple_of(per_mask) {
            let found = words.len();
            return Err(Error::Value(format!(
                "words: found {found}, expected a multiple of {per_mask} ({nr_cpus} CPUs)"
            )));
        }
        let excess = !empty.last_word_valid();
        if let Some(bad) = words.chunks(per_mask).position(|mask| mask[per_mask - 1] & excess != 0) {
            let mask = &words[bad * per_mask..(bad + 1) * per_mask];
            let error = CpuMask::from_words(nr_cpus, mask).err().unwrap_or_else(|| Error::Value(String::new()));
            return Err(Error::Value(format!("mask {bad}: {error}")));
        }
        Ok(Self { nr_cpus, words })
    }

    /// Copies of masks, which all have `nr_cpus` CPUs.
    ///
    /// # Errors
    /// If the width is out of bounds or a mask has another.
    pub fn from_masks<'a>(nr_cpus: u32, masks: impl IntoIterator<Item = &'a CpuMask>) -> Result<Self> {
        CpuMask::new(nr_cpus)?;
        let mut words = Vec::new();
        for (at, mask) in masks.into_iter().enumerate() {
            if mask.nr_cpus() != nr_cpus {
                return Err(Error::Value(format!("mask {at}: found {} CPUs, expected {nr_cpus}", mask.nr_cpus())));
            }
            words.extend_from_slice(mask.words());
        }
        Ok(Self { nr_cpus, words })
    }

    /// The width of each mask.
    pub const fn nr_cpus(&self) -> u32 {
        self.nr_cpus
    }

    /// How many masks there are.
    pub const fn len(&self) -> usize {
        self.words.len() / words_of(self.nr_cpus)
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words of all masks, one mask after the other.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// A copy of one mask.
    pub fn get(&self, at: usize) -> Option<CpuMask> {
        self.rows().nth(at).and_then(|row| CpuMask::from_words(self.nr_cpus, row).ok())
    }

    fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.words.chunks_exact(words_of(self.nr_cpus))
    }

    /// How many CPUs each holds.
    pub fn weights(&self) -> Vec<u32> {
        self.rows().map(words::weight).collect()
    }

    /// How many CPUs each has in common with `other`.
    pub fn weights_and(&self, other: &CpuMask) -> Vec<u32> {
        self.check_width(other);
        self.rows().map(|row| words::weight_and(row, other.words())).collect()
    }

    /// How many CPUs each holds that are not in `other`.
    pub fn weights_andnot(&self, other: &CpuMask) -> Vec<u32> {
        self.check_width(other);
        self.rows().map(|row| words::weight_andnot(row, other.words())).collect()
    }

    /// Which of them have a CPU in common with `other`.
    pub fn intersects(&self, other: &CpuMask) -> Vec<bool> {
        self.check_width(other);
        self.rows().map(|row| words::intersects(row, other.words())).collect()
    }

    /// The CPUs of any of them.
    pub fn union(&self) -> CpuMask {
        let mut union = vec![0; words_of(self.nr_cpus)];
        self.rows().for_each(|row| words::or_assign(&mut union, row));
        CpuMask::of_words(self.nr_cpus, union)
    }

    /// The CPUs of all of them; every CPU if there is none.
    pub fn intersection(&self) -> CpuMask {
        let mut all = CpuMask::of_words(self.nr_cpus, vec![0; words_of(self.nr_cpus)]);
        all.set_all();
        self.rows().for_each(|row| words::and_assign(&mut all.words, row));
        all
    }

    /// Adds the CPUs of `other` to each.
    pub fn or_assign(&mut self, other: &CpuMask) {
        self.assign(other, words::or_assign);
    }

    /// Keeps of each the CPUs that `other` has too.
    pub fn and_assign(&mut self, other: &CpuMask) {
        self.assign(other, words::and_assign);
    }

    /// Removes the CPUs of `other` from each.
    pub fn andnot_assign(&mut self, other: &CpuMask) {
        self.assign(other, words::andnot_assign);
    }

    fn assign(&mut self, other: &CpuMask, op: impl Fn(&mut [u64], &[u64])) {
        self.check_width(other);
        self.words.chunks_exact_mut(words_of(self.nr_cpus)).for_each(|row| op(row, other.words()));
    }

    fn check_width(&self, other: &CpuMask) {
        assert!(
            self.nr_cpus == other.nr_cpus(),
            "masks of different widths: {} and {} CPUs",
            self.nr_cpus,
            other.nr_cpus()
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpumask::CpuId;

    fn masks() -> impl Strategy<Value = (CpuMask, Vec<CpuMask>)> {
        prop::sample::select(vec![1u32, 63, 64, 65, 128, 129, 700, 8192]).prop_flat_map(|nr_cpus| {
            let cpus = prop::collection::vec(0..nr_cpus as u16, 0..40);
            let mask = cpus.prop_map(move |cpus| CpuMask::from_cpus(nr_cpus, cpus.into_iter().map(CpuId)).unwrap());
            (mask.clone(), prop::collection::vec(mask, 0..6))
        })
    }

    proptest! {
        #[test]
        fn it_answers_for_each_as_the_mask_does((other, masks) in masks()) {
            let nr_cpus = other.nr_cpus();
            let array = CpuMaskArray::from_masks(nr_cpus, &masks).unwrap();
            prop_assert_eq!((array.len(), array.is_empty()), (masks.len(), masks.is_empty()));
            prop_assert_eq!(&CpuMaskArray::from_words(nr_cpus, array.words().to_vec()).unwrap(), &array);
            let each = |of: &dyn Fn(&CpuMask) -> u32| masks.iter().map(of).collect::<Vec<_>>();
            prop_assert_eq!(array.weights(), each(&|mask| mask.weight()));
            prop_assert_eq!(array.weights_and(&other), each(&|mask| mask.weight_and(&other)));
            prop_assert_eq!(array.weights_andnot(&other), each(&|mask| mask.andnot(&other).weight()));
            prop_assert_eq!(array.intersects(&other), masks.iter().map(|m| m.intersects(&other)).collect::<Vec<_>>());
            let (mut union, mut all) = (CpuMask::new(nr_cpus).unwrap(), CpuMask::new(nr_cpus).unwrap());
            all.set_all();
            for mask in &masks {
                union.or_assign(mask);
                all.and_assign(mask);
            }
            prop_assert_eq!((array.union(), array.intersection()), (union, all));
            let (mut or, mut and, mut andnot) = (array.clone(), array.clone(), array.clone());
            or.or_assign(&other);
            and.and_assign(&other);
            andnot.andnot_assign(&other);
            for (at, mask) in masks.iter().enumerate() {
                prop_assert_eq!(array.get(at), Some(mask.clone()));
                prop_assert_eq!(or.get(at), Some(mask.or(&other)));
                prop_assert_eq!(and.get(at), Some(mask.and(&other)));
                prop_assert_eq!(andnot.get(at), Some(mask.andnot(&other)));
            }
            prop_assert_eq!(array.get(masks.len()), None);
        }
    }

    #[test]
    fn bad_words_are_refused() {
        let error = |nr_cpus, words: &[u64]| CpuMaskArray::from_words(nr_cpus, words.to_vec()).unwrap_err().to_string();
        assert_eq!(error(0, &[]), "nr_cpus: found 0, expected 1 to 8192");
        assert_eq!(error(100, &[1, 2, 3]), "words: found 3, expected a multiple of 2 (100 CPUs)");
        assert_eq!(error(100, &[1, 2, 0, 1 << 40]), "mask 1: CPU: found 104, expected 0 to 99");
        let narrow = CpuMask::new(99).unwrap();
        let refused = CpuMaskArray::from_masks(100, [&narrow]).unwrap_err().to_string();
        assert_eq!(refused, "mask 0: found 99 CPUs, expected 100");
    }
}
