"""The kernels: which scheme serves which operation in Linux 5.10, 6.1 and 6.18, and in the consolidated proposal.

>>> from tlbcore import kernels
>>> kernels.get("linux-6.18").constants["tlb_single_page_flush_ceiling"]
33
>>> kernels.get("consolidated:light_gather=off").switches["light_gather"]
'off'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.given import wrong_kind
from tlbcore.kernel import Kernel, KernelFamily
from tlbcore.kernels import consolidated, linux_5_10, linux_6_1, linux_6_18
from tlbcore.lookup import find, folded, load_file, nearest, split_file_spec
from tlbcore.scheme import Scheme

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FAMILIES", "Kernel", "KernelFamily", "get"]

#: The kernels by name.
FAMILIES: dict[str, KernelFamily] = {
    family.name: family for family in (linux_5_10.FAMILY, linux_6_1.FAMILY, linux_6_18.FAMILY, consolidated.FAMILY)
}


#: What somebody may have wanted who gave something else than a kernel.
_HINTS: Final[dict[type | tuple[type, ...], str]] = {
    (list, tuple): "tlbcore.compare takes several",
    Scheme: 'tlbcore.kernels.get("linux-6.18").derive("mine", munmap=SCHEME) is a kernel with a scheme',
    type: 'tlbcore.kernels.get("linux-6.18").derive("mine", munmap=SCHEME()) is a kernel with a scheme',
}


def get(spec: str | Kernel) -> Kernel:
    """A kernel by what a user writes; a `Kernel` as it is.

    ``linux-6.18`` is a kernel as it is; ``consolidated:pending=vma,light_gather=off`` sets switches, and ``none`` among
    them turns every switch off that is not named after it; ``my_kernel.py:NAME`` is an object of a Python file of one's
    own: a `Kernel`, or a function that returns one (``KERNEL`` if no name is given).

    Raises:
        InputError: No such kernel, switch or value, or a file that does not hold one.
        OSError: The file cannot be read.
    """
    if isinstance(spec, Kernel):
        return spec
    if not isinstance(spec, str):
        raise wrong_kind("kernel", spec, 'a name such as "linux-6.18" or a Kernel', _HINTS)
    file = split_file_spec(spec)
    if file is not None:
        return _from_file(file[0], file[1] or "KERNEL")
    name, _, text = spec.partition(":")
    if "," in name and all(folded(part) in map(folded, FAMILIES) for part in name.split(",")):
        raise InputError(f"found kernel {name!r}, expected one: --kernel {' --kernel '.join(name.split(','))}")
    family = FAMILIES[find("kernel", name, FAMILIES, "FILE.py:NAME")]
    chosen: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if part == "none":
            chosen |= {switch.name: switch.values[-1] for switch in family.switches}
        elif not equals:
            chosen[key] = "on"
        else:
            chosen[key] = value
    kernel = family.make(chosen)
    return kernel.derive(f"{family.name}:{text}") if text else kernel


def _from_file(path: Path, name: str) -> Kernel:
    module = load_file(path)
    found = getattr(module, name, None)
    if isinstance(found, Scheme) or (isinstance(found, type) and issubclass(found, Scheme)):
        raise InputError(
            f"{path}: found the scheme {name}, expected a kernel, such as"
            f' tlbcore.kernels.get("linux-6.18").derive("mine", munmap={name}())'
        )
    if callable(found) and not isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise InputError(
                f"{path}: found {type(error).__name__} ({error}) in {name}(), expected a kernel"
            ) from error
    if not isinstance(found, Kernel):
        kernels = [key for key, value in vars(module).items() if isinstance(value, Kernel)]
        expected = (
            f"one of {', '.join(kernels)}{nearest(name, kernels)}"
            if kernels
            else "a Kernel, or a function that returns one"
        )
        raise InputError(f"{path}: found no kernel {name}, expected {expected}")
    return found
