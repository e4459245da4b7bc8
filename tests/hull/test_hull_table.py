"""One row per entry, and a reason for each that cannot be answered."""

import math

import pytest

from opengnome.hull import hull_table


def test_rows_answer_or_say_why(lithium_iron_oxides, entry):
    members = {e.id: e for e in lithium_iron_oxides.entries}
    entries = [
        members["lifeo2"],
        entry("nan", "Li2O", math.nan),
        entry("r2scan", "Li2O", -4.9, level="r2SCAN"),
        entry("salt", "NaCl", -3.0),
        entry("new", "LiFeO2", -7.2),
    ]
    rows = hull_table(lithium_iron_oxides, entries)
    assert [row["id"] for row in rows] == [e.id for e in entries]
    assert [row["status"] for row in rows] == ["ok", "not_finite", "wrong_level", "missing_reference", "ok"]
    assert "Na, Cl" in rows[3]["reason"]
    assert all(bool(row["reason"]) == (row["status"] != "ok") for row in rows)
    assert rows[3]["energy_above_hull"] is None
    assert len({tuple(row) for row in rows}) == 1  # the same columns in the same order
    assert rows[0]["energy_above_hull"] == 0.0
    assert rows[0]["decomposition_energy"] == pytest.approx(-0.05)
    assert rows[0]["decomposition_products"] == "1.00 LiFeO2 (lifeo2-beta)"
    assert rows[4]["energy_above_hull"] == pytest.approx(-0.2)
    assert rows[4]["reduced_formula"] == "LiFeO2"


def test_products_are_written_largest_first(lithium_iron_oxides, entry):
    row = hull_table(lithium_iron_oxides, [entry("new", "Li3FeO3", -5.0)])[0]
    assert row["decomposition_products"] == "0.57 LiFeO2 (lifeo2) + 0.43 Li2O (li2o)"
