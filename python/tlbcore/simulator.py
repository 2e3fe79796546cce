"""A machine driven by hand: processes, threads, system calls, and the flushes that come of them.

The simulator names things and keeps track of who runs where; every rule is the machine's (`docs/machine.md`).
Operations run one after the other, each to its end; for interleavings there is the explorer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from tlbcore import kernels, machines
from tlbcore.backend import Json, open_backend
from tlbcore.calls import kernel_error
from tlbcore.errors import InputError
from tlbcore.flush_log import Flush, TlbEvent
from tlbcore.given import whole_number, wrong_kind
from tlbcore.kernel import Kernel
from tlbcore.lookup import find
from tlbcore.plain_words import in_plain_words
from tlbcore.process import Process, Thread
from tlbcore.schemes.mmu_gather import MmuGather

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEFAULT_MACHINE", "File", "MachineLike", "Simulator"]

DEFAULT_MACHINE: Final[Mapping[str, object]] = {
    "nr_cpus": 4,
    "levels": 4,
    "pcid": True,
    "invlpg_keeps_psc": False,
    "tlb_enabled": True,
    "tlb": {
        "l1_4k": {"entries": 64, "ways": 4},
        "l1_2m": {"entries": 32, "ways": 4},
        "l1_1g": {"entries": 4, "ways": 4},
        "stlb": {"entries": 1536, "ways": 12},
        "stlb_1g": {"entries": 16, "ways": 4},
        "pde_cache": {"entries": 32, "ways": 32},
        "pdpte_cache": {"entries": 4, "ways": 4},
        "pml4e_cache": {"entries": 2, "ways": 2},
        "pml5e_cache": {"entries": 0, "ways": 0},
    },
    "thp": "never",
}
"""Four CPUs of a common x86-64 server core: four levels of page tables, PCID, TLBs of 64 and 1536 entries."""


class MachineLike(Protocol):
    """A description of a machine, as :mod:`tlbcore.machines` has them."""

    def config(self) -> Mapping[str, object]:
        """The machine configuration of `docs/machine.md` section 1."""


MachineSpec: TypeAlias = "str | Mapping[str, object] | MachineLike | None"
KernelSpec: TypeAlias = "str | Kernel | Mapping[str, object]"


@dataclass(frozen=True)
class File:
    """A file that can be mapped. Made by :meth:`Simulator.file`."""

    #: The machine's id of it.
    id: int
    #: Its size in pages; None if accesses never run past its end.
    nr_pages: int | None
    #: Shared memory (tmpfs): never written back, not in the page cache before it is touched.
    shmem: bool


class Simulator:
    """A machine with a kernel, driven by hand.

    >>> from tlbcore.simulator import Simulator
    >>> from tlbcore.units import PAGE
    >>> sim = Simulator(kernel="linux-6.18")
    >>> p = sim.process()
    >>> other = p.thread(cpu=2)
    >>> addr = p.mmap(64 * PAGE)
    >>> p.touch(addr, 64, write=True)
    >>> p.munmap(addr, 16 * PAGE)
    >>> p.mprotect(addr + 16 * PAGE, 48 * PAGE, "r")
    >>> for flush in sim.flushes:
    ...     print(flush)
    munmap: cpu 0 mm 1, 0x7ffff7fbf000 +16 pages, told 2
    mprotect: cpu 0 mm 1, all, told 2
    >>> sim.counters["nr_ipis"]
    2

    Args:
        machine: A spec of :func:`tlbcore.machines.get`, an object with ``config()`` as it gives one, or a machine
            configuration; ``DEFAULT_MACHINE`` if None.
        kernel: A name or spec of :func:`tlbcore.kernels.get`, a :class:`tlbcore.kernel.Kernel`, or a resolved one.
        nr_cpus: CPUs, instead of the machine's.
        thp: Transparent huge pages: ``never``, ``madvise`` or ``always``, instead of the machine's; what neither says
            is ``never``.
        backend: ``core``, or ``reference`` for the slow machine in Python.

    Raises:
        InputError: A machine or kernel that cannot be.
        ProgramError: A program of the kernel that cannot run; the message has the path of the step.

    """

    def __init__(
        self,
        machine: MachineSpec = None,
        kernel: KernelSpec = "linux-6.18",
        *,
        nr_cpus: int | None = None,
        thp: str | None = None,
        backend: str = "core",
    ) -> None:
        config = _config(machine)
        if nr_cpus is not None:
            config["nr_cpus"] = nr_cpus
        config["thp"] = find("thp", thp or config.get("thp") or "never", ("never", "madvise", "always"))
        self._kernel = _kernel(kernel)
        resolved = _resolve(self._kernel) if isinstance(self._kernel, Kernel) else self._kernel
        with in_plain_words():
            self._backend = open_backend(backend, config, resolved)
        self._nr_cpus: int = config["nr_cpus"]
        self._current: list[int | None] = [None] * self._nr_cpus
        self._cpu_of: dict[int, int] = {}
        self._labels: dict[int, str] = {}
        self._forgotten = (0, 0)
        self._counted: Mapping[str, int] = {}

    # --- things to work with -----------------------------------------------------------------------------------------

    @property
    def nr_cpus(self) -> int:
        """How many CPUs the machine has."""
        return self._nr_cpus

    def process(self, cpu: int | None = None) -> Process:
        """Start a process with an empty address space that runs on ``cpu``, or on the first CPU without a thread.

        Raises:
            InputError: No such CPU, or none is free.

        """
        target = self.free_cpu() if cpu is None else self.check_cpu(cpu)
        process = Process(self, self.apply({"op": "create_process"}))
        self.schedule(target, process.main)
        return process

    def file(self, nr_pages: int | None = None, *, shmem: bool = False) -> File:
        """Make a file of ``nr_pages``, or one without an end; ``shmem``: of shared memory."""
        size = None if nr_pages is None else whole_number("file: nr_pages", nr_pages)
        return File(self.apply({"op": "create_file", "shmem": shmem, "nr_pages": size}), size, shmem)

    def schedule(self, cpu: int, thread: Thread | None) -> None:
        """Let a CPU go on with a thread, or with none (`context_switch()`).

        Raises:
            InputError: The thread runs on another CPU.

        """
        self.apply({"op": "schedule", "cpu": self.check_cpu(cpu), "task": None if thread is None else thread.task})

    def idle(self, cpu: int) -> None:
        """Let a CPU run nothing: it keeps its address space loaded, lazily (`enter_lazy_tlb()`)."""
        self.schedule(cpu, None)

    def advance_time(self, ns: int) -> None:
        """Let nanoseconds pass; only the trimming of `mm_cpumask` looks at the time."""
        self.apply({"op": "advance_time", "ns": whole_number("advance_time: ns", ns)})

    def apply(self, operation: Mapping[str, object]) -> Any:  # noqa: ANN401  # an address, an id or None, by operation
        """Do any operation of `docs/machine.md` section 4, given as its plain structure; return its value.

        Raises:
            OSError: The kernel refuses, with its errno (a signal is a :class:`tlbcore.calls.FaultError`).
            InputError: An operation that cannot be asked for.

        """
        self._labels[self._backend.nr_ops()] = _label(operation)
        with in_plain_words():
            result = self._backend.apply(operation)
        name = result.get("errno")
        if name is not None:
            raise kernel_error(name, _describe(operation))
        self._follow(operation, result["value"])
        return result["value"]

    # --- what happened -----------------------------------------------------------------------------------------------

    @property
    def flushes(self) -> list[Flush]:
        """The flush requests since the start or the last :meth:`clear`, in order."""
        entries = self._backend.flushes()[self._forgotten[0] :]
        return [Flush.from_log(entry, self._labels[entry["op"]], self._nr_cpus) for entry in entries]

    @property
    def tlb_events(self) -> list[TlbEvent]:
        """Each flush of a CPU since the start or the last :meth:`clear`, in order.

        Their ``request`` counts from the start of the simulator.
        """
        return [TlbEvent.from_log(entry) for entry in self._backend.tlb_events()[self._forgotten[1] :]]

    @property
    def counters(self) -> dict[str, int]:
        """The machine's counters, counted since the start or the last :meth:`clear`."""
        return {name: count - self._counted.get(name, 0) for name, count in self._backend.counters().items()}

    def clear(self) -> None:
        """Forget the flushes and events so far and count from zero; the machine stays as it is."""
        self._forgotten = (len(self._backend.flushes()), len(self._backend.tlb_events()))
        self._counted = dict(self._backend.counters())

    def state(self) -> Json:
        """Everything that the machine holds: address spaces, tables, pages, CPUs, TLBs (`docs/machine.md`)."""
        return self._backend.state()

    # --- who runs where ----------------------------------------------------------------------------------------------

    def current(self, cpu: int) -> int | None:
        """Id of the thread that runs on a CPU, None if it is idle."""
        return self._current[self.check_cpu(cpu)]

    def cpu_of(self, task: int) -> int:
        """The CPU on which a thread runs or last ran."""
        return self._cpu_of[task]

    def mm_of(self, task: int) -> int:
        """Id of the address space of a thread.

        Raises:
            InputError: The thread ended.

        """
        for entry in self.state()["tasks"]:
            if entry["id"] == task and entry["mm"] is not None:
                mm: int = entry["mm"]
                return mm
        raise InputError(f"thread {task}: found that it ended, expected one with an address space")

    def run_on(self, task: int) -> None:
        """Switch to a thread on the CPU where it ran last, unless it runs."""
        cpu = self._cpu_of.get(task)
        if cpu is not None and self._current[cpu] != task:
            self.apply({"op": "schedule", "cpu": cpu, "task": task})

    def free_cpu(self) -> int:
        """Return the first CPU without a thread.

        Raises:
            InputError: There is none.

        """
        for cpu, task in enumerate(self._current):
            if task is None:
                return cpu
        raise InputError(f"cpu: found a thread on each of the {self._nr_cpus} CPUs, expected a free one or a choice")

    def check_cpu(self, cpu: int) -> int:
        """Return ``cpu`` if the machine has it.

        Raises:
            InputError: It has not.

        """
        found = whole_number("cpu", cpu)
        if found >= self._nr_cpus:
            raise InputError(f"cpu: found {cpu}, expected 0 to {self._nr_cpus - 1}")
        return found

    def alive(self, threads: Sequence[Thread]) -> Thread:
        """Return the first of a process's threads.

        Raises:
            InputError: There is none: the process exited.

        """
        if not threads:
            raise InputError("process: found that it exited, expected a running one")
        return threads[0]

    def gather_scheme(self) -> MmuGather:
        """The kernel's gather for MADV_DONTNEED; Linux's if the kernel has none there or is plain data."""
        scheme = self._kernel.schemes.get("madvise_dontneed") if isinstance(self._kernel, Kernel) else None
        return scheme if isinstance(scheme, MmuGather) else MmuGather()

    def _follow(self, operation: Mapping[str, object], value: object) -> None:
        """Keep track of who runs where, after an operation that succeeded."""
        op, task = operation["op"], operation.get("task")
        if op == "schedule":
            cpu = operation["cpu"]
            if isinstance(cpu, int):
                self._current[cpu] = task if isinstance(task, int) else None
                if isinstance(task, int):
                    self._cpu_of[task] = cpu
        elif op == "exit":
            self._current = [None if current == task else current for current in self._current]
        elif op == "create_process" and isinstance(value, int):
            self._cpu_of[value] = 0
        elif op in {"fork", "clone_thread"} and isinstance(value, int) and isinstance(task, int):
            self._cpu_of[value] = self._cpu_of[task]

    def __repr__(self) -> str:
        """``<Simulator linux-6.18, 4 CPUs>``."""
        name = self._kernel.name if isinstance(self._kernel, Kernel) else self._kernel.get("name")
        return f"<Simulator {name}, {self._nr_cpus} CPUs>"


