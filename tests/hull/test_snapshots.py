"""Distances to named snapshots, displaced entries, and the rule min(old, recomputed)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from question_systems import random_compositions, random_entries, tied_systems

from opengnome.errors import HullError
from opengnome.hull import Entry, Hull
from opengnome.hull.snapshots import displaced_entries, merge_recomputed, snapshot_distances

quick = settings(max_examples=25, deadline=None, derandomize=True)


def test_distances_to_every_snapshot_with_a_reason_where_there_is_none(lithium_iron_oxides, entry):
    discovery = entry("new", "Li5FeO4", -6.0)
    snapshots = {"old": lithium_iron_oxides, "all": lithium_iron_oxides.with_entries([discovery])}
    asked = [
        discovery,
        entry("lifeo2", "LiFeO2", -7.0),
        entry("cobalt", "LiCoO2", -6.0),
        entry("other", "Li2O", -4.9, level="r2SCAN"),
        entry("lost", "Li2O", math.nan),
    ]
    table = snapshot_distances(snapshots, asked)
    assert table.names == ("old", "all")
    assert table.distances[0] == pytest.approx([lithium_iron_oxides.energy_above_hull(discovery), 0.0], abs=1e-12)
    assert table.column("old")[0] < -0.1
    assert table.distances[1] == pytest.approx([0.0, snapshots["all"].energy_above_hull(asked[1])], abs=1e-12)
    assert np.isnan(table.distances[2:]).all()
    assert table.reasons[0] == ("", "")
    assert [reasons[0] for reasons in table.reasons[2:]] == [
        "no elemental reference for Co",
        "level 'r2SCAN', the snapshot has 'PBE'",
        "energy nan eV/atom",
    ]
    assert snapshot_distances({}, asked).distances.shape == (5, 0)
    assert snapshot_distances(snapshots, []).distances.shape == (0, 2)


def test_a_discovery_displaces_what_it_takes_the_place_of(lithium_iron_oxides, entry):
    discoveries = [entry("better", "LiFeO2", -7.1), entry("apart", "LiFe", -3.0), entry("minor", "Li2O", -4.90001)]
    (displaced,) = displaced_entries(lithium_iron_oxides, lithium_iron_oxides.with_entries(discoveries))
    assert displaced.entry.id == "lifeo2"
    assert displaced.distance_before == 0.0
    assert displaced.distance_after == pytest.approx(0.1)
    assert displaced.displaced_by == ("better",)
    # 0.01 meV/atom is within the tolerance of stability.
    all_of_them = displaced_entries(lithium_iron_oxides, lithium_iron_oxides.with_entries(discoveries), tolerance=1e-7)
    assert [d.entry.id for d in all_of_them] == ["li2o", "lifeo2"]


def test_a_neighbour_can_displace_an_entry_of_another_composition(lithium_iron_oxides, entry):
    deep = [entry("deep", "Li5FeO4", -9.0)]
    displaced = displaced_entries(lithium_iron_oxides, lithium_iron_oxides.with_entries(deep))
    assert [d.entry.id for d in displaced] == ["lifeo2"]
    assert displaced[0].displaced_by == ("deep",)
    assert {formula for _, formula, _ in displaced[0].decomposition.products} == {"Li5FeO4", "Fe2O3"}


def test_displacement_by_recomputed_energies(lithium_iron_oxides, entry):
    higher = [e for e in lithium_iron_oxides.entries if e.id != "lifeo2"] + [entry("lifeo2", "LiFeO2", -6.9)]
    (displaced,) = displaced_entries(lithium_iron_oxides, Hull(higher))
    assert displaced.entry.energy_per_atom == -6.9
    assert displaced.displaced_by == ()  # nothing new came in its place: its own energy rose
    with pytest.raises(HullError, match="cannot be compared"):
        displaced_entries(lithium_iron_oxides, Hull([entry("li", "Li", -1.0, level="r2SCAN")]))
    assert displaced_entries(lithium_iron_oxides, lithium_iron_oxides) == ()
    # An id that means another material in the newer snapshot, even one of an unknown element, is not the same entry.
    renamed = [e for e in lithium_iron_oxides.entries if e.id != "lifeo2"]
    renamed += [entry("lifeo2", "CoO", -6.0), entry("new", "LiFeO2", -7.5)]
    (displaced,) = displaced_entries(lithium_iron_oxides, Hull(renamed))
    assert (displaced.entry.energy_per_atom, displaced.displaced_by) == (-7.0, ("new",))


@quick
@given(tied_systems(smallest=2), st.integers(0, 1000))
def test_displaced_is_stable_before_and_not_after_whatever_is_new(entries, seed):
    hull = Hull(entries)
    new = [
        Entry(f"new-{number}", composition, hull.energy_per_atom_at(composition) - 0.1 * (number % 3), level="PBE")
        for number, composition in enumerate(random_compositions(list(hull.elemental_references), 4, seed))
    ]
    after = hull.with_entries(new)
    found = displaced_entries(hull, after)
    remain = {entry.id for entry in after.stable_entries()}
    assert [d.entry.id for d in found] == [e.id for e in hull.stable_entries() if e.id not in remain]
    new_ids = {entry.id for entry in new}
    for displacement in found:
        assert displacement.displaced_by
        assert new_ids.issuperset(displacement.displaced_by)
        assert displacement.distance_after == pytest.approx(after.energy_above_hull(displacement.entry), abs=1e-9)


def test_the_lower_energy_of_each_material_stands(entry):
    old = [
        entry("a", "Li2O", -4.9),
        entry("b", "Fe2O3", -8.0),
        entry("c", "FeO", -6.0),
        entry("tie", "Li", -1.9),
        entry("failed", "Fe", -8.3),
        entry("moved", "LiFeO2", -7.0),
        entry("lost", "O2", math.nan),
    ]
    recomputed = [
        entry("a", "Li4O2", -5.0),
        entry("b", "Fe2O3", -7.9),
        entry("new", "Li5FeO4", -6.0),
        entry("tie", "Li", -1.9),
        entry("failed", "Fe", math.inf),
        entry("moved", "LiFeO3", -8.0),
        entry("lost", "O2", math.nan),
        entry("c", "FeO", -6.1, level="r2SCAN"),
    ]
    merged = merge_recomputed(old, recomputed)
    choices = {choice.id: choice for choice in merged.choices}
    assert {i: c.kept for i, c in choices.items()} == {
        "a": "recomputed",
        "b": "old",
        "c": "old",
        "tie": "old",
        "failed": "old",
        "moved": "old",
        "lost": "none",
        "new": "recomputed",
    }
    assert [(e.id, e.energy_per_atom) for e in merged.entries] == [
        ("a", -5.0),
        ("b", -8.0),
        ("c", -6.0),
        ("tie", -1.9),
        ("failed", -8.3),
        ("moved", -7.0),
        ("new", -6.0),
    ]
    assert choices["a"].reason == choices["b"].reason == ""
    assert choices["c"].reason == "the recomputed energy is of level 'r2SCAN', not 'PBE'"
    assert choices["failed"].reason == "the recomputed energy is inf eV/atom"
    assert choices["moved"].reason == "the recomputed calculation is of LiFeO3, not LiFeO2"
    assert choices["lost"].reason == "the old energy is nan eV/atom; the recomputed energy is nan eV/atom"
    assert (choices["b"].old_energy_per_atom, choices["b"].recomputed_energy_per_atom) == (-8.0, -7.9)
    assert math.isnan(choices["new"].old_energy_per_atom)


def test_corrected_energies_are_compared_and_repeated_runs_compete(entry):
    old = [Entry("a", entry("a", "Li2O", 0.0).composition, -4.0, correction_per_atom=-1.0, level="PBE")]
    again = [entry("a", "Li2O", -4.8), entry("a", "Li2O", -5.2), entry("a", "Li2O", -5.1)]
    assert merge_recomputed(old, again[:1]).entries == tuple(old)
    assert merge_recomputed(old, again).entries == (again[1],)
    twice = merge_recomputed([*old, entry("a", "Li2O", -5.3)], again)
    assert twice.entries[0].energy_per_atom == -5.3
    assert twice.choices[0].reason == "2 old energies; the lowest stands"
    assert merge_recomputed([], []).entries == ()


@pytest.mark.parametrize("seed", range(3))
def test_the_merged_hull_is_nowhere_above_either(seed):
    old = random_entries(3, 15, seed)
    shift = np.random.default_rng(seed).normal(0.0, 0.1, len(old))
    recomputed = [
        Entry(e.id, e.composition, e.energy_per_atom + s, level="PBE") for e, s in zip(old, shift, strict=True)
    ]
    merged = Hull(merge_recomputed(old, recomputed).entries)
    for composition in random_compositions(list(merged.elemental_references), 10, seed):
        lowest = min(Hull(side).energy_per_atom_at(composition) for side in (old, recomputed))
        assert merged.energy_per_atom_at(composition) <= lowest + 1e-9
