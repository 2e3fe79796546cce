"""The step language: Python, the compiled core and the documentation know the same words."""

import json
import re
from pathlib import Path

import pytest

from tlbcore import InputError, ProgramError, _core, kernels, program, steps
from tlbcore.report import spelling
from tlbcore.report.program_text import condition_text, program_text
from tlbcore.scheme import OPERATIONS
from tlbcore.steps import Condition, Step, anon, dirty, flatten, flush_tlb_mm, swap, when, write, young

STEPS_PAGE = (Path(__file__).parents[1] / "docs" / "steps.md").read_text(encoding="utf-8")

CONTROL = {
    "when": when(dirty, flush_tlb_mm()),
    "for_each_vma": steps.for_each_vma(),
    "for_each_rmap_vma": steps.for_each_rmap_vma(),
    "for_each_table": steps.for_each_table(),
    "for_each_pte": steps.for_each_pte(),
    "for_each_extent": steps.for_each_extent(),
    "for_each_page": steps.for_each_page(),
    "for_each_mapping": steps.for_each_mapping(),
}
WITH_ARGUMENTS = {
    "lock": steps.mmap_write_lock(),
    "unlock": steps.mmap_unlock(),
    "downgrade": steps.mmap_write_downgrade(),
    "select_range": steps.select_range("args"),
    "select_range_at": steps.select_range_at(0, 4096),
    "pte_modify": steps.pte_modify(),
    "pte_mkwrite": steps.pte_mkwrite("always"),
    "flush_tlb_range": steps.flush_tlb_range("vma"),
    "tlb_gather_mmu": steps.tlb_gather_mmu(),
    "set_pte_file": steps.set_pte_file(),
}


def python_step_names() -> set[str]:
    return {*CONTROL, *WITH_ARGUMENTS, *steps.PLAIN_STEPS}


def documented() -> set[str]:
    """Every word that the page sets as code."""
    code = re.findall(r"`([^`]+)`", STEPS_PAGE)
    return {word for text in code for word in re.findall(r"[a-z_0-9]+", text)}


def test_python_and_the_core_know_the_same_steps() -> None:
    assert python_step_names() == set(_core.step_names())
    assert len(_core.step_names()) == len(set(_core.step_names()))


def test_each_function_is_named_as_its_step() -> None:
    for name, step in (CONTROL | WITH_ARGUMENTS).items():
        assert step.name == name
    for name, plain in steps.PLAIN_STEPS.items():
        assert plain() == Step(name)
        assert getattr(steps, name) is plain


def test_python_and_the_core_know_the_same_conditions() -> None:
    assert set(steps.CONDITIONS) == set(_core.condition_names())
    for name, condition in steps.CONDITIONS.items():
        assert getattr(steps, name) is condition


def test_python_and_the_core_know_the_same_programs() -> None:
    assert list(OPERATIONS) == _core.program_names()


def test_every_word_is_documented() -> None:
    words = {*_core.step_names(), *_core.condition_names(), *_core.program_names()}
    assert words - documented() == set()


def test_every_word_has_a_spelling() -> None:
    assert set(spelling.PLAIN) == set(steps.PLAIN_STEPS)
    assert set(spelling.LOOPS) == set(CONTROL) - {"when"}
    assert set(spelling.OPERATION_ARGUMENTS) == set(OPERATIONS)
    assert {step for step, _ in spelling.CHOICES} < set(WITH_ARGUMENTS)


def test_every_choice_of_an_argument_has_a_spelling_and_no_other() -> None:
    for (step, key), texts in spelling.CHOICES.items():
        plain = kernels.get("linux-6.18").resolve()
        programs = plain["programs"]
        assert isinstance(programs, dict)
        programs["munmap"] = [{"step": step, key: "nothing"}]
        with pytest.raises(ProgramError, match="expected one of ") as caught:
            program.validate(plain)
        assert str(caught.value).split("expected one of ")[1].split(", ") == list(texts)


def test_conditions_combine() -> None:
    both: Condition = dirty & ~(anon | swap) & write
    assert both.resolve() == {"all": ["dirty", {"not": {"any": ["anon", "swap"]}}, "write"]}
    assert str(both) == "dirty && !(anon || swap) && write"
    assert ~~both == both


@pytest.mark.parametrize(
    "condition", [dirty, ~dirty, dirty & anon, dirty | (anon & ~swap), ~(dirty | anon) & young, (dirty | anon) & write]
)
def test_the_text_of_a_condition_and_of_its_plain_structure_agree(condition: Condition) -> None:
    assert condition_text(condition.resolve()) == str(condition)


def test_the_text_of_odd_conditions() -> None:
    assert condition_text({"all": []}) == "true"
    assert condition_text({"any": []}) == "false"
    assert condition_text({"not": {"all": [{"any": ["dirty", "anon"]}]}}) == "!(dirty || anon)"


def test_blocks_are_flattened_in_order() -> None:
    first, second, third = flush_tlb_mm(), steps.count_changed(), steps.put_page()
    assert flatten([first, [[second], []], third]) == (first, second, third)
    with pytest.raises(TypeError, match="found 'flush' in a block of steps"):
        flatten([first, "flush"])


def test_program_text_of_a_choice_of_choices() -> None:
    inner = when(anon, flush_tlb_mm(), otherwise=[steps.count_changed(), steps.flush_tlb_page()])
    text = program_text("fork", [when(dirty, steps.put_page(), otherwise=[inner]).resolve()])
    assert text == (
        "fork(mm)\n{\n"
        "    if (dirty) {\n        folio_put(folio);\n"
        "    } else if (anon) {\n        flush_tlb_mm(mm);\n"
        "    } else {\n        nr_changed++;\n        flush_tlb_page(vma, addr);\n    }\n}"
    )


def test_program_text_tells_the_lock_that_is_dropped_by_how_it_is_held() -> None:
    read = [steps.mmap_write_lock(), steps.mmap_write_downgrade(), steps.mmap_unlock()]
    assert program_text("munmap", [step.resolve() for step in read]).splitlines()[2:-1] == [
        "    mmap_write_lock(mm);",
        "    mmap_write_downgrade(mm);",
        "    mmap_read_unlock(mm);",
    ]


def test_program_text_shows_the_source_of_a_step() -> None:
    step = {"step": "flush_tlb_mm", "source": "kernel/fork.c"}
    assert "    flush_tlb_mm(mm); /* kernel/fork.c */" in program_text("fork", [step]).splitlines()


def test_program_text_survives_a_step_that_it_has_no_words_for() -> None:
    assert "    frobnicate();" in program_text("mystery", [{"step": "frobnicate"}])


def test_what_is_not_a_kernel_is_refused() -> None:
    with pytest.raises(InputError, match=r"^kernel is not JSON"):
        _core.validate_kernel("{")
    with pytest.raises(InputError, match=r"^kernel: found format nothing, expected tlbcore-kernel$"):
        _core.validate_kernel(json.dumps({"name": "x"}))
