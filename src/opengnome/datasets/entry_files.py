"""Hull entries of any file that has them: the front door to the readers of this package."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.datasets.documents import documents_of, read_json
from opengnome.datasets.entries_json import entries_from_dicts
from opengnome.datasets.entry_rows import EnergyKind, ReadEntries, make_row, read_formula
from opengnome.datasets.entry_tables import EnergyColumn, column_names, number, read_entry_table
from opengnome.datasets.gnome_release import is_gnome_summary, read_gnome_summary
from opengnome.datasets.materials_project import entries_from_documents
from opengnome.datasets.optimade import entries_from_structures
from opengnome.errors import SettingsError
from opengnome.hull import Entry

TABLE, GNOME = "table", "gnome"
COMPUTED_ENTRIES, MATERIALS_PROJECT, OPTIMADE = "computed-entries", "materials-project", "optimade"
FORMATS: Mapping[str, str] = {
    TABLE: "CSV or Parquet with formulas and energies in columns of documented names",
    GNOME: "CSV summary of the GNoME release",
    COMPUTED_ENTRIES: "JSON of pymatgen entries",
    MATERIALS_PROJECT: "JSON of thermo or summary documents of the Materials Project",
    OPTIMADE: "JSON of OPTIMADE structures",
}
"""Formats by name, and what they are."""

_COLUMN_SUFFIXES = (".parquet", ".csv", ".csv.gz")
_DOCUMENT_SUFFIXES = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
_DOCUMENT_KEYS = ("entries", "all_entries", "data")


def read_entries(
    path: Path, *, format: str | None = None, energy: str | None = None, level: str | None = None
) -> ReadEntries:
    """Hull entries of a file; its format is recognised by suffix and content unless `format` names one of `FORMATS`.

    `energy` is ``total`` or ``formation``, or the column or field to take (see `EnergyColumn.parse`); `level` is
    the level of theory of rows that state none.
    Raises `SettingsError` when the file cannot be read, is of no known format, or lacks what its format needs;
    a bad row is a rejected row.
    """
    if format is not None and format not in FORMATS:
        raise SettingsError(f"the format {format!r} is unknown; choose from {', '.join(FORMATS)}")
    if path.name.endswith(_COLUMN_SUFFIXES):
        return _read_columns(path, format, energy, level)
    if path.name.endswith(_DOCUMENT_SUFFIXES):
        return _read_documents(path, format, energy, level)
    if not path.exists():
        raise SettingsError(f"there is no file {path}")
    known = ", ".join((*_COLUMN_SUFFIXES, *_DOCUMENT_SUFFIXES))
    raise SettingsError(f"{path} is of no known format; hull entries are read from {known}")


def read_references(path: Path, *, level: str, format: str | None = None) -> tuple[Entry, ...]:
    """Entries of pure elements at a level of theory, from a file of any format or from JSON ``{"Li": -1.9, ...}``.

    The mapping is eV/atom by element, as the GNoME release's ``elemental_references.json``. Compounds of the
    file are left out; rows that state no level are taken to be of this one.
    Raises `SettingsError` when the file cannot be read or has no element at this level.
    """
    if path.name.endswith(_DOCUMENT_SUFFIXES) and _is_mapping_of_elements(content := read_json(path)):
        rows = [
            make_row(
                f"reference-{symbol}",
                Composition(((ATOMIC_NUMBERS[symbol], 1),)),
                number(value),
                level=level,
                source=path.name,
            )
            for symbol, value in content.items()
        ]
        bad = [row.id for row in rows if not isinstance(row, Entry)]
        if bad:
            raise SettingsError(f"{path}: the energies of {bad} are no finite numbers")
        return tuple(row for row in rows if isinstance(row, Entry))
    read = read_entries(path, format=format, energy="total", level=level)
    refused = next((row for row in read.rejected if _is_element(row.reduced_formula)), None)
    if refused is not None:
        raise SettingsError(f"{path}: the reference {refused.id} ({refused.reduced_formula}) is none: {refused.reason}")
    found = tuple(e for e in read.entries if e.composition.n_elements == 1 and e.level == level)
    if not found:
        raise SettingsError(
            f"{path} has no pure element of level {level!r}; it has {len(read.entries)} entries of the levels "
            f"{list(read.levels)}"
        )
    return found


def _read_columns(path: Path, format: str | None, energy: str | None, level: str | None) -> ReadEntries:
    format = format or (GNOME if is_gnome_summary(column_names(path)) else TABLE)
    if format == GNOME:
        return read_gnome_summary(path, kind=_kind(energy, format), level=level)
    if format != TABLE:
        raise SettingsError(f"{path} is a table, which the format {format!r} is not; choose {TABLE} or {GNOME}")
    kind: EnergyKind | None = _kind(energy, format) if energy in ("total", "formation") else None
    column = None if energy is None or kind else EnergyColumn.parse(energy)
    return read_entry_table(path, energy=column, kind=kind, level=level)


def _read_documents(path: Path, format: str | None, energy: str | None, level: str | None) -> ReadEntries:
    documents = documents_of(read_json(path), keys=_DOCUMENT_KEYS, name=str(path))
    format = format or _format_of(documents, path)
    if format == COMPUTED_ENTRIES:
        if energy not in (None, "total"):
            raise SettingsError(f"{path} holds pymatgen entries, whose energies are total energies; leave --energy out")
        return entries_from_dicts(documents, name=path.name, level=level)
    if format == MATERIALS_PROJECT:
        return entries_from_documents(documents, name=path.name, kind=_kind(energy, format), level=level)
    if format == OPTIMADE:
        # All fields that are known hold formation energies.
        field = None if energy in (None, "formation") else EnergyColumn.parse(str(energy))
        return entries_from_structures(documents, name=path.name, energy=field, level=level)
    raise SettingsError(f"{path} is JSON, which the format {format!r} is not; choose from {list(FORMATS)[2:]}")


def _format_of(documents: Sequence[Mapping[str, Any]], path: Path) -> str:
    first = documents[0]
    if "attributes" in first:
        return OPTIMADE
    if {"composition", "energy"} <= first.keys():
        return COMPUTED_ENTRIES
    if "material_id" in first or "thermo_id" in first:
        return MATERIALS_PROJECT
    raise SettingsError(
        f"{path} holds documents with the keys {sorted(first)[:12]}, which are of no known format "
        f"({', '.join(list(FORMATS)[2:])}); name it with --format"
    )


def _kind(energy: str | None, format: str) -> EnergyKind:
    if energy in (None, "total"):
        return "total"
    if energy == "formation":
        return "formation"
    raise SettingsError(f"energy {energy!r}: the format {format!r} has 'total' and 'formation' energies only")


def _is_mapping_of_elements(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and content.keys() <= ATOMIC_NUMBERS.keys()


def _is_element(formula: str) -> bool:
    """Whether a formula, which may be no formula, is of one element."""
    composition = read_formula(formula)
    return isinstance(composition, Composition) and composition.n_elements == 1
