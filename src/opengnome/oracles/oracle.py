"""What an oracle is, and the record of one calculation.

An oracle takes a crystal and gives a `Calculation`. One bad crystal is never an exception: its
calculation carries a status and a reason. Only a set-up that would fail every crystal raises.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from opengnome.crystals.crystal import Crystal


class Status(StrEnum):
    """How a calculation ended."""

    CONVERGED = "converged"
    """Forces on the atoms and on the cell are below the limit."""
    UNCONVERGED = "unconverged"
    """The step limit was reached; the last geometry and its energy are kept."""
    EXPLODED = "exploded"
    """Volume, force or energy left the range of anything physical."""
    TOO_DENSE = "too_dense"
    """Atoms too close together, or too little volume per atom, before or during the relaxation."""
    NOT_FINITE = "not_finite"
    """The engine gave NaN or infinity."""
    TIMED_OUT = "timed_out"
    """The wall-clock limit was reached; the last geometry and its energy are kept."""
    FAILED = "failed"
    """The engine raised an exception, or has no answer for this crystal."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Every geometry an engine evaluated, in order.

    Frame 0 is the input geometry, unless the `relax` of the oracle says otherwise: after a pre-relaxation at another
    level it is where that ended.
    """

    positions: np.ndarray
    """Cartesian positions, shape (n_frames, n_atoms, 3), Angstrom."""
    lattices: np.ndarray
    """Lattice vectors as rows, shape (n_frames, 3, 3), Angstrom."""
    energies: np.ndarray
    """Energy of the cell, shape (n_frames,), eV."""
    forces: np.ndarray
    """Forces, shape (n_frames, n_atoms, 3), eV/Angstrom."""
    stresses: np.ndarray
    """Stress, positive under tension, shape (n_frames, 3, 3), eV/Angstrom^3."""

    def __len__(self) -> int:
        return len(self.energies)

    def crystal(self, index: int, atomic_numbers: np.ndarray) -> Crystal:
        """The geometry of one frame; the atomic numbers, shape (n_atoms,), are the calculation's.

        Raises `InvalidCrystalError` when the frame is no crystal (positions not finite).
        """
        lattice = self.lattices[index]
        return Crystal(lattice, np.linalg.solve(lattice.T, self.positions[index].T).T, atomic_numbers)


@dataclass(frozen=True)
class OracleIdentity:
    """Which engine, and how it was set. Energies compare only between equal levels."""

    name: str
    """Adapter: chgnet, ase, recorded, gpaw, vasp or espresso."""
    code: str
    """What did the computing: a package, an import path, or a table."""
    version: str
    """Version of that code."""
    level: str
    """Level of theory; entries of different levels never share a hull."""
    settings_digest: str
    """SHA-256 of the relaxation settings as JSON."""


@dataclass(frozen=True, eq=False)
class Calculation:
    """One crystal given to an oracle, and everything that came back.

    `crystal`, `energy` (and forces and stress where the engine gives them) are set for CONVERGED,
    UNCONVERGED and TIMED_OUT when at least one geometry was evaluated, and None for every other status,
    whose frames are evidence and no result.
    """

    status: Status
    reason: str
    """Why the status is not CONVERGED; empty when it is."""
    initial: Crystal
    crystal: Crystal | None
    """The final geometry, atoms in the order of `initial`."""
    energy: float | None
    """Energy of the cell `crystal`, eV."""
    forces: np.ndarray | None
    """Shape (n_atoms, 3), eV/Angstrom."""
    stress: np.ndarray | None
    """Shape (3, 3), positive under tension, eV/Angstrom^3."""
    frames: Frames | None
    n_steps: int
    """Optimizer steps taken; the number of frames is one more."""
    fmax: float | None
    """Largest norm of the generalised forces at the end (see `relaxation`), eV/Angstrom."""
    seconds: float
    """Wall time."""
    oracle: OracleIdentity
    band_gap: float | None = None
    """Lowest empty minus highest filled level on the k-points of `crystal`'s calculation, eV; 0 for a metal, None
    where the engine gives none. A mesh may miss the band edges, so the gap of all k-points is at most this."""
    corrections: tuple[str, ...] = ()
    """What was changed after failures on the way here, in order, each with the failure it answers."""

    @property
    def energy_per_atom(self) -> float | None:
        """Energy of the final geometry, eV/atom."""
        if self.energy is None or self.crystal is None:
            return None
        return self.energy / self.crystal.n_atoms


class Oracle(Protocol):
    """Anything that relaxes crystals."""

    identity: OracleIdentity

    def relax(self, crystal: Crystal) -> Calculation:
        """Relax one crystal; never raises because of the crystal.

        Raises `OracleSetupError` when the engine itself cannot work.
        """
        ...

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Whether crystals of these elements can be computed, as far as that is known without computing.

        Raises `ElementsLackDataError` naming all elements that lack something (a potential, a data set, training), and
        what to do; any other `OracleSetupError` when what should have it cannot be read or is ambiguous.
        """
        ...
