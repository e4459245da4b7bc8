import itertools
from dataclasses import replace

import numpy as np
import pytest

from opengnome.crystals.composition import Composition
from opengnome.crystals.symmetry import space_group_number, symmetry_dataset
from opengnome.errors import InvalidCrystalError, SettingsError
from opengnome.generation import random_packing, random_structures
from opengnome.generation.minimum_distances import minimum_distances
from opengnome.generation.radii import COVALENT_RADII
from opengnome.generation.random_buildcell import buildcell_seed
from opengnome.generation.random_settings import RandomStructureSettings
from opengnome.generation.random_structures import (
    composition_rules,
    keeps_coming_back,
    random_crystals,
    random_structure_shards,
)
from opengnome.generation.volume_estimate import volume_estimate
from opengnome.generation.wyckoff import space_group
from opengnome.settings import load, to_toml, validate

SETTINGS = RandomStructureSettings()
FORMULAS = ("NaCl", "SrTiO3", "LiFePO4", "YBa2Cu3O7", "Si", "Bi2Te3")
N = 24


def composition(formula):
    return Composition.from_formula(formula)


@pytest.fixture(scope="module", params=FORMULAS)
def made(request):
    return composition(request.param), random_crystals(composition(request.param), SETTINGS, seed=7, stop=N)


def shortest_over_minimum(crystal, minimum):
    """Smallest ratio of a distance to the minimum of its pair, over images in a block of 5 x 5 x 5 cells."""
    cells = np.array(list(itertools.product(range(-2, 3), repeat=3)))
    positions = crystal.positions
    steps = positions[None, :, None] + (cells @ crystal.lattice)[None, None] - positions[:, None, None]
    distances = np.linalg.norm(steps, axis=-1)
    distances[distances < 1e-9] = np.inf  # the atom itself; two atoms at one place would fail the volume tests
    element = np.searchsorted(np.unique(crystal.atomic_numbers), crystal.atomic_numbers)
    return (distances.min(axis=2) / minimum[element[:, None], element[None, :]]).min()


def test_every_number_gives_a_crystal_of_the_composition(made):
    formula, table = made
    assert table.column("number") == list(range(N))
    for crystal, n_units in zip(table, table.column("n_formula_units"), strict=True):
        assert crystal.composition.counts == tuple((z, n * n_units) for z, n in formula.reduced.counts)
        assert crystal.n_atoms <= SETTINGS.max_atoms


def test_no_two_atoms_are_closer_than_asked(made):
    formula, table = made
    contacts = minimum_distances(formula.atomic_numbers, fraction=1.0)
    radii = COVALENT_RADII[list(formula.atomic_numbers)]
    for crystal, scale in zip(table, table.column("asked_volume_scale"), strict=True):
        shrunk = SETTINGS.distance_fraction * contacts * min(1.0, scale) ** (1 / 3)
        minimum = np.maximum(shrunk, SETTINGS.min_covalent_fraction * (radii[:, None] + radii))
        assert shortest_over_minimum(crystal, minimum) >= 1 - 1e-9


def test_symmetry_is_the_asked_one_or_higher(made):
    _, table = made
    for crystal, asked in zip(table, table.column("asked_space_group"), strict=True):
        found = symmetry_dataset(crystal, symprec=1e-4)
        # The asked group maps the crystal onto itself, so it is a subgroup of the found one.
        assert len(found.rotations) % len(space_group(asked)) == 0


def test_volumes_are_the_estimate_times_the_scale(made):
    formula, table = made
    estimate = volume_estimate(formula).volume_per_atom
    scales, asked = np.array(table.column("volume_scale")), np.array(table.column("asked_volume_scale"))
    assert [c.volume_per_atom / estimate for c in table] == pytest.approx(scales.tolist())
    assert (scales >= asked * (1 - 1e-9)).all()
    regular = np.array(table.column("n_attempts")) <= SETTINGS.max_attempts
    assert (scales[regular] <= SETTINGS.max_growth * asked[regular] * (1 + 1e-6)).all()


