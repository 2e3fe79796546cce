"""The data of the timeline, small enough for a page: single flushes while there are few, sums of short bins else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tlbcore.profile.useless import SHORT, WHY, classes
from tlbcore.report.page.patterns import NR_OPERATIONS, PLAIN, REASON
from tlbcore.validate.timeline import REASONS, WRONG_CPU

if TYPE_CHECKING:
    import numpy.typing as npt

    from tlbcore.profile import Profile

__all__ = ["MAX_POINTS", "MAX_SERIES", "lanes"]

MAX_POINTS: Final = 40_000
"""Above so many points a lane holds sums of bins instead; the page stays below a few megabytes whatever was recorded."""

MAX_SERIES: Final = NR_OPERATIONS - 1
"""Operations that are told apart; the others share one pattern."""

MAX_CPUS: Final = 32
"""CPUs with a strip of their own."""


def lanes(profile: Profile) -> dict[str, Any]:
    """The lanes below each other, times in microseconds since the recording began.

    Each lane has `title`, `form` (bars or strips), `series` (names), `p` (the pattern of each: one means the same in all
    lanes), and its points: `t` (differences of one time to
    the one before), `s` (series), `n` (how many; left out if each is one).
    """
    begin, end = profile.span_ns
    flushes, told = profile.flushes, profile.flushes.interruptions
    names = [*flushes.operations[:MAX_SERIES]]
    ranks = list(range(NR_OPERATIONS))
    if len(flushes.operations) > MAX_SERIES:
        names.append("others")
    series = np.minimum(flushes.operation, MAX_SERIES)
    shown = list(zip(names, ranks, strict=False))
    found = [_lane("Flushes, by operation", "bars", shown, flushes.time_ns, series, None, begin, end)]
    if profile.is_recorded and len(told):
        by = np.where(told.wrong_cpu, len(names), series[told.flush])
        if told.wrong_cpu.any():  # what the model calls gone
            shown.append((f"{REASONS[WRONG_CPU]}: had nothing to flush", REASON["gone"]))
        found.append(
            _lane("CPUs interrupted, by operation (recorded)", "bars", shown, told.time_ns, by, None, begin, end)
        )
    found.append(_model_lane(profile, begin, end))
    cpus = sorted({int(cpu) for cpu in np.unique(told.cpu)})[:MAX_CPUS] if len(told) else []
    if cpus:
        place = np.searchsorted(cpus, told.cpu)
        chosen = told.cpu <= cpus[-1]
        strips = [(f"CPU {cpu}", PLAIN) for cpu in cpus]
        found.append(
            _lane("Interrupted, CPU by CPU", "strips", strips, told.time_ns[chosen], place[chosen], None, begin, end)
        )
    return {
        "end": (end - begin) / 1000,
        "lanes": [lane for lane in found if lane["t"]],
        "storms": [[(storm.begin_ns - begin) / 1000, (storm.end_ns - begin) / 1000] for storm in profile.storms],
    }


def _model_lane(profile: Profile, begin: int, end: int) -> dict[str, Any]:
    """The CPUs that the model told, by what they had to do with the flush."""
    counts = classes(profile.replayed)
    times = [profile.model.time_ns[counts[name] > 0] for name in WHY]
    which = [np.full(len(found), at) for at, found in enumerate(times)]
    weights = [counts[name][counts[name] > 0] for name in WHY]
    at, series, weight = (np.concatenate(column).astype(np.int64) for column in (times, which, weights))
    shown = [(SHORT[name], REASON[name]) for name in WHY]
    return _lane("CPUs told, and what for (the model)", "bars", shown, at, series, weight, begin, end)


def _lane(  # noqa: PLR0913, PLR0917  # what a lane is
    title: str,
    form: str,
    series: list[tuple[str, int]],
    times_ns: npt.NDArray[np.int64],
    which: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int64] | None,
    begin: int,
    end: int,
) -> dict[str, Any]:
    # A microsecond is finer than a zoomed pixel ever is; differences of integers are short texts.
    micros = np.maximum(times_ns - begin, 0) // 1000
    if len(micros) > MAX_POINTS:
        bins = max(1, MAX_POINTS // max(len(series), 1))
        width = max(1, -(-(end - begin) // 1000 // bins))
        micros = micros // width * width
    keys = micros * len(series) + which
    points, of_point = np.unique(keys, return_inverse=True)
    count = np.bincount(of_point, weights=weights, minlength=len(points)).astype(np.int64)
    t, s = points // max(len(series), 1), points % max(len(series), 1)
    lane = {
        "title": title,
        "form": form,
        "series": [name for name, _ in series],
        "p": [pattern for _, pattern in series],
        "t": np.diff(t, prepend=0).tolist(),
        "s": s.tolist(),
    }
    if (count != 1).any():
        lane["n"] = count.tolist()
    return lane
