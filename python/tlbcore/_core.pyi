import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, SupportsIndex, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_PAGES",
    "MAX_USERS",
    "AddressTrace",
    "CpuMask",
    "CpuMaskArray",
    "Machine",
    "PageTable",
    "RangeSummary",
    "Recording",
    "Replay",
    "__version__",
    "build_features",
    "build_profile",
    "condition_names",
    "explore",
    "explore_audit",
    "explore_common_problem",
    "explore_in_order",
    "explore_listing",
    "explore_path",
    "invariants",
    "program_names",
    "replay",
    "simulate_tlb",
    "step_names",
    "validate_kernel",
]

__version__: Final[str]

MAX_USERS: Final[int]
"""User CPUs of a scenario of the explorer, at most."""
MAX_PAGES: Final[int]
"""Pages of a scenario of the explorer, at most."""

def build_features() -> list[str]: ...
def build_profile() -> str: ...
def condition_names() -> list[str]:
    """The names of all conditions of ``when``."""

def explore_common_problem(
    unmap: str,
    clean: str,
    users: int,
    pages: int,
    *,
    without: Iterable[str] = (),
    reductions: Iterable[str] = (),
    threads: int = 1,
    to_first: bool = False,
    max_states: int | None = None,
    max_memory_bytes: int = 4294967296,
    max_seconds: float | None = None,
) -> dict[str, Any]:
    """Searches the common problem: ``unmap`` is ``zap`` or ``mprotect``, ``clean`` is ``cleaner`` or ``reclaim``.

    ``without`` names fixes that are left out: ``flush_under_lock``, ``delay_rmap``, ``flush_batched``. Without
    ``reductions`` the search is plain and exact; their names are ``saturate``, ``urgent``, ``symmetry``, ``retired``,
    ``dead``, ``eager_stores``. Ctrl-C ends it with KeyboardInterrupt.

    A plain structure with ``safe``, ``violations`` (texts), ``stopped`` (what cut the search short, or None),
    ``states``, ``transitions``, ``depth``, ``memory_bytes``, ``seconds``, ``trace`` (the counterexample, one line for
    each action), and of a saturated search ``maximal``.
    """

def explore(
    kernel_json: str,
    scenario_json: str,
    options_json: str,
    is_over: Callable[[], bool] | None = None,
    progress: Callable[[int, int, int], object] | None = None,
) -> str:
    """Searches a scenario under a resolved kernel; the verdict as JSON text.

    Ctrl-C ends it with what it has, and so does `is_over`, which is asked about ten times a second. `progress` is called
    as often, with states stored, states waiting, and depth.
    """

def explore_audit(kernel_json: str, scenario_json: str, options_json: str) -> tuple[int, int, int, int, bool]:
    """Holds the reductions against plain search.

    Plain states, reduced states, plain states not included, reduced states not reached, same violations.
    """

def explore_listing(kernel_json: str, scenario_json: str, options_json: str) -> str:
    """The small steps to which a scenario's programs are unrolled; equal for programs that differ in nothing modelled."""

def explore_path(kernel_json: str, scenario_json: str, options_json: str, path: list[int]) -> str:
    """Takes a path again: what happens, the state after each action, and what the last one violates, as JSON text."""

def explore_in_order(kernel_json: str, scenario_json: str) -> str:
    """Runs the threads of a scenario one after the other; what happened and the last state as JSON text."""

def invariants() -> list[tuple[str, str, str]]:
    """Each invariant of the explorer: its short name, its long name, what a violation means."""

def program_names() -> list[str]:
    """The names of the programs that a kernel has."""

def replay(
    recording: Recording,
    kernel_json: str,
    config_json: str,
    follow_masks: bool,
    traced: bool = False,
    progress: Callable[[int, int], object] | None = None,
    threads: int = 1,
    keep_flushes: bool = True,
) -> Replay:
    """Replays a recording under a resolved kernel on a machine (both as JSON text).

    With `traced`, everything that the machine did about flushes is kept for `Replay.lab`; slower, and on one thread.
    Without `keep_flushes` only sums are kept, and memory does not grow with the recording.
    `progress` is called now and then with the events done and all of them.
    Ctrl-C ends it with KeyboardInterrupt.
    """