def test_a_crystal_does_not_depend_on_its_batch():
    whole = random_crystals(composition("CaF2"), SETTINGS, seed=3, stop=30)
    parts = [
        random_crystals(composition("Ca2F4"), SETTINGS, seed=3, start=a, stop=b)
        for a, b in ((0, 1), (1, 4), (4, 23), (23, 30))
    ]
    rows = [(table, i) for table in parts for i in range(len(table))]
    assert len(rows) == 30
    for i, (table, row) in enumerate(rows):
        assert table[row] == whole[i]  # to the last bit
        assert table.ids[row] == whole.ids[i]
        for name in whole.column_names[6:]:
            assert table.column(name)[row] == whole.column(name)[i]


def test_seeds_and_compositions_have_their_own_streams():
    tables = [
        random_crystals(composition(formula), SETTINGS, seed=seed, stop=5)
        for formula, seed in (("NaCl", 0), ("NaCl", 1), ("KCl", 0))
    ]
    assert len({tuple(t.column("asked_volume_scale")) for t in tables}) == 3
    assert len({i for t in tables for i in t.ids}) == 15


def test_the_scan_of_volumes_is_even():
    table = random_crystals(composition("Si"), SETTINGS, seed=0, stop=40)
    counts, _ = np.histogram(table.column("asked_volume_scale"), bins=8, range=SETTINGS.volume_scales)
    assert counts.sum() == 40
    assert counts.min() >= 3
    assert set(table.column("n_formula_units")) == {1, 2, 3, 4}


def test_the_share_of_p1_is_kept():
    for share, expected in ((0.0, 0), (0.25, 10), (1.0, 40)):
        settings = RandomStructureSettings(p1_share=share)
        groups = random_crystals(composition("NaCl"), settings, seed=0, stop=40).column("asked_space_group")
        assert abs(groups.count(1) - expected) <= 2 * (0 < share < 1)


def test_only_allowed_groups_are_used():
    settings = RandomStructureSettings(p1_share=0, space_groups=(62, 221, 225), max_formula_units=1)
    table = random_crystals(composition("SrTiO3"), settings, seed=0, stop=8)
    # One formula unit fits Pm-3m only: Pnma needs four, and Fm-3m has no three oxygen sites beside two points.
    assert set(table.column("asked_space_group")) == {221}
    assert {space_group_number(crystal) for crystal in table} == {221}


def test_known_structures_are_among_the_random_ones():
    """Rock salt, caesium chloride and zinc blende or their like come up by chance."""
    settings = RandomStructureSettings(p1_share=0, space_groups=(225, 221, 216), max_formula_units=1)
    table = random_crystals(composition("NaCl"), settings, seed=0, stop=12)
    assert {space_group_number(crystal) for crystal in table} == {216, 221, 225}


def test_given_distances_hold_in_small_cells_too():
    settings = RandomStructureSettings(min_distances={"Na-Cl": 2.7}, volume_scales=(0.5, 0.5))
    table = random_crystals(composition("NaCl"), settings, seed=0, stop=8)
    minimum = composition_rules(composition("NaCl"), settings).min_distances_at(0.5)
    assert minimum[0, 1] == minimum[1, 0] == 2.7
    assert minimum[0, 0] < composition_rules(composition("NaCl"), settings).min_distances_at(1.0)[0, 0]
    assert all(shortest_over_minimum(crystal, minimum) >= 1 - 1e-9 for crystal in table)


