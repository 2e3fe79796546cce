"""What a scenario has mapped so far: enough to know which accesses a program survives.

Contract: a page that `AddressSpace` calls accessible can be accessed without SIGSEGV or SIGBUS. Where the kernel could
merge or split areas in more than one way (`mremap()` wants its source in one), the narrower view is taken: pages with
the same `area` are certainly in one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class File:
    """A file, or the object behind shared anonymous memory (without a name)."""

    name: str
    nr_pages: int


@dataclass(frozen=True, slots=True)
class Page:
    """One mapped page."""

    protection: str
    backing: str
    area: int
    file: File | None = None
    file_page: int = 0
    forked: bool = True

    def allows(self, access: str) -> bool:
        """Whether an access `r` or `w` ends without a signal."""
        exists = self.file is None or self.file_page < self.file.nr_pages
        return exists and access in self.protection


@dataclass(frozen=True, slots=True)
class Range:
    """Pages of a region."""

    region: str
    first: int
    nr_pages: int

    @property
    def pages(self) -> range:
        """Their numbers."""
        return range(self.first, self.first + self.nr_pages)

    @property
    def words(self) -> tuple[str, str, str]:
        """As arguments of an operation."""
        return self.region, str(self.first), str(self.nr_pages)

    def places(self) -> Iterator[tuple[str, int]]:
        """As keys of `AddressSpace.pages`."""
        return ((self.region, page) for page in self.pages)


@dataclass(slots=True)
class AddressSpace:
    """Mapped pages by region and number."""

    pages: dict[tuple[str, int], Page] = field(default_factory=dict)
    # Kept here, not global, so that a scenario depends on nothing but its seed.
    next_area: int = 0

    def area(self) -> int:
        """A new area's number."""
        self.next_area += 1
        return self.next_area

    def runs(self) -> list[Range]:
        """Maximal runs of mapped pages, in order."""
        found: list[Range] = []
        # Pages in a row have the same distance to their position in the order.
        in_order = enumerate(sorted(self.pages))
        for (region, _), run in itertools.groupby(in_order, lambda item: (item[1][0], item[1][1] - item[0])):
            places = list(run)
            found.append(Range(region, places[0][1][1], len(places)))
        return found

    def in_one_area(self, where: Range) -> bool:
        """Whether all of it certainly is in one area of the kernel."""
        areas = {page.area if (page := self.pages.get(key)) else -1 for key in where.places()}
        return len(areas) == 1 and -1 not in areas

    def accessible(self, where: Range, access: str) -> bool:
        """Whether every page of it can be accessed."""
        return all((page := self.pages.get(key)) is not None and page.allows(access) for key in where.places())

    def map(self, where: Range, protection: str, backing: str, file: File | None = None, file_page: int = 0) -> None:
        """mmap(), fixed."""
        area = self.area()
        if backing == "shared":
            file = File("", where.nr_pages)
        for position, key in enumerate(where.places()):
            self.pages[key] = Page(protection, backing, area, file, file_page + position)

    def unmap(self, where: Range) -> None:
        """munmap()."""
        for key in where.places():
            self.pages.pop(key, None)

    def protect(self, where: Range, protection: str) -> None:
        """mprotect(), which stops at the first hole."""
        area = self.area()
        for key in where.places():
            page = self.pages.get(key)
            if page is None:
                return
            self.pages[key] = replace(page, protection=protection, area=area)

    def split(self, where: Range, *, forked: bool = True) -> None:
        """An advice that sets a flag of the areas."""
        area = self.area()
        for key in where.places():
            if (page := self.pages.get(key)) is not None:
                self.pages[key] = replace(page, area=area, forked=page.forked and forked)

    def move(self, old: Range, new: Range) -> None:
        """mremap() to a fixed place, `old` being in one area."""
        moved = [self.pages.pop(key) for key in old.places()]
        self.unmap(new)
        self._place(moved, new, old.nr_pages)

    def resize(self, old: Range, nr_pages: int) -> None:
        """mremap() in place, `old` being in one area and, to grow, at its end."""
        kept = [self.pages[key] for key in old.places()]
        self.unmap(old)
        self._place(kept, Range(old.region, old.first, nr_pages), old.nr_pages)

    def _place(self, pages: list[Page], where: Range, nr_old: int) -> None:
        area = self.area()
        last = pages[-1]
        for position, key in enumerate(where.places()):
            page = (
                pages[position]
                if position < nr_old
                else replace(last, file_page=last.file_page + position - nr_old + 1)
            )
            self.pages[key] = replace(page, area=area)

    def forked(self) -> AddressSpace:
        """The child's copy."""
        pages = {key: page for key, page in self.pages.items() if page.forked}
        return AddressSpace(pages, self.next_area)
