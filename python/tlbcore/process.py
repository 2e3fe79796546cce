"""Processes and threads: names for the machine's tasks and address spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.calls import Calls

if TYPE_CHECKING:
    from tlbcore.simulator import Simulator

__all__ = ["Process", "Thread"]


class Thread(Calls):
    """A task: it runs on a CPU and shares the address space of its process. Made by :meth:`Process.thread`."""

    def __init__(self, process: Process, task: int) -> None:
        self._process = process
        self._task = task

    @property
    def sim(self) -> Simulator:
        """The simulator that it lives in."""
        return self._process.sim

    @property
    def task(self) -> int:
        """The machine's id of it."""
        return self._task

    @property
    def process(self) -> Process:
        """The process that it belongs to."""
        return self._process

    @property
    def cpu(self) -> int:
        """The CPU that it runs on, or ran on last."""
        return self.sim.cpu_of(self._task)

    @property
    def running(self) -> bool:
        """Whether it is the current thread of its CPU."""
        return self.sim.current(self.cpu) == self._task

    def schedule(self, cpu: int | None = None) -> None:
        """Go on with it, on another CPU if one is given; whoever ran there does so no longer."""
        target = self.cpu if cpu is None else cpu
        if self.running and target != self.cpu:
            self.sim.idle(self.cpu)
        self.sim.schedule(target, self)

    def sleep(self) -> None:
        """Leave the CPU idle: it keeps the address space loaded, lazily."""
        if self.running:
            self.sim.idle(self.cpu)

    def exit(self) -> None:
        """End; the last thread of a process takes the address space with it."""
        self._process.forget(self)
        self._exit([self._task])

    def __repr__(self) -> str:
        """``<Thread 1 of process 1, cpu 2>``."""
        return f"<Thread {self._task} on cpu {self.cpu}{'' if self.running else ', not running'}>"


class Process(Calls):
    """Threads with one address space. Made by :meth:`Simulator.process` and :meth:`fork`.

    What it is asked for its main thread does: the first one, or after that one's exit the oldest that is left.
    """

    def __init__(self, sim: Simulator, task: int) -> None:
        self._sim = sim
        self._threads = [Thread(self, task)]

    @property
    def sim(self) -> Simulator:
        """The simulator that it lives in."""
        return self._sim

    @property
    def threads(self) -> tuple[Thread, ...]:
        """Its threads, the oldest first; none after its exit."""
        return tuple(self._threads)

    @property
    def main(self) -> Thread:
        """Its main thread.

        Raises:
            InputError: It has exited.

        """
        return self._sim.alive(self._threads)

    @property
    def task(self) -> int:
        """The machine's id of the main thread."""
        return self.main.task

    def thread(self, cpu: int | None = None) -> Thread:
        """Start a thread that runs on ``cpu``, or on the first CPU without one.

        Raises:
            InputError: No such CPU, or none is free.

        """
        target = self._sim.free_cpu() if cpu is None else self._sim.check_cpu(cpu)
        task: int = self._sim.apply({"op": "clone_thread", "task": self.task})
        thread = Thread(self, task)
        self._threads.append(thread)
        self._sim.schedule(target, thread)
        return thread

    def fork(self, cpu: int | None = None) -> Process:
        """Make a process with a copy of this address space.

        Args:
            cpu: Where it runs; not given, it does not run yet, and a call of it takes the CPU of its parent.

        """
        if cpu is not None:
            self._sim.check_cpu(cpu)
        child = Process(self._sim, self._call("fork"))
        if cpu is not None:
            self._sim.schedule(cpu, child.main)
        return child

    def exec(self) -> None:
        """Begin with an empty address space; the other threads end."""
        for thread in self._threads[1:]:
            thread.exit()
        self._call("exec")

    def exit(self) -> None:
        """End all threads, the main one last."""
        for thread in reversed(self.threads):
            thread.exit()

    def forget(self, thread: Thread) -> None:
        """A thread of it ended (called by the thread)."""
        if thread in self._threads:
            self._threads.remove(thread)

    def __repr__(self) -> str:
        """``<Process mm 1, 2 threads>``."""
        if not self._threads:
            return "<Process, exited>"
        count = len(self._threads)
        return f"<Process mm {self.mm}, {count} thread{'' if count == 1 else 's'}>"
