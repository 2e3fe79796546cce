"""A profile says who flushed, who was interrupted and what was useless: numbers of recordings, and what must add up."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tlbcore import InputError, machines, recordings
from tlbcore.profile import Profile, profile
from tlbcore.profile.flushes import predicted, recorded
from tlbcore.profile.storms import storms
from tlbcore.profile.useless import classes, promoted
from tlbcore.replay import replay

DATA = Path(__file__).parent.parent / "data"
RECORDINGS = ("apache", "gcc", "micro", "redis")


@cache
def profile_of(name: str) -> Profile:
    path = DATA / "recordings" / f"{name}.perf.txt.zst"
    return profile(recordings.load(path), kernels=["linux-5.10"], machines=["default"])


@pytest.mark.parametrize(
    ("name", "nr_flushes", "nr_told", "nr_wrong_cpu"),
    [("apache", 12469, 5051, 449), ("gcc", 1433, 243, 0), ("micro", 1012, 314, 0), ("redis", 3211, 3, 3)],
)
def test_recorded_flushes_are_those_of_the_recording(
    name: str, nr_flushes: int, nr_told: int, nr_wrong_cpu: int
) -> None:
    flushes = profile_of(name).flushes
    assert flushes.source == "recorded"
    assert (len(flushes), len(flushes.interruptions)) == (nr_flushes, nr_told)
    assert int(flushes.interruptions.wrong_cpu.sum()) == nr_wrong_cpu
    # Every record of a CPU that obeyed another is an interruption, or of nobody whom the recording shows.
    reasons = flushes.recording.flush_column("reason")
    assert nr_told + flushes.nr_unknown_sender >= int((reasons == 1).sum())
    assert nr_told + flushes.nr_unknown_sender <= int(np.isin(reasons, (1, 5)).sum())


@pytest.mark.parametrize("name", RECORDINGS)
def test_each_way_to_count_has_the_same_sum(name: str) -> None:
    found = profile_of(name)
    told = len(found.flushes.interruptions)
    assert sum(row.nr_flushes for row in found.by_operation) == len(found.flushes)
    assert sum(cause.nr_flushes for cause in found.causes) == len(found.flushes)
    assert sum(row.nr_told for row in found.by_operation) == told
    assert sum(cause.nr_told for cause in found.causes) == told
    assert sum(row.nr_told for row in found.interrupted) == told
    assert sum(cause.nr_full for cause in found.causes) == sum(row.nr_full for row in found.by_operation)


@pytest.mark.parametrize("name", RECORDINGS)
def test_nobody_interrupts_the_cpu_it_runs_on(name: str) -> None:
    for flushes in (profile_of(name).flushes, profile_of(name).model):
        told = flushes.interruptions
        assert (told.cpu != flushes.cpu[told.flush]).all()
        assert (told.time_ns >= flushes.time_ns[told.flush]).all()


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_cpu_told_is_in_one_class(name: str) -> None:
    recording = profile_of(name).recording
    replayed = replay(recording, "linux-6.18", machines.get("default").config())
    counts = classes(replayed)
    told = np.bitwise_count(replayed.result.flushes()["told"])
    assert (sum(counts.values()) == told).all()
    # Without late IPIs, whose effect is booked after their request, the sums are the counters of the machine.
    for name_of_class, counter in (("lazy", "nr_told_lazy"), ("gone", "nr_told_gone")):
        assert counts[name_of_class].sum() >= replayed.counters[counter]
    assert told.sum() >= replayed.counters["nr_ipis"]


@pytest.mark.parametrize("name", RECORDINGS)
def test_cpus_told_differ_by_what_corrects_the_masks(name: str) -> None:
    """What the page says of two sums of the same."""
    found, machine = profile_of(name), machines.get("default").config()
    by_the_recording, by_nothing = (
        replay(found.recording, found.replayed.kernel, machine, follow_masks=follow).counters["nr_ipis"]
        for follow in (True, False)
    )
    assert sum(row.nr_told for row in found.in_vain) == by_the_recording
    assert found.across.comparisons[0].replays[0].counters["nr_ipis"] == by_nothing
    assert name != "apache" or (by_the_recording, by_nothing) == (5349, 5348)


@pytest.mark.parametrize("name", RECORDINGS)
def test_an_operation_has_one_name(name: str) -> None:
    """That of the sums of a replay, which those of validations and comparisons are: no call of its own for an exit."""
    found = profile_of(name)
    known = {*found.replayed.by_operation}
    assert {"munmap", "exit"} <= known
    assert "exit" in found.model.operations
    for flushes in (found.flushes, found.model):
        assert {*flushes.operations} - {"unknown"} <= known
        assert len(set(flushes.operations)) == len(flushes.operations)
    sums = {operation: row["nr_ipis"] for operation, row in found.replayed.by_operation.items() if row["nr_ipis"]}
    assert {row.operation: row.nr_told for row in found.in_vain} == sums


def test_who_did_it_to_whom() -> None:
    found = profile_of("micro")
    assert (found.causes[0].thread, found.causes[0].operation, found.causes[0].nr_told) == ("m 9890", "munmap", 314)
    assert (found.interrupted[0].by, found.interrupted[0].victim) == ("m 9890", "m 9897")
    assert found.by_operation[0].to_dict() == {
        "operation": "munmap",
        "nr_flushes": 1001,
        "nr_full": 0,
        "nr_remote": 990,
        "nr_told": 314,
        "nr_wrong_cpu": 0,
    }


def test_a_flush_that_came_too_late_is_told_from_one_that_was_needed() -> None:
    rows = {row.operation: row for row in profile_of("gcc").in_vain}
    assert (rows["fault"].up_to_date, rows["fault"].nothing_cached, rows["fault"].needed) == (30, 212, 0)
    assert (rows["madvise"].needed, rows["madvise"].nr_in_vain) == (2, 19)


def test_promotions_are_found_where_there_are_some_only() -> None:
    machine = machines.get("default").config()
    lab = recordings.load(DATA / "lab" / "c4_mprotect_spin2sleep1.jsonl.gz")
    (row,) = promoted(lab, machine)
    assert (row.operation, row.nr_always, row.nr_unless_demoted) == ("mprotect", 89, 48)
    assert promoted(profile_of("apache").recording, machine) == []


def test_a_storm_is_a_matter_of_the_rate() -> None:
    flushes = profile_of("apache").flushes
    (storm,) = storms(flushes)
    assert (storm.operation, storm.nr_told, storm.nr_cpus) == ("munmap", 5051, 2)
    assert storm.per_second == pytest.approx(5730, abs=1)
    assert storms(flushes, per_second=100_000) == []
    several = storms(flushes, per_second=6000)
    assert len(several) > 1
    assert all(one.end_ns < other.begin_ns for one, other in pairwise(several))
    assert sum(one.nr_told for one in several) < storm.nr_told


def test_without_recorded_flushes_the_models_are_shown(tmp_path: Path) -> None:
    scenario = tmp_path / "two.scn"
    scenario.write_text((DATA / "lab" / "scenarios" / "m4" / "memcg_spin2.scn").read_text("utf-8"), "utf-8")
    recording = recordings.load(scenario)
    assert recorded(recording) is None
    found = profile(recording, kernels=["linux-5.10"], machines=["default"])
    assert (found.flushes.source, found.validation, found.is_recorded) == ("predicted", None, False)
    assert len(found.flushes) == found.replayed.counters["nr_flush_requests"] > 0


def test_the_models_flushes_are_the_counters() -> None:
    replayed = replay(profile_of("redis").recording, "linux-5.10", machines.get("default").config())
    flushes = predicted(replayed)
    assert len(flushes) == replayed.counters["nr_flush_requests"]
    assert int((flushes.pages < 0).sum()) == replayed.counters["nr_flush_full"]


def test_gains_and_losses_are_both_told() -> None:
    found = profile(profile_of("gcc").recording, kernels=["linux-5.10", "consolidated"], machines=["default"])
    assert found.across.kernels == ["linux-6.18", "linux-5.10", "consolidated"]
    changes = found.across.operations()
    assert any(change.is_better for change in changes)
    assert any(change.is_worse for change in changes)
    assert [c.after - c.before for c in changes] == sorted(c.after - c.before for c in changes)
    ipis = {c.kernel: c for c in found.across.metrics() if c.what == "nr_ipis"}
    assert (ipis["linux-5.10"].before, ipis["linux-5.10"].after) == (280, 270)


def test_a_kernel_that_is_not_there() -> None:
    with pytest.raises(InputError, match="linux-9"):
        profile(profile_of("micro").recording, kernels=["linux-9"])


def test_machines_of_one_preset_keep_what_was_written() -> None:
    names = ["skylake_sp", "skylake_sp:invlpg_ns=80"]
    found = profile(DATA / "recordings" / "micro.perf.txt.zst", kernels=["linux-6.18"], machines=names)
    assert list(found.across.machines) == list(found.across.times()) == names
    one, other = found.across.times().values()
    assert one[0]["initiator_ns"] < other[0]["initiator_ns"]
