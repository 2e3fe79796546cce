"""Plots by matplotlib, which is an extra: ``pip install 'tlbcore[plot]'``.

Each function draws into `axes`, or makes some, and returns them, so that the caller can go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tlbcore._core import Recording
from tlbcore.compare import Comparison
from tlbcore.errors import InputError
from tlbcore.given import several, whole_number, wrong_kind
from tlbcore.replay import Replay
from tlbcore.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

__all__ = ["COLOURS", "plot_comparison", "plot_sweep", "plot_timeline"]

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
"""Colours that people without colour vision can tell apart (Okabe and Ito, 2008)."""


#: What somebody may have wanted who gave something else.
_HINTS: Final[dict[type | tuple[type, ...], str]] = {
    Recording: "tlbcore.compare(RECORDING, kernels) makes some",
    Replay: "tlbcore.compare(RECORDING, kernels) makes one, of one kernel too",
    Sweep: "plot_sweep draws it",
}


def plot_comparison(comparison: Comparison, counter: str = "nr_flush_requests", axes: Axes | None = None) -> Axes:
    """A bar for each kernel, made up of the operations that cause what is counted.

    Args:
        comparison: From `tlbcore.compare.compare`.
        counter: A counter that operations have: ``nr_flush_requests``, ``nr_flush_full``, ``nr_ipis``, ...
        axes: Where to draw.

    Raises:
        InputError: matplotlib is not installed, no operation has that counter, or it is no comparison.
    """
    if not isinstance(comparison, Comparison):
        raise wrong_kind("comparison", comparison, "a Comparison", _HINTS)
    rows = comparison.to_rows(by="operation")
    sums: dict[str, float] = {}
    for row in rows:
        if counter not in row:
            known = ", ".join(name for name in row if name.startswith("nr_"))
            raise InputError(f"counter: found {counter!r}, expected one of {known}")
        sums[str(row["operation"])] = sums.get(str(row["operation"]), 0) + float(row[counter] or 0)
    drawn = _axes(axes)
    names = [replayed.kernel.name for replayed in comparison.replays]
    left = np.zeros(len(names))
    for index, operation in enumerate(sorted((name for name, total in sums.items() if total), key=lambda n: -sums[n])):
        values = np.array([r.by_operation.get(operation, {}).get(counter, 0) for r in comparison.replays])
        drawn.barh(names, values, left=left, label=operation, color=COLOURS[index % len(COLOURS)], edgecolor="white")
        left += values
    drawn.invert_yaxis()
    drawn.set_xlabel(counter)
    drawn.set_title(str(comparison.replays[0].recording.meta["file"]))
    drawn.legend(title="caused by")
    return drawn


def plot_timeline(
    replays: Replay | Comparison | Sequence[Replay], nr_bins: int = 200, axes: Axes | None = None
) -> Axes:
    """Flushes over the time of the recording, a line for each replay of it.

    Args:
        replays: From `tlbcore.replay.replay`, all of one recording, or those of a `Comparison`.
        nr_bins: Into so many parts the recorded time is cut, 1 or more.
        axes: Where to draw.

    Raises:
        InputError: matplotlib is not installed, there is no replay, or something else than replays.
    """
    shown = several("replays", _replays(replays))
    for one in shown:
        if not isinstance(one, Replay):
            raise wrong_kind("replays", one, "replays", _HINTS)
    if whole_number("nr_bins", nr_bins) == 0:
        raise InputError("nr_bins: found 0, expected 1 or more")
    drawn = _axes(axes)
    times_ns = shown[0].recording.column("time_ns").astype(np.float64)
    begin_ns, end_ns = (times_ns[0], times_ns[-1]) if len(times_ns) else (0.0, 1.0)
    edges_s = np.linspace(0.0, max(end_ns - begin_ns, 1.0) / 1e9, nr_bins + 1)
    for index, replayed in enumerate(shown):
        events = replayed.result.flushes()["op_event"].astype(np.int64)
        counts, _ = np.histogram((times_ns[events] - begin_ns) / 1e9, edges_s)
        drawn.stairs(counts, edges_s, label=replayed.kernel.name, color=COLOURS[index % len(COLOURS)])
    drawn.set_xlabel("time, s")
    drawn.set_ylabel(f"flushes in {edges_s[1] * 1e3:.3g} ms")
    drawn.set_title(str(shown[0].recording.meta["file"]))
    drawn.legend()
    return drawn


def _replays(given: object) -> object:
    if isinstance(given, Recording):
        raise wrong_kind("replays", given, "replays", _HINTS)
    if isinstance(given, Comparison):
        return given.replays
    return [given] if isinstance(given, Replay) else given


def plot_sweep(sweep: Sweep, counter: str = "nr_flush_requests", axes: Axes | None = None) -> Axes:
    """A group of bars for each recording and machine, a bar for each kernel, as ratios to the first kernel.

    Args:
        sweep: From `tlbcore.sweep.sweep`.
        counter: A column of `Sweep.to_rows` with numbers.
        axes: Where to draw.

    Raises:
        InputError: matplotlib is not installed, no point has that column, or it is no sweep.
    """
    if not isinstance(sweep, Sweep):
        raise wrong_kind("sweep", sweep, "a Sweep", {Comparison: "plot_comparison draws one recording"})
    rows = sweep.to_rows()
    for row in rows:
        if not isinstance(row.get(counter), int | float):
            known = ", ".join(name for name, value in row.items() if isinstance(value, int | float))
            raise InputError(f"counter: found {counter!r}, expected one of {known}")
    drawn = _axes(axes)
    places = list(dict.fromkeys((str(row["recording"]), str(row["machine"])) for row in rows))
    kernels = list(dict.fromkeys(str(row["kernel"]) for row in rows))
    found = {(row["recording"], row["machine"], row["kernel"]): float(row[counter] or 0) for row in rows}
    height = 0.8 / max(len(kernels), 1)
    for index, kernel in enumerate(kernels):
        bases = [found.get((*place, kernels[0])) for place in places]
        values = [found.get((*place, kernel)) for place in places]
        ratios = [v / b if v is not None and b else np.nan for v, b in zip(values, bases, strict=True)]
        at = np.arange(len(places)) + (index - (len(kernels) - 1) / 2) * height
        drawn.barh(at, ratios, height, label=kernel, color=COLOURS[index % len(COLOURS)])
    one_machine = len({machine for _, machine in places}) == 1
    labels = [path.rpartition("/")[2] + ("" if one_machine else f"\n{machine}") for path, machine in places]
    drawn.set_yticks(np.arange(len(places)), labels)
    drawn.invert_yaxis()
    drawn.axvline(1.0, color="black", linewidth=0.8)
    drawn.set_xlabel(f"{counter}, ratio to {kernels[0] if kernels else 'nothing'}")
    drawn.legend()
    return drawn


def _axes(axes: Axes | None) -> Axes:
    if axes is not None:
        return axes
    try:
        from matplotlib import pyplot as plt  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("plot: found no matplotlib, expected it: pip install 'tlbcore[plot]'") from error
    _, made = plt.subplots(layout="constrained")
    return made
