"""Exports: tables agree with the recording in every format, and a timeline is a trace as Perfetto defines it."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from tlbcore import InputError, recordings
from tlbcore.cli.main import main
from tlbcore.export import TABLES, export, table, to_arrow
from tlbcore.export.protobuf import fixed64, integer, message, text
from tlbcore.profile.flushes import recorded

trace_pb = pytest.importorskip(
    "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="no definition of traces is installed (perfetto)"
)

DATA = Path(__file__).parent.parent / "data"
MICRO = DATA / "recordings" / "micro.perf.txt.zst"
APACHE = DATA / "recordings" / "apache.perf.txt.zst"


def test_tables_have_the_sums_of_the_recording() -> None:
    recording = recordings.load(APACHE)
    events, flushes, operations = (table(recording, name) for name in TABLES)
    assert {len(values) for values in events.values()} == {recording.nr_events}
    assert (events["operation"] == "munmap").sum() == 11813
    assert len(flushes["flush"]) == 12469
    assert flushes["nr_interrupted"].sum() == operations["nr_interrupted_recorded"].sum() == 5051
    assert operations["nr_flushes_recorded"].sum() == 12469
    assert operations["nr_flushes_predicted"].sum() == 12499
    by_thread = flushes["nr_interrupted"][(flushes["comm"] == "apache2") & (flushes["tid"] == 32340)].sum()
    assert by_thread == 710
    at = int(flushes["event"][0])
    assert events["operation"][at] == flushes["operation"][0]
    assert "switch" not in set(operations["operation"])


@pytest.mark.parametrize("name", TABLES)
def test_every_format_has_the_same_table(name: str, tmp_path: Path) -> None:
    recording = recordings.load(MICRO)
    shown = to_arrow(recording, name)
    for form in ("parquet", "arrow", "csv"):
        (path,) = export(recording, form, tmp_path / f"x.{form}", tables=(name,))
        if form == "csv":
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            assert [row["time_ns"] for row in rows] == [str(value) for value in shown["time_ns"].to_pylist()]
            assert [row["comm"] for row in rows] == shown["comm"].to_pylist()
        else:
            found = pyarrow.parquet.read_table(path) if form == "parquet" else pyarrow.feather.read_table(path)
            assert found.column_names == shown.column_names
            assert found.to_pylist() == shown.to_pylist()
    for column, values in table(recording, name).items():
        assert shown[column].to_pylist() == values.tolist()
    assert shown.schema.metadata[b"tlbcore.recording"] == b"micro.perf.txt.zst"
    assert isinstance(shown["comm"].type, pa.DictionaryType)


def test_several_tables_are_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(MICRO), "--format", "csv", "-o", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["events.csv", "flushes.csv", "operations.csv"]
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_scenario_exports_the_models_flushes() -> None:
    recording = recordings.load(DATA / "lab" / "scenarios" / "m4" / "memcg_spin2.scn")
    flushes = table(recording, "flushes")
    assert set(flushes["source"]) == {"predicted"}
    assert "nr_flushes_recorded" not in table(recording, "operations")


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    recording = recordings.load(MICRO)
    with pytest.raises(InputError, match="found the format 'xls', expected one of perfetto, parquet, arrow, csv"):
        export(recording, "xls", tmp_path / "x")
    with pytest.raises(InputError, match="found the table 'pages'"):
        export(recording, "csv", tmp_path / "x", tables=("pages",))
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'tlbcore\[arrow\]'"):
        export(recordings.load(MICRO), "arrow", tmp_path / "x.arrow", tables=("flushes",))
    assert list(tmp_path.iterdir()) == []


def trace_of(path: Path) -> Any:  # noqa: ANN401  # a generated class
    trace = trace_pb.Trace()
    trace.ParseFromString(path.read_bytes())
    return trace


@pytest.fixture(scope="module")
def micro_trace(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401  # a generated class
    path = tmp_path_factory.mktemp("trace") / "micro.perfetto-trace"
    assert main(["export", str(MICRO), "--format", "perfetto", "-o", str(path)]) == 0
    return trace_of(path)


def test_a_timeline_has_nothing_that_the_definition_does_not_know(micro_trace: Any) -> None:  # noqa: ANN401
    kinds = {packet.WhichOneof("data") for packet in micro_trace.packet}
    assert kinds == {"track_descriptor", "track_event"}
    # What was not understood would be kept as unknown fields, and come back longer than what is known.
    known = micro_trace.__class__()
    known.CopyFrom(micro_trace)
    known.DiscardUnknownFields()
    assert known.ByteSize() == micro_trace.ByteSize()
    assert micro_trace.packet[0].sequence_flags == 1
    assert {packet.trusted_packet_sequence_id for packet in micro_trace.packet} == {1}


def test_a_timeline_has_a_track_for_each_cpu_and_thread(micro_trace: Any) -> None:  # noqa: ANN401
    tracks = [packet.track_descriptor for packet in micro_trace.packet if packet.HasField("track_descriptor")]
    by_uuid = {track.uuid: track for track in tracks}
    assert len(by_uuid) == len(tracks)
    assert {track.name for track in tracks if track.name} == {"CPUs", "CPU 0", "CPU 1"}
    threads = [track for track in tracks if track.HasField("thread")]
    assert {(track.thread.pid, track.thread.tid, track.thread.thread_name) for track in threads} == {
        *((9890, 9890, "m"), (9890, 9897, "m")),
    }
    assert all(by_uuid[track.parent_uuid].process.pid == track.thread.pid for track in threads)
    events = [packet.track_event for packet in micro_trace.packet if packet.HasField("track_event")]
    assert {event.track_uuid for event in events} <= set(by_uuid)


def test_slices_of_a_timeline_nest_and_are_in_order(micro_trace: Any) -> None:  # noqa: ANN401
    depth: dict[int, int] = {}
    last = 0
    for packet in micro_trace.packet:
        if not packet.HasField("track_event"):
            continue
        assert packet.timestamp >= last
        last = packet.timestamp
        event = packet.track_event
        depth[event.track_uuid] = depth.get(event.track_uuid, 0) + {1: 1, 2: -1, 3: 0}[event.type]
        assert 0 <= depth[event.track_uuid] <= 1
    assert set(depth.values()) == {0}


def test_each_flow_goes_from_one_flush_to_one_cpu(micro_trace: Any) -> None:  # noqa: ANN401
    flushes = recorded(recordings.load(MICRO))
    assert flushes is not None
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for packet in micro_trace.packet:
        for flow in packet.track_event.flow_ids:
            begins[flow] = packet.timestamp
        for flow in packet.track_event.terminating_flow_ids:
            ends[flow] = packet.timestamp
    assert len(begins) == len(ends) == len(flushes.interruptions) == 314
    assert set(begins) == set(ends)
    assert all(begins[flow] <= ends[flow] for flow in begins)
    calls = [p for p in micro_trace.packet if p.track_event.name == "munmap" and p.track_event.type == 1]
    assert len(calls) == 1001


def test_a_flush_of_a_timeline_has_its_call_site(tmp_path: Path) -> None:
    text_of_perf = (
        "               m  10/10    [000] 1.000000001: raw_syscalls:sys_enter: NR 11 (7000, 1000, 0, 0, 0, 0)\n"
        "\t            1200 munmap (/lib/libc.so.6)\n\t            1300 work (/x/m)\n\n"
        "               m  10/10    [000] 1.000000002: tlb:tlb_flush: pages:1 reason:local MM shootdown (3)\n"
        "               m  10/10    [000] 1.000000003: raw_syscalls:sys_exit: NR 11 = 0\n"
        "               m  10/10    [000] 1.000000004: tlb:tlb_flush: pages:1 reason:local MM shootdown (3)\n"
    )
    path = tmp_path / "x.perf.txt"
    path.write_text(text_of_perf, encoding="utf-8")
    recording = recordings.load(path)
    assert table(recording, "flushes")["site"].tolist() == ["munmap (libc.so.6) < work (m)", ""]
    assert table(recording, "events")["site"].tolist() == ["munmap (libc.so.6) < work (m)"]
    (written,) = export(recording, "perfetto", tmp_path / "x.perfetto-trace")
    flushes = [p.track_event for p in trace_of(written).packet if p.track_event.name.startswith("TLB flush")]
    notes = [{note.name: note.string_value for note in event.debug_annotations} for event in flushes]
    assert [note.get("site") for note in notes] == ["munmap (libc.so.6) < work (m)", None]


def test_an_event_of_a_table_has_its_call_site_as_text(tmp_path: Path) -> None:
    fault = "m  10/10 [000] 1.00000000{}: exceptions:page_fault_user: address={} ip={} error_code=0x6\n"
    path = tmp_path / "x.perf.txt"
    path.write_text(fault.format(1, "0x7000", "f1 (m)") + fault.format(2, "0x9000", "0x1234"), encoding="utf-8")
    recording = recordings.load(path)
    assert table(recording, "events")["site"].tolist() == ["f1 (m)", "0x1234"]
    for name in ("events", "flushes"):
        (written,) = export(recordings.load(APACHE), "csv", tmp_path / f"{name}.csv", tables=(name,))
        with written.open(newline="", encoding="utf-8") as file:
            sites = {row["operation"]: row["site"] for row in csv.DictReader(file) if row["site"]}
        assert not any(site.isdecimal() for site in sites.values())
        assert "fault" in sites
    found = recorded(recordings.load(APACHE))
    assert found is not None
    rows = table(recordings.load(APACHE), "events")["site"]
    assert [rows[at] if at >= 0 else "" for at in found.op_event.tolist()] == found.sites


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**63, 2**64 - 1])
def test_numbers_as_the_definition_reads_them(value: int) -> None:
    packet = trace_pb.TracePacket()
    packet.ParseFromString(integer(8, value))
    assert packet.timestamp == value
    event = trace_pb.TrackEvent()
    event.ParseFromString(fixed64(47, value) + integer(30, value))
    assert list(event.flow_ids) == [value]
    assert event.counter_value == (value if value < 2**63 else value - 2**64)


def test_texts_and_messages_as_the_definition_reads_them() -> None:
    trace = trace_pb.Trace()
    trace.ParseFromString(message(1, message(60, text(2, "é" * 200))))
    assert trace.packet[0].track_descriptor.name == "é" * 200


def test_the_trace_of_a_large_recording_is_whole(tmp_path: Path) -> None:
    (path,) = export(recordings.load(APACHE), "perfetto", tmp_path / "a.perfetto-trace")
    trace = trace_of(path)
    faults = sum(packet.track_event.name == "page fault" for packet in trace.packet)
    recording = recordings.load(APACHE)
    fault = {name: number for number, name in recording.event_kinds()}["fault"]
    assert faults == int(np.count_nonzero(recording.column("kind") == fault))
    assert math.isclose(path.stat().st_size, 9e6, rel_tol=0.6)


def test_a_file_will_do_and_a_misspelt_table_gets_the_nearest() -> None:
    assert to_arrow(MICRO, "flushes").num_rows > 0
    with pytest.raises(InputError, match=r"found the table 'flush', expected .*did you mean flushes\?"):
        to_arrow(MICRO, "flush")
