"""Stability regions, critical potentials and gas reservoirs, against pymatgen and against published tables."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from question_systems import (
    fraction_matrix,
    random_compositions,
    random_entries,
    read_entries,
    tied_systems,
    to_pd_entries,
)

from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull import Hull
from opengnome.hull.chemical_potentials import (
    critical_chemical_potentials,
    equilibrium_vertices,
    gas_potential_shift,
    phases_inside,
    stability_region,
    stability_regions,
)

CLOSE = 1e-8
FLOOR = -40.0  # pymatgen closes open regions with a box; far below every vertex

quick = settings(max_examples=20, deadline=None, derandomize=True)


def vertex_difference(entries) -> float:
    """Largest distance, over all phases, of a vertex of ours to the nearest of pymatgen's and the other way round."""
    from pymatgen.analysis.chempot_diagram import ChemicalPotentialDiagram

    hull = Hull(entries)
    elements = sorted(hull.elemental_references)
    diagram = ChemicalPotentialDiagram(to_pd_entries(entries), default_min_limit=FLOOR, formal_chempots=False)
    columns = [[element.Z for element in diagram.elements].index(z) for z in elements]
    regions = {region.entry.reduced_formula: region for region in stability_regions(hull, elements)}
    assert regions.keys() == diagram.domains.keys()
    largest = 0.0
    for formula, region in regions.items():
        theirs = diagram.domains[formula][:, columns]
        distances = np.abs(theirs[(theirs > FLOOR + 1e-3).all(axis=1)][:, None] - region.vertices).max(axis=2)
        largest = max(largest, distances.min(axis=0).max(), distances.min(axis=1).max())
    return largest


@pytest.mark.parametrize("n_elements", [2, 3, 4, 5])
def test_regions_equal_pymatgen_on_random_systems(n_elements):
    assert vertex_difference(random_entries(n_elements, 4 * n_elements, seed=n_elements)) < CLOSE


@pytest.mark.parametrize("name", ["alexandria_Li-P-S", "alexandria_Li-Co-O"])
def test_regions_equal_pymatgen_on_published_systems(shared_data, name):
    assert vertex_difference(read_entries(shared_data, name)) < CLOSE


@pytest.mark.parametrize("name", ["alexandria_Li-P-S", "Li-Fe-O"])
def test_critical_potentials_equal_pymatgen(shared_data, phase_diagram, name):
    from pymatgen.core import Element

    entries = read_entries(shared_data, name)
    hull, diagram = Hull(entries), phase_diagram(entries)
    for z in hull.elemental_references:
        theirs = sorted(diagram.get_transition_chempots(Element.from_Z(z)))
        ours = critical_chemical_potentials(hull, z, hull.elemental_references)
        assert ours == pytest.approx(theirs, abs=CLOSE)
        assert ours[-1] == pytest.approx(hull.elemental_references[z], abs=CLOSE)


def test_defect_limits_equal_pymatgen(shared_data, phase_diagram):
    from pymatgen.core import Composition, Element

    entries = read_entries(shared_data, "alexandria_Li-Co-O")
    hull = Hull(entries)
    oxide = next(entry for entry in hull.stable_entries() if entry.reduced_formula == "LiCoO2")
    region = stability_region(hull, oxide)
    theirs = phase_diagram(entries).get_chempot_range_stability_phase(Composition("LiCoO2"), Element("O"))
    assert region.limits(8) == pytest.approx(theirs[Element("O")], abs=CLOSE)
    assert region.unbounded == ()


@quick
@given(tied_systems())
def test_vertices_are_below_every_phase_and_give_the_hull(entries):
    hull = Hull(entries)
    elements = tuple(hull.elemental_references)
    fractions, energies = fraction_matrix(hull, elements)
    vertices = equilibrium_vertices(phases_inside(hull, elements))
    heights = energies[:, None] - fractions @ vertices.T
    assert heights.min() > -CLOSE
    for column in heights.T:  # a vertex is the one point that all its phases have in common
        assert np.linalg.matrix_rank(fractions[column < CLOSE]) == len(elements)
    for composition in random_compositions(elements, 5, seed=1):
        x = np.array([composition.fractions.get(z, 0.0) for z in elements])
        assert (vertices @ x).max() == pytest.approx(hull.energy_per_atom_at(composition), abs=CLOSE)


@quick
@given(tied_systems(smallest=2))
def test_both_engines_give_the_same_vertices(entries):
    from opengnome.hull.chemical_potentials import _distinct_rows, _double_description

    phases = phases_inside(Hull(entries), {z for e in entries for z in e.composition.atomic_numbers})
    depths = phases.fractions @ phases.references - phases.energies
    below = depths > 1e-11
    ours = _distinct_rows(phases.references - _double_description(phases.fractions[below], depths[below]))
    vertices = equilibrium_vertices(phases)
    assert len(ours) == len(vertices)
    assert np.abs(ours[:, None] - vertices).max(axis=2).min(axis=0).max() < CLOSE


def test_a_degenerate_vertex_brings_no_others():
    from opengnome.hull.chemical_potentials import _double_description

    # Every 1:1 compound of six elements, and all six together, 1 eV/atom deep: one point where 16 phases meet,
    # and six with one element at its own energy and the others 2 eV below theirs.
    pairs = [np.isin(range(6), pair) / 2 for pair in combinations(range(6), 2)]
    vertices = _double_description(np.vstack([*pairs, np.full(6, 1 / 6)]), np.ones(16))
    expected = np.vstack([np.ones(6), 2.0 - 2.0 * np.eye(6)])
    assert vertices.shape == (7, 6)
    assert np.abs(vertices[:, None] - expected).max(axis=2).min(axis=0).max() < CLOSE


