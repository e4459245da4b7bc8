"""What holds for every hull, on random systems full of ties, duplicates and coplanar points."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull

ELEMENTS = (3, 8, 15, 26, 12, 17, 22)
CLOSE = 1e-8

quick = settings(max_examples=25, deadline=None, derandomize=True)
# Multiples of 0.25 make ties, coplanar facets and equal polymorphs common; floats make the rest.
energies = st.one_of(st.integers(-8, 4).map(lambda n: n / 4), st.floats(-2, 1, allow_subnormal=False))


@st.composite
def systems(draw, max_compounds: int = 14) -> list[Entry]:
    """Entries of one system of 1-7 elements, elements first."""
    elements = ELEMENTS[: draw(st.integers(1, 7))]
    counts = st.lists(st.integers(0, 3), min_size=len(elements), max_size=len(elements)).filter(any)
    compounds = draw(st.lists(st.tuples(counts, energies), max_size=max_compounds))
    entries = [Entry(f"element-{z}", Composition.from_counts({z: 1}), draw(energies), level="PBE") for z in elements]
    for number, (amounts, energy) in enumerate(compounds):
        composition = Composition.from_counts({z: n for z, n in zip(elements, amounts, strict=True) if n})
        entries.append(Entry(f"phase-{number}", composition, energy, level="PBE"))
    return entries


def linear_program_energy(entries: list[Entry], composition: Composition) -> float:
    """Hull energy by scipy from all entries: no grouping, no pruning, no facets."""
    elements = composition.atomic_numbers
    inside = [e for e in entries if set(e.composition.atomic_numbers) <= set(elements)]
    matrix = np.array([[e.composition.fractions.get(z, 0.0) for z in elements] for e in inside])
    target = [composition.fractions[z] for z in elements]
    return linprog([e.energy_per_atom for e in inside], A_eq=matrix.T, b_eq=target, method="highs").fun


@quick
@given(systems())
def test_distances_equal_a_plain_linear_program(entries):
    hull = Hull(entries)
    for entry in entries:
        expected = entry.energy_per_atom - linear_program_energy(entries, entry.composition)
        assert hull.energy_above_hull(entry) == pytest.approx(expected, abs=CLOSE)
        assert hull.decompose(entry.composition).energy_per_atom == pytest.approx(
            hull.energy_per_atom_at(entry.composition), abs=CLOSE
        )


@quick
@given(systems())
def test_leave_one_out_equals_a_hull_without_the_entry(entries):
    hull = Hull(entries)
    n_elements = len(hull.elemental_references)
    for entry in entries[n_elements:]:
        rest = [other for other in entries if other.id != entry.id]
        expected = entry.energy_per_atom - linear_program_energy(rest, entry.composition)
        assert hull.decomposition_energy(entry) == pytest.approx(expected, abs=CLOSE)


@quick
@given(systems())
def test_distances_equal_pymatgen(phase_diagram, entries):
    hull, diagram = Hull(entries), phase_diagram(entries)
    reference = {e.name: e for e in diagram.all_entries}
    for entry in entries:
        assert hull.energy_above_hull(entry) == pytest.approx(diagram.get_e_above_hull(reference[entry.id]), abs=CLOSE)


@quick
@given(systems())
def test_vertices_lie_at_zero_and_mix_to_the_composition(entries):
    hull = Hull(entries)
    by_id = {entry.id: entry for entry in entries}
    for entry in entries:
        products = hull.decompose(entry.composition).products
        assert sum(amount for *_, amount in products) == pytest.approx(1.0)
        for entry_id, _, amount in products:
            assert amount > 0
            assert hull.energy_above_hull(by_id[entry_id]) == pytest.approx(0.0, abs=CLOSE)
        for z, fraction in entry.composition.fractions.items():
            mixed = sum(amount * by_id[i].composition.fractions.get(z, 0.0) for i, _, amount in products)
            assert mixed == pytest.approx(fraction, abs=CLOSE)


@quick
@given(systems(), st.randoms(use_true_random=False))
def test_the_order_of_entries_and_formula_units_change_nothing(entries, random):
    scaled = [
        Entry(
            e.id,
            Composition.from_counts({z: 3 * n for z, n in e.composition.counts}),
            e.energy_per_atom,
            level=e.level,
        )
        for e in entries
    ]
    random.shuffle(scaled)
    one, other = Hull(entries), Hull(scaled)
    for entry in entries:
        assert one.energy_above_hull(entry) == max(
            0.0, entry.energy_per_atom - other.energy_per_atom_at(entry.composition)
        )
        assert one.decompose(entry.composition) == other.decompose(entry.composition)


@quick
@given(systems(), st.integers(0, 14))
def test_more_entries_only_lower_the_hull(entries, split):
    n_elements = len({z for e in entries for z in e.composition.atomic_numbers})
    first, later = entries[: n_elements + split], entries[n_elements + split :]
    small = Hull(first)
    before = [small.energy_per_atom_at(e.composition) for e in entries]
    large = small.with_entries(later)
    fresh = Hull(entries)
    for entry, energy in zip(entries, before, strict=True):
        after = large.energy_per_atom_at(entry.composition)
        assert after <= energy + CLOSE
        assert after == fresh.energy_per_atom_at(entry.composition)


@quick
@given(systems())
def test_bulk_answers_equal_single_ones(entries):
    hull = Hull(entries)
    np.testing.assert_allclose(
        hull.energies_above_hull(), [hull.energy_above_hull(e) for e in entries], rtol=0, atol=CLOSE
    )
    for same_too in (False, True):
        single = [hull.decomposition_energy(e, exclude_polymorphs=same_too) for e in entries]
        bulk = hull.decomposition_energies(exclude_polymorphs=same_too)
        np.testing.assert_allclose(bulk, single, rtol=0, atol=CLOSE)


@quick
@given(systems(), st.permutations(range(len(ELEMENTS))))
def test_the_names_of_the_elements_change_nothing(entries, permutation):
    renamed = dict(zip(ELEMENTS, (ELEMENTS[i] for i in permutation), strict=True))
    others = [
        replace(e, composition=Composition.from_counts({renamed[z]: n for z, n in e.composition.counts}))
        for e in entries
    ]
    one, other = Hull(entries), Hull(others)
    np.testing.assert_allclose(one.decomposition_energies(), other.decomposition_energies(), rtol=0, atol=CLOSE)
    np.testing.assert_allclose(one.energies_above_hull(), other.energies_above_hull(), rtol=0, atol=CLOSE)


@quick
@given(systems(), st.integers(0, 14))
def test_no_distance_shrinks_when_entries_are_added(entries, split):
    n_elements = len({z for e in entries for z in e.composition.atomic_numbers})
    first, later = entries[: n_elements + split], entries[n_elements + split :]
    small = Hull(first)
    large = small.with_entries(later)
    assert (large.energies_above_hull()[: len(first)] >= small.energies_above_hull() - CLOSE).all()
    np.testing.assert_array_equal(large.energies_above_hull(), Hull(entries).energies_above_hull())


@pytest.mark.slow
def test_two_thousand_random_systems_equal_pymatgen(phase_diagram):
    rng = np.random.default_rng(2023)
    for number in range(2000):
        n_elements = number % 7 + 1
        elements = rng.choice(np.arange(19, 36), n_elements, replace=False).tolist()
        entries = [Entry(f"{z}", Composition(((z, 1),)), float(rng.uniform(-9, -1)), level="PBE") for z in elements]
        for phase in range(int(rng.integers(0, 30))):
            counts = rng.integers(0, 4, n_elements)
            counts[rng.integers(n_elements)] += 1
            composition = Composition.from_counts({z: int(n) for z, n in zip(elements, counts, strict=True) if n})
            ideal = sum(x * entries[elements.index(z)].energy_per_atom for z, x in composition.fractions.items())
            entries.append(Entry(f"phase-{phase}", composition, ideal + float(rng.normal(-0.3, 0.4)), level="PBE"))
        diagram = phase_diagram(entries)
        reference = {e.name: e for e in diagram.all_entries}
        expected = [diagram.get_e_above_hull(reference[e.id]) for e in entries]
        hull = Hull(entries)
        np.testing.assert_allclose(hull.energies_above_hull(), expected, rtol=0, atol=CLOSE)
        single = [hull.energy_above_hull(e) for e in entries]
        np.testing.assert_allclose(single, expected, rtol=0, atol=CLOSE)
