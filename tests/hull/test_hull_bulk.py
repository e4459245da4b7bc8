"""Questions about many entries at once: the same answers as one by one, and as brute force."""

import numpy as np
import pytest
from scipy.optimize import linprog

import opengnome.hull.simplex as simplex
from opengnome.crystals import Composition
from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull import CompositionArrays, Entry, EntryTable, Hull

CLOSE = 1e-9


def random_entries(seed: int, n: int = 120, n_elements: int = 7, widest: int = 5) -> list[Entry]:
    """Several overlapping systems with polymorphs, unstable compounds and forms of the elements."""
    rng = np.random.default_rng(seed)
    elements = rng.choice(np.arange(19, 36), n_elements, replace=False).tolist()
    references = dict(zip(elements, rng.uniform(-9, -1, n_elements), strict=True))
    entries = [
        Entry(f"element-{z}-{form}", Composition(((z, form),)), e + 0.1 * (form - 1), level="PBE")
        for z, e in references.items()
        for form in (1, 2)
    ]
    for number in range(n):
        chosen = rng.choice(elements, rng.integers(2, min(widest, n_elements) + 1), replace=False)
        composition = Composition.from_counts({int(z): int(rng.integers(1, 4)) for z in chosen})
        ideal = sum(x * references[z] for z, x in composition.fractions.items())
        entries.append(Entry(f"phase-{number}", composition, ideal + rng.normal(-0.4, 0.4), level="PBE"))
    return entries


def brute_force(entries: list[Entry], composition: Composition) -> float:
    """Hull energy by scipy from all entries given: no grouping, no pruning, no batches."""
    elements = composition.atomic_numbers
    inside = [e for e in entries if set(e.composition.atomic_numbers) <= set(elements)]
    matrix = np.array([[e.composition.fractions.get(z, 0.0) for z in elements] for e in inside])
    target = [composition.fractions[z] for z in elements]
    energies = [e.corrected_energy_per_atom for e in inside]
    return linprog(energies, A_eq=matrix.T, b_eq=target, method="highs").fun


@pytest.mark.parametrize("seed", [0, 1])
def test_all_entries_equal_brute_force(seed):
    entries = random_entries(seed, n=50)
    hull = Hull(entries)
    above = hull.energies_above_hull()
    left_out = hull.decomposition_energies()
    without_polymorphs = hull.decomposition_energies(exclude_polymorphs=True)
    for i, entry in enumerate(entries):
        energy, own = entry.energy_per_atom, entry.composition
        assert above[i] == pytest.approx(energy - brute_force(entries, own), abs=CLOSE)
        rest = [e for e in entries if e.id != entry.id]
        assert left_out[i] == pytest.approx(energy - brute_force(rest, own), abs=CLOSE)
        others = [e for e in entries if e.composition.reduced != own.reduced] if own.n_elements > 1 else entries
        assert without_polymorphs[i] == pytest.approx(energy - brute_force(others, own), abs=CLOSE)
    assert above.min() == 0.0


@pytest.mark.parametrize("exclude_polymorphs", [False, True])
def test_many_questions_equal_single_ones(exclude_polymorphs):
    entries = random_entries(2)
    hull = Hull(entries)
    below = [(f"new-{i}", e.composition, e.energy_per_atom - 0.2) for i, e in enumerate(entries[:40])]
    moved = [(entries[i].id, entries[i + 1].composition, entries[i].energy_per_atom) for i in range(5, 40)]
    unknown = [(f"unknown-{i}", c, -3.0) for i, c in enumerate(unknown_compositions(entries, 30))]
    strangers = [Entry(*fields, level="PBE") for fields in (*below, *moved, *unknown)]
    asked = [*entries, *strangers]
    together = hull.decomposition_energies(asked, exclude_polymorphs=exclude_polymorphs)
    single = [hull.decomposition_energy(e, exclude_polymorphs=exclude_polymorphs) for e in asked]
    np.testing.assert_allclose(together, single, rtol=0, atol=CLOSE)
    if not exclude_polymorphs:
        np.testing.assert_array_equal(hull.decomposition_energies(), together[: len(entries)])
        competing = hull.competing_decompositions(asked)
        energies = np.array([e.corrected_energy_per_atom for e in asked])
        found = [decomposition.energy_per_atom for decomposition in competing]
        np.testing.assert_allclose(energies - found, together, rtol=0, atol=CLOSE)
        for entry, decomposition in zip(asked, competing, strict=True):
            assert decomposition.products == approx(hull.competing_decomposition(entry).products)


def approx(products):
    return tuple((entry_id, formula, pytest.approx(amount, abs=1e-9)) for entry_id, formula, amount in products)


def unknown_compositions(entries: list[Entry], n: int) -> list[Composition]:
    rng = np.random.default_rng(0)
    elements = sorted({z for e in entries for z in e.composition.atomic_numbers})
    rows = [rng.choice(elements, rng.integers(2, 6), replace=False) for _ in range(n)]
    return [Composition.from_counts({int(z): int(rng.integers(5, 9)) for z in row}) for row in rows]


