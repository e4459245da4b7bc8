from pathlib import Path

import pyarrow.parquet as pq
import pytest

from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.io import read_crystals, read_table, write_crystals, write_table
from opengnome.crystals.replacement import replace_file
from opengnome.errors import InvalidCrystalError


@pytest.fixture
def table(rock_salt, perovskite) -> CrystalTable:
    columns = {"energy": [-1.5, None], "method": ['say "x"', "b\\c"], "stable": [True, False]}
    return CrystalTable.from_crystals([rock_salt, perovskite], ["mp-1", "x y/z"], columns)


def distance(ours: Crystal, theirs: Crystal) -> float:
    assert ours.atomic_numbers.tolist() == theirs.atomic_numbers.tolist()
    return max(
        abs(ours.lattice @ ours.lattice.T - theirs.lattice @ theirs.lattice.T).max(),
        abs(ours.frac_coords - theirs.frac_coords).max(),
    )


def test_parquet_keeps_everything(tmp_path, table):
    path = tmp_path / "new" / "table.parquet"
    write_crystals(path, table)
    assert read_table(path).arrow.equals(table.arrow)
    assert [row.id for row in read_crystals(path)] == table.ids
    assert [file.name for file in path.parent.iterdir()] == ["table.parquet"]


def test_parquet_is_compressed_in_row_groups(tmp_path, rock_salt):
    write_table(tmp_path / "t.parquet", CrystalTable.from_crystals([rock_salt] * 5001))
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [5000, 1]
    assert metadata.row_group(0).column(3).compression == "ZSTD"


def test_extxyz_keeps_the_scalar_columns(tmp_path, table):
    from ase.io import read

    path = tmp_path / "table.extxyz"
    write_crystals(path, table)
    rows = read_crystals(path)
    assert [row.id for row in rows] == table.ids
    assert max(distance(row.crystal, crystal) for row, crystal in zip(rows, table, strict=True)) < 1e-9
    first, second = read(path, index=":")
    assert first.get_potential_energy() == -1.5
    assert first.info["method"] == 'say "x"'
    assert second.info["method"] == "b\\c"
    assert second.info["reduced_formula"] == "SrTiO3"
    assert bool(first.info["stable"]) is True
    assert "n_atoms" in first.info


@pytest.mark.parametrize("name", ["one.cif", "one.vasp", "POSCAR", "one.poscar"])
def test_one_crystal(tmp_path, table, name):
    write_crystals(tmp_path / name, table.slice(1))
    (row,) = read_crystals(tmp_path / name)
    assert row.crystal.reduced_formula == "SrTiO3"
    assert row.crystal.volume == pytest.approx(table[1].volume)
    with pytest.raises(InvalidCrystalError, match="holds one crystal, the table has 2"):
        write_crystals(tmp_path / name, table)


def test_poscar_brings_sites_of_one_element_together(tmp_path):
    frac_coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0, 0.5]]
    mixed = Crystal([[4.0, 0, 0], [0.5, 4.0, 0], [0, 0.25, 6.0]], frac_coords, [17, 11, 17, 11])
    write_crystals(tmp_path / "POSCAR", CrystalTable.from_crystals([mixed]))
    (row,) = read_crystals(tmp_path / "POSCAR")
    assert row.crystal.atomic_numbers.tolist() == [11, 11, 17, 17]
    assert row.crystal.lattice == pytest.approx(mixed.lattice)
    assert row.crystal.frac_coords == pytest.approx(mixed.frac_coords[[1, 3, 0, 2]])


def test_a_folder_of_cifs_stays_in_its_folder(tmp_path, rock_salt):
    ids = ["mp-1", "../../etc/x", ".hidden"]
    write_crystals(tmp_path / "out", CrystalTable.from_crystals([rock_salt] * 3, ids))
    names = sorted(path.name for path in tmp_path.rglob("*.cif"))
    assert names == ["_.._etc_x.cif", "hidden.cif", "mp-1.cif"]
    assert len(read_crystals(tmp_path / "out")) == 3
    with pytest.raises(InvalidCrystalError, match="ids must be unique"):
        write_crystals(tmp_path / "out", CrystalTable.from_crystals([rock_salt] * 2, ["a/b", "A_b"]))


def test_an_unknown_suffix_names_the_known_ones(tmp_path, table):
    with pytest.raises(InvalidCrystalError, match=r"'\.json' is unknown; choose from \.cif"):
        write_crystals(tmp_path / "t.json", table)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        replace_file(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    replace_file(path, lambda temporary: temporary.write_text("new") and None)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_are_missing_are_made_and_flushed_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: list[Path] = []
    monkeypatch.setattr("opengnome.crystals.replacement._flush", flushed.append)
    path = tmp_path / "a" / "b" / "file.txt"
    replace_file(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert [tmp_path, tmp_path / "a"] == flushed[:2], "the names of the new folders"
    assert flushed[-1] == path.parent
    flushed.clear()
    replace_file(path, lambda temporary: temporary.write_text("newer"))
    assert tmp_path not in flushed
