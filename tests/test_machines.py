"""The machines: what the table says comes out, what it lacks is said to be assumed, changes are checked."""

import csv
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import cast

import pytest

from tlbcore import InputError, machines
from tlbcore.cli.main import main

GEOMETRY_RS = (Path(__file__).parents[1] / "rust/core/src/tlb/geometry.rs").read_text(encoding="utf-8")
ROWS = list(csv.DictReader(files("tlbcore.machines").joinpath("machines.csv").read_text(encoding="utf-8").splitlines()))
TABLE = {(row["machine"], row["param"]): row for row in ROWS}
NAMES = machines.preset_names()


def rust_fields(struct: str) -> set[str]:
    """The fields of a struct of the core."""
    body = re.search(rf"pub struct {struct} \{{(.*?)\n\}}", GEOMETRY_RS, re.DOTALL)
    assert body is not None
    return set(re.findall(r"^    pub (\w+):", body[1], re.MULTILINE))


def array(machine: machines.Machine, name: str) -> tuple[int, int]:
    plain = cast("dict[str, int]", machine.tlb[name])
    return plain["entries"], plain["ways"]


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_what_the_core_reads(name: str) -> None:
    machine = machines.get(name)
    config = json.loads(machine.to_json())
    assert set(config) == {"nr_cpus", "levels", "pcid", "invlpg_keeps_psc", "tlb_enabled", "tlb", "costs"}
    tlb = config["tlb"]
    assert set(tlb) == rust_fields("TlbGeometry")
    assert set(tlb["stlb"]) == rust_fields("StlbGeometry")
    assert set(tlb["l1_4k"]) == rust_fields("ArrayGeometry")
    for entries, ways in (array(machine, key) for key in tlb if isinstance(tlb[key], dict)):
        assert (entries == 0) == (ways == 0)
        assert ways == 0 or entries % ways == 0
    assert array(machine, "l1_4k")[0] > 0
    assert array(machine, "stlb")[0] > 0
    assert not (tlb["stlb"]["holds_1g"] and tlb["stlb_1g"]["entries"])
    assert set(config["costs"]) == set(machines.COSTS)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_source_and_a_confidence(name: str) -> None:
    machine = machines.get(name)
    named = [value.name for value in machine.values]
    assert len(named) == len(set(named))
    arrays = {key for key, value in machine.tlb.items() if isinstance(value, dict)}
    assert set(named) == arrays | set(machines.COSTS) | {"nr_cpus", "levels", "pcid", "replacement", "stlb_pages"}
    assert all(value.source and value.value for value in machine.values)
    assert {value.confidence for value in machine.values} <= set(machines.CONFIDENCES)
    for value in machine.values:
        if value.name in machines.COSTS:
            assert float(value.value) == pytest.approx(machine.costs_ns[value.name], rel=1e-3)
        if value.name in arrays:
            assert value.value == "{}x{}".format(*array(machine, value.name))


def test_the_table_is_whole() -> None:
    assert len(ROWS) == len(TABLE)
    assert {row["machine"] for row in ROWS} == set(NAMES) - {"default"}
    assert {row["confidence"] for row in ROWS} <= set(machines.CONFIDENCES)
    assert all(row["value"] and row["source"] for row in ROWS)


@pytest.mark.parametrize(("name", "param"), [key for key in TABLE if key[1] in ("l1d_4k_entries", "stlb_entries")])
def test_sizes_are_those_of_the_table(name: str, param: str) -> None:
    key = "l1_4k" if param == "l1d_4k_entries" else "stlb"
    assert array(machines.get(name), key)[0] == int(TABLE[name, param]["value"])


def test_two_machines_in_full() -> None:
    skylake = machines.get("skylake_sp")
    sizes = {name: array(skylake, name) for name in ("l1_4k", "l1_2m", "l1_1g", "stlb", "stlb_1g", "pde_cache")}
    assert sizes == {
        "l1_4k": (64, 4),
        "l1_2m": (32, 4),
        "l1_1g": (4, 4),
        "stlb": (1536, 12),
        "stlb_1g": (16, 4),
        "pde_cache": (32, 32),
    }
    assert (skylake.levels, skylake.pcid) == (4, True)
    assert skylake.costs_ns == {
        "invlpg_ns": 66.7,
        "full_flush_ns": 83.3,
        "ipi_send_ns": 100.0,
        "ipi_oneway_ns": 500.0,
        "interrupt_ns": 200.0,
        "walk_ns": 10.0,
    }
    genoa = machines.get("zen4-genoa")
    assert (array(genoa, "l1_4k"), array(genoa, "stlb"), genoa.levels) == ((72, 72), (3072, 24), 5)
    assert any("INVLPGB" in text for text in genoa.not_modelled)