def simulate_tlb(
    config_json: str,
    options_json: str,
    streams: list[
        tuple[
            npt.NDArray[np.uint64],
            npt.NDArray[np.uint64],
            npt.NDArray[np.uint8],
            npt.NDArray[np.uint16],
            npt.NDArray[np.uint64],
        ]
    ],
    progress: Callable[[], object] | None = None,
) -> str:
    """Runs one stream for each CPU through its TLBs; what each CPU came to, as JSON text.

    A stream is addresses and the columns of its events: place, kind, PCID, address. Ctrl-C ends it; `progress` is called now
    and then, and what it raises ends it too.
    """

def step_names() -> list[str]:
    """The names of all steps, control steps first."""

def validate_kernel(json: str) -> None:
    """Check that every program of a resolved kernel (JSON text) can run.

    Raises:
        InputError: The structure is not that of a kernel.
        ProgramError: A step cannot stand where it stands; the message has its path.
    """

@final
class AddressTrace:
    """A file with the addresses of a program's accesses."""

    @staticmethod
    def open(path: str | os.PathLike[str], format: str | None = None) -> AddressTrace:  # noqa: A002  # the usual word
        """Reads any file that is understood; ``format`` insists on one."""

    @staticmethod
    def formats() -> list[str]:
        """The names of the formats."""

    @property
    def format(self) -> str:
        """What the file was written in."""

    @property
    def addresses(self) -> npt.NDArray[np.uint64]:
        """The addresses, a read-only array of shape (accesses,), in bytes."""

    @property
    def threads(self) -> npt.NDArray[np.uint32] | None:
        """The number of the thread of each access, a read-only array; None where the format knows no threads."""

    @property
    def thread_names(self) -> list[str]:
        """The threads' own names, by number."""

    @property
    def nr_instructions(self) -> int:
        """Instructions in the file beside the accesses."""

    @property
    def nr_other_lines(self) -> int:
        """Lines of the file that are neither."""

