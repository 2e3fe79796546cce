//! Replays of small recordings made by hand: which flushes they must give, to the last stride, and that no recording
//! whatever makes a replay panic.

mod exact;
mod nesting;
mod overlap;
mod random;
mod sent_order;
mod tape;
mod threads;
