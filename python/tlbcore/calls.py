"""What a thread can ask the kernel for, and what it can do to its memory.

A thread and a process share these: a process asks through its main thread. Addresses and lengths are in bytes, lengths
are rounded up to pages; what the kernel refuses is an ``OSError`` with its errno, what it answers with a signal a
:class:`FaultError`. Linux's manual pages say what each call does, `docs/machine.md` section 4 what of it is modelled.

Before anything else the thread is given its CPU (``Simulator.run_on``): a call of a thread that does not run is made
after a context switch to it, on the CPU that it last ran on.
"""

from __future__ import annotations

import errno
import signal
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from tlbcore.errors import InputError
from tlbcore.gather import Gather
from tlbcore.given import described, whole_number, wrong_kind
from tlbcore.lookup import nearest
from tlbcore.steps import Block, flatten
from tlbcore.units import PAGE, prot_bits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tlbcore.schemes.mmu_gather import MmuGather
    from tlbcore.simulator import File, Simulator

__all__ = ["Calls", "FaultError", "kernel_error"]


#: Advice (madvise(2)) that changes neither entries nor areas in this model.
ACCEPTED_ADVICE = frozenset(["willneed", "remove", "hwpoison", "soft_offline", "guard_install", "guard_remove"])
#: All advice there is: what the machine has (`docs/machine.md` section 4), and what is accepted.
ADVICE = (
    *("dontneed", "dontneed_locked", "free", "cold", "pageout", "populate_read", "populate_write"),
    *("normal", "random", "sequential", "hugepage", "nohugepage", "dontfork", "dofork", "mergeable", "unmergeable"),
    *("dontdump", "dodump", "wipeonfork", "keeponfork", "other", *sorted(ACCEPTED_ADVICE)),
)
#: Arguments of operations that are addresses, lengths or numbers of pages.
_NUMBERS = ("addr", "len", "old", "old_len", "new", "new_len", "pgoff", "from_page")


class FaultError(OSError):
    """A memory access, or a call that makes one, that the kernel answers with a signal.

    Its errno is ``EFAULT``, what a system call returns for the same access.
    """

    def __init__(self, name: str, where: str) -> None:
        """Make the error of a signal such as ``SIGSEGV``."""
        super().__init__(errno.EFAULT, f"{where}: {name}")
        #: The signal.
        self.signal = signal.Signals[name]


def kernel_error(name: str, where: str) -> OSError:
    """Return the exception for what the machine answers: the name of an errno or of a signal."""
    if name.startswith("SIG"):
        return FaultError(name, where)
    return OSError(getattr(errno, name), f"{where}: {name}")