@final
class CpuMask:
    """An immutable set of the CPUs ``0 .. nr_cpus - 1``, like the kernel's ``struct cpumask``.

    ``CpuMask(nr_cpus, cpus=())`` holds the given CPUs; both have to be in range (at most 8192 CPUs), else
    ``ValueError``. Masks combine like sets (``| & - ^``, ``<= < >= >``) with masks of the same ``nr_cpus`` only.
    """

    def __new__(cls, nr_cpus: SupportsIndex, cpus: Iterable[SupportsIndex] = ()) -> CpuMask: ...
    @classmethod
    def from_cpulist(cls, text: str, nr_cpus: SupportsIndex) -> CpuMask:
        """The mask that a kernel list such as ``"0-3,8"`` or ``"0-31:2/4"`` names."""
    @classmethod
    def from_hex_mask(cls, text: str, nr_cpus: SupportsIndex) -> CpuMask:
        """The mask that hexadecimal groups of 32 bits such as ``"ff,00000003"`` stand for."""
    @classmethod
    def from_numpy(
        cls, array: npt.NDArray[np.bool_] | npt.NDArray[np.uint64], nr_cpus: SupportsIndex | None = None
    ) -> CpuMask:
        """The mask of a bool array with one element for each CPU, or of a uint64 array as ``words()`` gives it."""
    def to_numpy(self) -> npt.NDArray[np.bool_]:
        """A bool array of ``nr_cpus`` elements."""
    def words(self) -> npt.NDArray[np.uint64]:
        """The bits as a uint64 array, 64 CPUs an element, the lowest CPU in the lowest bit of the first."""
    def cpus(self) -> npt.NDArray[np.uint16]:
        """The CPUs of the mask as an ascending uint16 array."""
    @property
    def nr_cpus(self) -> int:
        """How many CPUs the machine has: the width of the mask."""
    @property
    def cpulist(self) -> str:
        """The mask as a kernel list, such as ``"0-3,8"``."""
    @property
    def hex_mask(self) -> str:
        """The mask as hexadecimal groups of 32 bits, the highest first, such as ``"ff,00000003"``."""
    def weight(self) -> int:
        """How many CPUs the mask holds."""
    def weight_and(self, other: CpuMask) -> int:
        """How many CPUs both masks hold."""
    def weight_andnot(self, other: CpuMask) -> int:
        """How many CPUs of this mask are not in ``other``."""
    def weight_or(self, other: CpuMask) -> int:
        """How many CPUs either mask holds."""
    def cpus_and(self, other: CpuMask) -> npt.NDArray[np.uint16]:
        """The CPUs that both masks hold, as an ascending uint16 array."""
    def cpus_andnot(self, other: CpuMask) -> npt.NDArray[np.uint16]:
        """The CPUs of this mask that are not in ``other``, as an ascending uint16 array."""
    def first(self) -> int | None:
        """The lowest CPU, or None."""
    def next(self, after: SupportsIndex) -> int | None:
        """The lowest CPU above ``after``, or None."""
    def any_but(self, cpu: SupportsIndex) -> int | None:
        """The lowest CPU other than ``cpu``, or None."""
    def intersects(self, other: CpuMask) -> bool:
        """Whether some CPU is in both masks."""
    def isdisjoint(self, other: CpuMask) -> bool:
        """Whether no CPU is in both masks."""
    def with_cpu(self, cpu: SupportsIndex) -> CpuMask:
        """This mask and ``cpu``."""
    def without_cpu(self, cpu: SupportsIndex) -> CpuMask:
        """This mask without ``cpu``."""
    def __len__(self) -> int: ...
    def __contains__(self, key: SupportsIndex, /) -> bool: ...
    def __iter__(self) -> Iterator[int]: ...
    def __or__(self, value: CpuMask, /) -> CpuMask: ...
    def __and__(self, value: CpuMask, /) -> CpuMask: ...
    def __sub__(self, value: CpuMask, /) -> CpuMask: ...
    def __xor__(self, value: CpuMask, /) -> CpuMask: ...
    def __ror__(self, value: CpuMask, /) -> CpuMask: ...
    def __rand__(self, value: CpuMask, /) -> CpuMask: ...
    def __rsub__(self, value: CpuMask, /) -> CpuMask: ...
    def __rxor__(self, value: CpuMask, /) -> CpuMask: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __le__(self, value: CpuMask, /) -> bool: ...
    def __lt__(self, value: CpuMask, /) -> bool: ...
    def __ge__(self, value: CpuMask, /) -> bool: ...
    def __gt__(self, value: CpuMask, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[str, int]]: ...

@final
class CpuMaskArray:
    """Many masks of one width, for questions to all of them at once. Immutable.

    ``CpuMaskArray(nr_cpus, words)`` takes a uint64 array of one row for each mask, as ``CpuMask.words()`` gives a row.
    """

    def __new__(cls, nr_cpus: SupportsIndex, words: npt.NDArray[np.uint64]) -> CpuMaskArray: ...
    @classmethod
    def from_masks(cls, masks: Iterable[CpuMask]) -> CpuMaskArray:
        """The masks one after the other; one or more, of one width."""
    @property
    def nr_cpus(self) -> int:
        """How many CPUs the machine has: the width of each mask."""
    def words(self) -> npt.NDArray[np.uint64]:
        """The bits as a uint64 array, one row for each mask."""
    def weights(self) -> npt.NDArray[np.uint32]:
        """How many CPUs each holds."""
    def weights_and(self, other: CpuMask) -> npt.NDArray[np.uint32]:
        """How many CPUs each has in common with ``other``."""
    def weights_andnot(self, other: CpuMask) -> npt.NDArray[np.uint32]:
        """How many CPUs each holds that are not in ``other``."""
    def intersects(self, other: CpuMask) -> npt.NDArray[np.bool_]:
        """Which of them have a CPU in common with ``other``."""
    def union(self) -> CpuMask:
        """The CPUs of any of them."""
    def intersection(self) -> CpuMask:
        """The CPUs of all of them; every CPU if there is none."""
    def __len__(self) -> int: ...
    def __getitem__(self, key: int, /) -> CpuMask: ...
    def __or__(self, value: CpuMask, /) -> CpuMaskArray: ...
    def __and__(self, value: CpuMask, /) -> CpuMaskArray: ...
    def __sub__(self, value: CpuMask, /) -> CpuMaskArray: ...
    def __ror__(self, value: CpuMask, /) -> CpuMaskArray: ...
    def __rand__(self, value: CpuMask, /) -> CpuMaskArray: ...
    def __rsub__(self, value: CpuMask, /) -> CpuMaskArray: ...

