"""The same question at growing sizes: with one user CPU and few pages first, where counterexamples are shortest.

>>> verdict = widen("linux-6.18", ["munmap", "page_mkclean"], users=2, pages=2)
>>> verdict.safe, [(size.users, size.pages) for size in verdict.sizes]
(True, [(1, 1), (1, 2), (2, 1), (2, 2)])
>>> settled(verdict)
(1, 2)
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tlbcore import _core
from tlbcore.check import Size, Verdict, check
from tlbcore.errors import InputError
from tlbcore.given import bound_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tlbcore.kernel import Kernel

__all__ = ["settled", "widen"]


def _least_pages(operations: Sequence[str | Mapping[str, Any]]) -> int:
    """The pages that the operations name."""
    ranges = [operation for operation in operations if not isinstance(operation, str)]
    return max([1, *(int(each.get("first", 0)) + int(each.get("count") or 1) for each in ranges)])


def _sizes(users: int, least: int, most: int) -> Iterator[tuple[int, int]]:
    """(User CPUs, pages), by their sum."""
    return iter(
        sorted(
            ((cpus, number) for cpus in range(min(users, 1), users + 1) for number in range(least, most + 1)),
            key=lambda size: (sum(size), size),
        )
    )


def widen(
    kernel: str | Kernel,
    operations: Sequence[str | Mapping[str, Any]],
    *,
    users: int = 2,
    pages: int = 2,
    seconds: float | None = None,
    **options: Any,  # noqa: ANN401 - those of `check`
) -> Verdict:
    """Check with one user CPU and as few pages as the operations name, then with more, up to `users` and `pages`.

    Ends with the first size at which something is violated, or that could not be searched to its end (a bound, Ctrl-C). The
    verdict is that of the last size; its `sizes` are all that were tried, its bounds say how far they went.

    Args:
        kernel: As `check` takes it.
        operations: As `check` takes them.
        users: User CPUs, at most.
        pages: Pages, at most.
        seconds: For all sizes together.
        options: As `check` takes them.

    Raises:
        InputError: As `check`, and a size that no scenario has.

    """
    for name, value, first, last in (("users", users, 0, _core.MAX_USERS), ("pages", pages, 1, _core.MAX_PAGES)):
        if not first <= value <= last:
            raise InputError(f"{name}: found {value}, expected {first} to {last}")
    if options.get("faults", 0) < 0:
        raise InputError(f"faults: found {options['faults']}, expected 0 or more")
    seconds = bound_seconds("seconds", seconds)
    least = _least_pages(operations)
    since = time.monotonic()
    tried: list[tuple[Size, Verdict]] = []
    for cpus, number in _sizes(users, least, max(pages, least)):
        left = None if seconds is None else max(0.0, seconds - (time.monotonic() - since))
        try:
            found = check(kernel, operations, users=cpus, pages=number, seconds=left, **options)
        except KeyboardInterrupt:  # between two searches: a running one answers for itself
            if not tried:
                raise
            size, found = tried.pop()
            tried.append((size, replace(found, safe=False, stopped="a request to stop")))
            break
        tried.append((Size(cpus, number, found.safe, found.states, found.projections), found))
        if not found.safe:
            break
    verdict = tried[-1][1]
    bounds = verdict.bounds
    if verdict.safe:
        bounds = {**bounds, "users": _span(1, users), "pages": _span(least, max(pages, least))}
    if seconds is not None:
        bounds = {**bounds, "seconds": seconds}
    return replace(verdict, bounds=bounds, sizes=tuple(size for size, _ in tried), seconds=time.monotonic() - since)


def _span(first: int, last: int) -> str | int:
    return last if last <= first else f"{first} to {last}"


def settled(verdict: Verdict) -> tuple[int, ...]:
    """The numbers of pages at which one more user CPU let the kernel threads come to nothing new.

    That is evidence, not proof, for any number of user CPUs: see `Verdict.projections`.
    """
    most: dict[int, dict[int, int | None]] = {}
    for size in verdict.sizes:
        most.setdefault(size.pages, {})[size.users] = size.projections
    return tuple(
        pages
        for pages, by_users in sorted(most.items())
        if len(by_users) > 1 and len(known := set(by_users.values())) == 1 and None not in known
    )
