//! Addresses and page sizes as types, so that a byte address is never taken for a page number.
//!
//! A [`VirtAddr`] is a user-space byte address of x86-64: below 2^47 with four levels of page tables, below 2^56 with
//! five. Kernel-half addresses do not occur in the model; [`Levels::check`] refuses them at the edges.

use std::fmt;

/// log2 of the base page size in bytes.
pub const PAGE_SHIFT: u32 = 12;
/// The base page size in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// log2 of the bytes that one PTE table maps, and of a huge page's size (`PMD_SHIFT`).
pub const PMD_SHIFT: u32 = 21;
/// Bytes that one PTE table maps (`PMD_SIZE`).
pub const PMD_SIZE: u64 = 1 << PMD_SHIFT;
/// log2 of the bytes that one PMD table maps (`PUD_SHIFT`).
pub const PUD_SHIFT: u32 = 30;
/// Bytes that one PMD table maps (`PUD_SIZE`).
pub const PUD_SIZE: u64 = 1 << PUD_SHIFT;
/// log2 of the bytes that one PUD table maps (`P4D_SHIFT`).
pub const P4D_SHIFT: u32 = 39;
/// Entries of one page table (`PTRS_PER_PTE`, the same at each level).
pub const PTRS_PER_TABLE: usize = 512;

/// A virtual address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct VirtAddr(pub u64);

impl VirtAddr {
    /// The number of the 4 KiB page that holds the address.
    #[inline]
    pub const fn vpn(self) -> Vpn {
        Vpn(self.0 >> PAGE_SHIFT)
    }

    /// The address rounded down to a multiple of `1 << shift` bytes.
    #[inline]
    pub const fn align_down(self, shift: u32) -> Self {
        Self(self.0 >> shift << shift)
    }

    /// The address rounded up to a multiple of `1 << shift` bytes (user addresses leave room for that).
    #[inline]
    pub const fn align_up(self, shift: u32) -> Self {
        Self((self.0 + (1 << shift) - 1) >> shift << shift)
    }

    /// Whether the address is a multiple of `1 << shift` bytes.
    #[inline]
    pub const fn is_aligned(self, shift: u32) -> bool {
        self.0 & ((1 << shift) - 1) == 0
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The number of a 4 KiB virtual page (address / 4096).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Vpn(pub u64);

impl Vpn {
    /// The first byte of the page.
    #[inline]
    pub const fn addr(self) -> VirtAddr {
        VirtAddr(self.0 << PAGE_SHIFT)
    }
}

/// The number of a 4 KiB physical page frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Pfn(pub u64);

/// A half-open range of virtual addresses, `start..end`, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct VaRange {
    /// The first byte.
    pub start: VirtAddr,
    /// The byte after the last.
    pub end: VirtAddr,
}

impl VaRange {
    /// The range from `start` to `end` (bytes, end excluded).
    #[inline]
    pub const fn new(start: VirtAddr, end: VirtAddr) -> Self {
        Self { start, end }
    }

    /// Whether it holds no byte.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.start.0 >= self.end.0
    }

    /// Bytes in the range.
    #[inline]
    pub const fn len_bytes(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether `addr` lies in the range.
    #[inline]
    pub const fn contains(self, addr: VirtAddr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }

    /// The part that both ranges share (empty if none).
    #[inline]
    pub fn intersect(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

/// The size of a page that one translation maps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PageSize {
    /// 4 KiB, mapped by a PTE.
    Size4K = 0,
    /// 2 MiB, mapped by a PMD.
    Size2M = 1,
    /// 1 GiB, mapped by a PUD.
    Size1G = 2,
}

impl PageSize {
    /// All sizes, smallest first.
    pub const ALL: [Self; 3] = [Self::Size4K, Self::Size2M, Self::Size1G];

    /// log2 of the size in bytes.
    #[inline]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Size4K => PAGE_SHIFT,
            Self::Size2M => PMD_SHIFT,
            Self::Size1G => PUD_SHIFT,
        }
    }

    /// The size in bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The size in 4 KiB pages.
    #[inline]
    pub const fn base_pages(self) -> u64 {
        1 << (self.shift() - PAGE_SHIFT)
    }
}

/// How many levels of page tables the CPU walks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Levels {
    /// PGD, PUD, PMD, PTE: 48-bit addresses, 47 bits of them for users.
    Four = 4,
    /// PGD, P4D, PUD, PMD, PTE (LA57): 57-bit addresses, 56 bits of them for users.
    Five = 5,
}

impl Levels {
    /// The byte after the last user address (`TASK_SIZE_MAX` without its guard page).
    #[inline]
    pub const fn user_end(self) -> VirtAddr {
        match self {
            Self::Four => VirtAddr(1 << 47),
            Self::Five => VirtAddr(1 << 56),
        }
    }

    /// The level number of the top table (PTE tables are level 0): 3 with four levels, 4 with five.
    #[inline]
    pub const fn top(self) -> u8 {
        self as u8 - 1
    }

    /// Refuses an address outside the user half.
    ///
    /// # Errors
    /// One line with the address found and the bound expected.
    pub fn check(self, addr: VirtAddr) -> crate::error::Result<()> {
        if addr <= self.user_end() {
            return Ok(());
        }
        Err(crate::error::Error::Value(format!(
            "address {addr} is outside user space, expected at most {}",
            self.user_end()
        )))
    }
}
