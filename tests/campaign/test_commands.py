"""`predict`, `hull`, `generate` and `train` on files, with an ensemble trained for a second."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from opengnome.campaign import Progress
from opengnome.campaign.candidates import generate_candidates
from opengnome.campaign.commands import hull_rows, predict_rows
from opengnome.campaign.tables import emit, failure, write_rows
from opengnome.campaign.train import TrainSettings, train_ensemble
from opengnome.cli import app
from opengnome.crystals import Crystal, CrystalTable, with_atomic_numbers, with_volume
from opengnome.crystals.io import cif_text, write_table
from opengnome.errors import SettingsError
from opengnome.generation import GenerationSettings

HALIDES = {(11, 17): -2.1, (19, 17): -2.25, (3, 9): -3.1, (11, 9): -2.9, (37, 35): -2.0, (19, 35): -2.0, (3, 17): -2.1}


@pytest.fixture(scope="module")
def known_table(tmp_path_factory: pytest.TempPathFactory, rock_salt: Crystal) -> Path:
    crystals = [with_atomic_numbers(rock_salt, pair) for pair in HALIDES]
    table = CrystalTable.from_crystals(crystals, [c.reduced_formula for c in crystals])
    path = tmp_path_factory.mktemp("known") / "halides.parquet"
    write_table(path, table.with_column("formation_energy_per_atom", list(HALIDES.values())))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, known_table: Path) -> Path:
    output = tmp_path_factory.mktemp("model")
    settings = TrainSettings.model_validate(
        {"model": {"width": 8, "edge_width": 8, "layers": 2}, "training": {"epochs": 2, "batch_size": 4}}
    )
    train_ensemble(
        known_table,
        output,
        column="formation_energy_per_atom",
        max_atoms=20,
        n_members=2,
        seed=0,
        settings=settings,
        workers=2,
        progress=Progress(quiet=True),
    )
    return output


@pytest.fixture
def ten_cifs(tmp_path: Path, rock_salt: Crystal) -> Path:
    """Six good CIFs and four broken in different ways."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    for i, pair in enumerate(list(HALIDES)[:6]):
        crystal = with_atomic_numbers(rock_salt, pair)
        (folder / f"good{i}.cif").write_text(cif_text(crystal, name=f"good{i}"))
    good = (folder / "good0.cif").read_text()
    (folder / "truncated.cif").write_text(good[: int(len(good) * 0.62)])
    (folder / "text.cif").write_text("Dear colleague,\nplease find the crystal attached.\n")
    (folder / "partial.cif").write_text(PARTIAL)
    (folder / "overlap.cif").write_text(OVERLAP)
    return folder


HEADER = """data_x
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
PARTIAL = HEADER + "Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1\n"
OVERLAP = HEADER + "Na1 Na 0 0 0 1\nCl1 Cl 0 0 0.001 1\n"


def test_ten_cifs_give_six_rows_and_four_reasons(ten_cifs: Path, model: Path) -> None:
    rows = predict_rows([ten_cifs], model=model)
    by_id = {row["id"]: row for row in rows}
    assert len(rows) == 10
    good = [row for row in rows if row["status"] == "ok"]
    assert [row["id"] for row in good] == [f"good{i}" for i in range(6)]
    for row in good:
        assert row["interval_low"] < row["formation_energy_per_atom"] < row["interval_high"]
    for name, word in (("truncated", ""), ("text", ""), ("partial", "occup"), ("overlap", "apart")):
        assert by_id[name]["status"] == "invalid_crystal"
        assert word in by_id[name]["reason"]
    assert len({by_id[name]["reason"] for name in ("truncated", "text", "partial", "overlap")}) == 4


def test_the_command_line_exits_with_1_and_writes_all_rows(ten_cifs: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    result = CliRunner().invoke(app, ["predict", str(ten_cifs), "--model", str(model), "-o", str(output)])
    assert result.exit_code == 1, result.output
    assert len(output.read_text().splitlines()) == 11
    alone = CliRunner().invoke(app, ["predict", str(ten_cifs / "good0.cif"), "-m", str(model), "--json"])
    assert alone.exit_code == 0
    assert json.loads(alone.stdout)["reduced_formula"] == "NaCl"


def test_an_atom_without_neighbours_is_a_warning(tmp_path: Path) -> None:
    """Nearest atoms of this potassium are 5 A apart, the cutoff of the shipped networks is 4 A."""
    (tmp_path / "k.cif").write_text(cif_text(Crystal(5.0 * np.eye(3), np.zeros((1, 3)), np.array([19])), name="k"))
    (row,) = predict_rows([tmp_path / "k.cif"])
    assert "no neighbour within 4 A" in row["warning"]


def test_predictions_against_a_hull(ten_cifs: Path, model: Path, known_table: Path) -> None:
    row = predict_rows([ten_cifs / "good0.cif"], model=model, hull=known_table)[0]
    assert row["energy_above_hull"] == pytest.approx(row["formation_energy_per_atom"] + 2.1)
    assert 0 <= row["probability_stable"] <= 1


def test_an_element_without_a_reference_is_a_row_with_a_reason(
    tmp_path: Path, rock_salt: Crystal, model: Path, known_table: Path
) -> None:
    crystal = with_volume(with_atomic_numbers(rock_salt, (12, 8)), 19.0)
    (tmp_path / "mgo.cif").write_text(cif_text(crystal, name="mgo"))
    (row,) = predict_rows([tmp_path / "mgo.cif"], model=model, hull=known_table)
    assert row["status"] == "no_hull"
    assert "Mg" in row["reason"]


def test_hull_of_a_table(known_table: Path) -> None:
    rows = {row["id"]: row for row in hull_rows(known_table, system="Na-K-Cl-F")}
    assert set(rows) == {"NaCl", "KCl", "NaF"}
    assert rows["NaF"]["energy_above_hull"] == 0
    assert rows["NaF"]["decomposition_energy"] == pytest.approx(-2.9)


def test_candidates_from_files(known_table: Path, tmp_path: Path) -> None:
    settings = GenerationSettings(max_substitutions_per_parent=5)
    counts, failed = generate_candidates(
        [known_table],
        tmp_path / "candidates.parquet",
        known=None,
        seed=1,
        settings=settings,
        progress=Progress(quiet=True),
    )
    table = pq.read_table(tmp_path / "candidates.parquet")
    assert not failed
    assert counts["kept"] == table.num_rows > 0
    assert not set(table["reduced_formula"].to_pylist()) & set(pq.read_table(known_table)["id"].to_pylist())
    assert {"method", "parent_ids", "replaced"} <= set(table.column_names)


def test_tables_by_suffix(tmp_path: Path) -> None:
    rows = [{"id": "a", "reduced_formula": "NaCl", "status": "ok", "reason": "", "x": 1.5}, failure("b", "bad", "why")]
    write_rows(tmp_path / "t.csv", rows)
    write_rows(tmp_path / "t.parquet", rows)
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "id,reduced_formula,status,reason,x"
    assert pq.read_table(tmp_path / "t.parquet").to_pylist()[1]["x"] is None
    with pytest.raises(SettingsError, match=r"neither \.csv nor \.parquet"):
        write_rows(tmp_path / "t.xlsx", rows)
    assert emit(rows[:1], tmp_path / "ok.csv") == 0
    assert emit(rows, tmp_path / "bad.csv") == 1
