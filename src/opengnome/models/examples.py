"""Entry -> training target: the one place where a total energy becomes what the network learns."""

from collections.abc import Sequence

import numpy as np

from opengnome.errors import HullError
from opengnome.hull import Entry, Hull


def formation_energy_targets(entries: Sequence[Entry], hull: Hull) -> np.ndarray:
    """Formation energies of `entries` from the corrected energies, shape (n,), eV/atom.

    References are the lowest elemental entries of `hull`. Raises `HullError` for an entry of another level
    of theory, `MissingReferenceError` when an element has no reference.
    """
    return np.array([_formation_energy_per_atom(entry, hull) for entry in entries], dtype=np.float64)


def _formation_energy_per_atom(entry: Entry, hull: Hull) -> float:
    if entry.level != hull.level:
        raise HullError(
            f"entry {entry.id!r} has level {entry.level!r}, the hull {hull.level!r}; energies of different "
            "levels of theory have no common reference"
        )
    return hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom)
