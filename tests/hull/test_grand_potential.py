"""Grand-potential hulls, element profiles and electrochemical windows, against pymatgen and a plain linear program."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from question_systems import (
    random_compositions,
    random_entries,
    read_entries,
    tied_systems,
    to_pd_entries,
    to_pymatgen,
)
from scipy.optimize import linprog

from opengnome.crystals import Composition
from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull import Entry, Hull
from opengnome.hull.chemical_potentials import AIR_OXYGEN_PRESSURE
from opengnome.hull.grand_potential import GrandPotentialHull, electrochemical_window, element_profile
from opengnome.hull.reactions import formula_unit

CLOSE = 1e-8

quick = settings(max_examples=15, deadline=None, derandomize=True)


def formula(text: str) -> Composition:
    return Composition.from_formula(text)


def open_hull(hull: Hull, open_elements, *, depth: float) -> GrandPotentialHull:
    """The hull with reservoirs `depth` below the lowest potential at which they would react with one another."""
    return GrandPotentialHull.relative_to_elements(hull, dict.fromkeys(open_elements, -depth))


def largest_difference(entries: list[Entry], open_elements, *, depth: float) -> float:
    """Of distances, reaction energies and stable sets from pymatgen's GrandPotentialPhaseDiagram."""
    from pymatgen.analysis.phase_diagram import GrandPotentialPhaseDiagram
    from pymatgen.core import Element

    hull, by_id = Hull(entries), {entry.id: entry for entry in entries}
    reservoir = open_hull(hull, open_elements, depth=depth)
    potentials = {Element.from_Z(z): mu for z, mu in reservoir.chemical_potentials.items()}
    diagram = GrandPotentialPhaseDiagram(to_pd_entries(entries), potentials)
    ours = [by_id[entry.name] for entry in diagram.all_entries]
    theirs = np.array([diagram.get_e_above_hull(entry) for entry in diagram.all_entries])
    distances = reservoir.distances_from_hull(
        [entry.composition for entry in ours], [entry.corrected_energy_per_atom for entry in ours]
    )
    differences = [np.abs(distances - theirs).max()]
    for entry, expected in list(zip(ours, theirs, strict=True))[:25]:
        n_closed = sum(
            dict(formula_unit(entry.composition).counts)[z] for z in reservoir.closed_elements(entry.composition)
        )
        differences.append(abs(reservoir.energy_above_hull(entry) - expected))
        differences.append(abs(-reservoir.reaction(entry).energy / n_closed - expected))
    stable = {entry.id for entry in reservoir.stable_entries(hull.elemental_references, tolerance=1e-7)}
    assert {entry.name for entry in diagram.stable_entries} == stable
    return float(max(differences))


@pytest.mark.parametrize(("n_elements", "n_open"), [(2, 1), (3, 1), (3, 2), (4, 2), (5, 2)])
def test_equals_pymatgen_on_random_systems(n_elements, n_open):
    entries = random_entries(n_elements, 4 * n_elements, seed=n_elements)
    open_elements = sorted({z for entry in entries for z in entry.composition.atomic_numbers})[:n_open]
    assert largest_difference(entries, open_elements, depth=2.5 * n_open) < CLOSE


@pytest.mark.parametrize(
    ("name", "open_elements", "depth"),
    [("alexandria_Li-P-S", [3], 1.0), ("alexandria_Li-Co-O", [8], 0.3), ("alexandria_Li-Co-O", [3, 8], 3.0)],
)
def test_equals_pymatgen_on_published_systems(shared_data, name, open_elements, depth):
    assert largest_difference(read_entries(shared_data, name), open_elements, depth=depth) < CLOSE


