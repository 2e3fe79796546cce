//! Lists from which words are dropped, eight words at a time (AVX-512): compare, and write those that stay side by side.

/// Words that one step writes, kept or not: a list needs so much room behind what it keeps.
pub(super) const AT_ONCE: usize = 8;

/// Puts the keys (`context | address >> shift`) of those addresses to the front of `keys` whose page is not that of the
/// address before; the first of all stays. Returns how many there are, and the bits of all addresses.
///
/// `keys` has room for one key for each address and [`AT_ONCE`] more.
pub(super) fn drop_repeats(context: u64, shift: u32, addresses: &[u64], keys: &mut [u64]) -> (usize, u64) {
    assert!(keys.len() >= addresses.len() + AT_ONCE, "no room for {} keys", addresses.len());
    assert!(super::packed::is_available(), "asked for on a CPU that cannot");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the CPU has the features, and there is room.
    unsafe {
        x86::drop_repeats(context, shift, addresses, keys)
    }
    #[cfg(not(target_arch = "x86_64"))]
    (0, 0)
}

/// The words of one place of up to so many sets.
pub(super) type Place = [u64; 1 << u8::BITS];

/// Puts each key into the place of its set, and those that displaced another to the front of `kept`; returns how many
/// there are. Meanwhile the cache fetches what is read next, from `ahead` on.
///
/// `keys` are whole steps of [`AT_ONCE`], and `kept` is as long.
pub(super) fn keep_displacing(
    place: &mut Place,
    set_of: impl Fn(u64) -> u8,
    keys: &[u64],
    kept: &mut [u64],
    ahead: *const u64,
) -> usize {
    assert!(keys.len().is_multiple_of(AT_ONCE), "a list of {} keys", keys.len());
    assert!(kept.len() >= keys.len(), "no room for {} keys", keys.len());
    assert!(super::packed::is_available(), "asked for on a CPU that cannot");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the CPU has the features, and there is room.
    unsafe {
        x86::keep_displacing(place, set_of, keys, kept, ahead)
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm_castpd_si128, _mm_castsi128_pd, _mm_cmpneq_epi64_mask, _mm_cvtsi64_si128, _mm_loadh_pd, _mm_loadl_epi64,
        _mm_loadu_si128, _mm512_cmpgt_epu64_mask, _mm512_loadu_si512, _mm512_maskz_compress_epi64, _mm512_or_si512,
        _mm512_reduce_or_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_srl_epi64, _mm512_storeu_si512,
        _mm512_xor_si512,
    };

    use super::super::cascade::prefetch;
    use super::{AT_ONCE, Place};

    /// Lines that a step of [`keep_displacing`] fetches: where it is used, half of all accesses are left.
    const LINES_AHEAD: usize = 3;

    /// `keys` must have room for a key of each address and [`AT_ONCE`] more.
    #[target_feature(enable = "avx512f,avx512vl,bmi1,popcnt")]
    pub(super) unsafe fn drop_repeats(context: u64, shift: u32, addresses: &[u64], keys: &mut [u64]) -> (usize, u64) {
        let in_page = (1_u64 << shift) - 1;
        let mut nr_kept = 0;
        let mut bits = 0;
        let mut keep_one = |nr_kept: &mut usize, at: usize| {
            let address = addresses[at];
            bits |= address;
            keys[*nr_kept] = context | address >> shift;
            *nr_kept += usize::from(at == 0 || (address ^ addresses[at - 1]) > in_page);
        };
        let nr_head = addresses.len().min(AT_ONCE);
        (0..nr_head).for_each(|at| keep_one(&mut nr_kept, at));
        let nr_steps = (addresses.len() - nr_head) / AT_ONCE;
        let tail = nr_head + nr_steps * AT_ONCE;
        (tail..addresses.len()).for_each(|at| bits |= addresses[at]);

        let (context_wide, in_page_wide) =
            (_mm512_set1_epi64(context.cast_signed()), _mm512_set1_epi64(in_page.cast_signed()));
        let count = _mm_cvtsi64_si128(i64::from(shift));
        let mut bits_wide = _mm512_setzero_si512();
        for step in 0..nr_steps {
            // SAFETY: the step's words are within `addresses`, and one before them. Eight keys are written behind at most
            // as many as addresses came before, for which there is room.
            unsafe {
                let from = addresses.as_ptr().add(nr_head + step * AT_ONCE);
                let now = _mm512_loadu_si512(from.cast());
                let before = _mm512_loadu_si512(from.sub(1).cast());
                bits_wide = _mm512_or_si512(bits_wide, now);
                let is_kept = _mm512_cmpgt_epu64_mask(_mm512_xor_si512(now, before), in_page_wide);
                let new = _mm512_or_si512(_mm512_srl_epi64(now, count), context_wide);
                _mm512_storeu_si512(keys.as_mut_ptr().add(nr_kept).cast(), _mm512_maskz_compress_epi64(is_kept, new));
                nr_kept += is_kept.count_ones() as usize;
            }
        }
        for at in tail..addresses.len() {
            keys[nr_kept] = context | addresses[at] >> shift;
            nr_kept += usize::from((addresses[at] ^ addresses[at - 1]) > in_page);
        }
        (nr_kept, bits | _mm512_reduce_or_epi64(bits_wide).cast_unsigned())
    }

    /// `keys` are whole steps of [`AT_ONCE`], and `kept` is as long.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512vl,bmi1,popcnt")]
    pub(super) unsafe fn keep_displacing(
        place: &mut Place,
        set_of: impl Fn(u64) -> u8,
        keys: &[u64],
        kept: &mut [u64],
        mut ahead: *const u64,
    ) -> usize {
        let mut nr_kept = 0;
        for keys in keys.as_chunks::<AT_ONCE>().0 {
            for line in 0..LINES_AHEAD {
                prefetch(ahead.wrapping_add(line * AT_ONCE));
            }
            ahead = ahead.wrapping_add(LINES_AHEAD * AT_ONCE);
            let mut is_kept = 0;
            for pair in 0..AT_ONCE / 2 {
                let two = [keys[2 * pair], keys[2 * pair + 1]];
                let sets = two.map(|key| usize::from(set_of(key)));
                // What stood there goes into the halves of a register: written to a list, it would cost a store a key, and
                // stores are what this loop waits for.
                // SAFETY: a word is read from each reference, and two words of a pair.
                unsafe {
                    let first = _mm_castsi128_pd(_mm_loadl_epi64(std::ptr::from_ref(&place[sets[0]]).cast()));
                    place[sets[0]] = two[0];
                    let found = _mm_loadh_pd(first, std::ptr::from_ref(&place[sets[1]]).cast());
                    place[sets[1]] = two[1];
                    let two = _mm_loadu_si128(keys.as_ptr().add(2 * pair).cast());
                    is_kept |= _mm_cmpneq_epi64_mask(two, _mm_castpd_si128(found)) << (2 * pair);
                }
            }
            // SAFETY: eight words are read, and eight written behind at most as many as came before in a list as long.
            unsafe {
                let words = _mm512_loadu_si512(keys.as_ptr().cast());
                _mm512_storeu_si512(kept.as_mut_ptr().add(nr_kept).cast(), _mm512_maskz_compress_epi64(is_kept, words));
            }
            nr_kept += is_kept.count_ones() as usize;
        }
        nr_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn repeats_are_those_of_the_page_before(
            addresses in prop::collection::vec((0..4_u64, 0..4096_u64).prop_map(|(page, byte)| page << 12 | byte), 0..100),
        ) {
            if !super::super::packed::is_available() {
                return Ok(());
            }
            let mut keys = vec![0; addresses.len() + AT_ONCE];
            let (nr_kept, bits) = drop_repeats(1 << 63, 12, &addresses, &mut keys);
            let mut expected: Vec<u64> = addresses.iter().map(|address| 1 << 63 | address >> 12).collect();
            expected.dedup();
            prop_assert_eq!(&keys[..nr_kept], &expected[..]);
            prop_assert_eq!(bits, addresses.iter().fold(0, |bits, address| bits | address));
        }

        #[test]
        fn keys_that_displace_another_stay(steps in prop::collection::vec(prop::array::uniform8(1..9_u64), 0..6)) {
            if !super::super::packed::is_available() {
                return Ok(());
            }
            let keys = steps.as_flattened();
            let mut place = [0; 1 << u8::BITS];
            let mut kept = vec![0; keys.len()];
            let nr_kept = keep_displacing(&mut place, |key| key as u8 & 3, keys, &mut kept, keys.as_ptr());
            let mut plain = [0; 4];
            let displaces = |key: &&u64| std::mem::replace(&mut plain[**key as usize & 3], **key) != **key;
            let expected: Vec<u64> = keys.iter().filter(displaces).copied().collect();
            prop_assert_eq!(&kept[..nr_kept], &expected[..]);
            prop_assert_eq!(&place[..4], &plain[..]);
        }
    }
}