def _config(machine: MachineSpec) -> Json:
    if machine is None:
        return dict(DEFAULT_MACHINE)
    if isinstance(machine, str):
        return dict(machines.get(machine).config())
    if not isinstance(machine, Mapping) and not callable(getattr(machine, "config", None)):
        raise wrong_kind("machine", machine, 'a name such as "zen4_genoa", a Machine or its configuration')
    return dict(machine) if isinstance(machine, Mapping) else dict(machine.config())


def _kernel(kernel: KernelSpec) -> Kernel | Mapping[str, object]:
    if isinstance(kernel, Mapping):
        return kernel
    try:
        return kernels.get(kernel)
    except ValueError as error:
        raise InputError(str(error)) from error


def _resolve(kernel: Kernel) -> Mapping[str, object]:
    try:
        return kernel.resolve()
    except (KeyError, ValueError) as error:
        raise InputError(str(error.args[0])) from error


def _label(operation: Mapping[str, object]) -> str:
    """What an operation is called in the log: accesses by their kind, madvise with its advice."""
    op = str(operation.get("op"))
    if op == "access":
        kind = str(operation.get("kind"))
        return "fetch" if kind == "exec" else kind
    return f"madvise_{operation.get('advice')}" if op == "madvise" else op


def _describe(operation: Mapping[str, object]) -> str:
    addr = operation.get("addr", operation.get("old"))
    return f"{_label(operation)} at {addr:#x}" if isinstance(addr, int) else _label(operation)
