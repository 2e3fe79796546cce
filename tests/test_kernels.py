"""The kernels: every switch resolves, validates and does something; constants are those of the versions."""

import json
from typing import cast

import pytest

import kernel_files
from tlbcore import InputError, kernels, program
from tlbcore.cli.main import main
from tlbcore.kernel import Kernel, ResolvedKernel
from tlbcore.schemes import MmuGather, PerTable
from tlbcore.simulator import Simulator

CONSOLIDATED = kernels.FAMILIES["consolidated"]
EVERY_VALUE = [
    (family.name, switch.name, value)
    for family in kernels.FAMILIES.values()
    for switch in family.switches
    for value in switch.values
]


def meaning(kernel: Kernel) -> dict[str, object]:
    """What a machine sees of a kernel: its constants and programs."""
    plain = kernel.resolve()
    return {"constants": plain["constants"], "programs": plain["programs"]}


@pytest.mark.parametrize(("family", "switch", "value"), EVERY_VALUE)
def test_every_value_of_every_switch_resolves_and_validates(family: str, switch: str, value: str) -> None:
    kernel = kernels.get(f"{family}:{switch}={value}")
    assert kernel.switches[switch] == value
    assert kernel.name == f"{family}:{switch}={value}"
    program.validate(kernel)
    program.validate(kernels.FAMILIES[family].make({switch: value}))


@pytest.mark.parametrize(
    ("family", "switch", "value"),
    [(f, s, v) for f, s, v in EVERY_VALUE if v != {x.name: x for x in kernels.FAMILIES[f].switches}[s].default],
)
def test_each_switch_alone_changes_something(family: str, switch: str, value: str) -> None:
    changed = kernels.get(f"{family}:{switch}={value}")
    assert meaning(changed) != meaning(kernels.get(family))


@pytest.mark.parametrize("switch", [s.name for s in CONSOLIDATED.switches if s.name != "light_gather"])
def test_each_switch_of_the_series_does_something_by_itself(switch: str) -> None:
    """Alone, with all others off; a light gather needs an operation that has come to a gather by another switch."""
    value = {s.name: s.default for s in CONSOLIDATED.switches}[switch]
    needs = ",mprotect_gather=on" if switch == "skip_unless_demoted" else ""
    without = kernels.get(f"consolidated:none{needs}")
    assert meaning(kernels.get(f"consolidated:none,{switch}={value}{needs}")) != meaning(without)


def test_the_series_with_nothing_of_it_is_5_10() -> None:
    assert meaning(kernels.get("consolidated:none")) == meaning(kernels.get("linux-5.10"))
    assert kernels.get("consolidated:none,reclaim_cpumask").switches["reclaim_cpumask"] == "on"


def test_no_two_kernels_are_the_same() -> None:
    texts = {json.dumps(meaning(kernels.get(name)), sort_keys=True) for name in kernels.FAMILIES}
    assert len(texts) == len(kernels.FAMILIES)


@pytest.mark.parametrize(
    ("constant", "of_5_10", "of_6_1", "of_6_18"),
    [
        ("tlb_single_page_flush_ceiling", 33, 33, 33),
        ("tlb_nr_dyn_asids", 6, 6, 6),
        ("mm_cpumask_rule", "eager", "eager", "lazy"),
        ("should_flush_tlb", "is_lazy", "is_lazy", "loaded_mm"),
        ("trim_cpumask_interval_ns", 0, 0, 10**9),
        ("flush_skips_old_gen", False, True, True),
        ("flush_tlb_range_freed_tables", False, True, True),
        ("local_flush_first", True, False, False),
        ("batched_pending", "flag", "counter", "counter"),
        ("pud_move", False, True, True),
    ],
)
def test_constants_of_the_versions(constant: str, of_5_10: object, of_6_1: object, of_6_18: object) -> None:
    found = [kernels.get(name).constants[constant] for name in ("linux-5.10", "linux-6.1", "linux-6.18")]
    assert found == [of_5_10, of_6_1, of_6_18]


def schemes(name: str) -> dict[str, str]:
    return cast("dict[str, str]", kernels.get(name).resolve()["schemes"])


def test_which_scheme_serves_what() -> None:
    old, middle, new = (schemes(name) for name in ("linux-5.10", "linux-6.1", "linux-6.18"))
    assert (old["mprotect"], middle["mprotect"], new["mprotect"]) == ("TlbFlushPending", "MmuGather", "MmuGather")
    assert old["clear_refs_soft_dirty"] == "ForgetfulGather"
    assert middle["clear_refs_soft_dirty"] == new["clear_refs_soft_dirty"] == "TlbFlushPending"
    assert schemes("consolidated")["clear_refs_soft_dirty"] == "Consolidated"
    assert all(of["mremap"] == "PerTable" and of["shrink_folio_list"] == "DeferredUnmap" for of in (old, middle, new))


def steps_of(block: object) -> set[str]:
    """The names of all steps in a plain structure."""
    if isinstance(block, list):
        return set().union(*(steps_of(step) for step in block))
    if isinstance(block, dict):
        inner = set().union(*(steps_of(value) for value in block.values()))
        return inner | ({str(block["step"])} if "step" in block else set())
    return set()


def program_steps(name: str, operation: str) -> set[str]:
    plain: ResolvedKernel = kernels.get(name).resolve()
    return steps_of(cast("dict[str, object]", plain["programs"])[operation])


def gathers_first(name: str, operation: str) -> bool:
    """Whether the gather is opened for the call, before the walk of the VMAs."""
    steps = cast("dict[str, list[dict[str, object]]]", kernels.get(name).resolve()["programs"])[operation]
    return "tlb_gather_mmu" in [step["step"] for step in steps]


