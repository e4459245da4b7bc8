"""Compositions as arrays say the same as the objects, and refuse what is none."""

import numpy as np
import pytest

from opengnome.crystals import Composition
from opengnome.errors import HullError
from opengnome.hull.composition_arrays import CompositionArrays, ranges

FORMULAS = ("Li2O", "Fe", "LiFePO4", "O6", "Fe4O6", "Li2Fe2P2O8")


@pytest.fixture
def objects() -> list[Composition]:
    return [Composition.from_formula(text) for text in FORMULAS]


def test_there_and_back(objects):
    arrays = CompositionArrays.from_compositions(objects)
    assert list(arrays) == objects
    assert len(arrays) == len(objects)
    assert arrays.n_elements.tolist() == [c.n_elements for c in objects]
    assert list(arrays.reduced) == [c.reduced for c in objects]
    assert arrays.fractions.tolist() == [x for c in objects for x in c.fractions.values()]


def test_elements_may_come_in_any_order():
    arrays = CompositionArrays.from_counts([0, 2, 3], [8, 3, 26], [1.0, 2.0, 4.0])
    assert list(arrays) == [Composition.from_formula("Li2O"), Composition.from_formula("Fe4")]


def test_rows_taken_and_put_in(objects):
    arrays = CompositionArrays.from_compositions(objects)
    assert list(arrays.take(np.array([4, 0, 0]))) == [objects[4], objects[0], objects[0]]
    put = arrays.insert(np.array([0, 3, 3, 6]), arrays.take(np.array([1, 2, 0, 5])))
    expected = [objects[1], *objects[:3], objects[2], objects[0], *objects[3:], objects[5]]
    assert list(put) == expected


def test_rows_are_compared_whole(objects):
    arrays = CompositionArrays.from_compositions([*objects, Composition.from_formula("LiFePO3")])
    same = arrays.same_rows(np.array([0, 1, 2, 2, 4]), arrays.reduced, np.array([0, 1, 5, 6, 4]))
    assert same.tolist() == [True, True, True, False, False]


def test_nothing_at_all():
    empty = CompositionArrays.from_compositions([])
    assert len(empty) == len(empty.reduced) == len(empty.fractions) == 0
    assert list(empty.take(np.array([], dtype=int))) == []
    assert ranges(np.array([], dtype=int), np.array([], dtype=int)).tolist() == []


def test_ranges_one_after_the_other():
    assert ranges(np.array([5, 0, 7]), np.array([2, 0, 3])).tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("starts", "elements", "counts", "message"),
    [
        ([0, 1], [3], [1, 2], "shapes"),
        ([[0, 1]], [3], [1], "shapes"),
        ([0, 2], [3], [1], "ascend from 0 to 1"),
        ([1, 1], [3], [1], "ascend from 0 to 1"),
        ([0, 1, 1], [3], [1], "row 1 is an empty composition"),
        ([0, 1, 2], [3, 119], [1, 1], r"row 1 has the atomic number 119, which is outside 1\.\.118"),
        ([0, 1], [0], [1], "atomic number 0"),
        ([0, 1], [3.5], [1], "atomic number 3.5"),
        ([0, 1, 2], [3, 8], [1, 0], "row 1 has the count 0; counts are positive integers"),
        ([0, 1], [3], [0.5], "count 0.5"),
        ([0, 1], [3], [np.nan], "count nan"),
        ([0, 2], [8, 8], [1, 2], "row 0 has the element 8 twice"),
    ],
)
def test_what_is_no_composition_is_refused(starts, elements, counts, message):
    with pytest.raises(HullError, match=message):
        CompositionArrays.from_counts(starts, elements, counts)
