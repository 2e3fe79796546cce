"""A recording as a trace for Perfetto (ui.perfetto.dev): a track per CPU and per thread, flows from an IPI to who got it.

The form is that of `protos/perfetto/trace/`: `trace_packet.proto`, `track_event/track_descriptor.proto`,
`track_event/track_event.proto`, `track_event/debug_annotation.proto`; the numbers of fields below are theirs.

On the track of a CPU stand the tasks that ran there, as slices, and the flushes that it was told of; on that of a thread its
calls, as slices, its faults, and the flushes that it asked for. Each CPU that was told is one flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tlbcore import machines, recordings
from tlbcore.export.protobuf import fixed64, integer, message, text
from tlbcore.profile.flushes import predicted, recorded, task_name
from tlbcore.replay import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tlbcore._core import Recording
    from tlbcore.profile.flushes import Flushes

__all__ = ["packets", "write_perfetto"]

_PACKET: Final = 1
_TIMESTAMP, _SEQUENCE, _TRACK_EVENT, _SEQUENCE_FLAGS, _TRACK_DESCRIPTOR = 8, 10, 11, 13, 60
_CLEARED: Final = 1
_TYPE, _TRACK, _NAME, _CATEGORY, _ANNOTATION, _FLOW, _FLOW_END = 9, 11, 23, 22, 4, 47, 48
_BEGIN, _END, _INSTANT = 1, 2, 3
_UUID, _TRACK_NAME, _PROCESS, _THREAD, _PARENT, _ORDER, _RANK = 1, 2, 3, 4, 5, 11, 12
_EXPLICIT: Final = 3

_CPUS: Final = 1
_CPU, _PROCESSES, _THREADS = 1 << 20, 2 << 20, 3 << 20
"""Numbers of tracks: that of all CPUs, then one number above each of these for every CPU, process, thread."""

_SHOWN_ARGUMENTS: Final = 4


_PER_TELLING: Final = 4096


def write_perfetto(recording: Recording, path: Path, progress: Callable[[int, int, str], None] | None = None) -> None:
    """Writes the trace; flushes are those recorded, or else the model's. `progress` is told events done, of how many, and what."""
    with path.open("wb") as out:
        for packet in packets(recording, progress):
            out.write(packet)


def packets(recording: Recording, progress: Callable[[int, int, str], None] | None = None) -> Iterator[bytes]:
    """The packets of the trace, each as a field of `Trace`: tracks first, then what happened in the order of time."""
    tell = progress or (lambda _done, _of, _what: None)
    flushes = recorded(recording)
    if flushes is None:
        flushes = predicted(replay(recording, recordings.kernel_of(recording), machines.get("default").config()))
    first = True
    for track in _tracks(recording, flushes):
        yield message(_PACKET, integer(_SEQUENCE, 1), *([integer(_SEQUENCE_FLAGS, _CLEARED)] if first else []), track)
        first = False
    happened: list[tuple[int, int, bytes]] = []
    for part in (_calls(recording), _runs(recording), _flushes(recording, flushes)):
        for entry in part:
            happened.append(entry)
            if len(happened) % _PER_TELLING == 0:
                tell(len(happened), 0, "events")
    # Of what happens at the same moment, what ends comes before what begins.
    happened.sort(key=lambda event: event[:2])
    for number, (time_ns, _, event) in enumerate(happened):
        if number % _PER_TELLING == 0:
            tell(number, len(happened), "written")
        yield message(_PACKET, integer(_TIMESTAMP, time_ns), integer(_SEQUENCE, 1), message(_TRACK_EVENT, event))


def _tracks(recording: Recording, flushes: Flushes) -> Iterator[bytes]:
    yield message(_TRACK_DESCRIPTOR, integer(_UUID, _CPUS), text(_TRACK_NAME, "CPUs"), integer(_ORDER, _EXPLICIT))
    cpus = {int(cpu) for cpu in np.unique(recording.column("cpu"))} | {int(c) for c in flushes.interruptions.cpu}
    for cpu in sorted(cpus):
        uuid = integer(_UUID, _CPU + cpu)
        yield message(
            _TRACK_DESCRIPTOR, uuid, integer(_PARENT, _CPUS), text(_TRACK_NAME, f"CPU {cpu}"), integer(_RANK, cpu)
        )
    names = {pid: comm for tid, pid, comm in recording.tasks if tid == pid}
    for pid in dict.fromkeys(pid for _, pid, _ in recording.tasks):
        process = message(_PROCESS, integer(1, pid), text(6, names.get(pid, "?")))
        yield message(_TRACK_DESCRIPTOR, integer(_UUID, _PROCESSES + pid), process)
    for at, (tid, pid, comm) in enumerate(recording.tasks):
        thread = message(_THREAD, integer(1, pid), integer(2, tid), text(5, comm))
        yield message(_TRACK_DESCRIPTOR, integer(_UUID, _THREADS + at), integer(_PARENT, _PROCESSES + pid), thread)