def test_what_a_version_brought() -> None:
    assert "set_delay_rmap" in program_steps("linux-6.18", "munmap")
    assert "set_delay_rmap" not in program_steps("linux-6.1", "munmap")
    assert "set_tlb_ubc_flush_pending" in program_steps("linux-6.18", "migrate_pages")
    assert "set_tlb_ubc_flush_pending" not in program_steps("linux-6.1", "migrate_pages")
    assert "tlb_flush_pte_range" not in program_steps("linux-5.10", "clear_refs_soft_dirty")
    assert [gathers_first("linux-6.18", f"madvise_{advice}") for advice in ("dontneed", "free", "cold")] == [
        True,
        True,
        False,
    ]
    assert not gathers_first("linux-6.1", "madvise_free")
    assert "check_deferred_flush" in program_steps("consolidated", "munmap")
    assert "check_deferred_flush" not in program_steps("consolidated:pending=off", "munmap")


def test_mremap_unmaps_as_the_kernel_unmaps() -> None:
    for name in kernels.FAMILIES:
        kernel = kernels.get(name)
        mremap = kernel.schemes["mremap"]
        assert isinstance(mremap, PerTable)
        assert mremap.unmapping == kernel.schemes["munmap"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linux-6.8", "expected one of linux-5.10, linux-6.1, linux-6.18, consolidated or FILE.py:NAME, did you mean"),
        ("consolidate", "did you mean consolidated?"),
        ("linux-6.18:lazy_mu=on", "found switch lazy_mu, expected one of lazy_mmu, did you mean lazy_mmu?"),
        (
            "linux-6.18:lazy_mmu=sparc",
            "switch lazy_mmu is sparc, expected one of native, sparc64, powerpc-hash, xen-pv",
        ),
        ("consolidated:pending=on", "switch pending is on, expected one of table, vma, mm, off"),
    ],
)
def test_a_wrong_name_is_one_line(spec: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError) as caught:
        kernels.get(spec)
    assert message in str(caught.value)
    assert main(["kernels", "show", spec]) == 2
    assert capsys.readouterr().err == f"tlbcore: error: {caught.value}\n"


def test_derive_changes_what_it_names() -> None:
    base = kernels.get("linux-6.18")
    mine = base.derive("mine", constants={"tlb_single_page_flush_ceiling": 1}, munmap=MmuGather(delay_rmap=False))
    program.validate(mine)
    assert (mine.name, mine.constants["tlb_single_page_flush_ceiling"]) == ("mine", 1)
    assert "set_delay_rmap" not in steps_of(cast("dict[str, object]", mine.resolve()["programs"])["munmap"])
    assert base.constants["tlb_single_page_flush_ceiling"] == 33
    with pytest.raises(InputError, match=r"kernel mine: found operation munmp, expected .* did you mean munmap\?"):
        base.derive("mine", munmp=MmuGather())
    with pytest.raises(InputError, match="found constant tlb_flush_ceiling, expected "):
        base.derive("mine", constants={"tlb_flush_ceiling": 1})


def test_constants_are_checked_by_the_core() -> None:
    odd = kernels.get("linux-6.18").derive("odd", constants={"fault_around_pages": 3})
    with pytest.raises(InputError, match="kernel odd: constant fault_around_pages: found 3, expected a power of two"):
        program.validate(odd)
    wrong: list[tuple[str, int | str, str]] = [
        ("tlb_single_page_flush_ceiling", "33", "found .33., expected a whole number from 0 to 18446744073709551615"),
        ("pud_move", 1, "found 1, expected true or false"),
        ("mm_cpumask_rule", "late", "found .late., expected one of eager, lazy"),
    ]
    for name, value, message in wrong:
        odd = kernels.get("linux-6.18").derive("odd", constants={name: value})
        with pytest.raises(InputError, match=f"^kernel odd: constant {name}: {message}$"):
            program.validate(odd)
        for backend in ("core", "reference"):
            with pytest.raises(InputError, match=f"^kernel odd: constant {name}: {message}$"):
                Simulator("default", odd, backend=backend)


def test_show_has_constants_schemes_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "show", "linux-6.18"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["linux-6.18", "  Linux 6.18: lazily cleared mm_cpumask", "  source: v6.18.2"]
    ceiling = next(line for line in lines if line.startswith("  tlb_single_page_flush_ceiling  33  "))
    assert ceiling.endswith("  arch/x86/mm/tlb.c:tlb_single_page_flush_ceiling (v6.18.2)")
    migrate = next(line for line in lines if line.startswith("  migrate_pages            DeferredUnmap  "))
    assert migrate.endswith("  commit 7e12beb8ca2a (v6.3); mm/migrate.c:migrate_pages_batch (v6.18.2)")
    batch = next(line for line in lines if line.split()[:2] == ["DeferredUnmap.batch_migration", "true"])
    assert batch.endswith("  commit 7e12beb8ca2a (v6.3)")
    assert main(["kernels", "show", "linux-6.18", "--operation", "fork"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["/* linux-6.18: fork by Synchronous */", "fork(mm)"]
    assert main(["kernels", "show", "linux-6.18", "--sources"]) == 0
    assert "programs" not in capsys.readouterr().out.splitlines()


def test_json_is_what_the_core_compiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "show", "consolidated", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text) == kernels.get("consolidated").resolve()
    assert main(["kernels", "show", "consolidated", "--operation", "fork", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(text)["programs"]["fork"]
    assert main(["kernels", "--json"]) == 0
    assert [family["name"] for family in json.loads(capsys.readouterr().out)] == list(kernels.FAMILIES)


def test_the_core_is_tested_with_what_python_resolves() -> None:
    assert kernel_files.stale() == [], "python tools/kernel_files.py writes them"
