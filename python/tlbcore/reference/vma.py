"""VMAs, and the list of those of one mm: splitting, merging, holes (mm/vma.c)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from tlbcore.reference import pte as p
from tlbcore.reference.config import MMAP_BASE, MMAP_MIN, PAGE_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterator

VM_READ, VM_WRITE, VM_EXEC, VM_SHARED = 1, 2, 4, 8
VM_GROWSDOWN = 0x100
VM_PFNMAP = 0x400
VM_LOCKED = 0x2000
VM_SEQ_READ = 0x8000
VM_RAND_READ = 0x10000
VM_DONTCOPY = 0x20000
VM_ACCOUNT = 0x100000
VM_WIPEONFORK = 0x02000000
VM_DONTDUMP = 0x04000000
VM_SOFTDIRTY = 0x08000000
VM_HUGEPAGE = 0x20000000
VM_NOHUGEPAGE = 0x40000000
VM_MERGEABLE = 0x80000000
VM_ACCESS = VM_READ | VM_WRITE | VM_EXEC


def accounted(flags: int) -> int:
    """The flags of a new mapping: private writable memory is accounted for (`accountable_mapping()`)."""
    return flags | VM_ACCOUNT if flags & (VM_SHARED | VM_WRITE) == VM_WRITE else flags


_births = count(1)
_END_OF_TIME = 1 << 64


@dataclass(eq=False)
class AnonVma:
    """The head of the reverse map of anonymous pages; two are the same only if they are one object."""

    #: fork made the area from another: the parent's is in the chain beside it.
    cloned: bool = False


@dataclass(eq=False)
class Vma:
    """One `vm_area_struct`: bytes start..end, `pgoff` in pages; `file` is a file's id."""

    start: int
    end: int
    flags: int
    file: int | None
    pgoff: int
    anon_vma: AnonVma | None = None
    defer_gen: int = 0
    shmem: bool = False
    #: When it came into the tree of its anonymous memory, for the last time; only the order means something.
    born_of_anon: int = 0
    #: The same for that of its file: its first forebear's, and how late before the end of time it and its parent were forked.
    born_of_file: tuple[int, int, int] = (0, 0, 0)

    def be_born(self) -> None:
        """Come into the trees behind those that begin with the same page: when made, and when an end changes."""
        self.born_of_anon = next(_births)
        self.born_of_file = (self.born_of_anon, 0, 0)

    def has(self, flag: int) -> bool:
        """Whether the flag is set."""
        return bool(self.flags & flag)

    def index_of(self, addr: int) -> int:
        """The page of the file (or of the pgoff space) that `addr` maps."""
        return self.pgoff + ((addr - self.start) >> PAGE_SHIFT)

    @property
    def page_prot(self) -> int:
        """`vm_page_prot` as flags of a PTE."""
        if not self.flags & VM_ACCESS:
            return p.PAGE_NONE
        prot = p.P | p.U | p.A
        if not self.flags & VM_EXEC:
            prot |= p.NX
        writenotify = not self.has(VM_SOFTDIRTY) or (self.file is not None and not self.shmem)
        if self.flags & VM_SHARED and self.flags & VM_WRITE and not writenotify:
            prot |= p.W
        return prot


