"""Structures of OPTIMADE databases as crystals and hull entries, and a client that fetches them page by page.

The standard (Evans et al., doi:10.1039/D4DD00039K) fixes how a structure is written and how pages follow each
other, not how an energy is called: each database has fields with its own prefix. Those that are known are in
`ENERGY_FIELDS`; any other can be named.
"""

import json
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import Request, urlopen

import numpy as np

from opengnome.crystals import Composition, Crystal
from opengnome.crystals.elements import ATOMIC_NUMBERS, atomic_number
from opengnome.crystals.geometry import check_distances
from opengnome.crystals.io import ReadRow
from opengnome.datasets.chemical_systems import subsystems
from opengnome.datasets.documents import read_documents
from opengnome.datasets.entry_rows import ReadEntries, make_row, read_formula, reject_repeated, resolve_levels
from opengnome.datasets.entry_tables import EnergyColumn, number
from opengnome.datasets.file_names import stem
from opengnome.errors import InvalidCrystalError, SettingsError, WorkFailedError

ENERGY_FIELDS: tuple[EnergyColumn, ...] = (
    EnergyColumn("_alexandria_formation_energy_per_atom", "formation", True),
    EnergyColumn("_oqmd_delta_e", "formation", True),
    EnergyColumn("_mp_stability.gga_gga+u.formation_energy_per_atom", "formation", True),
    EnergyColumn("_jarvis_formation_energy_peratom", "formation", True),
)
"""Energy fields of databases whose meaning is known, eV/atom; a dot leads into an object."""

_STRUCTURE_FIELDS = (
    "chemical_formula_reduced",
    "nsites",
    "lattice_vectors",
    "cartesian_site_positions",
    "species_at_sites",
    "species",
    "dimension_types",
)
_FUNCTIONAL_FIELD = "_alexandria_xc_functional"
_FULL_OCCUPANCY_TOLERANCE = 1e-3
_TRY_AGAIN = (429, 502, 503, 504)
_ATTEMPTS = 4
_LONGEST_PAUSE = 30.0


def read_optimade(path: Path, *, energy: EnergyColumn | None = None, level: str | None = None) -> ReadEntries:
    """Hull entries of a saved response, or of a list of its structures, as JSON (gzipped or not).

    Raises `SettingsError` when the file cannot be read or has no energy field that is known or named.
    """
    return entries_from_structures(read_documents(path, keys=("data",)), name=path.name, energy=energy, level=level)


def entries_from_structures(
    structures: Sequence[Mapping[str, Any]],
    *,
    name: str = "OPTIMADE",
    energy: EnergyColumn | None = None,
    level: str | None = None,
) -> ReadEntries:
    """Hull entries of OPTIMADE structures; `name` is that of their origin.

    `energy` says which field to take and what it holds, by default the first of `ENERGY_FIELDS` that occurs.
    The level is the functional that a structure states, else `level`, else the name of the energy field.
    Raises `SettingsError` when no structure has the field.
    """
    field = _energy_field(structures, energy, name)
    attributes = [_attributes(structure) for structure in structures]
    levels = resolve_levels(
        [str(a.get(_FUNCTIONAL_FIELD) or "") for a in attributes], given=level, default=f"OPTIMADE {field.name}"
    )
    rows = []
    for i, structure in enumerate(structures):
        composition, energy_per_atom = _energy_per_atom(attributes[i], field)
        rows.append(
            make_row(
                str(structure.get("id") or f"{stem(name)}-{i}"),
                composition,
                energy_per_atom,
                level=levels[i],
                source=name,
            )
        )
    return ReadEntries(reject_repeated(rows), field.kind, name)


def crystals_from_structures(structures: Sequence[Mapping[str, Any]]) -> list[ReadRow]:
    """The crystal of each structure, or the reason why it is none: disorder, vacancies, a slab, missing fields."""
    rows = []
    for i, structure in enumerate(structures):
        identifier = str(structure.get("id") or f"structure-{i}")
        try:
            rows.append(ReadRow(identifier, _crystal(_attributes(structure))))
        except InvalidCrystalError as error:
            rows.append(ReadRow(identifier, None, str(error)))
    return rows


