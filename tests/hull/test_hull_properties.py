"""What holds for every hull, on random systems full of ties, duplicates and coplanar points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull

ELEMENTS = (3, 8, 15, 26, 12)
CLOSE = 1e-7

quick = settings(max_examples=25, deadline=None, derandomize=True)
# Multiples of 0.25 make ties, coplanar facets and equal polymorphs common; floats make the rest.
energies = st.one_of(st.integers(-8, 4).map(lambda n: n / 4), st.floats(-2, 1, allow_subnormal=False))


@st.composite
def systems(draw, max_compounds: int = 14) -> list[Entry]:
    """Entries of one system of 1-5 elements, elements first."""
    elements = ELEMENTS[: draw(st.integers(1, 5))]
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
