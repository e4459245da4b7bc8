import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.io import (
    ReadRow,
    cif_text,
    read_crystals,
    read_table,
    to_ase,
    write_crystals,
    write_table,
)
from opengnome.errors import InvalidCrystalError


@pytest.fixture
def ten_cifs(tmp_path, rock_salt, perovskite):
    """Six crystals, and one file truncated, one disordered, one doubled, one that is no CIF."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    for number in range(6):
        crystal = (rock_salt, perovskite)[number % 2]
        (folder / f"good_{number}.cif").write_text(cif_text(crystal, name=f"good {number}"))
    text = cif_text(rock_salt, name="bad")
    (folder / "bad_truncated.cif").write_text(text[: len(text) - 20])
    (folder / "bad_occupancy.cif").write_text(text.rstrip()[:-1] + "0.5\n")
    (folder / "bad_doubled.cif").write_text(text.replace("0.5000000000", "0.0010000000"))
    (folder / "bad_notes.cif").write_bytes(b"\x89PNG\r\n\x1a\n not a crystal")
    return folder


def test_six_crystals_and_four_reasons(ten_cifs):
    rows = read_crystals(ten_cifs)
    assert [row.id for row in rows] == sorted(file.stem for file in ten_cifs.iterdir())
    reasons = {row.id: row.reason for row in rows if row.crystal is None}
    assert len(rows) - len(reasons) == 6
    assert "truncated" in reasons["bad_truncated"]
    assert "Cl1 (Cl) has occupancy 0.5" in reasons["bad_occupancy"]
    assert "Na0 and Cl1 are 0.010 A apart" in reasons["bad_doubled"]
    assert "not a CIF" in reasons["bad_notes"]
    assert {row.crystal.reduced_formula for row in rows if row.crystal} == {"NaCl", "SrTiO3"}


def test_a_folder_reads_only_what_it_knows(ten_cifs):
    (ten_cifs / "notes.txt").write_text("not to be read")
    (ten_cifs / ".hidden.cif").write_text("not to be read")
    (ten_cifs / "inner.cif").mkdir()
    assert len(read_crystals(ten_cifs)) == 10


def test_files_that_share_a_stem_keep_their_names_apart(tmp_path, rock_salt):
    (tmp_path / "salt.cif").write_text(cif_text(rock_salt, name="salt"))
    to_ase(rock_salt).write(tmp_path / "salt.vasp", format="vasp", direct=True)
    to_ase(rock_salt).write(tmp_path / "POSCAR.mp-1", format="vasp")
    to_ase(rock_salt).write(tmp_path / "CONTCAR", format="vasp")
    rows = read_crystals(tmp_path)
    assert [row.id for row in rows] == ["CONTCAR", "POSCAR.mp-1", "salt.cif", "salt.vasp"]
    assert all(row.crystal.reduced_formula == "NaCl" for row in rows)


def test_what_cannot_be_asked_for(tmp_path):
    with pytest.raises(InvalidCrystalError, match="there is no file or folder"):
        read_crystals(tmp_path / "nowhere.cif")
    with pytest.raises(InvalidCrystalError, match=r"no crystals in the folder.*\.cif.*\.parquet.*POSCAR"):
        read_crystals(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidCrystalError, match="of no known format"):
        read_crystals(tmp_path / "notes.txt")
    with pytest.raises(InvalidCrystalError, match="no crystals in the folder"):
        read_crystals(tmp_path)


def test_one_file_of_several_crystals(tmp_path, rock_salt, perovskite):
    path = tmp_path / "two.cif"
    path.write_text(cif_text(rock_salt, name="a") + cif_text(perovskite, name="b"))
    assert [(row.id, row.crystal.reduced_formula) for row in read_crystals(path)] == [
        ("two-0", "NaCl"),
        ("two-1", "SrTiO3"),
    ]


def test_a_cif_with_a_byte_order_mark_and_latin_letters(tmp_path, rock_salt):
    path = tmp_path / "salt.CIF"
    text = "_publ_author 'M\xfcller'\n"
    path.write_bytes(b"\xef\xbb\xbf" + cif_text(rock_salt, name="a").encode() + text.encode("latin1"))
    (row,) = read_crystals(path)
    assert row.crystal.n_atoms == 2


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not a readable POSCAR"),
        ("NaCl\n1.0\n1 0 0\n0 1 0\n", "not a readable POSCAR"),
        ("H\n1.0\n3 0 0\n0 3 0\n0 0 3\nH\n2\nDirect\n0 0 0\n0 0 0.1\n", "0.300 A apart"),
    ],
)
def test_broken_poscars(tmp_path, text, part):
    (tmp_path / "POSCAR").write_text(text)
    (row,) = read_crystals(tmp_path / "POSCAR")
    assert row.crystal is None
    assert part in row.reason


def test_frames_of_extxyz(tmp_path, rock_salt):
    good = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T"{info}\nCu 0 0 0\n'
    slab = good.replace('"T T T"', '"T T F"')
    path = tmp_path / "frames.extxyz"
    path.write_text(good.format(info=" id=mp-30") + slab.format(info="") + good.format(info=" id=7") + "1\nbroken")
    named, not_periodic, numbered, broken = read_crystals(path)
    assert (named.id, named.crystal.reduced_formula) == ("mp-30", "Cu")
    assert not_periodic.id == "frames-1"
    assert "periodic along two" in not_periodic.reason
    assert numbered.id == "7"
    assert broken.id == "frames-3"
    assert "not a readable extxyz frame" in broken.reason


def test_a_molecule_is_no_crystal(tmp_path):
    (tmp_path / "water.xyz").write_text("3\nwater\nO 0 0 0\nH 0.76 0.59 0\nH -0.76 0.59 0\n")
    (tmp_path / "empty.xyz").write_text("")
    rows = {row.id: row for row in read_crystals(tmp_path)}
    assert "periodic along no" in rows["water"].reason
    assert rows["empty"].reason


def test_rows_of_parquet(tmp_path, rock_salt, perovskite):
    table = CrystalTable.from_crystals([rock_salt, perovskite, rock_salt, rock_salt], ["a", "b", "c", None])
    arrow = table.arrow
    lattices = arrow["lattice"].to_pylist()
    lattices[1][4] = float("nan")
    numbers = arrow["atomic_numbers"].to_pylist()
    numbers[2] = None
    arrow = arrow.set_column(3, "lattice", pa.array(lattices)).set_column(4, "atomic_numbers", pa.array(numbers))
    path = tmp_path / "table.parquet"
    pq.write_table(arrow.rename_columns(["material_id", *arrow.column_names[1:]]), path)
    good, not_finite, missing, nameless = read_crystals(path)
    assert (good.id, good.crystal) == ("a", rock_salt)
    assert (not_finite.id, not_finite.crystal) == ("b", None)
    assert "finite" in not_finite.reason
    assert missing.reason == "atomic_numbers is missing"
    assert nameless.id == "table-3"


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("lattice", [1.0] * 8, "lattice has 8"),
        ("frac_coords", [0.1] * 5, "frac_coords 5 values"),
        ("frac_coords", [0.1] * 3, "must be (2, 3)"),
        ("atomic_numbers", [11, None], "missing or fractional"),
        ("frac_coords", [0.1] * 6, "0.000 A apart"),
    ],
)
def test_a_broken_row_of_parquet_has_a_reason(tmp_path, rock_salt, column, value, part):
    arrow = CrystalTable.from_crystals([rock_salt], ["a"]).arrow
    arrow = arrow.set_column(arrow.column_names.index(column), column, pa.array([value]))
    pq.write_table(arrow, tmp_path / "table.parquet")
    (row,) = read_crystals(tmp_path / "table.parquet")
    assert row.crystal is None
    assert part in row.reason


def test_a_parquet_file_that_is_none(tmp_path):
    path = tmp_path / "table.parquet"
    path.write_text("not parquet")
    (row,) = read_crystals(path)
    assert "not a readable Parquet file" in row.reason
    with pytest.raises(InvalidCrystalError, match="not a readable Parquet file"):
        read_table(path)
    with pytest.raises(InvalidCrystalError, match="there is no file"):
        read_table(tmp_path / "nothing.parquet")
    pq.write_table(pa.table({"id": ["a"], "energy": [1.0]}), path)
    (row,) = read_crystals(path)
    assert "lacks the columns ['lattice', 'atomic_numbers', 'frac_coords']" in row.reason


def test_rows_of_the_public_table(shared_data, tmp_path):
    table = read_table(shared_data / "mp_crystals.parquet").slice(40_000, 40_500)
    write_table(tmp_path / "part.parquet", table)
    rows = read_crystals(tmp_path / "part.parquet")
    assert [row.id for row in rows] == table.ids
    assert [row.crystal for row in rows] == list(table)


def test_a_row_has_a_crystal_or_a_reason(rock_salt):
    assert ReadRow("a", rock_salt).reason == ""
    with pytest.raises(ValueError, match="must have a crystal or a reason"):
        ReadRow("a", None)
    with pytest.raises(ValueError, match="must have a crystal or a reason"):
        ReadRow("a", rock_salt, "but")


def test_disordered_conductors_are_refused_for_their_occupancy(shared_data):
    rows = read_crystals(shared_data / "solid_electrolytes" / "cifs")
    assert len(rows) == 254
    reasons = [row.reason for row in rows if row.crystal is None]
    assert len(reasons) == 195
    assert all("occupancy" in reason for reason in reasons)
    assert np.mean([row.crystal.n_atoms for row in rows if row.crystal]) > 8


def frames_text(*frames: tuple[str, str]) -> str:
    """Frames of one atom each: the id as it is written, and the symbol."""
    comment = 'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T"'
    return "".join(f"1\n{comment} {identifier}\n{symbol} 0.0 0.0 0.0\n" for identifier, symbol in frames)


def test_one_bad_frame_costs_no_other(tmp_path):
    path = tmp_path / "x.extxyz"
    path.write_text(frames_text(("id=a", "Na"), ("id=b", "Qq"), ("id=c", "D"), ("id=d", "Cl")) + "\n\n")
    rows = read_crystals(path)
    assert [row.id for row in rows] == ["a", "x-1", "c", "d"]
    assert "KeyError" in rows[1].reason
    assert [row.crystal.reduced_formula for row in rows if row.crystal] == ["Na", "H2", "Cl2"]
    path.write_text(frames_text(("id=a", "Na")) + "2\nno lattice\nNa 0 0 0\n")
    assert [row.crystal is None for row in read_crystals(path)] == [False, True]


def test_ids_come_back_as_they_were_written(tmp_path):
    ids = ["001", "1", "1_000", "1e5", "T", 'with "quotes" and \\']
    crystals = [Crystal(3.0 * np.eye(3), np.zeros((1, 3)), np.array([z])) for z in range(11, 17)]
    write_crystals(tmp_path / "x.extxyz", CrystalTable.from_crystals(crystals, ids))
    assert [row.id for row in read_crystals(tmp_path / "x.extxyz")] == ids


def test_a_poscar_without_elements_is_refused(tmp_path):
    path = tmp_path / "POSCAR"
    rows = "\n".join(["4 0 0", "0 4 0", "0 0 4", "1 1", "Direct", "0 0 0", "0.5 0.5 0.5"])
    path.write_text(f"NaCl rock salt\n1.0\n{rows}\n")
    (row,) = read_crystals(path)
    assert row.reason.startswith("a POSCAR of VASP 4, without element names")
