//! The bound on states, shared by the threads of a search: whoever stores a state takes a token.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

/// In one word, so that they are seen together: above the tokens left, how many batches are under way.
pub(super) struct Tokens(AtomicU64);

/// One batch under way; more tokens than fit below it are never used up.
const BATCH: u64 = 1 << 48;

const fn left(word: u64) -> u64 {
    word % BATCH
}

impl Tokens {
    pub(super) fn new(states: u64) -> Self {
        Self(AtomicU64::new(states.min(BATCH - 1)))
    }

    /// Takes tokens for a batch of which some states may turn out to be known; false if there are not as many.
    pub(super) fn take_batch(&self, count: u64) -> bool {
        let taken = |word: u64| (left(word) >= count).then(|| word - count + BATCH);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, taken).is_ok()
    }

    /// Gives back what such a batch did not use.
    pub(super) fn end_batch(&self, unused: u64) {
        self.0.fetch_add(unused.wrapping_sub(BATCH), Ordering::AcqRel);
    }

    /// Takes one token; false if all are used. While other threads have batches under way, which may give some back, that is
    /// not known: this waits.
    pub(super) fn take_one(&self) -> bool {
        loop {
            let taken = |word: u64| (left(word) > 0).then(|| word - 1);
            match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken) {
                Ok(_) => return true,
                Err(word) if word < BATCH => return false,
                Err(_) => spin_loop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_batch_gives_back_is_waited_for() {
        let tokens = Tokens::new(10);
        assert!(tokens.take_batch(10));
        thread::scope(|scope| {
            let other = scope.spawn(|| (tokens.take_one(), tokens.take_one()));
            thread::sleep(Duration::from_millis(20));
            tokens.end_batch(1);
            assert_eq!(other.join().unwrap(), (true, false));
        });
    }

    #[test]
    fn tokens_are_used_up_once() {
        let tokens = Tokens::new(5);
        assert!(!tokens.take_batch(6));
        assert!(tokens.take_batch(4));
        tokens.end_batch(2);
        assert_eq!([(); 4].map(|()| tokens.take_one()), [true, true, true, false]);
        let many = Tokens::new(u64::MAX);
        assert!(many.take_batch(256) && many.take_one());
    }
}
