import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal, supercell
from opengnome.crystals.geometry import check_distances, closest_pair, minimum_distance
from opengnome.errors import InvalidCrystalError


def brute_force(crystal: Crystal, reach: int) -> float:
    shifts = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3))) @ crystal.lattice
    vectors = crystal.positions[None, :, None] - crystal.positions[:, None, None] + shifts
    distances = np.linalg.norm(vectors, axis=-1)
    n = crystal.n_atoms
    distances[np.arange(n), np.arange(n), len(shifts) // 2] = np.inf  # an atom and itself
    return float(distances.min())


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 100_000), st.integers(1, 8), st.integers(-3, 3), st.integers(-3, 3))
def test_equals_brute_force_also_in_skewed_cells(seed, n_atoms, skew_b, skew_c):
    rng = np.random.default_rng(seed)
    lattice = np.diag(rng.uniform(2, 8, 3)) + rng.normal(scale=0.4, size=(3, 3))
    frac_coords = rng.uniform(-2, 2, (n_atoms, 3))
    shear = np.array([[1, 0, 0], [skew_b, 1, 0], [skew_c, 0, 1]])
    straight = Crystal(lattice, frac_coords, np.ones(n_atoms))
    skewed = Crystal(shear @ lattice, frac_coords @ np.linalg.inv(shear), np.ones(n_atoms))
    expected = brute_force(Crystal(lattice, frac_coords % 1, np.ones(n_atoms)), reach=3)
    assert minimum_distance(straight) == pytest.approx(expected, abs=1e-9)
    assert minimum_distance(skewed) == pytest.approx(expected, abs=1e-9)  # the same crystal


def test_one_atom_is_closest_to_its_own_image():
    flat = Crystal(np.diag([9.0, 8.0, 1.5]), [[0.3, 0.2, 0.1]], [26])
    assert closest_pair(flat) == (0, 0, pytest.approx(1.5))
    # fcc is the densest packing, where the distance equals the length of the search
    fcc = Crystal(1.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), [[0, 0, 0]], [29])
    assert minimum_distance(fcc) == pytest.approx(1.8 * np.sqrt(2))
    assert minimum_distance(supercell(fcc, (3, 2, 2))) == pytest.approx(1.8 * np.sqrt(2))


def test_atoms_at_one_place_are_named(rock_salt):
    check_distances(rock_salt)
    doubled = Crystal(rock_salt.lattice, [[0, 0, 0], [0.999, 0.999, 1.0]], [11, 17])
    with pytest.raises(InvalidCrystalError, match=r"Na0 and Cl1 are 0\.00\d A apart.*at least 0\.5 A"):
        check_distances(doubled)
    with pytest.raises(InvalidCrystalError, match="sodium and chlorine are"):
        check_distances(doubled, labels=["sodium", "chlorine"])
    with pytest.raises(InvalidCrystalError, match=r"at least 3\.0 A"):
        check_distances(rock_salt, minimum=3.0)
    thin = Crystal(np.diag([9.0, 8.0, 0.3]), [[0, 0, 0]], [26])
    with pytest.raises(InvalidCrystalError, match="Fe0 and a periodic image of Fe0"):
        check_distances(thin)


@pytest.mark.parametrize(
    ("lattice", "part"),
    [
        (np.diag([1e9, 3.0, 3.0]), "repeats every 3 A"),
        (np.diag([1e4, 1e4, 1e-6]), "repeats every 1e-06 A"),
        ([[1, 0, 0], [1e15, 1, 0], [1e15, 1e15, 1]], "of the volume that they would at right angles"),
    ],
)
def test_a_lattice_that_would_end_the_process_is_refused(lattice, part):
    with pytest.raises(InvalidCrystalError) as caught:
        minimum_distance(Crystal(np.array(lattice), [[0, 0, 0]], [26]))
    assert part in str(caught.value)


def test_a_long_cell_and_a_skewed_one_are_not_refused():
    slab = Crystal(np.diag([3.0, 3.0, 300.0]), [[0, 0, 0], [0, 0, 0.01]], [26, 26])
    assert minimum_distance(slab) == pytest.approx(3.0)
    skewed = Crystal([[3.0, 0, 0], [3e4, 3.0, 0], [0, 0, 3.0]], [[0, 0, 0]], [26])
    assert minimum_distance(skewed) == pytest.approx(3.0)


def test_ten_atoms_take_less_than_a_millisecond():
    rng = np.random.default_rng(0)
    crystal = Crystal(5 * np.eye(3), rng.random((10, 3)), np.ones(10))
    minimum_distance(crystal)
    start = time.perf_counter()
    for _ in range(200):
        minimum_distance(crystal)
    assert (time.perf_counter() - start) / 200 < 1e-3  # 0.07 ms on a quiet machine
