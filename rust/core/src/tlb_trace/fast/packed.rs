//! Sets in vector registers (AVX-512): compare all ways at once, shift the keys before the one found, no branch.
//!
//! Where the CPU has no AVX-512, [`is_available`] says no and nothing else here is called.

use super::dense::Misses;
use super::key::Key;

/// Whether this CPU can.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("bmi1")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) const fn is_available() -> bool {
    false
}

/// Whether sets of so many keys are whole registers.
pub(super) fn takes(ways: usize) -> bool {
    matches!(ways, 4 | 8) && is_available()
}

/// Accesses to sets that [`takes`] says yes to, under LRU, as the loop in `dense` has them.
pub(super) fn access_sets<const W: usize>(
    sets: &mut [[u64; W]],
    context: u64,
    shift: u32,
    addresses: &[u64],
    out: &mut Misses<'_>,
) {
    assert!(takes(W), "asked for with {W} ways, or on a CPU that cannot");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the CPU has the features.
    unsafe {
        x86::access_sets(sets, context, shift, addresses, out);
    }
}

/// Accesses to sets of four keys under LRU, each with the number of its set.
pub(super) fn access_keys(sets: &mut [[u64; 4]], keys: &[u64], numbers: &[u32], out: &mut Misses<'_>) {
    assert!(is_available(), "asked for on a CPU that cannot");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the CPU has the features.
    unsafe {
        x86::access_keys(sets, keys, numbers, out);
    }
}

/// The bits in which some of the words differ from `first`; with `first` 0, the bits of all words.
pub(super) fn differing_bits(first: u64, words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_available() {
        // SAFETY: the CPU has the features.
        return unsafe { x86::differing_bits(first, words) };
    }
    words.iter().fold(0, |bits, word| bits | (word ^ first))
}

/// Words that one step of [`keep_if`] writes, kept or not.
pub(super) const COMPRESSED_AT_ONCE: usize = 8;

/// Puts those words at the end of `kept` whose bits from `shift` on, as far as `mask` goes, are `wanted`.
pub(super) fn keep_if(words: &[u64], kept: &mut Vec<u64>, shift: u32, mask: u64, wanted: u64) {
    #[cfg(target_arch = "x86_64")]
    if is_available() {
        // SAFETY: the CPU has the features.
        unsafe { x86::keep_if(words, kept, shift, mask, wanted) };
        return;
    }
    kept.extend(words.iter().copied().filter(|word| word >> shift & mask == wanted));
}

/// How a key becomes a set and a packed key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing<'a> {
    /// The set of the first line.
    pub(super) first_set: usize,
    /// log2 of the sets of the whole array.
    pub(super) set_bits: u32,
    /// The contexts of the keys, and each where packed keys have it; not empty.
    pub(super) bases: &'a [(u64, u32)],
}

impl Packing<'_> {
    #[inline]
    const fn place(&self, key: u64) -> (usize, u32) {
        let number = Key(key).number();
        let set = number as usize & ((1 << self.set_bits) - 1);
        (set - self.first_set, (number >> self.set_bits) as u32)
    }
}

/// Accesses to sets of up to 16 packed keys under LRU. What misses goes to `misses`.
pub(super) fn access_lines(
    lines: &mut [Line],
    ways: usize,
    keys: &[u64],
    packing: Packing<'_>,
    misses: &mut Misses<'_>,
) {
    assert!(is_available() && (1..=LINE_WAYS).contains(&ways), "asked for on a CPU that cannot, or for {ways} ways");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the CPU has the features.
    unsafe {
        x86::access_lines(lines, ways, keys, packing, misses);
    }
}

/// A stream of which next to nothing hits the first level, of as many ways as `nr_first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scattered {
    /// What makes a key of a page number, which is an address without `shift` bits.
    pub(super) context: u64,
    pub(super) shift: u32,
    /// The highest page number that can be packed.
    pub(super) last: u64,
    pub(super) nr_first: usize,
}

