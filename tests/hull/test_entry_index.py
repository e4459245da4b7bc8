"""The sorted index: groups, look-ups and insertion equal what plain Python finds, whatever the keys do."""

import numpy as np
import pytest

import opengnome.hull.index as index_module
from opengnome.crystals import Composition
from opengnome.hull.composition_arrays import CompositionArrays
from opengnome.hull.entry_table import EntryTable
from opengnome.hull.index import EntryIndex


def random_table(n: int, seed: int, prefix: str = "p", n_elements: int = 9) -> EntryTable:
    """Compounds of 1-5 elements with polymorphs, formula units in multiples, and exact ties of energy."""
    rng = np.random.default_rng(seed)
    objects = []
    for _ in range(n):
        chosen = rng.choice(np.arange(19, 19 + n_elements), rng.integers(1, 6), replace=False)
        factor = int(rng.integers(1, 3))
        objects.append(Composition.from_counts({int(z): factor * int(rng.integers(1, 3)) for z in chosen}))
    energies = rng.integers(-4, 1, n) / 2
    ids = [f"{prefix}{i}" for i in rng.permutation(n)]
    return EntryTable.from_arrays(ids, CompositionArrays.from_compositions(objects), energies, level="x")


def assert_equal(one: EntryIndex, other: EntryIndex) -> None:
    """The same index in every array, whichever way the rows of the tables are numbered."""
    assert list(one.stoichiometries) == list(other.stoichiometries)
    names = [[index.table.ids[row] for row in index.order] for index in (one, other)]
    assert names[0] == names[1]
    for field in ("keys", "polymorph_starts", "system_keys", "system_starts", "lowest", "system_of"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)


@pytest.fixture(params=["good keys", "colliding keys", "keys colliding with later ones"])
def table(request, monkeypatch) -> EntryTable:
    """400 entries; the first weights may be so poor that keys collide: at once, or with elements yet to come."""
    good = index_module._weights

    def poor(attempt: int) -> tuple[np.ndarray, np.ndarray]:
        if attempt:
            return good(attempt)
        if request.param == "colliding keys":
            return tuple(weights % np.uint64(8) for weights in good(0))
        return tuple(np.concatenate([weights[:28], weights[19 : 19 + 91]]) for weights in good(0))

    if request.param != "good keys":
        monkeypatch.setattr(index_module, "_weights", poor)
    table = random_table(400, seed=0)
    assert EntryIndex.from_table(table).weights == (request.param == "colliding keys")
    return table


def test_groups_are_those_of_a_dictionary(table):
    index = EntryIndex.from_table(table)
    groups: dict[Composition, list[int]] = {}
    for row, composition in enumerate(table.compositions):
        groups.setdefault(composition.reduced, []).append(row)
    assert set(index.stoichiometries) == groups.keys()
    for number, stoichiometry in enumerate(index.stoichiometries):
        expected = sorted(groups[stoichiometry], key=lambda row: (table.energies[row], table.ids[row]))
        assert index.polymorphs(number).tolist() == expected
        assert index.lowest[number] == table.energies[expected[0]]
        assert tuple(index.systems[index.system_of[number]].atomic_numbers) == stoichiometry.atomic_numbers
    assert index.n_systems == len({composition.atomic_numbers for composition in groups})
    assert all(index.stoichiometry_of[index.polymorphs(n)].tolist() == [n] * len(index.polymorphs(n)) for n in range(9))


def test_the_order_of_rows_changes_nothing(table):
    rows = np.random.default_rng(1).permutation(len(table))
    shuffled = EntryTable.from_arrays(
        [table.ids[row] for row in rows], table.compositions.take(rows), table.energies[rows], level="x"
    )
    assert_equal(EntryIndex.from_table(table), EntryIndex.from_table(shuffled))


def test_compositions_are_found(table):
    index = EntryIndex.from_table(table)
    numbers = index.find(table.compositions)
    np.testing.assert_array_equal(numbers, index.stoichiometry_of)
    unknown = random_table(300, seed=5).compositions
    known = {composition: number for number, composition in enumerate(index.stoichiometries)}
    assert index.find(unknown).tolist() == [known.get(c.reduced, -1) for c in unknown]
    far = CompositionArrays.from_compositions([Composition.from_formula("U3Pu"), Composition.from_formula("H2O")])
    assert index.find(far).tolist() == [-1, -1]


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_subsystems_are_those_of_a_search(table, k):
    index = EntryIndex.from_table(table)
    rng = np.random.default_rng(k)
    elements = np.sort(np.array([rng.choice(np.arange(19, 28), k, replace=False) for _ in range(6)]), axis=1)
    asked, known = index.subsystems(elements)
    systems = [set(composition.atomic_numbers) for composition in index.systems]
    for row, own in enumerate(elements.tolist()):
        expected = {number for number, system in enumerate(systems) if system <= set(own)}
        assert set(known[asked == row].tolist()) == expected
    assert asked.tolist() == sorted(asked.tolist())
    assert len(set(zip(asked.tolist(), known.tolist(), strict=True))) == len(asked)


def test_systems_that_contain_others(table):
    index = EntryIndex.from_table(table)
    parts = [(19, 20), (21, 22, 25), (27,)]
    expected = [any(set(part) <= set(c.atomic_numbers) for part in parts) for c in index.systems]
    assert index.containing(parts).tolist() == expected
    assert not index.containing([]).any()
    assert not index.containing([(1,)]).any()


@pytest.mark.parametrize(("n", "n_elements"), [(0, 9), (1, 9), (150, 9), (150, 14)])
def test_insertion_equals_an_index_of_everything(table, n, n_elements):
    index = EntryIndex.from_table(table)
    new = random_table(n, seed=7, prefix="new", n_elements=n_elements)
    extended, moved, changed = index.extended(new)
    assert_equal(extended, EntryIndex.from_table(table.extended(new)))
    assert [extended.stoichiometries[m] for m in moved] == list(index.stoichiometries)
    lowest = {c: index.table.ids[index.polymorphs(i)[0]] for i, c in enumerate(index.stoichiometries)}
    now = {c: extended.table.ids[extended.polymorphs(i)[0]] for i, c in enumerate(extended.stoichiometries)}
    assert changed == {c.atomic_numbers for c, entry_id in now.items() if lowest.get(c) != entry_id}
    assert_equal(index, EntryIndex.from_table(table))  # the old one is as it was


def test_many_insertions_in_a_row(table):
    index = EntryIndex.from_table(table)
    for seed in range(5):
        index = index.extended(random_table(20, seed=seed, prefix=f"round-{seed}-"))[0]
    assert_equal(index, EntryIndex.from_table(index.table))
