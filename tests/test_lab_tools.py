"""The kernel lab's tools: scenarios that are read, written and made up; the converter; what goes into a guest."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from given_data import SCENARIOS
from lab import btf, guest, probes, raw_trace, recording
from lab.convert import Converter, missing_entries
from lab.errors import LabError
from lab.generate import Options, generate
from lab.scenario import ADVICE, OPERATIONS, PROTECTIONS, Entry, ScenarioError, load, parse
from tlbcore import recordings

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "lab" / "scenarios").glob("*.scn"))
RAW = Path(__file__).parent / "data" / "lab_raw"

KINDS = {
    "plain": Options(nr_steps=60, files=False, forks=False, moves=False),
    "mixed": Options(nr_steps=120),
    "parallel": Options(nr_steps=80, nr_cpus=8, nr_threads=7, parallel=0.5),
    "huge": Options(nr_steps=60, thp="always", large=True),
    "reclaim": Options(nr_steps=60, memcg=True),
    "nested": Options(nr_steps=60, parallel=0.8, nested=True),
    "alone": Options(nr_steps=60, nr_threads=0, nr_cpus=1),
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


# Scenarios


@pytest.mark.parametrize("path", [*SCENARIOS, *EXAMPLES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_written_reads_the_same(path: Path) -> None:
    scenario = load(path)
    assert parse(str(scenario), "again") == scenario
    assert scenario.nr_cpus <= 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.scn: line 0: found no step, expected at least one line ACTOR OPERATION"),
        ("T0 nop\n\nT9 nop", "line 3: found actor `T9`, expected T0 or one that an earlier thread or fork made"),
        ("T0 nop | T0 nop", "line 1: found an actor twice in a step, expected one entry for each actor"),
        ("T0 touch A 0 1 x", "line 1: found `x`, expected r or w"),
        ("T0 touch A 0 1 r 0", "line 1: found `0`, expected a stride of at least 1 page"),
        ("T0 munmap a 0 1", "line 1: found `a`, expected a region's letter, A to Z"),
        ("T0 munmap A 0", "line 1: found the end of the entry, expected a number of pages, at most 1048576"),
        ("T0 munmap A 0 1 2", "line 1: found `2`, expected the end of the entry"),
        ("T0 mmap A 0 1 rw disk:x", "line 1: found `disk:x`, expected anon, shared, file:NAME or sfile:NAME"),
        ("T0 rep 0 nop", "line 1: found `rep 0`, expected rep and a number of at least 1"),
        ("#! thp=maybe\nT0 nop", "line 1: found `thp=maybe`, expected thp=always, thp=madvise, thp=never, memcg"),
        ("T0 dance", "line 1: found `dance`, expected one of thread, fork"),
        ("T0 nop\n" * 4001, "line 4001: found one more step, expected at most 4000"),
        ("\n".join(f"T0 thread N{n} 0 spin" for n in range(40)), "found actor `N39`, expected at most 40 actors"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(text, "a.scn")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_both_parsers_know_the_same_operations(tmp_path: Path) -> None:
    arguments = {
        "access": "r",
        "actor": "T0",
        "advice": "free",
        "backing": "anon",
        "cpu": "0",
        "file": "f",
        "mode": "spin",
        "new-actor": "N",
        "number": "1",
        "page": "0",
        "pages": "2",
        "protection": "rw",
        "region": "A",
        "stride": "2",
    }
    lines = []
    for op, kinds_of_arguments in OPERATIONS.items():
        words = kinds_of_arguments.replace("[", "").replace("]", "").split()
        lines.append(" ".join(("T0", op, *(arguments[word] for word in words))))
    lines += [f"T0 madvise A 0 1 {advice}" for advice in ADVICE]
    lines += [f"T0 mprotect A 0 1 {protection}" for protection in PROTECTIONS]
    path = tmp_path / "all.scn"
    path.write_text("".join(line + "\n" for line in lines))
    assert len(load(path).steps) == len(lines)
    assert recordings.load(path).meta["nr_lines"] == len(lines)
    # Those of the importer are named in its message.
    path.write_text("T0 nop\nT0 dance\n")
    with pytest.raises(Exception, match="expected one of thread") as caught:
        recordings.load(path)
    known = str(caught.value).partition("expected one of ")[2].split(", ")
    assert sorted(known) == sorted(OPERATIONS)


# Random scenarios


@kinds
def test_a_seed_gives_one_scenario(options: Options) -> None:
    first, again, other = (str(generate(seed, options)) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert len(generate(5, options).steps) == options.nr_steps


@kinds
def test_a_random_scenario_is_accepted_by_both_parsers(options: Options, tmp_path: Path) -> None:
    for seed in range(3):
        scenario = generate(seed, options)
        assert parse(str(scenario), "random") == scenario
        assert scenario.nr_cpus <= options.nr_cpus
        path = tmp_path / f"{seed}.scn"
        path.write_text(str(scenario))
        loaded = recordings.load(path)
        nr_entries = sum(entry.repetitions for step in scenario.steps for entry in step)
        assert loaded.column("kind").tolist().count(66) == nr_entries, "each entry is a step_begin"


def test_random_scenarios_reach_every_operation() -> None:
    steps = [step for seed in range(8) for options in KINDS.values() for step in generate(seed, options).steps]
    used = {entry.op for step in steps for entry in step}
    assert set(OPERATIONS) - used == {"nap"}, "a nap does nothing that getpid does not"
    advice = {entry.args[3] for step in steps for entry in step if entry.op == "madvise"}
    assert advice == set(ADVICE)


class _Memory:
    """What a process without forks has mapped, accounted a second time: protection, file and page of it by place."""

    def __init__(self) -> None:
        self.pages: dict[tuple[str, int], tuple[str, str, int]] = {}
        self.size_of = {"": sys.maxsize}

    def run(self, entry: Entry) -> None:
        numbers = [int(word) for word in entry.args if word.isdigit()]
        region, first, nr_pages = entry.args[0] if entry.args else "", *numbers[:2], *[0] * (2 - len(numbers[:2]))
        places = [(region, page) for page in range(first, first + nr_pages)]
        if entry.op == "mmap":
            kind, _, file = entry.args[4].partition(":")
            if kind == "shared":
                file = f"memory {len(self.size_of)}"
                self.size_of[file] = nr_pages
            first_of_file = numbers[2] if len(numbers) > 2 else 0
            for number, place in enumerate(places):
                self.pages[place] = (entry.args[3], file, first_of_file + number)
        elif entry.op == "munmap":
            self.drop(places)
        elif entry.op == "mprotect":
            for place in itertools.takewhile(self.pages.__contains__, places):
                self.pages[place] = (entry.args[3], *self.pages[place][1:])
        elif entry.op == "mremap":
            self.move(places, entry.args[3], numbers[2], numbers[3] if len(numbers) > 3 else nr_pages)
        elif entry.op == "mresize":
            self.move(places, region, first, numbers[2])
        elif entry.op in {"mkfile", "ftrunc"}:
            self.size_of[entry.args[0]] = numbers[0]

    def drop(self, places: list[tuple[str, int]]) -> None:
        for place in places:
            self.pages.pop(place, None)

    def move(self, places: list[tuple[str, int]], region: str, first: int, nr_pages: int) -> None:
        moved = [self.pages[place] for place in places]
        protection, file, last = moved[-1]
        moved += [(protection, file, last + more) for more in range(1, nr_pages - len(moved) + 1)]
        self.drop(places)
        for number, page in enumerate(moved[:nr_pages]):
            self.pages[region, first + number] = page

    def survives(self, touch: Entry) -> bool:
        first = int(touch.args[1])
        pages = [self.pages.get((touch.args[0], page)) for page in range(first, first + int(touch.args[2]))]
        return all(page is not None and touch.args[3] in page[0] and page[2] < self.size_of[page[1]] for page in pages)


@pytest.mark.parametrize("parallel", [0.0, 0.5])
def test_no_access_of_a_random_scenario_ends_in_a_signal(parallel: float) -> None:
    nr_accesses = 0
    for seed in range(6):
        memory = _Memory()
        for step in generate(seed, Options(nr_steps=150, forks=False, parallel=parallel)).steps:
            touches = [entry for entry in step if entry.op == "touch"]
            assert all(map(memory.survives, touches)), step
            for entry in step:
                memory.run(entry)
            assert all(map(memory.survives, touches)), "whatever the others of the step did before"
            nr_accesses += len(touches)
    assert nr_accesses > 200


# The converter


def test_a_raw_trace_becomes_these_records(tmp_path: Path) -> None:
    assert recording.convert(RAW, tmp_path) == []
    path = tmp_path / "tiny_tiny.jsonl.gz"
    meta, *records = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    assert meta["meta"]["steps"] == (RAW / "scenarios" / "tiny.scn").read_text().splitlines()
    assert meta["meta"]["actors"] == {
        "T0": {"tid": 133, "pid": 133, "cpu": 0},
        "T1": {"tid": 136, "pid": 133, "cpu": 1},
    }
    assert meta["meta"]["runner"]["heap"] == 0x780000
    assert (meta["meta"]["ceiling"], meta["meta"]["interrupts_TLB"], meta["meta"]["rc"]) == (33, [0, 3], 0)
    munmap = [record for record in records if 48465 <= record["t"] <= 49154]
    where = {"start": "0x100000000000", "end": "0x100000008000", "at": "A+0"}
    request = {**where, "gen": 8, "icpu": 0, "stride": 12, "freed": 1}
    flags = ["freed_tables", "cleared_ptes", "cleared_pmds", "cleared_puds", "cleared_p4ds"]
    mm = {"c": 0, "a": "T0", "mm": "mm0"}
    assert munmap == [
        {"t": 48465, "c": 0, "a": "T0", "k": "B", "step": 4, "it": 0, "op": "munmap A 0 8"},
        {"t": 48500, "c": 0, "a": "T0", "k": "sys", "name": "munmap", "args": munmap[1]["args"], "at": "A+0"},
        {"t": 48675, "k": "gather", **mm, "pend": 0},
        {"t": 48714, "k": "batch_pending", **mm, "batched": 0},
        {"t": 48777, "c": 0, "a": "T0", "k": "free_pgtables"},
        {"t": 48821, "k": "finish", **mm, **where, "pend": 1, "flags": flags, "nbatch": 1},
        {"t": 48830, "k": "mm_range", **mm, **where, "stride": 12, "freed": 1, "mask": [0, 1], "pend": 1},
        {"t": 48838, "k": "multi", **mm, **request, "mask": [0, 1], "pages": 8},
        {"t": 48954, "k": "func", **mm, "c": 1, "a": "idle", **request, "pages": -1, "reason": 0},
        {"t": 49021, "k": "func", **mm, **request, "pages": 8, "reason": 3},
        {"t": 49111, "c": 0, "a": "T0", "k": "ret", "name": "munmap", "rc": 0},
        {"t": 49154, "c": 0, "a": "T0", "k": "E", "step": 4, "it": 0, "rc": 0},
    ]
    faults = [record for record in records if record["k"] == "fault"]
    assert [(fault["addr"], fault["code"], fault["n"], fault["st"]) for fault in faults] == [
        ("0x100000000000", 6, 8, 1)
    ], "faults at one stride are one record"
    assert {record.get("mm", "mm0") for record in records} == {"mm0"}, "other programs' address spaces are left out"
    loaded = recordings.load(path)
    assert loaded.nr_events > len(faults)
    assert loaded.meta["counts"]["end_markers"] == 1


HEAD = "  tlbw-7 (  7) [000] .....  1.000000: tracing_mark_write: A T0 tid=7 pid=7 cpu=0\n"
CALL = "  tlbw-7 (  7) [000] .....  1.000001: sys_enter: NR 11 (0, 1000, 0, 0, 0, 0)\n"
GATHER = "  tlbw-7 (  7) [000] .....  1.000001: gather: (f+0x0) mm=0x10 pend=0\n"


def _records(*lines: str) -> list[dict[str, Any]]:
    text = "".join(f"  tlbw-7 (  7) [000] .....  1.0001{number:02}: {line}\n" for number, line in enumerate(lines))
    converter = Converter(raw_trace.read((HEAD + CALL + GATHER + text).splitlines()), {"fullmm": 0, "freed_tables": 2})
    converter.run()
    return converter.records[2:]


def test_pages_of_reclaim_are_one_record_only_in_a_row() -> None:
    calls = [f"unmap_one: (f+0x0) vma=0x1 addr={page:#x} mm=0x10" for page in (0x1000, 0x2000, 0x4000, 0x3000, 0x4000)]
    assert [(record["addr"], record["n"]) for record in _records(*calls)] == [
        ("0x1000", 2),
        ("0x4000", 1),
        ("0x3000", 2),
    ]


@pytest.mark.parametrize(
    ("call", "names"),
    [("NR 11 (0, 1000, 0, 0, 0, 0)", "mm0"), ("NR 28 (0, 1000, 9, 0, 0, 0)", None), ("NR 77 (3, 0, 0, 0, 0, 0)", None)],
    ids=["munmap", "MADV_REMOVE", "ftruncate"],
)
def test_an_address_space_is_named_by_what_must_be_about_its_own_process(call: str, names: str | None) -> None:
    lines = [HEAD, CALL.replace("NR 11 (0, 1000, 0, 0, 0, 0)", call), GATHER]
    converter = Converter(raw_trace.read("".join(lines).splitlines()), {})
    converter.run()
    gathers = [record for record in converter.records if record["k"] == "gather"]
    assert [record["mm"] for record in gathers] == ([names] if names else [])


def test_flags_are_read_at_the_kernel_s_own_bits() -> None:
    line = "finish: (f+0x0) mm=0x10 start=0x1000 end=0x2000 flags=0x5 nbatch=1 pend=1"
    assert _records(line)[0]["flags"] == ["fullmm", "freed_tables"]


def test_a_flush_whose_probe_was_dropped_stands_for_itself() -> None:
    func = "func: (f+0x0) mm=0x99 start=0x0 end=0x1000 gen=1 icpu=0 stride=12 freed=0"
    local = "tlb_flush: pages:1 reason:local mm shootdown (3)"
    assert _records(local)[0] | {"t": 0} == {"t": 0, "c": 0, "a": "T0", "k": "tlb_flush", "pages": 1, "reason": 3}
    assert _records(func, local) == [], "that was another program's"


def test_an_entry_that_did_not_end_is_told() -> None:
    ended = [{"k": "E", "step": 0, "a": "T0"}, {"k": "B", "step": 1, "a": "T1"}]
    assert missing_entries(ended, [["T0"], ["T0", "T1"]]) == ["step 1 of T0", "step 1 of T1"]


def test_a_directory_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"found no machine\.json .*, expected what `python -m lab run` leaves"):
        recording.convert(tmp_path, tmp_path)


# What goes into a guest


def _btf(*structs: tuple[str, list[tuple[str, int, int]]]) -> bytes:
    """Type data with an int as type 1 and the structures after it: members are (name, type, offset in bits)."""
    strings = b"\0int\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 32)

    def text(name: str) -> int:
        nonlocal strings
        strings += name.encode() + b"\0"
        return len(strings) - len(name) - 1

    for name, members in structs:
        types += struct.pack("<III", text(name) if name else 0, 4 << 24 | 1 << 31 | len(members), 64)
        for member, kind, offset in members:
            types += struct.pack("<III", text(member) if member else 0, kind, 1 << 24 | offset)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def test_offsets_come_from_type_data() -> None:
    gather = [
        ("mm", 1, 0),
        ("fullmm", 1, 352),
        ("freed_tables", 1, 354),
        ("delayed_rmap", 1, 355),
        ("vma_exec", 1, 360),
    ]
    types = btf.Types(_btf(("", [("inner", 1, 64)]), ("mm_struct", [("", 2, 128)]), ("mmu_gather", gather)), "vmlinux")
    assert types.byte_offset("mm_struct", "inner") == (128 + 64) // 8, "inside a structure without a name"
    assert types.byte_offset("mm_struct", "renamed", "inner") == 24
    assert probes.gather_flags(types) == {"fullmm": 0, "freed_tables": 2, "vma_exec": 8}
    with pytest.raises(
        LabError, match=r"^vmlinux: found no mm_struct.tlb_flush_pending in its type data, expected one"
    ):
        probes.definitions(types)


def test_an_image_without_a_kernel_is_told(tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(b"\x1f\x8b\x08 no kernel")
    with pytest.raises(
        LabError, match="found no kernel compressed with xz, gzip or zstd, expected a bzImage or vmlinux"
    ):
        btf.Types.of_image(image)


def test_modules_come_after_those_they_need(tmp_path: Path) -> None:
    for name, needs in (("ext4", "jbd2,crc16"), ("jbd2", ""), ("crc16", ""), ("virtio_blk", "virtio"), ("other", "")):
        (tmp_path / f"{name}.ko").write_bytes(
            b"\x7fELF\0depends=" + needs.encode() + b"\0name=" + name.encode() + b"\0"
        )
    assert list(guest.modules_of(tmp_path)) == ["virtio_blk.ko", "jbd2.ko", "crc16.ko", "ext4.ko"]


def test_the_archive_has_every_file_at_its_place() -> None:
    packed = gzip.decompress(guest.archive({"init": (0o755, b"#!/bin/sh\n"), "lab/probes": (0o644, b"")}))
    found, place = {}, 0
    while packed[place : place + 6] == b"070701":
        fields = [int(packed[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        name = packed[place + 110 : place + 110 + fields[11] - 1].decode()
        start = -(-(place + 110 + fields[11]) // 4) * 4
        found[name] = (fields[1], packed[start : start + fields[6]])
        place = -(-(start + fields[6]) // 4) * 4
    assert found["init"] == (0o100755, b"#!/bin/sh\n")
    assert found["lab/probes"] == (0o100644, b"")
    assert found["lab/scenarios"][0] == 0o040755
    assert list(found)[-1] == "TRAILER!!!"


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing.scn"], "lab: nothing.scn: No such file or directory"),
        (["run", str(ROOT / "data/lab/scenarios/c8")], "expected CPUs below 4 (--cpus)"),
        (["run", str(EXAMPLES[0]), "--cpus", "65"], "lab: --cpus: found 65, expected 1 to 64"),
        (["run", str(EXAMPLES[0])], "lab: found no program busybox, expected it to be installed (Debian: apt-get"),
        (["generate", "--steps", "0"], "lab: --steps: found 0, expected 1 to 4000"),
        (["convert", "nowhere"], "expected what `python -m lab run` leaves"),
    ],
)
def test_what_is_missing_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
