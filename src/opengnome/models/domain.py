"""What an ensemble has seen, and what to say of a crystal that lies outside of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.geometry import minimum_distance
from opengnome.errors import CheckpointError

FEW = 10
"""Elements in fewer training crystals than this are rare."""
_TAIL = 0.001
"""Share of the training crystals beyond each bound of volume and distance."""
_SPREAD_LEVEL = 0.99
_SAMPLE = 4000


@dataclass(frozen=True)
class Domain:
    """Bounds of the training crystals."""

    element_counts: dict[str, int]
    """Training crystals that contain each element, by symbol."""
    max_elements: int
    """Most elements in one training crystal."""
    volume_per_atom: tuple[float, float]
    """All but 0.1 % of the training crystals at either end, A^3."""
    shortest_distance: float
    """Shorter in 0.1 % of the training crystals, A."""
    spread: float
    """Inter-quartile range over the members that 99 % of the judged crystals stay below, eV/atom."""

    def warnings(self, crystal: Crystal, spread: float) -> list[str]:
        """Why the prediction for `crystal` is an extrapolation; empty when nothing speaks for it."""
        found = []
        for z in sorted(set(crystal.atomic_numbers.tolist())):
            count = self.element_counts.get(SYMBOLS[z], 0)
            if count < FEW:
                found.append(f"{SYMBOLS[z]} is in {count or 'no'} training crystal{'s' * (count != 1)}")
        n_elements = len(set(crystal.atomic_numbers.tolist()))
        if n_elements > self.max_elements:
            found.append(f"{n_elements} elements, no training crystal has more than {self.max_elements}")
        low, high = self.volume_per_atom
        if not low <= crystal.volume_per_atom <= high:
            found.append(f"{crystal.volume_per_atom:.1f} A^3 per atom, training crystals have {low:.1f} to {high:.1f}")
        shortest = minimum_distance(crystal)
        if shortest < self.shortest_distance:
            found.append(f"atoms {shortest:.2f} A apart, in training crystals {self.shortest_distance:.2f} A or more")
        if spread > self.spread:
            found.append(
                f"the networks disagree by {1000 * spread:.0f} meV/atom, more than for 99 % of held-out crystals"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "element_counts": self.element_counts,
            "max_elements": self.max_elements,
            "volume_per_atom": list(self.volume_per_atom),
            "shortest_distance": self.shortest_distance,
            "spread": self.spread,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Domain":
        """Raises `CheckpointError` when the keys are not those of `to_dict`."""
        try:
            low, high = map(float, data["volume_per_atom"])
            return cls(
                {str(symbol): int(count) for symbol, count in data["element_counts"].items()},
                int(data["max_elements"]),
                (low, high),
                float(data["shortest_distance"]),
                float(data["spread"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the domain of the ensemble is damaged: {error}") from None


def domain_of(table: CrystalTable, train: np.ndarray, spread: Sequence[float] | np.ndarray) -> Domain:
    """Bounds of the rows of `table` at `train` (row numbers); `spread` (n,) is that of the judged crystals.

    Distances are those of at most 4,000 rows, evenly spaced.
    """
    offsets, numbers = table.offsets, table.flat_atomic_numbers
    counts: dict[str, int] = {}
    max_elements = 0
    for row in train.tolist():
        elements = set(numbers[offsets[row] : offsets[row + 1]].tolist())
        max_elements = max(max_elements, len(elements))
        for z in elements:
            counts[SYMBOLS[z]] = counts.get(SYMBOLS[z], 0) + 1
    volumes = np.abs(np.linalg.det(table.lattices[train])) / table.n_atoms[train]
    sample = train[:: max(1, -(-len(train) // _SAMPLE))]
    shortest = [minimum_distance(table[int(row)]) for row in sample]
    return Domain(
        element_counts=dict(sorted(counts.items())),
        max_elements=max_elements,
        volume_per_atom=(float(np.quantile(volumes, _TAIL)), float(np.quantile(volumes, 1.0 - _TAIL))),
        shortest_distance=float(np.quantile(shortest, _TAIL)),
        spread=float(np.quantile(np.asarray(spread), _SPREAD_LEVEL)),
    )
