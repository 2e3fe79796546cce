//! The rights half of an entry, as a VMA's `vm_page_prot` holds it (`pgprot_t`).

use super::entry::bits::{ACCESSED, NX, PRESENT, PROTNONE, RW, USER};

/// Rights and state bits that a new entry gets; the same layout as [`super::Pte`] without a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Prot(pub u64);

impl Prot {
    /// `PAGE_NONE`: mapped for Linux, refused to the CPU.
    pub const NONE: Self = Self(PROTNONE | ACCESSED);
    /// `PAGE_READONLY`, and `PAGE_COPY`: a private writable page is readable until a fault copies it.
    pub const READONLY: Self = Self(PRESENT | USER | ACCESSED | NX);
    /// `PAGE_READONLY_EXEC`, and `PAGE_COPY_EXEC`.
    pub const READONLY_EXEC: Self = Self(PRESENT | USER | ACCESSED);
    /// `PAGE_SHARED`: written in place.
    pub const SHARED: Self = Self(PRESENT | RW | USER | ACCESSED | NX);
    /// `PAGE_SHARED_EXEC`.
    pub const SHARED_EXEC: Self = Self(PRESENT | RW | USER | ACCESSED);

    /// `vm_get_page_prot`: the entry rights of a VMA (arch/x86/mm/pgprot.c, `protection_map`). Write alone implies read,
    /// as x86 cannot do otherwise. A shared VMA that wants to be told of writes (`vma_wants_writenotify`) passes
    /// `shared = false`, as `vma_set_page_prot` does.
    #[inline]
    #[expect(clippy::fn_params_excessive_bools, reason = "the four bits that index protection_map, in its order")]
    pub const fn vm_page_prot(read: bool, write: bool, exec: bool, shared: bool) -> Self {
        match (read || write || exec, write && shared, exec) {
            (false, _, _) => Self::NONE,
            (true, false, false) => Self::READONLY,
            (true, false, true) => Self::READONLY_EXEC,
            (true, true, false) => Self::SHARED,
            (true, true, true) => Self::SHARED_EXEC,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vma_rights_follow_protection_map() {
        assert_eq!(Prot::vm_page_prot(false, false, false, true), Prot::NONE);
        assert_eq!(Prot::vm_page_prot(true, true, false, false), Prot::READONLY);
        assert_eq!(Prot::vm_page_prot(false, true, false, true), Prot::SHARED);
        assert_eq!(Prot::vm_page_prot(false, false, true, true), Prot::READONLY_EXEC);
        assert_eq!(Prot::vm_page_prot(true, true, true, true), Prot::SHARED_EXEC);
        assert_eq!(Prot::vm_page_prot(true, true, true, false), Prot::READONLY_EXEC);
    }
}