/// Accesses to sets of packed keys under LRU, each with the one base of `packing`; the keys of those that miss go to
/// `misses`. Ends before the first access that cannot be packed, or that `stops` says yes to, which is asked about those
/// whose page stands in one of the first places of its set. Returns how many were done.
pub(super) fn access_scattered(
    lines: &mut [Line],
    ways: usize,
    addresses: &[u64],
    (set_bits, base): (u32, u32),
    stream: Scattered,
    misses: &mut Misses<'_>,
    stops: &dyn Fn(usize) -> bool,
) -> usize {
    assert!(is_available() && (1..=LINE_WAYS).contains(&ways), "asked for on a CPU that cannot, or for {ways} ways");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the CPU has the features.
    unsafe {
        x86::access_scattered(lines, ways, addresses, (set_bits, base), stream, misses, stops)
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// The ways of a [`Line`].
pub(super) const LINE_WAYS: usize = 16;

/// A set of up to 16 packed keys in the order of their eviction: one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u32; LINE_WAYS]);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{
        _mm256_cmpeq_epi64_mask, _mm256_loadu_si256, _mm256_mask_alignr_epi64, _mm256_set1_epi64x, _mm256_storeu_si256,
        _mm512_and_si512, _mm512_cmpeq_epi32_mask, _mm512_cmpeq_epi64_mask, _mm512_load_si512, _mm512_loadu_si512,
        _mm512_mask_alignr_epi32, _mm512_mask_alignr_epi64, _mm512_maskz_compress_epi64, _mm512_permutex2var_epi32,
        _mm512_set1_epi32, _mm512_set1_epi64, _mm512_store_si512, _mm512_storeu_si512,
    };

    use super::super::cascade::prefetch;
    use super::super::dense::Misses;
    use super::super::key::context_of;
    use super::{COMPRESSED_AT_ONCE, LINE_WAYS, Line, Packing, Scattered};

    /// How many words ahead a stream is fetched where each access costs several cycles.
    const AHEAD: usize = 1 << 9;

    /// From the front up to the key found, or up to the last way if none was: the slots that shift back by one.
    const fn slots_to_shift(hits: u32, ways: usize) -> u32 {
        let stop = hits | 1 << (ways - 1);
        stop ^ (stop - 1)
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1")]
    pub(super) fn differing_bits(first: u64, words: &[u64]) -> u64 {
        words.iter().fold(0, |bits, word| bits | (word ^ first))
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1")]
    pub(super) fn access_sets<const W: usize>(
        sets: &mut [[u64; W]],
        context: u64,
        shift: u32,
        addresses: &[u64],
        out: &mut Misses<'_>,
    ) {
        let mut cursor = out.cursor();
        for &address in addresses {
            let key = context | address >> shift;
            let set = &mut sets[key as usize & (sets.len() - 1)];
            let hits = if W == 4 { touch_4(set.as_mut_slice(), key) } else { touch_8(set.as_mut_slice(), key) };
            cursor.put(key, hits == 0);
        }
        out.advance(&cursor);
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1")]
    pub(super) fn access_keys(sets: &mut [[u64; 4]], keys: &[u64], numbers: &[u32], out: &mut Misses<'_>) {
        let mut cursor = out.cursor();
        for (&key, &number) in keys.iter().zip(numbers) {
            let hits = touch_4(sets[number as usize].as_mut_slice(), key);
            cursor.put(key, hits == 0);
        }
        out.advance(&cursor);
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1,popcnt")]
    pub(super) fn keep_if(words: &[u64], kept: &mut Vec<u64>, shift: u32, mask: u64, wanted: u64) {
        kept.reserve(words.len() + COMPRESSED_AT_ONCE);
        let mut next: *mut u64 = kept.spare_capacity_mut().as_mut_ptr().cast();
        let mut nr_kept = 0;
        let (whole, rest) = words.as_chunks::<COMPRESSED_AT_ONCE>();
        let bits = _mm512_set1_epi64((mask << shift).cast_signed());
        let value = _mm512_set1_epi64((wanted << shift).cast_signed());
        for chunk in whole {
            // SAFETY: eight words are read; eight are written, of which as many count as were kept, so that they stay
            // within the room for all words and eight more.
            unsafe {
                let words = _mm512_loadu_si512(chunk.as_ptr().cast());
                let is_kept = _mm512_cmpeq_epi64_mask(_mm512_and_si512(words, bits), value);
                _mm512_storeu_si512(next.cast(), _mm512_maskz_compress_epi64(is_kept, words));
                let nr_more = is_kept.count_ones() as usize;
                next = next.add(nr_more);
                nr_kept += nr_more;
            }
        }
        // SAFETY: so many words were written.
        unsafe { kept.set_len(kept.len() + nr_kept) };
        kept.extend(rest.iter().copied().filter(|word| word >> shift & mask == wanted));
    }

    // The stores are whole, behind an empty `asm!` that hides where the value comes from: the compiler would make a
    // masked store of a load, a shift and a store, from which the next load of the set could not be forwarded.

    #[target_feature(enable = "avx512f,avx512vl,bmi1")]
    fn touch_4(set: &mut [u64], key: u64) -> u32 {
        let set = &mut set[..4];
        let key = _mm256_set1_epi64x(key.cast_signed());
        // SAFETY: four words can be read and written.
        unsafe {
            let old = _mm256_loadu_si256(set.as_ptr().cast());
            let hits = u32::from(_mm256_cmpeq_epi64_mask(old, key));
            let mut new = _mm256_mask_alignr_epi64::<3>(old, slots_to_shift(hits, 4) as u8, old, key);
            asm!("/* {0} */", inlateout(ymm_reg) new, options(pure, nomem, nostack, preserves_flags));
            _mm256_storeu_si256(set.as_mut_ptr().cast(), new);
            hits
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1")]
    fn touch_8(set: &mut [u64], key: u64) -> u32 {
        let set = &mut set[..8];
        let key = _mm512_set1_epi64(key.cast_signed());
        // SAFETY: eight words can be read and written.
        unsafe {
            let old = _mm512_loadu_si512(set.as_ptr().cast());
            let hits = u32::from(_mm512_cmpeq_epi64_mask(old, key));
            let mut new = _mm512_mask_alignr_epi64::<7>(old, slots_to_shift(hits, 8) as u8, old, key);
            asm!("/* {0} */", inlateout(zmm_reg) new, options(pure, nomem, nostack, preserves_flags));
            _mm512_storeu_si512(set.as_mut_ptr().cast(), new);
            hits
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1")]
    pub(super) fn access_lines(
        lines: &mut [Line],
        ways: usize,
        keys: &[u64],
        packing: Packing<'_>,
        misses: &mut Misses<'_>,
    ) {
        debug_assert!(ways <= LINE_WAYS);
        let Some((&(_, base), others)) = packing.bases.split_first() else { return };
        let mut cursor = misses.cursor();
        if others.is_empty() {
            for &key in keys {
                let (set, page) = packing.place(key);
                let hits = touch_line(&mut lines[set], ways, base | page);
                cursor.put(key, hits == 0);
            }
        } else {
            for &key in keys {
                let (set, page) = packing.place(key);
                let mut base = base;
                for &(context, other) in others {
                    base = std::hint::select_unpredictable(context == context_of(key), other, base);
                }
                let hits = touch_line(&mut lines[set], ways, base | page);
                cursor.put(key, hits == 0);
            }
        }
        misses.advance(&cursor);
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1")]
    fn touch_line(line: &mut Line, ways: usize, packed: u32) -> u32 {
        let packed = _mm512_set1_epi32(packed.cast_signed());
        // SAFETY: a line is 64 aligned bytes.
        unsafe {
            let old = _mm512_load_si512(line.0.as_ptr().cast());
            let hits = u32::from(_mm512_cmpeq_epi32_mask(old, packed));
            let mut new = _mm512_mask_alignr_epi32::<15>(old, slots_to_shift(hits, ways) as u16, old, packed);
            asm!("/* {0} */", inlateout(zmm_reg) new, options(pure, nomem, nostack, preserves_flags));
            _mm512_store_si512(line.0.as_mut_ptr().cast(), new);
            hits
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,bmi1,bmi2")]
    pub(super) fn access_scattered(
        lines: &mut [Line],
        ways: usize,
        addresses: &[u64],
        (set_bits, base): (u32, u32),
        stream: Scattered,
        misses: &mut Misses<'_>,
        stops: &dyn Fn(usize) -> bool,
    ) -> usize {
        let first_places = (1_u32 << stream.nr_first) - 1;
        let mut at = 0;
        loop {
            at += miss_run(lines, ways, &addresses[at..], (set_bits, base), stream, misses);
            let Some(&address) = addresses.get(at) else { return at };
            // One that the second level holds, most likely.
            let number = address >> stream.shift;
            if number > stream.last {
                return at;
            }
            let line = &mut lines[number as usize & ((1 << set_bits) - 1)];
            let packed = base | (number >> set_bits) as u32;
            let place = line.0.iter().position(|&other| other == packed).unwrap_or(LINE_WAYS - 1);
            if first_places >> place & 1 != 0 && stops(at) {
                return at;
            }
            touch_line(line, ways, packed);
            at += 1;
        }
    }

    /// Accesses up to the first that hits; returns how many.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512vl,bmi1,bmi2")]
    fn miss_run(
        lines: &mut [Line],
        ways: usize,
        addresses: &[u64],
        (set_bits, base): (u32, u32),
        stream: Scattered,
        misses: &mut Misses<'_>,
    ) -> usize {
        let Scattered { context, shift, last, .. } = stream;
        // Where the word of each place comes from: the first from the key, the others from the place before.
        let mut sources: [u32; LINE_WAYS] = std::array::from_fn(|place| place as u32);
        sources[..ways].rotate_right(1);
        sources[0] = LINE_WAYS as u32;
        // SAFETY: sixteen words are read.
        let sources = unsafe { _mm512_loadu_si512(sources.as_ptr().cast()) };
        let mut cursor = misses.cursor();
        let mut nr = 0;
        for address in addresses {
            prefetch(std::ptr::from_ref(address).wrapping_add(AHEAD));
            let number = address >> shift;
            if number > last {
                break;
            }
            let line = &mut lines[number as usize & ((1 << set_bits) - 1)];
            let key = _mm512_set1_epi32((base | (number >> set_bits) as u32).cast_signed());
            // SAFETY: a line is 64 aligned bytes.
            unsafe {
                let old = _mm512_load_si512(line.0.as_ptr().cast());
                if _mm512_cmpeq_epi32_mask(old, key) != 0 {
                    break;
                }
                _mm512_store_si512(line.0.as_mut_ptr().cast(), _mm512_permutex2var_epi32(old, sources, key));
            }
            cursor.put(context | number, true);
            nr += 1;
        }
        misses.advance(&cursor);
        nr
    }
}
