"""What a Hull answers and what it refuses."""

import math

import numpy as np
import pytest

from opengnome.crystals import Composition
from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull import Hull


def formula(text: str) -> Composition:
    return Composition.from_formula(text)


def test_references_are_the_lowest_polymorphs(lithium_iron_oxides):
    assert lithium_iron_oxides.elemental_references == {3: -1.9, 8: -4.9, 26: -8.3}


def test_formation_energy_by_hand(lithium_iron_oxides):
    energy = lithium_iron_oxides.formation_energy_per_atom(formula("Li2O"), -4.9)
    assert energy == pytest.approx(-4.9 - (2 * -1.9 - 4.9) / 3)


def test_decomposition_by_hand(lithium_iron_oxides, entry):
    # 2 LiFeO2 = Li2O + Fe2O3: 3 of 8 atoms and 5 of 8 atoms
    competing = lithium_iron_oxides.decompose(formula("LiFeO2"), without=frozenset({"lifeo2", "lifeo2-beta"}))
    assert [product[:2] for product in competing.products] == [("fe2o3", "Fe2O3"), ("li2o", "Li2O")]
    assert [product[2] for product in competing.products] == pytest.approx([5 / 8, 3 / 8])
    assert competing.energy_per_atom == pytest.approx(5 / 8 * -8.0 + 3 / 8 * -4.9)


def test_leaving_one_out_falls_back_on_the_next_polymorph(lithium_iron_oxides, entry):
    stable = next(e for e in lithium_iron_oxides.entries if e.id == "lifeo2")
    assert lithium_iron_oxides.energy_above_hull(stable) == 0.0
    assert lithium_iron_oxides.decomposition_energy(stable) == pytest.approx(-7.0 + 6.95)
    depth = -7.0 - (5 / 8 * -8.0 + 3 / 8 * -4.9)
    assert lithium_iron_oxides.decomposition_energy(stable, exclude_polymorphs=True) == pytest.approx(depth)


def test_a_higher_polymorph_is_measured_against_the_lower_one(lithium_iron_oxides):
    beta = next(e for e in lithium_iron_oxides.entries if e.id == "lifeo2-beta")
    assert lithium_iron_oxides.energy_above_hull(beta) == pytest.approx(0.05)
    assert lithium_iron_oxides.decomposition_energy(beta) == pytest.approx(0.05)


def test_elements_are_measured_against_their_other_forms(lithium_iron_oxides):
    by_id = {e.id: e for e in lithium_iron_oxides.entries}
    assert lithium_iron_oxides.decomposition_energy(by_id["li"]) == pytest.approx(-0.1)
    assert lithium_iron_oxides.decomposition_energy(by_id["li-high"]) == pytest.approx(0.1)
    assert lithium_iron_oxides.decomposition_energy(by_id["fe"]) == 0.0  # the only iron there is
    assert lithium_iron_oxides.decomposition_energy(by_id["li"], exclude_polymorphs=True) == 0.0


def test_a_new_phase_may_lie_below_the_hull(lithium_iron_oxides, entry):
    new = entry("new", "LiFeO2", -7.3)
    assert lithium_iron_oxides.energy_above_hull(new) == pytest.approx(-0.3)
    assert lithium_iron_oxides.decomposition_energy(new) == pytest.approx(-0.3)
    rival = entry("lifeo2", "LiFeO2", -7.3)  # a recalculation under a known id replaces that entry
    assert lithium_iron_oxides.decomposition_energy(rival) == pytest.approx(-7.3 + 6.95)


def test_the_same_id_at_another_composition_is_left_out_there(lithium_iron_oxides, entry):
    moved = entry("lifeo2", "Li2Fe2O4", -7.1)
    assert lithium_iron_oxides.decomposition_energy(moved) == pytest.approx(-7.1 + 6.95)
    other = entry("fe2o3", "LiFeO2", -7.1)
    assert lithium_iron_oxides.decomposition_energy(other) == pytest.approx(-0.1)
    between = entry("lifeo2-beta", "LiFe2O4", -7.0)  # absent or not, the lower polymorph stays
    distance = lithium_iron_oxides.energy_above_hull(between)
    assert lithium_iron_oxides.decomposition_energy(between) == pytest.approx(distance)


def test_stable_entries_within_the_tolerance(lithium_iron_oxides):
    ids = [e.id for e in lithium_iron_oxides.stable_entries()]
    assert ids == ["li", "fe", "o", "li2o", "fe2o3", "lifeo2"]
    assert "lifeo2-beta" in [e.id for e in lithium_iron_oxides.stable_entries(tolerance=0.051)]


def test_bulk_distances_equal_single_ones_in_any_system(lithium_iron_oxides):
    texts = ["Li", "LiFe", "Li2O", "Fe3O4", "LiFeO2", "Li5FeO4", "O2", "LiFe5O8"]
    energies = np.linspace(-8, -2, len(texts))
    distances = lithium_iron_oxides.distances_from_hull([formula(t) for t in texts], energies)
    expected = [e - lithium_iron_oxides.energy_per_atom_at(formula(t)) for t, e in zip(texts, energies, strict=True)]
    np.testing.assert_allclose(distances, expected, atol=1e-12)


def test_an_unknown_energy_gives_an_unknown_distance(lithium_iron_oxides):
    distances = lithium_iron_oxides.distances_from_hull([formula("Li2O"), formula("Li2O")], [math.nan, -4.9])
    assert math.isnan(distances[0])
    assert distances[1] == pytest.approx(0.0)


