"""``CpuMaskArray`` against single masks, and the fused operations of ``CpuMask`` against sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbcore import CpuMask, CpuMaskArray


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, list[set[int]], set[int]]:
    """A width, some sets of its CPUs, and one more."""
    nr_cpus = draw(st.sampled_from([1, 64, 65, 128, 700, 8192]))
    cpus = st.sets(st.integers(0, nr_cpus - 1), max_size=30)
    return nr_cpus, draw(st.lists(cpus, min_size=1, max_size=5)), draw(cpus)


@given(cases())
def test_it_answers_for_each_as_sets_do(case: tuple[int, list[set[int]], set[int]]) -> None:
    nr_cpus, models, model = case
    masks, mask = [CpuMask(nr_cpus, cpus) for cpus in models], CpuMask(nr_cpus, model)
    array = CpuMaskArray.from_masks(masks)
    assert (len(array), array.nr_cpus) == (len(masks), nr_cpus)
    assert [array[at] for at in range(len(masks))] == masks
    assert array[-1] == masks[-1]
    assert array.weights().tolist() == [len(cpus) for cpus in models]
    assert array.weights_and(mask).tolist() == [len(cpus & model) for cpus in models]
    assert array.weights_andnot(mask).tolist() == [len(cpus - model) for cpus in models]
    assert array.intersects(mask).tolist() == [bool(cpus & model) for cpus in models]
    assert set(array.union()) == set.union(*models)
    assert set(array.intersection()) == set.intersection(*models)
    for changed, expected in [
        (array | mask, [m | mask for m in masks]),
        (array & mask, [m & mask for m in masks]),
        (array - mask, [m - mask for m in masks]),
    ]:
        assert [changed[at] for at in range(len(masks))] == expected
    again = CpuMaskArray(nr_cpus, array.words())
    assert [again[at] for at in range(len(masks))] == masks


@given(cases())
def test_fused_operations_are_two_at_once(case: tuple[int, list[set[int]], set[int]]) -> None:
    nr_cpus, models, model = case
    mask, other = CpuMask(nr_cpus, models[0]), CpuMask(nr_cpus, model)
    assert mask.weight_or(other) == len(models[0] | model)
    assert mask.weight_andnot(other) == len(models[0] - model)
    assert mask.cpus_and(other).tolist() == sorted(models[0] & model)
    assert mask.cpus_andnot(other).tolist() == sorted(models[0] - model)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"words: found rows of 1, expected 2 \(100 CPUs\)"):
        CpuMaskArray(100, np.zeros((3, 1), np.uint64))
    with pytest.raises(ValueError, match="mask 1: CPU: found 104, expected 0 to 99"):
        CpuMaskArray(100, np.array([[1, 0], [0, 1 << 40]], np.uint64))
    with pytest.raises(ValueError, match="masks: found none, expected one or more"):
        CpuMaskArray.from_masks([])
    with pytest.raises(ValueError, match="mask 1: found 9 CPUs, expected 8"):
        CpuMaskArray.from_masks([CpuMask(8), CpuMask(9)])
    array = CpuMaskArray.from_masks([CpuMask(8)])
    with pytest.raises(ValueError, match="other mask: found 9 CPUs, expected 8"):
        array.weights_and(CpuMask(9))
    for at in (1, -2):
        with pytest.raises(IndexError, match=f"mask: found {at}, expected one of 1"):
            array[at]
