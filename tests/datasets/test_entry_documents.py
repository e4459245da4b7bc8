"""Hull entries of JSON documents: pymatgen entries, Materials Project, and which format a file is."""

import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opengnome.crystals import Composition, Crystal
from opengnome.crystals.io import to_pymatgen
from opengnome.datasets import (
    IN_THE_ENERGY,
    entries_from_dicts,
    entries_from_documents,
    fetch_documents,
    read_entries,
    subsystems,
)
from opengnome.datasets.entries_json import read_structure
from opengnome.errors import InvalidCrystalError, SettingsError, WorkFailedError


def write(path: Path, content: Any) -> Path:
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


# --- pymatgen entries ---------------------------------------------------------------------------------------------


def pymatgen_entries(rock_salt: Crystal) -> list[Any]:
    from pymatgen.core.entries import (
        CompositionEnergyAdjustment,
        ComputedEntry,
        ComputedStructureEntry,
        ManualEnergyAdjustment,
        TemperatureEnergyAdjustment,
    )

    adjusted = ComputedEntry(
        "Li4O2",
        -27.0,
        entry_id="mp-1",
        energy_adjustments=[
            CompositionEnergyAdjustment(-0.687, 2, name="MP2020 anion correction (oxide)"),
            ManualEnergyAdjustment(0.3),
            TemperatureEnergyAdjustment(-0.0005, 300, 6, name="entropy"),
        ],
        parameters={"run_type": "GGA", "hubbards": {}},
        data={"oxide_type": "oxide"},
    )
    structural = ComputedStructureEntry(
        to_pymatgen(rock_salt), -6.4, correction=-0.6, entry_id="mp-2", parameters={"run_type": "GGA+U"}
    )
    return [adjusted, structural, ComputedEntry("O2", -9.9, parameters={"run_type": "GGA"})]


@pytest.mark.parametrize("name", ["e.json", "e.json.gz", "e.jsonl", "e.jsonl.gz"])
def test_entries_are_those_of_pymatgen(tmp_path: Path, rock_salt: Crystal, name: str) -> None:
    theirs = pymatgen_entries(rock_salt)
    lines = "\n".join(json.dumps(entry.as_dict()) for entry in theirs)
    text = lines if ".jsonl" in name else "[" + lines.replace("\n", ",") + "]"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    read = read_entries(path)
    assert [e.id for e in read.entries] == ["mp-1", "mp-2", "e-2"]
    assert read.levels == ("GGA_GGA+U",)
    for ours, entry in zip(read.entries, theirs, strict=True):
        assert ours.energy_per_atom == pytest.approx(entry.uncorrected_energy_per_atom, abs=1e-14)
        assert ours.corrected_energy_per_atom == pytest.approx(entry.energy_per_atom, abs=1e-14)
        assert ours.correction_scheme == "MP2020"
    details = [read.details_of(row) for row in range(3)]
    assert details[0].oxide_type == "oxide"
    assert details[1].crystal is not None
    np.testing.assert_allclose(details[1].crystal.lattice, rock_salt.lattice)
    assert details[2].crystal is None


def test_a_list_may_lie_in_an_object(tmp_path: Path, rock_salt: Crystal) -> None:
    documents = [entry.as_dict() for entry in pymatgen_entries(rock_salt)]
    for key in ("entries", "all_entries"):
        assert len(read_entries(write(tmp_path / "pd.json", {key: documents})).entries) == 3


def test_older_documents_have_a_correction_and_no_adjustments() -> None:
    document = {"energy": -27.0, "composition": {"Li": 4.0, "O": 2.0}, "correction": -1.5, "entry_id": "x"}
    read = entries_from_dicts([document], name="mine")
    (entry,) = read.entries
    assert entry.correction_per_atom == pytest.approx(-0.25)
    assert entry.correction_scheme == "as given"
    assert entry.level == "table:mine"


