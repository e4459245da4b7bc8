"""Primitive cells, fingerprints, radial profiles and prototype labels."""

import numpy as np
import pytest
from descriptions import random_crystal, redescribed
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal, supercell, with_volume
from opengnome.crystals.identity import fingerprint, protostructure_label
from opengnome.crystals.radial import N_PARTS, profile_distance, radial_profiles
from opengnome.crystals.reduction import reduce_crystal
from opengnome.errors import InvalidCrystalError

REPEATS = st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 1, 3), (2, 2, 1), (2, 3, 1), (5, 1, 1)])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), REPEATS, st.sampled_from([0.0, 0.01]))
def test_every_supercell_reduces_to_the_primitive_cell(seed, repeats, noise):
    crystal = random_crystal(seed)
    reduced = reduce_crystal(redescribed(crystal, seed, noise=noise, repeats=repeats))
    assert reduced.n_atoms == 5
    assert reduced.volume == pytest.approx(crystal.volume)
    assert reduced.atomic_numbers.tolist() == [22, 38, 8, 8, 8]
    assert [(block.start, block.stop) for block in reduced.blocks] == [(0, 1), (1, 2), (2, 5)]
    plain = reduce_crystal(crystal)
    lengths = [np.sort(np.linalg.norm(cell.lattice, axis=1)) for cell in (reduced, plain)]
    np.testing.assert_allclose(*lengths, rtol=1e-6)


def test_a_centred_cell_is_reduced_and_a_primitive_one_is_not(rock_salt, perovskite):
    a = 5.64
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cubic = Crystal(a * np.eye(3), np.concatenate([corners, corners + 0.5]), [11] * 4 + [17] * 4)
    assert reduce_crystal(cubic).n_atoms == 2
    assert reduce_crystal(cubic).volume == pytest.approx(rock_salt.volume)
    assert reduce_crystal(perovskite).n_atoms == 5


def test_the_averaged_cell_is_closer_to_the_truth_than_its_images(perovskite):
    noisy = reduce_crystal(redescribed(perovskite, 3, noise=0.02, repeats=(3, 3, 3)))
    exact = reduce_crystal(perovskite)
    (distance,) = [profile_distance(*radial_profiles([noisy, exact]))]
    assert distance < 0.02 / exact.spacing / 2


def test_a_distortion_beyond_the_tolerance_is_kept():
    doubled = supercell(random_crystal(1), (2, 1, 1))
    moved = doubled.frac_coords.copy()
    moved[0, 1] += 0.6 / np.linalg.norm(doubled.lattice[1])
    distorted = Crystal(doubled.lattice, moved, doubled.atomic_numbers)
    assert reduce_crystal(distorted).n_atoms == 10
    assert reduce_crystal(distorted, tolerance=0.5).n_atoms == 5


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), REPEATS)
def test_fingerprint_and_profile_do_not_depend_on_the_description(seed, repeats):
    crystal = random_crystal(seed, numbers=(14, 14, 8, 8, 8, 8))
    other = redescribed(crystal, seed + 1, repeats=repeats)
    assert fingerprint(other) == fingerprint(crystal)
    first, second = radial_profiles([reduce_crystal(crystal), reduce_crystal(other)])
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_symmetric_crystals_have_one_fingerprint_whatever_the_setting(rock_salt, perovskite):
    for crystal in (rock_salt, perovskite):
        names = {fingerprint(redescribed(crystal, seed, repeats=(1, 1 + seed % 2, 1))) for seed in range(12)}
        assert names == {fingerprint(crystal)}


def test_fingerprint_sees_volume_elements_and_positions(perovskite):
    moved = perovskite.frac_coords.copy()
    moved[1, 2] += 0.03
    others = [
        with_volume(perovskite, perovskite.volume * 1.05),
        Crystal(perovskite.lattice, perovskite.frac_coords, [56, 22, 8, 8, 8]),
        Crystal(perovskite.lattice, perovskite.frac_coords, [22, 38, 8, 8, 8]),
        Crystal(perovskite.lattice, moved, perovskite.atomic_numbers),
    ]
    assert len({fingerprint(crystal) for crystal in [perovskite, *others]}) == 5


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_profiles_move_no_more_than_twice_the_atoms(seed):
    rng = np.random.default_rng(seed)
    crystal = random_crystal(seed)
    steps = rng.normal(size=(5, 3))
    steps *= 0.05 * rng.random((5, 1)) / np.linalg.norm(steps, axis=1, keepdims=True)
    moved = Crystal(
        crystal.lattice, crystal.frac_coords + steps @ np.linalg.inv(crystal.lattice), crystal.atomic_numbers
    )
    reduced = [reduce_crystal(crystal), reduce_crystal(moved)]
    first, second = radial_profiles(reduced)
    largest = np.linalg.norm(steps, axis=1).max() / reduced[0].spacing
    assert first.shape == (6 * N_PARTS,)  # three elements, six pairs of them
    assert np.abs(first - second).max() <= 2 * largest + 1e-12
    assert profile_distance(first, second) > 0


def test_profiles_of_a_batch_are_those_of_its_crystals(rock_salt, perovskite):
    crystals = [reduce_crystal(c) for c in (rock_salt, perovskite, random_crystal(2))]
    assert radial_profiles([]) == []
    for crystal, profile in zip(crystals, radial_profiles(crystals), strict=True):
        np.testing.assert_allclose(profile, radial_profiles([crystal])[0], atol=1e-9)


def test_profile_of_rock_salt_counts_its_shells(rock_salt):
    """Na-Cl: six at a/2 per ion, then eight at sqrt(3)/2 a; a is twice the atomic spacing."""
    reduced = reduce_crystal(rock_salt)
    assert reduced.spacing == pytest.approx(2.82)
    profile = radial_profiles([reduced])[0].reshape(3, N_PARTS)
    assert profile[1, 0] == pytest.approx(1.0)  # one part is 1.7 of the 13.4 listed neighbours
    assert profile[1, 2] == pytest.approx(1.0)
    assert profile[1, 4] == pytest.approx(np.sqrt(3))
    assert profile[0, 0] == pytest.approx(np.sqrt(2))
    assert (np.diff(profile, axis=1) >= -1e-12).all()


def test_protostructure_label_is_the_prototype(rock_salt, perovskite):
    assert protostructure_label(perovskite) == "A3BC_cP5_221_c_a_b:O-Sr-Ti"
    assert protostructure_label(rock_salt) == "AB_cF8_225_a_b:Cl-Na"
    for seed in range(5):
        noisy = redescribed(perovskite, seed, noise=0.005, repeats=(2, 1, 1))
        assert protostructure_label(noisy) == protostructure_label(perovskite)


def test_protostructure_label_refuses_what_has_none(perovskite):
    with pytest.raises(InvalidCrystalError, match="less than half the smallest distance"):
        protostructure_label(perovskite, symprec=3.0)
    needle = Crystal(np.diag([2.0, 2.0, 1e6]), [[0, 0, 0]], [26])
    with pytest.raises(InvalidCrystalError, match="needle"):
        fingerprint(needle)
