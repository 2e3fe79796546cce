"""Where the lab's runner lies in memory: read from the program, told in the recording, used by the replay."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from given_data import DATA, machine
from lab import elf
from lab.errors import LabError
from tlbcore import InputError, recordings
from tlbcore.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

COMPILER = shutil.which("gcc")
#: What Debian's compiler of 2025 makes of `lab/runner`.
OWN: dict[str, Any] = {
    "areas": [
        [0x400000, 0x401000, "r"],
        [0x401000, 0x490000, "rx"],
        [0x490000, 0x4BB000, "r"],
        [0x4BB000, 0x4C2000, "rw"],
    ],
    "relro": [0x4BB000, 0x4BF000],
    "heap": 0x780000,
}
FORK = DATA / "lab-6.18" / "6.18-c4_fork_alone.jsonl.gz"


def program(*headers: tuple[int, int, int, int, int], kind: int = 2) -> bytes:
    """An ELF file of nothing but these program headers: type, flags, address, bytes in the file, bytes in memory."""
    head = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0
    )
    rest = (
        struct.pack("<IIQQQQQQ", what, flags, 0, at, at, size, memory, 0) for what, flags, at, size, memory in headers
    )
    return head + b"".join(rest)


def test_an_image_is_that_of_the_program_headers(tmp_path: Path) -> None:
    path = tmp_path / "runner"
    path.write_bytes(
        program(
            (1, 4, 0x400000, 0x590, 0x590),
            (1, 5, 0x401000, 0x8E7A1, 0x8E7A1),
            (1, 4, 0x490000, 0x2A700, 0x2A700),
            (1, 6, 0x4BB3D0, 0x5F00, 0x2C4878),
            (0x6474E551, 6, 0, 0, 0),
            (0x6474E552, 4, 0x4BB3D0, 0x3C30, 0x3C30),
        )
    )
    assert elf.image(path) == OWN


def test_a_program_without_fixed_addresses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runner"
    for content in (program(kind=3), b"#!/bin/sh\n", b""):
        path.write_bytes(content)
        with pytest.raises(
            LabError, match=r"runner: found no 64-bit program with fixed addresses, expected a static one"
        ):
            elf.image(path)


@pytest.mark.skipif(COMPILER is None, reason="gcc is not installed")
def test_it_is_what_the_compiler_makes(tmp_path: Path) -> None:
    source, path = tmp_path / "a.c", tmp_path / "a"
    source.write_text("char big[1 << 20]; int set = 1; int main(void) { return big[set]; }\n")
    try:
        subprocess.run([str(COMPILER), "-static", "-o", path, source], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("gcc links nothing statically here")
    image = elf.image(path)
    assert [rights for *_, rights in image["areas"]] == ["r", "rx", "r", "rw"]
    assert (
        image["areas"][-1][0]
        == image["relro"][0]
        < image["relro"][1]
        <= image["areas"][-1][1]
        < image["heap"] - (1 << 19)
    )


def with_runner(path: Path, runner: object) -> Path:
    """One of the given recordings, saying that its runner lay there."""
    meta, *records = gzip.decompress(FORK.read_bytes()).decode().splitlines()
    about = json.loads(meta)
    about["meta"]["runner"] = runner
    path.write_text("\n".join([json.dumps(about), *records]) + "\n")
    return path


def exact(path: Path) -> int:
    lab = validate(recordings.load(path), None, machine()).lab
    assert lab is not None
    return lab.single.nr_exact


def test_the_replay_takes_the_image_from_the_recording(tmp_path: Path) -> None:
    assert exact(with_runner(tmp_path / "same.jsonl", OWN)) == exact(FORK)
    elsewhere = {**OWN, "heap": OWN["heap"] + (1 << 30)}
    assert exact(with_runner(tmp_path / "other.jsonl", elsewhere)) < exact(FORK)


@pytest.mark.parametrize(
    "runner",
    [
        {**OWN, "heap": 0x4C1000},
        {**OWN, "heap": 1 << 63},
        {**OWN, "relro": [0, 0x1000]},
        {**OWN, "areas": OWN["areas"][::-1]},
        {**OWN, "areas": [[0x4BB001, 0x4C2000, "rw"]]},
        {**OWN, "areas": []},
        {"heap": 1},
        7,
    ],
)
def test_an_image_that_cannot_be_is_one_line(runner: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bad.jsonl: line 1.*expected .*(runner|meta)"):
        recordings.load(with_runner(tmp_path / "bad.jsonl", runner))
