"""Each part of each kernel has a source, and each source can be looked up."""

import dataclasses
import itertools
import re
from collections import Counter

import pytest

from given_data import DATA
from tlbcore import InputError, _core, kernels
from tlbcore.kernel import Kernel
from tlbcore.reference.operations import OPERATIONS as MACHINE_OPERATIONS
from tlbcore.scheme import OPERATIONS
from tlbcore.schemes import SCHEMES, MmuGather
from tlbcore.source import Source, parse_sources

EVERY_KERNEL = [
    pytest.param(family.make({switch.name: value}), id=f"{family.name}:{switch.name}={value}")
    for family in kernels.FAMILIES.values()
    for switch in family.switches
    for value in switch.values
]
RULES = DATA.parent / "docs" / "rule-sources.md"
LINUX = ("linux-5.10", "linux-6.1", "linux-6.18")


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_every_part_of_a_kernel_has_a_source(kernel: Kernel) -> None:
    parts = kernel.parts()
    assert kernel.unsourced() == ()
    assert set(kernel.sources) <= set(parts)
    assert {f"constants.{name}" for name in kernel.constants} <= set(parts)
    assert {f"programs.{operation}" for operation in OPERATIONS} <= set(parts)
    assert {f"switches.{name}" for name in kernel.switches} <= set(parts)
    for sources in kernel.all_sources().values():
        assert sources
        for source in sources:
            assert Source.parse(str(source)) == source


def test_every_value_of_every_switch_and_every_option_of_a_scheme_has_a_source() -> None:
    for family in kernels.FAMILIES.values():
        for switch in family.switches:
            for text in switch.sources.values():
                assert parse_sources(text)
    for scheme in SCHEMES.values():
        options = {option for owner, option, _ in scheme().options() if type(owner) is scheme}
        assert set(scheme.sources) == options
        for text in scheme.sources.values():
            assert parse_sources(text)


@pytest.mark.parametrize(("older", "newer"), [*itertools.pairwise(LINUX), ("linux-5.10", "consolidated")])
def test_what_differs_between_kernels_differs_in_its_source(older: str, newer: str) -> None:
    """What a kernel takes over may keep its source; a new value or scheme with the old source would be stale."""
    before, after = kernels.get(older), kernels.get(newer)
    for name, value in after.constants.items():
        if value != before.constants[name]:
            assert after.sources[f"constants.{name}"] != before.sources[f"constants.{name}"], name
    if newer != "consolidated":  # one scheme serves most of it, with the same programs where no switch changes them
        for operation, scheme in after.schemes.items():
            if type(scheme) is not type(before.schemes[operation]):
                assert after.sources[f"programs.{operation}"] != before.sources[f"programs.{operation}"], operation


@pytest.mark.parametrize("name", LINUX)
def test_no_source_is_newer_than_the_kernel(name: str) -> None:
    """But for backports, which say so, what the absence of an option means, and the lazy-MMU batches."""
    kernel = kernels.get(name)
    version = tuple(int(part) for part in name.removeprefix("linux-").split("."))
    for path, sources in kernel.all_sources().items():
        if path.startswith(("options.", "switches.lazy_mmu", "constants.lazy_mmu")):
            continue
        for source in sources:
            found = re.match(r"v(\d+)\.(\d+)", source.version)
            newer = found is not None and (int(found[1]), int(found[2])) > version
            assert not newer or f"in the {version[0]}.{version[1]} series" in source.note, (path, str(source))


def test_the_lab_is_cited_for_the_kernel_that_it_recorded() -> None:
    cited = {
        name: {
            int(s.where)
            for sources in kernels.get(name).all_sources().values()
            for s in sources
            if s.kind == "lab rule"
        }
        for name in kernels.FAMILIES
    }
    assert cited["linux-6.1"] == set(range(1, 14))
    assert not cited["linux-5.10"]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("mm/rmap.c (v6.18.2)", Source("file", "mm/rmap.c", "v6.18.2")),
        ("mm/rmap.c:try_to_unmap_one (v5.10.7)", Source("file", "mm/rmap.c:try_to_unmap_one", "v5.10.7")),
        ("mm/mprotect.c (RFC 02/20): a patch", Source("file", "mm/mprotect.c", "RFC 02/20", "a patch")),
        ("commit 5df397dec7c4 (v6.2)", Source("commit", "5df397dec7c4", "v6.2")),
        ("kernel lab, rule 14: a note", Source("lab rule", "14", "", "a note")),
    ],
)
def test_the_forms_of_a_source(text: str, source: Source) -> None:
    assert Source.parse(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("somewhere", "source: found 'somewhere', expected FILE:FUNCTION"),
        ("mm/rmap.c", "source: found 'mm/rmap.c', expected"),
        ("commit 5df397 (v6.2)", "source: found 'commit 5df397 (v6.2)', expected"),
        ("mm/rmap.c (RFC 21/20)", "source: found 'mm/rmap.c (RFC 21/20)', expected"),
        ("kernel lab, rule 15", "source: found rule 15, expected one of 1 to 14"),
        ("", "source: found '', expected"),
    ],
)
def test_another_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_sources(text)
    assert str(caught.value).startswith(message)