def test_no_compositions_give_no_distances(lithium_iron_oxides):
    assert lithium_iron_oxides.distances_from_hull([], []).shape == (0,)


def test_digest_names_the_energies_not_the_order(lithium_iron_oxides, entry):
    entries = lithium_iron_oxides.entries
    assert Hull(entries[::-1]).digest == lithium_iron_oxides.digest
    assert Hull([*entries[:-1], entry(entries[-1].id, "FeO", -5.1)]).digest != lithium_iron_oxides.digest


def test_with_entries_keeps_what_did_not_change_and_equals_a_fresh_hull(lithium_iron_oxides, entry):
    old = lithium_iron_oxides
    systems = ["Li2O", "Fe2O3", "LiFe", "LiFeO2"]
    before = [old.energy_per_atom_at(formula(text)) for text in systems]
    new = old.with_entries([entry("fe3o4", "Fe3O4", -8.4), entry("li2o-high", "Li2O", -4.0)])
    fresh = Hull(new.entries)
    for text in systems:
        assert new.energy_per_atom_at(formula(text)) == fresh.energy_per_atom_at(formula(text))
    assert new._systems[(3, 8)] is old._systems[(3, 8)]  # only a higher polymorph came
    assert new._systems[(8, 26)] is not old._systems[(8, 26)]
    assert new._systems[(3, 8, 26)] is not old._systems[(3, 8, 26)]
    assert new._systems[(3, 26)] is old._systems[(3, 26)]
    assert [old.energy_per_atom_at(formula(text)) for text in systems] == before
    assert (len(old), len(new)) == (9, 11)
    assert new.digest == fresh.digest


def test_a_new_elemental_reference_reaches_every_system_of_the_element(lithium_iron_oxides, entry):
    old = lithium_iron_oxides
    old.energy_per_atom_at(formula("LiFe"))
    new = old.with_entries([entry("li-low", "Li", -2.5)])
    assert new.elemental_references[3] == -2.5
    assert new.energy_per_atom_at(formula("LiFe")) == pytest.approx((-2.5 - 8.3) / 2)


def test_mixed_levels_are_refused(lithium_iron_oxides, entry):
    other = entry("r2scan", "Li2O", -4.9, level="r2SCAN")
    message = "entry 'r2scan' is of level 'r2SCAN', the hull of level 'PBE'"
    with pytest.raises(HullError, match=message):
        Hull([*lithium_iron_oxides.entries, other])
    with pytest.raises(HullError, match=message):
        lithium_iron_oxides.energy_above_hull(other)
    with pytest.raises(HullError, match=message):
        lithium_iron_oxides.decomposition_energy(other)


@pytest.mark.parametrize("energy", [math.nan, math.inf, -math.inf])
def test_non_finite_energies_are_refused(lithium_iron_oxides, entry, energy):
    bad = entry("bad", "Li2O", energy)
    with pytest.raises(HullError, match="both must be finite"):
        Hull([*lithium_iron_oxides.entries, bad])
    with pytest.raises(HullError, match="both must be finite"):
        lithium_iron_oxides.energy_above_hull(bad)


def test_one_id_twice_is_refused(lithium_iron_oxides, entry):
    with pytest.raises(HullError, match=r"two entries have the id 'li' \(Li and Li2O\)"):
        lithium_iron_oxides.with_entries([entry("li", "Li2O", -4.0)])
    with pytest.raises(HullError, match="two entries have the id 'new'"):
        lithium_iron_oxides.with_entries([entry("new", "Li2O", -4.0), entry("new", "Fe2O3", -4.0)])


def test_no_entries_are_refused():
    with pytest.raises(HullError, match="at least one entry"):
        Hull([])


def test_missing_references_are_named(lithium_iron_oxides, entry):
    message = r"no elemental reference for Na, Cl at level 'PBE'.* add one for Na, Cl"
    with pytest.raises(MissingReferenceError, match=message):
        lithium_iron_oxides.energy_per_atom_at(formula("NaCl"))
    with pytest.raises(MissingReferenceError, match=message):
        lithium_iron_oxides.formation_energy_per_atom(formula("NaCl"), -3.0)
    with pytest.raises(MissingReferenceError, match=message):
        lithium_iron_oxides.distances_from_hull([formula("Li2O"), formula("NaO"), formula("LiCl")], [0, 0, 0])
    with pytest.raises(MissingReferenceError, match="no elemental reference for Fe"):
        lithium_iron_oxides.decompose(formula("Fe2O3"), without=frozenset({"fe"}))
    with pytest.raises(MissingReferenceError, match="Na"):
        Hull([entry("nacl", "NaCl", -3.0)]).stable_entries()


def test_lengths_must_match(lithium_iron_oxides):
    with pytest.raises(HullError, match=r"1 compositions with energies of shape \(2,\)"):
        lithium_iron_oxides.distances_from_hull([formula("Li2O")], [0.0, 0.0])


def test_corrections_enter_the_hull(entry):
    from dataclasses import replace

    plain = entry("o", "O2", -4.9)
    corrected = replace(plain, correction_per_atom=-0.5, correction_scheme="test")
    assert Hull([corrected]).elemental_references == {8: -5.4}
    assert corrected.energy_per_atom == -4.9
