"""Hull entries of pymatgen's ComputedEntry, ComputedStructureEntry and PDEntry, as the dictionaries they are saved as.

The dictionaries are read as they are, without making pymatgen's objects: ``composition`` (amounts of the
cell), ``energy`` (uncorrected, eV/cell), ``energy_adjustments`` or ``correction`` (eV/cell), ``entry_id``,
``parameters``. The structure is read only when a correction asks for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals import Composition, Crystal
from opengnome.crystals.elements import atomic_number
from opengnome.datasets.documents import read_documents
from opengnome.datasets.entry_rows import (
    GIVEN_CORRECTION,
    MP2020,
    NO_CORRECTION,
    ReadEntries,
    make_row,
    read_amounts,
    read_formula,
    reject_repeated,
    resolve_levels,
)
from opengnome.datasets.entry_tables import level_of_run_type, number
from opengnome.datasets.file_names import stem
from opengnome.errors import InvalidCrystalError
from opengnome.hull.corrections import EnergyDetails


def read_computed_entries(path: Path, *, level: str | None = None) -> ReadEntries:
    """Hull entries of a JSON file (``.json``, ``.jsonl``, either gzipped) of entries saved by pymatgen.

    The file is a list, a document per line, or an object that holds the list (``entries``, or a saved
    PhaseDiagram's ``all_entries``). `level` is the level of theory of entries without a run type.
    Raises `SettingsError` when the file cannot be read or holds no such list.
    """
    return entries_from_dicts(read_documents(path, keys=("entries", "all_entries")), name=path.name, level=level)


def entries_from_dicts(documents: Sequence[Mapping[str, Any]], *, name: str, level: str | None = None) -> ReadEntries:
    """Hull entries of the dictionaries of pymatgen entries; `name` is that of their origin.

    The level of an entry is its run type (GGA and GGA+U are one, see `level_of_run_type`). The scheme of the
    corrections is that of the list: MP2020 as soon as one adjustment names it.
    """
    stated = [level_of_run_type(_mapping(document.get("parameters")).get("run_type")) for document in documents]
    levels = resolve_levels(stated, given=level, default=f"table:{name}")
    scheme = _scheme(documents)
    rows = []
    for i, document in enumerate(documents):
        composition, energy, correction = _cell(document)
        identifier = document.get("entry_id")
        rows.append(
            make_row(
                f"{stem(name)}-{i}" if identifier is None else str(identifier),
                composition,
                energy,
                correction_per_atom=correction,
                correction_scheme=scheme,
                level=levels[i],
                source=name,
            )
        )
    return ReadEntries(reject_repeated(rows), "total", name, lambda row: _details(documents[row]))


def _cell(
    document: Mapping[str, Any],
) -> tuple[Composition | InvalidCrystalError, float | None, float | None]:
    """Composition, energy and correction, the latter two in eV/atom."""
    composition = read_composition(document.get("composition"))
    energy, correction = number(document.get("energy")), _correction(document)
    if isinstance(composition, InvalidCrystalError) or energy is None:
        return composition, energy, None
    return composition, energy / composition.n_atoms, None if correction is None else correction / composition.n_atoms


def read_composition(value: Any) -> Composition | InvalidCrystalError:
    """The composition of a saved pymatgen Composition (amounts by element or ion) or of a formula."""
    if isinstance(value, str):
        return read_formula(value)
    if not isinstance(value, Mapping):
        return InvalidCrystalError(f"the composition is {value!r}; it must be amounts by element, or a formula")
    amounts = {key: number(amount) for key, amount in value.items() if not str(key).startswith("@")}
    missing = [key for key, amount in amounts.items() if amount is None]
    if missing:
        return InvalidCrystalError(f"the composition has no amount of {missing}")
    return read_amounts({key: amount for key, amount in amounts.items() if amount is not None})


def _details(document: Mapping[str, Any]) -> EnergyDetails:
    structure = document.get("structure")
    return EnergyDetails.from_computed_entry(
        _mapping(document.get("parameters")),
        _mapping(document.get("data")),
        crystal=None if structure is None else read_structure(structure),
    )


def read_structure(structure: Mapping[str, Any]) -> Crystal:
    """The crystal of a saved pymatgen Structure.

    Raises `InvalidCrystalError` for a site that is not one whole element, or when anything is missing.
    """
    try:
        numbers = [_element(site["species"]) for site in structure["sites"]]
        frac_coords = [site["abc"] for site in structure["sites"]]
        lattice = structure["lattice"]["matrix"]
    except (KeyError, TypeError) as error:
        raise InvalidCrystalError(f"the structure is no saved pymatgen Structure: {error!r} is missing") from error
    return Crystal(np.array(lattice), np.array(frac_coords), np.array(numbers))


def _element(species: Sequence[Mapping[str, Any]]) -> int:
    if len(species) != 1 or species[0]["occu"] != 1:
        raise InvalidCrystalError(
            f"a site is occupied by {species}; every site must be fully occupied by one element: give an ordered cell"
        )
    return atomic_number(species[0]["element"])


def _correction(document: Mapping[str, Any]) -> float | None:
    """eV/cell; the adjustments count where there are any, as in pymatgen's own reader. None: not understood."""
    values = [_adjustment(adjustment) for adjustment in _adjustments(document)]
    if not values:
        return number(document.get("correction", 0.0))
    return None if any(value is None for value in values) else sum(value for value in values if value is not None)


def _adjustments(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = document.get("energy_adjustments")
    return [_mapping(adjustment) for adjustment in found] if isinstance(found, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, an empty one in its place: a damaged document is no reason to stop."""
    return value if isinstance(value, Mapping) else {}


def _adjustment(adjustment: Mapping[str, Any]) -> float | None:
    """Value of an energy adjustment in eV/cell, by the fields that its class has."""
    if "value" in adjustment:
        return number(adjustment["value"])
    amount = number(adjustment.get("n_atoms"))
    if amount is not None and (per_atom := number(adjustment.get("adj_per_atom"))) is not None:
        return per_atom * amount
    per_degree, temperature = number(adjustment.get("adj_per_deg")), number(adjustment.get("temp"))
    if amount is not None and per_degree is not None and temperature is not None:
        return per_degree * temperature * amount
    return None


def _scheme(documents: Sequence[Mapping[str, Any]]) -> str:
    corrected = False
    for document in documents:
        for adjustment in _adjustments(document):
            described = f"{adjustment.get('name', '')} {_mapping(adjustment.get('cls')).get('@class', '')}"
            if "MP2020" in described or "MaterialsProject2020Compatibility" in described:
                return MP2020
            corrected = True
        corrected = corrected or bool(number(document.get("correction")))
    return GIVEN_CORRECTION if corrected else NO_CORRECTION