def test_ions_count_as_their_element_and_formulas_are_read() -> None:
    documents = [
        {"energy": -27.0, "composition": {"Li+": 4, "O2-": 2}, "entry_id": "a"},
        {"energy": -27.0, "composition": {"Fe2+": 1, "Fe3+": 2, "O2-,spin=5": 4}, "entry_id": "b"},
        {"energy": -27.0, "composition": "Li4 O2", "entry_id": "c"},
    ]
    read = entries_from_dicts(documents, name="mine")
    assert [e.composition for e in read.entries] == [Composition.from_formula(f) for f in ("Li4O2", "Fe3O4", "Li4O2")]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"energy": float("nan")}, "not_finite", "nan"),
        ({"energy": float("inf")}, "not_finite", "inf"),
        ({"energy": None}, "no_energy", "no energy"),
        ({"energy_adjustments": [{"@class": "Strange", "factor": 2}]}, "no_energy", "no correction"),
        ({"composition": {"Li": 0.5, "Na": 0.5, "Cl": 1}}, "invalid_formula", "not whole numbers"),
        ({"composition": {"Qq": 1}}, "invalid_formula", "'Qq' is no element"),
        ({"composition": {}}, "invalid_formula", "empty"),
        ({"composition": {"Li": None}}, "invalid_formula", "no amount"),
        ({"composition": None}, "invalid_formula", "amounts by element"),
        ({"composition": 7, "parameters": [1], "data": "x"}, "invalid_formula", "amounts by element"),
        ({"energy_adjustments": ["?"]}, "no_energy", "no correction"),
        ({"energy": [1]}, "not_finite", "nan"),
    ],
)
def test_a_bad_document_is_a_rejected_row(change: Mapping[str, Any], status: str, words: str) -> None:
    good = {"energy": -1.9, "composition": {"Li": 1}, "entry_id": "good"}
    bad = {"energy": -13.5, "composition": {"Li": 2, "O": 1}, "entry_id": "bad"} | dict(change)
    read = entries_from_dicts([good, bad], name="mine")
    (rejected,) = read.rejected
    assert (rejected.id, rejected.status) == ("bad", status)
    assert words in rejected.reason
    assert [e.id for e in read.entries] == ["good"]


def test_disorder_is_said_when_a_correction_asks_for_the_crystal(rock_salt: Crystal) -> None:
    document = to_pymatgen(rock_salt).as_dict()
    assert read_structure(document).reduced_formula == "NaCl"
    document["sites"][0]["species"] = [{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}]
    with pytest.raises(InvalidCrystalError, match="fully occupied by one element"):
        read_structure(document)
    with pytest.raises(InvalidCrystalError, match="no saved pymatgen Structure"):
        read_structure({"sites": []})


# --- Materials Project --------------------------------------------------------------------------------------------

THERMO = {
    "material_id": "mp-1960",
    "thermo_id": "mp-1960_GGA_GGA+U",
    "thermo_type": "GGA_GGA+U",
    "energy_type": "GGA",
    "formula_pretty": "Li2O",
    "composition": {"Li": 2.0, "O": 1.0},
    "composition_reduced": {"Li": 2.0, "O": 1.0},
    "nsites": 3,
    "uncorrected_energy_per_atom": -4.5,
    "energy_per_atom": -4.729,
    "formation_energy_per_atom": -2.05,
    "energy_above_hull": 0.0,
    "is_stable": True,
    "entries": {"GGA": {"energy": -13.5}},
    "deprecated": False,
}
"""A thermo document in the shape of emmet's ThermoDoc; numbers are round."""


def test_thermo_documents(tmp_path: Path) -> None:
    response = {"data": [THERMO, THERMO | {"material_id": "mp-2", "thermo_type": "R2SCAN"}], "meta": {"total_doc": 2}}
    read = read_entries(write(tmp_path / "thermo.json", response))
    first, second = read.entries
    assert (first.id, first.level, first.correction_scheme) == ("mp-1960", "GGA_GGA+U", "MP2020")
    assert first.energy_per_atom == -4.5
    assert first.corrected_energy_per_atom == pytest.approx(-4.729, abs=1e-14)
    assert (second.level, second.correction_scheme) == ("R2SCAN", "none")
    assert read.details_of(0).run_type == "GGA"
    formation = read_entries(write(tmp_path / "thermo.json", [THERMO]), energy="formation")
    assert formation.energy_kind == "formation"
    assert formation.entries[0].energy_per_atom == -2.05
    assert formation.entries[0].correction_scheme == "MP2020" + IN_THE_ENERGY


def test_summary_documents_do_not_say_how_they_were_mixed() -> None:
    summary = {
        "material_id": {"string": "mp-1960"},
        "formula_pretty": "Li2O",
        "energy_per_atom": -4.729,
        "uncorrected_energy_per_atom": -4.5,
        "formation_energy_per_atom": -2.05,
        "theoretical": False,
    }
    (entry,) = entries_from_documents([summary]).entries
    assert (entry.id, entry.level) == ("mp-1960", "Materials Project summary")
    (entry,) = entries_from_documents([summary], level="GGA_GGA+U_R2SCAN").entries
    assert entry.level == "GGA_GGA+U_R2SCAN"


