"""Frames, files and swap slots, with their references (machine.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlbcore.reference.config import PTRS_PER_TABLE
from tlbcore.reference.errors import ModelError

FIRST_PFN = 16
FIRST_HUGE_PFN = 1 << 24
HUGE_ORDER = 9
#: Pages of one hole, or added at the end at once, that are known not to be in the page cache.
MAX_ABSENT = 1 << 20
#: Pages that are read at once around one that is missing (`VM_READAHEAD_PAGES`, 128 KiB).
READ_AROUND = 32
ZERO_PFN = 0
HUGE_ZERO_PFN = 512

#: An address of an mm: what an rmap entry names.
Mapping = tuple[int, int]


@dataclass(eq=False)
class Page:
    """One frame, small or huge."""

    pfn: int
    kind: str
    order: int = 0
    file: int | None = None
    index: int | None = None
    refcount: int = 0
    dirty: bool = False
    swap_slot: int | None = None
    lazyfree: bool = False
    ksm: bool = False
    #: Anonymous, and not shared since it was made or written last.
    exclusive: bool = False
    #: The CPU in whose batch it waits to be put on the LRU.
    lru_cpu: int | None = None
    #: Of a huge page, the 4 KiB parts known to be zero still.
    zero_parts: set[int] = field(default_factory=set)
    rmap: list[Mapping] = field(default_factory=list)
    in_page_cache: bool = False

    @property
    def mapcount(self) -> int:
        """How many entries map it."""
        return len(self.rmap)

    @property
    def is_zero(self) -> bool:
        """Whether it is one of the zero pages, which nobody counts."""
        return self.kind == "zero"


@dataclass(eq=False)
class File:
    """A file and its page cache."""

    id: int
    shmem: bool
    nr_pages: int | None
    pages: dict[int, Page] = field(default_factory=dict)
    #: Pages below the end that are not in the page cache until they are looked for: of holes, and added at the end.
    absent: set[int] = field(default_factory=set)
    #: Pages of shared memory that were written to swap, and not read back since.
    swapped: set[int] = field(default_factory=set)

    def is_resident(self, index: int) -> bool:
        """Whether fault-around finds the page in the page cache."""
        return index in self.pages if self.shmem else self.reaches(index) and index not in self.absent

    def read_around(self, index: int) -> None:
        """A page that is not in the page cache is read with those around it (`do_sync_mmap_readahead()`)."""
        if index in self.absent:
            first = max(index - READ_AROUND // 2, 0)
            self.absent.difference_update(range(first, first + READ_AROUND))

    def resize(self, nr_pages: int) -> None:
        """A file of known size ends elsewhere (`i_size_write()`)."""
        if self.nr_pages is not None:
            self.absent.update(range(self.nr_pages, min(nr_pages, self.nr_pages + MAX_ABSENT)))
            self.nr_pages = nr_pages

    def reaches(self, index: int) -> bool:
        """Whether the page lies before the end of the file."""
        return self.nr_pages is None or index < self.nr_pages


@dataclass
class FrameList:
    """Numbers that are handed out: the one freed last first, else the next new one."""

    fresh: int
    stride: int
    skipped: range = range(0)
    free: list[int] = field(default_factory=list)

    def take(self) -> int:
        """A number that is not in use."""
        if self.free:
            return self.free.pop()
        number = self.fresh
        self.fresh = number + self.stride
        if self.fresh in self.skipped:
            self.fresh = self.skipped.stop
        return number


@dataclass
class Memory:
    """All frames, files and swap slots of the machine."""

    pages: dict[int, Page] = field(default_factory=dict)
    files: dict[int, File] = field(default_factory=dict)
    #: Swap PTEs of each slot in use.
    swap: dict[int, int] = field(default_factory=dict)
    swap_cache: dict[int, Page] = field(default_factory=dict)
    nr_page_frees: int = 0
    #: By CPU: pages on their way to the LRU, None for one that was freed meanwhile.
    lru_batches: dict[int, list[Page | None]] = field(default_factory=dict)
    _small: FrameList = field(
        default_factory=lambda: FrameList(FIRST_PFN, 1, range(HUGE_ZERO_PFN, HUGE_ZERO_PFN + PTRS_PER_TABLE))
    )
    _huge: FrameList = field(default_factory=lambda: FrameList(FIRST_HUGE_PFN, PTRS_PER_TABLE))
    _slots: FrameList = field(default_factory=lambda: FrameList(1, 1))
    _zero: Page = field(default_factory=lambda: Page(ZERO_PFN, "zero"))
    _huge_zero: Page = field(default_factory=lambda: Page(HUGE_ZERO_PFN, "zero", HUGE_ORDER))

    def create_file(self, *, shmem: bool, nr_pages: int | None) -> File:
        """A new file without cached pages."""
        file = File(len(self.files) + 1, shmem, nr_pages)
        self.files[file.id] = file
        return file

    def page(self, pfn: int) -> Page:
        """The page that a present entry's pfn names."""
        if pfn == ZERO_PFN:
            return self._zero
        if pfn == HUGE_ZERO_PFN:
            return self._huge_zero
        head = pfn & ~(PTRS_PER_TABLE - 1) if pfn >= FIRST_HUGE_PFN else pfn
        page = self.pages.get(head)
        if page is None:
            msg = f"an entry maps pfn {pfn:#x}, which is free"
            raise ModelError(msg)
        return page

    def alloc(self, kind: str, *, order: int = 0, file: int | None = None, index: int | None = None) -> Page:
        """A new page, without references."""
        pfn = (self._huge if order else self._small).take()
        page = Page(pfn, kind, order, file, index, exclusive=kind == "anon")
        self.pages[pfn] = page
        return page

    def get(self, page: Page, count: int = 1) -> None:
        """Take references."""
        if not page.is_zero:
            page.refcount += count

    def put(self, page: Page) -> None:
        """Drop the reference of a list; the last one frees."""
        if not page.is_zero:
            page.refcount -= 1
            self._free_if_unused(page)

    def put_mapping(self, page: Page) -> None:
        """Drop the reference of a former mapping: `free_swap_cache()`, then `folio_put()`."""
        self._free_swap_cache(page)
        self.put(page)

    def add_rmap(self, page: Page, mm: int, addr: int) -> None:
        """A mapping came."""
        if not page.is_zero:
            page.rmap.append((mm, addr))

    def remove_rmap(self, page: Page, mm: int, addr: int) -> None:
        """A mapping went."""
        if page.is_zero:
            return
        try:
            page.rmap.remove((mm, addr))
        except ValueError:
            msg = f"pfn {page.pfn:#x} is not mapped by mm {mm} at {addr:#x}"
            raise ModelError(msg) from None

    def move_rmap(self, page: Page, old: Mapping, new: Mapping) -> None:
        """A mapping moved; it keeps its place."""
        if not page.is_zero:
            page.rmap[page.rmap.index(old)] = new

    def lru_add(self, cpu: int, page: Page, size: int) -> None:
        """Put a page into the CPU's batch; one of `size` pages goes to the LRU (`folio_add_lru()`)."""
        if not size:
            return
        page.lru_cpu = cpu
        self.lru_batches.setdefault(cpu, []).append(page)
        if len(self.lru_batches[cpu]) >= size:
            self.lru_drain(cpu)

    def lru_drain(self, cpu: int) -> None:
        """The CPU's batch goes to the LRU (`lru_add_drain()`)."""
        for page in self.lru_batches.pop(cpu, []):
            if page is not None:
                page.lru_cpu = None

    def cached(self, file: File, index: int) -> Page:
        """The page-cache page, made when it is not there."""
        page = file.pages.get(index)
        if page is None:
            page = self.alloc("shmem" if file.shmem else "file", file=file.id, index=index)
            file.pages[index] = page
            file.read_around(index)
            page.dirty = index in file.swapped  # read back, it has no other copy (`shmem_swapin_folio()`)
            file.swapped.discard(index)
            page.in_page_cache = True
            page.refcount = 1
        return page

    def drop_from_page_cache(self, page: Page) -> None:
        """Out of the page cache, with its reference."""
        assert page.in_page_cache
        assert page.file is not None
        assert page.index is not None
        del self.files[page.file].pages[page.index]
        page.in_page_cache = False
        self.put(page)

    def add_to_swap_cache(self, page: Page, slot: int | None = None) -> None:
        """Give the page a slot (a new one if none is named), as its swap cache."""
        if slot is None:
            slot = self._slots.take()
            self.swap[slot] = 0
        page.swap_slot = slot
        page.refcount += 1
        self.swap_cache[slot] = page

    def drop_from_swap_cache(self, page: Page) -> None:
        """Out of the swap cache, with its reference; a slot that nobody names any more is free."""
        slot = page.swap_slot
        assert slot is not None
        page.swap_slot = None
        del self.swap_cache[slot]
        page.refcount -= 1
        self._free_slot(slot)
        self._free_if_unused(page)

    def swap_get(self, slot: int) -> None:
        """A swap PTE came."""
        self.swap[slot] += 1

    def swap_put(self, slot: int) -> None:
        """A swap PTE went."""
        self.swap[slot] -= 1
        if self.swap[slot] < 0:
            msg = f"swap slot {slot} is given back more often than it was taken"
            raise ModelError(msg)
        page = self.swap_cache.get(slot)
        if page is not None:
            self._free_swap_cache(page)
        else:
            self._free_slot(slot)

    def _free_swap_cache(self, page: Page) -> None:
        slot = page.swap_slot
        if slot is not None and self.swap[slot] == 0 and not page.rmap:
            self.drop_from_swap_cache(page)

    def _free_slot(self, slot: int) -> None:
        if self.swap.get(slot) == 0 and slot not in self.swap_cache:
            del self.swap[slot]
            self._slots.free.append(slot)

    def _free_if_unused(self, page: Page) -> None:
        if page.refcount < 0:
            msg = f"pfn {page.pfn:#x} lost a reference that nobody held"
            raise ModelError(msg)
        if page.refcount > 0 or self.pages.get(page.pfn) is not page:
            return
        if page.rmap:
            msg = f"pfn {page.pfn:#x} is freed while it is mapped"
            raise ModelError(msg)
        if page.lru_cpu is not None:
            batch = self.lru_batches[page.lru_cpu]
            batch[batch.index(page)] = None
        del self.pages[page.pfn]
        (self._huge if page.order else self._small).free.append(page.pfn)
        self.nr_page_frees += 1
