"""The schemes: what they print, and schemes of a user's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tlbcore import InputError, ProgramError, kernels, program, scheme_lookup
from tlbcore.cli.main import main
from tlbcore.report.program_text import program_text
from tlbcore.schemes import SCHEMES, MmuGather
from tlbcore.steps import Block, flush_tlb_mm, ptep_get_and_clear

OWN = '''
from __future__ import annotations

from dataclasses import dataclass

from tlbcore import kernels
from tlbcore.schemes import MmuGather
from tlbcore.steps import flush_tlb_mm, ptep_get_and_clear


@dataclass(frozen=True)
class FlushAll(MmuGather):
    """Flush everything at the end of each munmap."""

    twice: bool = False

    def munmap(self):
        return [super().munmap(), flush_tlb_mm(), [flush_tlb_mm()] if self.twice else []]


class Impossible(MmuGather):
    """Take an entry out where there is none."""

    def munmap(self):
        return [flush_tlb_mm(), ptep_get_and_clear()]


class Broken(MmuGather):
    """Fail."""

    def munmap(self):
        return ["flush_tlb_mm"]


class Needy(MmuGather):
    """Cannot be made without an argument."""

    def __init__(self, what):
        self.what = what


TWICE = FlushAll(twice=True)
KERNEL = kernels.get("linux-6.18").derive("own", munmap=FlushAll())


def impossible():
    return kernels.get("linux-6.18").derive("impossible", munmap=Impossible())
'''

MUNMAP = """\
munmap(mm, addr, len)
{
    mmap_write_lock(mm);
    start = addr, end = addr + len;
    vms_gather_munmap_vmas(&vms, &mas_detach);
    mmap_write_downgrade(mm);
    if (have_vmas) {
        tlb_gather_mmu(&tlb, mm);
        for_each_vma(vmi, vma) {
            for_each_table(pmd, addr) {
                if (pmd_trans_huge(*pmd)) {
                    pml = pmd_lock(mm, pmd);
                    if (whole_pmd) {
                        pmdp_huge_get_and_clear(mm, addr, pmd);
                        tlb_remove_pmd_tlb_entry(&tlb, pmd, addr);
                        folio_remove_rmap_pmd(folio, page, vma);
                        tlb_remove_page_size(&tlb, page, HPAGE_PMD_SIZE);
                    } else {
                        split_huge_pmd(vma, pmd, addr);
                    }
                    spin_unlock(pml);
                    if (!pmd_is_table(*pmd))
                        continue;
                }
                ptl = pte_offset_map_lock(mm, pmd, addr);
                flush_tlb_batched_pending(mm);
                arch_enter_lazy_mmu_mode();
                for_each_pte(pte, addr) {
                    if (pte_none(pte))
                        continue;
                    if (present) {
                        pte = ptep_get_and_clear(mm, addr, ptep);
                        if (dirty && file_backed) {
                            folio_mark_dirty(folio);
                            delay_rmap = true;
                            force_flush = true;
                        }
                        tlb_remove_tlb_entry(&tlb, ptep, addr);
                        folio_remove_rmap_pte(folio, page, vma);
                        tlb_remove_page(&tlb, page);
                    } else {
                        pte_clear(mm, addr, ptep);
                    }
                }
                arch_leave_lazy_mmu_mode();
                if (force_flush) {
                    tlb_flush_mmu_tlbonly(&tlb);
                    tlb_flush_rmaps(&tlb, vma);
                }
                pte_unmap_unlock(pte, ptl);
                if (force_flush)
                    tlb_flush_mmu(&tlb);
            }
        }
        free_pgtables(&tlb, vma, floor, ceiling);
        tlb_finish_mmu(&tlb);
    }
    mmap_read_unlock(mm);
}
"""

WP_SHARED = """\
wp_shared_mapping_range(mapping, first, last)
{
    i_mmap_lock_read(mapping);
    vma_interval_tree_foreach(vma, &mapping->i_mmap, first, last) {
        inc_tlb_flush_pending(mm);
        for_each_table(pmd, addr) {
            if (pmd_trans_huge(*pmd))
                continue;
            ptl = pte_offset_map_lock(mm, pmd, addr);
            for_each_pte(pte, addr) {
                if (!pte_present(pte))
                    continue;
                if (write) {
                    pte = ptep_get_and_clear(mm, addr, ptep);
                    new_pte = pte_wrprotect(new_pte);
                    set_pte_at(mm, addr, ptep, new_pte);
                    tlb_start = min(tlb_start, addr), tlb_end = max(tlb_end, addr + PAGE_SIZE);
                }
            }
            pte_unmap_unlock(pte, ptl);
        }
        if (mm_tlb_flush_nested(mm))
            flush_tlb_range(vma, start, end);
        else if (tlb_end > tlb_start)
            flush_tlb_range(vma, tlb_start, tlb_end);
        dec_tlb_flush_pending(mm);
    }
    i_mmap_unlock_read(mapping);
}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.mark.parametrize("spelling", ["MmuGather", "mmu_gather", "mmu-gather"])
def test_show_prints_munmap_as_the_kernel_has_it(spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "show", spelling, "--operation", "munmap"]) == 0
    head, _, body = capsys.readouterr().out.partition("\n\n")
    assert body == MUNMAP
    assert head.splitlines() == [
        "/* MmuGather: Collect what one operation takes away, flush once, then free it.",
        " * In Linux: munmap, MADV_DONTNEED, exit; mprotect since Linux kernel commit 4a18419f71cd (in v5.19)",
        " * delay_rmap = True",
        " * madvise_per_vma = False",
        " * dontneed_frees_tables = False",
        " * huge_mkwrite = True",
        " * clean_mkwrite = True",
        " * ages_lru_only = True",
        " */",
    ]