def test_documents_with_holes_are_rejected_rows() -> None:
    documents = [
        THERMO,
        THERMO | {"material_id": "a", "energy_per_atom": None},
        THERMO | {"material_id": "b", "thermo_type": None},
        THERMO | {"material_id": "c", "composition": None, "formula_pretty": None},
        THERMO | {"energy_per_atom": -4.0},
    ]
    read = entries_from_documents(documents)
    assert not read.entries
    assert [(r.id, r.status) for r in read.rejected] == [
        ("mp-1960", "two_energies"),
        ("a", "no_energy"),
        ("b", "missing_level"),
        ("c", "invalid_formula"),
        ("mp-1960", "two_energies"),
    ]


class RecordedClient:
    """Answers as the client of the Materials Project did, and remembers what was asked."""

    asked: Mapping[str, Any] = {}
    error: Exception | None = None

    def __init__(self, api_key: str | None = None, *, use_document_model: bool = True) -> None:
        assert not use_document_model
        self.materials = SimpleNamespace(thermo=SimpleNamespace(search=self._search))

    def __enter__(self) -> "RecordedClient":
        return self

    def __exit__(self, *_: object) -> None: ...

    def _search(self, **asked: Any) -> list[dict[str, Any]]:
        type(self).asked = asked
        if type(self).error is not None:
            raise type(self).error
        return [THERMO]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[RecordedClient]:
    module = ModuleType("mp_api.client")
    recorded = type("Recorded", (RecordedClient,), {})
    module.MPRester = recorded  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mp_api", ModuleType("mp_api"))
    monkeypatch.setitem(sys.modules, "mp_api.client", module)
    return recorded


def test_the_client_asks_for_every_subsystem(client: type[RecordedClient]) -> None:
    documents = fetch_documents("Li-O", thermo_type="R2SCAN")
    assert entries_from_documents(documents).entries[0].id == "mp-1960"
    assert client.asked["chemsys"] == ["Li", "O", "Li-O"]
    assert client.asked["thermo_types"] == ["R2SCAN"]
    assert {"material_id", "uncorrected_energy_per_atom", "energy_per_atom"} <= set(client.asked["fields"])


def test_a_client_that_fails_or_is_not_there(client: type[RecordedClient], monkeypatch: pytest.MonkeyPatch) -> None:
    client.error = RuntimeError("invalid api key")
    with pytest.raises(WorkFailedError, match=r"did not answer for Li-O: invalid api key"):
        fetch_documents("Li-O")
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(SettingsError, match=r"install opengnome\[mp\]"):
        fetch_documents("Li-O")
    with pytest.raises(SettingsError, match=r"thermo_type is 'PBE'; choose from"):
        fetch_documents("Li-O", thermo_type="PBE")
    with pytest.raises(InvalidCrystalError, match="'Xx' is not an element"):
        fetch_documents("Li-Xx")


def test_subsystems() -> None:
    assert subsystems("O-Fe") == ["Fe", "O", "Fe-O"]
    assert len(subsystems("Li-Fe-P-O")) == 15


# --- which format a file is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "no list of documents, nor an object with one under entries or all_entries or data"),
        ([], "empty list"),
        ([1, 2], "int '1' among its documents"),
        ([{"formula": "Li"}], r"keys \['formula'\], which are of no known format"),
    ],
)
def test_json_that_is_no_table_of_entries(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_entries(write(tmp_path / "t.json", content))


def test_broken_and_mismatched_json(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[{")
    with pytest.raises(SettingsError, match="is not JSON"):
        read_entries(tmp_path / "t.json")
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(b"[]" * 100)[:-12])
    with pytest.raises(SettingsError, match=r"is not JSON|cannot be read"):
        read_entries(tmp_path / "t.json.gz")
    with pytest.raises(SettingsError, match="there is no file"):
        read_entries(tmp_path / "nowhere.json")
    path = write(tmp_path / "mp.json", [THERMO])
    with pytest.raises(SettingsError, match="which the format 'table' is not"):
        read_entries(path, format="table")
    with pytest.raises(SettingsError, match="'total' and 'formation' energies only"):
        read_entries(path, energy="energy_per_atom")
    entries = write(tmp_path / "e.json", [{"composition": {"Li": 1}, "energy": -1.9}])
    with pytest.raises(SettingsError, match="whose energies are total energies"):
        read_entries(entries, energy="formation")


def test_a_null_among_the_documents_is_named(tmp_path):
    path = tmp_path / "entries.json"
    path.write_text('[{"composition": {"Li": 1}, "energy": -1.9}, null]')
    with pytest.raises(SettingsError, match="NoneType"):
        read_entries(path)


def test_damaged_gzip_is_no_json(tmp_path):
    path = tmp_path / "entries.json.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"nonsense" * 4)
    with pytest.raises(SettingsError, match="is not JSON"):
        read_entries(path)
