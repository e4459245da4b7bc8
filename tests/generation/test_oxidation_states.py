from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.generation.ions import species_table
from opengnome.generation.oxidation import assign_ions, oxidation_states

SYMBOL_CHOICE = ("H", "Li", "N", "O", "F", "Na", "P", "S", "Cl", "Ti", "V", "Mn", "Fe", "Cu", "Se", "Nb", "I", "W")


def by_symbol(formula):
    states = oxidation_states(Composition.from_formula(formula))
    return None if states is None else {SYMBOLS[z]: charge for z, charge in states.items()}


@pytest.mark.parametrize(
    ("formula", "states"),
    [
        ("NaCl", {"Na": 1, "Cl": -1}),
        ("LiFePO4", {"Li": 1, "Fe": 2, "P": 5, "O": -2}),
        ("Fe4O6", {"Fe": 3, "O": -2}),
        ("FeSO4", {"Fe": 2, "S": 6, "O": -2}),
        ("La2O2S", {"La": 3, "O": -2, "S": -2}),
        ("NH4Cl", {"N": -3, "H": 1, "Cl": -1}),
        ("PtO2", {"Pt": 4, "O": -2}),
        ("CrVO4", {"Cr": 3, "V": 5, "O": -2}),
        ("FeTiO3", {"Fe": 2, "Ti": 4, "O": -2}),
    ],
)
def test_known_compounds(formula, states):
    assert by_symbol(formula) == states


@pytest.mark.parametrize("formula", ["Fe", "NiAl", "Cu3Au", "Fe3O4", "Na2O2", "Bi2Te3", "Na2Cl"])
def test_no_neutral_assignment(formula):
    assert by_symbol(formula) is None


@given(
    st.dictionaries(
        st.sampled_from([ATOMIC_NUMBERS[symbol] for symbol in SYMBOL_CHOICE]),
        st.integers(1, 6),
        min_size=2,
        max_size=4,
    )
)
@settings(max_examples=80, deadline=None)
def test_the_search_finds_the_most_frequent_neutral_assignment(counts):
    table = species_table()
    composition = Composition.from_counts(counts)
    neutral = [
        float(np.log(table.frequencies[list(ions)]).sum())
        for ions in product(*(table.states[z] for z, _ in composition.counts))
        if sum(int(table.charges[i]) * n for i, (_, n) in zip(ions, composition.counts, strict=True)) == 0
    ]
    found = assign_ions(composition)
    assert (found is None) == (not neutral)
    if found is not None:
        assert [int(table.atomic_numbers[i]) for i in found] == list(composition.atomic_numbers)
        assert sum(int(table.charges[i]) * n for i, (_, n) in zip(found, composition.counts, strict=True)) == 0
        assert np.log(table.frequencies[list(found)]).sum() == pytest.approx(max(neutral))
