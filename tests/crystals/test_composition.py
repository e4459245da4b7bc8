import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Composition, chemical_system, reduced_formula
from opengnome.crystals.elements import (
    ATOMIC_MASSES,
    ATOMIC_NUMBERS,
    ELECTRONEGATIVITIES,
    MAX_ATOMIC_NUMBER,
    RADIOACTIVE,
    SYMBOLS,
)
from opengnome.crystals.io import read_table
from opengnome.errors import InvalidCrystalError

pymatgen_core = pytest.importorskip("pymatgen.core")

counts_by_element = st.dictionaries(st.integers(1, MAX_ATOMIC_NUMBER), st.integers(1, 24), min_size=1, max_size=6)


def as_pymatgen(counts: dict[int, int]):
    return pymatgen_core.Composition({SYMBOLS[z]: n for z, n in counts.items()})


@pytest.mark.parametrize("z", range(1, MAX_ATOMIC_NUMBER + 1))
@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")  # NaN is what this test asks about
def test_elements_equal_pymatgen(z):
    element = pymatgen_core.Element.from_Z(z)
    assert SYMBOLS[z] == element.symbol
    assert ELECTRONEGATIVITIES[z] == pytest.approx(element.X, nan_ok=True)
    assert ATOMIC_MASSES[z] == pytest.approx(float(element.atomic_mass), abs=1e-9)


def test_radioactive_elements_are_those_without_a_stable_isotope():
    assert {ATOMIC_NUMBERS[s] for s in ("Tc", "Pm", "U", "Po", "Og")} <= RADIOACTIVE
    assert not {ATOMIC_NUMBERS[s] for s in ("Bi", "Pb", "Ru", "Nd", "La")} & RADIOACTIVE
    assert len(RADIOACTIVE) == 118 - 81  # hydrogen to bismuth without technetium and promethium


@settings(deadline=None, max_examples=300)
@given(counts_by_element)
@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")
def test_formula_equals_pymatgen(counts):
    ours, theirs = Composition.from_counts(counts), as_pymatgen(counts)
    assert ours.reduced_formula == theirs.reduced_formula
    assert ours.chemical_system == theirs.chemical_system
    assert ours.anonymous_formula == theirs.anonymized_formula.replace(" ", "")


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([1, 3, 11, 19, 37, 55, 8, 7, 9, 17, 16, 15, 6, 26, 14, 5, 53, 54, 34]),
        st.integers(1, 12),
        min_size=1,
        max_size=5,
    )
)
@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")
def test_formula_equals_pymatgen_where_polyanions_and_peroxides_are(counts):
    assert Composition.from_counts(counts).reduced_formula == as_pymatgen(counts).reduced_formula


def test_formulas_equal_the_column_of_materials_project(shared_data):
    table = read_table(shared_data / "mp_crystals.parquet")
    numbers, offsets = table.flat_atomic_numbers, table.offsets
    ours = [reduced_formula(numbers[offsets[i] : offsets[i + 1]]) for i in range(len(table))]
    assert len(ours) == 86_462
    assert ours == table.reduced_formulas


@settings(deadline=None, max_examples=200)
@given(counts_by_element)
def test_formula_reads_back_to_the_same_stoichiometry(counts):
    composition = Composition.from_counts(counts)
    assert Composition.from_formula(composition.reduced_formula).reduced == composition.reduced


@settings(deadline=None, max_examples=100)
@given(counts_by_element, st.integers(2, 5))
def test_multiples_share_everything_reduced(counts, factor):
    one = Composition.from_counts(counts)
    many = Composition.from_counts({z: factor * n for z, n in counts.items()})
    assert many != one
    assert many.reduced == one.reduced
    assert many.reduced_formula == one.reduced_formula
    assert many.n_atoms == factor * one.n_atoms
    assert many.fractions == pytest.approx(one.fractions)
    assert math.fsum(one.fractions.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("formula", "counts"),
    [
        ("LiFePO4", {3: 1, 26: 1, 15: 1, 8: 4}),
        ("Ca3(PO4)2", {20: 3, 15: 2, 8: 8}),
        ("Na2 Cl2", {11: 2, 17: 2}),
        ("K4(Fe(CN)6)3", {19: 4, 26: 3, 6: 18, 7: 18}),
        ("CCC", {6: 3}),
    ],
)
def test_from_formula(formula, counts):
    assert Composition.from_formula(formula) == Composition.from_counts(counts)


@pytest.mark.parametrize(
    ("formula", "part"),
    [
        ("NaXx2", "'Xx' is not an element"),
        ("Na0.5Cl", "'.5Cl'"),
        ("(NaCl", "open parenthesis"),
        ("NaCl)2", "never opened"),
        ("", "at least one atom"),
        ("Na0Cl", "count 0"),
        ("nacl", "'nacl'"),
        ("Na3000000000Cl", "Na has count 3000000000; counts are positive integers up to 2147483647"),
        (f"Na{10**20}Cl", "an amount of 21 digits; amounts are at most 2147483647"),
        ("(Na2147483647)2147483647", "counts are positive integers up to 2147483647"),
        ("(" * 500 + "Na" + ")2147483647" * 500, "counts are positive integers up to 2147483647"),
        ("Na" + "9" * 5000, "an amount of 5000 digits"),  # Python itself refuses to read such a number
    ],
)
def test_a_bad_formula_is_named(formula, part):
    with pytest.raises(InvalidCrystalError) as caught:
        Composition.from_formula(formula)
    assert part in str(caught.value)


@pytest.mark.parametrize("counts", [{}, {0: 1}, {119: 1}, {8: -1}, {8: 1.5}, {8: 2**31}])
def test_counts_that_are_no_composition(counts):
    with pytest.raises(InvalidCrystalError):
        Composition.from_counts(counts)


def test_chemical_system_is_alphabetical_and_without_repeats():
    assert chemical_system([26, 8, 3, 8]) == "Fe-Li-O"
    assert reduced_formula(np.array([8, 38, 8, 22, 8])) == "SrTiO3"