class Calls(ABC):
    """System calls, memory accesses, and what the kernel does on behalf of a thread."""

    @property
    @abstractmethod
    def sim(self) -> Simulator:
        """The simulator that it lives in."""

    @property
    @abstractmethod
    def task(self) -> int:
        """The machine's id of the thread that asks."""

    @property
    def mm(self) -> int:
        """The machine's id of its address space.

        Raises:
            InputError: It has none any more: it exited.

        """
        return self.sim.mm_of(self.task)

    def _call(self, op: str, **arguments: object) -> Any:  # noqa: ANN401  # an address, an id or None, by operation
        for name in _NUMBERS:
            if name in arguments:
                arguments[name] = whole_number(f"{op}: {name}", arguments[name])
        self.sim.run_on(self.task)
        return self.sim.apply({"op": op, "task": self.task, **arguments})

    # --- mappings ----------------------------------------------------------------------------------------------------

    def mmap(  # noqa: PLR0913  # the arguments and flags of the system call
        self,
        length: int,
        prot: str | int = "rw",
        *,
        addr: int = 0,
        file: File | None = None,
        offset: int = 0,
        shared: bool = False,
        fixed: bool = False,
        noreplace: bool = False,
        populate: bool = False,
        growsdown: bool = False,
    ) -> int:
        """Map memory and return its address.

        Args:
            length: Bytes.
            prot: Rights, as ``"rw"``.
            addr: Where: a hint, or with ``fixed`` the place, whose old mappings go; 0 lets the kernel choose.
            file: What is mapped; anonymous memory if not given.
            offset: First byte of the file, a whole number of pages.
            shared: Others that map it see what is written (``MAP_SHARED``).
            fixed: ``MAP_FIXED``.
            noreplace: ``MAP_FIXED_NOREPLACE``.
            populate: Touch every page at once (``MAP_POPULATE``).
            growsdown: A stack (``MAP_GROWSDOWN``).

        """
        if whole_number("mmap: offset", offset) % PAGE:
            raise InputError(f"mmap: offset is {offset}, expected a multiple of {PAGE}")
        found: int = self._call(
            "mmap",
            addr=addr,
            len=length,
            prot=prot_bits(prot),
            shared=shared,
            fixed=fixed,
            noreplace=noreplace,
            populate=populate,
            growsdown=growsdown,
            file=None if file is None else _file_id(file),
            pgoff=offset // PAGE,
        )
        return found

    def munmap(self, addr: int, length: int) -> None:
        """Unmap a range."""
        self._call("munmap", addr=addr, len=length)

    def mprotect(self, addr: int, length: int, prot: str | int) -> None:
        """Change the rights of a range."""
        self._call("mprotect", addr=addr, len=length, prot=prot_bits(prot))

    def mremap(  # noqa: PLR0913  # the arguments and flags of the system call
        self,
        addr: int,
        old_length: int,
        new_length: int,
        *,
        new_addr: int | None = None,
        maymove: bool = True,
        dontunmap: bool = False,
    ) -> int:
        """Resize or move a mapping and return where it is now.

        Args:
            addr: Where it is.
            old_length: Its bytes.
            new_length: Its bytes from now on.
            new_addr: Where it has to go (``MREMAP_FIXED``).
            maymove: It may move if it cannot grow in place (``MREMAP_MAYMOVE``).
            dontunmap: The old place stays mapped, empty (``MREMAP_DONTUNMAP``).

        """
        found: int = self._call(
            "mremap",
            old=addr,
            old_len=old_length,
            new_len=new_length,
            maymove=maymove,
            fixed=new_addr is not None,
            dontunmap=dontunmap,
            new=new_addr or 0,
        )
        return found

    def madvise(self, addr: int, length: int, advice: str) -> None:
        """Give advice, by its name in lower case without ``MADV_``.

        What changes page tables or the flags of areas is done; the rest (``willneed``, ``remove``, ...) is accepted and
        changes nothing here.

        Raises:
            InputError: No such advice; the message has the nearest.

        """
        if advice not in ADVICE:
            names = ", ".join(name for name in ADVICE if name != "other")
            near = nearest(str(advice), ADVICE)
            raise InputError(f"madvise: found {described(advice)}, expected one of {names}{near}")
        self._call("madvise", addr=addr, len=length, advice="other" if advice in ACCEPTED_ADVICE else advice)

    def brk(self, addr: int = 0) -> int:
        """Move the end of the heap and return it; 0 only asks."""
        found: int = self._call("brk", addr=addr)
        return found

    # --- memory accesses ---------------------------------------------------------------------------------------------

    def touch(self, addr: int, nr_pages: int = 1, *, write: bool = False, stride_pages: int = 1) -> None:
        """Access one byte of each of ``nr_pages`` pages, ``stride_pages`` apart.

        Raises:
            FaultError: An access without a mapping or a right; those before it are done.

        """
        first, count = whole_number("touch: addr", addr), whole_number("touch: nr_pages", nr_pages)
        self.sim.run_on(self.task)
        kind = "write" if write else "read"
        for index in range(count):
            access = first + index * stride_pages * PAGE
            self.sim.apply({"op": "access", "task": self.task, "addr": access, "kind": kind})

    def read(self, addr: int) -> None:
        """Load from an address."""
        self.touch(addr)

    def write(self, addr: int) -> None:
        """Store to an address."""
        self.touch(addr, write=True)

    # --- files -------------------------------------------------------------------------------------------------------

    def msync(self, addr: int, length: int, *, sync: bool = True) -> None:
        """Write back the dirty pages of shared file mappings in a range."""
        self._call("msync", addr=addr, len=length, sync=sync)

    def fsync(self, file: File, from_page: int = 0, nr_pages: int | None = None) -> None:
        """Write back all dirty pages of a file, or those among ``nr_pages`` from a page on."""
        self._call("fsync", file=file.id, from_page=from_page, nr_pages=nr_pages)

    def truncate(self, file: File, from_page: int, nr_pages: int | None = None) -> None:
        """Drop pages of a file from every mapping: all behind ``from_page``, or ``nr_pages`` of them (a hole)."""
        self._call("truncate", file=file.id, from_page=from_page, nr_pages=nr_pages)

    # --- what the kernel does on its own -----------------------------------------------------------------------------

    def clear_refs(self, kind: int = 4) -> None:
        """Write to ``/proc/self/clear_refs``: 4 forgets which pages were written, 1 which were accessed."""
        self._call("clear_refs", kind=kind)

    def reclaim(self, addr: int, nr_pages: int = 1, *, proactive: bool = False) -> None:
        """Reclaim the pages mapped at these addresses, as under memory pressure, in the context of this thread.

        Args:
            addr: The first page.
            nr_pages: How many.
            proactive: It is asked for and not needed (``memory.reclaim``).

        """
        self._call("reclaim", pages=self._pages(addr, nr_pages), proactive=proactive)

    def migrate(self, addr: int, nr_pages: int = 1) -> None:
        """Move the pages mapped at these addresses to other frames."""
        self._call("migrate", pages=self._pages(addr, nr_pages))

    def numa_hint(self, addr: int, length: int) -> None:
        """Make a range fault, so that NUMA balancing sees who uses it (``change_prot_numa()``)."""
        self._call("numa_hint", addr=addr, len=length)

    def ksm_merge(self, addr: int, length: int) -> None:
        """Merge the pages of a range, which are taken to have the same content, as ksmd does."""
        self._call("ksm_merge", addr=addr, len=length)

    def collapse(self, addr: int) -> None:
        """Replace the pages of the 2 MiB around an address by a huge one, as khugepaged does."""
        self._call("collapse", addr=addr)

    def _pages(self, addr: int, nr_pages: int) -> list[list[int]]:
        mm, first = self.mm, whole_number("addr", addr)
        return [[mm, first + index * PAGE] for index in range(whole_number("nr_pages", nr_pages))]

    # --- programs of one's own ---------------------------------------------------------------------------------------

    def run(self, steps: Block, addr: int, length: int, prot: str | int | None = None) -> None:
        """Run a program of steps on a range, as if the kernel had a system call for it.

        Everything that munmap, mprotect, madvise and clear_refs may do is allowed (`docs/steps.md`); locks and gathers
        have to pair.

        Args:
            steps: The program, of :mod:`tlbcore.steps`.
            addr: The range's first byte.
            length: Its bytes.
            prot: New rights, for a program with ``mprotect_fixup``.

        Raises:
            ProgramError: A step that cannot stand where it stands; the message has its path, as ``custom[2]``.

        """
        self._call(
            "run",
            addr=addr,
            len=length,
            prot=None if prot is None else prot_bits(prot),
            steps=[step.resolve() for step in flatten(steps)],
        )

    def gather(self, scheme: MmuGather | None = None) -> Gather:
        """Open an ``mmu_gather`` to drive by hand, for a ``with`` statement; see :class:`tlbcore.gather.Gather`.

        Args:
            scheme: Whose gather; the kernel's own for MADV_DONTNEED if not given.

        """
        return Gather(self.run, scheme or self.sim.gather_scheme())

    # --- the end -----------------------------------------------------------------------------------------------------

    def _exit(self, tasks: Iterable[int]) -> None:
        for task in tasks:
            self.sim.apply({"op": "exit", "task": task})


def _file_id(file: object) -> object:
    if not hasattr(file, "id"):
        raise wrong_kind("mmap: file", file, "a file that Simulator.file made")
    return file.id