@final
class Machine:
    """A machine that runs one kernel, driven by operations as JSON text (`docs/machine.md`).

    ``Machine(config_json, kernel_json)`` takes a machine configuration and a resolved kernel. What cannot be raises
    ``InputError``, a program of steps that cannot run ``ProgramError``.
    """

    def __new__(cls, config_json: str, kernel_json: str) -> Machine: ...
    def apply(self, op_json: str) -> str:
        """Do one operation; ``{"value": ...}`` or ``{"errno": NAME}``."""
    def apply_many(self, ops_json: str) -> str:
        """Do a list of operations, in order; a list of results. One that raises ends the list."""
    def state(self) -> str:
        """Everything that the machine holds, in one canonical form."""
    def flushes(self) -> str:
        """The flush requests since the log was cleared, a list."""
    def tlb_events(self) -> str:
        """The hits of the tracepoint tlb:tlb_flush since the log was cleared, a list."""
    def counters(self) -> str:
        """What was counted since the machine was made."""
    @property
    def nr_ops(self) -> int:
        """Operations done so far: the index that the log gives to the next one."""
    def clear_log(self) -> None:
        """Forget the requests and tracepoints so far; counters go on."""
    def check_consistency(self) -> None:
        """Check that page tables, reverse maps and reference counts agree; raise what is wrong."""

@final
class PageTable:
    """The page tables of one address space, as x86-64 lays them out: ``PageTable(levels=4)``, 4 or 5 levels.

    Addresses are in bytes and multiples of 4096; rights are ``"none"``, ``"r"``, ``"rw"``, ``"rx"`` or ``"rwx"``.
    What is not of whole pages in user space raises ``InputError``.
    """

    def __new__(cls, levels: int = 4) -> PageTable: ...
    def map(self, start: int, nr_pages: int, first_pfn: int, prot: str = "rw") -> RangeSummary:
        """Map pages to consecutive frames from ``first_pfn`` on, whatever was mapped there."""
    def protect(self, start: int, nr_pages: int, prot: str) -> RangeSummary:
        """Give the present entries other rights."""
    def clear(self, start: int, nr_pages: int) -> RangeSummary:
        """Empty all entries; the tables stay."""
    def mkclean(self, start: int, nr_pages: int) -> RangeSummary:
        """Take the dirty bit of the present entries."""
    def move(self, old_start: int, new_start: int, nr_pages: int) -> None:
        """Move what is mapped to a free place, by whole tables where both addresses allow."""
    def entries(self, start: int, nr_pages: int) -> npt.NDArray[np.uint64]:
        """The entries of 4 KiB pages as a uint64 array of ``nr_pages`` elements, 0 where no table is."""
    @property
    def nr_tables(self) -> int:
        """How many tables there are, the top one included."""

