"""Measure and check TLB-flush batching schemes of Linux before writing the kernel patch.

A scheme is a short program of kernel-level steps for each mm operation; a kernel says which scheme serves which
operation; a machine is CPUs, TLBs and the way a flush travels. Replaying a recording of a real program tells what a
scheme would cost, exploring every interleaving tells whether it is safe. ``tlbcore --help`` lists the commands; bad
input raises a subclass of :class:`TlbcoreError` whose message is one line.
"""

import sys
from types import ModuleType

from tlbcore import _core
from tlbcore._core import CpuMask, CpuMaskArray, PageTable, RangeSummary, __version__, build_features, build_profile

TYPE_CHECKING = False  # type checkers take it for that of `typing`, which takes longer to import than all that is here
if TYPE_CHECKING:
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

_HOMES = {
    "Comparison": "compare",
    "Hunt": "hunt",
    "InputError": "errors",
    "LitmusVerdict": "litmus_check",
    "MutationReport": "mutate",
    "ProgramError": "errors",
    "Replay": "replay",
    "Result": "results",
    "Sweep": "sweep",
    "TlbcoreError": "errors",
    "UnsafeError": "check",
    "Validation": "validate",
    "Verdict": "check",
    "check": "check",
    "check_litmus": "litmus_check",
    "compare": "compare",
    "hunt": "hunt",
    "load": "recordings",
    "mutate": "mutate",
    "replay": "replay",
    "sweep": "sweep",
    "validate": "validate",
    "validate_folder": "validate",
}
"""The module of each name that is imported when it is asked for: nobody needs all, and the command line starts sooner."""


class _Package(ModuleType):
    """Keeps the place of a function from the module of the same name, which would take it when it is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if _HOMES.get(name) != name or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


if not TYPE_CHECKING:  # which would believe every name

    def __getattr__(name: str) -> object:
        """A name or a module that is imported when it is asked for."""
        from importlib import import_module  # noqa: PLC0415 - not needed for the start of a command

        if name in _HOMES:
            value = getattr(import_module(f"tlbcore.{_HOMES[name]}"), name)
            globals()[name] = value
            return value
        if not name.startswith("_"):
            try:
                return import_module(f"tlbcore.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"tlbcore.{name}":
                    raise
        message = f"module 'tlbcore' has no attribute {name!r}"
        raise AttributeError(message)


def __dir__() -> list[str]:
    """What was imported, and what can be asked for."""
    from pkgutil import iter_modules  # noqa: PLC0415 - only somebody who looks around needs it

    modules = {name for _, name, _ in iter_modules(__path__) if not name.startswith("_")}
    return sorted({*globals(), *__all__, *modules})


def _warn_if_unoptimised(profile: str) -> None:
    """Say so when the compiled core was not optimised: whatever is timed with it means nothing.

    Args:
        profile: What ``build_profile()`` says.
    """
    if profile == "debug":
        import warnings  # noqa: PLC0415 - hardly ever needed

        warnings.warn(
            f"{_core.__file__} is an unoptimised debug build, many times slower than a release; build it with"
            " `make test` or `maturin develop --release`",
            RuntimeWarning,
            stacklevel=3,
        )


_warn_if_unoptimised(build_profile())