@quick
@given(tied_systems())
def test_regions_hold_exactly_the_phases_in_equilibrium(entries):
    hull = Hull(entries)
    by_id = {entry.id: entry for entry in entries}
    for region in stability_regions(hull, hull.elemental_references):
        assert hull.energy_above_hull(region.entry) == pytest.approx(0.0, abs=CLOSE)
        for mu, ids in zip(region.vertices, region.coexisting, strict=True):
            assert region.entry.id in ids
            for phase in (by_id[i] for i in ids):
                potential = sum(phase.composition.fractions.get(z, 0.0) * m for z, m in zip(region.elements, mu))
                assert potential == pytest.approx(phase.energy_per_atom, abs=CLOSE)


@pytest.mark.parametrize("n_elements", [7, 8])
def test_many_elements_have_vertices_too(n_elements):
    hull = Hull(random_entries(n_elements, 25, seed=n_elements))
    elements = tuple(hull.elemental_references)
    phases = phases_inside(hull, elements)
    vertices = equilibrium_vertices(phases)
    heights = phases.energies[:, None] - phases.fractions @ vertices.T
    assert heights.min() > -CLOSE
    assert (heights < CLOSE).sum(axis=0).min() >= n_elements
    for composition in random_compositions(elements, 5, seed=1):
        x = np.array([composition.fractions.get(z, 0.0) for z in elements])
        assert (vertices @ x).max() == pytest.approx(hull.energy_per_atom_at(composition), abs=CLOSE)


def test_the_region_of_an_oxide_by_hand(lithium_iron_oxides):
    lithia = next(entry for entry in lithium_iron_oxides.entries if entry.id == "li2o")
    region = stability_region(lithium_iron_oxides, lithia)
    depth = 3 * -4.9 - 2 * -1.9 - -4.9  # eV per formula unit, below the elements
    assert region.vertices - region.references == pytest.approx(np.array([[depth / 2, 0.0], [0.0, depth]]))
    assert region.coexisting == (("li2o", "o"), ("li", "li2o"))
    with_iron = stability_region(lithium_iron_oxides, lithia, elements=[26])
    assert with_iron.unbounded == (26,)
    assert with_iron.limits(26) == (-math.inf, pytest.approx(-8.3))
    with pytest.raises(HullError, match="Co is not among the elements Li, O"):
        region.limits(27)


def test_a_new_phase_is_added_first_and_one_above_the_hull_has_no_region(lithium_iron_oxides, entry):
    assert len(stability_region(lithium_iron_oxides, entry("new", "Li5FeO4", -6.0)).vertices) >= 3
    with pytest.raises(HullError, match=r"'feo-high' \(FeO\) lies 3\.05 eV/atom above the hull"):
        stability_region(lithium_iron_oxides, lithium_iron_oxides.entries[-1])
    with pytest.raises(MissingReferenceError, match="Co"):
        stability_regions(lithium_iron_oxides, [3, 27])
    with pytest.raises(HullError, match="P is not among"):
        critical_chemical_potentials(lithium_iron_oxides, 15, [3, 8])


# -(G(T) - H(0 K)) / T of the molecule at 0.1 MPa, J/mol/K: NIST-JANAF tables (Chase 1998), from S(T) and H(T) - H(0).
JANAF = [
    (1, 298.15, 130.680, 8.467),
    (7, 298.15, 191.609, 8.670),
    (8, 298.15, 205.147, 8.683),
    (9, 298.15, 202.789, 8.825),
    (17, 298.15, 223.079, 9.181),
    (1, 1000.0, 166.216, 8.467 + 20.680),
    (7, 1000.0, 228.170, 8.670 + 21.463),
    (8, 1000.0, 243.578, 8.683 + 22.703),
]


@pytest.mark.parametrize(("element", "temperature", "entropy", "enthalpy"), JANAF)
def test_gases_agree_with_the_janaf_tables(element, temperature, entropy, enthalpy):
    kj_per_mol_in_ev = 1.0 / 96.48533
    tabulated = 0.5 * (enthalpy - temperature * entropy / 1000.0) * kj_per_mol_in_ev
    assert gas_potential_shift(element, temperature, 1e5) == pytest.approx(tabulated, abs=1e-3)


@pytest.mark.parametrize(("temperature", "shift"), [(300, -0.27), (600, -0.61), (1000, -1.10)])
def test_oxygen_agrees_with_reuter_and_scheffler(temperature, shift):
    assert gas_potential_shift(8, temperature, 101325.0) == pytest.approx(shift, abs=6e-3)


def test_a_gas_at_lower_pressure_or_higher_temperature_has_a_lower_potential():
    decade = gas_potential_shift(8, 300.0, 1e5) - gas_potential_shift(8, 300.0, 1e4)
    assert decade == pytest.approx(0.5 * 8.617333e-5 * 300.0 * math.log(10.0), rel=1e-6)
    assert gas_potential_shift(8, 400.0, 1e5) < gas_potential_shift(8, 300.0, 1e5)
    with pytest.raises(HullError, match="choose from H, N, O, F, Cl"):
        gas_potential_shift(3, 300.0, 1e5)
    with pytest.raises(HullError, match="positive"):
        gas_potential_shift(8, 0.0, 1e5)
    with pytest.raises(HullError, match="positive"):
        gas_potential_shift(8, 300.0, math.inf)
