"""One row per entry, and a reason for each that cannot be answered."""

import math

import pytest

from opengnome.crystals import Composition
from opengnome.errors import HullError
from opengnome.hull import Hull, hull_table
from opengnome.hull.table import products_text


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


def test_rows_equal_the_answers_one_by_one(lithium_iron_oxides, entry):
    hull = lithium_iron_oxides
    entries = [
        *hull.entries,
        entry("lifeo2", "LiFeO2", -7.3),  # recalculated under a known id
        entry("fe2o3", "LiFeO2", -7.1),  # a known id at another composition
        entry("between", "LiFe2O4", -7.0),
        entry("iron", "Fe4", -8.4),
    ]
    for row, asked in zip(hull_table(hull, entries, workers=2), entries, strict=True):
        assert row["status"] == "ok"
        formation = hull.formation_energy_per_atom(asked.composition, asked.energy_per_atom)
        assert row["formation_energy_per_atom"] == pytest.approx(formation, abs=1e-12)
        assert row["energy_above_hull"] == pytest.approx(hull.energy_above_hull(asked), abs=1e-12)
        assert row["decomposition_energy"] == pytest.approx(hull.decomposition_energy(asked), abs=1e-12)
        assert row["decomposition_products"] == products_text(hull.competing_decomposition(asked))


def test_no_entries_no_rows(lithium_iron_oxides):
    assert hull_table(lithium_iron_oxides, []) == []


@pytest.mark.parametrize("energy", [math.nan, math.inf, -math.inf])
def test_a_row_without_an_energy_does_not_stop_the_others(lithium_iron_oxides, entry, energy):
    rows = hull_table(lithium_iron_oxides, [entry("bad", "Li2O", energy), entry("good", "Li2O", -4.8)])
    assert [row["status"] for row in rows] == ["not_finite", "ok"]
    assert rows[0]["reason"].startswith("entry 'bad' (Li2O) has the energy")
    assert rows[0]["decomposition_energy"] is None
    assert rows[1]["energy_above_hull"] == pytest.approx(0.1)


def test_a_row_that_defeats_the_solver_does_not_stop_the_others(lithium_iron_oxides, entry, monkeypatch):
    answer = Hull.competing_decompositions

    def fail(self, entries, **options):
        if any(e.id == "bad" for e in entries):
            raise HullError("HiGHS ended with 'unknown'")
        return answer(self, entries, **options)

    monkeypatch.setattr(Hull, "competing_decompositions", fail)
    rows = hull_table(lithium_iron_oxides, [entry("bad", "Li2O", -4.0), entry("good", "Li2O", -4.8)])
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert rows[0]["reason"] == "HiGHS ended with 'unknown'"
    assert rows[0]["energy_above_hull"] is None
    assert list(rows[0]) == list(rows[1])


def test_equal_amounts_are_written_by_id(entry):
    hull = Hull([entry("li", "Li", 0.0), entry("b", "LiF3", -2.0), entry("a", "Li3F", -2.0), entry("f", "F2", 0.0)])
    products = hull.decompose(Composition.from_formula("LiF")).products
    assert [product[0] for product in products] == ["a", "b"]
