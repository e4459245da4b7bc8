import numpy as np
import pyarrow as pa
import pytest

from opengnome.crystals import Crystal, CrystalTable, concatenate
from opengnome.errors import InvalidCrystalError


@pytest.fixture
def crystals(rock_salt, perovskite) -> list[Crystal]:
    copper = Crystal(3.6 * np.eye(3), np.zeros((1, 3)), np.array([29]))
    return [rock_salt, perovskite, copper]


@pytest.fixture
def table(crystals) -> CrystalTable:
    return CrystalTable.from_crystals(crystals, ["a", "b", "c"], {"energy": [1.0, 2.0, None]})


def test_a_table_gives_back_its_crystals(table, crystals):
    assert len(table) == 3
    assert list(table) == crystals
    assert table[-1] == crystals[2]
    assert table.ids == ["a", "b", "c"]
    assert table.reduced_formulas == ["NaCl", "SrTiO3", "Cu"]
    assert table.n_atoms.tolist() == [2, 5, 1]
    assert table.offsets.tolist() == [0, 2, 7, 8]
    assert table.column("energy") == [1.0, 2.0, None]
    with pytest.raises(IndexError):
        table[3]


def test_flat_arrays(table, crystals):
    assert table.lattices.shape == (3, 3, 3)
    assert table.flat_frac_coords == pytest.approx(np.concatenate([c.frac_coords for c in crystals]))
    assert table.flat_atomic_numbers.tolist() == [11, 17, 38, 22, 8, 8, 8, 29]


def test_parts_of_a_table_are_independent_of_the_rest(table, crystals):
    # Offsets are those of the part: a slice must not reach into the rows before it.
    assert list(table.slice(1)) == crystals[1:]
    assert list(table.slice(1, 2)) == [crystals[1]]
    assert list(table.slice(2).slice(0, 1)) == [crystals[2]]
    assert table.slice(1).flat_atomic_numbers.tolist() == [38, 22, 8, 8, 8, 29]
    assert list(table.take([2, 0, 2])) == [crystals[2], crystals[0], crystals[2]]
    assert list(table.filter([True, False, True])) == [crystals[0], crystals[2]]
    assert table.filter([True, False, True]).ids == ["a", "c"]
    empty = table.filter([False, False, False])
    assert len(empty) == 0
    assert list(empty) == []
    assert empty.flat_frac_coords.shape == (0, 3)


def test_concatenate_fills_missing_columns(table, crystals):
    both = concatenate([table, CrystalTable.from_crystals(crystals[:1], ["d"])])
    assert list(both) == [*crystals, crystals[0]]
    assert both.column("energy") == [1.0, 2.0, None, None]
    assert list(both.slice(2)) == [crystals[2], crystals[0]]


def test_with_column_adds_and_replaces(table):
    assert table.with_column("x", [1, 2, 3]).column("x") == [1, 2, 3]
    replaced = table.with_column("energy", [0.0, 0.0, 0.0])
    assert replaced.column("energy") == [0.0, 0.0, 0.0]
    assert replaced.column_names == table.column_names
    assert table.column("energy") == [1.0, 2.0, None]
    with pytest.raises(InvalidCrystalError, match="no column 'nothing'"):
        table.column("nothing")


def test_from_arrow_accepts_the_public_schema(table, crystals):
    arrow = table.arrow.rename_columns(["material_id" if n == "id" else n for n in table.column_names])
    frac = arrow["frac_coords"].cast(pa.list_(pa.float32()))
    arrow = arrow.set_column(arrow.column_names.index("frac_coords"), "frac_coords", frac)
    adopted = CrystalTable.from_arrow(arrow)
    assert adopted.ids == ["a", "b", "c"]
    assert adopted[1].frac_coords.dtype == np.float64
    assert adopted[1] == crystals[1]  # halves are exact in 32 bits


def test_from_arrow_names_what_is_missing(table):
    with pytest.raises(InvalidCrystalError, match="lattice"):
        CrystalTable.from_arrow(table.arrow.drop_columns(["lattice"]))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lattice", [[1.0] * 9, [1.0] * 8, [1.0] * 9]),
        ("atomic_numbers", [[11, 17], [38], [29]]),
        ("frac_coords", [[0.0] * 6, None, [0.0] * 3]),
    ],
)
def test_from_arrow_names_the_row_of_a_wrong_length(table, name, values):
    arrow = table.arrow.set_column(table.column_names.index(name), name, pa.array(values))
    with pytest.raises(InvalidCrystalError, match=rf"'{name}'.*row 1 \(id 'b'\)"):
        CrystalTable.from_arrow(arrow)


def test_from_crystals_refuses_other_lengths(crystals):
    with pytest.raises(InvalidCrystalError, match="2 ids for 3 crystals"):
        CrystalTable.from_crystals(crystals, ["a", "b"])


def test_an_empty_table():
    table = CrystalTable.from_crystals([])
    assert len(table) == 0
    assert table.offsets.tolist() == [0]
    assert table.lattices.shape == (0, 3, 3)
