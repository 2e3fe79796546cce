"""The binding of the explorer's engines, on the common problem."""

import pytest

from tlbcore import _core
from tlbcore.errors import InputError

ALL = ("saturate", "urgent", "symmetry", "retired", "dead", "eager_stores")


def test_plain_search_counts_and_proves() -> None:
    found = _core.explore_common_problem("zap", "cleaner", 2, 2)
    assert (found["states"], found["transitions"]) == (38_313, 212_851)
    assert found["safe"]
    assert found["violations"] == []
    assert found["stopped"] is None
    assert found["trace"] == []


def test_a_race_is_found_at_its_shortest() -> None:
    found = _core.explore_common_problem("zap", "cleaner", 1, 1, without=["delay_rmap"], to_first=True)
    assert not found["safe"]
    assert found["violations"] == ["no write is lost: what is newer than storage is known to be dirty"]
    assert len(found["trace"]) == 11
    assert found["trace"][-1] == "CPU2: store to p0 through a writable dirty entry"


def test_saturation_proves_larger_sizes() -> None:
    found = _core.explore_common_problem("mprotect", "reclaim", 3, 4, reductions=ALL)
    assert found["safe"]
    assert found["maximal"] == 10_631


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads: int) -> None:
    one, more = (_core.explore_common_problem("zap", "reclaim", 2, 3, threads=count) for count in (1, threads))
    for name in ("states", "transitions", "depth", "safe"):
        assert one[name] == more[name]


def test_bounds_are_kept_and_said() -> None:
    found = _core.explore_common_problem("zap", "cleaner", 2, 3, max_states=1000)
    assert (found["states"], found["safe"], found["stopped"]) == (1000, False, "the bound on states")
    found = _core.explore_common_problem("zap", "cleaner", 2, 3, max_memory_bytes=4 << 20)
    assert found["stopped"] == "the bound on memory"
    assert found["memory_bytes"] <= 4 << 20
    found = _core.explore_common_problem("zap", "cleaner", 2, 3, max_seconds=0)
    assert found["stopped"] == "the bound on time"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unmap": "unzap"}, 'unmap: found "unzap", expected zap or mprotect'),
        ({"clean": "wash"}, 'clean: found "wash", expected cleaner or reclaim'),
        ({"users": 9}, "found 9 user CPUs and 1 pages, expected one of 1 x 1"),
        ({"without": ["fix"]}, 'without: found "fix", expected flush_under_lock'),
        ({"reductions": ["magic"]}, 'reductions: found "magic", expected one of saturate'),
        ({"threads": 0}, "threads: found 0, expected 1 to 64"),
        ({"max_seconds": -1.0}, "max_seconds: found -1"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"unmap": "zap", "clean": "cleaner", "users": 1, "pages": 1} | change
    with pytest.raises(InputError) as raised:
        _core.explore_common_problem(**arguments)  # type: ignore[arg-type]
    assert message in str(raised.value)
