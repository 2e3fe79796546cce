//! The memory of tables: address space, backed where it is touched.
//!
//! What a large search had in huge pages is kept for the next one, of which a run of many searches has some all the time: the
//! kernel clears a page that it hands out, and may have to move others together for it first, which takes a good part of a
//! search. It may take what is kept whenever it needs memory (MADV_FREE).

use std::sync::{Mutex, PoisonError};

use memmap2::{MmapMut, MmapOptions};
#[cfg(target_os = "linux")]
use memmap2::{RemapOptions, UncheckedAdvice};

/// Of so many searches memory is kept, as threads have a table each,
const MOST_KEPT: usize = 2;
/// and of each at most so many bytes.
const MOST_BYTES: usize = 128 << 20;
/// A multiple of all sizes of pages: what is left of a page that a shorter map ends in stays there.
#[cfg(target_os = "linux")]
const PAGE: usize = 64 << 10;

/// Memory of searches that are over.
static KEPT: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

/// A map; what is asked for with [`Memory::zero`] before it is used is zero.
pub(super) struct Memory {
    map: MmapMut,
    /// Bytes from the start on that may hold what an earlier search left.
    left_bytes: usize,
    is_huge: bool,
}

impl Memory {
    /// Kept memory, or address space for as many of `bytes` as the system gives, at least `least`.
    pub(super) fn new(bytes: usize, least: usize) -> Option<Self> {
        Self::kept(bytes).or_else(|| Some(Self { map: reserve(bytes, least)?, left_bytes: 0, is_huge: false }))
    }

    /// New address space that is backed by huge pages, if the system has them.
    #[cfg(target_os = "linux")]
    pub(super) fn huge(bytes: usize, least: usize) -> Option<Self> {
        let map = reserve(bytes, least)?;
        // Advice: a kernel without huge pages refuses, and the table works without.
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Self { map, left_bytes: 0, is_huge: true })
    }

    #[cfg(target_os = "linux")]
    fn kept(bytes: usize) -> Option<Self> {
        let mut memory = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        if memory.len() != bytes {
            // SAFETY: nobody has a pointer into it; a private map without a file can have any length.
            unsafe { memory.map.remap(bytes, RemapOptions::new().may_move(true)) }.ok()?;
            memory.left_bytes = memory.left_bytes.min(bytes.next_multiple_of(PAGE));
        }
        Some(memory)
    }

    #[cfg(not(target_os = "linux"))]
    const fn kept(_bytes: usize) -> Option<Self> {
        None
    }

    /// Gives it back after a search that used this many bytes from the start on.
    pub(super) fn give_back(mut self, used_bytes: usize) {
        self.left_bytes = self.left_bytes.max(used_bytes);
        #[cfg(target_os = "linux")]
        if self.is_huge && self.left_bytes <= MOST_BYTES {
            // SAFETY: nobody has a pointer into it; nobody reads what may be gone before it is written again (`zero`).
            let is_free =
                unsafe { self.map.unchecked_advise_range(UncheckedAdvice::Free, 0, used_bytes.min(self.map.len())) };
            let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
            if is_free.is_ok() && kept.len() < MOST_KEPT {
                kept.push(self);
            }
        }
    }

    /// Makes a part zero before it is used, if it may not be.
    pub(super) fn zero(&mut self, from: usize, to: usize) {
        let end = to.min(self.left_bytes);
        if from < end {
            self.map[from..end].fill(0);
        }
    }

    pub(super) const fn is_huge(&self) -> bool {
        self.is_huge
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.map.as_ptr()
    }

    #[inline]
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}

/// Address space, zeroed.
fn reserve(mut bytes: usize, least: usize) -> Option<MmapMut> {
    loop {
        match MmapOptions::new().len(bytes).no_reserve_swap().map_anon() {
            Ok(map) => return Some(map),
            // A system that promises no more memory than it has refuses large reservations.
            Err(_) if bytes > least => bytes = (bytes / 2).max(least),
            Err(_) => return None,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn kept_memory_is_zero_where_it_is_asked_to_be() {
        const LEFT: usize = 8 << 20;
        let mut memory = Memory::huge(64 << 20, LEFT).unwrap();
        memory.map[..LEFT].fill(0xff);
        memory.give_back(LEFT);
        // Other tests take and give at the same time: this one may be any, or new.
        let mut again = Memory::new(32 << 20, LEFT).unwrap();
        assert_eq!(again.len(), 32 << 20);
        let half = LEFT / 2;
        again.zero(0, half);
        assert!(again.map[..half].iter().all(|&byte| byte == 0));
        again.zero(half, 32 << 20);
        assert!(again.map.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_map_that_was_shorter_keeps_nothing_behind_its_end() {
        // Others may take it in between: then there is nothing to see.
        for odd in [1, 4095, 4097, 70_001] {
            let mut memory = Memory::huge(16 << 20, 1).unwrap();
            memory.map[..4 << 20].fill(0xff);
            memory.give_back(4 << 20);
            Memory::new((2 << 20) + odd, 1).unwrap().give_back(0);
            let mut longer = Memory::new(16 << 20, 1).unwrap();
            longer.zero(0, 16 << 20);
            assert!(longer.map.iter().all(|&byte| byte == 0), "{odd}");
        }
    }

    #[test]
    fn small_and_very_large_memory_is_not_kept() {
        Memory { map: reserve(1 << 20, 1 << 20).unwrap(), left_bytes: 0, is_huge: false }.give_back(4096);
        Memory::huge(1 << 30, 1 << 30).unwrap().give_back(MOST_BYTES + 1);
        let kept = KEPT.lock().unwrap();
        assert!(kept.len() <= MOST_KEPT && kept.iter().all(|memory| memory.is_huge && memory.left_bytes <= MOST_BYTES));
    }
}