@pytest.mark.parametrize("exclude_polymorphs", [False, True])
def test_further_entries_are_left_out_for_all(exclude_polymorphs):
    entries = random_entries(3, n=60)
    hull = Hull(entries)
    stable = [e.id for e in hull.stable_entries() if e.composition.n_elements > 1]
    without = {*stable[::2], "phase-1", "element-19-1", "never-heard-of"}
    kept = [e for e in entries if e.id not in without]
    rest = Hull(kept)
    found = hull.decomposition_energies(entries, without=without, exclude_polymorphs=exclude_polymorphs)
    expected = rest.decomposition_energies(entries, exclude_polymorphs=exclude_polymorphs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)
    members = hull.decomposition_energies(without=without, exclude_polymorphs=exclude_polymorphs)
    np.testing.assert_array_equal(members, found)


def test_left_out_entries_and_unproven_answers_together(monkeypatch):
    entries = random_entries(3, n=60)
    without = {e.id for e in entries if e.composition.n_elements > 1 and int(e.id.split("-")[1]) % 3 == 0}
    expected = Hull(entries).decomposition_energies(without=without)
    monkeypatch.setattr(simplex, "_MAX_STEPS", 1)
    np.testing.assert_allclose(Hull(entries).decomposition_energies(without=without), expected, rtol=0, atol=CLOSE)


def test_members_lie_at_zero_to_the_last_digit_however_they_are_asked():
    entries = random_entries(13, n=400, n_elements=3)  # so many in one system that its facets would pay
    hull = Hull(entries)
    compositions, energies = [e.composition for e in entries], [e.energy_per_atom for e in entries]
    facets = hull.distances_from_hull(compositions, energies)
    above = hull.energies_above_hull()
    np.testing.assert_allclose(facets, above, rtol=0, atol=CLOSE)
    np.testing.assert_array_equal(hull.distances_from_hull(compositions, energies), above)
    assert (above == 0.0).sum() == len(hull.stable_entries(tolerance=0.0))


def test_without_the_last_form_of_an_element():
    hull = Hull(random_entries(4))
    z = next(iter(hull.elemental_references))
    with pytest.raises(MissingReferenceError, match="no elemental reference"):
        hull.decomposition_energies(without={f"element-{z}-1", f"element-{z}-2"})


def test_the_order_of_entries_changes_no_digit():
    entries = random_entries(5)
    order = np.random.default_rng(0).permutation(len(entries))
    one, other = Hull(entries), Hull([entries[i] for i in order])
    np.testing.assert_array_equal(one.decomposition_energies()[order], other.decomposition_energies())
    np.testing.assert_array_equal(one.energies_above_hull()[order], other.energies_above_hull())


def test_threads_change_no_digit(monkeypatch):
    monkeypatch.setattr("opengnome.hull.competition._BATCH_SIZE", 500)
    entries = random_entries(6)
    one, other = Hull(entries), Hull(entries)
    np.testing.assert_array_equal(one.decomposition_energies(), other.decomposition_energies(workers=3))
    compositions = unknown_compositions(entries, 50)
    np.testing.assert_array_equal(
        one.energies_per_atom_at(compositions), other.energies_per_atom_at(compositions, workers=2)
    )
    assert one.competing_decompositions(entries) == other.competing_decompositions(entries, workers=3)


def test_small_batches_change_no_answer(monkeypatch):
    entries = random_entries(6)
    expected = Hull(entries).decomposition_energies()
    monkeypatch.setattr("opengnome.hull.competition._BATCH_SIZE", 1)
    np.testing.assert_allclose(Hull(entries).decomposition_energies(), expected, rtol=0, atol=1e-12)


def test_what_the_batch_cannot_prove_the_linear_program_answers(monkeypatch):
    entries = random_entries(7)
    expected = Hull(entries).decomposition_energies()
    products = Hull(entries).competing_decompositions(entries)
    monkeypatch.setattr(simplex, "_MAX_STEPS", 2)
    np.testing.assert_allclose(Hull(entries).decomposition_energies(), expected, rtol=0, atol=CLOSE)
    for one, other in zip(Hull(entries).competing_decompositions(entries), products, strict=True):
        assert one.products == approx(other.products)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6])
