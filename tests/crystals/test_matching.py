"""Is it the same structure? Set beside pymatgen's StructureMatcher."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from descriptions import random_crystal, redescribed
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal, CrystalTable, with_volume
from opengnome.crystals.interop import to_pymatgen
from opengnome.crystals.lattice_mappings import lattice_mappings
from opengnome.crystals.matching import MatchTolerances, is_same_structure, match_structures
from opengnome.crystals.reduction import reduce_crystal
from opengnome.errors import SettingsError


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 3, 1), (2, 2, 1)]))
def test_a_noisy_copy_matches_closely(seed, repeats):
    crystal = random_crystal(seed)
    copy = redescribed(crystal, seed, noise=0.01, repeats=repeats)
    match = match_structures(reduce_crystal(crystal), reduce_crystal(copy))
    assert match is not None
    assert match.rms <= match.largest < 0.05 / crystal.volume_per_atom ** (1 / 3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_matching_is_symmetric(seed):
    numbers = (14, 8, 8)
    first, second = (
        reduce_crystal(random_crystal(seed, numbers, 4.0)),
        reduce_crystal(random_crystal(seed + 1, numbers, 4.0)),
    )
    assert match_structures(first, second) == match_structures(second, first)


def test_scaled_and_mirrored_copies_match_and_other_elements_do_not():
    crystal = random_crystal(5)
    assert is_same_structure(crystal, with_volume(crystal, 1.3 * crystal.volume))
    mirror = Crystal(crystal.lattice @ np.diag([1.0, 1.0, -1.0]), crystal.frac_coords, crystal.atomic_numbers)
    assert is_same_structure(crystal, mirror)
    swapped = Crystal(crystal.lattice, crystal.frac_coords, [22, 38, 8, 8, 8])
    assert not is_same_structure(crystal, swapped, MatchTolerances(site=0.1))
    other = Crystal(crystal.lattice, crystal.frac_coords, [38, 22, 16, 16, 16])
    assert not is_same_structure(crystal, other)


def test_displacement_of_one_atom_decides_at_the_tolerance():
    """One of n atoms moved by d: after the mean shift it is off by d (n - 1) / n."""
    crystal = random_crystal(11, numbers=(38, 22, 8, 16, 9))
    spacing = crystal.volume_per_atom ** (1 / 3)
    for share, same in ((0.28, True), (0.32, False)):
        step = np.zeros((5, 3))
        step[3] = [0, 0, share * spacing * 5 / 4]
        moved = Crystal(
            crystal.lattice, crystal.frac_coords + step @ np.linalg.inv(crystal.lattice), crystal.atomic_numbers
        )
        match = match_structures(reduce_crystal(crystal), reduce_crystal(moved))
        assert (match is not None) == same
        if match is not None:
            assert match.largest == pytest.approx(share, abs=1e-6)
    assert is_same_structure(crystal, moved, MatchTolerances(site=0.35))


def test_rock_salt_is_not_caesium_chloride_nor_zinc_blende(rock_salt):
    caesium_chloride = Crystal(4.1 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    zinc_blende = Crystal(rock_salt.lattice, [[0, 0, 0], [0.25, 0.25, 0.25]], [11, 17])
    crystals = [rock_salt, caesium_chloride, zinc_blende]
    for i, first in enumerate(crystals):
        for j, second in enumerate(crystals):
            assert is_same_structure(first, redescribed(second, 7)) == (i == j)


def test_two_atoms_with_one_nearest_partner_are_paired_off():
    """Both oxygens of the first are nearest to the same one of the second; only the assignment finds the pairs."""
    base = [[0, 0, 0], [0.45, 0.5, 0.5], [0.55, 0.5, 0.5]]
    moved = [[0, 0, 0], [0.54, 0.5, 0.5], [0.65, 0.5, 0.5]]
    first = Crystal(np.diag([10.0, 4.0, 5.0]), base, [14, 8, 8])
    second = Crystal(np.diag([10.0, 4.0, 5.0]), moved, [14, 8, 8])
    match = match_structures(reduce_crystal(first), reduce_crystal(second))
    assert match is not None
    spacing = first.volume_per_atom ** (1 / 3)
    assert match.largest * spacing == pytest.approx(1.9 / 3, abs=1e-6)


def test_mappings_of_a_cubic_lattice_onto_itself_are_its_48_operations():
    mappings = lattice_mappings(3 * np.eye(3), 3 * np.eye(3), length_tolerance=0.01, angle_tolerance=1.0)
    assert len(np.unique(mappings, axis=0)) == len(mappings) == 48
    assert (np.abs(np.linalg.det(mappings)).round() == 1).all()
    np.testing.assert_array_equal(mappings[0::2], -mappings[1::2])
    tetragonal = np.diag([3.0, 3.0, 3.3])
    found = lattice_mappings(tetragonal, 3 * np.eye(3), length_tolerance=0.2, angle_tolerance=5.0)
    assert len(found) == 48
    assert len(lattice_mappings(tetragonal, tetragonal, length_tolerance=0.01, angle_tolerance=1.0)) == 16
    assert len(lattice_mappings(tetragonal, 2 * np.eye(3), length_tolerance=0.2, angle_tolerance=5.0)) == 0


def test_tolerances_must_be_positive():
    with pytest.raises(SettingsError, match="site=0"):
        MatchTolerances(site=0)


def test_agrees_with_pymatgen_on_real_polymorphs(shared_data):
    """Same formula, other entry; the disagreements are at the tolerance, or duplicates that pymatgen overlooks."""
    matcher = pytest.importorskip("pymatgen.core.structure_matcher").StructureMatcher()
    table = CrystalTable.from_arrow(pq.read_table(shared_data / "mp_crystals.parquet"))
    by_formula: dict[str, list[int]] = {}
    for row, (formula, n_atoms) in enumerate(zip(table.reduced_formulas, table.n_atoms, strict=True)):
        if n_atoms <= 12:
            by_formula.setdefault(formula, []).append(row)
    pairs = [(rows[0], rows[1]) for rows in by_formula.values() if len(rows) > 1]
    chosen = np.random.default_rng(0).choice(len(pairs), 150, replace=False)
    agreed, both = 0, 0
    for first, second in (pairs[i] for i in chosen):
        a, b = table[first], table[second]
        ours = is_same_structure(a, b)
        p, q = to_pymatgen(a), to_pymatgen(b)
        theirs = bool(matcher.fit(p, q) or matcher.fit(q, p))
        agreed += ours == theirs
        both += ours and theirs
    assert agreed >= 148
    assert both >= 5
