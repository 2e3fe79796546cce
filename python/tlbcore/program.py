"""Programs as the compiled core sees them: whether it can run them, and which steps it knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tlbcore._core import condition_names, program_names, step_names, validate_kernel

if TYPE_CHECKING:
    from tlbcore.kernel import Kernel, ResolvedKernel

__all__ = ["condition_names", "program_names", "step_names", "validate"]


def validate(kernel: Kernel | ResolvedKernel) -> None:
    """Check that every program of a kernel can run: each step where it has a meaning, locks and gathers paired.

    >>> from tlbcore import kernels, schemes
    >>> from tlbcore.steps import flush_tlb_mm, tlb_finish_mmu
    >>> class Hasty(schemes.MmuGather):
    ...     def munmap(self):
    ...         return [flush_tlb_mm(), tlb_finish_mmu()]
    >>> validate(kernels.get("linux-6.18").derive("hasty", munmap=Hasty()))
    Traceback (most recent call last):
    ...
    tlbcore.errors.ProgramError: program hasty:munmap: step munmap[1]: tlb_finish_mmu needs an open mmu_gather

    Raises:
        ProgramError: A step that cannot be; the message has its path.
        InputError: A constant that cannot be, or an operation without a program.
    """
    validate_kernel(json.dumps(kernel if isinstance(kernel, dict) else kernel.resolve()))
