"""Documents of the Materials Project's API as hull entries, and the client that fetches them.

Thermo documents (``thermo_type``, ``uncorrected_energy_per_atom``, ``energy_per_atom``,
``formation_energy_per_atom``) and summary documents, as dictionaries: a response saved as JSON, or what the
client gives. Data of the Materials Project is under CC BY 4.0 (Jain et al., doi:10.1063/1.4812323).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opengnome.crystals import Composition
from opengnome.datasets.chemical_systems import subsystems
from opengnome.datasets.documents import read_documents
from opengnome.datasets.entries_json import read_composition
from opengnome.datasets.entry_rows import (
    IN_THE_ENERGY,
    MP2020,
    NO_CORRECTION,
    EnergyKind,
    ReadEntries,
    make_row,
    reject_repeated,
    resolve_levels,
)
from opengnome.datasets.entry_tables import number
from opengnome.datasets.file_names import stem
from opengnome.errors import InvalidCrystalError, SettingsError, WorkFailedError
from opengnome.hull.corrections import EnergyDetails

SUMMARY_LEVEL = "Materials Project summary"
"""Level of documents that do not say how their energies were mixed: summary documents."""
THERMO_TYPES = ("GGA_GGA+U", "R2SCAN", "GGA_GGA+U_R2SCAN")

_FIELDS = (
    "material_id",
    "composition",
    "formula_pretty",
    "thermo_type",
    "energy_type",
    "uncorrected_energy_per_atom",
    "energy_per_atom",
    "formation_energy_per_atom",
)
# Corrections by thermo type; the mixed type also shifts r2SCAN energies onto the GGA hull.
_SCHEMES = {"GGA_GGA+U": MP2020, "R2SCAN": NO_CORRECTION, "GGA_GGA+U_R2SCAN": "MP2020 and r2SCAN mixing"}


def read_materials_project(path: Path, *, kind: EnergyKind = "total", level: str | None = None) -> ReadEntries:
    """Hull entries of a saved response, or of a list of its documents, as JSON (gzipped or not).

    Raises `SettingsError` when the file cannot be read or holds no documents.
    """
    return entries_from_documents(read_documents(path, keys=("data",)), name=path.name, kind=kind, level=level)


def entries_from_documents(
    documents: Sequence[Mapping[str, Any]],
    *,
    name: str = "Materials Project",
    kind: EnergyKind = "total",
    level: str | None = None,
) -> ReadEntries:
    """Hull entries of thermo or summary documents; `name` is that of their origin.

    The level is the ``thermo_type``; documents of several types are entries of several levels. `kind`
    ``formation`` takes the database's formation energies, the elements at zero.
    """
    # The client's own documents have an enumeration there, saved ones its value.
    types = [document.get("thermo_type") for document in documents]
    stated = [str(getattr(kind, "value", kind) or "") for kind in types]
    levels = resolve_levels(stated, given=level, default=SUMMARY_LEVEL)
    rows = []
    for i, document in enumerate(documents):
        energy, correction, inside = _energies(document, kind)
        rows.append(
            make_row(
                _identifier(document.get("material_id")) or f"{stem(name)}-{i}",
                _composition(document),
                energy,
                correction_per_atom=correction,
                correction_scheme=_SCHEMES.get(stated[i], MP2020) + inside,
                level=levels[i],
                source=name,
            )
        )
    return ReadEntries(reject_repeated(rows), kind, name, lambda row: _details(documents[row]))


def fetch_documents(
    chemical_system: str, *, thermo_type: str = "GGA_GGA+U", api_key: str | None = None
) -> list[dict[str, Any]]:
    """Thermo documents of a chemical system such as ``Li-Fe-O`` and of all its subsystems, from the database.

    Needs the extra ``opengnome[mp]`` and a key of the Materials Project, `api_key` or the variable
    MP_API_KEY. Raises `SettingsError` without the extra or for an unknown thermo type, `InvalidCrystalError`
    for a symbol that is no element, `WorkFailedError` when the database does not answer.
    """
    if thermo_type not in THERMO_TYPES:
        raise SettingsError(f"thermo_type is {thermo_type!r}; choose from {list(THERMO_TYPES)}")
    systems = subsystems(chemical_system)
    try:
        from mp_api.client import MPRester  # type: ignore[import-not-found]
    except ImportError as error:
        raise SettingsError(
            "the client of the Materials Project is not installed; install opengnome[mp], or save the documents as "
            "JSON and read the file"
        ) from error
    try:
        # Dictionaries, not models: models would be validated against the client's version of the schema.
        with MPRester(api_key, use_document_model=False) as client:
            found = client.materials.thermo.search(
                chemsys=systems, thermo_types=[thermo_type], fields=list(_FIELDS), all_fields=False
            )
    except Exception as error:  # the client raises its own, requests' and pydantic's errors
        raise WorkFailedError(f"the Materials Project did not answer for {chemical_system}: {error}") from error
    return [dict(document) for document in found]


def _identifier(value: Any) -> str:
    """Ids are strings, or objects with the string in a saved response of older clients."""
    if isinstance(value, Mapping):
        value = value.get("string")
    return str(value or "")


def _composition(document: Mapping[str, Any]) -> Composition | InvalidCrystalError:
    return read_composition(document.get("composition") or document.get("formula_pretty"))


def _energies(document: Mapping[str, Any], kind: EnergyKind) -> tuple[float | None, float | None, str]:
    """Uncorrected energy and correction, eV/atom, and the ending of the scheme's name.

    Without an uncorrected energy the correction is in the energy, as it is in a formation energy.
    """
    if kind == "formation":
        return number(document.get("formation_energy_per_atom")), 0.0, IN_THE_ENERGY
    corrected = number(document.get("energy_per_atom"))
    raw = number(document.get("uncorrected_energy_per_atom"))
    if raw is None or corrected is None:
        return corrected, 0.0, IN_THE_ENERGY
    return raw, corrected - raw, ""


def _details(document: Mapping[str, Any]) -> EnergyDetails:
    return EnergyDetails(run_type=str(document.get("energy_type") or "").replace("GGA_U", "GGA+U"))
