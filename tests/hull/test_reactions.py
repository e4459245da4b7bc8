"""Balanced reactions, their energies, and the equilibrium reaction energy of pymatgen."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from question_systems import random_entries, read_entries, to_pymatgen

from opengnome.crystals import Composition
from opengnome.errors import HullError
from opengnome.hull import Entry, Hull
from opengnome.hull.reactions import balance, equilibrium_reaction, formula_unit, reaction_energy

CLOSE = 1e-8


def formulas(*names: str) -> list[Composition]:
    return [Composition.from_formula(name) for name in names]


@pytest.mark.parametrize(
    ("reactants", "products", "expected"),
    [
        (["Fe", "O2"], ["Fe2O3"], ((4, 3), (2,))),
        (["Li3PS4"], ["Li2S", "P2S5"], ((2,), (3, 1))),
        (["Li", "Li3PS4"], ["Li2S", "Li3P"], ((8, 1), (4, 1))),
        (["K4Fe(CN)6", "H2SO4", "H2O"], ["K2SO4", "FeSO4", "N2H8SO4", "CO"], ((1, 6, 6), (2, 1, 3, 6))),
        (["LiFePO4"], ["LiFePO4"], ((1,), (1,))),
    ],
)
def test_reactions_balance_in_the_smallest_whole_numbers(reactants, products, expected):
    assert balance(formulas(*reactants), formulas(*products)) == expected


@pytest.mark.parametrize(
    ("reactants", "products", "message"),
    [
        (["Fe", "O2"], ["FeS"], "O does not occur among the products"),
        (["Fe"], ["Fe2O3"], "O does not occur among the reactants"),
        (["LiO", "Li"], ["Li3O2", "Li2O"], "2 independent reactions"),
        (["LiFeO2"], ["Li2O", "FeO"], "no amounts balance"),
        (["Li2O", "Fe2O3"], ["LiFeO2", "FeO"], "with FeO left out"),
        (["Li", "Li2O2", "Li2O"], ["Li3O2"], "2 independent reactions"),
        ([], ["Li2O"], "0 reactants"),
    ],
)
def test_what_does_not_balance_is_refused_by_name(reactants, products, message):
    with pytest.raises(HullError, match=message):
        balance(formulas(*reactants), formulas(*products))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any), min_size=4, max_size=4), st.data())
def test_whatever_balances_conserves_every_atom(rows, data):
    species = [Composition.from_counts({z: n for z, n in zip((3, 8, 26), row, strict=True) if n}) for row in rows]
    n_reactants = data.draw(st.integers(1, 3))
    try:
        left, right = balance(species[:n_reactants], species[n_reactants:])
    except HullError:
        return
    assert min(*left, *right) >= 1
    assert math.gcd(*left, *right) == 1
    counts = np.array([[dict(c.counts).get(z, 0) for z in (3, 8, 26)] for c in species])
    assert (np.array(left) @ counts[:n_reactants] == np.array(right) @ counts[n_reactants:]).all()


def test_reaction_energy_equals_pymatgen(shared_data):
    from pymatgen.analysis.reaction_calculator import Reaction

    entries = read_entries(shared_data, "Fe-Li-O-P")
    hull = Hull(entries)
    stable = {entry.reduced_formula: entry for entry in hull.stable_entries(tolerance=0.0)}
    sides = (["Li2O", "Fe2O3", "P2O5"], ["LiFePO4", "O2"])
    reaction = reaction_energy(hull, *(formulas(*side) for side in sides))
    theirs = Reaction(*([to_pymatgen(stable[name].composition) for name in side] for side in sides))
    per_atom = {to_pymatgen(e.composition).reduced_formula: e.corrected_energy_per_atom for e in stable.values()}
    energy = theirs.calculate_energy({c: per_atom[c.reduced_formula] * c.num_atoms for c in theirs.all_comp})
    n_formula_units = theirs.get_coeff(to_pymatgen(stable["LiFePO4"].composition)) * (
        stable["LiFePO4"].composition.n_atoms / 7
    )
    assert str(reaction) == "2 Li2O + 2 Fe2O3 + 2 P2O5 -> 4 LiFePO4 + O2"
    assert reaction.energy == pytest.approx(energy * 4 / n_formula_units, abs=CLOSE)
    assert reaction.energy_per_atom == pytest.approx(reaction.energy / 30, abs=CLOSE)
    assert [species.id for species in reaction.products] == [stable["LiFePO4"].id, stable["O2"].id]


def test_compositions_stand_for_their_lowest_entry_and_entries_for_themselves(lithium_iron_oxides, entry):
    lithium, oxygen = formulas("Li", "O2")
    formed = reaction_energy(lithium_iron_oxides, [lithium, oxygen], formulas("Li4O2"))
    assert formed.energy == pytest.approx(2 * 3 * -4.9 - (4 * -1.9 + 2 * -4.9))
    assert [species.amount for species in (*formed.reactants, *formed.products)] == [4, 1, 2]
    other = reaction_energy(lithium_iron_oxides, [lithium, oxygen], [entry("li2o-new", "Li2O", -5.0)])
    assert other.energy - formed.energy == pytest.approx(-0.6)
    half = formed.scaled(0.5)
    assert str(half) == "2 Li + 0.5 O2 -> Li2O"
    assert half.energy_per_atom == pytest.approx(formed.energy_per_atom)
    with pytest.raises(HullError, match="positive"):
        formed.scaled(0.0)


def test_reactions_that_cannot_be_answered(lithium_iron_oxides, entry):
    with pytest.raises(HullError, match="no entry of Li5FeO4, LiFe5O8"):
        reaction_energy(lithium_iron_oxides, formulas("Li5FeO4", "Fe2O3"), formulas("LiFe5O8", "Li2O"))
    with pytest.raises(HullError, match="'r2SCAN'"):
        reaction_energy(lithium_iron_oxides, formulas("Li", "O2"), [entry("x", "Li2O", -5.0, level="r2SCAN")])
    with pytest.raises(HullError, match="nan"):
        reaction_energy(lithium_iron_oxides, formulas("Li", "O2"), [entry("x", "Li2O", math.nan)])


def largest_difference(entries: list[Entry], diagram) -> float:
    hull, by_id = Hull(entries), {entry.id: entry for entry in entries}
    differences = [
        equilibrium_reaction(hull, by_id[stable.name]).energy_per_atom - diagram.get_equilibrium_reaction_energy(stable)
        for stable in diagram.stable_entries
    ]
    return float(np.abs(differences).max())


@pytest.mark.parametrize("n_elements", [1, 2, 3, 4, 5])
def test_equilibrium_reaction_energy_equals_pymatgen_on_random_systems(phase_diagram, n_elements):
    for seed in range(2):
        entries = random_entries(n_elements, 4 * n_elements, seed)
        assert largest_difference(entries, phase_diagram(entries)) < CLOSE


@pytest.mark.parametrize("name", ["alexandria_Li-P-S", "Li-Fe-O"])
def test_equilibrium_reaction_energy_equals_pymatgen_on_published_systems(shared_data, phase_diagram, name):
    entries = read_entries(shared_data, name)
    assert largest_difference(entries, phase_diagram(entries)) < CLOSE


def test_only_phases_that_are_stable_now_take_the_place(lithium_iron_oxides):
    entries = {entry.id: entry for entry in lithium_iron_oxides.entries}
    ternary = entries["lifeo2"]
    reaction = equilibrium_reaction(lithium_iron_oxides, ternary)
    assert str(reaction) == "0.5 Fe2O3 + 0.5 Li2O -> LiFeO2"
    assert reaction.energy == pytest.approx(4 * -7.0 - 2.5 * -8.0 - 1.5 * -4.9)
    # The other polymorph would be stable without it, and holds the hull 0.05 eV/atom above.
    assert lithium_iron_oxides.decomposition_energy(ternary) == pytest.approx(-0.05)
    assert equilibrium_reaction(lithium_iron_oxides, entries["li"]).energy == 0.0


def test_a_discovery_is_added_first_and_an_unstable_entry_refused(lithium_iron_oxides, entry):
    discovery = entry("new", "Li5FeO4", -6.0)
    assert equilibrium_reaction(lithium_iron_oxides, discovery).energy < 0
    with pytest.raises(HullError, match=r"lies 0\.05 eV/atom above the hull"):
        equilibrium_reaction(lithium_iron_oxides, lithium_iron_oxides.entries[7])
    barely = entry("barely", "LiFeO2", -7.0 + 3e-5)
    assert equilibrium_reaction(lithium_iron_oxides, barely).energy_per_atom == pytest.approx(3e-5)


@pytest.mark.parametrize(
    ("formula", "unit"), [("O", "O2"), ("Li2O2", "Li2O2"), ("Li4Fe4P4O16", "LiFePO4"), ("Fe4", "Fe")]
)
def test_formula_units_are_what_the_formula_says(formula, unit):
    assert formula_unit(Composition.from_formula(formula)) == Composition.from_formula(unit)