def test_systems_asked_often_are_answered_by_facets_and_alike(k, monkeypatch):
    entries = random_entries(8, n_elements=6)
    elements = sorted({z for e in entries for z in e.composition.atomic_numbers})[:k]
    rng = np.random.default_rng(k)
    compositions = [Composition.from_counts({z: int(rng.integers(1, 30)) for z in elements}) for _ in range(80)]
    often = Hull(entries)
    energies = often.energies_per_atom_at(compositions)
    assert (tuple(elements) in often._systems) == (2 <= k <= 5)
    monkeypatch.setattr("opengnome.hull.hull._FACETS_FROM", 1000)
    np.testing.assert_allclose(energies, Hull(entries).energies_per_atom_at(compositions), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("n_elements", [8, 9, 12])
def test_systems_of_many_elements(n_elements):
    entries = random_entries(9, n=150, n_elements=n_elements, widest=n_elements)
    elements = sorted({z for e in entries for z in e.composition.atomic_numbers})
    composition = Composition.from_counts({z: i % 3 + 1 for i, z in enumerate(elements)})
    expected = brute_force(entries, composition)
    hull = Hull(entries)
    assert hull.energies_per_atom_at([composition])[0] == pytest.approx(expected, abs=CLOSE)
    assert hull.energy_per_atom_at(composition) == pytest.approx(expected, abs=1e-8)
    above = hull.energies_above_hull()
    for i in np.random.default_rng(0).permutation(len(entries))[:20]:
        energy = entries[i].energy_per_atom - brute_force(entries, entries[i].composition)
        assert above[i] == pytest.approx(energy, abs=CLOSE)


def test_a_hull_of_arrays_equals_a_hull_of_objects():
    entries = random_entries(10)
    table = EntryTable.from_arrays(
        [e.id for e in entries],
        CompositionArrays.from_compositions([e.composition for e in entries]),
        [e.energy_per_atom for e in entries],
        level="PBE",
    )
    arrays, objects = Hull.from_table(table), Hull(entries)
    np.testing.assert_array_equal(arrays.decomposition_energies(), objects.decomposition_energies())
    assert arrays.entries == objects.entries
    assert arrays.digest == objects.digest
    assert arrays.stable_entries() == objects.stable_entries()
    assert all(e in arrays for e in entries)


def test_insertion_keeps_what_is_known_and_equals_a_fresh_hull():
    entries = random_entries(11)
    later = [Entry(f"later-{e.id}", e.composition, e.energy_per_atom - 0.1, level="PBE") for e in entries[20:30]]
    old = Hull(entries)
    before = old.decomposition_energies()
    new = old.with_entries(later[:5]).with_entries(later[5:])
    touched = {e.composition.atomic_numbers for e in later}
    unknown = np.isnan(new._competing)[new._index.stoichiometry_of]
    reached = [any(set(part) <= set(e.composition.atomic_numbers) for part in touched) for e in new.entries]
    np.testing.assert_array_equal(unknown, reached)  # asked again: what contains a touched system, and only that
    fresh = Hull(new.entries)
    np.testing.assert_allclose(new.decomposition_energies(), fresh.decomposition_energies(), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(old.decomposition_energies(), before)


def test_nothing_new_changes_nothing():
    old = Hull(random_entries(12))
    old.decomposition_energies()
    new = old.with_entries([])
    assert not np.isnan(new._competing).any()
    assert new.digest == old.digest


def test_elements_alone():
    hull = Hull(
        [Entry("a", Composition(((3, 1),)), -1.0, level="x"), Entry("b", Composition(((3, 4),)), -1.5, level="x")]
    )
    assert hull.energies_above_hull().tolist() == [0.5, 0.0]
    assert hull.decomposition_energies().tolist() == [0.5, -0.5]
    assert hull.decomposition_energies(exclude_polymorphs=True).tolist() == [0.5, 0.0]
    assert hull.competing_decompositions(hull.entries[:1])[0].products == (("b", "Li", 1.0),)


def test_bad_questions_are_refused(lithium_iron_oxides, entry):
    with pytest.raises(HullError, match="level 'r2SCAN'"):
        lithium_iron_oxides.decomposition_energies([entry("a", "Li2O", -4.9, level="r2SCAN")])
    with pytest.raises(HullError, match="both must be finite"):
        lithium_iron_oxides.competing_decompositions([entry("a", "Li2O", float("nan"))])
    message = "no elemental reference for Na, Cl"
    salt = entry("salt", "NaCl", -3.0)
    for question in (
        lambda: lithium_iron_oxides.decomposition_energies([salt]),
        lambda: lithium_iron_oxides.competing_decompositions([salt]),
        lambda: lithium_iron_oxides.energies_per_atom_at([salt.composition]),
        lambda: lithium_iron_oxides.formation_energies([salt.composition], [0.0]),
        lambda: lithium_iron_oxides.with_entries([salt]).energies_above_hull(),
    ):
        with pytest.raises(MissingReferenceError, match=message):
            question()


def test_no_questions_have_no_answers(lithium_iron_oxides):
    assert lithium_iron_oxides.decomposition_energies([]).shape == (0,)
    assert lithium_iron_oxides.competing_decompositions([]) == []
    assert lithium_iron_oxides.energies_per_atom_at([]).shape == (0,)


def test_an_empty_table_is_no_hull():
    empty = EntryTable.from_arrays([], CompositionArrays.from_compositions([]), [], level="x")
    with pytest.raises(HullError, match="at least one entry"):
        Hull.from_table(empty)
