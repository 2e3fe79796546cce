//! Several threads for one stream in which nearly every access misses, with the counts of one: each takes the pages whose
//! numbers end in bits of its own. Those go to sets of their own in both levels, so nothing is shared, and no miss leaves
//! the thread that found it. Every thread reads all addresses, which costs little beside the misses.

use super::packed;
use super::shared::in_threads;
use super::{BLOCK, FastCpu};
use crate::addr::PageSize;
use crate::tlb_trace::cpu::Counts;

/// The page size, if a stream can be shared so: one size, sets that the page number's low bits select, walks that
/// do not depend on each other, and misses enough.
pub(super) fn takes(cpu: &FastCpu, nr_threads: usize) -> Option<PageSize> {
    let size = cpu.pages.only()?;
    let enough_sets = |nr_sets: Option<usize>| nr_sets.is_some_and(|nr_sets| nr_sets >= nr_threads);
    let can = nr_threads.is_power_of_two()
        && cpu.l1.is_random()
        && !cpu.walker.has_caches()
        && enough_sets(cpu.l1.array(size).nr_sets_if_masked())
        && enough_sets(cpu.stlb.nr_sets_if_masked(size));
    can.then_some(size)
}

/// Accesses to pages of the size that [`takes`] gave; false, and nothing happened, if one is no address.
pub(super) fn access(cpu: &mut FastCpu, size: PageSize, addresses: &[u64], nr_threads: usize) -> bool {
    let shared = &*cpu;
    let run = |group: usize| {
        let mut mine = FastCpu { counts: Counts::default(), ..shared.clone() };
        let (low_bits, shift) = (nr_threads - 1, size.shift());
        let mut kept = Vec::with_capacity(BLOCK + packed::COMPRESSED_AT_ONCE);
        let mut is_fine = true;
        for block in addresses.chunks(BLOCK) {
            kept.clear();
            packed::keep_if(block, &mut kept, shift, low_bits as u64, group as u64);
            is_fine &= mine.access_alone(&kept).is_ok();
        }
        (mine, is_fine)
    };
    let run = &run;
    let done = in_threads((0..nr_threads).map(|group| move || run(group)));
    if !done.iter().all(|&(_, is_fine)| is_fine) {
        return false;
    }
    cpu.is_in_order = false;
    for (group, (theirs, _)) in done.iter().enumerate() {
        let is_theirs = |set: usize| set & (nr_threads - 1) == group;
        cpu.l1.take_sets(&theirs.l1, size, is_theirs);
        cpu.stlb.take_sets(&theirs.stlb, size, is_theirs);
        cpu.counts += theirs.counts;
    }
    true
}