def test_show_prints_the_helpers_of_5_10(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "show", "TlbFlushPending", "--operation", "wp_shared_mapping_range"]) == 0
    assert capsys.readouterr().out.partition("\n\n")[2] == WP_SHARED


def test_the_list_has_every_scheme_and_operation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(SCHEMES)
    for name, make in SCHEMES.items():
        assert listed[name]["operations"] == list(make().operations())
        assert listed[name]["where"]
        assert listed[name]["title"].endswith(".")
    assert main(["schemes"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in SCHEMES)


def test_json_is_the_plain_structure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "show", "synchronous", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    scheme = SCHEMES["Synchronous"]()
    assert shown["programs"] == {
        operation: [step.resolve() for step in scheme.program(operation)] for operation in scheme.operations()
    }


@pytest.mark.parametrize("name", SCHEMES)
def test_every_program_prints_whole(name: str) -> None:
    """Brackets pair, every line is indented by what is open, and every step that takes or drops a page table's lock is there."""
    scheme = SCHEMES[name]()
    for operation in scheme.operations():
        program = [step.resolve() for step in scheme.program(operation)]
        lines = program_text(operation, program).splitlines()
        depth = 0
        for line in lines:
            depth -= line.lstrip().startswith("}")
            assert len(line) - len(line.lstrip()) >= 4 * depth, line
            assert len(line) <= 140
            depth += line.endswith("{")
        assert depth == 0
        text = "\n".join(lines)
        # Each branch may drop for itself what was taken before it: that locks pair on every path is checked with the program.
        plain = json.dumps(program)
        for lock, taken, dropped in (
            ("ptl", "pte_offset_map_lock(", "pte_unmap_unlock("),
            ("pml", "pmd_lock(", "spin_unlock(pml)"),
        ):
            assert text.count(taken) == plain.count(f'"step": "lock", "lock": "{lock}"')
            assert text.count(dropped) == plain.count(f'"step": "unlock", "lock": "{lock}"')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MmuGatherer"], "did you mean MmuGather?"),
        (["MmuGather", "--operation", "munmp"], "did you mean munmap?"),
        (["PerTable", "--operation", "munmap"], "scheme PerTable has no program for munmap, it serves mremap"),
        (["no/such.py:X"], "no/such.py: No such file or directory"),
    ],
)
def test_a_wrong_name_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "show", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_scheme_of_ones_own_is_shown(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "show", f"{own}:FlushAll", "--operation", "munmap"]) == 0
    text = capsys.readouterr().out
    assert "/* FlushAll: Flush everything at the end of each munmap." in text
    assert text.endswith("    mmap_read_unlock(mm);\n    flush_tlb_mm(mm);\n}\n")
    assert main(["schemes", "show", f"{own}:TWICE", "--operation", "munmap"]) == 0
    assert capsys.readouterr().out.endswith("    flush_tlb_mm(mm);\n    flush_tlb_mm(mm);\n}\n")


def test_a_file_with_one_scheme_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "single.py"
    path.write_text("from tlbcore.schemes import MmuGather\n\nclass Mine(MmuGather):\n    'Mine.'\n", encoding="utf-8")
    assert type(scheme_lookup.get(str(path))).__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Absent", "found no scheme 'Absent', expected one of FlushAll, Impossible, Broken, Needy, TWICE"),
        ("Needy", "Needy(): found TypeError"),
    ],
)
def test_what_a_file_does_not_hold(own: Path, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        scheme_lookup.get(f"{own}:{name}")
    assert message in str(caught.value)


def test_a_scheme_that_fails_is_named(own: Path) -> None:
    with pytest.raises(InputError, match=r"^scheme Broken: munmap: found TypeError \(found 'flush_tlb_mm' in a block"):
        scheme_lookup.get(f"{own}:Broken").program("munmap")


def test_a_file_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import tlbcore\n1 / 0\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.py: line 2: found ZeroDivisionError \(division by zero\), expected"):
        scheme_lookup.get(f"{path}:X")


def test_a_kernel_of_ones_own(own: Path) -> None:
    kernel = kernels.get(str(own))
    assert kernel.name == "own"
    program.validate(kernel)
    plain = kernel.resolve()
    assert isinstance(plain["programs"], dict)
    assert plain["programs"]["munmap"][-1] == {"step": "flush_tlb_mm"}
    with pytest.raises(InputError, match="found the scheme FlushAll, expected a kernel, such as"):
        kernels.get(f"{own}:FlushAll")
    with pytest.raises(InputError, match="found no kernel NOTHING, expected one of KERNEL"):
        kernels.get(f"{own}:NOTHING")


def test_an_impossible_step_is_named_by_its_path(own: Path) -> None:
    expected = "program impossible:munmap: step munmap[1]: ptep_get_and_clear needs a current entry"
    with pytest.raises(ProgramError) as caught:
        program.validate(kernels.get(f"{own}:impossible"))
    assert str(caught.value) == expected

    class Impossible(MmuGather):
        def munmap(self) -> Block:
            return [flush_tlb_mm(), ptep_get_and_clear()]

    with pytest.raises(ProgramError):
        program.validate(kernels.get("linux-6.18").derive("impossible", munmap=Impossible()))


def test_the_command_says_the_same(own: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tlbcore", "kernels", "show", f"{own}:impossible"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == (
        "tlbcore: error: program impossible:munmap: step munmap[1]: ptep_get_and_clear needs a current entry\n"
    )
