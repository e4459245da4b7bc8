"""What `opengnome relax` tells of its calculations: a row of results each, and a table of the relaxed crystals."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from opengnome.campaign.elemental_references import ElementalReferences
from opengnome.campaign.tables import LEADING_COLUMNS, OK, Row, failure
from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.symmetry import space_group_number, space_group_symbol
from opengnome.errors import InvalidCrystalError, MissingReferenceError
from opengnome.hull import Entry
from opengnome.oracles import Calculation, OracleIdentity, Status

SPACE_GROUP_SYMPREC = 0.1
"""Tolerance (A) of the space groups before and after: a relaxation ends within about this of a symmetric position."""

THIS_BATCH = "this batch"
"""Source of the references that are among the crystals relaxed together."""

_CRYSTAL_COLUMNS = {
    "status": pa.string(),
    "energy_per_atom": pa.float64(),
    "formation_energy_per_atom": pa.float64(),
    "band_gap": pa.float64(),
    "space_group": pa.string(),
    "level": pa.string(),
    "code": pa.string(),
    "code_version": pa.string(),
    "references": pa.string(),
    "corrections": pa.string(),
}
"""Columns of the table of relaxed crystals, beside their structures."""

_SCREEN_COLUMNS = (
    "energy_per_atom",
    "formation_energy_per_atom",
    "band_gap",
    "space_group",
    "n_steps",
    "seconds",
    "corrections",
    "warning",
)
"""Columns that are printed where no file is written, beside the leading ones."""


def batch_elements(calculations: Sequence[tuple[str, Calculation]]) -> list[Entry]:
    """Entries of the pure elements that converged; ids as given."""
    return [
        Entry(
            id=identifier,
            composition=calculation.initial.composition,
            energy_per_atom=calculation.energy_per_atom,
            level=calculation.oracle.level,
            source=THIS_BATCH,
        )
        for identifier, calculation in calculations
        if _converged(calculation)
        and calculation.energy_per_atom is not None
        and calculation.initial.composition.n_elements == 1
    ]


def result_row(identifier: str, calculation: Calculation, references: ElementalReferences) -> Row:
    """The row of one calculation.

    Energies and `band_gap` in eV, `volume_per_atom` of the last geometry in A^3, `fmax` in eV/A. Where there is an
    energy and no formation energy, `warning` says why. Space groups by `SPACE_GROUP_SYMPREC`, empty where none fits.
    """
    relaxed = calculation.crystal
    return {
        "id": identifier,
        "reduced_formula": calculation.initial.reduced_formula,
        "status": OK if _converged(calculation) else calculation.status.value,
        "reason": calculation.reason,
        "energy_per_atom": calculation.energy_per_atom,
        **_formation(calculation, references),
        "band_gap": calculation.band_gap,
        "volume_per_atom": None if relaxed is None else relaxed.volume_per_atom,
        "initial_space_group": _space_group(calculation.initial),
        "space_group": _space_group(relaxed),
        "n_steps": calculation.n_steps,
        "fmax": calculation.fmax,
        "seconds": calculation.seconds,
        "corrections": "; ".join(calculation.corrections),
        **_identity(calculation.oracle),
    }


def for_screen(rows: Sequence[Row]) -> list[Row]:
    """The columns that fit a screen, of these the ones with a value in any row; all are in a file or in JSON."""
    shown = [name for name in _SCREEN_COLUMNS if any(row.get(name) not in (None, "") for row in rows)]
    return [{name: row.get(name) for name in (*LEADING_COLUMNS, *shown)} for row in rows]


def failure_row(identifier: str, crystal: Crystal, *, status: str, reason: str) -> Row:
    """The row of a crystal without a calculation."""
    return failure(identifier, status, reason) | {"reduced_formula": crystal.reduced_formula}


def relaxed_table(
    calculations: Sequence[tuple[str, Calculation]], references: ElementalReferences
) -> CrystalTable | None:
    """The last geometry of every calculation that has one, None when there is none.

    A known set and a table of hull entries as it is: energies are there for converged crystals only, so that no
    reader takes another for a measurement; `status` says how the others ended.
    """
    found = [(i, c, c.crystal) for i, c in calculations if c.crystal is not None]
    if not found:
        return None
    rows: list[dict[str, Any]] = []
    for identifier, calculation, _ in found:
        row = result_row(identifier, calculation, references) | {"status": calculation.status.value}
        if not _converged(calculation):
            row |= {"energy_per_atom": None, "formation_energy_per_atom": None, "band_gap": None}
        rows.append(row)
    return CrystalTable.from_crystals(
        [crystal for _, _, crystal in found],
        [identifier for identifier, _, _ in found],
        {name: pa.array([row[name] for row in rows], kind) for name, kind in _CRYSTAL_COLUMNS.items()},
    )


def _converged(calculation: Calculation) -> bool:
    return calculation.status is Status.CONVERGED


def _identity(identity: OracleIdentity) -> Row:
    return {"level": identity.level, "code": identity.code, "code_version": identity.version}


def _formation(calculation: Calculation, references: ElementalReferences) -> Row:
    """Formation energy, what it counts from, and why there is none."""
    row: Row = {"formation_energy_per_atom": None, "references": "", "warning": ""}
    if calculation.energy_per_atom is None:
        return row
    composition = calculation.initial.composition
    try:
        energy = references.formation_energy_per_atom(composition, calculation.energy_per_atom)
    except MissingReferenceError as error:
        remedy = "relax these elements in the same batch, or name a table that has them by --references"
        return row | {"warning": f"no formation energy: {str(error).partition(';')[0]}; {remedy}"}
    return row | {"formation_energy_per_atom": energy, "references": references.named(composition)}


def _space_group(crystal: Crystal | None) -> str:
    try:
        return "" if crystal is None else space_group_symbol(space_group_number(crystal, symprec=SPACE_GROUP_SYMPREC))
    except InvalidCrystalError:
        return ""
