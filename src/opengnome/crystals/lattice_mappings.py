"""How one lattice can be laid on another: the choices of basis that nearly agree."""

import math
from functools import lru_cache

import numpy as np

MAX_VECTORS = 100_000
"""Lattice vectors looked at for one pair; only needles and sheets of atoms have so many."""
_SLACK = 1e-12


def lattice_mappings(
    lattice: np.ndarray, target: np.ndarray, *, length_tolerance: float, angle_tolerance: float
) -> np.ndarray:
    """Integer matrices M, |det M| = 1, with the rows of ``M @ lattice`` close to those of `target`.

    Each length may differ by the factor 1 + `length_tolerance` either way, each angle by `angle_tolerance`
    degrees. Both lattices are Niggli- or Minkowski-reduced, rows in one unit of length. Mirror images count:
    det M may be -1, and each M is followed by -M. Shape (n_mappings, 3, 3), closest metric first.
    """
    target_metric = target @ target.T
    lengths = np.sqrt(target_metric.diagonal())
    vectors = _vectors_within(lattice, float(lengths.max()) * (1 + length_tolerance))
    cartesian = vectors @ lattice
    norms = np.sqrt(np.einsum("ij,ij->i", cartesian, cartesian))
    ratios = norms / lengths[:, None]
    fitting = (ratios < 1 + length_tolerance) & (ratios > 1 / (1 + length_tolerance))
    # M and -M fit equally well: only half of the first vectors are tried. The table of vectors is symmetric
    # about its middle, so those are in its first half.
    fitting[0, len(vectors) // 2 :] = False
    candidates = [np.flatnonzero(row) for row in fitting]
    directions = [cartesian[chosen] / norms[chosen, None] for chosen in candidates]
    cosines = (target_metric / np.outer(lengths, lengths)).tolist()
    ab, ac, bc = (
        _angle_fits(directions[i] @ directions[j].T, cosines[i][j], angle_tolerance)
        for i, j in ((0, 1), (0, 2), (1, 2))
    )
    first, second = np.nonzero(ab)
    row, third = np.nonzero(ac[first] & bc[second])
    places = (candidates[0][first[row]], candidates[1][second[row]], candidates[2][third])
    mappings = vectors[np.stack(places, axis=1)]
    mappings = mappings[np.abs(_determinants(mappings)) == 1]
    if len(mappings) > 1:
        mappings = mappings[np.argsort(_strains(mappings, lattice @ lattice.T, target_metric), kind="stable")]
    return np.stack([mappings, -mappings], axis=1).reshape(-1, 3, 3)


def _vectors_within(lattice: np.ndarray, radius: float) -> np.ndarray:
    """Integer coefficients of all lattice vectors up to a length (and some longer), shape (n_vectors, 3)."""
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    bounds = np.floor(radius / heights + 1e-9).astype(int).tolist()
    return _grid(*bounds)


@lru_cache(maxsize=256)
def _grid(a: int, b: int, c: int) -> np.ndarray:
    """All integer triples within the bounds; entry i is minus entry n - 1 - i. Empty above `MAX_VECTORS`."""
    if (2 * a + 1) * (2 * b + 1) * (2 * c + 1) > MAX_VECTORS:
        return np.empty((0, 3), dtype=np.int64)
    axes = [np.arange(-bound, bound + 1) for bound in (a, b, c)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    grid.setflags(write=False)
    return grid


def _angle_fits(cosines: np.ndarray, wanted: float, tolerance: float) -> np.ndarray:
    """Which angles are within `tolerance` (degrees) of the one whose cosine is `wanted`."""
    angle = math.degrees(math.acos(min(max(wanted, -1.0), 1.0)))
    low = math.cos(math.radians(min(angle + tolerance, 180.0)))
    high = math.cos(math.radians(max(angle - tolerance, 0.0)))
    return (cosines >= low - _SLACK) & (cosines <= high + _SLACK)


def _determinants(matrices: np.ndarray) -> np.ndarray:
    """Determinants of integer matrices, exactly; shape (n,)."""
    a, b, c = matrices[:, 0], matrices[:, 1], matrices[:, 2]
    return (
        a[:, 0] * (b[:, 1] * c[:, 2] - b[:, 2] * c[:, 1])
        - a[:, 1] * (b[:, 0] * c[:, 2] - b[:, 2] * c[:, 0])
        + a[:, 2] * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    )


def _strains(mappings: np.ndarray, metric: np.ndarray, target_metric: np.ndarray) -> np.ndarray:
    """Size of the relative difference of the metric tensors; shape (n_mappings,)."""
    mapped = mappings @ metric @ mappings.transpose(0, 2, 1)
    lengths = np.sqrt(target_metric.diagonal())
    relative = (mapped - target_metric) / (lengths[:, None] * lengths)
    # Rounded, so that mappings of one strain keep their order whatever the last digit says.
    return np.round(np.einsum("nij,nij->n", relative, relative), 9)
