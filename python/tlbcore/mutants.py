"""The mutants of a program: one step dropped, swapped with the next, or moved out of its locked section.

They are made on the plain structure (`docs/steps.md` section 1), so of any program, a scheme of one's own too. Nothing
here knows whether a mutant can run or is safe.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tlbcore.report.program_text import step_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["Mutant", "mutants", "probe"]

PlainStep: TypeAlias = dict[str, Any]
#: Where a block is: of each step on the way its index and the part of it that is entered.
Keys: TypeAlias = tuple[tuple[int, str], ...]

#: The parts of a step that are blocks, and what paths call them (as the errors of validation do).
_PARTS: Final = {"then": "when", "else": "else", "body": "", "on_pmd": "on_pmd", "on_huge_pmd": "on_huge_pmd"}

#: Steps that open something: they go together with the steps that close it, or nothing could be dropped.
_CLOSED_BY: Final = {
    "lock": ("downgrade", "unlock"),
    "inc_tlb_flush_pending": ("dec_tlb_flush_pending",),
    "arch_enter_lazy_mmu_mode": ("arch_leave_lazy_mmu_mode",),
    "tlb_gather_mmu": ("tlb_finish_mmu",),
}


@dataclass(frozen=True)
class Mutant:
    """A program with one step changed."""

    operation: str
    #: ``drop``, ``swap`` or ``move``.
    kind: str
    #: The step's path, as the errors of validation have it.
    path: str
    #: The step's name in the step language.
    step: str
    #: The change in the kernel's words.
    change: str
    #: The whole program.
    program: tuple[PlainStep, ...]


@dataclass(frozen=True)
class _Place:
    """A step of a program: the block that has it, and where in it."""

    keys: Keys
    index: int
    path: str
    step: PlainStep


def _places(block: Sequence[PlainStep], path: str, keys: Keys = ()) -> Iterator[_Place]:
    for index, step in enumerate(block):
        here = f"{path}[{index}]"
        yield _Place(keys, index, here, step)
        for part, label in _PARTS.items():
            if step.get(part):
                yield from _places(step[part], f"{here}.{label or step['step']}", (*keys, (index, part)))


def _block(program: list[PlainStep], keys: Keys) -> list[PlainStep]:
    block = program
    for index, part in keys:
        block = block[index][part]
    return block


def mutants(operation: str, program: Sequence[PlainStep], steps: Collection[str] | None = None) -> list[Mutant]:
    """All mutants of a program, in the order of its steps; of several that are alike the first.

    Args:
        operation: What the program is of, for the paths.
        program: The plain structure.
        steps: Mutate only the steps of these names; none: all.

    >>> [(m.kind, m.path, m.change) for m in mutants("fork", [{"step": "dup_mm"}, {"step": "flush_tlb_mm"}])]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('drop', 'fork[0]', 'child = dup_mm(mm);'),
     ('swap', 'fork[0]', 'child = dup_mm(mm); <-> flush_tlb_mm(mm);'),
     ('drop', 'fork[1]', 'flush_tlb_mm(mm);')]
    """
    known = {json.dumps(list(program))}
    found = []
    for place in _places(program, operation):
        if steps is not None and place.step["step"] not in steps:
            continue
        for kind, change, changed in _changes(program, place):
            text = json.dumps(changed)
            if text not in known:
                known.add(text)
                found.append(Mutant(operation, kind, place.path, place.step["step"], change, tuple(changed)))
    return found


def probe(mutant: Mutant, program: Sequence[PlainStep]) -> list[PlainStep]:
    """The program with a flush of everything before the mutant's step.

    Where even that makes no difference to the explorer, it never comes to the step.
    """
    changed = copy.deepcopy(list(program))
    place = next(place for place in _places(program, mutant.operation) if place.path == mutant.path)
    _block(changed, place.keys).insert(place.index, {"step": "flush_tlb_mm"})
    return changed


def _changes(program: Sequence[PlainStep], place: _Place) -> Iterator[tuple[str, str, list[PlainStep]]]:
    words = step_text(place.step)
    changed = copy.deepcopy(list(program))
    dropped = _drop(_block(changed, place.keys), place.index)
    yield "drop", " ".join([words, *(f"... {step_text(step)}" for step in dropped)]), changed

    changed = copy.deepcopy(list(program))
    block = _block(changed, place.keys)
    if place.index + 1 < len(block):
        other = block[place.index + 1]
        block[place.index : place.index + 2] = [other, block[place.index]]
        yield "swap", f"{words} <-> {step_text(other)}", changed

    if place.step["step"] in ("lock", "unlock", "downgrade"):
        return
    for later in (True, False):
        # The section that the step stands in may be of a block around its own.
        for level in range(len(place.keys), -1, -1):
            around = place.keys[:level]
            index = place.keys[level][0] if level < len(place.keys) else place.index
            changed = copy.deepcopy(list(program))
            edge = _edge(_block(changed, around), index, later=later)
            if edge is None:
                continue
            beside = _block(changed, around)[edge]
            step = _block(changed, place.keys)[place.index]
            if later:
                _block(changed, around).insert(edge + 1, step)
                del _block(changed, place.keys)[place.index]
            else:
                del _block(changed, place.keys)[place.index]
                _block(changed, around).insert(edge, step)
            yield "move", f"{words} {'after' if later else 'before'} {step_text(beside)}", changed
            break


def _drop(block: list[PlainStep], index: int) -> list[PlainStep]:
    """Takes a step out of a block, and what closes it if it opens something; the latter."""
    step = block.pop(index)
    closers = _CLOSED_BY.get(step["step"], ())
    dropped: list[PlainStep] = []
    at = index
    while closers and at < len(block):
        other = block[at]
        if other["step"] in closers and other.get("lock") == step.get("lock"):
            dropped.append(block.pop(at))
            if other["step"] == closers[-1]:
                break
        else:
            at += 1
    return dropped


def _edge(block: Sequence[PlainStep], index: int, *, later: bool) -> int | None:
    """Where the locked section around a step ends, or begins."""
    if later:
        return next((at for at in range(index + 1, len(block)) if block[at]["step"] == "unlock"), None)
    return next((at for at in range(index - 1, -1, -1) if block[at]["step"] == "lock"), None)