def test_the_last_resort_always_gives_a_crystal():
    """Distances that no cell of the volume asked for can hold."""
    settings = RandomStructureSettings(max_growth=1.0, max_attempts=2, distance_fraction=1.5, p1_share=0)
    table = random_crystals(composition("TiO2"), settings, seed=0, stop=6)
    assert len(table) == 6
    resorted = np.array(table.column("n_attempts")) == 3
    assert resorted.any()
    assert (np.array(table.column("asked_space_group"))[resorted] == 1).all()
    rules = composition_rules(composition("TiO2"), settings)
    for crystal, scale in zip(table, table.column("asked_volume_scale"), strict=True):
        assert shortest_over_minimum(crystal, rules.min_distances_at(scale)) >= 1 - 1e-9


def test_large_cells_are_packed_in_small_batches():
    """Memory is bounded by pairs of atoms; the crystals are the same all the same."""
    recipe = random_structures._Recipe.of(composition("Si"), RandomStructureSettings(), 0)
    assert recipe.batch_size() == random_structures._BATCH
    settings = RandomStructureSettings(min_formula_units=150, max_formula_units=150, max_atoms=150)
    assert random_structures._Recipe.of(composition("Si"), settings, 0).batch_size() < 10
    table = random_crystals(composition("Si"), settings, seed=0, stop=2)
    assert table.n_atoms.tolist() == [150, 150]


def test_packing_leaves_crystals_that_fit_as_they_are(monkeypatch):
    """At huge volumes nothing overlaps, so that the sites are the ones drawn."""
    steps = []
    minimise = random_packing._minimise
    monkeypatch.setattr(random_packing, "_minimise", lambda *args: steps.append(1) or minimise(*args))
    settings = RandomStructureSettings(volume_scales=(10000.0, 10000.0), p1_share=1.0)
    table = random_crystals(composition("NaCl"), settings, seed=0, stop=4)
    assert table.column("volume_scale") == [10000.0] * 4
    assert steps == []


@pytest.mark.parametrize("number", [2, 12, 62, 166, 221])
def test_forces_are_those_of_the_whole_crystal(number):
    """Of the first atom of an orbit: minus the derivative of the crystal's energy, per atom of the orbit."""
    settings = RandomStructureSettings(p1_share=0, space_groups=(number,), volume_scales=(0.8, 0.8))
    recipe = random_structures._Recipe.of(composition("SrTiO3"), settings, 5)
    drafts = [random_structures._draft(recipe, n, 1) for n in range(4)]
    packing = random_structures._packing(recipe, [d for d in drafts if d.group.number == number])
    contacts = random_packing._find_contacts(packing)
    sigma = contacts.smallest * random_packing._MARGIN
    forces = random_packing._forces(packing, packing.positions, contacts, sigma)
    rng = np.random.default_rng(0)
    direction = random_packing.apply_rows(packing.projectors, rng.standard_normal(packing.positions.shape))
    step = 1e-5
    change = (
        whole_energies(replace(packing, positions=packing.positions + step * direction))
        - whole_energies(replace(packing, positions=packing.positions - step * direction))
    ) / (2 * step)
    work = packing.orbit_sizes * (forces * direction).sum(axis=1)
    expected = -np.bincount(packing.orbit_crystals, work, len(packing))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(change, expected, rtol=1e-5, atol=1e-5)


def whole_energies(packing):
    """Half the sum over all pairs of (sigma - d)^2 of each crystal, from all its atoms and their images."""
    energies = []
    atoms, crystals = packing.atoms(), packing.orbit_crystals[packing.atom_orbits]
    elements = packing.orbit_elements[packing.atom_orbits]
    for crystal in range(len(packing)):
        own = crystals == crystal
        cells = np.array(list(itertools.product(range(-4, 5), repeat=3))) @ packing.lattices[crystal]
        steps = atoms[own][None, :, None] + cells - atoms[own][:, None, None]
        distances = np.linalg.norm(steps, axis=-1)
        distances[distances < 1e-9] = np.inf
        sigma = packing.min_distances[crystal][elements[own][:, None], elements[own]] * random_packing._MARGIN
        overlaps = np.maximum(sigma[:, :, None] - distances, 0.0)
        energies.append(0.25 * np.square(overlaps).sum())
    return np.array(energies)


