//! Several threads for one stream, with the counts of one.
//!
//! A round is cut into as many parts as there are threads. Each runs the first level over its part; all but the first
//! begin with empty sets, and what misses while a set is not full may be a hit in truth. Under LRU a set that took as
//! many pages as it has ways holds just those, whatever it held before; until then its pages stand before those that
//! it held, less the ones used since. So [`FirstLevel::stitch`] needs the sets of the part before and the misses up to
//! the moment when all sets are full, which are few.
//!
//! The second level is cut by sets where that can be: then each thread takes all misses of its sets, in order.

use std::panic::resume_unwind;
use std::thread;

use super::by_set;
use super::key::Key;
use super::l1::FirstLevel;
use super::stlb::{PACKED_ADDRESS_BITS, Slice};
use super::{BLOCK, FastCpu};
use crate::tlb_trace::walker::ADDRESS_BITS;

/// Accesses of one part. Misses of a part are kept, so parts are shorter where nearly all miss.
const PART: usize = 1 << 21;
const RANDOM_PART: usize = 1 << 19;
/// Below this a thread costs more than it saves.
const MIN_PART: usize = 1 << 16;

/// Fewer misses than these are not worth threads in the second level.
const MIN_MISSES: usize = 1 << 16;

/// What the first level made of a part. Kept from one round to the next, since memory that is new costs more than the
/// misses that are written to it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    l1: FirstLevel,
    /// The misses up to the moment when all sets are full.
    head: Vec<u64>,
    /// Those after it, by the group of their set in the second level.
    body: Vec<Vec<u64>>,
    /// The bits of all addresses.
    bits: u64,
}

impl Part {
    fn nr_misses(&self) -> usize {
        self.head.len() + self.body.iter().map(Vec::len).sum::<usize>()
    }
}

/// Whether a stretch of accesses is worth several threads; the first level must be one that can be stitched.
pub(super) fn is_worth(cpu: &FastCpu, addresses: &[u64], nr_threads: usize) -> bool {
    nr_threads > 1 && addresses.len() >= nr_threads * MIN_PART && cpu.l1.is_lru()
}

/// One round of accesses from the front of `addresses`; returns how many were done. That is none if an address is one
/// that only a look at each can handle.
pub(super) fn access(cpu: &mut FastCpu, addresses: &[u64], nr_threads: usize) -> usize {
    if let Some(size) = by_set::takes(cpu, nr_threads) {
        let addresses = &addresses[..addresses.len().min(PART)];
        return if by_set::access(cpu, size, addresses, nr_threads) { addresses.len() } else { 0 };
    }
    let part = if cpu.l1.is_random() { RANDOM_PART } else { PART }.min(addresses.len().div_ceil(nr_threads));
    let addresses = &addresses[..addresses.len().min(part * nr_threads)];
    let only = cpu.pages.only().filter(|&size| !cpu.walker.has_caches() && cpu.stlb.can_split(cpu.pcid, size));
    let nr_groups = if only.is_some() { nr_threads } else { 1 };
    let mut parts = std::mem::take(&mut cpu.parts);
    let empty = || Part { l1: cpu.l1.clone(), head: Vec::new(), body: Vec::new(), bits: 0 };
    parts.resize_with(addresses.len().div_ceil(part), empty);
    let runs = parts.iter_mut().zip(addresses.chunks(part)).enumerate();
    let shared = &*cpu;
    in_threads(runs.map(|(index, (part, addresses))| move || first_level(shared, part, index, addresses, nr_groups)));
    let bits = parts.iter().fold(0, |bits, part| bits | part.bits);
    if bits >> ADDRESS_BITS != 0 || nr_groups > 1 && bits >> PACKED_ADDRESS_BITS != 0 {
        return 0;
    }

    cpu.is_in_order = false;
    // Each part comes after the one before it.
    for (index, part) in parts.iter_mut().enumerate() {
        if index == 0 {
            std::mem::swap(&mut cpu.l1, &mut part.l1);
        } else {
            cpu.l1.stitch(&part.l1, &mut part.head);
        }
    }
    cpu.counts.nr_accesses += addresses.len() as u64;
    if let Some(size) = only {
        let nr_misses = parts.iter().map(Part::nr_misses).sum::<usize>();
        let slices = cpu.stlb.split(cpu.pcid, size, nr_groups).into_iter().enumerate();
        let runs = slices.map(|(group, slice)| {
            let parts = &parts;
            move || second_level(slice, parts, group)
        });
        let nr_walks: u64 =
            if nr_misses < MIN_MISSES { runs.map(|run| run()).sum() } else { in_threads(runs).into_iter().sum() };
        cpu.counts.nr_l1_misses += nr_misses as u64;
        cpu.walker.walk_many(nr_walks, size, &mut cpu.counts);
    } else {
        for part in &parts {
            cpu.drain(&part.head);
            cpu.drain(&part.body[0]);
        }
    }
    cpu.parts = parts;
    addresses.len()
}

/// Runs each in a thread, the first in this one; what they return, in order.
pub(super) fn in_threads<T: Send>(runs: impl Iterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    let mut runs = runs.fuse();
    let Some(first) = runs.next() else { return Vec::new() };
    thread::scope(|scope| {
        let threads: Vec<_> = runs.map(|run| scope.spawn(run)).collect();
        let mut all = vec![first()];
        all.extend(threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))));
        all
    })
}

/// The first level over a part.
fn first_level(cpu: &FastCpu, part: &mut Part, index: usize, addresses: &[u64], nr_groups: usize) {
    let Part { l1, head, body, bits } = part;
    l1.clone_from(&cpu.l1);
    if index > 0 {
        l1.flush_all();
    }
    head.clear();
    body.resize(nr_groups, Vec::new());
    body.iter_mut().for_each(Vec::clear);
    *bits = 0;
    let mut is_full = index == 0;
    let mut misses = Vec::with_capacity(BLOCK + 1);
    for block in addresses.chunks(BLOCK) {
        *bits |= if !is_full {
            let bits = l1.access(&cpu.pages, cpu.pcid, block, head);
            is_full = l1.is_full(&cpu.pages);
            bits
        } else if nr_groups == 1 {
            l1.access(&cpu.pages, cpu.pcid, block, &mut body[0])
        } else {
            misses.clear();
            let bits = l1.access(&cpu.pages, cpu.pcid, block, &mut misses);
            cpu.stlb.group(&misses, body);
            bits
        };
    }
}

/// The second level over the misses of its sets in all parts; how many miss there too.
fn second_level(mut slice: Slice<'_>, parts: &[Part], group: usize) -> u64 {
    let mut head = Vec::new();
    for part in parts {
        head.clear();
        head.extend(part.head.iter().copied().filter(|&key| slice.has(Key(key))));
        slice.access(&head);
        slice.access(&part.body[group]);
    }
    slice.nr_misses()
}
