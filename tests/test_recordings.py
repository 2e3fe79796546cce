"""Recordings in Python: every given file loads, is written and read again the same, and lends out its memory."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from given_data import LAB, RECORDINGS, SCENARIOS, load, machine, short
from tlbcore import InputError
from tlbcore.recordings import Recording, kernel_of, machine_config
from tlbcore.validate import validate

GIVEN = [*RECORDINGS, *LAB, *SCENARIOS]

Table = tuple[list[str], Callable[[str], np.ndarray[Any, Any]], int]


def tables(recording: Recording) -> tuple[Table, Table]:
    events = (Recording.event_columns, recording.column, recording.nr_events)
    return events, (Recording.flush_columns, recording.flush_column, recording.nr_flushes)


def test_all_given_files_are_there() -> None:
    assert (len(RECORDINGS), len(LAB), len(SCENARIOS)) == (7, 49, 49)


@pytest.mark.parametrize("path", GIVEN, ids=short)
def test_a_given_file_survives_being_written(path: Path, tmp_path: Path) -> None:
    recording = load(path)
    recording.verify()
    saved = tmp_path / "r.tlbr"
    recording.save(saved)
    Recording.verify_file(saved)
    again = Recording.open(saved)
    renamed = recording.meta | {"file": "r.tlbr"}
    assert (again.meta, again.tasks, again.names) == (renamed, recording.tasks, recording.names)
    assert recording.meta["file"] == path.name
    for (names, column, nr_rows), (_, other, _) in zip(tables(recording), tables(again), strict=True):
        for name in names:
            ours, theirs = column(name), other(name)
            assert ours.shape == (nr_rows,)
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs), name
    assert [file.name for file in tmp_path.iterdir()] == ["r.tlbr"]


@pytest.mark.parametrize("path", [*RECORDINGS, *LAB], ids=short)
def test_a_written_recording_gives_the_same_validation(path: Path, tmp_path: Path) -> None:
    recording = load(path)
    recording.save(tmp_path / "r.tlbr")
    kernel = kernel_of(recording)
    again = validate(Recording.open(tmp_path / "r.tlbr"), kernel, machine())
    assert again.to_dict() | {"recording": path.name} == validate(recording, kernel, machine()).to_dict()


def test_columns_are_read_only_views_that_keep_the_recording_alive() -> None:
    recording = Recording.open(RECORDINGS[0])
    times = recording.column("time_ns")
    assert times.dtype == np.uint64
    assert not times.flags.writeable
    assert not times.flags.owndata
    assert np.shares_memory(times, recording.column("time_ns")), "nothing is copied"
    with pytest.raises(ValueError, match="read-only"):
        times[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        times.flags.writeable = True
    before = times.copy()
    references = sys.getrefcount(recording)
    del times
    assert sys.getrefcount(recording) == references - 1
    times = recording.column("time_ns")
    del recording
    assert np.array_equal(times, before)


@pytest.mark.parametrize("column", ["column", "flush_column"])
def test_an_unknown_column_is_a_key_error(column: str) -> None:
    with pytest.raises(KeyError, match=r"found column .*nonsense.*, expected one of time_ns, "):
        getattr(load(LAB[0]), column)("nonsense")


def test_kinds_have_names() -> None:
    recording = load(RECORDINGS[0])
    for column, names in (
        (recording.column("kind"), dict(Recording.event_kinds())),
        (recording.flush_column("kind"), dict(Recording.flush_kinds())),
        (recording.flush_column("attribution"), dict(Recording.attributions())),
    ):
        assert set(np.unique(column).tolist()) <= set(names)
    assert dict(Recording.event_kinds())[2] == "munmap"


def test_repr_tells_what_it_is() -> None:
    recording = load(RECORDINGS[0])
    numbers = f"nr_events={recording.nr_events}, nr_flushes={recording.nr_flushes}"
    assert repr(recording) == f'Recording("apache.perf.txt.zst", source="perf", {numbers})'


@pytest.mark.parametrize("path", GIVEN, ids=short)
def test_meta_says_what_is_known_of_the_machine(path: Path) -> None:
    meta = load(path).meta
    assert meta["source"] == {".zst": "perf", ".gz": "lab", ".scn": "scn"}[path.suffix]
    config = machine_config(load(path), machine())
    assert config["nr_cpus"] == meta["smp"] >= 1
    assert config["levels"] == (meta["levels"] or 4)  # assumed where it is not known
    assert set(machine()) <= set(config), "what the recording does not know is the machine's"


@pytest.mark.parametrize(
    ("path", "kernel"), [(RECORDINGS[0], "linux-6.18"), (LAB[0], "linux-6.1")], ids=["perf", "lab"]
)
def test_the_nearest_kernel(path: Path, kernel: str) -> None:
    assert kernel_of(load(path)) == kernel


def test_damage_is_found_by_verify_file(tmp_path: Path) -> None:
    saved = tmp_path / "r.tlbr"
    load(LAB[0]).save(saved)
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match="checksum"):
        Recording.verify_file(saved)


def test_a_missing_file_is_an_os_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Recording.open(tmp_path / "none.tlbr")
    assert caught.value.filename == str(tmp_path / "none.tlbr")
    with pytest.raises(FileNotFoundError):
        load(LAB[0]).save(tmp_path / "no folder" / "r.tlbr")
