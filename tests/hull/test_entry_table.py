"""Entries as arrays: the same entries as the objects, and every bad row refused with its reason."""

import math

import numpy as np
import pytest

from opengnome.crystals import Composition
from opengnome.errors import HullError
from opengnome.hull import Entry
from opengnome.hull.composition_arrays import CompositionArrays
from opengnome.hull.entry_table import EntryTable


def compositions(*formulas: str) -> CompositionArrays:
    return CompositionArrays.from_compositions([Composition.from_formula(text) for text in formulas])


@pytest.fixture
def table() -> EntryTable:
    return EntryTable.from_arrays(
        ["a", "b", "c"],
        compositions("Li2O", "Fe2O3", "Li4O2"),
        [-4.0, -8.0, -3.9],
        level="PBE",
        corrections_per_atom=[-0.1, 0.0, -0.2],
        correction_scheme=["MP2020", "none", "MP2020"],
        source="test",
    )


def test_entries_are_made_when_asked_for(table):
    last = Entry(
        "c",
        Composition.from_formula("Li4O2"),
        -3.9,
        correction_per_atom=-0.2,
        correction_scheme="MP2020",
        level="PBE",
        source="test",
    )
    assert table.entry(2) == last
    assert table.entries[2] == last
    assert table.given is None
    assert table.energies.tolist() == [e.corrected_energy_per_atom for e in table.entries]


def test_a_table_of_objects_keeps_them(table):
    again = EntryTable.from_entries(table.entries)
    assert again.entries == table.entries
    assert again.entry(1) is table.entries[1]
    assert (again.ids, again.correction_schemes, again.sources) == (table.ids, table.correction_schemes, table.sources)


def test_one_correction_for_all():
    table = EntryTable.from_arrays(["a", "b"], compositions("Li", "O"), [1.0, 2.0], level="x", corrections_per_atom=0.5)
    assert table.energies.tolist() == [1.5, 2.5]


def test_extended_tables_hold_both(table):
    more = EntryTable.from_entries([Entry("d", Composition.from_formula("O2"), 0.0, level="PBE", source="other")])
    both = table.extended(more)
    assert both.entries == (*table.entries, *more.entries)
    assert both.row_of_id == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert len(table) == 3
    objects = EntryTable.from_entries(table.entries).extended(more)
    assert objects.given == both.entries


@pytest.mark.parametrize(
    ("ids", "formulas", "energies", "corrections", "scheme"),
    [
        (["a"], ["Li", "O"], [0.0], 0.0, "none"),
        (["a", "b"], ["Li", "O"], [0.0], 0.0, "none"),
        (["a", "b"], ["Li", "O"], [[0.0], [0.0]], 0.0, "none"),
        (["a", "b"], ["Li", "O"], [0.0, 0.0], [0.0], "none"),
        (["a", "b"], ["Li", "O"], [0.0, 0.0], 0.0, ["none"]),
    ],
)
def test_lengths_must_match(ids, formulas, energies, corrections, scheme):
    with pytest.raises(HullError, match="give one of each per id"):
        EntryTable.from_arrays(
            ids,
            compositions(*formulas),
            energies,
            level="x",
            corrections_per_atom=corrections,
            correction_scheme=scheme,
        )


@pytest.mark.parametrize("energy", [math.nan, math.inf, -math.inf])
def test_a_non_finite_energy_is_refused(energy):
    with pytest.raises(HullError, match=r"entry 'b' \(O2\) has the energy .* both must be finite"):
        EntryTable.from_arrays(["a", "b"], compositions("Li", "O"), [0.0, energy], level="x")
    with pytest.raises(HullError, match=r"entry 'b' \(O2\) has the energy 0.0 and the correction"):
        EntryTable.from_arrays(
            ["a", "b"], compositions("Li", "O"), [0.0, 0.0], level="x", corrections_per_atom=[0.0, energy]
        )


def test_two_energies_for_one_id_are_refused(table):
    message = r"two entries have the id 'a' \(Li2O and O2\) with the energies -4.1 and -1 eV/atom; ids are unique"
    more = EntryTable.from_arrays(["z", "a"], compositions("Li", "O"), [0.0, -1.0], level="PBE")
    with pytest.raises(HullError, match=message):
        table.extended(more)
    with pytest.raises(HullError, match=message):
        EntryTable.from_entries([*table.entries, *more.entries])


def test_another_level_is_refused(table):
    more = EntryTable.from_arrays(["z"], compositions("Li"), np.zeros(1), level="r2SCAN")
    with pytest.raises(HullError, match="entry 'z' is of level 'r2SCAN', the hull of level 'PBE'"):
        table.extended(more)
