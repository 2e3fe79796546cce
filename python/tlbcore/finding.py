"""A counterexample as one word of text that reproduces it: the kernel, the scenario, and the numbers of the actions.

>>> import tlbcore
>>> verdict = tlbcore.check("linux-5.10", ["madvise_dontneed", "page_mkclean"])
>>> again = repeat(verdict.finding)
>>> again.violated == verdict.violated and again.path == verdict.path
True
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core, kernels
from tlbcore.errors import InputError
from tlbcore.lookup import find

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tlbcore.kernel import Kernel

__all__ = ["RACE", "Repeated", "name_of", "pack", "repeat"]

#: How a finding begins: its format.
_PREFIX: Final = "tlb1."
#: How a finding names the kernel that has a documented race: `race:R04`.
RACE: Final = "race:"
_KEYS: Final = {"kernel", "scenario", "invariants", "path"}


@dataclass(frozen=True)
class Repeated:
    """A counterexample that was executed once more."""

    kernel: str
    scenario: dict[str, Any]
    #: The short names of what its last state violates.
    violated: tuple[str, ...]
    #: What happens, as the fields of `tlbcore.check.Event`.
    events: tuple[dict[str, Any], ...]
    #: What each state looks like, the first one before any event.
    snapshots: tuple[dict[str, Any], ...]
    path: tuple[int, ...]
    cpus: tuple[str, ...]


def pack(kernel: str, scenario: Mapping[str, object], invariants: Sequence[str], path: Sequence[int]) -> str:
    """The text. `kernel` is a name that `kernels.get` takes, one after `RACE`, or the text of a litmus file that has it."""
    plain = {"kernel": kernel, "scenario": scenario, "invariants": list(invariants), "path": list(path)}
    packed = zlib.compress(json.dumps(plain, separators=(",", ":")).encode(), 9)
    return _PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def name_of(kernel: str | Kernel) -> str | None:
    """The name that leads to a kernel again; None for one that somebody made."""
    if isinstance(kernel, str):
        return kernel
    if ".py" in kernel.name:
        return None  # no file is executed for its name
    try:
        again = kernels.get(kernel.name)
    except InputError:
        return None
    return kernel.name if again == kernel else None


def _unpack(text: str) -> dict[str, Any]:
    expected = f"expected the text that `tlbcore check` printed ({_PREFIX}...)"
    if not text.startswith(_PREFIX):
        raise InputError(f"finding: found {text[:20]!r}, {expected}")
    letters = text[len(_PREFIX) :].strip()
    try:
        packed = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
        plain: Any = json.loads(zlib.decompress(packed))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InputError(f"finding: found a text that was cut or changed ({error}), {expected}") from error
    if not isinstance(plain, dict) or set(plain) != _KEYS:
        raise InputError(f"finding: found another structure than {', '.join(sorted(_KEYS))}, {expected}")
    found: dict[str, Any] = plain
    return found


def _kernel(text: str) -> Kernel:
    if text.startswith(RACE):
        from tlbcore import races  # noqa: PLC0415 - their kernels take a moment

        return races.RACES[find("race", text.removeprefix(RACE), races.RACES)].buggy
    if "\n" not in text:
        return kernels.get(text)
    from tlbcore import litmus, litmus_check  # noqa: PLC0415 - who checks litmus files packs findings

    return litmus_check.kernel_of(litmus.parse(text, "finding"))


def repeat(text: str) -> Repeated:
    """Execute a finding, action by action.

    Raises:
        InputError: No finding, a kernel that is not known, or actions that its programs do not have any more.

    """
    plain = _unpack(text)
    kernel = _kernel(plain["kernel"])
    options = json.dumps({"invariants": plain["invariants"]})
    ran = json.loads(_core.explore_path(kernel.to_json(), json.dumps(plain["scenario"]), options, plain["path"]))
    return Repeated(
        kernel=kernel.name,
        scenario=plain["scenario"],
        violated=tuple(ran["violated"]),
        events=tuple(ran["events"]),
        snapshots=tuple(ran["states"]),
        path=tuple(ran["path"]),
        cpus=tuple(ran["cpus"]),
    )
