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

use super::key::Key;
use super::l1::FirstLevel;
use super::stlb::{PACKED_ADDRESS_BITS, Slice};
use super::{BLOCK, FastCpu};
use crate::addr::PageSize;
use crate::tlb_trace::walker::ADDRESS_BITS;

/// Accesses of one part. Misses of a part are kept, so parts are shorter where nearly all miss.
const PART: usize = 1 << 21;
const RANDOM_PART: usize = 1 << 19;
/// Below this a thread costs more than it saves.
const MIN_PART: usize = 1 << 16;

/// What the first level made of a part.
struct Part {
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
    let part = if cpu.l1.is_random() { RANDOM_PART } else { PART }.min(addresses.len().div_ceil(nr_threads));
    let addresses = &addresses[..addresses.len().min(part * nr_threads)];
    let only = cpu.pages.only().filter(|&size| !cpu.walker.has_caches() && cpu.stlb.can_split(cpu.pcid, size));
    let nr_groups = if only.is_some() { nr_threads } else { 1 };
    let mut parts = first_level(cpu, addresses, part, nr_groups);
    let bits = parts.iter().fold(0, |bits, part| bits | part.bits);
    if bits >> ADDRESS_BITS != 0 || nr_groups > 1 && bits >> PACKED_ADDRESS_BITS != 0 {
        return 0;
    }

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
        let nr_misses: usize = parts.iter().map(Part::nr_misses).sum();
        let nr_walks = second_level(cpu, &parts, size, nr_groups);
        cpu.counts.nr_l1_misses += nr_misses as u64;
        cpu.walker.walk_many(nr_walks, size, &mut cpu.counts);
    } else {
        for part in &parts {
            cpu.drain(&part.head);
            cpu.drain(&part.body[0]);
        }
    }
    addresses.len()
}

/// The second level over all misses, each group of sets in a thread of its own; how many miss there too.
fn second_level(cpu: &mut FastCpu, parts: &[Part], size: PageSize, nr_groups: usize) -> u64 {
    let run = |group: usize, mut slice: Slice<'_>| {
        let mut head = Vec::new();
        for part in parts {
            head.clear();
            head.extend(part.head.iter().copied().filter(|&key| slice.has(Key(key))));
            slice.access(&head);
            slice.access(&part.body[group]);
        }
        slice.nr_misses()
    };
    let run = &run;
    let slices = cpu.stlb.split(cpu.pcid, size, nr_groups);
    thread::scope(|scope| {
        let threads: Vec<_> =
            slices.into_iter().enumerate().map(|(group, slice)| scope.spawn(move || run(group, slice))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).sum()
    })
}

/// The first level over the parts, each in a thread of its own.
fn first_level(cpu: &FastCpu, addresses: &[u64], part: usize, nr_groups: usize) -> Vec<Part> {
    let (pages, pcid, stlb) = (&cpu.pages, cpu.pcid, &cpu.stlb);
    let run = |index: usize, addresses: &[u64]| {
        let mut l1 = cpu.l1.clone();
        if index > 0 {
            l1.flush_all();
        }
        let mut made = Part { l1, head: Vec::new(), body: vec![Vec::new(); nr_groups], bits: 0 };
        let mut is_full = index == 0;
        let mut misses = Vec::with_capacity(BLOCK + 1);
        for block in addresses.chunks(BLOCK) {
            made.bits |= if !is_full {
                let bits = made.l1.access(pages, pcid, block, &mut made.head);
                is_full = made.l1.is_full(pages);
                bits
            } else if nr_groups == 1 {
                made.l1.access(pages, pcid, block, &mut made.body[0])
            } else {
                misses.clear();
                let bits = made.l1.access(pages, pcid, block, &mut misses);
                stlb.group(&misses, &mut made.body);
                bits
            };
        }
        made
    };
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> = addresses
            .chunks(part)
            .enumerate()
            .map(|(index, addresses)| scope.spawn(move || run(index, addresses)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}
