"""What a scheme is: for each operation that it serves, the program of steps that does it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.errors import InputError
from tlbcore.steps import Block, Step, flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: The operations that a kernel has a program for (`docs/steps.md` section 1).
OPERATIONS: tuple[str, ...] = (
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise_dontneed",
    "madvise_free",
    "madvise_cold",
    "madvise_pageout",
    "clear_refs_soft_dirty",
    "fork",
    "exit_mmap",
    "fault",
    "page_mkclean",
    "shrink_folio_list",
    "migrate_pages",
    "change_prot_numa",
    "unmap_mapping_range",
    "wp_shared_mapping_range",
    "collapse_huge_page",
    "ksm_merge",
)


class Scheme:
    """A way to batch TLB flushes.

    A subclass has a method for each operation that it serves, named as in `OPERATIONS`, which returns the program. Its
    docstring says in one line what is batched and when the flush comes.
    """

    #: Where Linux has it.
    where: ClassVar[str] = ""
    #: Of each option (field of the dataclass) the source of what it decides, as `tlbcore.source` has it.
    sources: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def title(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]

    def options(self) -> Iterator[tuple[Scheme, str, object]]:
        """The options, those of schemes among them too: the scheme that has it, its name, its value."""
        scheme: object = self  # perhaps a dataclass
        for field in fields(scheme) if is_dataclass(scheme) and not isinstance(scheme, type) else ():
            value: object = getattr(self, field.name)
            yield self, field.name, value
            if isinstance(value, Scheme):
                yield from value.options()

    def operations(self) -> tuple[str, ...]:
        """The operations that this scheme has a program for."""
        return tuple(name for name in OPERATIONS if callable(getattr(self, name, None)))

    def program(self, operation: str) -> tuple[Step, ...]:
        """The program for an operation.

        Raises:
            InputError: The scheme does not serve it, or its method fails; the message says which.
        """
        build: Callable[[], Block] | None = getattr(self, operation, None) if operation in OPERATIONS else None
        if build is None:
            serves = ", ".join(self.operations()) or "nothing"
            raise InputError(f"scheme {type(self).__name__} has no program for {operation}, it serves {serves}")
        try:
            return flatten(build())
        except Exception as error:
            where = f"scheme {type(self).__name__}: {operation}"
            raise InputError(f"{where}: found {type(error).__name__} ({error}), expected a list of steps") from error
