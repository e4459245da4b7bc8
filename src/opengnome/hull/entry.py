"""One phase with its energy, as a convex hull takes it in."""

import math
from dataclasses import KW_ONLY, dataclass

from opengnome.crystals import Composition
from opengnome.errors import HullError


@dataclass(frozen=True)
class Entry:
    """A phase of known composition and energy, at one level of theory.

    Raw and corrected energies are both kept: the hull uses `corrected_energy_per_atom`. Whether the
    energy is a total or a formation energy is a matter of the level; one hull holds one level.
    """

    id: str
    """Name of the phase, unique within a hull."""
    composition: Composition
    """Atoms of the cell or of the formula unit; the hull uses only their ratio."""
    energy_per_atom: float
    """Uncorrected energy, eV/atom."""
    _: KW_ONLY
    correction_per_atom: float = 0.0
    """Added to the energy, eV/atom."""
    correction_scheme: str = "none"
    """Name of the scheme that gave the correction."""
    level: str
    """Level of theory, e.g. ``PBE``; entries of different levels never share a hull."""
    source: str = ""
    """Where the entry comes from, e.g. a database or a campaign round."""

    @property
    def corrected_energy_per_atom(self) -> float:
        """The energy the hull uses, eV/atom."""
        return self.energy_per_atom + self.correction_per_atom

    @property
    def reduced_formula(self) -> str:
        return self.composition.reduced_formula


def check_entry(entry: Entry, *, level: str) -> None:
    """Raise `HullError` unless the entry is of this level and its energies are finite."""
    if entry.level != level:
        raise HullError(
            f"entry {entry.id!r} is of level {entry.level!r}, the hull of level {level!r}; energies of "
            "different levels cannot be compared: build one hull per level"
        )
    if not math.isfinite(entry.corrected_energy_per_atom):
        raise HullError(
            f"entry {entry.id!r} ({entry.reduced_formula}) has the energy {entry.energy_per_atom} and the "
            f"correction {entry.correction_per_atom} eV/atom; both must be finite: leave the entry out"
        )
