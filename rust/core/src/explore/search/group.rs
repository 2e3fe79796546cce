//! A look into one group of places of a table: which hold a state, and which are vacant.
//!
//! All forms give the same; states of one and of two words, which is what the models of one page table mostly are, have a form
//! for the registers that the CPU turns out to have.

#![expect(clippy::inline_always, reason = "only what is inlined is compiled for the wider registers")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm_set1_epi64x, _mm256_broadcastsi128_si256, _mm256_castsi256_pd, _mm256_cmpeq_epi64,
    _mm256_loadu_si256, _mm256_movemask_pd, _mm256_setzero_si256, _mm512_broadcast_i32x4, _mm512_cmpeq_epi64_mask,
    _mm512_loadu_si512, _mm512_testn_epi64_mask,
};

use super::PackedState;
#[cfg(target_arch = "x86_64")]
use crate::wide::{Wide, wide};

/// Bytes of a group of small states: a cache line.
pub(super) const LINE: usize = 64;

/// The places of a group that hold the state, and the vacant ones: bit `place * words of a state`.
pub(super) struct Places {
    pub(super) found: u32,
    pub(super) vacant: u32,
}

/// A way to look.
pub(super) trait Look {
    /// What `group` has.
    ///
    /// # Safety
    ///
    /// The CPU has the registers that the form is for.
    unsafe fn look<S: PackedState>(group: &[S], state: &S) -> Places;
}

/// What looks into many groups.
pub(super) trait Work {
    type Output;

    /// Does it; to be inlined, so that all of it is compiled for those registers.
    ///
    /// # Safety
    ///
    /// As for [`Look::look`].
    unsafe fn with<L: Look>(self) -> Self::Output;
}

/// Does the work in the widest form that this CPU has.
#[inline]
pub(super) fn widest<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,popcnt")]
        fn avx512<W: Work>(work: W) -> W::Output {
            // SAFETY: the CPU has it.
            unsafe { work.with::<Avx512>() }
        }
        #[target_feature(enable = "avx2,bmi1,popcnt")]
        fn avx2<W: Work>(work: W) -> W::Output {
            // SAFETY: the CPU has it.
            unsafe { work.with::<Avx2>() }
        }
        match wide() {
            // SAFETY: the CPU has the features; it was asked.
            Wide::Avx512 => return unsafe { avx512(work) },
            // SAFETY: the same.
            Wide::Avx2 => return unsafe { avx2(work) },
            Wide::None => {}
        }
    }
    // SAFETY: any CPU will do.
    unsafe { work.with::<Plain>() }
}

/// For any CPU.
pub(super) struct Plain;

impl Look for Plain {
    #[inline(always)]
    unsafe fn look<S: PackedState>(group: &[S], state: &S) -> Places {
        // Sums of all comparisons instead of a branch for each: where in its group a state stands is a guess, and a
        // wrong guess would also wait for the memory that was asked for.
        group.iter().enumerate().fold(Places { found: 0, vacant: 0 }, |places, (number, place)| {
            let bit = number * (size_of::<S>() / 8);
            Places {
                found: places.found | u32::from(place.is(state)) << bit,
                vacant: places.vacant | u32::from(place.is(&S::VACANT)) << bit,
            }
        })
    }
}

/// The states of one or two words of which all words are marked.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
const fn whole<S>(words: u32) -> u32 {
    if size_of::<S>() == 8 { words } else { words & words >> 1 & 0b0101_0101 }
}

/// A state of one or two words, twice or once.
///
/// # Safety
///
/// Any CPU will do; the state has no more words than that.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn doubled<S>(state: &S) -> __m128i {
    let from = &raw const *state;
    // SAFETY: 8 or 16 bytes are read of a state that has as many.
    unsafe { if size_of::<S>() == 8 { _mm_set1_epi64x(*from.cast()) } else { _mm_loadu_si128(from.cast()) } }
}

