"""Neighbour lists against a sum over images written out by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal
from opengnome.errors import InvalidCrystalError
from opengnome.graphs import neighbour_list

CUTOFF = 4.0


def brute_force(crystal: Crystal, cutoff: float) -> set[tuple[int, int, int, int, int]]:
    """(sender, receiver, cell offset) of every pair, by trying every image that could be near."""
    inverse = np.linalg.inv(crystal.lattice)
    spread = np.ptp(crystal.frac_coords, axis=0)
    # |fractional component| <= |vector| * norm of the column of the inverse lattice
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + spread).astype(int)
    offsets = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    difference = crystal.positions[None, :, :] - crystal.positions[:, None, :]
    vectors = difference[:, :, None, :] + (offsets @ crystal.lattice)[None, None, :, :]
    lengths = np.linalg.norm(vectors, axis=-1)
    found = set()
    for i, j, image in zip(*np.nonzero(lengths < cutoff), strict=True):
        offset = tuple(offsets[image].tolist())
        if i != j or any(offset):
            found.add((int(i), int(j), *offset))
    return found


def assert_same_pairs(crystal: Crystal, cutoff: float = CUTOFF) -> None:
    senders, receivers, cell_offsets, distances = neighbour_list(crystal, cutoff)
    found = [(int(i), int(j), *s) for i, j, s in zip(senders, receivers, cell_offsets.tolist(), strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == brute_force(crystal, cutoff)
    vectors = crystal.positions[receivers] + cell_offsets @ crystal.lattice - crystal.positions[senders]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), distances, atol=1e-9)
    assert (np.diff(senders) >= 0).all()


@st.composite
def random_crystals(draw: st.DrawFn) -> Crystal:
    """Cells of 1 to 4 atoms, from cubic to strongly skewed, coordinates also outside [0, 1)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_atoms = draw(st.integers(1, 4))
    skew = draw(st.sampled_from([0.0, 0.3, 1.5]))
    lattice = np.diag(rng.uniform(2.5, 6.0, 3)) + skew * rng.uniform(-2.0, 2.0, (3, 3)) * np.tri(3, k=-1)
    return Crystal(lattice, rng.uniform(-1.0, 2.0, (n_atoms, 3)), rng.integers(1, 90, n_atoms))


@settings(max_examples=40, deadline=None)
@given(random_crystals())
def test_equals_brute_force_on_random_cells(crystal: Crystal):
    assert_same_pairs(crystal)


def test_one_atom_cell_has_only_its_images():
    copper = Crystal(3.61 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), np.zeros((1, 3)), np.array([29]))
    senders, receivers, cell_offsets, distances = neighbour_list(copper, CUTOFF)
    assert len(senders) == 12 + 6  # fcc: first and second shell
    assert (senders == 0).all()
    assert (receivers == 0).all()
    assert np.abs(cell_offsets).sum(axis=1).min() >= 1
    np.testing.assert_allclose(np.sort(distances)[[0, 11, 12, 17]], [3.61 / 2**0.5] * 2 + [3.61] * 2)


def test_several_images_of_one_pair(rock_salt: Crystal):
    senders, receivers, _, distances = neighbour_list(rock_salt, 3.0)
    assert [(senders == i).sum() for i in (0, 1)] == [6, 6]
    assert (senders != receivers).all()
    np.testing.assert_allclose(distances, 2.82)
    assert_same_pairs(rock_salt)


def test_no_neighbours():
    lonely = Crystal(np.eye(3) * 20.0, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([2, 2]))
    senders, receivers, cell_offsets, distances = neighbour_list(lonely, CUTOFF)
    assert senders.shape == receivers.shape == distances.shape == (0,)
    assert cell_offsets.shape == (0, 3)


def test_skewed_description_of_one_crystal(perovskite: Crystal):
    unimodular = np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]])
    skewed = Crystal(
        unimodular @ perovskite.lattice,
        perovskite.frac_coords @ np.linalg.inv(unimodular),
        perovskite.atomic_numbers,
    )
    straight = neighbour_list(perovskite, CUTOFF)[3]
    np.testing.assert_allclose(np.sort(neighbour_list(skewed, CUTOFF)[3]), np.sort(straight), atol=1e-9)
    assert_same_pairs(skewed)


@pytest.mark.parametrize(
    "lattice",
    [0.5 * np.eye(3), np.diag([0.01, 50.0, 50.0]), np.array([[1e-4, 0, 0], [9.0, 1e4, 0], [0, 0, 100.0]])],
    ids=["small cell", "chain", "skewed chain"],
)
def test_too_dense_crystal_is_refused_before_the_search(lattice: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("opengnome.graphs.neighbours.NeighborList", None)  # a search would fail
    with pytest.raises(InvalidCrystalError, match="too dense"):
        neighbour_list(Crystal(lattice, np.zeros((1, 3)), np.array([1])), CUTOFF)


def test_dense_chain_is_refused_after_the_search():
    chain = Crystal(np.array([[20.0, 0, 0], [20.0, 0.05, 0], [0, 0, 20.0]]), np.zeros((1, 3)), np.array([1]))
    with pytest.raises(InvalidCrystalError, match="too dense: 158 neighbours"):
        neighbour_list(chain, CUTOFF, max_neighbours_per_atom=150)


def test_too_thin_cell_is_refused():
    thin = Crystal(np.array([[1e3, 0, 0], [1e3, 0.02, 0], [1e3, 0, 10.0]]), np.zeros((1, 3)), np.array([1]))
    with pytest.raises(InvalidCrystalError, match="too thin"):
        neighbour_list(thin, CUTOFF)


@pytest.mark.parametrize("edges", [(1e5, 1e5, 3.0), (1e9, 3.0, 3.0)])
def test_huge_cell_is_refused_not_a_crash(edges: tuple[float, float, float]):
    with pytest.raises(InvalidCrystalError, match="too large"):
        neighbour_list(Crystal(np.diag(edges), np.zeros((1, 3)), np.array([1])), CUTOFF)


def test_large_cell_is_searched():
    large = Crystal(np.diag([900.0, 900.0, 3.0]), np.zeros((1, 3)), np.array([1]))
    assert len(neighbour_list(large, CUTOFF)[0]) == 2
