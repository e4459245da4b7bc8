"""Hull entries of CSV and Parquet tables: columns, units, levels, and every way in which a row is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opengnome.crystals import Composition, Crystal, CrystalTable, with_atomic_numbers
from opengnome.crystals.io import write_table
from opengnome.datasets import (
    EnergyColumn,
    RejectedRow,
    elements_at_zero,
    entries_from_columns,
    read_entries,
    read_entry_table,
    read_references,
)
from opengnome.errors import SettingsError
from opengnome.hull import Entry, Hull


def csv(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_energies_per_atom_and_per_cell_are_the_same_entries(tmp_path: Path) -> None:
    per_atom = read_entries(csv(tmp_path, "id,formula,energy_per_atom\na,Li4O2,-4.5\n"))
    per_cell = read_entries(csv(tmp_path, "id,formula,energy\na,Li4O2,-27.0\n"))
    by_sites = read_entries(csv(tmp_path, "id,reduced_formula,n_atoms,energy\na,Li2O,6,-27.0\n"))
    (entry,) = per_atom.entries
    assert entry.energy_per_atom == -4.5
    assert entry.composition == Composition.from_formula("Li4O2")
    assert per_cell.entries == per_atom.entries
    assert by_sites.entries[0].energy_per_atom == pytest.approx(-4.5, abs=1e-15)
    assert {t.energy_kind for t in (per_atom, per_cell, by_sites)} == {"total"}


def test_formation_energies_bring_the_elements_at_zero(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "formula,formation_energy_per_atom\nLi2O,-2.0\nO2,0.0\nLi,0.1\n"))
    assert read.energy_kind == "formation"
    entries = read.hull_entries(read.levels[0])
    # Oxygen is there at zero; lithium only in a phase above its reference.
    assert [e.id for e in entries] == ["t-0", "t-1", "t-2", "reference-Li"]
    hull = Hull(entries)
    assert hull.formation_energy_per_atom(Composition.from_formula("Li2O"), -2.0) == -2.0
    assert elements_at_zero(entries, level="x") == ()


def test_ids_come_from_the_table_else_from_file_and_row(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "material_id,formula,energy_per_atom\nmp-1,Li,-1.9\n,O2,-4.9\n", "known.csv"))
    assert [e.id for e in read.entries] == ["mp-1", "known-1"]


def test_corrections_stay_apart_from_energies(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "id,formula,energy,correction\na,Fe2O3,-33.0,-2.0\nb,Fe,-8.0,0.0\n"))
    corrected, plain = read.entries
    assert corrected.energy_per_atom == pytest.approx(-6.6)
    assert corrected.correction_per_atom == pytest.approx(-0.4)
    assert corrected.corrected_energy_per_atom == pytest.approx(-7.0)
    assert {corrected.correction_scheme, plain.correction_scheme} == {"as given"}
    named = read_entries(
        csv(tmp_path, "formula,energy_per_atom,correction_per_atom,correction_scheme\nFeO,-6.0,-0.5,MP2020\n")
    )
    assert named.entries[0].correction_scheme == "MP2020"
    assert named.entries[0].correction_per_atom == -0.5
    none = read_entries(csv(tmp_path, "formula,energy_per_atom\nFeO,-6.0\n"))
    assert none.entries[0].correction_scheme == "none"


def test_levels(tmp_path: Path) -> None:
    unstated = csv(tmp_path, "formula,energy_per_atom\nLi,-1.9\n", "a.csv")
    assert read_entries(unstated).levels == ("table:a.csv",)
    assert read_entries(unstated, level="PBE").levels == ("PBE",)
    runs = csv(tmp_path, "formula,energy_per_atom,run_type\nLi,-1.9,GGA\nFeO,-6.0,GGA+U\nO2,-5.2,R2SCAN\n")
    assert read_entries(runs).levels == ("GGA_GGA+U", "R2SCAN")
    some = csv(tmp_path, "id,formula,energy_per_atom,level\na,Li,-1.9,PBE\nb,O2,-4.9,\n")
    (rejected,) = read_entries(some).rejected
    assert (rejected.id, rejected.status) == ("b", "missing_level")
    assert "--level" in rejected.reason
    assert read_entries(some, level="PBE").levels == ("PBE",)


@pytest.mark.parametrize(
    ("row", "status", "words"),
    [
        ("x,Li2O,", "no_energy", ["no energy"]),
        ("x,Li2O,nan", "not_finite", ["nan", "finite"]),
        ("x,Li2O,-inf", "not_finite", ["-inf", "finite"]),
        ("x,Li2O,deep", "not_finite", ["finite"]),
        ("x,,-4.5", "invalid_formula", ["no formula"]),
        ("x,Lx2O,-4.5", "invalid_formula", ["'Lx' is not an element"]),
        ("x,Li0.5O,-4.5", "invalid_formula", ["cannot read the formula 'Li0.5O'"]),
        ("x,Li2O0,-4.5", "invalid_formula", ["O has count 0"]),
        ("x,(Li2O,-4.5", "invalid_formula", ["open parenthesis"]),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_and_the_others_stay(
    tmp_path: Path, row: str, status: str, words: list[str]
) -> None:
    read = read_entries(csv(tmp_path, f"id,formula,energy_per_atom\na,Li,-1.9\n{row}\nb,O2,-4.9\n"))
    assert [r.id for r in read.rows] == ["a", "x", "b"]
    (rejected,) = read.rejected
    assert rejected.status == status
    assert all(word in rejected.reason for word in words), rejected.reason
    assert [e.id for e in read.entries] == ["a", "b"]


def test_what_did_not_converge_is_no_entry_and_other_words_mean_nothing(tmp_path: Path) -> None:
    rows = "a,Li,-1.9,converged\nx,Li2O,-4.5,timed_out\nb,O2,-4.9,published\n"
    read = read_entries(csv(tmp_path, f"id,formula,energy_per_atom,status\n{rows}"))
    (rejected,) = read.rejected
    assert (rejected.id, rejected.status) == ("x", "not_converged")
    assert "'timed_out'" in rejected.reason
    assert [e.id for e in read.entries] == ["a", "b"]


def test_a_formula_called_nan_is_sodium_nitride(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "id,formula,energy_per_atom\na,NaN,-3.0\n"))
    assert read.entries[0].reduced_formula == "NaN"


def test_two_energies_of_one_id_are_rejected_together_and_named(tmp_path: Path) -> None:
    text = "id,formula,energy_per_atom\na,Li2O,-4.5\nb,Li,-1.9\na,Li2O,-4.6\na,O2,-4.9\n"
    read = read_entries(csv(tmp_path, text))
    assert [e.id for e in read.entries] == ["b"]
    assert [r.status for r in read.rejected] == ["two_energies"] * 3
    for rejected in read.rejected:
        for words in ("Li2O -4.500000 eV/atom in row 1", "Li2O -4.600000 eV/atom in row 3", "O2 -4.900000", "row 4"):
            assert words in rejected.reason


def test_the_same_row_twice_is_kept_once(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "id,formula,energy\na,Li2O,-13.5\na,Li4O2,-27.0\n"))
    assert len(read.entries) == 1
    assert read.rejected == (RejectedRow("a", "duplicate", "the same as row 1, which is kept; leave one out", "Li2O"),)


def test_one_id_may_have_an_energy_at_each_level(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "id,formula,energy_per_atom,level\na,Li,-1.9,PBE\na,Li,-2.3,r2SCAN\n"))
    assert len(read.entries) == 2
    assert not read.rejected


def test_a_cell_that_contradicts_its_formula_is_rejected(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "id,formula,n_atoms,energy\na,Li2O,7,-27.0\nb,Li2O,6,-27.0\n"))
    (rejected,) = read.rejected
    assert "n_atoms is 7" in rejected.reason
    assert read.entries[0].energy_per_atom == pytest.approx(-4.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,formula\na,Li\n", "no column with energies"),
        ("id,energy_per_atom\na,-1\n", "no column with formulas"),
        ("reduced_formula,energy\nLi2O,-13\n", "add n_atoms, the formula of the cell"),
        ("formula,energy,energy_kind\nLi,-1,total\nLi2O,-6,formation\n", "holds total and formation energies"),
        ("a,b\n1\n", "no column with energies"),
        ("id,id,formula,energy_per_atom\na,b,Li,-1\n", r"several columns called \['id'\]"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_entries(csv(tmp_path, text))


def test_files_that_are_missing_or_of_no_format(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no file .*nowhere\.csv"):
        read_entries(tmp_path / "nowhere.csv")
    with pytest.raises(SettingsError, match=r"there is no file .*nowhere\.txt"):
        read_entries(tmp_path / "nowhere.txt")
    with pytest.raises(SettingsError, match=r"no known format; hull entries are read from \.parquet"):
        read_entries(csv(tmp_path, "x", "t.txt"))
    with pytest.raises(SettingsError, match="not a readable Parquet table"):
        read_entries(csv(tmp_path, "x", "t.parquet"))
    with pytest.raises(SettingsError, match="the format 'excel' is unknown; choose from table, gnome"):
        read_entries(csv(tmp_path, "formula,energy_per_atom\nLi,-1\n"), format="excel")


def test_energy_columns_of_other_names(tmp_path: Path) -> None:
    path = csv(tmp_path, "formula,e_form,E\nLi2O,-2.0,-13.5\n")
    formation = read_entries(path, energy="e_form:formation:atom")
    assert (formation.energy_kind, formation.entries[0].energy_per_atom) == ("formation", -2.0)
    total = read_entries(path, energy="E:total:cell")
    assert (total.energy_kind, total.entries[0].energy_per_atom) == ("total", -4.5)
    assert EnergyColumn.parse("dft_formation_energy_per_atom") == EnergyColumn(
        "dft_formation_energy_per_atom", "formation", True
    )
    with pytest.raises(SettingsError, match="the name does not say what it holds; write E:formation:atom"):
        read_entries(path, energy="E")
    with pytest.raises(SettingsError, match="no column 'F'"):
        read_entries(path, energy="F:total:atom")


def test_a_kind_of_energy_chooses_the_column(tmp_path: Path) -> None:
    path = csv(tmp_path, "formula,energy_per_atom,formation_energy_per_atom\nLi2O,-4.5,-2.0\n")
    assert read_entries(path).entries[0].energy_per_atom == -4.5
    assert read_entries(path, energy="formation").entries[0].energy_per_atom == -2.0
    with pytest.raises(SettingsError, match="no column with formation energies"):
        read_entries(csv(tmp_path, "formula,energy_per_atom\nLi,-1\n"), energy="formation")


def test_compressed_csv(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"formula,energy_per_atom\nLi,-1.9\n"))
    assert read_entries(path).entries[0].id == "t-0"


def test_our_own_crystal_tables(tmp_path: Path, rock_salt: Crystal) -> None:
    crystals = [rock_salt, with_atomic_numbers(rock_salt, (3, 9))]
    table = CrystalTable.from_crystals(crystals, ["a", "b"]).with_column("energy_per_atom", [-3.0, np.nan])
    write_table(tmp_path / "t.parquet", table)
    read = read_entries(tmp_path / "t.parquet")
    assert read.entries == (
        Entry("a", rock_salt.composition.reduced, -3.0, level="table:t.parquet", source="t.parquet"),
    )
    assert [(r.id, r.status, r.reduced_formula) for r in read.rejected] == [("b", "not_finite", "LiF")]
    crystal = read.details_of(1).crystal
    assert crystal is not None
    assert crystal.reduced_formula == "LiF"


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    text = '\ufeffid,formula,energy_per_atom,note\r\na,Li,-1.9,"two\r\nlines"\r\nb,O2,-4.9,\r\n'
    read = read_entries(csv(tmp_path, text))
    assert [e.id for e in read.entries] == ["a", "b"]


def test_columns_of_the_wrong_type_are_reasons(tmp_path: Path) -> None:
    columns = {"formula": [7, 8], "energy_per_atom": ["-1", "x"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert [r.reason for r in read_entries(tmp_path / "t.parquet").rejected] == [
        "the formula is 7, which is no text; write e.g. 'Li2O'",
        "the formula is 8, which is no text; write e.g. 'Li2O'",
    ]


def test_atomic_numbers_stand_for_a_formula(tmp_path: Path) -> None:
    columns = {"atomic_numbers": [[3, 3, 8], [200], None], "energy_per_atom": [-4.5, -1.0, -1.0]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    read = read_entry_table(tmp_path / "t.parquet")
    assert [e.reduced_formula for e in read.entries] == ["Li2O"]
    assert [r.status for r in read.rejected] == ["invalid_formula"] * 2


def test_columns_in_memory_need_no_file() -> None:
    read = entries_from_columns({"formula": ["Li", "O2"], "energy_per_atom": [-1.9, None]}, name="mine", level="PBE")
    assert (read.entries[0].id, read.entries[0].source) == ("mine-0", "mine")
    assert read.rejected[0].status == "no_energy"


def test_taking_rows_keeps_their_details(tmp_path: Path) -> None:
    read = read_entries(csv(tmp_path, "formula,energy_per_atom,run_type\nLi,-1.9,GGA\nFeO,-6.0,GGA+U\n"))
    (entry,) = read.take([1]).entries
    assert entry.reduced_formula == "FeO"
    assert read.take([1]).details_of(0).run_type == "GGA+U"


def test_references_from_a_mapping_and_from_a_table(tmp_path: Path) -> None:
    mapping = csv(tmp_path, '{"Li": -1.9, "O": -4.95}', "elements.json")
    found = read_references(mapping, level="PBE")
    assert [(e.id, e.energy_per_atom, e.level) for e in found] == [
        ("reference-Li", -1.9, "PBE"),
        ("reference-O", -4.95, "PBE"),
    ]
    table = csv(tmp_path, "id,formula,energy_per_atom\na,Li,-1.9\nb,Li2O,-4.5\n")
    assert [e.id for e in read_references(table, level="PBE")] == ["a"]
    other = csv(tmp_path, "id,formula,energy_per_atom,level\na,Li,-1.9,r2SCAN\n", "other.csv")
    with pytest.raises(SettingsError, match=r"no pure element of level 'PBE'.*r2SCAN"):
        read_references(other, level="PBE")
    with pytest.raises(SettingsError, match=r"\['reference-Li'\] are no finite numbers"):
        read_references(csv(tmp_path, '{"Li": NaN}', "bad.json"), level="PBE")


def test_the_hull_files_of_the_public_data(shared_data: Path) -> None:
    folder = shared_data / "hull_entries"
    for path in sorted(folder.glob("*.parquet")):
        raw = pq.read_table(path).to_pydict()
        read = read_entries(path)
        assert len(read.entries) == len(raw["id"])
        assert read.energy_kind == ("formation" if path.name.startswith("alexandria") else "total")
        corrected = np.array([e.corrected_energy_per_atom for e in read.entries])
        expected = (np.array(raw["energy"]) + np.array(raw["correction"])) / np.array(raw["n_atoms"])
        np.testing.assert_allclose(corrected, expected, rtol=0, atol=1e-12)
        if path.name == "Li-Fe-O.parquet":
            assert read.levels == ("GGA_GGA+U",)


def test_a_malformed_line_is_a_rejected_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,formula,energy_per_atom\na,Li,-1.9\nb,O2\nc,Li2O,-4.7,extra\nd,O2,-4.9\n")
    read = read_entry_table(path)
    assert [row.id for row in read.rows] == ["a", "d", "t: line 3", "t: line 4"]
    assert [row.reason for row in read.rejected] == [f"it has {n} values, the head of the table has 3" for n in (2, 4)]
    assert {row.status for row in read.rejected} == {"malformed_line"}


@pytest.mark.parametrize("spelled", ["GGA+U", "GGA_U"])
def test_run_types_of_the_materials_project_are_one_level(tmp_path: Path, spelled: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"formula,energy_per_atom,run_type\nFe,-8.4,GGA\nFe2O3,-6.5,{spelled}\n")
    assert {row.level for row in read_entry_table(path).rows if isinstance(row, Entry)} == {"GGA_GGA+U"}


def test_a_row_without_a_crystal_costs_no_other_its_details(tmp_path: Path) -> None:
    lattice = (4.0 * np.eye(3)).ravel().tolist()
    table = {
        "id": ["whole", "without"],
        "formula": ["NaCl", "NaCl"],
        "energy_per_atom": [-3.4, -3.3],
        "run_type": ["GGA", "GGA"],
        "lattice": [lattice, None],
        "atomic_numbers": [[11, 17], [11, 17]],
        "frac_coords": [[0.0] * 3 + [0.5] * 3] * 2,
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    read = read_entry_table(tmp_path / "t.parquet")
    assert [read.details_of(row).crystal is None for row in range(2)] == [False, True]
