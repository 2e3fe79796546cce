//! What happens between accesses: a switch of PCID, a flush, an invalidation.

use crate::tlb::NR_PCIDS;

/// What an event does to the TLBs of its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventKind {
    /// Later accesses are those of a PCID; nothing is dropped (a CR3 write with the no-flush bit).
    Switch(u16),
    /// Everything of a PCID is dropped (a CR3 write without that bit, INVPCID type 1).
    FlushPcid(u16),
    /// Everything of the current PCID is dropped.
    FlushCurrent,
    /// Everything is dropped (INVPCID type 2).
    FlushAll,
    /// The translations of an address that a PCID has, and the paging-structure entries that go with them (INVLPG,
    /// INVPCID type 0).
    Invalidate {
        /// The PCID.
        pcid: u16,
        /// The address, in bytes.
        address: u64,
    },
    /// The same for the current PCID.
    InvalidateCurrent(u64),
}

impl EventKind {
    /// The PCID that the event names, if it names one.
    pub(super) const fn pcid(self) -> Option<u16> {
        match self {
            Self::Switch(pcid) | Self::FlushPcid(pcid) | Self::Invalidate { pcid, .. } => Some(pcid),
            Self::FlushCurrent | Self::FlushAll | Self::InvalidateCurrent(_) => None,
        }
    }

    /// The address that the event names, if it names one.
    pub(super) const fn address(self) -> Option<u64> {
        match self {
            Self::Invalidate { address, .. } | Self::InvalidateCurrent(address) => Some(address),
            _ => None,
        }
    }

    /// Whether the PCID, if there is one, has at most 12 bits.
    pub(super) fn is_valid(self) -> bool {
        self.pcid().is_none_or(|pcid| pcid < NR_PCIDS)
    }
}

/// An event and its place in a stream of accesses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Event {
    /// It comes before the access of this number; those at one place keep their order.
    pub at: u64,
    /// What it does.
    pub kind: EventKind,
}