@quick
@given(tied_systems(smallest=2))
def test_equals_a_plain_linear_program_where_everything_ties(entries):
    hull = Hull(entries)
    elements = list(hull.elemental_references)
    reservoir = open_hull(hull, elements[:1], depth=4.25)
    mu = reservoir.chemical_potentials[elements[0]]
    counts = np.array([[dict(e.composition.counts).get(z, 0) for z in elements] for e in entries])
    inside = counts[:, 1:].any(axis=1)
    potentials = (np.array([e.energy_per_atom for e in entries]) * counts.sum(axis=1) - mu * counts[:, 0])[inside]
    for composition in random_compositions(elements, 4, seed=2):
        target = np.array([dict(composition.counts).get(z, 0) for z in elements[1:]])
        if not target.any():
            continue
        program = linprog(potentials, A_eq=counts[inside, 1:].T, b_eq=target, method="highs")
        found = reservoir.equilibrium(composition)
        scale = composition.n_atoms / found.unit.n_atoms
        assert found.grand_potential * scale == pytest.approx(program.fun, abs=1e-7)
        reaction = reservoir.reaction(composition)
        for z in elements:
            left, right = (atoms_of(side, z) for side in (reaction.reactants, reaction.products))
            assert left == pytest.approx(right, abs=1e-7)


def atoms_of(side, z: int) -> float:
    return sum(species.amount * dict(formula(species.reduced_formula).counts).get(z, 0) for species in side)


def profiles(entries: list[Entry], composition: Composition, element: int) -> tuple[np.ndarray, np.ndarray]:
    """(potential, uptake) of every step, ours and pymatgen's."""
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Element

    unit = formula_unit(composition)
    space = {*unit.atomic_numbers, element}
    diagram = PhaseDiagram([e for e in to_pd_entries(entries) if {el.Z for el in e.composition.elements} <= space])
    theirs = diagram.get_element_profile(Element.from_Z(element), to_pymatgen(unit))[::-1]
    ours = element_profile(Hull(entries), composition, element).intervals
    return (
        np.array([(interval.upper, interval.uptake) for interval in ours]),
        np.array([(step["chempot"], step["evolution"]) for step in theirs]),
    )


@pytest.mark.parametrize("n_elements", [2, 3, 4])
def test_profiles_equal_pymatgen_on_random_systems(n_elements):
    entries = random_entries(n_elements, 5 * n_elements, seed=n_elements)
    elements = sorted({z for entry in entries for z in entry.composition.atomic_numbers})
    for composition in random_compositions(elements, 5, seed=n_elements):
        for element in elements:
            if set(composition.atomic_numbers) != {element}:
                ours, theirs = profiles(entries, composition, element)
                assert ours.shape == theirs.shape
                assert np.abs(ours - theirs).max() < CLOSE


@pytest.mark.parametrize(
    ("name", "compound", "element"),
    [("alexandria_Li-P-S", "Li7P3S11", 3), ("alexandria_Li-Co-O", "LiCoO2", 3), ("Fe-Li-O-P", "LiFePO4", 8)],
)
def test_profiles_equal_pymatgen_on_published_systems(shared_data, name, compound, element):
    ours, theirs = profiles(read_entries(shared_data, name), formula(compound), element)
    assert ours.shape == theirs.shape
    assert len(ours) >= 4
    assert np.abs(ours - theirs).max() < CLOSE


@quick
@given(tied_systems(smallest=2))
def test_profiles_rise_in_touching_steps_and_equal_a_scan(entries):
    hull = Hull(entries)
    elements = list(hull.elemental_references)
    composition = Composition.from_counts(dict.fromkeys(elements, 2))
    profile = element_profile(hull, composition, elements[0])
    intervals = profile.intervals
    assert intervals[0].lower == -math.inf
    assert intervals[0].uptake == pytest.approx(-dict(profile.composition.counts)[elements[0]])  # all is given off
    assert profile.critical_potentials[-1] == pytest.approx(hull.elemental_references[elements[0]])
    for before, after in pairwise(intervals):
        assert before.upper == after.lower < after.upper
        assert before.uptake < after.uptake
        # Where two sets of phases coexist they have one grand potential: the step costs nothing.
        step = after.reaction.energy - before.reaction.energy
        relative = before.upper - profile.reference
        assert step == pytest.approx(relative * (after.uptake - before.uptake), abs=1e-7)
    for interval in intervals:
        for share in (0.01, 0.99):
            lower = max(interval.lower, interval.upper - 5.0)
            mu = lower + share * (interval.upper - lower)
            reservoir = GrandPotentialHull(hull, {elements[0]: mu})
            assert reservoir.equilibrium(composition).exchange[elements[0]] == pytest.approx(interval.uptake, abs=1e-6)


