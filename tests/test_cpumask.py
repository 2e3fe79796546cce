"""``CpuMask`` against the set of Python."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbcore import CpuMask

NR_CPUS_MAX = 8192
WIDTHS = st.sampled_from([1, 2, 32, 33, 63, 64, 65, 128, 129, 4096, NR_CPUS_MAX]) | st.integers(1, NR_CPUS_MAX)


@st.composite
def one(draw: st.DrawFn) -> tuple[int, set[int]]:
    """A width and a subset of its CPUs: some single ones and a run."""
    nr_cpus = draw(WIDTHS)
    cpu = st.integers(0, nr_cpus - 1)
    start, end = draw(cpu), draw(cpu)
    return nr_cpus, draw(st.sets(cpu, max_size=20)) | set(range(start, end))


@st.composite
def two(draw: st.DrawFn) -> tuple[int, set[int], set[int]]:
    """A width and two subsets, of which the second may be related to the first."""
    nr_cpus, a = draw(one())
    b = draw(st.sets(st.integers(0, nr_cpus - 1), max_size=20))
    return nr_cpus, a, draw(st.sampled_from([b, a, a & b, a | b]))


@given(one())
def test_queries_agree_with_the_set(case: tuple[int, set[int]]) -> None:
    nr_cpus, model = case
    mask = CpuMask(nr_cpus, model)
    assert mask.nr_cpus == nr_cpus
    assert mask.weight() == len(mask) == len(model)
    assert bool(mask) == bool(model)
    assert list(mask) == sorted(model)
    assert mask.first() == min(model, default=None)
    for cpu in {0, nr_cpus - 1, nr_cpus // 2} | set(list(model)[:5]):
        assert (cpu in mask) == (cpu in model)
        assert mask.next(cpu) == min((other for other in model if other > cpu), default=None)
        assert mask.any_but(cpu) == min(model - {cpu}, default=None)
        assert set(mask.with_cpu(cpu)) == model | {cpu}
        assert set(mask.without_cpu(cpu)) == model - {cpu}
    assert set(mask) == model, "the mask itself never changes"


@given(two())
def test_operators_agree_with_the_set(case: tuple[int, set[int], set[int]]) -> None:
    nr_cpus, a, b = case
    x, y = CpuMask(nr_cpus, a), CpuMask(nr_cpus, b)
    assert set(x | y) == a | b
    assert set(x & y) == a & b
    assert set(x - y) == a - b
    assert set(x ^ y) == a ^ b
    assert x.weight_and(y) == len(a & b)
    assert x.isdisjoint(y) == a.isdisjoint(b)
    assert x.intersects(y) != a.isdisjoint(b)
    assert (x <= y, x < y, x >= y, x > y) == (a <= b, a < b, a >= b, a > b)
    assert (x == y, x != y) == (a == b, a != b)
    assert hash(x & y) == hash(CpuMask(nr_cpus, a & b))


@given(one())
def test_every_form_goes_there_and_back(case: tuple[int, set[int]]) -> None:
    nr_cpus, model = case
    mask = CpuMask(nr_cpus, model)
    assert CpuMask.from_cpulist(mask.cpulist, nr_cpus) == mask
    assert CpuMask.from_hex_mask(mask.hex_mask, nr_cpus) == mask
    assert CpuMask.from_numpy(mask.to_numpy()) == mask
    assert CpuMask.from_numpy(mask.to_numpy(), nr_cpus) == mask
    assert CpuMask.from_numpy(mask.words(), nr_cpus) == mask
    assert CpuMask(nr_cpus, mask.cpus()) == mask
    assert eval(repr(mask)) == mask  # noqa: S307  # our own text
    assert copy.deepcopy(mask) == mask
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(mask, protocol)) == mask  # noqa: S301  # our own bytes


@given(one())
def test_arrays_say_what_the_set_says(case: tuple[int, set[int]]) -> None:
    nr_cpus, model = case
    mask = CpuMask(nr_cpus, model)
    bools, words, cpus = mask.to_numpy(), mask.words(), mask.cpus()
    assert [array.dtype.name for array in (bools, words, cpus)] == ["bool", "uint64", "uint16"]
    assert bools.shape == (nr_cpus,)
    assert np.flatnonzero(bools).tolist() == cpus.tolist() == sorted(model)
    assert int.from_bytes(words.astype("<u8").tobytes(), "little") == sum(1 << cpu for cpu in model)


@given(st.text(max_size=40) | st.text("0123456789,-:/ af", max_size=30), WIDTHS)
def test_any_text_gives_a_mask_or_one_line(text: str, nr_cpus: int) -> None:
    for parse in (CpuMask.from_cpulist, CpuMask.from_hex_mask):
        try:
            mask = parse(text, nr_cpus)
        except ValueError as error:
            line = str(error)
            assert all(word in line for word in ("column", "found", "expected"))
            assert "\n" not in line
        else:
            assert mask.nr_cpus == nr_cpus


def test_texts_are_those_of_linux() -> None:
    mask = CpuMask.from_cpulist("0-1,32-39", 40)
    assert (mask.hex_mask, mask.cpulist, str(mask)) == ("ff,00000003", "0-1,32-39", "0-1,32-39")
    assert repr(mask) == "CpuMask.from_cpulist('0-1,32-39', 40)"
    assert CpuMask.from_cpulist("0-31:2/4", 64).words().tolist() == [0x33333333]


def test_arrays_need_not_be_contiguous() -> None:
    every_other = np.zeros(128, dtype=bool)
    every_other[2] = True
    assert list(CpuMask.from_numpy(every_other[::2])) == [1]
    words = np.array([1, 0, 2, 0], dtype=np.uint64)
    assert list(CpuMask.from_numpy(words[::2])) == [0, 65]


def test_an_array_given_out_is_a_copy() -> None:
    mask = CpuMask(4, [1])
    mask.to_numpy()[:] = True
    mask.words()[:] = 15
    assert list(mask) == [1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CpuMask(0), "nr_cpus: found 0, expected 1 to 8192"),
        (lambda: CpuMask(-3), "nr_cpus: found -3, expected 1 to 8192"),
        (lambda: CpuMask(8193), "nr_cpus: found 8193, expected 1 to 8192"),
        (lambda: CpuMask(4, [1, 4]), "CPU: found 4, expected 0 to 3"),
        (lambda: CpuMask(4, [-1]), "CPU: found -1, expected 0 to 3"),
        (lambda: CpuMask(4).with_cpu(1 << 70), f"CPU: found {1 << 70}, expected 0 to 3"),
        (lambda: CpuMask(4).without_cpu(4), "CPU: found 4, expected 0 to 3"),
        (lambda: CpuMask(4).next(4), "CPU: found 4, expected 0 to 3"),
        (lambda: CpuMask(4) | CpuMask(5), "other mask: found 5 CPUs, expected 4"),
        (lambda: CpuMask(4) <= CpuMask(5), "other mask: found 5 CPUs, expected 4"),
        (lambda: CpuMask(4).intersects(CpuMask(5)), "other mask: found 5 CPUs, expected 4"),
        (lambda: CpuMask.from_cpulist("0-3,x", 64), 'cpulist "0-3,x": column 5: found "x", expected a CPU number'),
        (lambda: CpuMask.from_hex_mask("8", 3), 'cpumask "8": column 1: found CPU 3, expected CPUs 0 to 2'),
        (lambda: CpuMask.from_numpy(np.ones(3, bool), 4), "bool array: found 3 elements, expected 4"),
        (lambda: CpuMask.from_numpy(np.array([16], np.uint64), 4), "CPU: found 4, expected 0 to 3"),
        (lambda: CpuMask.from_numpy(np.zeros(2, np.uint64), 4), "words of a mask of 4 CPUs: found 2, expected 1"),
        (lambda: CpuMask.from_numpy(np.zeros(0, bool)), "nr_cpus: found 0, expected 1 to 8192"),
    ],
)
def test_bad_values_are_refused_in_one_line(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="found") as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CpuMask("4"), "nr_cpus: found str, expected an integer"),  # type: ignore[arg-type]
        (lambda: CpuMask(4, [1.0]), "CPU: found float, expected an integer"),  # type: ignore[list-item]
        (lambda: "1" in CpuMask(4), "CPU: found str, expected an integer"),  # type: ignore[operator]
        (
            lambda: CpuMask.from_numpy(np.zeros((2, 2), np.int32)),  # type: ignore[arg-type]
            (
                "array: found ndarray of 2 dimensions and type int32, "
                "expected a NumPy array of 1 dimension and type bool or uint64"
            ),
        ),
        (
            lambda: CpuMask.from_numpy([True]),  # type: ignore[arg-type]
            "array: found list, expected a NumPy array of 1 dimension and type bool or uint64",
        ),
    ],
)
def test_wrong_types_are_refused_in_one_line(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == message


def test_membership_of_numbers_that_no_cpu_has() -> None:
    mask = CpuMask(4, range(4))
    assert 3 in mask
    assert np.int64(3) in mask
    assert not any(cpu in mask for cpu in (4, -1, 1 << 70))


def test_masks_of_two_widths_are_unequal() -> None:
    assert CpuMask(4, [1]) != CpuMask(5, [1])
    assert CpuMask(4, [1]) != {1}


def test_a_mask_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        CpuMask(4).nr_cpus = 5  # type: ignore[misc]


def test_threads_share_masks() -> None:
    shared = CpuMask(NR_CPUS_MAX, range(0, NR_CPUS_MAX, 3))

    def work(seed: int) -> int:
        own = CpuMask(NR_CPUS_MAX, range(seed, NR_CPUS_MAX, 5))
        for _ in range(200):
            assert (own | shared) - shared == own - shared
        return shared.weight_and(own)

    expected = [len(set(range(0, NR_CPUS_MAX, 3)) & set(range(seed, NR_CPUS_MAX, 5))) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == expected