/// AVX-512.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Look for Avx512 {
    #[inline(always)]
    unsafe fn look<S: PackedState>(group: &[S], state: &S) -> Places {
        if size_of::<S>() > 16 {
            // SAFETY: any CPU will do.
            return unsafe { Plain::look(group, state) };
        }
        debug_assert_eq!(size_of_val(group), LINE);
        // SAFETY: the CPU has AVX-512, as the caller says; a line and a state of one or two words are read.
        unsafe {
            let line = _mm512_loadu_si512(group.as_ptr().cast());
            let wanted = _mm512_broadcast_i32x4(doubled(state));
            Places {
                found: whole::<S>(_mm512_cmpeq_epi64_mask(line, wanted).into()),
                vacant: whole::<S>(_mm512_testn_epi64_mask(line, line).into()),
            }
        }
    }
}

/// AVX2.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Look for Avx2 {
    #[inline(always)]
    unsafe fn look<S: PackedState>(group: &[S], state: &S) -> Places {
        if size_of::<S>() > 16 {
            // SAFETY: any CPU will do.
            return unsafe { Plain::look(group, state) };
        }
        debug_assert_eq!(size_of_val(group), LINE);
        // SAFETY: the CPU has AVX2, as the caller says; a line and a state of one or two words are read.
        unsafe {
            let line = group.as_ptr().cast();
            let halves = [_mm256_loadu_si256(line), _mm256_loadu_si256(line.add(1))];
            let same_as = |wanted| {
                let [low, high] = halves.map(|half| {
                    _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(half, wanted))).cast_unsigned()
                });
                whole::<S>(low | high << 4)
            };
            let wanted = _mm256_broadcastsi128_si256(doubled(state));
            Places { found: same_as(wanted), vacant: same_as(_mm256_setzero_si256()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks into each group for its state.
    struct LookInto<'a, const W: usize>(&'a [Vec<[u64; W]>], &'a [[u64; W]]);

    impl<const W: usize> Work for LookInto<'_, W> {
        type Output = Vec<(u32, u32)>;

        #[inline(always)]
        unsafe fn with<L: Look>(self) -> Self::Output {
            let look = |(group, state): (&Vec<[u64; W]>, _)| {
                // SAFETY: as the caller says.
                let places = unsafe { L::look(group, state) };
                (places.found, places.vacant)
            };
            self.0.iter().zip(self.1).map(look).collect()
        }
    }

    fn is_same_in_every_form<const W: usize>(words: &[[u64; 8]], wanted: &[[u64; 8]]) -> Result<(), TestCaseError> {
        let groups: Vec<Vec<[u64; W]>> = words.iter().map(|line| line.as_chunks().0.to_vec()).collect();
        let states: Vec<[u64; W]> = wanted.iter().map(|state| std::array::from_fn(|word| state[word])).collect();
        let work = || LookInto(&groups, &states);
        // SAFETY: any CPU will do.
        let plain = unsafe { work().with::<Plain>() };
        prop_assert_eq!(&widest(work()), &plain);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has it.
            prop_assert_eq!(&unsafe { work().with::<Avx2>() }, &plain);
        }
        for ((group, state), (found, vacant)) in groups.iter().zip(&states).zip(plain) {
            for (number, place) in group.iter().enumerate() {
                let bit = |bits: u32| bits >> (number * W) & 1 != 0;
                prop_assert_eq!((bit(found), bit(vacant)), (place == state, *place == [0; W]));
            }
        }
        Ok(())
    }

    proptest! {
        /// Few values, so that places hold the state, or one word of it, or nothing.
        #[test]
        fn every_form_sees_the_same(
            words in prop::collection::vec(prop::array::uniform8(0..3_u64), 1..40),
            wanted in prop::collection::vec(prop::array::uniform8(1..3_u64), 40),
        ) {
            is_same_in_every_form::<1>(&words, &wanted)?;
            is_same_in_every_form::<2>(&words, &wanted)?;
            is_same_in_every_form::<3>(&words, &wanted)?;
            is_same_in_every_form::<4>(&words, &wanted)?;
        }
    }
}
