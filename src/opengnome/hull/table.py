"""Stability of many entries as a table with a reason for every row that cannot be answered."""

import math
from collections.abc import Iterable
from typing import Any

from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull.entry import Entry
from opengnome.hull.hull import Decomposition, Hull

_ANSWERS = (
    "formation_energy_per_atom",
    "energy_above_hull",
    "decomposition_energy",
    "decomposition_products",
)


def hull_table(hull: Hull, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """One row per entry: id, reduced_formula, status, reason, and the answers of the hull in eV/atom.

    `energy_above_hull` is against all entries, `decomposition_energy` and `decomposition_products` are
    against all but the entry itself. `status` is ``ok``, ``not_finite``, ``wrong_level``,
    ``missing_reference`` or ``failed``; the answers of a row that is not ok are None and `reason` says why.
    """
    return [_row(hull, entry) for entry in entries]


def products_text(decomposition: Decomposition) -> str:
    """Products as text, e.g. ``0.62 Fe2O3 (b) + 0.38 Li2O (a)``; amounts are atomic fractions."""
    return " + ".join(
        f"{_amount_text(fraction)} {formula} ({entry_id})" for entry_id, formula, fraction in decomposition.products
    )


def _row(hull: Hull, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"id": entry.id, "reduced_formula": entry.reduced_formula}
    try:
        return {**row, "status": "ok", "reason": "", **_answers(hull, entry)}
    except HullError as error:
        reason = {"status": _status(hull, entry, error), "reason": str(error)}
        return {**row, **reason, **dict.fromkeys(_ANSWERS)}


def _answers(hull: Hull, entry: Entry) -> dict[str, Any]:
    energy = entry.corrected_energy_per_atom
    above = hull.energy_above_hull(entry)
    competing = hull.competing_decomposition(entry)
    values = (
        hull.formation_energy_per_atom(entry.composition, energy),
        above,
        energy - competing.energy_per_atom,
        products_text(competing),
    )
    return dict(zip(_ANSWERS, values, strict=True))


def _status(hull: Hull, entry: Entry, error: HullError) -> str:
    if isinstance(error, MissingReferenceError):
        return "missing_reference"
    if entry.level != hull.level:
        return "wrong_level"
    return "failed" if math.isfinite(entry.corrected_energy_per_atom) else "not_finite"


def _amount_text(fraction: float) -> str:
    return f"{fraction:.2f}" if fraction >= 0.01 else f"{fraction:.1g}"