@dataclass
class VmaTree:
    """The VMAs of one mm, disjoint and sorted."""

    vmas: list[Vma] = field(default_factory=list)

    def __iter__(self) -> Iterator[Vma]:
        """By address."""
        return iter(self.vmas)

    def find(self, addr: int) -> Vma | None:
        """`find_vma()`: the first VMA with end > addr."""
        position = bisect_right(self.vmas, addr, key=lambda vma: vma.end)
        return self.vmas[position] if position < len(self.vmas) else None

    def lookup(self, addr: int) -> Vma | None:
        """`vma_lookup()`: the VMA that holds addr."""
        vma = self.find(addr)
        return vma if vma is not None and vma.start <= addr else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """The VMAs that share a byte with start..end."""
        found = []
        vma = self.find(start)
        while vma is not None and vma.start < end:
            found.append(vma)
            vma = self.find(vma.end)
        return found

    def is_free(self, start: int, end: int) -> bool:
        """Whether nothing is mapped in start..end."""
        vma = self.find(start)
        return vma is None or vma.start >= end

    def first_hole(self, start: int, end: int) -> int | None:
        """The first address of start..end that no VMA holds."""
        at = start
        while at < end:
            vma = self.lookup(at)
            if vma is None:
                return at
            at = vma.end
        return None

    def insert(self, vma: Vma) -> None:
        """Put a VMA where nothing is mapped."""
        assert self.is_free(vma.start, vma.end)
        self.vmas.insert(bisect_right(self.vmas, vma.start, key=lambda other: other.start), vma)
        vma.be_born()

    def insert_forked(self, vma: Vma) -> None:
        """Put the copy of a parent's VMA where nothing is mapped: in the tree of a file it comes right behind the parent's."""
        first, parent, child = vma.born_of_file
        self.insert(vma)
        late = _END_OF_TIME - vma.born_of_anon
        if not parent:
            vma.born_of_file = (first, late, 0)
        else:
            vma.born_of_file = (first, parent, child or late)

    def remove(self, vma: Vma) -> None:
        """Take a VMA out."""
        self.vmas.remove(vma)

    def split(self, vma: Vma, addr: int) -> Vma:
        """Cut `vma` at `addr`: it keeps the left part, the right part is returned."""
        right = replace(vma, start=addr, pgoff=vma.index_of(addr))
        vma.end = addr
        right.be_born()
        vma.be_born()
        self.vmas.insert(self.vmas.index(vma) + 1, right)
        return right

    def merge(self, vma: Vma, *, either_way: bool) -> Vma:
        """Join `vma`, which was changed just now, with the neighbours that fit; if these do not fit each other, the left."""
        position = self.vmas.index(vma)
        left = self.vmas[position - 1] if position > 0 else None
        right = self.vmas[position + 1] if position + 1 < len(self.vmas) else None
        if left is not None and not (_continues(left, vma) and _takes_in(left, vma, either_way=either_way)):
            left = None
        if right is not None and not (_continues(vma, right) and _takes_in(right, vma, either_way=either_way)):
            right = None
        if left is not None and right is not None and None not in (left.anon_vma, right.anon_vma):
            right = right if left.anon_vma is right.anon_vma else None
        if left is not None:
            vma = self._join(left, vma)
        if right is not None:
            vma = self._join(vma, right)
        return vma

    def prepare_anon_vma(self, vma: Vma) -> None:
        """`__anon_vma_prepare()`: a neighbour's if that differs in rights at most, else a new one."""
        if vma.anon_vma is not None:
            return
        position = self.vmas.index(vma)
        near = [other for other in self.vmas[position + 1 : position + 2] if _continues(vma, other, but=VM_ACCESS)]
        near += [other for other in self.vmas[max(position - 1, 0) : position] if _continues(other, vma, but=VM_ACCESS)]
        reusable = (other.anon_vma for other in near if other.anon_vma is not None and not other.anon_vma.cloned)
        vma.anon_vma = next(reusable, None) or AnonVma()

    def _join(self, left: Vma, right: Vma) -> Vma:
        self.vmas.remove(right)
        left.end = right.end
        left.be_born()
        left.flags |= right.flags & VM_SOFTDIRTY
        left.anon_vma = left.anon_vma if left.anon_vma is not None else right.anon_vma
        left.defer_gen = max(left.defer_gen, right.defer_gen)
        return left

    def unmapped_area(self, length: int) -> int | None:
        """The highest free address for `length` bytes below mmap_base."""
        top = MMAP_BASE
        for vma in reversed(self.vmas):
            if vma.end <= top and top - vma.end >= length:
                break
            top = min(top, vma.start)
        at = top - length
        return at if at >= MMAP_MIN and self.is_free(at, at + length) else None


def _takes_in(own: Vma, changed: Vma, *, either_way: bool) -> bool:
    """`is_mergeable_anon_vma()`: whether their anonymous pages let `own` be one with its neighbour that was changed."""
    if own.anon_vma is not None and changed.anon_vma is not None:
        return own.anon_vma is changed.anon_vma
    if own.anon_vma is not None:
        return not own.anon_vma.cloned
    return changed.anon_vma is None or (either_way and not changed.anon_vma.cloned)


def _continues(left: Vma, right: Vma, but: int = 0) -> bool:
    return (
        left.end == right.start
        and (left.flags ^ right.flags) & ~(VM_SOFTDIRTY | but) == 0
        and left.file == right.file
        and left.index_of(left.end) == right.pgoff
    )