def chemical_system_filter(chemical_system: str) -> str:
    """OPTIMADE filter of a chemical system such as ``Li-Fe-O`` and all its subsystems.

    In the part of the filter language that every database must know. Raises `InvalidCrystalError` for a
    symbol that is no element.
    """
    parts = (system.split("-") for system in subsystems(chemical_system))
    return " OR ".join(
        "(elements HAS ALL " + ",".join(f'"{symbol}"' for symbol in part) + f" AND nelements={len(part)})"
        for part in parts
    )


def fetch_structures(
    base_url: str,
    *,
    filter: str,
    fields: Sequence[str] = (),
    page_limit: int = 100,
    max_structures: int = 100_000,
    timeout: float = 60.0,
    pause: float = 1.0,
) -> list[dict[str, Any]]:
    """Structures that match a filter, all pages of them, as the database writes them.

    `base_url` is that of the database (``https://alexandria.icams.rub.de/pbe``), of a version of it, or of its
    ``structures``. `fields` are asked for beside those of a structure: name the energy field there. A server
    that is busy is asked again, `pause` seconds later and each time after twice as long, or when it says.
    Raises `SettingsError` for an address that is not http or more than `max_structures` matches,
    `WorkFailedError` when the server fails, answers nonsense or leads in a circle.
    """
    asked = {
        "filter": filter,
        "page_limit": page_limit,
        "response_fields": ",".join(dict.fromkeys([*_STRUCTURE_FIELDS, *(field.split(".")[0] for field in fields)])),
    }
    url: str | None = f"{_endpoint(base_url)}?{urlencode(asked)}"
    structures: list[dict[str, Any]] = []
    visited: set[str] = set()
    while url is not None:
        if url in visited:
            raise WorkFailedError(f"{url} leads in a circle: the database names a page it has given already")
        visited.add(url)
        page = _get(url, timeout=timeout, pause=pause)
        data = page.get("data")
        if not isinstance(data, list):
            raise WorkFailedError(f"{url} answered without a list of structures under 'data'")
        structures += data
        if len(structures) > max_structures:
            raise SettingsError(
                f"more than {max_structures} structures match {filter!r}; narrow the filter or raise max_structures"
            )
        url = _next_page(page, url)
    return structures


def _endpoint(base_url: str) -> str:
    _check_address(base_url)
    base = base_url.rstrip("/")
    if base.endswith("/structures"):
        return base
    last = base.rpartition("/")[2]
    versioned = last.startswith("v") and last[1:2].isdigit()
    return f"{base}/structures" if versioned else f"{base}/v1/structures"


def _check_address(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError(f"{url!r} is no address of a database; it must begin with http:// or https://")


def _next_page(page: Mapping[str, Any], url: str) -> str | None:
    """Address of the next page, from a string or a link object, absolute or relative; None on the last."""
    following = (page.get("links") or {}).get("next")
    if isinstance(following, Mapping):
        following = following.get("href")
    if not following:
        return None
    address = urljoin(url, str(following))
    _check_address(address)  # never a file or anything else a server might point at
    return address


def _get(url: str, *, timeout: float, pause: float) -> dict[str, Any]:
    """The JSON object at an address."""
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "opengnome"})
    for attempt in range(_ATTEMPTS):
        try:
            with urlopen(request, timeout=timeout) as response:
                content = json.load(response)
        except HTTPError as error:
            with error:
                wait = _pause(error, pause * 2**attempt)
                if error.code in _TRY_AGAIN and attempt + 1 < _ATTEMPTS:
                    time.sleep(wait)
                    continue
                raise WorkFailedError(f"{url} answered {error.code} {error.reason}{_detail(error)}") from error
        except (URLError, TimeoutError, HTTPException, ConnectionError) as error:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(min(pause * 2**attempt, _LONGEST_PAUSE))
                continue
            raise WorkFailedError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from error
        except ValueError as error:
            raise WorkFailedError(f"{url} did not answer with JSON: {error}") from error
        if not isinstance(content, dict):
            raise WorkFailedError(f"{url} answered with a {type(content).__name__}, not an object")
        return content
    raise AssertionError("unreachable: the last attempt returns or raises")


