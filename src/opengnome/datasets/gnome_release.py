"""The summary tables of the GNoME release as hull entries (Merchant et al., doi:10.1038/s41586-023-06735-9).

Files ``gnome_data/stable_materials_summary.csv`` and ``external_data/{mp_snapshot,external_materials}_summary.csv``,
by the release's description of its columns: ``Composition`` is the whole cell, ``UnCorrected Energy`` and
``Corrected Energy`` (MP2020) are eV per cell, ``Formation Energy Per Atom`` is relative to fixed elements of the
Materials Project. The external tables have the corrected energy only. Their Materials Project energies of Ga, Ge,
Li, Mg and Na are shifted to GNoME's pseudopotentials, so all tables are one level here, `LEVEL`, and none of the
Materials Project itself is. The data is under CC BY-NC 4.0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opengnome.datasets.entry_rows import (
    IN_THE_ENERGY,
    MP2020,
    EnergyKind,
    ReadEntries,
    make_row,
    read_formula,
    reject_repeated,
    resolve_levels,
)
from opengnome.datasets.entry_tables import column_names, number, read_columns
from opengnome.datasets.file_names import stem
from opengnome.errors import InvalidCrystalError, SettingsError

LEVEL = "GNoME PBE"
"""Level of theory of all tables of the release but the r2SCAN one."""

_COMPOSITION, _ID, _SITES = "Composition", "MaterialId", "NSites"
_RAW, _CORRECTED, _FORMATION = "UnCorrected Energy", "Corrected Energy", "Formation Energy Per Atom"
_COLUMNS = {_COMPOSITION, _ID, _SITES, _RAW, _CORRECTED, _FORMATION}


def is_gnome_summary(names: Sequence[str]) -> bool:
    """Whether columns of these names are those of a summary table of the release."""
    return {_COMPOSITION, _ID} <= set(names) and bool({_CORRECTED, _FORMATION} & set(names))


def read_gnome_summary(path: Path, *, kind: EnergyKind = "total", level: str | None = None) -> ReadEntries:
    """Hull entries of a summary table (CSV, gzipped or not).

    Total energies by default: a hull of them needs the elements, which the table of stable materials does not
    have (`references`: the external summary, or ``elemental_references.json``). With formation energies the
    elements are at zero. `level` replaces `LEVEL`, for the r2SCAN table.
    Raises `SettingsError` when the file cannot be read or lacks the columns.
    """
    names = column_names(path)
    needed = _FORMATION if kind == "formation" else _CORRECTED
    missing = [name for name in (_COMPOSITION, _ID, needed) if name not in names]
    if missing:
        raise SettingsError(f"{path} lacks the columns {missing} of the GNoME release; its columns are {names}")
    return _entries(read_columns(path, _COLUMNS), name=path.name, kind=kind, level=level)


def _entries(columns: Mapping[str, list[Any]], *, name: str, kind: EnergyKind, level: str | None) -> ReadEntries:
    has_raw = kind == "total" and _RAW in columns
    n_rows = len(columns[_ID])
    sites = columns.get(_SITES, [None] * n_rows)
    levels = resolve_levels([""] * n_rows, given=level, default=LEVEL)
    rows = []
    for i in range(n_rows):
        composition = read_formula(columns[_COMPOSITION][i])
        energy, correction = None, 0.0
        if not isinstance(composition, InvalidCrystalError):
            n_sites = number(sites[i])
            if n_sites is not None and n_sites != composition.n_atoms:
                composition = InvalidCrystalError(
                    f"NSites is {sites[i]} and {columns[_COMPOSITION][i]} has {composition.n_atoms} atoms; an energy "
                    "per cell needs them equal"
                )
        if not isinstance(composition, InvalidCrystalError):
            if kind == "formation":
                energy = number(columns[_FORMATION][i])
            elif (corrected := number(columns[_CORRECTED][i])) is not None:
                raw = number(columns[_RAW][i]) if has_raw else corrected
                energy = None if raw is None else raw / composition.n_atoms
                correction = 0.0 if raw is None else (corrected - raw) / composition.n_atoms
        rows.append(
            make_row(
                str(columns[_ID][i] or f"{stem(name)}-{i}"),
                composition,
                energy,
                correction_per_atom=correction,
                correction_scheme=MP2020 if has_raw else MP2020 + IN_THE_ENERGY,
                level=levels[i],
                source=name,
            )
        )
    return ReadEntries(reject_repeated(rows), kind, name)
