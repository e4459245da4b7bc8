from math import comb

import numpy as np
import pytest

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.errors import SettingsError
from opengnome.generation.charge_rule import accepted, accepts
from opengnome.generation.composition_enumeration import (
    enumerate_by_charges,
    enumerate_by_filter,
    enumerate_counts,
    n_count_vectors,
    reduced_counts,
)
from opengnome.generation.composition_settings import LITERAL_RULE, CompositionRuleSettings, CompositionSettings
from opengnome.generation.composition_systems import n_systems, shuffled, system_at
from opengnome.generation.compositions import (
    COMPOSITION_FATES,
    composition_batches,
    count_systems,
    draw_counts,
    formula_table,
    system_compositions,
    system_seed,
)
from opengnome.generation.novelty import composition_keys, is_known, known_composition_keys
from opengnome.generation.settings import GenerationSettings
from opengnome.settings import validate

RULE = CompositionRuleSettings()
NOTHING = np.array([], dtype=np.uint64)
ELEMENTS = tuple(ATOMIC_NUMBERS[s] for s in "Li O Na Si Cl Fe Ba Bi".split())
SMALL = CompositionSettings(max_elements=3, max_atoms=9)


def formulas_of(batches):
    return [batch.composition(row).reduced_formula for batch in batches for row in range(len(batch))]


def numbers(*symbols):
    return np.array([ATOMIC_NUMBERS[symbol] for symbol in symbols])


@pytest.mark.parametrize("max_between", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "symbols",
    ["Li Si", "Na Cl", "Fe O", "Au Cs", "Fe Ti O", "H C N", "Ga In Sb", "Cu Bi S O", "Fe Mn V O", "Li Na K N O"],
)
def test_the_dynamic_program_equals_the_filter(symbols, max_between):
    rule = CompositionRuleSettings(max_between=max_between, max_metallic_elements=2)
    elements = numbers(*symbols.split())
    expected = enumerate_by_filter(elements, max_atoms=14, rule=rule)
    np.testing.assert_array_equal(enumerate_by_charges(elements, max_atoms=14, rule=rule), expected)
    np.testing.assert_array_equal(enumerate_counts(elements, max_atoms=14, rule=rule), expected)


@pytest.mark.parametrize(
    "change", [{"limit_anions": False}, {"limit_cations": False}, {"electronegativity_order": False}]
)
def test_the_dynamic_program_equals_the_filter_with_a_gate_open(change):
    rule = CompositionRuleSettings(**change)
    rng = np.random.default_rng(5)
    for _ in range(6):
        elements = rng.choice(np.arange(1, 84), 4, replace=False)
        np.testing.assert_array_equal(
            enumerate_by_charges(elements, max_atoms=10, rule=rule),
            enumerate_by_filter(elements, max_atoms=10, rule=rule),
        )


def test_lithium_silicides():
    found = {tuple(counts) for counts in enumerate_counts(numbers("Li", "Si"), max_atoms=20, rule=RULE).tolist()}
    assert {(15, 4), (1, 1), (12, 7), (7, 3), (13, 4)} <= found
    assert (17, 4) not in {tuple(c) for c in enumerate_counts(numbers("Li", "Si"), max_atoms=21, rule=RULE).tolist()}
    chlorides = enumerate_counts(numbers("Na", "Cl"), max_atoms=20, rule=RULE).tolist()
    assert chlorides == [[1, 1]]


def test_count_vectors_are_all_of_them_once():
    for size, most in ((1, 4), (2, 7), (3, 8), (4, 9)):
        grid = np.stack(np.meshgrid(*[np.arange(1, most + 1)] * size, indexing="ij"), axis=-1).reshape(-1, size)
        grid = grid[grid.sum(axis=1) <= most]
        assert len(grid) == n_count_vectors(size, most)
        np.testing.assert_array_equal(reduced_counts(size, most), grid[np.gcd.reduce(grid, axis=1) == 1])


def test_the_literal_rule_enumerates_everything():
    elements = numbers("Na", "O", "He")
    assert len(enumerate_counts(elements[:2], max_atoms=10, rule=LITERAL_RULE)) == len(reduced_counts(2, 10))
    assert len(enumerate_counts(elements, max_atoms=10, rule=LITERAL_RULE)) == 0
    assert len(enumerate_counts(elements[:1], max_atoms=10, rule=RULE)) == 1


