//! A frontier: states in blocks, so that what was expanded is given back while the rest is worked on.

use std::collections::VecDeque;

/// States of one block.
pub(super) const BLOCK: usize = 4096;

/// First in, first out, by blocks.
pub(super) struct Queue<S> {
    blocks: VecDeque<Vec<S>>,
    len: usize,
    /// States for which the blocks have room.
    capacity: usize,
}

impl<S: Copy> Queue<S> {
    pub(super) const fn new() -> Self {
        Self { blocks: VecDeque::new(), len: 0, capacity: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds states behind all others.
    pub(super) fn extend(&mut self, mut states: &[S]) {
        self.len += states.len();
        while !states.is_empty() {
            let block = match self.blocks.back_mut() {
                Some(block) if block.len() < BLOCK => block,
                _ => {
                    // The first block grows from little, for small models; the others are filled nearly always.
                    let capacity = if self.blocks.is_empty() { 64 } else { BLOCK };
                    self.blocks.push_back(Vec::with_capacity(capacity));
                    self.capacity += capacity;
                    continue;
                }
            };
            let (now, rest) = states.split_at(states.len().min(BLOCK - block.len()));
            self.capacity -= block.capacity();
            block.extend_from_slice(now);
            self.capacity += block.capacity();
            states = rest;
        }
    }

    pub(super) fn pop_block(&mut self) -> Option<Vec<S>> {
        let block = self.blocks.pop_front()?;
        self.len -= block.len();
        self.capacity -= block.capacity();
        Some(block)
    }

    /// Bytes of its states; asked for with every batch, so that blocks are not gone through.
    pub(super) const fn bytes(&self) -> usize {
        self.capacity * size_of::<S>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_is_accounted_for() {
        let mut queue = Queue::new();
        let (mut next_in, mut next_out) = (0_u64, 0);
        for round in 0..40 {
            let more: Vec<u64> = (next_in..).take(round * 700 % 9000).collect();
            next_in += more.len() as u64;
            let (some, rest) = more.split_at(more.len() / 3);
            queue.extend(some);
            queue.extend(rest);
            let held: usize = queue.blocks.iter().map(Vec::capacity).sum();
            assert_eq!((queue.len(), queue.bytes()), ((next_in - next_out) as usize, held * size_of::<u64>()));
            if round % 3 == 0 {
                for state in queue.pop_block().unwrap_or_default() {
                    assert_eq!(state, next_out);
                    next_out += 1;
                }
            }
        }
        while let Some(block) = queue.pop_block() {
            next_out += block.len() as u64;
        }
        assert!(queue.is_empty() && next_in == next_out);
        assert_eq!(queue.bytes(), 0);
    }
}
