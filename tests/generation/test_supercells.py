"""Supercells: all sublattices, once per class, of the same crystal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal
from opengnome.crystals.geometry import minimum_distance
from opengnome.crystals.symmetry import space_group_number, symmetry_dataset
from opengnome.generation.supercells import (
    _hermite_normal_form,
    _hermite_normal_forms,
    supercell_of,
    unique_supercells,
)

FACE_CENTRED = np.array([[0.0, 2, 2], [2, 0, 2], [2, 2, 0]])
BODY_CENTRED = np.array([[-1.5, 1.5, 1.5], [1.5, -1.5, 1.5], [1.5, 1.5, -1.5]])


@pytest.mark.parametrize(("index", "number"), [(1, 1), (2, 7), (3, 13), (4, 35), (6, 91)])
def test_all_sublattices_are_listed(index, number):
    """Numbers of sublattices of index n of a three-dimensional lattice (OEIS A001001)."""
    forms = _hermite_normal_forms(index)
    assert len({form.tobytes() for form in forms}) == len(forms) == number
    assert all(round(np.linalg.det(form)) == index for form in forms)


@pytest.mark.parametrize(
    ("lattice", "numbers"),
    [(4 * np.eye(3), [1, 3, 3, 9]), (FACE_CENTRED, [1, 2, 3, 7]), (BODY_CENTRED, [1, 2, 3, 7])],
    ids=["cubic", "face-centred", "body-centred"],
)
def test_classes_of_the_cubic_lattices(lattice, numbers):
    """Hart and Forcade (2008), table IV: derivative superlattices of the cubic lattices."""
    rotations = symmetry_dataset(Crystal(lattice, [[0, 0, 0]], [29])).rotations
    assert [len(unique_supercells(rotations, index)) for index in (1, 2, 3, 4)] == numbers


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_the_normal_form_does_not_depend_on_the_basis(index, seed):
    rng = np.random.default_rng(seed)
    forms = _hermite_normal_forms(index)
    form = forms[rng.integers(len(forms))]
    unimodular = np.eye(3, dtype=np.int64)
    for _ in range(6):
        i, j = rng.choice(3, 2, replace=False)
        unimodular[i] += rng.integers(-2, 3) * unimodular[j]
    np.testing.assert_array_equal(_hermite_normal_form(unimodular @ form), form)
    np.testing.assert_array_equal(_hermite_normal_form(-(unimodular @ form)), form)


def test_a_supercell_is_the_same_crystal(perovskite):
    rotations = symmetry_dataset(perovskite).rotations
    for index in (2, 3):
        for matrix in unique_supercells(rotations, index):
            large, sites = supercell_of(perovskite, matrix)
            assert large.n_atoms == index * perovskite.n_atoms
            assert large.volume == pytest.approx(index * perovskite.volume)
            assert minimum_distance(large) == pytest.approx(minimum_distance(perovskite))
            assert space_group_number(large) == 221
            np.testing.assert_array_equal(perovskite.atomic_numbers[sites], large.atomic_numbers)
