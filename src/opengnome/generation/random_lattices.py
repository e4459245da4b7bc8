"""Random lattices that a space group allows, none of them flat or needle-like."""

import numpy as np

from opengnome.generation.wyckoff import SpaceGroup

_N_DRAWS = 16
"""Shapes drawn at once; the first that is compact enough is taken."""
_MAX_RATIO = 3.0
"""Ratios of edges are log-uniform between its inverse and it."""
_MAX_COSINE = 0.5
"""Cosines of free angles are uniform between its negative and it: 60 to 120 degrees."""
_RHOMBOHEDRAL_RATIO = 6**0.5
"""c/a of the hexagonal cell whose primitive rhombohedron is a cube."""

_STEPS = np.array([(i, j, k) for i in range(3) for j in range(-2, 3) for k in range(-2, 3) if (i, j, k) > (0, 0, 0)])


def random_lattice(group: SpaceGroup, *, volume: float, min_shortest: float, rng: np.random.Generator) -> np.ndarray:
    """Primitive lattice vectors of a random lattice of the group, rows in A, shape (3, 3), right-handed.

    Of `_N_DRAWS` shapes the first whose shortest lattice vector has `min_shortest` A at the `volume` (A^3,
    primitive), or else the one with the longest.
    """
    lattices = group.primitive_vectors @ _conventional(group, rng)
    scale = (volume / np.abs(np.linalg.det(lattices))) ** (1 / 3)
    lattices *= scale[:, None, None]
    shortest = np.sqrt(np.square(_STEPS @ lattices).sum(axis=2).min(axis=1))
    compact = np.flatnonzero(shortest >= min_shortest)
    chosen: np.ndarray = lattices[compact[0] if len(compact) else int(np.argmax(shortest))]
    return chosen if np.linalg.det(chosen) > 0 else -chosen


def _conventional(group: SpaceGroup, rng: np.random.Generator) -> np.ndarray:
    """Random conventional cells of the group's crystal family, a along x, shape (_N_DRAWS, 3, 3)."""
    family = group.crystal_family
    edges = np.exp(rng.uniform(-np.log(_MAX_RATIO), np.log(_MAX_RATIO), (_N_DRAWS, 3)))
    cosines = np.zeros((_N_DRAWS, 3))  # of alpha, beta, gamma
    if family == "triclinic":
        cosines = rng.uniform(-_MAX_COSINE, _MAX_COSINE, (_N_DRAWS, 3))
    elif family == "monoclinic":
        cosines[:, 1] = rng.uniform(-_MAX_COSINE, _MAX_COSINE, _N_DRAWS)
    elif family == "hexagonal":
        cosines[:, 2] = -0.5
    if family in ("tetragonal", "hexagonal", "cubic"):
        edges[:, 1] = edges[:, 0]
    if family == "cubic":
        edges[:, 2] = edges[:, 0]
    if group.is_rhombohedral:
        edges[:, 2] *= _RHOMBOHEDRAL_RATIO
    cells = np.zeros((_N_DRAWS, 3, 3))
    sine = np.sqrt(1 - cosines[:, 2] ** 2)
    cells[:, 0, 0] = 1.0
    cells[:, 1, 0], cells[:, 1, 1] = cosines[:, 2], sine
    cells[:, 2, 0], cells[:, 2, 1] = cosines[:, 1], (cosines[:, 0] - cosines[:, 1] * cosines[:, 2]) / sine
    # With all cosines within +-0.5 the squared height is at least zero, and zero only at the corners.
    cells[:, 2, 2] = np.sqrt(np.maximum(1 - cells[:, 2, 0] ** 2 - cells[:, 2, 1] ** 2, 1e-6))
    return edges[:, :, None] * cells
