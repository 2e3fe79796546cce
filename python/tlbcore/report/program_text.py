"""A program as a reader of the kernel would write it: C-like pseudo-code from the plain structure of its steps.

Whatever validates prints, a scheme of a user's own too. The text is for reading: it says in which order things happen,
declares nothing and checks no errors. `docs/steps.md` has the exact meaning of each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, cast

from tlbcore.report import spelling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["condition_text", "program_text", "step_text"]

PlainStep: TypeAlias = "Mapping[str, object]"
PlainBlock: TypeAlias = "Sequence[PlainStep]"
_Held: TypeAlias = dict[str, str]

_INDENT: Final = "    "
_AND, _OR = " && ", " || "
_AT_HUGE_PMDS: Final = ("for_each_table", "for_each_extent", "for_each_mapping")
"""Loops that come upon huge PMDs and leave them alone without an `on_huge_pmd`."""


def program_text(operation: str, program: PlainBlock) -> str:
    """The program of `operation` as a function.

    Args:
        operation: The operation, for the function's head.
        program: The steps, as the plain structure of a kernel has them.

    >>> print(program_text("munmap", [{"step": "lock", "lock": "mmap_lock", "mode": "write"},
    ...     {"step": "when", "if": {"all": ["dirty", {"not": "anon"}]}, "then": [{"step": "flush_tlb_mm"}]},
    ...     {"step": "unlock", "lock": "mmap_lock"}]))
    munmap(mm, addr, len)
    {
        mmap_write_lock(mm);
        if (dirty && !anon)
            flush_tlb_mm(mm);
        mmap_write_unlock(mm);
    }
    """
    head = f"{operation}({spelling.OPERATION_ARGUMENTS.get(operation, '')})"
    return "\n".join([head, "{", *_indented(_block(program, {})), "}"])


def step_text(step: PlainStep) -> str:
    """One step on one line; of a loop its head, of a choice its condition and the first step that hangs on it.

    >>> step_text({"step": "when", "if": "dirty", "then": [{"step": "set_page_dirty"}, {"step": "set_force_flush"}]})
    'if (dirty) folio_mark_dirty(folio); ...'
    >>> step_text({"step": "for_each_vma", "body": [{"step": "flush_tlb_mm"}]})
    'for_each_vma(vmi, vma) ...'
    """
    name = str(step["step"])
    if name in spelling.LOOPS:
        return f"{spelling.LOOPS[name]} ..."
    if name == "when":
        then = _part(step, "then")
        inner = step_text(then[0]) if then else ";"
        more = " ..." if (len(then) > 1 or step.get("else")) and not inner.endswith("...") else ""
        return f"if ({condition_text(step['if'])}) {inner}{more}"
    return " ".join(line.strip() for line in _leaf(name, step, {}))


def condition_text(condition: object) -> str:
    """A condition of `when` as C has it.

    >>> condition_text({"any": ["write", {"all": ["young", {"not": {"any": ["anon", "swap"]}}]}]})
    'write || (young && !(anon || swap))'
    """
    if isinstance(condition, dict):
        ((kind, inner),) = condition.items()
        if kind == "not":
            text = condition_text(inner)
            return f"!({text})" if _AND in text or _OR in text else f"!{text}"
        parts = [condition_text(part) for part in inner]
        if not parts:
            return "true" if kind == "all" else "false"
        if len(parts) == 1:
            return parts[0]
        texts = [f"({part})" if _is_joined(sub) else part for part, sub in zip(parts, inner, strict=True)]
        return (_AND if kind == "all" else _OR).join(texts)
    return str(condition)


def _is_joined(condition: object) -> bool:
    """Whether the text has a sign at its top that needs brackets inside another."""
    if not isinstance(condition, dict):
        return False
    ((kind, inner),) = condition.items()
    return kind != "not" and (len(inner) > 1 or (len(inner) == 1 and _is_joined(inner[0])))


def _indented(lines: Sequence[str]) -> list[str]:
    return [_INDENT + line for line in lines]


def _part(step: PlainStep, key: str) -> PlainBlock:
    return cast("PlainBlock", step.get(key, ()))


def _block(block: PlainBlock, held: _Held) -> list[str]:
    """The lines of a block; `held` has the mode of each lock held."""
    lines: list[str] = []
    for step in block:
        name = str(step["step"])
        if name == "when":
            new = _when(step, held)
        elif name in spelling.LOOPS:
            new = _loop(name, step, held)
        else:
            new = _leaf(name, step, held)
        if "source" in step:
            new[0] += f" /* {step['source']} */"
        lines += new
    return lines


def _when(step: PlainStep, held: _Held) -> list[str]:
    """An if, with `else if` for a choice that is all of the else."""
    before = dict(held)
    branches = [(f"if ({condition_text(step['if'])})", _block(_part(step, "then"), held))]
    otherwise = _part(step, "else")
    while len(otherwise) == 1 and otherwise[0]["step"] == "when" and "source" not in otherwise[0]:
        inner = otherwise[0]
        head = f"else if ({condition_text(inner['if'])})"
        branches.append((head, _block(_part(inner, "then"), dict(before))))
        otherwise = _part(inner, "else")
    if otherwise:
        branches.append(("else", _block(otherwise, dict(before))))
    # As the kernel's coding style has it: no braces, unless one of the branches needs them.
    if all(len(lines) == 1 for _, lines in branches):
        return [line for head, lines in branches for line in (head, *_indented(lines))]
    text: list[str] = []
    for head, lines in branches:
        if text:
            text[-1] += f" {head} {{"
        else:
            text.append(f"{head} {{")
        text += [*_indented(lines), "}"]
    return text


def _loop(name: str, step: PlainStep, held: _Held) -> list[str]:
    lines: list[str] = []
    for (loop, key, value), skipped in spelling.SKIPS.items():
        if loop == name and step.get(key) == value:
            lines += [f"if ({skipped})", f"{_INDENT}continue;"]
    whole = _part(step, "on_pmd")
    if whole:
        lines += ["if (whole_pmd(old_addr, new_addr) && pmd_none(*new_pmd)) {"]
        lines += [*_indented([*_block(whole, dict(held)), "continue;"]), "}"]
    huge_block = _part(step, "on_huge_pmd")
    if huge_block:
        lines += ["if (pmd_trans_huge(*pmd)) {"]
        inner = _block(huge_block, dict(held))
        # What was split is a table now, and is walked as one.
        leave = ["if (!pmd_is_table(*pmd))", f"{_INDENT}continue;"] if _splits(huge_block) else ["continue;"]
        lines += [*_indented([*inner, *leave]), "}"]
    elif name in _AT_HUGE_PMDS:
        lines += ["if (pmd_trans_huge(*pmd))", f"{_INDENT}continue;"]
    lines += _block(_part(step, "body"), dict(held))
    text = [f"{spelling.LOOPS[name]} {{", *_indented(lines), "}"]
    if name == "for_each_page" and not step.get("keep"):
        text.append("folios_put(folio_list);")
    return text


def _splits(block: PlainBlock) -> bool:
    return any(
        step["step"] in ("split_huge_pmd", "split_folio")
        or any(_splits(_part(step, key)) for key in ("then", "else", "body", "on_huge_pmd", "on_pmd"))
        for step in block
    )


def _leaf(name: str, step: PlainStep, held: _Held) -> list[str]:
    if name in ("lock", "unlock", "downgrade"):
        return [_lock(name, str(step["lock"]), str(step.get("mode", "")), held)]
    if name == "tlb_gather_mmu":
        kind = "tlb_gather_mmu_fullmm" if step.get("fullmm") else "tlb_gather_mmu"
        return [f"{kind}(&tlb, mm);" + (" /* without a page list */" if step.get("light") else "")]
    if name == "set_pte_file":
        made = "mk_pte(page, vma->vm_page_prot)"
        value = f"maybe_mkwrite(pte_mkdirty({made}), vma)" if step.get("write") else made
        return [f"set_pte_at(mm, addr, ptep, {value});"]
    for (choosing, key), texts in spelling.CHOICES.items():
        if choosing == name:
            lines = list(texts[str(step[key])])
            break
    else:
        lines = spelling.PLAIN.get(name, f"{name}();").split("\n")
    if "pml" in held and "ptl" not in held:
        for small, large in spelling.PTE_TO_PMD:
            lines = [line.replace(small, large) for line in lines]
    return lines


def _lock(name: str, lock: str, mode: str, held: _Held) -> str:
    if name == "lock":
        held[lock] = mode
        return spelling.LOCKS.get((lock, mode), f"{lock}_{mode}_lock();")
    if name == "downgrade":
        held[lock] = "read"
        return spelling.DOWNGRADES.get(lock, f"{lock}_downgrade();")
    mode = held.pop(lock, "write")
    return spelling.UNLOCKS.get((lock, mode), f"{lock}_{mode}_unlock();")