def test_the_window_of_a_solid_electrolyte(shared_data):
    hull = Hull(read_entries(shared_data, "alexandria_Li-P-S"))
    window = electrochemical_window(hull, formula("Li24P8S32"))
    # 1.71 V and 2.31 V by Richards et al. (doi:10.1021/acs.chemmater.5b04082), from another database.
    assert window.reduction_potential == pytest.approx(1.71, abs=0.1)
    assert window.oxidation_potential == pytest.approx(2.31, abs=0.1)
    assert str(window.inside) == "Li3PS4 -> Li3PS4"
    assert str(window.reduction) == "Li3PS4 + 5 Li -> 4 Li2S + P"
    assert {species.reduced_formula for species in window.oxidation.products} >= {"Li"}
    assert window.width == pytest.approx(window.oxidation_potential - window.reduction_potential)
    plateaus = window.plateaus
    assert [p.voltage for p in plateaus] == sorted((p.voltage for p in plateaus), reverse=True)
    assert plateaus[-1].end == pytest.approx(8.0)  # Li3PS4 + 8 Li -> 4 Li2S + Li3P
    for plateau in plateaus:  # the voltage is the energy of the step per ion, against the metal
        assert plateau.start < plateau.end


def test_windows_by_hand(entry):
    hull = Hull([entry("li", "Li", 0.0), entry("x", "S", 0.0), entry("li2s", "Li2S", -1.5), entry("lis", "LiS", -1.0)])
    # LiS + Li -> Li2S gains 3 * 1.5 - 2 * 1.0 = 2.5 eV; S + Li -> LiS gains 2.0 eV: LiS is above the line.
    sulfide, disulfide = (electrochemical_window(hull, formula(text)) for text in ("Li2S", "LiS"))
    assert (sulfide.reduction_potential, sulfide.reduction) == (pytest.approx(0.0), None)
    assert sulfide.oxidation_potential == pytest.approx(2.25)
    assert str(sulfide.oxidation) == "Li2S -> S + 2 Li"
    assert disulfide.width == 0.0
    assert disulfide.inside is None
    assert disulfide.oxidation_potential == pytest.approx(2.25)
    assert [str(disulfide.reduction), str(disulfide.oxidation)] == ["LiS + Li -> Li2S", "LiS -> S + Li"]
    sulfur = electrochemical_window(hull, formula("S"))
    assert (sulfur.oxidation_potential, sulfur.oxidation) == (math.inf, None)
    assert sulfur.reduction_potential == pytest.approx(2.25)
    metal_rich = electrochemical_window(hull, formula("Li5S"))
    assert (metal_rich.reduction_potential, metal_rich.oxidation_potential) == (0.0, 0.0)
    assert metal_rich.reduction is None
    assert str(metal_rich.oxidation) == "Li5S -> Li2S + 3 Li"
    half = electrochemical_window(hull, formula("Li2S"), charge=2)
    assert half.oxidation_potential == pytest.approx(1.125)
    with pytest.raises(HullError, match="S with charge=None"):
        electrochemical_window(hull, formula("Li2S"), ion=16)
    with pytest.raises(HullError, match="nothing but Li"):
        electrochemical_window(hull, formula("Li2"))
    with pytest.raises(MissingReferenceError, match="Na"):
        electrochemical_window(hull, formula("Li2S"), ion=11)


