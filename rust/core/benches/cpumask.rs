//! Masks of 8192 CPUs against the limit that loading their words sets: `cargo bench -p tlbcore --bench cpumask`.
//!
//! The limit is measured in the same run: a loop that reads the words of the operands, in the widest registers, and does
//! nothing else but or them together so that it cannot be left out. Forms are timed in turn; medians, fastest and slowest.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures to look at")]

use std::hint::black_box;
use std::time::Instant;

use tlbcore::cpumask::{CpuId, CpuMask, CpuMaskArray};

const NR_CPUS: u32 = 8192;
const ROUNDS: usize = 41;
const CALLS: u32 = 20_000;
/// Registers that take turns, so that the loop waits for loads only.
const REGISTERS: usize = 4;

#[cfg(target_arch = "x86_64")]
fn read(a: &[u64], b: &[u64]) -> u64 {
    use std::arch::x86_64::{
        _mm256_extract_epi64, _mm256_loadu_si256, _mm256_or_si256, _mm256_setzero_si256, _mm512_loadu_si512,
        _mm512_or_si512, _mm512_reduce_or_epi64, _mm512_setzero_si512,
    };

    // With intrinsics: of a plain loop the compiler makes loads of single words, which are a limit four times too slow.
    #[target_feature(enable = "avx512f")]
    fn avx512(a: &[u64], b: &[u64]) -> u64 {
        let mut any = [_mm512_setzero_si512(); REGISTERS];
        for words in [a, b] {
            for part in words.as_chunks::<{ 8 * REGISTERS }>().0 {
                for (any, words) in any.iter_mut().zip(part.as_chunks::<8>().0) {
                    // SAFETY: eight words are read.
                    *any = _mm512_or_si512(*any, unsafe { _mm512_loadu_si512(words.as_ptr().cast()) });
                }
            }
        }
        _mm512_reduce_or_epi64(any.into_iter().fold(_mm512_setzero_si512(), |all, one| _mm512_or_si512(all, one)))
            .cast_unsigned()
    }

    #[target_feature(enable = "avx2")]
    fn avx2(a: &[u64], b: &[u64]) -> u64 {
        let mut any = [_mm256_setzero_si256(); REGISTERS];
        for words in [a, b] {
            for part in words.as_chunks::<{ 4 * REGISTERS }>().0 {
                for (any, words) in any.iter_mut().zip(part.as_chunks::<4>().0) {
                    // SAFETY: four words are read.
                    *any = _mm256_or_si256(*any, unsafe { _mm256_loadu_si256(words.as_ptr().cast()) });
                }
            }
        }
        let all = any.into_iter().fold(_mm256_setzero_si256(), |all, one| _mm256_or_si256(all, one));
        let words = [
            _mm256_extract_epi64::<0>(all),
            _mm256_extract_epi64::<1>(all),
            _mm256_extract_epi64::<2>(all),
            _mm256_extract_epi64::<3>(all),
        ];
        words.into_iter().fold(0, |any, word| any | word.cast_unsigned())
    }

    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU was asked.
        unsafe { avx512(a, b) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the same.
        unsafe { avx2(a, b) }
    } else {
        a.iter().chain(b).fold(0, |all, word| all | word)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn read(a: &[u64], b: &[u64]) -> u64 {
    a.iter().chain(b).fold(0, |all, word| all | word)
}

fn mask(step: u16) -> CpuMask {
    let cpus = (0..NR_CPUS as u16).filter(|cpu| cpu.wrapping_mul(step) & 0x40 != 0).map(CpuId);
    CpuMask::from_cpus(NR_CPUS, cpus).expect("all of them are in it")
}

/// Its name, what limits it, and what it does.
type Form<'a> = (&'static str, Option<&'static str>, Box<dyn FnMut() + 'a>);

fn main() {
    let (a, b, mut target) = (mask(7), mask(13), mask(7));
    let array = CpuMaskArray::from_masks(NR_CPUS, std::iter::repeat_n(&a, 8)).expect("of one width");
    let empty: &[u64] = &[];
    let target = std::cell::RefCell::new(&mut target);
    let forms: Vec<Form<'_>> = vec![
        ("read one mask", None, Box::new(|| _ = black_box(read(black_box(a.words()), empty)))),
        ("read two masks", None, Box::new(|| _ = black_box(read(black_box(a.words()), black_box(b.words()))))),
        ("weight", Some("read one mask"), Box::new(|| _ = black_box(black_box(&a).weight()))),
        ("weight_and", Some("read two masks"), Box::new(|| _ = black_box(black_box(&a).weight_and(black_box(&b))))),
        (
            "or_assign",
            Some("read two masks"),
            Box::new(|| black_box(&mut **target.borrow_mut()).or_assign(black_box(&b))),
        ),
        (
            "and_assign",
            Some("read two masks"),
            Box::new(|| black_box(&mut **target.borrow_mut()).and_assign(black_box(&b))),
        ),
        (
            "andnot_assign",
            Some("read two masks"),
            Box::new(|| black_box(&mut **target.borrow_mut()).andnot_assign(black_box(&b))),
        ),
        (
            "or_assign_weight",
            Some("read two masks"),
            Box::new(|| _ = black_box(black_box(&mut **target.borrow_mut()).or_assign_weight(black_box(&b)))),
        ),
        ("or, a new mask", Some("read two masks"), Box::new(|| _ = black_box(black_box(&a).or(black_box(&b))))),
        ("andnot, a new mask", Some("read two masks"), Box::new(|| _ = black_box(black_box(&a).andnot(black_box(&b))))),
        ("weights of 8", None, Box::new(|| _ = black_box(black_box(&array).weights()))),
    ];
    let mut forms = forms;
    let mut times = vec![Vec::new(); forms.len()];
    for _ in 0..ROUNDS {
        for ((_, _, call), times) in forms.iter_mut().zip(&mut times) {
            let begin = Instant::now();
            (0..CALLS).for_each(|_| call());
            times.push(begin.elapsed().as_nanos() as f64 / f64::from(CALLS));
        }
    }
    let middle = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        [sorted[ROUNDS / 2], sorted[0], sorted[ROUNDS - 1]]
    };
    let names: Vec<&str> = forms.iter().map(|(name, ..)| *name).collect();
    for ((name, limit, _), of_form) in forms.iter().zip(&times) {
        let [median, fastest, slowest] = middle(of_form);
        let ratio = limit.and_then(|limit| names.iter().position(|name| *name == limit));
        let ratio = ratio.map_or(String::new(), |at| format!("  {:.2} x the limit", median / middle(&times[at])[0]));
        println!("{name:<20} {median:>7.1} ns ({fastest:.1} to {slowest:.1}){ratio}");
    }
}
