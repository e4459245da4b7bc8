"""What every reader of hull entries gives back: an entry per row, or the reason why a row is none.

No row is lost: the rows of an `ReadEntries` are those of the file, in its order.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.errors import InvalidCrystalError
from opengnome.hull import Entry
from opengnome.hull.corrections import EnergyDetails

EnergyKind = Literal["total", "formation"]
"""Total energies need an entry of every pure element on the hull; formation energies have the elements at zero."""

INVALID_FORMULA, NO_ENERGY, NOT_FINITE = "invalid_formula", "no_energy", "not_finite"
NO_LEVEL, TWO_ENERGIES, DUPLICATE = "missing_level", "two_energies", "duplicate"
NOT_CONVERGED, MALFORMED = "not_converged", "malformed_line"

NO_CORRECTION, GIVEN_CORRECTION, MP2020 = "none", "as given", "MP2020"
"""Names of correction schemes as readers know them: none, some correction of the file, and
MaterialsProject2020Compatibility (doi:10.1038/s41598-021-94550-5)."""
IN_THE_ENERGY = " (in the energy)"
"""Ends the name of a scheme where only the corrected energy is known: the correction is zero and in the energy."""

ZERO_BY_DEFINITION = "elemental reference, zero by definition"
"""Source of the entries of elements at zero, which no file has."""

# Two energies of one id closer than this (eV/atom) are one energy written twice.
_SAME_ENERGY = 1e-9
# Counts beyond this are typing errors, and overflow the arrays of a hull.
_MAX_ATOMS = 2**31 - 1
_PLAIN_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d*)+")
_SYMBOL_AMOUNT = re.compile(r"([A-Z][a-z]?)(\d*)")
# "Fe3+" and "Cl-" of decorated structures count as the element; a spin follows after a comma.
_SPECIES = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?(?:,.*)?")
_AMOUNT_TOLERANCE = 1e-8


@dataclass(frozen=True)
class RejectedRow:
    """A row that is no entry."""

    id: str
    status: str
    """``invalid_formula``, ``no_energy``, ``not_finite``, ``not_converged``, ``missing_level``, ``two_energies`` or
    ``duplicate``."""
    reason: str
    """The value, the rule it breaks, and what to do."""
    reduced_formula: str = ""
    """Empty where the row has none that can be read."""


def _nothing_known(row: int) -> EnergyDetails:  # noqa: ARG001
    return EnergyDetails()


@dataclass(frozen=True)
class ReadEntries:
    """Hull entries as read, with every row that was rejected, in the order of the file."""

    rows: tuple[Entry | RejectedRow, ...]
    energy_kind: EnergyKind
    """Of all entries."""
    source: str
    """Where the rows come from."""
    details_of: Callable[[int], EnergyDetails] = field(default=_nothing_known, compare=False)
    """What a correction scheme may ask about the row of that index. May read the file again; raises `HullError` or
    `InvalidCrystalError` when what the file says of the row is wrong."""

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The rows that are entries; ids are unique within a level."""
        return tuple(row for row in self.rows if isinstance(row, Entry))

    @cached_property
    def rejected(self) -> tuple[RejectedRow, ...]:
        return tuple(row for row in self.rows if isinstance(row, RejectedRow))

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """Levels of theory that occur, in order of first appearance."""
        return tuple(dict.fromkeys(entry.level for entry in self.entries))

    def take(self, indices: Sequence[int]) -> "ReadEntries":
        """The rows at these indices, in that order."""
        rows = tuple(self.rows[index] for index in indices)
        return ReadEntries(rows, self.energy_kind, self.source, lambda row: self.details_of(indices[row]))

    def hull_entries(self, level: str) -> tuple[Entry, ...]:
        """Entries of one level, and the elements at zero where energies are formation energies."""
        own = tuple(entry for entry in self.entries if entry.level == level)
        return own + (elements_at_zero(own, level=level) if self.energy_kind == "formation" else ())


def elements_at_zero(entries: Iterable[Entry], *, level: str) -> tuple[Entry, ...]:
    """An entry of zero formation energy for each element of `entries` that has none at or below zero.

    Their ids are ``reference-<symbol>``.
    """
    elements: set[int] = set()
    present: set[int] = set()
    ids: set[str] = set()
    for entry in entries:
        ids.add(entry.id)
        numbers = entry.composition.atomic_numbers
        elements.update(numbers)
        if len(numbers) == 1 and entry.corrected_energy_per_atom <= 0.0:
            present.update(numbers)
    return tuple(
        Entry(
            id=_free_id(f"reference-{SYMBOLS[z]}", ids),
            composition=Composition(((z, 1),)),
            energy_per_atom=0.0,
            level=level,
            source=ZERO_BY_DEFINITION,
        )
        for z in sorted(elements - present)
    )


def _free_id(wanted: str, taken: set[str]) -> str:
    return wanted if wanted not in taken else _free_id(f"{wanted}-at-zero", taken)


def resolve_levels(stated: Sequence[str], *, given: str | None, default: str) -> list[str]:
    """Level of each row: what it states, else `given`, else `default` where no row states any.

    An empty string means missing: some rows of the file state a level and this one does not.
    """
    otherwise = given or ("" if any(stated) else default)
    return [level or otherwise for level in stated]


