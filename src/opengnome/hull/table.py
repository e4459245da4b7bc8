"""Stability of many entries as a table with a reason for every row that cannot be answered."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull.entry import Entry, check_entry
from opengnome.hull.hull import Decomposition, Hull
from opengnome.hull.references import check_references

_ANSWERS = (
    "formation_energy_per_atom",
    "energy_above_hull",
    "decomposition_energy",
    "decomposition_products",
)


def hull_table(hull: Hull, entries: Iterable[Entry], *, workers: int = 1) -> list[dict[str, Any]]:
    """One row per entry: id, reduced_formula, status, reason, and the answers of the hull in eV/atom.

    `energy_above_hull` is against all entries, `decomposition_energy` and `decomposition_products` are
    against all but the entry itself. `status` is ``ok``, ``not_finite``, ``wrong_level``,
    ``missing_reference`` or ``failed``; the answers of a row that is not ok are None and `reason` says why.
    All rows are answered together; `workers` threads share the work.
    """
    asked = list(entries)
    rows: list[dict[str, Any]] = [{"id": entry.id, "reduced_formula": entry.reduced_formula} for entry in asked]
    answerable: list[int] = []
    for number, entry in enumerate(asked):
        error = _refusal(hull, entry)
        rows[number] |= {"status": _status(hull, entry, error) if error else "ok", "reason": str(error or "")}
        if error is None:
            answerable.append(number)
        else:
            rows[number] |= dict.fromkeys(_ANSWERS)
    good = [asked[number] for number in answerable]
    try:
        answers = _answers(hull, good, workers=workers)
    except HullError:  # one system defeats the solver: find out which, and answer the others
        answers = [_answer_alone(hull, entry) for entry in good]
    for number, answer in zip(answerable, answers, strict=True):
        rows[number] |= answer
    return rows


def products_text(decomposition: Decomposition) -> str:
    """Products as text, e.g. ``0.62 Fe2O3 (b) + 0.38 Li2O (a)``; amounts are atomic fractions."""
    return " + ".join(
        f"{_amount_text(fraction)} {formula} ({entry_id})" for entry_id, formula, fraction in decomposition.products
    )


def _refusal(hull: Hull, entry: Entry) -> HullError | None:
    """Why the hull cannot be asked about this entry."""
    try:
        check_entry(entry, level=hull.level)
        check_references(entry.composition.atomic_numbers, hull.elemental_references, level=hull.level)
    except HullError as error:
        return error
    return None


def _answers(hull: Hull, entries: Sequence[Entry], *, workers: int = 1) -> list[dict[str, Any]]:
    """The answers for entries that the hull can be asked about, together."""
    compositions = [entry.composition for entry in entries]
    energies = [entry.corrected_energy_per_atom for entry in entries]
    competing = hull.competing_decompositions(entries, workers=workers)
    distances = hull.distances_from_hull(compositions, energies, workers=workers).tolist()
    formation = hull.formation_energies(compositions, energies).tolist()
    answers = []
    for entry, energy, distance, relative, decomposition in zip(
        entries, energies, distances, formation, competing, strict=True
    ):
        above = max(distance, 0.0) if entry in hull else distance
        values = (relative, above, energy - decomposition.energy_per_atom, products_text(decomposition))
        answers.append(dict(zip(_ANSWERS, values, strict=True)))
    return answers


def _answer_alone(hull: Hull, entry: Entry) -> dict[str, Any]:
    try:
        return _answers(hull, [entry])[0]
    except HullError as error:
        return {"status": _status(hull, entry, error), "reason": str(error), **dict.fromkeys(_ANSWERS)}


def _status(hull: Hull, entry: Entry, error: HullError) -> str:
    if isinstance(error, MissingReferenceError):
        return "missing_reference"
    if entry.level != hull.level:
        return "wrong_level"
    return "failed" if math.isfinite(entry.corrected_energy_per_atom) else "not_finite"


def _amount_text(fraction: float) -> str:
    return f"{fraction:.2f}" if fraction >= 0.01 else f"{fraction:.1g}"
