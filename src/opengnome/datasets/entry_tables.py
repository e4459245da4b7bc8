"""Hull entries of CSV and Parquet tables: formula and energy in columns of documented names (`docs/hull.md`).

| column | meaning |
|---|---|
| `id`, `material_id` or `entry_id` | name of the phase; by default the file's stem and the row, counted from 0 |
| `formula`, `composition`, `reduced_formula` or `atomic_numbers` | the first of these that the table has |
| `energy_per_atom` / `formation_energy_per_atom` | total / formation energy, eV/atom |
| `energy` / `formation_energy` | the same, eV per cell of the formula |
| `n_atoms` | atoms of the cell, for energies per cell where the formula is reduced |
| `energy_kind` | what `energy` is: a word with ``formation`` or ``total`` in it; the same in all rows |
| `correction_per_atom` / `correction` | added to the energy, eV/atom / eV per cell |
| `correction_scheme` | name of the scheme of that correction |
| `level` or `run_type` | level of theory; GGA and GGA+U of the Materials Project are one level |
| `source` | origin of the row |
| `status` | how a relaxation ended (`oracles.Status`): rows that did not converge are rejected |
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from opengnome.crystals import Composition, Crystal
from opengnome.crystals.parquet import ARRAY_COLUMNS, read_rows
from opengnome.datasets.entry_rows import (
    GIVEN_CORRECTION,
    IN_THE_ENERGY,
    MALFORMED,
    NO_CORRECTION,
    NOT_CONVERGED,
    EnergyKind,
    ReadEntries,
    RejectedRow,
    make_row,
    read_amounts,
    read_formula,
    reject_repeated,
    resolve_levels,
)
from opengnome.datasets.file_names import stem
from opengnome.datasets.statuses import is_unfinished
from opengnome.errors import InvalidCrystalError, SettingsError
from opengnome.hull.corrections import EnergyDetails

ID_COLUMNS = ("id", "material_id", "entry_id")
FORMULA_COLUMNS = ("formula", "composition", "reduced_formula", "atomic_numbers")
_LEVEL_COLUMNS = ("level", "run_type")

_PARSING = pa_csv.ParseOptions(newlines_in_values=True)
_MATERIALS_PROJECT_RUN_TYPES = ("GGA", "GGA+U", "GGA_U", "PBE", "PBE+U", "PBE_U")


@dataclass(frozen=True)
class EnergyColumn:
    """A column of energies and what it holds."""

    name: str
    kind: EnergyKind
    per_atom: bool
    """eV/atom; eV per cell otherwise."""

    @classmethod
    def parse(cls, text: str) -> "EnergyColumn":
        """From ``NAME``, where the name tells, or ``NAME:KIND:PER``, e.g. ``e_form:formation:atom``.

        A name tells by one of the documented names, or by ending in ``_per_atom``. Raises `SettingsError`.
        """
        name, *rest = text.split(":")
        if len(rest) == 2 and rest[0] in ("total", "formation") and rest[1] in ("atom", "cell"):
            return cls(name, "formation" if rest[0] == "formation" else "total", rest[1] == "atom")
        if not rest and name in ENERGY_COLUMNS:
            return ENERGY_COLUMNS[name]
        if not rest and name.endswith("_per_atom"):
            return cls(name, "formation" if "formation" in name else "total", True)
        raise SettingsError(
            f"energy column {text!r}: the name does not say what it holds; write {name}:formation:atom, or total for "
            "formation, or cell for atom"
        )


ENERGY_COLUMNS: Mapping[str, EnergyColumn] = {
    column.name: column
    for column in (
        EnergyColumn("energy_per_atom", "total", True),
        EnergyColumn("formation_energy_per_atom", "formation", True),
        EnergyColumn("energy", "total", False),
        EnergyColumn("formation_energy", "formation", False),
    )
}
"""Columns that are looked for, the first that the table has is taken; `energy` before all others where a column
`energy_kind` speaks of it."""


def read_entry_table(
    path: Path, *, energy: EnergyColumn | None = None, kind: EnergyKind | None = None, level: str | None = None
) -> ReadEntries:
    """Hull entries of a CSV (``.csv``, ``.csv.gz``) or Parquet table.

    `energy` names the column to take, `kind` the kind it must hold; `level` is the level of theory of the rows that
    state none. A table without any level is one level, ``table:<file name>``.
    Raises `SettingsError` when the file cannot be read or lacks columns; a bad row is a rejected row.
    """
    wanted = {
        *ID_COLUMNS,
        *FORMULA_COLUMNS,
        *_LEVEL_COLUMNS,
        *ENERGY_COLUMNS,
        "n_atoms",
        "energy_kind",
        "source",
        "status",
    }
    wanted |= {"correction", "correction_per_atom", "correction_scheme", *([energy.name] if energy else [])}
    malformed: list[RejectedRow] = []
    columns = read_columns(path, wanted, malformed)
    read = entries_from_columns(columns, name=path.name, energy=energy, kind=kind, level=level)
    return replace(read, rows=(*read.rows, *malformed), details_of=_Details(path, columns.get("run_type")))


class _Details:
    """What a table says of each energy beside it; the crystals of a crystal table are read on the first question."""

    def __init__(self, path: Path, run_types: Sequence[Any] | None) -> None:
        self._path = path
        self._run_types = run_types

    def __call__(self, row: int) -> EnergyDetails:
        run_type = "" if self._run_types is None else str(self._run_types[row] or "")
        crystal = self._crystals[row] if row < len(self._crystals) else None
        return EnergyDetails(run_type=run_type, crystal=crystal)

    @cached_property
    def _crystals(self) -> Sequence[Crystal | None]:
        """None for a row without a whole crystal, of which the formula must tell."""
        if self._path.suffix != ".parquet" or not set(ARRAY_COLUMNS) <= set(column_names(self._path)):
            return ()
        return [crystal if isinstance(crystal, Crystal) else None for _, crystal in read_rows(self._path)]


def read_columns(path: Path, wanted: set[str], malformed: list[RejectedRow] | None = None) -> dict[str, list[Any]]:
    """The wanted columns that the table has, as lists; every value of a CSV is text, empty ones are None.

    Text, so that a row with a word in a column of numbers is one rejected row and not a broken file. Lines of a CSV
    with another number of values than its head are added to `malformed` and left out.
    Raises `SettingsError` when the file is missing or is no table.
    """
    names = column_names(path)
    found = [name for name in names if name in wanted]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise SettingsError(f"{path} has several columns called {twice}; rename or remove all but one of each")
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=found)
        else:
            convert = pa_csv.ConvertOptions(
                include_columns=found,
                column_types=dict.fromkeys(found, pa.string()),
                null_values=[""],  # "NaN" is an energy to be named in a reason, and a formula
                strings_can_be_null=True,
            )
            table = pa_csv.read_csv(path, convert_options=convert, **_reading(path, malformed))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise SettingsError(_unreadable(path, error)) from error
    return {name: table[name].to_pylist() for name in found}


def _reading(path: Path, malformed: list[RejectedRow] | None) -> dict[str, Any]:
    """Options that put lines of another number of values than the head into a list; without one they are an error."""
    if malformed is None:
        return {"parse_options": _PARSING}

    def reject(row: pa_csv.InvalidRow) -> str:
        where = f"line {row.number}" if row.number else f"line {row.text[:40]!r}"
        reason = f"it has {row.actual_columns} values, the head of the table has {row.expected_columns}"
        malformed.append(RejectedRow(f"{stem(path.name)}: {where}", MALFORMED, reason))
        return "skip"

    return {
        "parse_options": pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=reject),
        "read_options": pa_csv.ReadOptions(use_threads=False),  # else the lines have no numbers
    }


def column_names(path: Path) -> list[str]:
    """Names of the columns of a CSV or Parquet table. Raises `SettingsError` when it cannot be read."""
    try:
        if path.suffix == ".parquet":
            return pq.read_schema(path).names
        skipping = pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip")
        with pa_csv.open_csv(path, parse_options=skipping) as reader:  # it looks into the first lines, too
            return reader.schema.names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise SettingsError(_unreadable(path, error)) from error


def entries_from_columns(
    columns: Mapping[str, Sequence[Any]],
    *,
    name: str,
    energy: EnergyColumn | None = None,
    kind: EnergyKind | None = None,
    level: str | None = None,
) -> ReadEntries:
    """Hull entries of columns of equal length; `name` is the table's in messages, ids and the default level.

    Raises `SettingsError` when there is no formula or no energy, when energies per cell have no cell, or when rows
    disagree about the kind of the energies.
    """
    chosen = energy or _find_energy(columns, kind, name)
    if chosen.name not in columns:
        raise SettingsError(f"{name} has no column {chosen.name!r}; its columns are {sorted(columns)}")
    formulas, reduced = _formulas(columns, name)
    n_rows = len(formulas)
    compositions = _compositions(formulas)
    if chosen.kind == "formation":
        columns = _with_corrections_inside(columns)
    per_cell = not chosen.per_atom or "correction" in columns
    if per_cell and reduced and "n_atoms" not in columns:
        raise SettingsError(
            f"{name}: the column {'correction' if chosen.per_atom else chosen.name!r} is per cell and the formula is "
            "reduced; add n_atoms, the formula of the cell, or energies per atom"
        )
    n_atoms = _cell_sizes(columns.get("n_atoms"), compositions) if per_cell else [1.0] * n_rows
    energies = _per_atom(columns[chosen.name], None if chosen.per_atom else n_atoms)
    corrections, schemes = _corrections(columns, n_rows, n_atoms)
    stated = _stated_levels(columns, n_rows)
    levels = resolve_levels(stated, given=level, default=f"table:{name}")
    ids = _ids(columns, n_rows, stem(name))
    sources = [str(source or name) for source in columns.get("source", [name] * n_rows)]
    unfinished = _unfinished(columns.get("status"), n_rows)
    rows = [
        RejectedRow(ids[i], NOT_CONVERGED, f"its status is {unfinished[i]!r}: no energy of a relaxed crystal")
        if unfinished[i]
        else make_row(
            ids[i],
            compositions[i],
            energies[i],
            correction_per_atom=corrections[i],
            correction_scheme=schemes[i],
            level=levels[i],
            source=sources[i],
        )
        for i in range(n_rows)
    ]
    return ReadEntries(reject_repeated(rows), chosen.kind, name)


def _unfinished(statuses: Sequence[Any] | None, n_rows: int) -> list[str]:
    """The status of each row that says that its relaxation did not converge; empty for all others."""
    if statuses is None:
        return [""] * n_rows
    return [str(status) if is_unfinished(status) else "" for status in statuses]


def level_of_run_type(run_type: str | None) -> str:
    """Level of theory of a run type of the Materials Project, empty for none.

    GGA and GGA+U calculations share one level, ``GGA_GGA+U``: the database chooses between them by the
    elements of the compound and aligns them by its corrections.
    """
    name = (run_type or "").strip()
    return "GGA_GGA+U" if name in _MATERIALS_PROJECT_RUN_TYPES else name


def number(value: Any) -> float | None:
    """A cell of a table as a number: None where it is empty, NaN where it is no number."""
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _find_energy(columns: Mapping[str, Sequence[Any]], kind: EnergyKind | None, name: str) -> EnergyColumn:
    """The first documented column that the table has, of a kind when one is asked for."""
    order = ["energy", *ENERGY_COLUMNS] if "energy_kind" in columns else [*ENERGY_COLUMNS]
    found = [ENERGY_COLUMNS[known] for known in order if known in columns]
    if "energy_kind" in columns:
        stated = _stated_kind(columns["energy_kind"], name)
        found = [replace(column, kind=stated) if column.name == "energy" else column for column in found]
    fitting = [column for column in found if kind is None or column.kind == kind]
    if not fitting:
        wanted = "energies" if kind is None else f"{kind} energies"
        raise SettingsError(
            f"{name} has no column with {wanted}: looked for {list(ENERGY_COLUMNS)}; name another with --energy"
        )
    return fitting[0]


def _stated_kind(values: Sequence[Any], name: str) -> EnergyKind:
    kinds: set[EnergyKind] = {"formation" if "formation" in str(value) else "total" for value in values if value}
    if len(kinds) > 1:
        raise SettingsError(f"{name} holds total and formation energies by its column energy_kind; split the table")
    return kinds.pop() if kinds else "total"


def _formulas(columns: Mapping[str, Sequence[Any]], name: str) -> tuple[Sequence[Any], bool]:
    """Formulas or lists of atomic numbers, and whether they are reduced."""
    column = next((known for known in FORMULA_COLUMNS if known in columns), None)
    if column is None:
        raise SettingsError(f"{name} has no column with formulas: looked for {list(FORMULA_COLUMNS)}")
    return columns[column], column == "reduced_formula"


def _compositions(formulas: Sequence[Any]) -> list[Composition | InvalidCrystalError]:
    """Each distinct formula is read once."""
    known: dict[str, Composition | InvalidCrystalError] = {}
    compositions: list[Composition | InvalidCrystalError] = []
    for formula in formulas:
        if isinstance(formula, list):
            compositions.append(_composition_of_atoms(formula))
            continue
        if isinstance(formula, Mapping):  # a struct of Parquet has every element, absent ones without a value
            compositions.append(read_amounts({name: n for name, n in formula.items() if n is not None}))
            continue
        if formula not in known:
            known[formula] = read_formula(formula)
        compositions.append(known[formula])
    return compositions


def _composition_of_atoms(atomic_numbers: list[int]) -> Composition | InvalidCrystalError:
    try:
        return Composition.from_atomic_numbers(atomic_numbers)
    except (InvalidCrystalError, TypeError, ValueError) as error:
        return InvalidCrystalError(f"the atomic numbers are no cell: {error}")


def _cell_sizes(
    given: Sequence[Any] | None, compositions: list[Composition | InvalidCrystalError]
) -> list[float | None]:
    """Atoms per cell: as given, else those of the formula. A number that contradicts the formula makes the row's
    composition an error.
    """
    sizes: list[float | None] = []
    for i, composition in enumerate(compositions):
        if isinstance(composition, InvalidCrystalError):
            sizes.append(None)
            continue
        size = number(given[i]) if given is not None else composition.n_atoms
        if size is None:
            compositions[i] = InvalidCrystalError(
                "the row has no n_atoms, without which its energy per cell has no cell; give it, or energies per atom"
            )
        if size is not None and not (size > 0 and size % composition.reduced.n_atoms == 0):
            compositions[i] = InvalidCrystalError(
                f"n_atoms is {given[i] if given is not None else size}, which is no multiple of the "
                f"{composition.reduced.n_atoms} atoms of {composition.reduced_formula}; mend one of them"
            )
        sizes.append(size)
    return sizes


def _per_atom(values: Sequence[Any], n_atoms: Sequence[float | None] | None) -> list[float | None]:
    numbers = [number(value) for value in values]
    if n_atoms is None:
        return numbers
    return [None if value is None or not size else value / size for value, size in zip(numbers, n_atoms, strict=True)]


def _corrections(
    columns: Mapping[str, Sequence[Any]], n_rows: int, n_atoms: Sequence[float | None]
) -> tuple[Sequence[float | None], list[str]]:
    """Corrections in eV/atom, zero where there are none, and the scheme of each row."""
    schemes = columns.get("correction_scheme")
    if "correction_per_atom" in columns:
        values: Sequence[float | None] = _per_atom(columns["correction_per_atom"], None)
    elif "correction" in columns:
        values = _per_atom(columns["correction"], n_atoms)
    else:
        values = [0.0] * n_rows
    # One scheme for the whole table: a correction of zero in a corrected table is a correction.
    otherwise = GIVEN_CORRECTION if any(values) else NO_CORRECTION
    return values, [str(scheme or otherwise) for scheme in schemes or [otherwise] * n_rows]


def _with_corrections_inside(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Columns of formation energies, which have their correction in them already, as `opengnome hull` writes them."""
    kept = {name: values for name, values in columns.items() if name not in ("correction", "correction_per_atom")}
    if "correction_scheme" in columns:
        kept["correction_scheme"] = [
            scheme if scheme in (None, "", NO_CORRECTION) else str(scheme).removesuffix(IN_THE_ENERGY) + IN_THE_ENERGY
            for scheme in columns["correction_scheme"]
        ]
    return kept


def _stated_levels(columns: Mapping[str, Sequence[Any]], n_rows: int) -> list[str]:
    if "level" in columns:
        return [str(level or "").strip() for level in columns["level"]]
    if "run_type" in columns:
        return [level_of_run_type(run_type) for run_type in columns["run_type"]]
    return [""] * n_rows


def _ids(columns: Mapping[str, Sequence[Any]], n_rows: int, prefix: str) -> list[str]:
    column = next((columns[known] for known in ID_COLUMNS if known in columns), [None] * n_rows)
    return [
        f"{prefix}-{row}" if value is None or value == "" else str(value)
        for row, value in zip(range(n_rows), column, strict=True)
    ]


def _unreadable(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"there is no file {path}"
    kind = "Parquet" if path.suffix == ".parquet" else "CSV"
    return f"{path} is not a readable {kind} table: {str(error).splitlines()[0]}"
