"""Answers to litmus files.

>>> from tlbcore import litmus
>>> text = '''
... tlbcore example
... kernel linux-5.10
... { p0: file; }
...  P0             | P1                   | P2   ;
...  munmap(p0..p0) | page_mkclean(p0..p0) | user ;
... exists (I4)
... Result: Never
... '''
>>> answer = check_litmus(litmus.parse(text))
>>> answer.observed, answer.as_expected
('Sometimes', False)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbcore import kernels
from tlbcore.check import INVARIANTS, Verdict, check
from tlbcore.errors import InputError
from tlbcore.finding import pack
from tlbcore.given import wrong_kind
from tlbcore.litmus import Litmus, parse
from tlbcore.lookup import find, with_nearest
from tlbcore.results import Cell, Result
from tlbcore.schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tlbcore.kernel import Kernel
    from tlbcore.scheme import Scheme

__all__ = ["SUFFIX", "LitmusVerdict", "check_litmus", "files", "kernel_of", "load", "scenario_of"]

#: How the name of a litmus file ends.
SUFFIX = ".litmus"


@dataclass(frozen=True, repr=False)
class LitmusVerdict(Result):
    """What a litmus file expects, and what was found."""

    litmus: Litmus
    verdict: Verdict

    @property
    def observed(self) -> str:
        """`Sometimes`, `Never`, or `Undecided`: a bound stopped the search."""
        if self.verdict.violated:
            return "Sometimes"
        return "Never" if self.verdict.safe else "Undecided"

    @property
    def as_expected(self) -> bool:
        """Whether it is what the file says."""
        return self.observed == self.litmus.result

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain structures."""
        return {"as_expected": self.as_expected, **dataclasses.asdict(self)}

    def to_rows(self) -> list[dict[str, Cell]]:
        """The counterexample, as `Verdict.to_rows`."""
        return self.verdict.to_rows()

    def headline(self) -> str:
        """One line."""
        asked = f"{self.litmus.name}: {' or '.join(self.litmus.exists)} in {self.litmus.changed_kernel}"
        return f"{asked}: expected {self.litmus.result}, observed {self.observed}"


def files(paths: Iterable[Path]) -> list[Path]:
    """Litmus files: those named, and all below folders named, by name.

    Raises:
        InputError: A folder without any.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(path.rglob(f"*{SUFFIX}"))
        if not inside:
            raise InputError(f"{path}: found no {SUFFIX} file, expected at least one")
        found += inside
    return found


def load(path: Path) -> Litmus:
    """A litmus file.

    Raises:
        InputError: It is none.
        OSError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise with_nearest(error) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: found a byte that is no UTF-8 at {error.start}, expected text") from error
    return parse(text, str(path))


def _schemes() -> dict[str, type[Scheme]]:
    from tlbcore.races import variants  # noqa: PLC0415 - the races need all kernels; most litmus files need none of it

    return {**SCHEMES, **variants.SCHEMES}


def kernel_of(litmus: Litmus) -> Kernel:
    """The kernel that a litmus file asks about.

    Raises:
        InputError: No such kernel, scheme, option or constant.
    """
    kernel = kernels.get(litmus.kernel)
    if not litmus.schemes and not litmus.constants:
        return kernel
    known = _schemes() if litmus.schemes else {}
    schemes: dict[str, Scheme] = {}
    for operation, call in litmus.schemes:
        scheme = known[find("scheme", call.scheme, known)]
        options = {item.name: item for item in dataclasses.fields(scheme)}  # type: ignore[arg-type]  # each scheme is a dataclass
        for option, value in call.options:
            find(f"option of {call.scheme}", option, options)
            expected = type(getattr(scheme(), option))
            if type(value) is not expected:
                raise InputError(f"{call.scheme}: found {option}={value}, expected a {expected.__name__}")
        try:
            schemes[operation] = scheme(**dict(call.options))
        except ValueError as error:
            raise InputError(f"scheme {operation}: {call}: {error}") from error
    return kernel.derive(litmus.changed_kernel, constants=dict(litmus.constants), sources=None, **schemes)


def scenario_of(litmus: Litmus) -> dict[str, Any]:
    """What the explorer runs: arguments of `tlbcore.check`, but for kernel and invariants."""
    return {
        "operations": [
            {"operation": call.operation, "first": call.first, "count": call.last - call.first + 1}
            | dict.fromkeys(call.flags, True)
            for call in litmus.threads
        ],
        "users": litmus.users,
        "pages": [
            {key: value for key, value in dataclasses.asdict(page).items() if value is not None and value is not False}
            for page in litmus.pages
        ],
        "faults": litmus.faults,
        "spare_frames": litmus.spare_frames,
        "engine": dict.fromkeys(litmus.engine, True),
        "whole_tables": litmus.whole_tables,
        "shared_tables": litmus.shared_tables,
    }


def check_litmus(litmus: Litmus | Path | str, **bounds: Any) -> LitmusVerdict:  # noqa: ANN401 - those of check
    """Answer a litmus file.

    Args:
        litmus: The file, read or not.
        bounds: `states`, `seconds`, `memory_bytes`, `depth`, `threads` and `reductions` of `tlbcore.check`.

    Raises:
        InputError: It is no litmus file, or asks for what the explorer cannot run; the message begins with the file.
        OSError: It cannot be read.

    """
    if not isinstance(litmus, Litmus | str | Path):
        raise wrong_kind("litmus", litmus, "the name of a file, or what tlbcore.litmus.parse reads")
    asked = litmus if isinstance(litmus, Litmus) else load(Path(litmus))
    try:
        for name in asked.exists:
            find("invariant", name, INVARIANTS)
        verdict = check(kernel_of(asked), **scenario_of(asked), invariants=asked.exists, **bounds)
    except InputError as error:
        raise InputError(f"{asked.source}: {error}") from error
    if verdict.path:
        text = dataclasses.replace(asked, question="").text()
        verdict = dataclasses.replace(verdict, finding=pack(text, verdict.scenario, asked.exists, verdict.path))
    return LitmusVerdict(asked, verdict)