def test_what_nobody_knows_is_assumed() -> None:
    nehalem = machines.get("nehalem_ep")
    assert {"l1_4k", "stlb", "ipi_oneway_ns", "nr_cpus"} <= set(nehalem.assumed())
    assert "invlpg_ns" not in nehalem.assumed()
    assert nehalem.costs_ns["invlpg_ns"] == 100.0
    assert "ipi_oneway_ns" not in machines.get("skylake_sp").assumed()
    assert any("16 KiB" in text for text in machines.get("apple_m1_p").not_modelled)


def test_the_default_is_genoa_with_the_recordings_cpus() -> None:
    machine = machines.get("default").with_cpus(2)
    assert machine.tlb == machines.get("zen4_genoa").tlb
    assert machine.config()["nr_cpus"] == 2
    assert "nr_cpus" not in machine.assumed()


def test_changes() -> None:
    machine = machines.get(
        "skylake_sp:nr_cpus=64,levels=5,pcid=off,thp=always,stlb=2048x16,pde_cache=0x0,invlpg_ns=80,replacement=fifo"
    )
    config = machine.config()
    assert (config["nr_cpus"], config["levels"], config["pcid"], config["thp"]) == (64, 5, False, "always")
    assert (array(machine, "stlb"), array(machine, "pde_cache")) == ((2048, 16), (0, 0))
    assert cast("dict[str, object]", machine.tlb["stlb"])["holds_2m"] is True
    assert (machine.tlb["replacement"], machine.costs_ns["invlpg_ns"]) == ("fifo", 80.0)
    given = {value.name for value in machine.values if value.confidence == "given"}
    assert given == {"nr_cpus", "levels", "pcid", "thp", "stlb", "pde_cache", "invlpg_ns", "replacement"}
    assert array(machines.get("skylake_sp"), "stlb") == (1536, 12)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("skylake", "did you mean skylake_sp?"),
        ("skylake_sp:nr_cpu=4", "found 'nr_cpu', expected one of nr_cpus, "),
        ("skylake_sp:nr_cpus=0", "machine skylake_sp: nr_cpus: found 0, expected 1 to 8192"),
        ("skylake_sp:nr_cpus=many", "nr_cpus: found 'many', expected 1 to 8192"),
        ("skylake_sp:nr_cpus", "nr_cpus: found '', expected 1 to 8192"),
        ("skylake_sp:levels=3", "levels: found '3', expected 4 or 5"),
        ("skylake_sp:stlb=100x3", "stlb: found '100x3', expected ENTRIESxWAYS"),
        ("skylake_sp:stlb=1536", "stlb: found '1536', expected ENTRIESxWAYS"),
        ("skylake_sp:walk_ns=-1", "walk_ns: found -1.0, expected nanoseconds, 0 or more"),
        ("skylake_sp:walk_ns=nan", "walk_ns: found nan, expected nanoseconds, 0 or more"),
        ("skylake_sp:ceiling=1", "ceiling is a constant of the kernel, not of the machine"),
    ],
)
def test_a_wrong_machine_is_one_line(spec: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError) as caught:
        machines.get(spec)
    assert message in str(caught.value)
    assert main(["machines", "show", spec]) == 2
    assert capsys.readouterr().err == f"tlbcore: error: {caught.value}\n"


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machines"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)
    assert main(["machines", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(NAMES)
    assert main(["machines", "show", "skylake_sp:nr_cpus=64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"] == machines.get("skylake_sp:nr_cpus=64").config()
    assert main(["machines", "show", "zen2_rome"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "zen2_rome"
    assert any(re.match(r"  stlb +2048x16 +verified-dump +InstLatx64", line) for line in lines)