def test_systems_by_number():
    systems = [system_at(i, ELEMENTS, 2, 4) for i in range(n_systems(len(ELEMENTS), 2, 4))]
    assert len(systems) == len(set(systems)) == comb(8, 2) + comb(8, 3) + comb(8, 4)
    assert [len(s) for s in systems] == sorted(len(s) for s in systems)
    assert systems[:7] == [(ELEMENTS[0], z) for z in ELEMENTS[1:]]
    assert systems[-1] == ELEMENTS[-4:]
    for wrong in (-1, len(systems)):
        with pytest.raises(SettingsError, match="must be from 0"):
            system_at(wrong, ELEMENTS, 2, 4)


@pytest.mark.parametrize("total", [1, 2, 3, 154, 1000])
def test_shuffling_is_a_permutation(total):
    order = [shuffled(i, total, seed=4) for i in range(total)]
    assert sorted(order) == list(range(total))
    if total > 100:
        assert order != [shuffled(i, total, seed=5) for i in range(total)]
        assert abs(np.corrcoef(order, np.arange(total))[0, 1]) < 0.3


def test_shuffling_needs_no_table():
    total = 10**15
    assert len({shuffled(i, total, seed=1) for i in range(200)}) == 200
    assert max(shuffled(i, total, seed=1) for i in range(200)) < total


def test_every_formula_of_the_stream_is_new_plausible_and_unique():
    known = known_composition_keys(frozenset({"NaCl", "Li2O", "Fe2O3", "BaFe2O4"}))
    batches = list(composition_batches(SMALL, ELEMENTS, known_keys=known, seed=1, systems_per_batch=10))
    found = formulas_of(batches)
    assert len(found) == len(set(found)) > 500
    assert not {"NaCl", "Li2O", "Fe2O3", "BaFe2O4"} & set(found)
    assert {"Na2O2", "Fe3O4", "LiFeO2", "NaBi"} <= set(found)
    for batch in batches:
        assert accepted(batch.atomic_numbers, batch.counts, SMALL.rule).all()
        assert (batch.counts.sum(axis=1) <= SMALL.max_atoms).all()
        assert batch.fates["proposed"] == sum(batch.fates[name] for name in COMPOSITION_FATES)
        assert not is_known(batch.keys, known).any()
    fates = {name: sum(batch.fates[name] for batch in batches) for name in ("proposed", *COMPOSITION_FATES)}
    assert fates["proposed"] == 28 * len(reduced_counts(2, 9)) + 56 * len(reduced_counts(3, 9))
    assert fates["composition already known"] == 4
    assert fates["kept"] == len(found)


@pytest.mark.parametrize("order", ["listed", "shuffled"])
def test_the_stream_is_the_same_for_any_number_of_shards(order):
    settings = SMALL.model_copy(update={"order": order, "max_per_system": 5})

    def run(n_shards, **options):
        return {
            (int(place), batch.composition(row).reduced_formula)
            for shard in range(n_shards)
            for batch in composition_batches(
                settings, ELEMENTS, known_keys=NOTHING, seed=3, shard=shard, n_shards=n_shards, **options
            )
            for row, place in enumerate(batch.positions)
        }

    whole = run(1)
    assert whole == run(3, systems_per_batch=1) == run(7, systems_per_batch=100)
    assert len({place for place, _ in whole}) > 70


def test_a_shard_is_taken_up_where_it_stopped():
    options = {"known_keys": NOTHING, "seed": 2, "shard": 1, "n_shards": 2, "systems_per_batch": 8}
    batches = list(composition_batches(SMALL, ELEMENTS, **options))
    again = list(composition_batches(SMALL, ELEMENTS, start=batches[1].next_start, **options))
    assert formulas_of(batches[2:]) == formulas_of(again)
    assert batches[-1].next_start == count_systems(SMALL, ELEMENTS) // 2
    assert list(composition_batches(SMALL, ELEMENTS, start=batches[-1].next_start, **options)) == []


