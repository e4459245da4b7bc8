"""The entries of a file corrected by a named scheme."""

from dataclasses import replace
from pathlib import Path

from opengnome.datasets import IN_THE_ENERGY, ReadEntries, RejectedRow
from opengnome.errors import HullError, InvalidCrystalError, SettingsError
from opengnome.hull import Entry
from opengnome.hull.correction_schemes import correction_scheme
from opengnome.hull.corrections import CorrectionScheme, EnergyDetails, apply_correction, combined, read_shifts
from opengnome.hull.mp2020 import materials_project_hubbards

NOT_CORRECTED = "not_corrected"


def scheme_of(text: str, *, trust_settings: bool = False) -> CorrectionScheme:
    """The scheme of a name (see `correction_scheme`), of a JSON file of shifts per element, or several joined by +.

    ``mp2020`` may be written small. `trust_settings` leaves out the check of potentials.
    Raises `SettingsError` for an unknown name, `HullError` for a file that cannot be read.
    """
    parts = [part.strip() for part in text.split("+")]
    return combined(
        *(
            read_shifts(Path(part))
            if part.endswith(".json")
            else correction_scheme(_spelled(part), check_potentials=not trust_settings)
            for part in parts
        )
    )


def corrected(table: ReadEntries, scheme: CorrectionScheme, *, trust_settings: bool = False) -> ReadEntries:
    """The entries with the correction of a scheme in place of the one they had.

    `trust_settings` asserts that energies were calculated with the Hubbard U of the Materials Project where the
    file has only the run type. A row that the scheme cannot correct is a rejected row.
    Raises `SettingsError` for formation energies: energies were corrected before elements were subtracted.
    """
    if table.energy_kind == "formation":
        raise SettingsError(
            f"{table.source} holds formation energies, for which it is too late to be corrected; give total energies "
            "(--energy total), or leave --correction out"
        )
    rows = [
        _corrected(row, index, table, scheme, trust_settings=trust_settings) if isinstance(row, Entry) else row
        for index, row in enumerate(table.rows)
    ]
    return replace(table, rows=tuple(rows))


def _spelled(name: str) -> str:
    base, colon, options = name.partition(":")
    return f"MP2020{colon}{options}" if base.lower() == "mp2020" else name


def _corrected(
    entry: Entry, index: int, table: ReadEntries, scheme: CorrectionScheme, *, trust_settings: bool
) -> Entry | RejectedRow:
    if entry.correction_scheme.endswith(IN_THE_ENERGY):
        known = entry.correction_scheme.removesuffix(IN_THE_ENERGY)
        reason = (
            f"only the energy corrected by {known} is known, which cannot be corrected again by {scheme.name}; give "
            "the uncorrected energy"
        )
        return RejectedRow(entry.id, NOT_CORRECTED, reason, entry.reduced_formula)
    try:
        details = table.details_of(index)
        if trust_settings:
            details = _with_hubbards(entry, details)
        result = apply_correction([entry], scheme, [details])
    except (HullError, InvalidCrystalError) as error:
        return RejectedRow(entry.id, NOT_CORRECTED, str(error), entry.reduced_formula)
    if result.refused:
        return RejectedRow(entry.id, NOT_CORRECTED, result.refused[0][1], entry.reduced_formula)
    return result.entries[0]


def _with_hubbards(entry: Entry, details: EnergyDetails) -> EnergyDetails:
    if details.hubbards:
        return details
    return replace(details, hubbards=materials_project_hubbards(entry.composition, details.run_type))