def test_shards_resume_where_they_stopped():
    compositions = [composition(f) for f in ("NaCl", "MgO", "ZnS")]
    shards = list(random_structure_shards(compositions, SETTINGS, seed=1, per_composition=3))
    resumed = list(random_structure_shards(compositions, SETTINGS, seed=1, per_composition=3, first_shard=1))
    assert [len(s) for s in shards] == [3, 3, 3]
    assert [s.ids for s in shards[1:]] == [s.ids for s in resumed]


def test_stopping_when_the_minimum_keeps_coming_back():
    energies = [-1.0, -1.3, float("nan"), -1.302, -1.1, -1.301]
    assert keeps_coming_back(energies, tolerance=0.005, times=3)
    assert not keeps_coming_back(energies, tolerance=0.0005, times=2)
    assert not keeps_coming_back([*energies, -1.4], tolerance=0.005, times=3)
    assert not keeps_coming_back([float("inf")], tolerance=1.0, times=1)
    with pytest.raises(SettingsError, match="times"):
        keeps_coming_back(energies, tolerance=0.1, times=0)


def test_seed_file_for_buildcell():
    settings = RandomStructureSettings(volume_per_atom=12.0, min_distances={"O-Ti": 1.6}, volume_scales=(0.5, 1.0))
    lines = buildcell_seed(composition("SrTiO3"), settings).splitlines()
    assert "#TARGVOL=30.00-60.00" in lines  # five atoms
    assert "#NFORM=1-4" in lines
    assert "#SYMMOPS=1-48" in lines
    block = lines[lines.index("%BLOCK POSITIONS_FRAC") + 1 : lines.index("%ENDBLOCK POSITIONS_FRAC")]
    assert sorted(line.split()[0] for line in block) == ["O", "O", "O", "Sr", "Ti"]
    separations = next(line for line in lines if line.startswith("#MINSEP="))
    assert "O-Ti=1.60 " in separations + " "
    assert len(separations.split()) == 1 + 6
    only_p1 = buildcell_seed(composition("Si"), RandomStructureSettings(p1_share=1.0))
    assert "#SYMMOPS=1\n" in only_p1
    named = buildcell_seed(composition("Si"), RandomStructureSettings(space_groups=(227, 194)))
    assert "#SYMMNO=194,227\n" in named


@pytest.mark.parametrize(
    ("settings", "formula", "error", "match"),
    [
        ({"max_atoms": 4}, "SrTiO3", SettingsError, "max_atoms"),
        ({}, "RnF2", InvalidCrystalError, "'Rn'"),
        ({"min_distances": {"NaCl": 2.0}}, "NaCl", InvalidCrystalError, "pair of elements"),
    ],
)
def test_what_cannot_be_made_is_refused(settings, formula, error, match):
    with pytest.raises(error, match=match):
        random_crystals(composition(formula), RandomStructureSettings(**settings), seed=0, stop=1)


def test_a_range_of_numbers_must_be_one():
    assert len(random_crystals(composition("NaCl"), SETTINGS, seed=0, start=3, stop=3)) == 0
    with pytest.raises(SettingsError, match="start"):
        random_crystals(composition("NaCl"), SETTINGS, seed=0, start=4, stop=3)


@pytest.mark.parametrize(
    "data",
    [
        {"space_groups": [0]},
        {"space_groups": []},
        {"volume_scales": [1.2, 0.4]},
        {"min_formula_units": 5},
        {"p1_share": 1.5},
        {"unknown": 1},
    ],
)
def test_wrong_settings_are_refused(data):
    with pytest.raises(SettingsError):
        validate(RandomStructureSettings, data)


def test_settings_survive_their_file(tmp_path):
    settings = RandomStructureSettings(min_distances={"Na-Cl": 2.4}, space_groups=(225,))
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(settings))
    assert load(RandomStructureSettings, path) == settings
