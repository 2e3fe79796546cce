//! What must never happen, and how a state shows that it did.
//!
//! All of it is monotone in the TLBs: with more or stronger entries, no violation disappears.

use super::KernelModel;
use super::pte;
use crate::explore::scenario::Kind as Content;

macro_rules! invariants {
    ($($(#[doc = $doc:literal])+ $variant:ident = $id:literal, $name:literal, $says:literal;)+) => {
        /// An invariant.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Invariant {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Invariant {
            /// All of them; the place in this list is the bit in a mask.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its short name, as `I4`.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$variant => $id),+ }
            }

            /// Its long name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What a violation means, in a line.
            pub const fn says(self) -> &'static str {
                match self { $(Self::$variant => $says),+ }
            }
        }
    };
}

invariants! {
    /// No CPU can use a translation to a frame that was freed.
    NoUseAfterFree = "I1", "NO-UAF", "a CPU still translates to a page that was freed";
    /// When an operation that unmaps returns, no CPU uses the old translation.
    UnmapSync = "I2", "UNMAP-SYNC", "the call has returned, a CPU still has the old translation";
    /// When an operation that write-protects returns, no CPU writes through an old entry.
    WpSync = "I3", "WP-SYNC", "the call has returned, a CPU can still write";
    /// Every store is covered by a D bit or PG_dirty that is looked at after it.
    NoLostWrite = "I4", "NO-LOST-WRITE", "data newer than storage, page and entries clean: write lost";
    /// From the start of a copy to the change of the entry no store reaches the source.
    StableCopy = "I5", "STABLE-COPY", "a store after the copy reached the old page: write lost";
    /// No walk, of the hardware or of software, reaches a page table that was freed.
    NoStaleTable = "I6", "NO-STALE-PT", "a walk can reach a page table that was freed";
    /// The map count is 0 only when no TLB can write the page.
    RmapLife = "I10", "RMAP-LIFE", "nothing maps the page by its count, a CPU can still write it";
    /// When an entry comes to map another frame, no CPU has the old one.
    OneFrame = "I12", "ONE-FRAME", "the entry maps a new page, a CPU still translates to the old one";
    /// A CPU that has come to a generation has no entry from before the change that this generation covers.
    GenSound = "I8", "GEN-SOUND", "a CPU has a generation, and an entry that is older than it";
    /// A CPU that runs the address space was told of each flush that returned, or has seen its generation.
    Coverage = "I9", "COVERAGE", "a flush has returned, a CPU that runs the mm has not heard of it";
}

impl Invariant {
    /// Its bit in a mask.
    pub const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// By `I4` or `NO-LOST-WRITE`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|i| i.id().eq_ignore_ascii_case(text) || i.name().eq_ignore_ascii_case(text))
    }

    /// Invariants that are seen at an event have a bit of their own in the state.
    pub(super) const fn event_bit(self) -> u32 {
        match self {
            Self::UnmapSync => 0,
            Self::StableCopy => 1,
            Self::NoStaleTable => 3,
            Self::RmapLife => 4,
            _ => 2,
        }
    }
}

impl<const W: usize> KernelModel<W> {
    /// Whether the invariant is asked for.
    #[inline]
    pub(super) fn checks(&self, invariant: Invariant) -> bool {
        self.checked & invariant.bit() != 0
    }

    /// A bit for each violated invariant.
    pub(super) fn violated(&self, state: &[u64; W]) -> u32 {
        if self.engine.is_some() {
            return self.violated_in_detail(state);
        }
        self.violated_by_entries(state)
    }

    #[inline]
    fn violated_by_entries(&self, state: &[u64; W]) -> u32 {
        let mut found = 0;
        for fields in &self.pages {
            if fields.unmapped.get(state) != 0 && meets(state, &fields.tlb_mask) {
                found |= Invariant::UnmapSync.bit();
            }
            if fields.protected.get(state) != 0 && meets(state, &fields.tlb_dirty_mask) {
                found |= Invariant::WpSync.bit();
            }
        }
        for (index, fields) in self.frames.iter().enumerate() {
            if fields.can_be_freed && fields.refs.get(state) == 0 && meets(state, &fields.tlb_mask) {
                found |= Invariant::NoUseAfterFree.bit();
            }
            if fields.newer.get(state) != 0 && self.is_lost(state, index) {
                found |= Invariant::NoLostWrite.bit();
            }
            if fields.content == Content::File
                && self.checks(Invariant::RmapLife)
                && fields.mapcount.get(state) == 0
                && fields.lock.get(state) == 0
                && meets(state, &fields.tlb_dirty_mask)
            {
                found |= Invariant::RmapLife.bit();
            }
        }
        if self.checks(Invariant::NoStaleTable) && self.reaches_freed_table(state) {
            found |= Invariant::NoStaleTable.bit();
        }
        let seen = self.seen.get(state) as u32;
        if seen != 0 {
            for invariant in [
                Invariant::UnmapSync,
                Invariant::StableCopy,
                Invariant::NoStaleTable,
                Invariant::RmapLife,
                Invariant::OneFrame,
            ] {
                if seen >> invariant.event_bit() & 1 != 0 {
                    found |= invariant.bit();
                }
            }
        }
        found & self.checked
    }

    /// The same where only some CPUs can use what they hold: the others' entries are taken away for the look.
    fn violated_in_detail(&self, state: &[u64; W]) -> u32 {
        let mut seen = *state;
        for (_, entries) in self.tlb.iter().enumerate().filter(|(cpu, _)| !self.runs_user(state, *cpu)) {
            for field in entries {
                field.set(&mut seen, 0);
            }
        }
        self.violated_by_entries(&seen) | self.engine_violations(state) & self.checked
    }

    /// The frame has data that were not written out, and nobody knows.
    fn is_lost(&self, state: &[u64; W], index: usize) -> bool {
        let fields = &self.frames[index];
        if fields.is_truncated || fields.dirty.get(state) != 0 {
            return false;
        }
        let is_known = |thread: &super::ThreadFields| {
            let name = index as u64 + 1;
            let is_dirty = |entry: u64| entry & pte::DIRTY != 0 && usize::from(pte::frame(entry)) == index;
            let in_multicall = thread.multicall.iter().any(|queued| is_dirty(queued.get(state)));
            thread.hold.get(state) == name || thread.writing.get(state) == name || in_multicall
        };
        if self.threads.iter().any(is_known) {
            return false;
        }
        let mut is_referred = false;
        let mut in_slot = false;
        for page in &self.pages {
            let entry = page.pte.get(state);
            if pte::refers(entry) && usize::from(pte::frame(entry)) == index {
                if entry & pte::DIRTY != 0 {
                    return false;
                }
                is_referred = true;
                in_slot |= pte::is_swap(entry);
            }
        }
        // What is in no file and has no entry any more was given up; so was what left its file. Anonymous memory has a
        // copy that could be taken for it only in a swap slot, and is taken for worthless only after MADV_FREE.
        let has_copy = in_slot || fields.cached.get(state) != 0 || fields.lazyfree.get(state) != 0;
        match fields.content {
            Content::Anon => is_referred && has_copy,
            Content::File => !fields.can_be_freed || fields.refs.get(state) != 0,
        }
    }
}

#[inline]
pub(super) fn meets<const W: usize>(state: &[u64; W], mask: &[u64; W]) -> bool {
    state.iter().zip(mask).any(|(word, mask)| word & mask != 0)
}
