//! A set of CPUs as a log keeps it: most are empty, one CPU or low numbers, and those take no heap memory.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::cpumask::{CpuId, CpuMask};

/// A set of CPUs that does not change any more. Sets of the same CPUs are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LoggedMask(Form);

/// The first form that fits is the one taken, so that equal sets have equal forms.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    /// CPUs below 64, as bits.
    Low(u64),
    /// One CPU.
    One(CpuId),
    /// Several CPUs, as the words of a mask without zeros at the end.
    Words(Box<[u64]>),
}

impl Default for LoggedMask {
    fn default() -> Self {
        Self(Form::Low(0))
    }
}

impl LoggedMask {
    /// A set of one CPU.
    #[inline]
    pub fn one(cpu: CpuId) -> Self {
        Self(if cpu.0 < 64 { Form::Low(1 << cpu.0) } else { Form::One(cpu) })
    }

    /// The set of `cpus`, in any order.
    pub(super) fn from_cpus(cpus: &[CpuId]) -> Self {
        match cpus {
            [] => Self::default(),
            [cpu] => Self::one(*cpu),
            _ => {
                let highest = cpus.iter().copied().max().unwrap_or_default();
                if highest.0 < 64 {
                    return Self(Form::Low(cpus.iter().fold(0, |bits, cpu| bits | 1 << cpu.0)));
                }
                let mut words = vec![0; highest.index() / 64 + 1];
                for cpu in cpus {
                    words[cpu.index() / 64] |= 1 << (cpu.index() % 64);
                }
                Self(Form::Words(words.into_boxed_slice()))
            }
        }
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> {
        let (words, one) = match &self.0 {
            Form::Low(bits) => (std::slice::from_ref(bits), None),
            Form::One(cpu) => (&[][..], Some(*cpu)),
            Form::Words(words) => (&**words, None),
        };
        let bits = |(at, &word): (usize, &u64)| {
            let lowest = |rest: u64| (rest != 0).then_some(rest);
            std::iter::successors(lowest(word), move |rest| lowest(rest & (rest - 1)))
                .map(move |rest| CpuId(at as u16 * 64 + rest.trailing_zeros() as u16))
        };
        words.iter().enumerate().flat_map(bits).chain(one)
    }

    /// How many CPUs there are.
    pub fn weight(&self) -> u32 {
        match &self.0 {
            Form::Low(bits) => bits.count_ones(),
            Form::One(_) => 1,
            Form::Words(words) => words.iter().map(|word| word.count_ones()).sum(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == Form::Low(0)
    }

    /// Whether `cpu` is among them.
    pub fn test(&self, cpu: CpuId) -> bool {
        match &self.0 {
            Form::Low(bits) => cpu.0 < 64 && bits >> cpu.0 & 1 != 0,
            Form::One(one) => *one == cpu,
            Form::Words(words) => words.get(cpu.index() / 64).is_some_and(|word| word >> (cpu.0 % 64) & 1 != 0),
        }
    }

    /// The words of a mask that holds the set, without zeros at the end: 64 CPUs a word, the lowest in the lowest bit.
    pub fn words(&self) -> Vec<u64> {
        match &self.0 {
            Form::Low(0) => Vec::new(),
            Form::Low(bits) => vec![*bits],
            Form::One(cpu) => {
                let mut words = vec![0; cpu.index() / 64 + 1];
                words[cpu.index() / 64] = 1 << (cpu.0 % 64);
                words
            }
            Form::Words(words) => words.to_vec(),
        }
    }
}

impl From<&CpuMask> for LoggedMask {
    fn from(mask: &CpuMask) -> Self {
        let words = mask.words();
        let Some(last) = words.iter().rposition(|&word| word != 0) else {
            return Self::default();
        };
        if last == 0 {
            return Self(Form::Low(words[0]));
        }
        match mask.first() {
            Some(cpu) if mask.weight() == 1 => Self(Form::One(cpu)),
            _ => Self(Form::Words(words[..=last].into())),
        }
    }
}

impl fmt::Display for LoggedMask {
    /// The kernel's list form, `0-3,8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().map(|cpu| cpu.0).peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.next_if(|&cpu| cpu == last + 1).is_some() {
                last += 1;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for LoggedMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl Serialize for LoggedMask {
    /// As text in list form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_mask_it_was_made_of(cpus in proptest::collection::btree_set(0..300_u16, 0..6)) {
            let cpus: Vec<_> = cpus.into_iter().map(CpuId).collect();
            let mask = CpuMask::from_cpus(300, cpus.iter().copied()).unwrap();
            let logged = LoggedMask::from(&mask);
            prop_assert_eq!(&logged, &LoggedMask::from_cpus(&cpus));
            prop_assert_eq!(logged.iter().collect::<Vec<_>>(), cpus);
            prop_assert_eq!(logged.weight(), mask.weight());
            prop_assert_eq!(logged.is_empty(), mask.is_empty());
            prop_assert_eq!(logged.to_string(), mask.to_string());
            prop_assert!((0..300).map(CpuId).all(|cpu| logged.test(cpu) == mask.test(cpu)));
            let mut words = logged.words();
            prop_assert!(words.last() != Some(&0));
            words.resize(mask.words().len(), 0);
            prop_assert_eq!(words, mask.words());
        }
    }

    #[test]
    fn a_log_entry_stays_small() {
        assert!(size_of::<LoggedMask>() <= 24);
    }
}
