"""Measure and check TLB-flush batching schemes of Linux before writing the kernel patch.

A scheme is a short program of kernel-level steps for each mm operation; a kernel says which scheme serves which
operation; a machine is CPUs, TLBs and the way a flush travels. Replaying a recording of a real program tells what a
scheme would cost, exploring every interleaving tells whether it is safe. ``tlbcore --help`` lists the commands; bad
input raises a subclass of :class:`TlbcoreError` whose message is one line.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core
from tlbcore._core import CpuMask, CpuMaskArray, PageTable, RangeSummary, __version__, build_features, build_profile
from tlbcore.check import UnsafeError, Verdict, check
from tlbcore.compare import Comparison, compare
from tlbcore.errors import InputError, ProgramError, TlbcoreError
from tlbcore.hunt import Hunt, hunt
from tlbcore.litmus_check import LitmusVerdict, check_litmus
from tlbcore.mutate import MutationReport, mutate
from tlbcore.recordings import load
from tlbcore.replay import Replay, replay
from tlbcore.results import Result
from tlbcore.sweep import Sweep, sweep
from tlbcore.validate import Validation, validate, validate_folder

__all__ = [
    "Comparison",
    "CpuMask",
    "CpuMaskArray",
    "Hunt",
    "InputError",
    "LitmusVerdict",
    "MutationReport",
    "PageTable",
    "ProgramError",
    "RangeSummary",
    "Replay",
    "Result",
    "Sweep",
    "TlbcoreError",
    "UnsafeError",
    "Validation",
    "Verdict",
    "__version__",
    "build_features",
    "build_profile",
    "check",
    "check_litmus",
    "compare",
    "hunt",
    "load",
    "mutate",
    "replay",
    "sweep",
    "validate",
    "validate_folder",
]


_LATER: Final = frozenset(
    {
        "export",
        "finding",
        "gather",
        "litmus",
        "plot",
        "profile",
        "program",
        "races",
        "record",
        "report",
        "simulator",
        "tlb",
    }
)
"""Modules that `import tlbcore` leaves out, since not everybody needs them; `tlbcore.tlb` loads one."""

if not TYPE_CHECKING:  # which would believe every name

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module
        """A module that is loaded when it is asked for."""
        if name in _LATER:
            return import_module(f"tlbcore.{name}")
        message = f"module 'tlbcore' has no attribute {name!r}"
        raise AttributeError(message)


def _warn_if_unoptimised(profile: str) -> None:
    """Say so when the compiled core was not optimised: whatever is timed with it means nothing.

    Args:
        profile: What ``build_profile()`` says.
    """
    if profile == "debug":
        warnings.warn(
            f"{_core.__file__} is an unoptimised debug build, many times slower than a release; build it with"
            " `make test` or `maturin develop --release`",
            RuntimeWarning,
            stacklevel=3,
        )


_warn_if_unoptimised(build_profile())
