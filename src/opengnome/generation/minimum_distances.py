"""How close two atoms of given elements may come."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.errors import InvalidCrystalError
from opengnome.generation.radii import COVALENT_RADII
from opengnome.generation.volume_estimate import read_tables


def contact_distance(first: int, second: int) -> float:
    """Short distance of two elements (atomic numbers) in crystals, A.

    Of the Materials Project crystals with both elements (up to 24 atoms per cell, at most 0.1 eV/atom above
    the hull) one in ten has them closer; see `scripts/fit_atomic_volumes.py`. So it is a bond
    for elements that bond, and the repulsive distance for those that do not: Na-Cl 2.8 A, O-O 2.5 A. Pairs
    without ten crystals get a fraction of the sum of their covalent radii, low for the pairs that have.
    """
    tables = read_tables()
    a, b = sorted((first, second))
    tabulated = tables["pair_distances"].get(f"{SYMBOLS[a]}-{SYMBOLS[b]}")
    if tabulated is not None:
        return float(tabulated)
    return float(tables["pair_ratio_without_data"] * (COVALENT_RADII[first] + COVALENT_RADII[second]))


def minimum_distances(
    atomic_numbers: ArrayLike, *, fraction: float, given: Mapping[str, float] | None = None
) -> np.ndarray:
    """Minimum distance of every pair of the elements, shape (n_elements, n_elements), A, symmetric.

    `fraction` of the contact distances, or those `given` by pair (``{"Na-Cl": 2.4}``, either order), which are
    taken as they are. Raises `InvalidCrystalError` when a given pair is not one of two elements with a positive
    distance.
    """
    numbers = np.asarray(atomic_numbers, dtype=np.int64).tolist()
    own = {_pair(name, distance): distance for name, distance in (given or {}).items()}
    distances = np.empty((len(numbers), len(numbers)))
    for i, first in enumerate(numbers):
        for j, second in enumerate(numbers):
            key = (min(first, second), max(first, second))
            distances[i, j] = own[key] if key in own else fraction * contact_distance(first, second)
    return distances


def given_pairs(atomic_numbers: ArrayLike, given: Mapping[str, float]) -> np.ndarray:
    """Which pairs of the elements are `given`, shape (n_elements, n_elements)."""
    numbers = np.asarray(atomic_numbers, dtype=np.int64).tolist()
    own = {_pair(name, distance) for name, distance in given.items()}
    return np.array([[(min(a, b), max(a, b)) in own for b in numbers] for a in numbers])


def _pair(name: str, distance: float) -> tuple[int, int]:
    symbols = name.split("-")
    if len(symbols) != 2 or any(symbol not in ATOMIC_NUMBERS for symbol in symbols):
        raise InvalidCrystalError(f"{name!r} is not a pair of elements; write it like 'Na-Cl'")
    if not (np.isfinite(distance) and distance > 0):
        raise InvalidCrystalError(f"the minimum distance of {name} is {distance} A, must be positive")
    first, second = sorted(ATOMIC_NUMBERS[symbol] for symbol in symbols)
    return first, second
