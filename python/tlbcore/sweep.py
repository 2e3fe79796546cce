"""Sweeps: kernels x machines x recordings, each point a replay, over any `concurrent.futures.Executor`.

>>> import tlbcore
>>> from concurrent.futures import ThreadPoolExecutor
>>> recordings = ["data/recordings/gcc.perf.txt.zst"]
>>> with ThreadPoolExecutor(2) as pool:
...     found = tlbcore.sweep(recordings, ["linux-5.10", "linux-6.18"], ["zen4_genoa"], executor=pool)
>>> [(row["kernel"], row["nr_flush_requests"]) for row in found.to_rows()]
[('linux-5.10', 1478), ('linux-6.18', 1441)]

What goes to a worker is a path and plain structures, so that it may be a thread, a process or another computer that sees
the same files. Points come out in the order of the question, whatever ends first.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core, costs, machines, program
from tlbcore.caveats import caveats
from tlbcore.errors import TlbcoreError
from tlbcore.given import several, wrong_kind
from tlbcore.recordings import load, machine_config
from tlbcore.replay import kernel_named
from tlbcore.report.table import counted, number
from tlbcore.results import Cell, Result
from tlbcore.validate import find_recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tlbcore.kernel import Kernel
    from tlbcore.machines import Machine

__all__ = ["Failure", "Point", "Sweep", "sweep"]

_HINTS: Final[dict[type | tuple[type, ...], str]] = {_core.Recording: "its `save` writes one"}


@dataclass(frozen=True)
class Point:
    """What one recording gave under one kernel on one machine."""

    recording: str
    kernel: str
    machine: str
    nr_events: int
    counters: dict[str, int]
    by_operation: dict[str, dict[str, int]]
    notes: dict[str, int]
    #: `tlbcore.costs.CostEstimate` with its sums, a model's opinion.
    cost_ns: dict[str, float]
    #: What the recording says against these numbers, a line each (`tlbcore.caveats`).
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A point that could not be replayed."""

    recording: str
    kernel: str
    machine: str
    message: str


