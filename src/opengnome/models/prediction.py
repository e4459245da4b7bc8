"""What an ensemble says about crystals."""

from dataclasses import dataclass

import numpy as np

from opengnome.models.calibration import Calibration


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for n crystals; NaN where a crystal could not be judged, and `reasons` says why."""

    formation_energy_per_atom: np.ndarray
    """Median over the members of the lowest energy of the volume scan, shape (n,), eV/atom."""
    spread: np.ndarray
    """Inter-quartile range over the members, shape (n,), eV/atom."""
    std: np.ndarray
    """Calibrated standard deviation, shape (n,), eV/atom."""
    volume_scale: np.ndarray
    """Volume, relative to the volume given, at which the mean energy of the members is lowest, shape (n,)."""
    reasons: tuple[str, ...]
    """Why a crystal has no prediction; empty text where it has one."""
    calibration: Calibration
    """The map from spread to `std`, and the shape of the errors."""
    isolated: np.ndarray
    """Whether an atom has no neighbour within the networks' cutoff at one of the volumes scanned, shape (n,). Such a
    network knows nothing of where the atom is: the energy of a sparse alkali metal came out 1 eV/atom too low at all
    volumes alike. The number is given, but nothing should be chosen by it."""

    def __len__(self) -> int:
        return len(self.formation_energy_per_atom)

    def part(self, mask: np.ndarray) -> "Prediction":
        """The predictions where the boolean mask (n,) is true."""
        return Prediction(
            self.formation_energy_per_atom[mask],
            self.spread[mask],
            self.std[mask],
            self.volume_scale[mask],
            tuple(reason for reason, kept in zip(self.reasons, mask.tolist(), strict=True) if kept),
            self.calibration,
            self.isolated[mask],
        )

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound, each (n,) in eV/atom, that hold the true value with probability `level`."""
        half = self.calibration.factor(level) * self.std
        return self.formation_energy_per_atom - half, self.formation_energy_per_atom + half
