//! Streams of which next to nothing hits the first level: only the second is looked into, access by access.
//!
//! While nothing hits the first level, each access comes to both levels and takes the first place in both. Fewer pages
//! came to a page's set of the second level than to its set of the first, since that has all of them and more. So what
//! the second level does not hold, the first does not either, and of what it holds the first can have only the pages in
//! the first few places. For those the accesses before tell whether the first level has them: the latest of its set, as
//! many as it has ways. If so, the stretch is over; else the first level's sets are made of its latest accesses at the end.

use super::FastCpu;
use super::dense::Misses;
use super::key::{EMPTY, Key, context, context_of};
use super::packed;
use super::stlb::PACKED_ADDRESS_BITS;
use crate::addr::PageSize;

/// Fewer accesses than these are not worth it.
pub(super) const MIN_ACCESSES: usize = 1 << 6;

/// Accesses up to the first that hits the first level; returns how many. None are done if the machine is not one of which
/// the above is true, or it is not true now.
pub(super) fn access(cpu: &mut FastCpu, addresses: &[u64]) -> usize {
    let Some(size) = cpu.pages.only() else { return 0 };
    let context = context(cpu.pcid, size);
    if !takes(cpu, size) {
        return 0;
    }
    cpu.drain_kept();
    let array = cpu.l1.array(size);
    let (ways, mask, shift) = (array.ways(), array.nr_sets() as u64 - 1, size.shift());
    if !cpu.is_in_order && !is_in_order(cpu, size) {
        return 0;
    }
    let sets = array.keys();
    // Whether the first level has the page of an access that the second has in a place among the first.
    let hits_first = |at: usize| {
        let number = addresses[at] >> shift;
        let mut room = ways;
        for before in addresses[..at].iter().rev().map(|address| address >> shift) {
            if (before ^ number) & mask == 0 {
                if before == number {
                    return true;
                }
                room -= 1;
                if room == 0 {
                    return false;
                }
            }
        }
        let set = &sets[(number & mask) as usize * ways..][..ways];
        set[..room].contains(&(context | number))
    };
    cpu.walks.clear();
    let Some((lines, nr_ways, packing)) = cpu.stlb.packed_lines(context_of(context)) else { return 0 };
    let mut out = Misses::behind(&mut cpu.walks, addresses.len());
    let stream = packed::Scattered { context, shift, last: (1 << (PACKED_ADDRESS_BITS - shift)) - 1, nr_first: ways };
    let nr_done = packed::access_scattered(lines, nr_ways, addresses, packing, stream, &mut out, &hits_first);
    out.keep();
    cpu.l1.take_newest(size, context, &addresses[..nr_done]);
    cpu.is_in_order = true;
    cpu.counts.nr_accesses += nr_done as u64;
    cpu.counts.nr_l1_misses += nr_done as u64;
    cpu.count_walks();
    nr_done
}

fn takes(cpu: &FastCpu, size: PageSize) -> bool {
    let array = cpu.l1.array(size);
    let enough_sets = array.nr_sets_if_masked().is_some_and(|nr_sets| {
        cpu.stlb.can_split(cpu.pcid, size) && cpu.stlb.nr_sets_if_masked(size).is_some_and(|others| others >= nr_sets)
    });
    enough_sets && array.is_lru() && array.ways() <= cpu.stlb.ways()
}

/// Whether each page of the first level stands in the second too, in no later place of its set. A stretch without hits
/// keeps it so.
fn is_in_order(cpu: &FastCpu, size: PageSize) -> bool {
    let array = cpu.l1.array(size);
    array.keys().chunks_exact(array.ways()).all(|set| {
        let mut places = set.iter().enumerate().filter(|&(_, &key)| key != EMPTY);
        places.all(|(place, &key)| cpu.stlb.place_if_packed(Key(key)).is_some_and(|other| other <= place))
    })
}
