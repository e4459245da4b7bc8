from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opengnome.crystals import Crystal, CrystalTable, supercell
from opengnome.crystals.io import read_table, write_table
from opengnome.datasets import KnownSetSettings, load_elemental_crystals, load_embedded_frames, load_known_set
from opengnome.errors import SettingsError
from opengnome.hull import Hull


@pytest.fixture
def table_path(tmp_path: Path, rock_salt: Crystal, perovskite: Crystal) -> Path:
    table = CrystalTable.from_crystals([rock_salt, perovskite, supercell(rock_salt, (2, 1, 1))], ["a", "b", "c"])
    table = table.with_column("formation_energy_per_atom", [-2.1, -3.5, None])
    write_table(tmp_path / "known.parquet", table)
    return tmp_path / "known.parquet"


def test_formation_energies_bring_elements_at_zero(table_path: Path) -> None:
    known = load_known_set(KnownSetSettings(source=str(table_path)))
    assert known.energy_kind == "formation"
    assert known.level == "table:known.parquet"
    assert known.table.ids == ["a", "b"]  # the row without an energy is left out
    assert {e.id for e in known.entries} == {"a", "b", *(f"reference-{s}" for s in ("Na", "Cl", "Sr", "Ti", "O"))}
    hull = Hull(known.entries)
    assert hull.formation_energy_per_atom(known.table[0].composition, -2.1) == pytest.approx(-2.1)


def with_columns(path: Path, **columns: list[str | None]) -> Path:
    """The table with further columns, in another file."""
    table = read_table(path)
    table = CrystalTable(table.arrow.drop_columns(["formation_energy_per_atom"]))
    table = table.with_column("formation_energy_per_atom", [-2.1, -3.5, -2.0])
    for name, values in columns.items():
        table = table.with_column(name, values)
    write_table(path.with_name("more.parquet"), table)
    return path.with_name("more.parquet")


def test_only_converged_rows_are_known(table_path: Path) -> None:
    path = with_columns(table_path, status=["converged", "unconverged", "timed_out"], level=["L", "other", "other"])
    known = load_known_set(KnownSetSettings(source=str(path)))
    assert (known.table.ids, known.level) == (["a"], "L")  # the levels of the others do not matter
    reasons = [f"its status is {status!r}: no energy of a relaxed crystal" for status in ("unconverged", "timed_out")]
    assert known.left_out == dict.fromkeys(reasons, 1)
    with pytest.raises(SettingsError, match="1 rows have these elements: 1 of them: its status is 'unconverged'"):
        load_known_set(KnownSetSettings(source=str(path), elements=["Sr", "Ti", "O"]))


def test_other_words_in_a_column_of_that_name_mean_nothing(table_path: Path) -> None:
    path = with_columns(table_path, status=["published", None, "relaxed"], level=["L", "L", "L"])
    known = load_known_set(KnownSetSettings(source=str(path)))
    assert (len(known.table), known.left_out) == (3, {})


def test_the_level_is_what_the_rows_say(table_path: Path) -> None:
    path = with_columns(table_path, level=["L", "L", "L"], status=["ok", "converged", "ok"])
    known = load_known_set(KnownSetSettings(source=str(path)))
    assert (known.level, len(known.table), known.left_out) == ("L", 3, {})
    assert {entry.level for entry in known.entries} == {"L"}
    with pytest.raises(SettingsError, match="none is of the level 'another' asked for"):
        load_known_set(KnownSetSettings(source=str(path), level="another"))
    unnamed = with_columns(table_path, level=[None, None, None])
    assert load_known_set(KnownSetSettings(source=str(unnamed))).level == "table:more.parquet"
    assert load_known_set(KnownSetSettings(source=str(unnamed), level="named")).level == "named"