def make_row(
    identifier: str,
    composition: Composition | InvalidCrystalError,
    energy_per_atom: float | None,
    *,
    correction_per_atom: float | None = 0.0,
    correction_scheme: str = NO_CORRECTION,
    level: str,
    source: str,
) -> Entry | RejectedRow:
    """The entry of a row, or the first rule that it breaks.

    A missing number is None; a number that is not finite, and a composition that could not be read, are
    given as they are.
    """
    if isinstance(composition, InvalidCrystalError):
        return RejectedRow(identifier, INVALID_FORMULA, str(composition))
    if composition.n_atoms > _MAX_ATOMS:
        reason = f"the formula has {composition.n_atoms} atoms, more than {_MAX_ATOMS}; give that of one cell"
        return RejectedRow(identifier, INVALID_FORMULA, reason)
    if energy_per_atom is None or correction_per_atom is None:
        missing = "energy" if energy_per_atom is None else "correction"
        return RejectedRow(
            identifier, NO_ENERGY, f"the row has no {missing}; give a number or leave it out", _name(composition)
        )
    if not (math.isfinite(energy_per_atom) and math.isfinite(correction_per_atom)):
        return RejectedRow(
            identifier,
            NOT_FINITE,
            f"the energy is {energy_per_atom} and the correction {correction_per_atom} eV/atom; both must be finite: "
            "mend the calculation or leave the row out",
            _name(composition),
        )
    if not level:
        return RejectedRow(
            identifier,
            NO_LEVEL,
            "the row states no level of theory and others do; energies of different levels cannot be compared: fill "
            "its level, or give one for all such rows with --level",
            _name(composition),
        )
    return Entry(
        id=identifier,
        composition=composition,
        energy_per_atom=energy_per_atom,
        correction_per_atom=correction_per_atom,
        correction_scheme=correction_scheme,
        level=level,
        source=source,
    )


def reject_repeated(rows: Sequence[Entry | RejectedRow]) -> tuple[Entry | RejectedRow, ...]:
    """The rows with every repeated id within a level rejected.

    Rows of one id that say the same keep the first; where they differ in energy or composition all are
    rejected, since nobody can know which is meant, and each reason names all of them.
    """
    seen: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(rows):
        if isinstance(row, Entry):
            seen.setdefault((row.level, row.id), []).append(index)
    if len(seen) == sum(isinstance(row, Entry) for row in rows):
        return tuple(rows)
    result = list(rows)
    for indices in seen.values():
        if len(indices) > 1:
            for index, rejected in _repeated(rows, indices):
                result[index] = rejected
    return tuple(result)


def _repeated(rows: Sequence[Entry | RejectedRow], indices: list[int]) -> list[tuple[int, RejectedRow]]:
    entries = [row for row in (rows[index] for index in indices) if isinstance(row, Entry)]
    first = entries[0]
    same = all(
        entry.composition.reduced == first.composition.reduced
        and abs(entry.energy_per_atom - first.energy_per_atom) <= _SAME_ENERGY
        and abs(entry.correction_per_atom - first.correction_per_atom) <= _SAME_ENERGY
        for entry in entries
    )
    if same:
        reason = f"the same as row {indices[0] + 1}, which is kept; leave one out"
        return [(index, RejectedRow(first.id, DUPLICATE, reason, _name(first.composition))) for index in indices[1:]]
    named = ", ".join(
        f"{entry.reduced_formula} {entry.corrected_energy_per_atom:.6f} eV/atom in row {index + 1}"
        for index, entry in zip(indices, entries, strict=True)
    )
    reason = f"the id {first.id!r} stands for {len(entries)} energies ({named}); ids are unique: rename or leave out"
    return [
        (index, RejectedRow(first.id, TWO_ENERGIES, reason, _name(entry.composition)))
        for index, entry in zip(indices, entries, strict=True)
    ]


def read_formula(formula: object) -> Composition | InvalidCrystalError:
    """The composition of a formula, or the error that says why it is none; plain formulas take a fast path."""
    if formula is None or formula == "":
        return InvalidCrystalError("the row has no formula")
    if not isinstance(formula, str):
        return InvalidCrystalError(f"the formula is {formula!r}, which is no text; write e.g. 'Li2O'")
    if _PLAIN_FORMULA.fullmatch(formula):
        counts: dict[int, int] = {}
        for symbol, amount in _SYMBOL_AMOUNT.findall(formula):
            z = ATOMIC_NUMBERS.get(symbol, 0)
            counts[z] = counts.get(z, 0) + (int(amount) if amount else 1)
        if 0 not in counts and all(counts.values()):
            return Composition(tuple(sorted(counts.items())))
    try:
        return Composition.from_formula(formula)
    except InvalidCrystalError as error:
        return error


def read_amounts(amounts: Mapping[str, float]) -> Composition | InvalidCrystalError:
    """The composition of a mapping from element or species (``Fe3+``) to amount, or why it is none."""
    counts: dict[int, float] = {}
    for name, amount in amounts.items():
        match = _SPECIES.fullmatch(str(name))
        z = ATOMIC_NUMBERS.get(match[1], 0) if match else 0
        if not z:
            return InvalidCrystalError(f"{name!r} is no element or ion of one; write 'Fe' or 'Fe3+'")
        counts[z] = counts.get(z, 0.0) + amount
    wrong = {SYMBOLS[z]: amount for z, amount in counts.items() if not _is_whole(amount)}
    if wrong:
        return InvalidCrystalError(
            f"the amounts {wrong} are not whole numbers of atoms; give the content of an ordered cell"
        )
    if not counts:
        return InvalidCrystalError("the composition is empty")
    return Composition(tuple(sorted((z, round(amount)) for z, amount in counts.items())))


def _is_whole(amount: float) -> bool:
    return math.isfinite(amount) and amount > 0.5 and abs(amount - round(amount)) < _AMOUNT_TOLERANCE


def _name(composition: Composition | InvalidCrystalError) -> str:
    return "" if isinstance(composition, InvalidCrystalError) else composition.reduced_formula
