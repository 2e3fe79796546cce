"""Mutation: known races come back when their mend is taken out, and what survives is told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import mutation as page
import tlbcore
from tlbcore import InputError, _core, kernels
from tlbcore.cli.main import main
from tlbcore.mutants import mutants, probe
from tlbcore.mutate import WHY

if TYPE_CHECKING:
    from tlbcore.mutate import Mutation


def only(mutations: tuple[Mutation, ...], kind: str, change: str) -> Mutation:
    """The one mutant with this change."""
    (found,) = (m for m in mutations if m.kind == kind and m.change.startswith(change))
    return found


def test_the_mutants_of_a_small_program() -> None:
    program: list[dict[str, Any]] = [
        {"step": "lock", "lock": "mmap_lock", "mode": "read"},
        {"step": "for_each_vma", "body": [{"step": "flush_tlb_mm"}]},
        {"step": "unlock", "lock": "mmap_lock"},
    ]
    found = mutants("munmap", program)
    assert [(m.kind, m.path) for m in found] == [
        ("drop", "munmap[0]"),
        ("swap", "munmap[0]"),
        ("drop", "munmap[1]"),
        ("swap", "munmap[1]"),
        ("drop", "munmap[1].for_each_vma[0]"),
        ("move", "munmap[1].for_each_vma[0]"),
        ("move", "munmap[1].for_each_vma[0]"),
        ("drop", "munmap[2]"),
    ]
    # A lock goes with its unlock; what is moved leaves the loop for the block that has the lock.
    assert found[0].program == (program[1],)
    assert found[5].program == (
        program[0],
        {"step": "for_each_vma", "body": []},
        program[2],
        {"step": "flush_tlb_mm"},
    )
    assert probe(found[4], program)[1] == {
        "step": "for_each_vma",
        "body": [{"step": "flush_tlb_mm"}, {"step": "flush_tlb_mm"}],
    }
    assert [m.path for m in mutants("munmap", program, ["flush_tlb_mm"])] == ["munmap[1].for_each_vma[0]"] * 3


@pytest.mark.parametrize(
    ("scheme", "operation", "partner", "kind", "change", "violated"),
    [
        # R05: mprotect does not ask what reclaim left unflushed.
        ("mmu-gather", "mprotect", "shrink_folio_list", "drop", "flush_tlb_batched_pending", "I3"),
        # R05b: nor does munmap.
        ("mmu-gather", "munmap", "shrink_folio_list", "drop", "flush_tlb_batched_pending", "I2"),
        # R03: the flush of dirty entries is not forced, or comes after the unlock.
        ("mmu-gather", "madvise_dontneed", "page_mkclean", "drop", "force_flush = true", "I4"),
        ("mmu-gather", "madvise_dontneed", "page_mkclean", "move", "tlb_flush_mmu_tlbonly(&tlb); after", "I4"),
        # R04: the rmap is removed before the flush.
        ("mmu-gather", "madvise_dontneed", "page_mkclean", "drop", "delay_rmap = true", "I4"),
        ("mmu-gather", "madvise_dontneed", "page_mkclean", "swap", "tlb_flush_mmu_tlbonly(&tlb); <->", "I4"),
        # R35: nothing is recorded.
        ("mmu-gather", "mprotect", "munmap", "drop", "tlb_flush_pte_range", "I3"),
        # R09, R11: others do not see that a flush is outstanding.
        ("tlb-flush-pending", "wp_shared_mapping_range", "wp_shared_mapping_range", "drop", "inc_tlb_flush", "I3"),
        # R02: the flush comes not at all.
        ("per-table", "mremap", "page_mkclean", "drop", "if (force_flush) flush_tlb_range", "I2"),
    ],
)
def test_a_mend_taken_out_is_noticed(  # noqa: PLR0913, PLR0917 - one row of the table
    scheme: str, operation: str, partner: str, kind: str, change: str, violated: str
) -> None:
    report = tlbcore.mutate(scheme, "linux-6.18", operations=[operation], partners=[partner])
    found = only(report.unsafe, kind, change)
    assert found.violated == (violated,)
    assert found.length > 0
    assert found.scenario.startswith(operation)
    # What is unsafe is unsafe by itself: the same program under the same name, asked for directly.
    (mutant,) = (
        m
        for m in mutants(operation, kernels.get("linux-6.18").resolve()["programs"][operation])  # type: ignore[index]
        if (m.kind, m.path, m.change) == (found.kind, found.path, found.change)
    )
    assert mutant.step == found.step


def test_why_a_mutant_survives_is_told() -> None:
    report = tlbcore.mutate("mmu-gather", operations=["mprotect"], partners=["munmap"])
    assert report.safe
    assert report.kernel == "linux-6.18"
    assert not report.partial
    assert report.nr_mutants == len(report.mutations)
    assert {m.why for m in report.survivors} <= set(WHY)
    why = {(m.kind, m.step, "on_huge_pmd" in m.path): m.why for m in report.survivors}
    assert why["drop", "arch_enter_lazy_mmu_mode", False] == "not modelled"
    assert why["drop", "split_huge_pmd", True] == "unreached"
    assert why["drop", "mprotect_fixup", False] == "result"
    refused = {(m.kind, m.step): m.why for m in report.refused}
    assert "needs an open mmu_gather" in refused["drop", "tlb_gather_mmu"]


def test_more_workers_find_the_same() -> None:
    one = tlbcore.mutate("mmu-gather", operations=["madvise_cold"], partners=["munmap"], threads=1)
    assert tlbcore.mutate("mmu-gather", operations=["madvise_cold"], partners=["munmap"], threads=2) == one


def test_what_the_scheme_itself_violates_is_said_and_not_held_against_its_mutants() -> None:
    report = tlbcore.mutate(
        "deferred-unmap", operations=["shrink_folio_list"], partners=["page_mkclean"], steps=["pageout"]
    )
    assert not report.safe
    assert {finding.violated for finding in report.baseline} == {("I4",)}
    assert all("I4" not in mutation.violated or "alone" in mutation.scenario for mutation in report.unsafe)


def test_ctrl_c_leaves_what_is_done() -> None:
    def interrupt(done: int, total: int) -> None:
        assert total > done
        if done == 3:
            raise KeyboardInterrupt

    report = tlbcore.mutate("lazy-mmu", operations=["munmap"], partners=["fork"], progress=interrupt)
    assert report.partial
    assert not report.safe, "what was not tried says nothing"
    assert len(report.mutations) == 3 < report.nr_mutants


def test_what_was_interrupted_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tlbcore.mutate("lazy-mmu", operations=["munmap"], partners=[])
    for partial, status in ((False, 0), (True, 1)):
        monkeypatch.setattr(
            "tlbcore.cli.mutation.mutate", lambda *_, partial=partial, **__: replace(report, partial=partial)
        )
        assert main(["check", "--mutate", "lazy-mmu"]) == status
    assert "interrupted" in capsys.readouterr().out


def test_a_scheme_without_programs_is_its_steps_in_those_of_others() -> None:
    report = tlbcore.mutate("lazy-mmu", operations=["munmap", "fork"], partners=[])
    assert {m.step for m in report.mutations} == {"arch_enter_lazy_mmu_mode", "arch_leave_lazy_mmu_mode"}
    assert {m.operation for m in report.mutations} == {"munmap", "fork"}


def test_programs_that_drop_more_than_they_have_stop_the_search() -> None:
    kernel = kernels.get("linux-6.18").resolve()
    program = kernel["programs"]["madvise_dontneed"]  # type: ignore[index]
    text = json.dumps(program).replace(
        '{"step": "page_remove_rmap"}', '{"step": "page_remove_rmap"}, {"step": "page_remove_rmap"}'
    )
    kernel["programs"]["madvise_dontneed"] = json.loads(text)  # type: ignore[index]
    scenario = {"users": 1, "pages": [{"kind": "file"}], "threads": [{"operation": "madvise_dontneed"}]}
    # The map count is in the state where an invariant reads it.
    answer = json.loads(_core.explore(json.dumps(kernel), json.dumps(scenario), json.dumps({"invariants": ["I10"]})))
    assert not answer["safe"]
    assert answer["stopped"].startswith("a counter")


def test_bad_input_is_one_line() -> None:
    with pytest.raises(InputError, match="found operation fault, expected one of mremap"):
        tlbcore.mutate("per-table", operations=["fault"])


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--mutate", "mmu-gather", "--kernel", "linux-6.18", "--op", "page_mkclean"]) == 2
    assert main(["check"]) == 2
    assert "--mutate SCHEME" in capsys.readouterr().err
    assert main(["check", "--mutate", "lazy-mmu", "--op", "fork", "--jobs", "2"]) == 0
    assert "Survive, not modelled" in capsys.readouterr().out
    assert main(["check", "--mutate", "lazy-mmu", "--op", "fork", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scheme"] == "LazyMmu"


@pytest.mark.timeout(300)
def test_the_page_shows_what_comes_out() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert "\n".join(page.section(page.report_of("TlbFlushPending"))).rstrip("\n") + "\n" in text


def test_a_misspelt_step_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"found step 'flush_tlb_rang', expected .*did you mean flush_tlb_range\?"):
        tlbcore.mutate("per-table", operations=["mremap"], steps=["flush_tlb_rang"])