def test_several_levels_are_refused_until_one_is_chosen(table_path: Path) -> None:
    path = with_columns(table_path, level=["L", "M", "L"])
    with pytest.raises(SettingsError, match=r"levels of theory \['L', 'M'\]; energies .* Choose one .* known\.level"):
        load_known_set(KnownSetSettings(source=str(path)))
    with pytest.raises(SettingsError, match="none is of the level 'N' asked for"):
        load_known_set(KnownSetSettings(source=str(path), level="N"))
    known = load_known_set(KnownSetSettings(source=str(path), level="L"))
    assert (known.table.ids, known.level, known.left_out) == (["a", "c"], "L", {"it is not of level 'L'": 1})
    # a single level is left with this element
    assert load_known_set(KnownSetSettings(source=str(path), elements=["Na", "Cl"])).level == "L"
    with pytest.raises(SettingsError, match=r"\['L', ''\]"):  # saying nothing is not saying the same
        load_known_set(KnownSetSettings(source=str(with_columns(table_path, level=["L", None, "L"]))))


def test_elements_restrict_the_set(table_path: Path) -> None:
    known = load_known_set(KnownSetSettings(source=str(table_path), elements=["Na", "Cl", "O"]))
    assert known.table.ids == ["a"]


def test_the_digest_names_the_content(table_path: Path) -> None:
    one = load_known_set(KnownSetSettings(source=str(table_path)))
    assert one.digest == load_known_set(KnownSetSettings(source=str(table_path))).digest
    assert one.digest != load_known_set(KnownSetSettings(source=str(table_path), elements=["Na", "Cl"])).digest
    assert one.digest != load_known_set(KnownSetSettings(source=str(table_path), level="other")).digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "nowhere.parquet"}, "neither 'embedded' nor a file"),
        ({"energy_column": "energy"}, "has no column energy"),
        ({"elements": ["Xe"]}, "no row has an energy"),
    ],
)
def test_wrong_requests_are_explained(table_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_known_set(KnownSetSettings.model_validate({"source": str(table_path)} | settings))


def test_the_embedded_set_is_whole() -> None:
    known = load_known_set(KnownSetSettings())
    assert (len(known.table), len(known.elements), known.energy_kind) == (350, 89, "total")
    assert (known.level, known.left_out) == ("chgnet-0.3.0", {})
    hull = Hull(known.entries)
    formation = np.array(
        [hull.formation_energy_per_atom(e.composition, e.corrected_energy_per_atom) for e in known.entries]
    )
    elemental = np.array([e.composition.n_elements == 1 for e in known.entries])
    assert (formation[elemental] >= -1e-9).all()
    assert np.median(formation[~elemental]) < -0.3
    assert len(load_elemental_crystals()) == 89
    assert set(load_embedded_frames().column("energy_per_atom")) & {None} == set()


def test_rows_that_are_no_crystals_are_left_out_and_counted(table_path: Path) -> None:
    table = pq.read_table(table_path).to_pylist()
    broken = []
    for name, changes in {
        "flat": {"lattice": [1.0, 0, 0, 2.0, 0, 0, 0, 0, 1.0]},
        "nowhere": {"frac_coords": [float("nan")] * len(table[0]["frac_coords"])},
        "unknown": {"atomic_numbers": [0] * table[0]["n_atoms"]},
    }.items():
        broken.append({**table[0], "id": name, **changes})
    pq.write_table(pa.Table.from_pylist([*table, *broken]), table_path)
    known = load_known_set(KnownSetSettings(source=str(table_path)))
    assert known.table.ids == ["a", "b"]
    assert sum(known.left_out.values()) == 4  # the third has no energy
    assert any("outside 1..118" in reason for reason in known.left_out)


def test_formulas_are_those_of_the_crystals_and_ids_are_text(table_path: Path) -> None:
    table = pq.read_table(table_path)
    n = len(table)
    table = table.set_column(table.column_names.index("id"), "id", pa.array([7, *[None] * (n - 1)], pa.int64()))
    spelled = table.set_column(table.column_names.index("reduced_formula"), "reduced_formula", pa.array(["X"] * n))
    before = load_known_set(KnownSetSettings(source=str(table_path))).table.reduced_formulas
    pq.write_table(spelled, table_path)
    known = load_known_set(KnownSetSettings(source=str(table_path)))
    assert known.table.reduced_formulas == before
    assert known.table.ids[:2] == ["7", "row-1"]
