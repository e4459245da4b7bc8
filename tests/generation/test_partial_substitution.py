from itertools import combinations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from opengnome.crystals import Crystal, CrystalTable, supercell, with_atomic_numbers
from opengnome.crystals.symmetry import space_group_number
from opengnome.generation import GenerationSettings, generate
from opengnome.generation.ions import species_table
from opengnome.generation.parent import ionic_parent
from opengnome.generation.partial import expanded_parents, groupings, partial_substitutions
from opengnome.generation.probabilities import PAPER

ONLY_PARTIAL = GenerationSettings(
    methods=("partial_substitution",), max_partial_per_parent=10_000, excluded_elements=()
)


def face_centred_supercell(crystal: Crystal) -> Crystal:
    """The cell of a primitive cubic crystal spanned by its three face diagonals: two formula units."""
    vectors = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    frac = np.concatenate([crystal.frac_coords, crystal.frac_coords + np.array([1, 0, 0])]) @ np.linalg.inv(vectors)
    return Crystal(vectors @ crystal.lattice, frac % 1, np.tile(crystal.atomic_numbers, 2))


@pytest.fixture
def double_cell(perovskite):
    return face_centred_supercell(perovskite)


def test_double_perovskite_comes_from_the_perovskite(double_cell):
    parents = CrystalTable.from_crystals([double_cell], ["SrTiO3"])
    result = generate(parents, ONLY_PARTIAL, known_formulas=frozenset({"SrTiO3"}), seed=0)
    rows = [i for i, r in enumerate(result.table.column("replaced")) if r == "Ti4+->Zr4+ (1 of 2)"]
    assert len(rows) == 1  # the two titanium sites are one by symmetry
    crystal = result.table[rows[0]]
    assert crystal.reduced_formula == "Sr2ZrTiO6"
    assert space_group_number(crystal) == 225  # rock-salt order of Ti and Zr
    assert crystal.volume > double_cell.volume  # zirconium is larger than titanium
    assert result.table.column("parent_ids")[rows[0]] == ["SrTiO3"]
    assert result.table.ids[rows[0]].startswith("saps-Sr2ZrTiO6-")


def test_double_perovskites_of_the_primitive_cell(perovskite):
    """In supercells of two cells titanium orders as in rock salt, in columns, or in layers."""
    parents = CrystalTable.from_crystals([perovskite], ["SrTiO3"])
    settings = ONLY_PARTIAL.model_copy(update={"supercell_size": 2})
    result = generate(parents, settings, known_formulas=frozenset({"SrTiO3"}), seed=0)
    rows = [i for i, r in enumerate(result.table.column("replaced")) if r == "Ti4+->Zr4+ (1 of 2)"]
    assert {space_group_number(result.table[i]) for i in rows} == {225, 123}
    assert len(rows) == 3
    assert result.counts["proposed"] == result.counts["kept"] + sum(
        n for name, n in result.counts.items() if name not in ("proposed", "kept")
    )


def test_rock_salt_orders_in_layers(rock_salt):
    """Half of the cations of the primitive cell: layers along (111) as in LiCoO2, or along (100)."""
    settings = ONLY_PARTIAL.model_copy(update={"supercell_size": 2})
    result = generate(CrystalTable.from_crystals([rock_salt]), settings, known_formulas=frozenset(), seed=0)
    rows = [i for i, r in enumerate(result.table.column("replaced")) if r == "Na1+->Li1+ (1 of 2)"]
    assert sorted(space_group_number(result.table[i]) for i in rows) == [123, 166]


def test_what_a_smaller_cell_gives_is_not_made_again(perovskite):
    """Two of six oxygens in a doubled cell: none that repeats one of three in the single cell."""
    parent = ionic_parent(perovskite, "p")
    oxygen = parent.ions.tolist().index(species_table().index["O2-"])
    for cell in expanded_parents(parent, size=2, max_atoms=20, symprec=0.01):
        everything = groupings(cell, symprec=0.01, max_subsets=1000).choose(oxygen, 2)
        new = groupings(cell, symprec=0.01, max_subsets=1000, expanded_from=perovskite.lattice).choose(oxygen, 2)
        matcher = StructureMatcher(primitive_cell=True, scale=False)
        small = [len(matcher._get_reduced_structure(decorated(cell.crystal, c))) == 5 for c in everything]
        assert len(new) == len(everything) - sum(small) > 0
        assert sum(small) > 0


