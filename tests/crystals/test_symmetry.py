import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal, supercell
from opengnome.crystals.geometry import minimum_distance
from opengnome.crystals.io import from_pymatgen
from opengnome.crystals.symmetry import (
    primitive_cell,
    site_permutations,
    space_group_number,
    space_group_symbol,
    symmetry_dataset,
)
from opengnome.errors import InvalidCrystalError


def test_space_groups_of_named_crystals(rock_salt, perovskite):
    salt, oxide = symmetry_dataset(rock_salt), symmetry_dataset(perovskite)
    assert (salt.number, salt.symbol) == (225, "Fm-3m")
    assert (oxide.number, oxide.symbol) == (221, "Pm-3m")
    assert oxide.orbits.tolist() == [0, 1, 2, 2, 2]
    assert oxide.wyckoffs[2] == oxide.wyckoffs[4]
    assert len(salt.rotations) == len(oxide.rotations) == 48
    assert salt.symprec == 0.01


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")
def test_symbols_equal_spglib():
    spglib = pytest.importorskip("spglib")
    settings_of_groups = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    theirs = {group.number: group.international_short for group in reversed(settings_of_groups)}
    assert {number: space_group_symbol(number) for number in range(1, 231)} == theirs
    with pytest.raises(InvalidCrystalError, match=r"outside 1\.\.230"):
        space_group_symbol(231)


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib, from inside pymatgen
def test_space_groups_equal_spglib_on_prototypes():
    data = pytest.importorskip("pymatgen.analysis.prototypes._data")
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    for entry in data.AFLOW_PROTOTYPE_LIBRARY[::9]:
        structure = entry["snl"].structure
        crystal = from_pymatgen(structure)
        dataset = symmetry_dataset(crystal)
        theirs = SpacegroupAnalyzer(structure, symprec=0.01).get_symmetry_dataset()
        assert dataset.number == theirs.number
        assert dataset.orbits.tolist() == theirs.crystallographic_orbits.tolist()
        assert len(dataset.rotations) == len(theirs.rotations)
        permutations = site_permutations(crystal, dataset)
        check_group(permutations, crystal)
        # an orbit is what the group reaches
        assert permutations.min(axis=0).tolist() == dataset.orbits.tolist()


def check_group(permutations: np.ndarray, crystal: Crystal) -> None:
    n = crystal.n_atoms
    assert (np.sort(permutations, axis=1) == np.arange(n)).all()
    assert (crystal.atomic_numbers[permutations] == crystal.atomic_numbers).all()
    elements = {tuple(row) for row in permutations.tolist()}
    assert tuple(range(n)) in elements
    sample = sorted(elements)[:: max(1, len(elements) // 12)]
    for first in sample:
        for second in sample:
            assert tuple(first[site] for site in second) in elements  # closed, so with inverses: it is finite


def test_translations_of_a_supercell_are_operations(perovskite):
    big = supercell(perovskite, (2, 1, 1))
    dataset = symmetry_dataset(big)
    assert dataset.number == 221
    assert len(dataset.rotations) == 2 * 16  # the cell breaks the cubic rotations, not the crystal
    permutations = site_permutations(big, dataset)
    check_group(permutations, big)
    # Orbits are those of the crystal: its threefold axes join sites that no operation of this cell joins.
    assert dataset.orbits.tolist() == [0, 1, 2, 2, 2] * 2
    assert permutations.min(axis=0).tolist() == [0, 1, 2, 2, 4] * 2
    primitive = primitive_cell(big)
    assert primitive.n_atoms == 5
    assert primitive.volume == pytest.approx(perovskite.volume)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100_000))
def test_symmetry_survives_a_change_of_description(seed):
    rng = np.random.default_rng(seed)
    rutile = Crystal(
        np.diag([4.59, 4.59, 2.96]),
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]],
        [22, 22, 8, 8, 8, 8],
    )
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    shear = np.array([[1, 0, 0], [rng.integers(-1, 2), 1, 0], [0, rng.integers(-1, 2), 1]])
    order = rng.permutation(6)
    frac_coords = (rutile.frac_coords + rng.random(3)) @ np.linalg.inv(shear) + rng.normal(scale=5e-5, size=(6, 3))
    other = Crystal(shear @ rutile.lattice @ rotation, frac_coords[order], rutile.atomic_numbers[order])
    dataset = symmetry_dataset(other)
    assert dataset.number == 136
    assert len(set(dataset.orbits.tolist())) == 2
    permutations = site_permutations(other, dataset)
    check_group(permutations, other)
    assert permutations.min(axis=0).tolist() == dataset.orbits.tolist()
    primitive = primitive_cell(other)
    assert primitive.n_atoms == 6
    assert minimum_distance(primitive) == pytest.approx(minimum_distance(rutile), abs=0.01)


def test_operations_of_another_crystal_are_refused(rock_salt, perovskite):
    dataset = symmetry_dataset(perovskite)
    pulled = Crystal(perovskite.lattice, perovskite.frac_coords + np.eye(5, 3) * 0.3, perovskite.atomic_numbers)
    with pytest.raises(InvalidCrystalError, match="does not permute the sites"):
        site_permutations(pulled, dataset)
    wrong = replace(dataset, translations=dataset.translations + 0.25)
    with pytest.raises(InvalidCrystalError, match="space group 221"):
        site_permutations(perovskite, wrong)


def test_a_tolerance_that_merges_atoms_is_refused(rock_salt):
    with pytest.raises(InvalidCrystalError, match="less than half the smallest distance"):
        space_group_number(rock_salt, symprec=2.0)
    with pytest.raises(InvalidCrystalError, match="must be positive"):
        space_group_number(rock_salt, symprec=0.0)
    needle = Crystal(np.diag([2.0, 2.0, 1500.0]), [[0, 0, 0]], [26])
    with pytest.raises(InvalidCrystalError, match=r"must be less than 0\.00267 A"):
        space_group_number(needle)
    assert space_group_number(needle, symprec=1e-3) == 123


def test_moyo_keeps_quiet_and_its_log_is_left_as_it_was(perovskite, caplog):
    logger = logging.getLogger("moyo")
    before = logger.level
    with caplog.at_level(logging.DEBUG):
        symmetry_dataset(supercell(perovskite, (2, 1, 1)))
    assert [record for record in caplog.records if record.name.startswith("moyo")] == []
    assert logger.level == before