def _slice(name: str, category: str, track: int, kind: int, *more: bytes) -> bytes:
    return b"".join((integer(_TYPE, kind), integer(_TRACK, track), text(_CATEGORY, category), text(_NAME, name), *more))


def _note(name: str, value: int | str) -> bytes:
    shown = text(6, value) if isinstance(value, str) else integer(4, value)
    return message(_ANNOTATION, text(10, name), shown)


def _calls(recording: Recording) -> Iterator[tuple[int, int, bytes]]:
    kinds = {int(number): name for number, name in recording.event_kinds()}
    names = ("time_ns", "end_ns", "kind", "task", "a0", "a1", "a2", "a3", "ret")
    columns = [recording.column(name).tolist() for name in names]
    nr_tasks = len(recording.tasks)
    for time_ns, end_ns, number, task, *args, ret in zip(*columns, strict=True):
        kind = kinds[number]
        if task >= nr_tasks or kind in {"switch", "migrate_task"}:
            continue
        track = _THREADS + task
        if kind == "fault":
            where = _note("address", f"0x{args[0]:x}")
            yield time_ns, 1, _slice("page fault", "fault", track, _INSTANT, where, _note("error_code", args[1]))
            continue
        notes = tuple(_note(f"a{at}", f"0x{args[at]:x}") for at in range(_SHOWN_ARGUMENTS))
        if end_ns > time_ns:
            yield time_ns, 1, _slice(kind, "call", track, _BEGIN, *notes, _note("ret", ret))
            yield end_ns, 0, integer(_TYPE, _END) + integer(_TRACK, track)
        else:
            yield time_ns, 1, _slice(kind, "call", track, _INSTANT, *notes)


def _runs(recording: Recording) -> Iterator[tuple[int, int, bytes]]:
    """Which task ran where, from switch to switch; idle is nothing."""
    switch = {name: number for number, name in recording.event_kinds()}["switch"]
    rows = np.flatnonzero(recording.column("kind") == switch)
    columns = (recording.column(name)[rows].tolist() for name in ("time_ns", "cpu", "a0"))
    running: dict[int, bool] = {}
    last = 0
    for time_ns, cpu, task in zip(*columns, strict=True):
        last = max(last, time_ns)
        if running.get(cpu):
            yield time_ns, 0, integer(_TYPE, _END) + integer(_TRACK, _CPU + cpu)
        name = task_name(recording, task)
        running[cpu] = name != "idle"
        if running[cpu]:
            yield time_ns, 2, _slice(name, "sched", _CPU + cpu, _BEGIN)
    for cpu, is_running in running.items():
        if is_running:
            yield last + 1, 0, integer(_TYPE, _END) + integer(_TRACK, _CPU + cpu)


def _flushes(recording: Recording, flushes: Flushes) -> Iterator[tuple[int, int, bytes]]:
    told = flushes.interruptions
    flows: dict[int, list[int]] = {}
    for flow, flush in enumerate(told.flush.tolist(), 1):
        flows.setdefault(flush, []).append(flow)
    nr_tasks, word = len(recording.tasks), "" if flushes.source == "recorded" else " (model)"
    sites = flushes.sites
    for at, (time_ns, cpu, task, pages, operation) in enumerate(
        zip(
            *(c.tolist() for c in (flushes.time_ns, flushes.cpu, flushes.task, flushes.pages, flushes.operation)),
            strict=True,
        )
    ):
        track = _THREADS + task if task < nr_tasks else _CPU + cpu
        name = f"TLB flush{word}: {'all' if pages < 0 else pages}"
        notes = [_note("operation", flushes.operations[operation]), _note("cpu", cpu), _note("pages", pages)]
        notes += [_note("site", sites[at])] if sites[at] else []
        out = (fixed64(_FLOW, flow) for flow in flows.get(at, ()))
        yield time_ns, 3, _slice(name, "tlb", track, _INSTANT, *notes, *out)
    for flow, (time_ns, cpu, task, wrong) in enumerate(
        zip(*(column.tolist() for column in (told.time_ns, told.cpu, told.task, told.wrong_cpu)), strict=True), 1
    ):
        name = f"told to flush{word}" + (": wrong CPU" if wrong else "")
        yield (
            time_ns,
            4,
            _slice(
                name,
                "tlb",
                _CPU + cpu,
                _INSTANT,
                _note("running", task_name(recording, task)),
                fixed64(_FLOW_END, flow),
            ),
        )
