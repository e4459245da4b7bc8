"""OPTIMADE structures as entries and crystals, and the client against a server on this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from opengnome.crystals import Crystal
from opengnome.datasets import (
    EnergyColumn,
    chemical_system_filter,
    crystals_from_structures,
    entries_from_structures,
    fetch_structures,
    read_entries,
)
from opengnome.errors import InvalidCrystalError, SettingsError, WorkFailedError


def structure(identifier: str, formula: str, crystal: Crystal, **attributes: Any) -> dict[str, Any]:
    """A structure in the shape of the OPTIMADE standard 1.1."""
    from opengnome.crystals.elements import SYMBOLS

    symbols = [SYMBOLS[z] for z in crystal.atomic_numbers]
    return {
        "id": identifier,
        "type": "structures",
        "attributes": {
            "chemical_formula_reduced": formula,
            "nsites": crystal.n_atoms,
            "dimension_types": [1, 1, 1],
            "lattice_vectors": crystal.lattice.tolist(),
            "cartesian_site_positions": (crystal.frac_coords @ crystal.lattice).tolist(),
            "species_at_sites": symbols,
            "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in sorted(set(symbols))],
            **attributes,
        },
    }


@pytest.fixture
def salts(rock_salt: Crystal) -> list[dict[str, Any]]:
    return [
        structure(f"agm{i}", "ClNa", rock_salt, _alexandria_formation_energy_per_atom=-2.0 - 0.01 * i) for i in range(5)
    ]


# --- documents ----------------------------------------------------------------------------------------------------


def test_a_saved_response(tmp_path: Path, salts: list[dict[str, Any]]) -> None:
    path = tmp_path / "response.json"
    path.write_text(json.dumps({"data": salts, "links": {"next": None}, "meta": {"more_data_available": False}}))
    read = read_entries(path)
    assert read.energy_kind == "formation"
    assert [e.energy_per_atom for e in read.entries] == pytest.approx([-2.0, -2.01, -2.02, -2.03, -2.04])
    assert read.entries[0].reduced_formula == "NaCl"
    assert read.levels == ("OPTIMADE _alexandria_formation_energy_per_atom",)
    assert read_entries(path, level="PBE").levels == ("PBE",)
    assert read_entries(path, energy="formation").entries == read.entries
    assert read_entries(path, energy="_alexandria_formation_energy_per_atom").entries == read.entries
    with pytest.raises(SettingsError, match="'total': the name does not say what it holds"):
        read_entries(path, energy="total")


def test_fields_of_other_databases(rock_salt: Crystal) -> None:
    nested = {"gga_gga+u": {"formation_energy_per_atom": -2.1}, "r2scan": {}}
    mixed = [
        structure("a", "ClNa", rock_salt, _mp_stability=nested),
        structure("b", "ClNa", rock_salt, _mp_stability={"r2scan": {}}),
    ]
    read = entries_from_structures(mixed)
    assert read.entries[0].energy_per_atom == -2.1
    assert [(r.id, r.status) for r in read.rejected] == [("b", "no_energy")]
    total = [structure("a", "ClNa", rock_salt, _my_energy=-13.0, _alexandria_xc_functional="PBE")]
    (entry,) = entries_from_structures(total, energy=EnergyColumn("_my_energy", "total", False)).entries
    assert (entry.energy_per_atom, entry.level) == (-6.5, "PBE")
    with pytest.raises(SettingsError, match=r"own fields here are \['_alexandria_xc_functional', '_my_energy'\]"):
        entries_from_structures(total)
    with pytest.raises(SettingsError, match="no structure has a field '_other'"):
        entries_from_structures(total, energy=EnergyColumn("_other", "total", False))


def test_an_energy_per_cell_needs_the_cell(rock_salt: Crystal) -> None:
    field = EnergyColumn("_my_energy", "total", False)
    odd = structure("a", "ClNa", rock_salt, _my_energy=-13.0)
    odd["attributes"]["nsites"] = 3
    (rejected,) = entries_from_structures([odd], energy=field).rejected
    assert "nsites is 3, which is no multiple of the 2 atoms of NaCl" in rejected.reason


def test_crystals(rock_salt: Crystal, salts: list[dict[str, Any]]) -> None:
    shared = structure("shared", "ClNa", rock_salt)
    shared["attributes"]["species"][1] = {"name": "Na", "chemical_symbols": ["Na", "K"], "concentration": [0.5, 0.5]}
    empty = structure("empty", "ClNa", rock_salt)
    empty["attributes"]["species"][1] = {"name": "Na", "chemical_symbols": ["vacancy"], "concentration": [1.0]}
    slab = structure("slab", "ClNa", rock_salt, dimension_types=[1, 1, 0])
    bare = {"id": "bare", "attributes": {"chemical_formula_reduced": "ClNa"}}
    flat = structure("flat", "ClNa", rock_salt)
    flat["attributes"]["lattice_vectors"] = np.zeros((3, 3)).tolist()
    half = structure("half", "ClNa", rock_salt)
    half["attributes"]["species"][1] = {"name": "Na", "chemical_symbols": ["Na"], "concentration": [0.5]}
    same = structure("same", "ClNa", rock_salt)
    same["attributes"]["cartesian_site_positions"] = np.zeros((rock_salt.n_atoms, 3)).tolist()
    good, *bad = crystals_from_structures([salts[0], shared, empty, slab, bare, flat, half, same])
    assert good.crystal is not None
    np.testing.assert_allclose(good.crystal.lattice, rock_salt.lattice)
    np.testing.assert_allclose(good.crystal.frac_coords, rock_salt.frac_coords, atol=1e-12)
    assert good.crystal.atomic_numbers.tolist() == rock_salt.atomic_numbers.tolist()
    words = ["fully occupied by one element", "fully occupied", "periodic along all three", "lacks", "no crystal"]
    words += ["fully occupied", "apart"]
    for row, expected in zip(bad, words, strict=True):
        assert row.crystal is None
        assert expected in row.reason


def test_named_species(rock_salt: Crystal) -> None:
    named = structure("a", "ClNa", rock_salt)
    named["attributes"]["species"] = [
        {"name": "cation", "chemical_symbols": ["Na"], "concentration": [1]},
        {"name": "anion", "chemical_symbols": ["Cl"], "concentration": [1]},
    ]
    named["attributes"]["species_at_sites"] = ["cation", "anion"]
    (row,) = crystals_from_structures([named])
    assert row.crystal is not None
    assert row.crystal.reduced_formula == "NaCl"


def test_the_filter_of_a_chemical_system() -> None:
    assert chemical_system_filter("O-Fe") == (
        '(elements HAS ALL "Fe" AND nelements=1) OR (elements HAS ALL "O" AND nelements=1) OR '
        '(elements HAS ALL "Fe","O" AND nelements=2)'
    )
    with pytest.raises(InvalidCrystalError, match="'Q' is not an element"):
        chemical_system_filter("Fe-Q")


# --- the client ---------------------------------------------------------------------------------------------------


class Database:
    """An OPTIMADE server: pages of the structures, or what a test wants instead."""

    def __init__(self, structures: list[dict[str, Any]]) -> None:
        self.structures = structures
        self.asked: list[str] = []
        self.failures: list[tuple[int, Any, dict[str, str]]] = []  # status, body, headers; one each, then pages
        self.next_as_object = False
        self.absolute = False
        self.url = ""

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(path)
        if self.failures:
            status, body, headers = self.failures.pop(0)
            return status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers
        query = parse_qs(urlsplit(path).query)
        start, limit = int(query.get("page_offset", ["0"])[0]), int(query["page_limit"][0])
        following: Any = None
        if start + limit < len(self.structures):
            following = (
                f"{self.url if self.absolute else ''}/pbe/v1/structures?page_limit={limit}&page_offset={start + limit}"
            )
            following = {"href": following} if self.next_as_object else following
        content = {"data": self.structures[start : start + limit], "links": {"next": following}}
        return 200, json.dumps(content).encode(), {}


@pytest.fixture
def database(salts: list[dict[str, Any]]) -> Iterator[Database]:
    served = Database(salts)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = served.answer(self.path)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
def test_all_pages_are_fetched(database: Database, as_object: bool, absolute: bool) -> None:
    database.next_as_object, database.absolute = as_object, absolute
    found = fetch_structures(
        f"{database.url}/pbe",
        filter=chemical_system_filter("Na-Cl"),
        fields=["_alexandria_formation_energy_per_atom"],
        page_limit=2,
    )
    assert [s["id"] for s in found] == [f"agm{i}" for i in range(5)]
    assert len(entries_from_structures(found).entries) == 5
    assert len(database.asked) == 3
    first = urlsplit(database.asked[0])
    assert first.path == "/pbe/v1/structures"
    query = parse_qs(first.query)
    assert query["filter"] == [chemical_system_filter("Na-Cl")]
    assert {"species_at_sites", "_alexandria_formation_energy_per_atom"} <= set(query["response_fields"][0].split(","))


@pytest.mark.parametrize("base", ["/pbe/", "/pbe/v1", "/pbe/v1.1/structures"])
def test_addresses_of_a_database(database: Database, base: str) -> None:
    fetch_structures(database.url + base, filter="nelements=2")
    expected = {"/pbe/": "/pbe/v1/structures", "/pbe/v1": "/pbe/v1/structures"}.get(base, base)
    assert urlsplit(database.asked[0]).path == expected


def test_a_busy_server_is_asked_again(database: Database) -> None:
    database.failures = [(429, {}, {"Retry-After": "0"}), (503, b"down", {})]
    found = fetch_structures(database.url, filter="nelements=2", pause=0.01)
    assert len(found) == 5
    assert len(database.asked) == 3


def test_a_server_that_stays_busy(database: Database) -> None:
    database.failures = [(503, b"down", {})] * 9
    with pytest.raises(WorkFailedError, match="answered 503"):
        fetch_structures(database.url, filter="nelements=2", pause=0.001)
    assert len(database.asked) == 4


def test_an_error_is_reported_with_what_the_server_says(database: Database) -> None:
    database.failures = [(400, {"errors": [{"detail": "unknown property: foo"}]}, {})]
    with pytest.raises(WorkFailedError, match=r"answered 400 Bad Request: unknown property: foo"):
        fetch_structures(database.url, filter="foo=2")
    assert len(database.asked) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "did not answer with JSON"),
        (b"[1]", "answered with a list"),
        (b'{"meta": {}}', "without a list of structures"),
        (b'{"data": [], "links": {"next": "file:///etc/hostname"}}', "must begin with http"),
    ],
)
def test_nonsense_from_a_server(database: Database, body: bytes, message: str) -> None:
    database.failures = [(200, body, {})]
    with pytest.raises((WorkFailedError, SettingsError), match=message):
        fetch_structures(database.url, filter="nelements=2")


def test_pages_that_lead_in_a_circle(database: Database) -> None:
    page = {"data": [], "links": {"next": "/v1/structures?page=2"}}
    database.failures = [(200, page, {}), (200, page, {}), (200, page, {})]
    with pytest.raises(WorkFailedError, match="leads in a circle"):
        fetch_structures(database.url, filter="nelements=2")


def test_too_many_structures(database: Database) -> None:
    with pytest.raises(SettingsError, match=r"more than 3 structures match .*narrow the filter"):
        fetch_structures(database.url, filter="nelements=2", page_limit=2, max_structures=3)


def test_a_server_that_is_not_there(database: Database) -> None:
    port = urlsplit(database.url).port
    assert port is not None
    with pytest.raises(WorkFailedError, match="cannot be reached"):
        fetch_structures("http://127.0.0.1:9/", filter="nelements=2", pause=0.001, timeout=0.5)
    with pytest.raises(SettingsError, match="must begin with http"):
        fetch_structures("ftp://example.org", filter="nelements=2")
