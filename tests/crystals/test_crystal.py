import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal, digest, supercell, with_atomic_numbers, with_volume
from opengnome.errors import InvalidCrystalError


def random_crystal(seed: int, n_atoms: int = 4) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = 5.0 * np.eye(3) + rng.normal(size=(3, 3))
    return Crystal(lattice, rng.random((n_atoms, 3)), rng.integers(1, 90, n_atoms))


def test_quantities_of_rock_salt(rock_salt):
    assert rock_salt.n_atoms == 2
    assert rock_salt.volume == pytest.approx(5.64**3 / 4)
    assert rock_salt.volume_per_atom == pytest.approx(5.64**3 / 8)
    assert rock_salt.density == pytest.approx(2.164, abs=0.003)  # g/cm^3, halite: CRC Handbook
    assert rock_salt.symbols == ("Na", "Cl")
    assert rock_salt.reduced_formula == "NaCl"
    assert rock_salt.chemical_system == "Cl-Na"
    assert rock_salt.positions[1] == pytest.approx([5.64 / 2] * 3)
    assert "NaCl" in repr(rock_salt)


def test_a_crystal_keeps_its_own_frozen_arrays():
    lattice = 4.0 * np.eye(3)
    crystal = Crystal(lattice, np.zeros((1, 3)), np.array([29]))
    lattice[0, 0] = 9.0
    assert crystal.lattice[0, 0] == 4.0
    with pytest.raises(ValueError, match="read-only"):
        crystal.frac_coords[0, 0] = 0.5


@pytest.mark.parametrize(
    ("lattice", "frac_coords", "atomic_numbers", "part"),
    [
        (np.eye(2), [[0, 0, 0]], [1], "(2, 2)"),
        (np.eye(3), [[0, 0]], [1], "(1, 2)"),
        (np.eye(3), [[0, 0, 0]], [1, 2], "(1, 3)"),
        (np.eye(3), np.zeros((0, 3)), [], "at least one atom"),
        (np.eye(3), [[0, np.nan, 0]], [1], "finite"),
        (np.diag([np.inf, 1, 1]), [[0, 0, 0]], [1], "finite"),
        (np.eye(3), [[0, 0, 0]], [0], "[0]"),
        (np.eye(3), [[0, 0, 0]], [119], "[119]"),
        ([[1, 0, 0], [2, 0, 0], [0, 0, 1]], [[0, 0, 0]], [1], "not independent"),
    ],
)
def test_what_is_no_crystal(lattice, frac_coords, atomic_numbers, part):
    with pytest.raises(InvalidCrystalError) as caught:
        Crystal(lattice, frac_coords, atomic_numbers)
    assert part in str(caught.value)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_digest_follows_the_content(seed):
    crystal = random_crystal(seed)
    same = Crystal(crystal.lattice + 1e-12, crystal.frac_coords + 2.0, crystal.atomic_numbers)
    moved = Crystal(crystal.lattice, crystal.frac_coords + np.array([1e-4, 0, 0]), crystal.atomic_numbers)
    other = with_atomic_numbers(crystal, crystal.atomic_numbers % 90 + 1)
    assert digest(same) == digest(crystal)  # whole lattice vectors and rounding errors change nothing
    assert len({digest(crystal), digest(moved), digest(other)}) == 3


def test_digest_of_a_coordinate_just_below_one():
    # The wrap and the rounding meet at 1: -1e-9 is 0.999999999, which rounds to 1.0 and is the site at 0.
    zero = Crystal(np.eye(3), [[0.0, 0, 0]], [1])
    below = Crystal(np.eye(3), [[-1e-9, 0, 0]], [1])
    assert digest(below) == digest(zero)


def test_equal_crystals_hash_alike(rock_salt, perovskite):
    copy = Crystal(rock_salt.lattice, rock_salt.frac_coords, rock_salt.atomic_numbers)
    assert copy == rock_salt
    assert {copy, rock_salt, perovskite} == {rock_salt, perovskite}
    assert rock_salt != "NaCl"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.0, 1e4))
def test_with_volume_scales_isotropically(seed, volume):
    crystal = random_crystal(seed)
    scaled = with_volume(crystal, volume)
    assert scaled.volume == pytest.approx(volume)
    assert scaled.lattice / scaled.lattice[0, 0] == pytest.approx(crystal.lattice / crystal.lattice[0, 0])


@pytest.mark.parametrize("volume", [0.0, -1.0, np.nan, np.inf])
def test_with_volume_refuses(rock_salt, volume):
    with pytest.raises(InvalidCrystalError, match="not a positive volume"):
        with_volume(rock_salt, volume)


def test_supercell_repeats_the_crystal(perovskite):
    big = supercell(perovskite, (2, 1, 3))
    assert big.n_atoms == 30
    assert big.volume == pytest.approx(6 * perovskite.volume)
    assert big.reduced_formula == "SrTiO3"
    # Every atom of the supercell is an atom of the crystal, moved by a whole lattice vector.
    origins = np.tile(perovskite.frac_coords, (6, 1))
    steps = big.positions @ np.linalg.inv(perovskite.lattice) - origins
    assert steps == pytest.approx(np.round(steps), abs=1e-12)
    assert len({tuple(row) for row in np.round(big.positions, 6)}) == 30
    with pytest.raises(InvalidCrystalError, match="positive integers"):
        supercell(perovskite, (0, 1, 1))
