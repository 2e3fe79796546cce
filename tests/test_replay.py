"""Replay: says what it assumed, can be stopped, lets other threads run, and its errors are Python's."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from given_data import LAB, RECORDINGS, load, machine, short
from tlbcore import InputError, _core, kernels
from tlbcore.replay import replay

STRESS = next(path for path in RECORDINGS if short(path) == "stress")


@pytest.mark.parametrize("path", RECORDINGS, ids=short)
def test_notes_say_what_was_assumed(path: Path) -> None:
    notes = replay(load(path), "linux-6.18", machine()).notes
    assert notes["process start not recorded"] >= 1
    assert all(count > 0 for count in notes.values())


def test_an_interrupt_ends_a_replay() -> None:
    script = f"""
import sys
from tlbcore import machines, recordings
from tlbcore.replay import replay
recording, machine = recordings.load({str(STRESS)!r}), machines.get("default").config()
try:
    print("ready", flush=True)
    while True:
        replay(recording, "linux-6.18", machine)
except KeyboardInterrupt:
    sys.exit(42)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 42
        finally:
            process.kill()


def test_other_threads_run_during_a_replay() -> None:
    """Each thread waits for a sign of the other between its replays: they only end if both make progress."""
    signs = [threading.Event(), threading.Event()]
    results: list[dict[str, int]] = []

    def work(index: int) -> None:
        signs[index].set()
        results.append(replay(load(STRESS), "linux-6.18", machine()).counters)
        assert signs[1 - index].wait(30)

    load(STRESS)
    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert len(results) == 2


def test_flushes_are_columns_of_one_length() -> None:
    result = replay(load(LAB[0]), "linux-6.1", machine())
    columns = result.result.flushes()
    assert {len(column) for column in columns.values()} == {result.counters["nr_flush_requests"]}
    assert (columns["op_event"] < load(LAB[0]).nr_events).all()


def test_errors_of_the_core_are_ours() -> None:
    with pytest.raises(InputError, match="did you mean"):
        replay(load(LAB[0]), "linux-6.19", machine())
    with pytest.raises(InputError, match="levels"):
        _core.replay(load(LAB[0]), kernels.get("linux-6.1").to_json(), '{"nr_cpus": 4, "levels": 3}', False)  # noqa: FBT003
    with pytest.raises(InputError, match=r"found CPU 1, expected below 1 \(the machine's CPUs\)"):
        _core.replay(load(LAB[-1]), kernels.get("linux-6.1").to_json(), '{"nr_cpus": 1, "levels": 5}', False)  # noqa: FBT003
    with pytest.raises(InputError, match="kernel"):
        _core.replay(load(LAB[0]), "{}", '{"nr_cpus": 4, "levels": 5}', False)  # noqa: FBT003
