//! The loops over the words of masks, for the widest registers of the CPU.

use crate::wide::{SHORT, loops};

loops! {
    /// The words of `a | b`.
    fn or(a: &[u64], b: &[u64]) -> Vec<u64> {
        a.iter().zip(b).map(|(a, b)| a | b).collect()
    }

    /// The words of `a & b`.
    fn and(a: &[u64], b: &[u64]) -> Vec<u64> {
        a.iter().zip(b).map(|(a, b)| a & b).collect()
    }

    /// The words of `a & !b`.
    fn andnot(a: &[u64], b: &[u64]) -> Vec<u64> {
        a.iter().zip(b).map(|(a, b)| a & !b).collect()
    }

    /// The words of `a ^ b`.
    fn xor(a: &[u64], b: &[u64]) -> Vec<u64> {
        a.iter().zip(b).map(|(a, b)| a ^ b).collect()
    }

    /// `a |= b`.
    fn or_assign(a: &mut [u64], b: &[u64]) {
        a.iter_mut().zip(b).for_each(|(a, b)| *a |= b);
    }

    /// `a &= b`.
    fn and_assign(a: &mut [u64], b: &[u64]) {
        a.iter_mut().zip(b).for_each(|(a, b)| *a &= b);
    }

    /// `a &= !b`.
    fn andnot_assign(a: &mut [u64], b: &[u64]) {
        a.iter_mut().zip(b).for_each(|(a, b)| *a &= !b);
    }

    /// `a ^= b`.
    fn xor_assign(a: &mut [u64], b: &[u64]) {
        a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    }

    /// `a |= b`, and how many bits that leaves set.
    fn or_assign_weight(a: &mut [u64], b: &[u64]) -> u32 {
        a.iter_mut().zip(b).map(|(a, b)| {
            *a |= b;
            u64::from(a.count_ones())
        }).sum::<u64>() as u32
    }

    /// How many bits are set.
    fn weight(a: &[u64]) -> u32 {
        a.iter().map(|a| u64::from(a.count_ones())).sum::<u64>() as u32
    }

    /// How many bits of `a & b` are set.
    fn weight_and(a: &[u64], b: &[u64]) -> u32 {
        a.iter().zip(b).map(|(a, b)| u64::from((a & b).count_ones())).sum::<u64>() as u32
    }

    /// How many bits of `a & !b` are set.
    fn weight_andnot(a: &[u64], b: &[u64]) -> u32 {
        a.iter().zip(b).map(|(a, b)| u64::from((a & !b).count_ones())).sum::<u64>() as u32
    }

    /// Whether a bit is set in both.
    fn intersects(a: &[u64], b: &[u64]) -> bool {
        a.chunks(SHORT).zip(b.chunks(SHORT)).any(|(a, b)| a.iter().zip(b).fold(0, |any, (a, b)| any | a & b) != 0)
    }

    /// Whether a bit of `a` is not set in `b`.
    fn exceeds(a: &[u64], b: &[u64]) -> bool {
        a.chunks(SHORT).zip(b.chunks(SHORT)).any(|(a, b)| a.iter().zip(b).fold(0, |any, (a, b)| any | a & !b) != 0)
    }

    /// The numbers of the set bits, ascending; `to` has room for as many as there are.
    fn numbers(a: &[u64], to: &mut [u16]) {
        let mut at = 0;
        for (nr, &word) in a.iter().enumerate() {
            let base = (nr * 64) as u16;
            if word == u64::MAX {
                to[at..at + 64].iter_mut().zip(base..).for_each(|(to, number)| *to = number);
                at += 64;
                continue;
            }
            let mut rest = word;
            while rest != 0 {
                to[at] = base + rest.trailing_zeros() as u16;
                at += 1;
                rest &= rest - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(words: &[u64]) -> Vec<bool> {
        words.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 != 0)).collect()
    }

    fn count(bits: &[bool]) -> u32 {
        bits.iter().map(|&bit| u32::from(bit)).sum()
    }

    /// Words that are often empty or full.
    fn a_word() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), (0..64).prop_map(|bit| 1u64 << bit)]
    }

    proptest! {
        #[test]
        fn wide_loops_do_what_bits_do((a, b) in (0..150usize).prop_flat_map(|n| {
            (prop::collection::vec(a_word(), n), prop::collection::vec(a_word(), n))
        })) {
            type New = fn(&[u64], &[u64]) -> Vec<u64>;
            type Assign = fn(&mut [u64], &[u64]);
            type Op = fn(bool, bool) -> bool;
            let news: [(New, Assign, Op); 4] = [
                (or, or_assign, |a, b| a | b),
                (and, and_assign, |a, b| a & b),
                (andnot, andnot_assign, |a, b| a && !b),
                (xor, xor_assign, |a, b| a ^ b),
            ];
            for (make, assign, op) in news {
                let expected: Vec<bool> = bits(&a).into_iter().zip(bits(&b)).map(|(a, b)| op(a, b)).collect();
                prop_assert_eq!(bits(&make(&a, &b)), &expected[..]);
                let mut changed = a.clone();
                assign(&mut changed, &b);
                prop_assert_eq!(bits(&changed), expected);
            }
            prop_assert_eq!(weight(&a), count(&bits(&a)));
            prop_assert_eq!(weight_and(&a, &b), count(&bits(&and(&a, &b))));
            prop_assert_eq!(weight_andnot(&a, &b), count(&bits(&andnot(&a, &b))));
            let mut joined = a.clone();
            prop_assert_eq!(or_assign_weight(&mut joined, &b), count(&bits(&or(&a, &b))));
            prop_assert_eq!(&joined, &or(&a, &b));
            prop_assert_eq!(intersects(&a, &b), bits(&and(&a, &b)).contains(&true));
            prop_assert_eq!(exceeds(&a, &b), bits(&andnot(&a, &b)).contains(&true));
            let mut found = vec![0; weight(&a) as usize];
            numbers(&a, &mut found);
            let expected: Vec<u16> = (0..).zip(bits(&a)).filter_map(|(nr, bit)| bit.then_some(nr)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
