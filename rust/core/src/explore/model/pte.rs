//! A page-table entry in few bits.
//!
//! Bit 0: present for the hardware. Bits 1, 2, 3: writable, dirty, accessed; entries that are not present keep them where
//! the kernel's do. Bits 4, 5: what an entry that is not present is. From bit 6: the frame (a swap entry: the frame whose
//! content its slot holds).

/// Present for the hardware.
pub const PRESENT: u64 = 1;
/// Writable.
pub const WRITE: u64 = 2;
/// Dirty.
pub const DIRTY: u64 = 4;
/// Accessed.
pub const YOUNG: u64 = 8;
const KIND: u64 = 0x30;
/// Protnone: the frame is kept.
pub const PROTNONE: u64 = 0x10;
/// A swap entry.
pub const SWAP: u64 = 0x20;
/// Of a swap entry: what its slot holds is on disk only, and the frame that it names is another page's by now.
pub const ON_DISK: u64 = WRITE;
/// A migration entry.
pub const MIGRATION: u64 = 0x30;
const FRAME_SHIFT: u32 = 6;

/// The bits of an entry when there are so many frames.
pub const fn width(nr_frames: usize) -> u32 {
    FRAME_SHIFT + super::vars::bits_for(nr_frames as u64 - 1)
}

/// A present entry.
pub const fn present(frame: u8, flags: u64) -> u64 {
    PRESENT | flags | (frame as u64) << FRAME_SHIFT
}

/// The frame that it names.
pub const fn frame(pte: u64) -> u8 {
    (pte >> FRAME_SHIFT) as u8
}

/// The same flags with another frame.
pub const fn with_frame(pte: u64, frame: u8) -> u64 {
    pte & ((1 << FRAME_SHIFT) - 1) | (frame as u64) << FRAME_SHIFT
}

/// Present for the hardware.
pub const fn is_present(pte: u64) -> bool {
    pte & PRESENT != 0
}

/// Protnone.
pub const fn is_protnone(pte: u64) -> bool {
    pte & (PRESENT | KIND) == PROTNONE
}

/// A swap entry.
pub const fn is_swap(pte: u64) -> bool {
    pte & (PRESENT | KIND) == SWAP
}

/// A migration entry.
pub const fn is_migration(pte: u64) -> bool {
    pte & (PRESENT | KIND) == MIGRATION
}

/// Nothing at all.
pub const fn is_none(pte: u64) -> bool {
    pte & (PRESENT | KIND) == 0
}

/// It maps a frame, for the hardware or as protnone.
pub const fn maps(pte: u64) -> bool {
    is_present(pte) || is_protnone(pte)
}

/// It refers to a frame in any way.
pub const fn refers(pte: u64) -> bool {
    !(is_none(pte) || is_swap(pte) && pte & ON_DISK != 0)
}

/// The entry as another kind that is not present; the flags stay.
pub const fn absent(pte: u64, kind: u64) -> u64 {
    pte & !(PRESENT | KIND) | kind
}

/// The entry made present.
pub const fn revive(pte: u64) -> u64 {
    pte & !KIND | PRESENT
}

/// In words, as kernel developers write them.
pub fn text(pte: u64) -> String {
    if is_none(pte) {
        return "none".to_owned();
    }
    if is_swap(pte) {
        return "swap".to_owned();
    }
    let flags: String = [(WRITE, 'W'), (DIRTY, 'D'), (YOUNG, 'A')]
        .iter()
        .filter(|(bit, _)| pte & bit != 0)
        .map(|(_, letter)| *letter)
        .collect();
    let kind = if is_migration(pte) {
        "migration"
    } else if is_protnone(pte) {
        "protnone"
    } else {
        "P"
    };
    format!("{kind}({}{}{flags})", frame(pte), if flags.is_empty() { "" } else { "," })
}