def test_a_kernel_of_ones_own_keeps_the_sources_of_what_it_keeps() -> None:
    base = kernels.get("linux-6.18")
    mine = base.derive("mine", constants={"tlb_single_page_flush_ceiling": 64}, munmap=MmuGather(delay_rmap=False))
    assert mine.unsourced() == ("constants.tlb_single_page_flush_ceiling", "programs.munmap")
    assert base.derive("same", constants={"tlb_single_page_flush_ceiling": 33}).unsourced() == ()
    path = "constants.tlb_single_page_flush_ceiling"
    said = base.derive(
        "said", constants={"tlb_single_page_flush_ceiling": 64}, sources={path: "arch/x86/mm/tlb.c (v7.0): mine"}
    )
    assert said.unsourced() == ()
    assert [str(source) for source in said.sources[path]] == ["arch/x86/mm/tlb.c (v7.0): mine"]
    assert said.resolve()["sources"][path] == ["arch/x86/mm/tlb.c (v7.0): mine"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"constants.thp": "my head"}, "kernel mine: constants.thp: source: found 'my head', expected FILE:FUNCTION"),
        (
            {"constants.thq": "mm/mmap.c (v6.18.2)"},
            "kernel mine: found a source of constants.thq, expected that of a part such as programs.munmap, did",
        ),
    ],
)
def test_a_wrong_source_is_one_line(sources: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        kernels.get("linux-6.18").derive("mine", sources=sources)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", kernels.FAMILIES)
def test_each_source_that_is_taken_away_is_missed(name: str) -> None:
    """The twin of the first test: whatever part loses its source, that is seen, and no other."""
    kernel = kernels.get(name)
    needed = [part for part in kernel.parts() if kernel.sources.get(part)]
    assert len(needed) > len(kernel.constants)
    for part in needed:
        rest = {path: sources for path, sources in kernel.sources.items() if path != part}
        assert dataclasses.replace(kernel, sources=rest).unsourced() == (part,)


@pytest.mark.parametrize(
    "text", ["lab rule 3", "mm/rmap.c:f", "commit xyz (v6.2)", "mm/rmap.c (v6.18.2);", "a; mm/a.c (v6.1)"]
)
def test_each_source_that_is_malformed_is_refused(text: str) -> None:
    kernel = kernels.get("linux-6.1")
    for part in kernel.sources:
        with pytest.raises(InputError, match="source: found"):
            kernel.derive("mine", sources={part: text})


def test_a_rule_of_the_machine_without_a_source_is_missed() -> None:
    page = RULES.read_text(encoding="utf-8")
    assert rules_without_sources(page) == []
    rows = re.findall(r"^\| `.*$", page, re.MULTILINE)
    named = [
        row
        for section in page.split("\n## ")[1:]
        if section.startswith(("Operations", "Steps", "Conditions"))
        for row in re.findall(r"^\| `.*$", section, re.MULTILINE)
    ]
    assert len(named) > 50
    for row in named:
        assert rules_without_sources(page.replace(f"{row}\n", "", 1)), row
    for row in rows:
        assert rules_without_sources(page.replace(row, f"{row.rsplit('|', 2)[0]}| a guess |", 1)), row


def rules_without_sources(page: str) -> list[str]:
    """Name what of the machine's operations, steps and conditions has no source on a page, or one of no known form."""
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    missing = []
    for heading, names in (
        ("Operations", set(MACHINE_OPERATIONS)),
        ("Steps", set(_core.step_names())),
        ("Conditions", set(_core.condition_names())),
    ):
        rows = re.findall(r"^\| (`.*`) \| .* \|$", sections[heading], re.MULTILINE)
        listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        own = re.findall(r"`(\w+)`", sections[heading].partition("Of the model")[2])
        times = Counter([*listed, *own])
        missing += sorted(names ^ times.keys()) + [name for name, count in times.items() if count > 1]
    for section in sections.values():
        for name, text in re.findall(r"^\| (?!-)(.*) \| (.*) \|$", section, re.MULTILINE)[1:]:
            try:
                parse_sources(text)
            except InputError:
                missing.append(name)
    return missing


def test_every_rule_of_the_machine_has_a_source() -> None:
    page = RULES.read_text(encoding="utf-8")
    assert rules_without_sources(page) == []
