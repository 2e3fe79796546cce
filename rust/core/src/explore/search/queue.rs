//! A frontier: states in blocks, so that what was expanded is given back while the rest is worked on.

use std::collections::VecDeque;

/// States of one block.
pub(super) const BLOCK: usize = 4096;

/// First in, first out, by blocks.
pub(super) struct Queue<S> {
    blocks: VecDeque<Vec<S>>,
    len: usize,
}

impl<S: Copy> Queue<S> {
    pub(super) const fn new() -> Self {
        Self { blocks: VecDeque::new(), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn push(&mut self, state: S) {
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK => block.push(state),
            _ => {
                // The first block grows from little, for small models; the others are filled nearly always.
                let capacity = if self.blocks.is_empty() { 64 } else { BLOCK };
                let mut block = Vec::with_capacity(capacity);
                block.push(state);
                self.blocks.push_back(block);
            }
        }
        self.len += 1;
    }

    pub(super) fn pop_block(&mut self) -> Option<Vec<S>> {
        let block = self.blocks.pop_front()?;
        self.len -= block.len();
        Some(block)
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.capacity() * size_of::<S>()).sum()
    }
}