def _pause(error: HTTPError, otherwise: float) -> float:
    asked = error.headers.get("Retry-After", "")
    return min(float(asked) if asked.isdigit() else otherwise, _LONGEST_PAUSE)


def _detail(error: HTTPError) -> str:
    """What the server says of the error, in the form of the standard."""
    try:
        details = [str(item.get("detail")) for item in json.load(error)["errors"]]
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return ""
    return ": " + "; ".join(details)


def _attributes(structure: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = structure.get("attributes")
    return attributes if isinstance(attributes, Mapping) else {}


def _energy_field(structures: Sequence[Mapping[str, Any]], asked: EnergyColumn | None, name: str) -> EnergyColumn:
    attributes = [_attributes(structure) for structure in structures]
    for field in (asked,) if asked is not None else ENERGY_FIELDS:
        if any(_value(a, field.name) is not None for a in attributes):
            return field
    if asked is not None:
        raise SettingsError(f"{name}: no structure has a field {asked.name!r}")
    own = sorted({key for a in attributes for key in a if key.startswith("_")})
    raise SettingsError(
        f"{name}: no structure has a known energy field ({', '.join(field.name for field in ENERGY_FIELDS)}); the "
        f"database's own fields here are {own}: name one with --energy, and ask for it when fetching"
    )


def _value(attributes: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; a key may itself hold a dot only as a whole."""
    value: Any = attributes
    if path in attributes:
        return attributes[path]
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _energy_per_atom(
    attributes: Mapping[str, Any], field: EnergyColumn
) -> tuple[Composition | InvalidCrystalError, float | None]:
    composition = read_formula(attributes.get("chemical_formula_reduced"))
    energy = number(_value(attributes, field.name))
    if field.per_atom or energy is None or isinstance(composition, InvalidCrystalError):
        return composition, energy
    n_sites = attributes.get("nsites")
    if not isinstance(n_sites, int) or n_sites < 1 or n_sites % composition.n_atoms:
        return InvalidCrystalError(
            f"nsites is {n_sites}, which is no multiple of the {composition.n_atoms} atoms of "
            f"{composition.reduced_formula}; an energy per cell needs the cell"
        ), energy
    return composition, energy / n_sites


def _crystal(attributes: Mapping[str, Any]) -> Crystal:
    periodic = attributes.get("dimension_types")
    if periodic is not None and list(periodic) != [1, 1, 1]:
        raise InvalidCrystalError(f"dimension_types is {periodic}; a crystal is periodic along all three vectors")
    needed = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")
    missing = [key for key in needed if attributes.get(key) is None]
    if missing:
        raise InvalidCrystalError(f"the structure lacks {missing}; ask for them when fetching")
    elements = _elements_of_species(attributes.get("species") or [])
    numbers = [elements.get(str(name)) or _element_of(str(name)) for name in attributes["species_at_sites"]]
    try:
        lattice = np.array(attributes["lattice_vectors"], dtype=float)
        positions = np.array(attributes["cartesian_site_positions"], dtype=float)
        frac_coords = np.linalg.solve(lattice.T, positions.T).T
    except (TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise InvalidCrystalError(f"lattice and positions are no crystal: {error}") from error
    crystal = Crystal(lattice, frac_coords, np.array(numbers))
    check_distances(crystal)
    return crystal


def _elements_of_species(species: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Atomic number by the name of the species. Raises `InvalidCrystalError` for a site that several share."""
    elements = {}
    for kind in species:
        symbols = list(kind.get("chemical_symbols") or [])
        occupancies = list(kind.get("concentration") or [1.0])
        is_full = len(occupancies) == 1 and abs(occupancies[0] - 1.0) < _FULL_OCCUPANCY_TOLERANCE
        if len(symbols) != 1 or symbols[0] not in ATOMIC_NUMBERS or not is_full:
            raise InvalidCrystalError(
                f"the species {kind.get('name')!r} is {symbols} with concentrations {kind.get('concentration')}; every "
                "site must be fully occupied by one element: give an ordered approximant"
            )
        elements[str(kind.get("name"))] = ATOMIC_NUMBERS[symbols[0]]
    return elements


def _element_of(name: str) -> int:
    return atomic_number(name)