@final
class RangeSummary:
    """What an operation on a range met and did, in pages of 4 KiB."""

    @property
    def nr_present(self) -> int:
        """Pages that were present."""
    @property
    def nr_changed(self) -> int:
        """Pages whose entry has another value now."""
    @property
    def nr_dirty(self) -> int:
        """Pages that were present and dirty."""
    @property
    def nr_young(self) -> int:
        """Pages that were present and young."""
    @property
    def changed_start(self) -> int:
        """The first byte of the first changed page."""
    @property
    def changed_end(self) -> int:
        """The byte after the last changed page; equal to ``changed_start`` when none changed."""

@final
class Recording:
    """A recording: what programs did to their address spaces, and the flushes that the kernel did for it."""

    @staticmethod
    def open(path: str | os.PathLike[str], progress: Callable[[int, int], object] | None = None) -> Recording:
        """Reads any file that is understood: a recording, perf script text, lab records, a scenario.

        ``progress(done, of)`` is told the bytes of a text, ``of`` 0 if its length is not known; what it raises ends the
        reading, as Ctrl-C does.
        """
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as a ``.tlbr`` file, whole or not at all."""
    def verify(self) -> None:
        """Checks that all that refers to something does (kinds, tasks, names, rows)."""
    @staticmethod
    def verify_file(path: str | os.PathLike[str]) -> None:
        """Reads all of a ``.tlbr`` file, compares its checksums and checks its content."""
    @property
    def meta(self) -> dict[str, Any]:
        """Where it comes from and what is known about its machine."""
    @property
    def tasks(self) -> list[tuple[int, int, str]]:
        """Its threads: tid, pid, name."""
    @property
    def names(self) -> list[str]:
        """Names that events refer to by index."""
    @property
    def nr_events(self) -> int:
        """How many events there are."""
    @property
    def nr_flushes(self) -> int:
        """How many records of the kernel's flush code there are."""
    event_columns: Final[list[str]]
    """The names of the columns of events."""
    flush_columns: Final[list[str]]
    """The names of the columns of flush records."""
    @staticmethod
    def event_kinds() -> list[tuple[int, str]]:
        """The kinds of events: number, name."""
    @staticmethod
    def flush_kinds() -> list[tuple[int, str]]:
        """The kinds of flush records: number, name."""
    @staticmethod
    def attributions() -> list[tuple[int, str]]:
        """How a flush record found its event: number, name."""
    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of events, read-only, without a copy."""
    def flush_column(self, name: str) -> npt.NDArray[Any]:
        """A column of flush records, read-only, without a copy."""

@final
class Replay:
    """What a recording gave under a kernel."""

    @property
    def nr_events(self) -> int:
        """Events replayed."""
    @property
    def counters(self) -> dict[str, int]:
        """The machine's counters, by name."""
    @property
    def by_operation(self) -> dict[str, dict[str, int]]:
        """Sums per kind of operation: name -> counter -> value."""
    @property
    def notes(self) -> dict[str, int]:
        """What had to be assumed or passed over: text -> how often."""
    @property
    def noted(self) -> list[tuple[int, str]]:
        """The same, one by one: row of the event, text."""
    def flushes(self) -> dict[str, npt.NDArray[Any]]:
        """The flushes that the model did, as columns: name -> array."""
    def validate(self, recording: Recording, limit: int) -> dict[str, Any]:
        """Holds the replay against the flushes of its recording.

        A plain structure with ``matched``, ``missed``, ``extra``, ``score``, the same four in ``without_targets``,
        ``by_operation``, ``disagreements`` (the `limit` largest groups), ``nr_unattributed``, ``has_truth``.
        """
    def operations(self, recording: Recording, *, only_differing: bool = False) -> list[dict[str, Any]]:
        """The operations with both lists of flushes: row, kind, predicted, recorded, counts.

        With `only_differing` those whose lists differ.
        """
    def lab(self, recording: Recording) -> dict[str, Any]:
        """Holds a traced replay of a recording of the kernel lab against it, entry by entry and column by column.

        A plain structure with ``single`` and ``parallel`` (nr_entries, nr_exact, nr_explained), ``by_operation``
        (both of each) and ``differences``: the entries that differ, with both sides.

        Raises:
            ValueError: The replay was not traced.
        """