def test_single_cell_has_no_partial_titanium(perovskite):
    parents = CrystalTable.from_crystals([perovskite])
    with_full = ONLY_PARTIAL.model_copy(update={"methods": ("ionic_substitution", "partial_substitution")})
    for settings, expected in ((ONLY_PARTIAL, True), (with_full, False)):
        result = generate(parents, settings, known_formulas=frozenset(), seed=0)
        partial = [
            replaced
            for replaced, method in zip(result.table.column("replaced"), result.table.column("method"), strict=True)
            if method == "partial_substitution"
        ]
        assert ("Ti4+->Zr4+" in partial) == expected  # all of one atom: full substitution, made once
        assert not any("1 of 1" in replaced for replaced in partial)


def test_groupings_are_the_distinct_crystals(perovskite):
    """Fluorine on 2 of 6 oxygens: as many groupings as StructureMatcher finds distinct crystals."""
    parent = ionic_parent(supercell(perovskite, (2, 1, 1)), "p")
    oxygen = parent.ions.tolist().index(species_table().index["O2-"])
    groups = groupings(parent, symprec=0.01, max_subsets=1000)
    sites = np.flatnonzero(parent.ion_of_site == oxygen)
    for count in (1, 2, 3):
        chosen = groups.choose(oxygen, count)
        assert len(chosen) == groups.numbers(oxygen)[count]
        assert np.isin(chosen, sites).all()
        structures = [decorated(parent.crystal, c) for c in chosen]
        everything = [decorated(parent.crystal, c) for c in all_subsets(sites, count)]
        matcher = StructureMatcher(primitive_cell=False, attempt_supercell=False, scale=False)
        assert len(matcher.group_structures(structures)) == len(structures)
        assert len(matcher.group_structures(everything)) == len(structures)


def decorated(crystal, sites):
    numbers = crystal.atomic_numbers.copy()
    numbers[sites] = 9
    return Structure(Lattice(crystal.lattice), numbers.tolist(), crystal.frac_coords)


def all_subsets(sites, count):
    return [np.array(c) for c in combinations(sites.tolist(), count)]


def test_rock_salt_gives_its_layered_orders():
    """Half of Mg replaced in MgO: alpha-NaFeO2 (layers along 111, L1_1) and L1_0 (layers along 001), once each.

    A 2x1x1 cell of the primitive vectors holds only the first; 2x2x1 holds both.
    """
    vectors = 4.21 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    primitive = Crystal(vectors, [[0, 0, 0], [0.5, 0.5, 0.5]], [12, 8])
    for repeats, space_groups in (((2, 1, 1), [166]), ((2, 2, 1), [123, 166])):
        parent = ionic_parent(supercell(primitive, repeats), "MgO")
        magnesium = parent.ions.tolist().index(species_table().index["Mg2+"])
        groups = groupings(parent, symprec=0.01, max_subsets=100)
        crystals = []
        for sites in groups.choose(magnesium, repeats[0] * repeats[1] // 2):
            numbers = parent.crystal.atomic_numbers.copy()
            numbers[sites] = 28
            crystals.append(with_atomic_numbers(parent.crystal, numbers))
        assert sorted(space_group_number(crystal) for crystal in crystals) == space_groups


def test_candidate_replacements_are_the_likely_single_ions(double_cell):
    parent = ionic_parent(double_cell, "p")
    table = species_table()
    proposals = partial_substitutions(parent, threshold=1e-3, model=PAPER, include_all=False)
    probabilities = PAPER.conditional_probabilities()
    ti = parent.ions.tolist().index(table.index["Ti4+"])
    targets = set(proposals.targets[proposals.ions == ti].tolist())
    expected = {
        i
        for i in np.flatnonzero(probabilities[:, table.index["Ti4+"]] > 1e-3).tolist()
        if table.atomic_numbers[i] != 22
    }
    assert targets == expected
    assert (proposals.counts < parent.ion_counts[proposals.ions]).all()
    assert (proposals.counts >= 1).all()
    species, counts = proposals.compositions()
    assert (counts.sum(axis=1) == double_cell.n_atoms).all()
    assert species.shape == counts.shape == (len(proposals), 4)


def test_whole_orbits_keep_the_space_group(double_cell):
    """Oxygen is one orbit of six atoms here, strontium and titanium are orbits of two."""
    parents = CrystalTable.from_crystals([double_cell], ["SrTiO3"])
    settings = ONLY_PARTIAL.model_copy(update={"whole_orbits": True, "charge_balanced": False})
    result = generate(parents, settings, known_formulas=frozenset({"SrTiO3"}), seed=0)
    assert len(result.table) > 20
    assert {space_group_number(crystal) for crystal in result.table} == {221}
    assert not any("of" in replaced for replaced in result.table.column("replaced"))
