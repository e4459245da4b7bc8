"""Distances between atoms of a periodic crystal."""

from collections.abc import Sequence

import moyopy
import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.errors import InvalidCrystalError

MIN_DISTANCE = 0.5
"""Two atoms closer than this (A) are taken for one place given twice: no bond is so short."""

_MAX_SKEWNESS = 1e6
_MAX_ELONGATION = 1e4


def closest_pair(crystal: Crystal) -> tuple[int, int, float]:
    """The two sites (i, j) that come closest over all periodic images, and their distance in A.

    i equals j where an atom is closest to its own image, as in a cell of one atom.
    Raises `InvalidCrystalError` when the lattice is distorted beyond any crystal.
    """
    # vesin imports torch when it is there, which costs a second that reading names must not cost.
    from vesin import NeighborList

    lattice = reduced_lattice(crystal)
    # No packing is denser than fcc (Kepler; Hales, doi:10.4007/annals.2005.162.1065), so d^3 <= sqrt(2) V/n; and
    # every atom has an image at the shortest lattice vector. A search up to there always finds a pair.
    packing = (np.sqrt(2.0) * crystal.volume_per_atom) ** (1 / 3)
    cutoff = min(packing, np.linalg.norm(lattice, axis=1).min()) * (1 + 1e-6)
    neighbours = NeighborList(cutoff=cutoff, full_list=False)
    senders, receivers, distances = neighbours.compute(
        points=crystal.positions, box=lattice, periodic=True, quantities="ijd"
    )
    closest = int(np.argmin(distances))
    return int(senders[closest]), int(receivers[closest]), float(distances[closest])


def minimum_distance(crystal: Crystal) -> float:
    """Shortest distance between two atoms over all periodic images, A; finite also for one atom per cell."""
    return closest_pair(crystal)[2]


def check_distances(crystal: Crystal, *, minimum: float = MIN_DISTANCE, labels: Sequence[str] | None = None) -> None:
    """Raise `InvalidCrystalError` naming both sites when two atoms are closer than `minimum` (A).

    `labels` (one per site) name the sites in the message; by default they are the element and the number
    of the site.
    """
    i, j, distance = closest_pair(crystal)
    if distance >= minimum:
        return
    if labels is None:
        labels = [f"{symbol}{site}" for site, symbol in enumerate(crystal.symbols)]
    second = f"a periodic image of {labels[i]}" if i == j else labels[j]
    raise InvalidCrystalError(
        f"two atoms at one place: {labels[i]} and {second} are {distance:.3f} A apart, "
        f"must be at least {minimum} A; remove one of them or mend the cell"
    )


def reduced_lattice(crystal: Crystal) -> np.ndarray:
    """A Minkowski-reduced, right-handed basis of the same lattice, rows in A, shape (3, 3).

    Searches of neighbours and symmetry start from it: a skewed cell needs thousands of images.
    Raises `InvalidCrystalError` when the lattice is distorted beyond any crystal, as after an exploded
    relaxation; the libraries that search a lattice end the whole process on such ones (integer overflow).
    """
    _check_skewness(crystal)
    reduced, _ = moyopy.minkowski_reduce(crystal.lattice.tolist())
    lattice = np.array(reduced)
    shortest = np.linalg.norm(lattice, axis=1).min()
    elongation = float(crystal.volume / shortest**3)
    if not elongation < _MAX_ELONGATION:
        raise InvalidCrystalError(
            f"the cell of {crystal.volume:.3g} A^3 repeats every {shortest:.3g} A: {elongation:.2g} cubes of that "
            f"edge, must be fewer than {_MAX_ELONGATION:g}; the lattice is needle- or sheet-like beyond any crystal"
        )
    return lattice


def _check_skewness(crystal: Crystal) -> None:
    """Raise `InvalidCrystalError` when the lattice vectors are nearly dependent."""
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    skewness = float(np.prod(lengths / lengths.max()) / (crystal.volume / lengths.max() ** 3))
    if not skewness < _MAX_SKEWNESS:
        raise InvalidCrystalError(
            f"the lattice vectors span {1 / skewness:.2g} of the volume that they would at right angles, must be at "
            f"least {1 / _MAX_SKEWNESS}; reduce the cell"
        )
