//! One change to a run of entries of a PTE table, with all that is wanted to know of it, in one pass without branches.

use super::entry::Pte;
use super::entry::bits::{ACCESSED, DIRTY, PRESENT, PROTNONE};
use super::prot::Prot;
use crate::addr::Pfn;
use crate::wide::loops;

/// What a pass met and did. Places are indexes into the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Swept {
    /// Entries that were present.
    pub nr_present: u64,
    /// Entries that were present and dirty.
    pub nr_dirty: u64,
    /// Entries that were present and young.
    pub nr_young: u64,
    /// Entries that have another value now.
    pub nr_changed: u64,
    /// The first of those; all ones if there is none.
    pub first_changed: u64,
    /// The place after the last of those; 0 if there is none.
    pub end_changed: u64,
    /// Entries that were not none.
    pub nr_were_used: u64,
    /// Entries that are not none.
    pub nr_used: u64,
}

/// Each lane of a register goes its own way, so all of it is counted in words; and in locals, since the compiler does not
/// put the fields of a structure into lanes.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it has to be compiled into each of the forms")]
fn sweep(entries: &mut [Pte], change: impl Fn(u64, u64) -> u64) -> Swept {
    let (mut nr_present, mut nr_dirty, mut nr_young, mut nr_changed) = (0, 0, 0, 0);
    let (mut first_changed, mut end_changed, mut nr_were_used, mut nr_used) = (u64::MAX, 0, 0, 0);
    for (at, entry) in entries.iter_mut().enumerate() {
        let (at, old) = (at as u64, entry.0);
        let new = change(at, old);
        entry.0 = new;
        let is_present = (old >> PRESENT.trailing_zeros() | old >> PROTNONE.trailing_zeros()) & 1;
        let is_changed = u64::from(old != new);
        nr_present += is_present;
        nr_dirty += is_present & old >> DIRTY.trailing_zeros();
        nr_young += is_present & old >> ACCESSED.trailing_zeros();
        nr_changed += is_changed;
        first_changed = first_changed.min(at | is_changed.wrapping_sub(1));
        end_changed = end_changed.max((at + 1) & is_changed.wrapping_neg());
        nr_were_used += u64::from(old != 0);
        nr_used += u64::from(new != 0);
    }
    Swept { nr_present, nr_dirty, nr_young, nr_changed, first_changed, end_changed, nr_were_used, nr_used }
}

/// `new` where the entry is present, else the entry as it is.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the same")]
const fn if_present(old: u64, new: u64) -> u64 {
    let is_present = (old >> PRESENT.trailing_zeros() | old >> PROTNONE.trailing_zeros()) & 1;
    let mask = is_present.wrapping_neg();
    old & !mask | new & mask
}

loops! {
    /// Gives present entries the rights of `prot`.
    fn protect(entries: &mut [Pte], prot: Prot) -> Swept {
        sweep(entries, |_, old| if_present(old, Pte(old).modify(prot).0))
    }

    /// Empties all entries.
    fn clear(entries: &mut [Pte]) -> Swept {
        sweep(entries, |_, _| 0)
    }

    /// Takes the dirty bit of present entries.
    fn mkclean(entries: &mut [Pte]) -> Swept {
        sweep(entries, |_, old| if_present(old, old & !DIRTY))
    }

    /// Maps the entries to consecutive frames, with the rights of `prot`.
    fn map(entries: &mut [Pte], first: Pfn, prot: Prot) -> Swept {
        let template = Pte::new(Pfn(0), prot);
        sweep(entries, |at, _| template.with_pfn(Pfn(first.0.wrapping_add(at))).0)
    }

    /// Whether all entries are none.
    fn are_none(entries: &[Pte]) -> bool {
        entries.iter().fold(0, |any, entry| any | entry.0) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn an_entry() -> impl Strategy<Value = Pte> {
        let present = (any::<u64>(), any::<bool>())
            .prop_map(|(bits, hw)| Pte(bits & !(PRESENT | PROTNONE) | if hw { PRESENT } else { PROTNONE }));
        prop_oneof![3 => Just(Pte::NONE), 5 => present, 1 => (0..99u64).prop_map(Pte::swap), 1 => any::<u64>().prop_map(Pte)]
    }

    fn plain(entries: &mut [Pte], change: impl Fn(usize, Pte) -> Pte) -> Swept {
        let old = entries.to_vec();
        entries.iter_mut().enumerate().for_each(|(at, entry)| *entry = change(at, *entry));
        let count = |is: &dyn Fn(usize) -> bool| (0..old.len()).filter(|&at| is(at)).count() as u64;
        let changed = |at: usize| old[at] != entries[at];
        Swept {
            nr_present: count(&|at| old[at].is_present()),
            nr_dirty: count(&|at| old[at].is_present() && old[at].dirty()),
            nr_young: count(&|at| old[at].is_present() && old[at].young()),
            nr_changed: count(&changed),
            first_changed: (0..old.len()).find(|&at| changed(at)).map_or(u64::MAX, |at| at as u64),
            end_changed: (0..old.len()).rfind(|&at| changed(at)).map_or(0, |at| at as u64 + 1),
            nr_were_used: count(&|at| !old[at].is_none()),
            nr_used: count(&|at| !entries[at].is_none()),
        }
    }

    proptest! {
        #[test]
        fn a_pass_is_what_entries_do_one_by_one(
            entries in prop::collection::vec(an_entry(), 0..520),
            rights in 0..6usize,
            first in prop_oneof![0..1u64 << 40, any::<u64>()],
        ) {
            let prot = [Prot::NONE, Prot::READONLY, Prot::READONLY_EXEC, Prot::SHARED, Prot::SHARED_EXEC, Prot(0)][rights];
            let (mut wide, mut one) = (entries.clone(), entries.clone());
            let expected = plain(&mut one, |_, pte| if pte.is_present() { pte.modify(prot) } else { pte });
            prop_assert_eq!(protect(&mut wide, prot), expected);
            prop_assert_eq!(&wide, &one);
            let (mut wide, mut one) = (entries.clone(), entries.clone());
            let expected = plain(&mut one, |_, pte| if pte.is_present() { pte.mk_clean() } else { pte });
            prop_assert_eq!(mkclean(&mut wide), expected);
            prop_assert_eq!(&wide, &one);
            let (mut wide, mut one) = (entries.clone(), entries.clone());
            let expected = plain(&mut one, |_, _| Pte::NONE);
            prop_assert_eq!(clear(&mut wide), expected);
            prop_assert_eq!(&wide, &one);
            prop_assert!(are_none(&wide));
            let (mut wide, mut one) = (entries.clone(), entries.clone());
            let template = Pte::new(Pfn(0), prot);
            let expected = plain(&mut one, |at, _| template.with_pfn(Pfn(first.wrapping_add(at as u64))));
            prop_assert_eq!(map(&mut wide, Pfn(first), prot), expected);
            prop_assert_eq!(&wide, &one);
            prop_assert_eq!(are_none(&entries), entries.iter().all(|entry| entry.is_none()));
        }
    }
}