def test_lithium_iron_phosphate_is_oxidised_by_air(shared_data):
    hull = Hull(read_entries(shared_data, "Fe-Li-O-P"))
    air = GrandPotentialHull.in_gas(hull, {8: AIR_OXYGEN_PRESSURE}, temperature=300.0)
    olivine = next(entry for entry in hull.stable_entries() if entry.reduced_formula == "LiFePO4")
    reaction = air.reaction(olivine)
    products = {species.reduced_formula: species.amount for species in reaction.products}
    assert products == {"Li3Fe2(PO4)3": pytest.approx(1 / 3), "Fe2O3": pytest.approx(1 / 6)}
    assert [species.reduced_formula for species in reaction.reactants] == ["LiFePO4", "O2"]
    assert reaction.reactants[1].amount == pytest.approx(1 / 4)  # an electron per iron
    assert air.energy_above_hull(olivine) == pytest.approx(-reaction.energy / 3)
    reducing = GrandPotentialHull.in_gas(hull, {8: 1e-9}, temperature=1200.0)
    assert reducing.energy_above_hull(olivine) == pytest.approx(0.0, abs=CLOSE)


def test_many_elements_and_many_entries_at_once():
    entries = random_entries(7, 25, seed=7)
    hull = Hull(entries)
    z = next(iter(hull.elemental_references))
    reservoir = open_hull(hull, [z], depth=2.0)
    closed = [entry for entry in entries if set(entry.composition.atomic_numbers) != {z}]
    bulk = reservoir.distances_from_hull(
        [entry.composition for entry in closed], [entry.energy_per_atom for entry in closed]
    )
    for entry, distance in zip(closed, bulk, strict=True):
        assert reservoir.energy_above_hull(entry) == pytest.approx(max(distance, 0.0), abs=1e-12)
    assert math.isnan(reservoir.distances_from_hull([closed[0].composition], [math.nan])[0])


def test_what_a_reservoir_cannot_be(lithium_iron_oxides, entry):
    hull = lithium_iron_oxides
    with pytest.raises(HullError, match=r"O2 \(o\) of open elements alone would grow without end"):
        GrandPotentialHull.relative_to_elements(hull, {8: 0.1})
    with pytest.raises(HullError, match="Li2O"):
        GrandPotentialHull.relative_to_elements(hull, {3: 0.0, 8: -0.5})
    for wrong in ({}, {8: math.nan}):
        with pytest.raises(HullError, match="finite potential"):
            GrandPotentialHull(hull, wrong)
    with pytest.raises(MissingReferenceError, match="Na"):
        GrandPotentialHull.relative_to_elements(hull, {11: -1.0})
    air = GrandPotentialHull.relative_to_elements(hull, {8: -0.3})
    with pytest.raises(HullError, match="O2 holds open elements alone"):
        air.energy_above_hull(next(e for e in hull.entries if e.id == "o"))
    with pytest.raises(HullError, match="no closed element"):
        air.stable_entries([8])
    with pytest.raises(MissingReferenceError, match="Co"):
        air.energy_above_hull(entry("coo", "CoO", -5.0))
    with pytest.raises(HullError, match="'r2SCAN'"):
        air.reaction(entry("x", "Li2O", -5.0, level="r2SCAN"))
    with pytest.raises(HullError, match="inf"):
        air.energy_above_hull(entry("x", "Li2O", math.inf))
    with pytest.raises(HullError, match="give one each"):
        air.distances_from_hull([formula("Li2O")], [1.0, 2.0])


def test_an_oxide_stands_in_for_a_metal_without_a_reference(entry):
    hull = Hull([entry("o", "O2", 0.0), entry("feo", "FeO", -1.5), entry("fe2o3", "Fe2O3", -1.7)])
    reservoir = GrandPotentialHull(hull, {8: -1.0})
    assert [e.id for e in reservoir.stable_entries([26])] == ["fe2o3"]
    # 2 FeO + O -> Fe2O3: 5 * -1.7 - 4 * -1.5 + 1.0 = -1.5 eV for two atoms of iron.
    assert reservoir.energy_above_hull(hull.entries[1]) == pytest.approx(0.75)
    assert reservoir.energy_per_closed_atom(hull.entries[1]) == pytest.approx(-2.0)
