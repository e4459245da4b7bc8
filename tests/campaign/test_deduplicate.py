"""Files in, a row per crystal out, with what it duplicates."""

import numpy as np
import pyarrow as pa
import pytest

from opengnome.campaign.deduplicate import deduplicated_rows
from opengnome.crystals import Crystal, CrystalTable, supercell
from opengnome.crystals.io import write_crystals
from opengnome.errors import SettingsError


@pytest.fixture
def inputs(tmp_path, rock_salt, perovskite):
    """A folder with two CIFs and a broken one, and a table with energies."""
    folder = tmp_path / "cifs"
    write_crystals(folder, CrystalTable.from_crystals([rock_salt, perovskite], ["salt", "perovskite"]))
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a 1\n")
    shifted = Crystal(perovskite.lattice, perovskite.frac_coords + 0.21, perovskite.atomic_numbers)
    crystals = [supercell(perovskite, (2, 1, 1)), shifted, rock_salt]
    energies = pa.array([-1.0, -3.0, None])
    table = CrystalTable.from_crystals(crystals, ["big", "perovskite", "salt"], {"energy_per_atom": energies})
    write_crystals(tmp_path / "table.parquet", table)
    return [folder, tmp_path / "table.parquet"]


def test_rows_of_files_and_tables(inputs):
    rows = deduplicated_rows(inputs)
    by_id = {row["id"]: row for row in rows}
    assert [row["id"] for row in rows] == ["broken", "perovskite", "salt", "big", "perovskite-2", "salt-2"]
    assert by_id["broken"]["status"] == "invalid_crystal"
    assert by_id["broken"]["reason"]
    assert {row["representative"] for row in rows[1:]} == {"perovskite", "salt"}
    assert by_id["big"] == {
        "id": "big",
        "reduced_formula": "SrTiO3",
        "status": "ok",
        "reason": "",
        "cluster": 0,
        "representative": "perovskite",
        "is_representative": False,
        "step": "exact",
        "cluster_size": 3,
    }


def test_lowest_energy_represents(inputs):
    rows = {row["id"]: row for row in deduplicated_rows(inputs, energy="energy_per_atom")}
    assert rows["perovskite"]["representative"] == rows["big"]["representative"] == "perovskite-2"
    assert rows["perovskite-2"]["energy_per_atom"] == -3.0
    assert rows["salt"]["representative"] == "salt"
    assert rows["salt-2"]["energy_per_atom"] is None
    with pytest.raises(SettingsError, match="no input has the column 'e_hull'"):
        deduplicated_rows(inputs, energy="e_hull")


def test_nothing_readable_is_still_a_row(tmp_path):
    (tmp_path / "one.cif").write_text("nonsense")
    (row,) = deduplicated_rows([tmp_path])
    assert row["status"] == "invalid_crystal"
    assert np.isscalar(row["reason"])