def test_the_cap_draws_by_seed_from_the_same_formulas():
    capped = SMALL.model_copy(update={"max_per_system": 4})
    system = numbers("Li", "Fe", "O").tolist()
    everything, fates = system_compositions(system, SMALL, known_keys=NOTHING, seed=1)
    four, capped_fates = system_compositions(system, capped, known_keys=NOTHING, seed=1)
    other, _ = system_compositions(system, capped, known_keys=NOTHING, seed=2)
    assert len(four) == 4
    assert capped_fates["over the cap per system"] == fates["kept"] - 4
    assert {tuple(c) for c in four.tolist()} < {tuple(c) for c in everything.tolist()}
    assert four.tolist() != other.tolist()
    assert system_seed(1, system) == system_seed(1, system[::-1]) != system_seed(2, system)


def test_large_systems_are_drawn():
    settings = CompositionSettings(min_elements=6, max_elements=6, max_atoms=60, n_draws=3000)
    system = numbers("Li", "Na", "Fe", "P", "O", "F").tolist()
    first, fates = system_compositions(system, settings, known_keys=NOTHING, seed=1)
    second, _ = system_compositions(system, settings, known_keys=NOTHING, seed=1)
    assert first.tolist() == second.tolist()
    assert 20 < len(first) < fates["proposed"] <= 3000
    assert accepted(np.broadcast_to(system, first.shape), first, settings.rule).all()
    assert first.sum(axis=1).max() <= 60


def test_every_count_vector_is_drawn_alike():
    drawn = draw_counts(3, 8, 4000, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, reduced_counts(3, 8))
    rng = np.random.default_rng(1)
    found = np.zeros(len(drawn))
    for _ in range(1500):
        for counts in draw_counts(3, 8, 1, rng):
            found[(drawn == counts).all(axis=1)] += 1
    expected = 1500 / n_count_vectors(3, 8)
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected)


def test_the_table_says_where_a_formula_comes_from():
    settings = CompositionSettings(max_elements=2, order="listed")
    (batch,) = composition_batches(settings, numbers("Li", "Si", "He").tolist(), known_keys=NOTHING, seed=9)
    row = [formula == "Li15Si4" for formula in formulas_of([batch])].index(True)
    table = formula_table(batch.take(np.array([row])), settings.rule, seed=9).to_pylist()
    assert table == [
        {
            "id": "comp-Li15Si4",
            "reduced_formula": "Li15Si4",
            "chemical_system": "Li-Si",
            "n_elements": 2,
            "n_atoms": 19,
            "method": "composition",
            "states": "Li1+ Si(-4..0)",
            "position": 0,
            "seed": 9,
        }
    ]
    empty = formula_table(batch.take(np.array([], dtype=int)), settings.rule, seed=9)
    assert empty.num_rows == 0
    assert empty.schema == formula_table(batch, settings.rule, seed=9).schema


def test_elements_without_states_take_no_part():
    allowed = np.flatnonzero(
        GenerationSettings(allowed_elements=("Na", "Cl", "He"), excluded_elements=()).element_mask()
    )
    assert count_systems(CompositionSettings(max_elements=2), allowed) == 1
    batches = composition_batches(CompositionSettings(max_elements=2), allowed, known_keys=NOTHING, seed=0)
    assert formulas_of(batches) == ["NaCl"]


@pytest.mark.parametrize(
    ("options", "elements", "message"),
    [
        ({"shard": 2, "n_shards": 2}, ELEMENTS, "shard=2"),
        ({"start": -1}, ELEMENTS, "start=-1"),
        ({}, (2, 11), "allow more elements"),
        ({}, (0, 11), "outside 1"),
    ],
)
def test_wrong_requests_are_refused_at_once(options, elements, message):
    with pytest.raises(SettingsError, match=message):
        composition_batches(SMALL, elements, known_keys=NOTHING, seed=0, **options)


def test_settings_must_not_decrease():
    with pytest.raises(SettingsError, match="must not decrease"):
        validate(CompositionSettings, {"min_elements": 4, "max_elements": 3})


def test_enumeration_and_rule_agree_on_known_compounds():
    for formula in ("Ca3(PO4)2", "KBH4", "Cu2ZnSnS4", "MgAl2O4", "Na2SO4", "Bi2Te3", "Fe3C"):
        composition = Composition.from_formula(formula)
        elements = np.array(composition.atomic_numbers)
        listed = enumerate_counts(elements, max_atoms=14, rule=RULE)
        assert accepts(composition, RULE)
        assert (listed == [count for _, count in composition.reduced.counts]).all(axis=1).any()
        keys = composition_keys(np.broadcast_to(elements, listed.shape), listed)
        assert len(np.unique(keys)) == len(listed)
