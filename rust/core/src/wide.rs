//! Loops over words, compiled for the widest registers that the CPU turns out to have.
//!
//! A loop given to [`loops!`] stands in the source once, in plain Rust; it is compiled for AVX-512 (with a population
//! count of its own), for AVX2, and for any CPU. All give the same, since all are the same text. Short inputs take the
//! last form without asking, since the question costs more than the loop.

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

/// Elements below which the plain form is taken.
pub(crate) const SHORT: usize = 8;

/// What the CPU has.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wide {
    /// AVX-512 with `VPOPCNTDQ`.
    Avx512,
    /// AVX2.
    Avx2,
    /// Neither.
    None,
}

/// What this CPU has, found out once: the longest question costs as much as a loop over a hundred words.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn wide() -> Wide {
    static FOUND: OnceLock<Wide> = OnceLock::new();
    *FOUND.get_or_init(|| {
        if is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("popcnt")
        {
            Wide::Avx512
        } else if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("popcnt")
        {
            Wide::Avx2
        } else {
            Wide::None
        }
    })
}

/// Functions over slices, the first argument being the one whose length counts.
macro_rules! loops {
    ($(#[doc = $doc:literal] fn $name:ident($($arg:ident: $ty:ty),+) $(-> $result:ty)? $body:block)+) => {$(
        #[doc = $doc]
        #[inline]
        pub(super) fn $name($($arg: $ty),+) $(-> $result)? {
            #[inline(always)]
            fn plain($($arg: $ty),+) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            if $crate::wide::loops!(@first $($arg),+).len() >= $crate::wide::SHORT {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vpopcntdq,popcnt")]
                fn avx512($($arg: $ty),+) $(-> $result)? {
                    plain($($arg),+)
                }
                #[target_feature(enable = "avx2,bmi1,popcnt")]
                fn avx2($($arg: $ty),+) $(-> $result)? {
                    plain($($arg),+)
                }
                match $crate::wide::wide() {
                    // SAFETY: the CPU has the features; it was asked.
                    $crate::wide::Wide::Avx512 => return unsafe { avx512($($arg),+) },
                    // SAFETY: the same.
                    $crate::wide::Wide::Avx2 => return unsafe { avx2($($arg),+) },
                    $crate::wide::Wide::None => {}
                }
            }
            plain($($arg),+)
        }
    )+};
    (@first $first:ident $(, $rest:ident)*) => { $first };
}

pub(crate) use loops;
