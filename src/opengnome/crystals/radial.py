"""Which distances occur in a crystal: numbers that do not depend on its description and change little with it.

For every pair of elements the distances between their atoms, in units of the atomic spacing, are sorted over the
whole cell, as often as they occur per atom. The profile is the mean distance in each of a few equal parts of
that list: a coarse quantile function of the partial radial distribution. It does not change with the order of the
atoms, the origin, the orientation, the cell or the volume. Moving no atom by more than d changes no distance by
more than 2 d, and so no entry of the sorted list, hence no mean of a part either, by more than 2 d.

Two crystals that are the same within a tolerance so have profiles that are close; the reverse need not hold.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from opengnome.crystals.reduction import ReducedCrystal

N_PARTS = 8
"""Parts of the list of distances of a pair of elements."""
_CUTOFF = 2.0
"""Distances up to here are counted, in units of the atomic spacing: about 33 neighbours of each atom."""
_FILL = 0.8
"""The list has this share of the pairs that a uniform arrangement has within the cutoff; where there are
fewer, the missing ones count as being at the cutoff."""


def radial_profiles(crystals: Sequence[ReducedCrystal]) -> list[np.ndarray]:
    """The profile of each crystal, shape (n_element_pairs * N_PARTS,), in units of the atomic spacing.

    Element pairs (a, b), a not after b, are in the order of `ReducedCrystal.blocks`; crystals of one
    composition have comparable profiles.
    """
    if not crystals:
        return []
    pairs, distances = zip(*(_pair_distances(crystal) for crystal in crystals), strict=True)
    expected = [_expected_pairs(crystal) for crystal in crystals]
    starts = np.concatenate([[0], np.cumsum([len(e) for e in expected])])
    # One pass over the distances of all crystals: per-crystal calls of numpy would take most of the time.
    pair = np.concatenate([p + start for p, start in zip(pairs, starts, strict=False)])
    means = _part_means(pair, np.concatenate(distances), np.concatenate(expected))
    return [means[start:end].ravel() for start, end in pairwise(starts.tolist())]


def profile_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far profiles are apart: the largest over the element pairs of the mean difference of their parts.

    Arrays of shapes (..., n_element_pairs * N_PARTS) that broadcast; returns the leading shape.
    """
    differences = np.abs(first - second)
    by_part = differences.reshape(*differences.shape[:-1], differences.shape[-1] // N_PARTS, N_PARTS)
    return by_part.mean(axis=-1).max(axis=-1)


def _pair_distances(crystal: ReducedCrystal) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of atoms within the cutoff, once: number of its pair of elements, distance in spacings."""
    # vesin imports torch when it is there, which costs a second that reading names must not cost.
    from vesin import NeighborList

    search = NeighborList(cutoff=_CUTOFF * crystal.spacing, full_list=False)
    senders, receivers, distances = search.compute(
        points=crystal.frac_coords @ crystal.lattice, box=crystal.lattice, periodic=True, quantities="ijd"
    )
    n_elements = len(crystal.blocks)
    element = np.repeat(np.arange(n_elements), [block.stop - block.start for block in crystal.blocks])
    one, other = element[senders.astype(np.int64)], element[receivers.astype(np.int64)]
    low, high = np.minimum(one, other), np.maximum(one, other)
    return low * n_elements - low * (low - 1) // 2 + high - low, distances / crystal.spacing


def _expected_pairs(crystal: ReducedCrystal) -> np.ndarray:
    """Pairs of atoms of each pair of elements within the cutoff, were the atoms arranged uniformly."""
    counts = np.array([block.stop - block.start for block in crystal.blocks], dtype=np.float64)
    low, high = np.triu_indices(len(counts))
    ordered = counts[low] * counts[high] / crystal.n_atoms * (4 / 3 * np.pi * _CUTOFF**3)
    return np.where(low == high, 0.5 * ordered, ordered)


def _part_means(pair: np.ndarray, distances: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Mean distance in each part of the sorted list of each pair of elements, shape (n_pairs, N_PARTS).

    A part need not be a whole number of distances: the running sum is interpolated between them.
    """
    order = np.lexsort((distances, pair))
    found = np.bincount(pair, minlength=len(expected))
    first = np.concatenate([[0], np.cumsum(found)])
    running = np.concatenate([[0.0], np.cumsum(distances[order])])
    ranks = np.linspace(0.0, _FILL, N_PARTS + 1) * expected[:, None]
    inside = np.minimum(ranks, found[:, None])
    whole = np.floor(inside).astype(np.int64)
    below = running[first[:-1, None] + whole]
    above = running[np.minimum(first[:-1, None] + whole + 1, len(running) - 1)]
    sums = below + (inside - whole) * (above - below) + (ranks - inside) * _CUTOFF
    return np.diff(sums, axis=1) / (expected[:, None] * _FILL / N_PARTS)
