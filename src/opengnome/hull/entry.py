"""One phase with its energy, as a convex hull takes it in."""

from dataclasses import KW_ONLY, dataclass

from opengnome.crystals import Composition


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
