"""A decoded page-table entry: an immutable value, its flags the bits of an integer of our own."""

from __future__ import annotations

from typing import NamedTuple

P, PROTNONE, W, U, A, D, G, NX, PSE, SD, UFFD, SPECIAL = (1 << n for n in range(12))

#: In the order in which a dump prints them.
FLAG_NAMES = ("P", "PROTNONE", "W", "U", "A", "D", "G", "NX", "PSE", "SD", "UFFD", "SPECIAL")
_PRESENT = P | PROTNONE
#: What `pte_modify()` keeps of the old entry (`_PAGE_CHG_MASK`).
_KEPT_BY_MODIFY = A | D | PSE | SD | UFFD | SPECIAL
_MIGRATION_ORDER = (("W", W), ("A", A), ("D", D), ("SD", SD), ("UFFD", UFFD))


class Pte(NamedTuple):
    """One entry: `kind` is none, present (P or PROTNONE), swap or migration."""

    kind: str
    flags: int = 0
    pfn: int = 0
    slot: int = 0

    def has(self, flag: int) -> bool:
        """Whether the flag is set."""
        return bool(self.flags & flag)

    def add(self, flags: int) -> Pte:
        """With these flags."""
        return self._replace(flags=self.flags | flags)

    def drop(self, flags: int) -> Pte:
        """Without these flags."""
        return self._replace(flags=self.flags & ~flags)

    @property
    def hw_present(self) -> bool:
        """Whether the hardware may use and cache it."""
        return bool(self.flags & P) and self.kind == "present"

    @property
    def present(self) -> bool:
        """`pte_present()`: P or PROTNONE."""
        return self.kind == "present"

    def modify(self, prot: int) -> Pte:
        """`pte_modify()`: the rights of `prot`, everything else as it was."""
        return self._replace(flags=(self.flags & _KEPT_BY_MODIFY) | (prot & ~_KEPT_BY_MODIFY))

    def mkdirty(self) -> Pte:
        """`pte_mkdirty()`: what the kernel dirties is soft-dirty too."""
        return self.add(D | SD)

    def text(self) -> str:
        """As a dump prints it."""
        if self.kind == "none":
            return "none"
        if self.kind == "swap":
            return f"swap slot={self.slot}" + self._names(((" SD", SD), (" UFFD", UFFD)))
        if self.kind == "migration":
            return f"migration pfn={self.pfn:#x}" + self._names(tuple((f" {name}", f) for name, f in _MIGRATION_ORDER))
        names = [name for n, name in enumerate(FLAG_NAMES) if self.flags >> n & 1]
        return " ".join([*names, f"pfn={self.pfn:#x}"])

    def _names(self, pairs: tuple[tuple[str, int], ...]) -> str:
        return "".join(name for name, flag in pairs if self.flags & flag)


NONE = Pte("none")
#: `PAGE_NONE`: the prot of a VMA without rights, and of a NUMA hint.
PAGE_NONE = PROTNONE | A


def needs_flush(old: Pte, new: Pte) -> bool:
    """x86 `pte_needs_flush()` and `huge_pmd_needs_flush()`."""
    if not old.hw_present:
        return False
    if not new.hw_present or old.pfn != new.pfn:
        return True
    cleared = D | (A if old.has(PSE) else 0)
    return bool(old.flags & ~new.flags & cleared) or bool((old.flags ^ new.flags) & (W | U | NX | G))


def demoted(old: Pte, new: Pte) -> bool:
    """The rule of the series: a right was taken away that a cached copy could still use."""
    if not old.hw_present:
        return False
    if not new.hw_present or old.pfn != new.pfn:
        return True
    gone = old.flags & ~new.flags
    return bool(gone & (U | D)) or bool(new.flags & ~old.flags & NX) or (bool(gone & W) and old.has(D))
