"""The kernels: which scheme serves which operation in Linux 5.10, 6.1 and 6.18, and in the consolidated proposal.

    >>> from tlbcore import kernels
    >>> kernels.get("linux-6.18").constants["tlb_single_page_flush_ceiling"]
    33
    >>> kernels.get("consolidated:light_gather=off").switches["light_gather"]
    'off'
"""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore.kernel import Kernel, KernelFamily
from tlbcore.kernels import consolidated, linux_5_10, linux_6_1, linux_6_18

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["FAMILIES", "Kernel", "KernelFamily", "get"]

#: The kernels by name.
FAMILIES: dict[str, KernelFamily] = {
    family.name: family for family in (linux_5_10.FAMILY, linux_6_1.FAMILY, linux_6_18.FAMILY, consolidated.FAMILY)
}


def get(spec: str) -> Kernel:
    """A kernel by what a user writes.

    ``linux-6.18`` is a kernel as it is; ``consolidated:pending=vma,light_gather=off`` sets switches, and ``none`` among
    them turns every switch off that is not named after it; ``my_kernel.py:NAME`` is an object of a Python file of one's
    own: a `Kernel`, or a function that returns one.

    Raises:
        ValueError: no such kernel, switch or value, or a file that does not hold one.

    """
    path, colon, name = spec.rpartition(":")
    if spec.endswith(".py") or (colon and path.endswith(".py")):
        return _from_file(Path(path if path.endswith(".py") else spec), name if path.endswith(".py") else "KERNEL")
    name, _, text = spec.partition(":")
    family = FAMILIES.get(name)
    if family is None:
        near = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        msg = f"found kernel {name!r}, expected one of {', '.join(FAMILIES)} or FILE.py:NAME{hint}"
        raise ValueError(msg)
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
    return kernel.derive(spec) if text else kernel


def _from_file(path: Path, name: str) -> Kernel:
    if not path.is_file():
        msg = f"{path}: found no such file, expected a Python file with a kernel"
        raise ValueError(msg)
    module = _load(path)
    found = getattr(module, name, None)
    if callable(found) and not isinstance(found, Kernel):
        found = found()
    if not isinstance(found, Kernel):
        kernels = [key for key, value in vars(module).items() if isinstance(value, Kernel)]
        msg = f"{path}: found no kernel {name}, expected one of {', '.join(kernels) or 'its kernels (it has none)'}"
        raise ValueError(msg)
    return found


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        msg = f"{path}: found a file that Python cannot load, expected a Python file"
        raise ValueError(msg)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        msg = f"{path}: found {type(error).__name__} ({error}) on loading, expected a Python file that runs"
        raise ValueError(msg) from error
    return module