@dataclass(frozen=True, repr=False)
class Sweep(Result):
    """All points, by recording, then machine, then kernel, each in the order in which they were given."""

    points: tuple[Point, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Why numbers are too low or guessed, a line for each recording and reason, which begins with the recording."""
        lines = (f"{point.recording}: {line}" for point in self.points for line in point.warnings)
        return list(dict.fromkeys(lines))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain structures."""
        return {
            "warnings": self.warnings,
            "points": [asdict(point) for point in self.points],
            "failures": [asdict(failure) for failure in self.failures],
            "cost_ns_is": costs.LABEL,
        }

    def to_rows(self) -> list[dict[str, Cell]]:
        """A row for each point, with its counters and its estimated times."""
        return [
            {
                "recording": point.recording,
                "kernel": point.kernel,
                "machine": point.machine,
                "nr_events": point.nr_events,
                **point.counters,
                **point.cost_ns,
            }
            for point in self.points
        ]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Flushes, IPIs and estimated time of each point, with ratios to the first kernel on the same machine."""
        head = ["recording", "machine", "kernel", "flushes", "ratio", "IPIs", "ratio", "time of all, us *", "ratio"]
        first: dict[tuple[str, str], Point] = {}
        rows = []
        for point in self.points:
            base = first.setdefault((point.recording, point.machine), point)
            cells = [point.recording, point.machine, point.kernel]
            for value, of in (
                (point.counters["nr_flush_requests"], base.counters["nr_flush_requests"]),
                (point.counters["nr_ipis"], base.counters["nr_ipis"]),
            ):
                cells += [number(value), number(value / of if of else None)]
            time_ns, base_ns = point.cost_ns["total_ns"], base.cost_ns["total_ns"]
            cells += [number(round(time_ns / 1000)), number(time_ns / base_ns if base_ns else None)]
            rows.append(cells)
        return head, rows

    def headline(self) -> str:
        """How many points there are, and of what."""
        of = (
            counted(len({getattr(p, name) for p in self.points}), name) for name in ("recording", "kernel", "machine")
        )
        text = f"{counted(len(self.points), 'point')}: {', '.join(of)}"
        return f"{text}; {len(self.failures)} failed" if self.failures else text


@dataclass(frozen=True)
class _Task:
    """One point, as it goes to a worker."""

    path: str
    kernel: str
    kernel_json: str
    machine: str
    config_json: str


def sweep(
    recordings: Sequence[str | os.PathLike[str]],
    kernels: Sequence[str | Kernel],
    machines_: Sequence[str | Machine] = (machines.DEFAULT,),
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Sweep:
    """Replay every recording under every kernel on every machine.

    Args:
        recordings: Files, and folders of them.
        kernels: As `tlbcore.replay.replay` takes them; ratios are to the first.
        machines_: As `tlbcore.machines.get` takes them, or machines. CPUs, levels and PCID are the recording's.
        executor: Where the replays run: a pool of threads or processes, `distributed.Client.get_executor()`, or None for
            here, one after the other. The result is the same.
        progress: Called with the points done and all of them.

    Raises:
        InputError: A kernel or a machine that cannot be, a folder without recordings, or nothing to do. A recording
            that cannot be read is a `Failure`.
        ProgramError: A kernel with an impossible step.
    """
    chosen = [kernel_named(kernel) for kernel in several("kernels", kernels)]
    for kernel in chosen:
        program.validate(kernel)
    texts = [(kernel.name, kernel.to_json()) for kernel in chosen]
    found = [machines.get(machine) for machine in several("machines", machines_)]
    names = [m if isinstance(m, str) else m.name for m in machines_]
    configs = [(name, machine.to_json()) for name, machine in zip(names, found, strict=True)]
    for recording in several("recordings", recordings):
        if not isinstance(recording, str | os.PathLike):
            raise wrong_kind("recordings", recording, "files, which any worker can read", _HINTS)
    paths = find_recordings(recordings)
    tasks = [
        _Task(str(path), kernel, kernel_json, machine, config_json)
        for path, (machine, config_json), (kernel, kernel_json) in product(paths, configs, texts)
    ]
    if executor is not None and not hasattr(executor, "submit"):
        raise wrong_kind("executor", executor, "a concurrent.futures.Executor, or None for here")
    results = list(_run(tasks, executor, progress))
    return Sweep(
        tuple(result for result in results if isinstance(result, Point)),
        tuple(result for result in results if isinstance(result, Failure)),
    )


def _run(
    tasks: Sequence[_Task], executor: Executor | None, progress: Callable[[int, int], object] | None
) -> list[Point | Failure]:
    tell = progress or (lambda _done, _of: None)
    if executor is None:
        results = []
        for number_done, task in enumerate(tasks):
            tell(number_done, len(tasks))
            results.append(_point(task))
        return results
    futures: list[Future[Point | Failure]] = [executor.submit(_point, task) for task in tasks]
    waiting = set(futures)
    try:
        while waiting:
            _, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            tell(len(tasks) - len(waiting), len(tasks))
        return [future.result() for future in futures]
    finally:
        for future in waiting:  # somebody pressed Ctrl-C: what has not begun need not
            future.cancel()


@lru_cache(maxsize=2)
def _load(path: str) -> tuple[_core.Recording, tuple[str, ...]]:
    """A recording and what it says against itself; the tasks of one come one after the other."""
    recording = load(path)
    return recording, tuple(caveats(recording))


def _point(task: _Task) -> Point | Failure:
    """Replay one point, wherever this runs."""
    try:
        recording, warnings = _load(task.path)
        config = machine_config(recording, json.loads(task.config_json))
        kernel_json = _with_ceiling(task.kernel_json, recording.meta)
        result = _core.replay(recording, kernel_json, json.dumps(config), follow_masks=False, keep_flushes=False)
    except TlbcoreError as error:
        return Failure(task.path, task.kernel, task.machine, str(error))
    except OSError as error:
        return Failure(task.path, task.kernel, task.machine, f"{task.path}: {error.strerror or error}")
    cost = costs.estimate(result.counters, config["costs"])
    sums = {name: getattr(cost, name) for name in ("initiator_ns", "interference_ns", "total_ns")}
    return Point(
        task.path,
        task.kernel,
        task.machine,
        result.nr_events,
        result.counters,
        result.by_operation,
        result.notes,
        asdict(cost) | sums,
        warnings,
    )


def _with_ceiling(kernel_json: str, meta: Mapping[str, Any]) -> str:
    """The kernel with the flush ceiling of the recorded one where that is known, as `replay` has it."""
    if meta.get("ceiling_pages") is None:
        return kernel_json
    plain = json.loads(kernel_json)
    plain["constants"]["tlb_single_page_flush_ceiling"] = int(meta["ceiling_pages"])
    return json.dumps(plain)
