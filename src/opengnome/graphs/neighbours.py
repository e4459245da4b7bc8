"""Pairs of atoms closer than a cutoff in a periodic crystal, by vesin (cell lists)."""

import numpy as np
from vesin import NeighborList

from opengnome.crystals import Crystal
from opengnome.errors import InvalidCrystalError

MAX_NEIGHBOURS_PER_ATOM = 300.0
"""Default limit on the mean number of neighbours; real crystals have about 20 within 4 A."""
_MAX_IMAGES = 100_000
"""Limit on the number of cell images a search would visit; a sane cell needs fewer than a thousand."""
_MAX_HEIGHT = 1_000.0
"""Largest accepted distance (A) between opposite faces: vesin 0.6 ends the whole process with an integer
division by zero for cells like 1e5 x 1e5 x 3 A."""

Neighbours = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def neighbour_list(
    crystal: Crystal, cutoff: float, *, max_neighbours_per_atom: float = MAX_NEIGHBOURS_PER_ATOM
) -> Neighbours:
    """All directed pairs within `cutoff` A: (senders, receivers, cell_offsets, distances).

    Every pair is listed in both directions, once for each periodic image, so an atom may be a neighbour of
    its own images but never of itself. The distance of a pair is the length of
    ``positions[receiver] + cell_offset @ lattice - positions[sender]``.
    Shapes (n_edges,), (n_edges,), (n_edges, 3) and (n_edges,) in A; pairs are sorted by sender.

    Raises `InvalidCrystalError` for a crystal with more than `max_neighbours_per_atom` neighbours on
    average, and for a cell too thin or too large to be searched.
    """
    _refuse_unsearchable(crystal, cutoff, max_neighbours_per_atom)
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    senders, receivers, cell_offsets, lengths = search.compute(
        points=crystal.positions, box=crystal.lattice, periodic=True, quantities="ijSd"
    )
    if len(senders) > max_neighbours_per_atom * crystal.n_atoms:
        raise _too_dense(crystal, cutoff, len(senders) / crystal.n_atoms, max_neighbours_per_atom)
    return (
        np.asarray(senders, dtype=np.int64),
        np.asarray(receivers, dtype=np.int64),
        np.asarray(cell_offsets, dtype=np.int64),
        np.asarray(lengths, dtype=np.float64),
    )


def _refuse_unsearchable(crystal: Crystal, cutoff: float, limit: float) -> None:
    """Refuse before searching, because the search itself would fill the memory or crash."""
    sphere = 4.0 / 3.0 * np.pi * cutoff**3
    along_one_axis = 2.0 * np.floor(cutoff / np.linalg.norm(crystal.lattice, axis=1).min())
    expected = max(sphere / crystal.volume_per_atom, along_one_axis)
    if expected > limit:
        raise _too_dense(crystal, cutoff, expected, limit)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)  # between opposite faces, A
    if heights.max() > _MAX_HEIGHT:
        raise InvalidCrystalError(
            f"the cell is too large: {heights.max():.3g} A between opposite faces (limit {_MAX_HEIGHT:.0f} A)"
        )
    images = float(np.prod(2.0 * np.ceil(cutoff / heights) + 1.0))
    if images > _MAX_IMAGES:
        raise InvalidCrystalError(
            f"the cell is too thin: a search within {cutoff} A would visit {images:.3g} images "
            f"(limit {_MAX_IMAGES}); reduce the cell or drop this crystal"
        )


def _too_dense(crystal: Crystal, cutoff: float, found: float, limit: float) -> InvalidCrystalError:
    return InvalidCrystalError(
        f"too dense: {found:.0f} neighbours per atom within {cutoff:.3g} A (limit {limit:.0f}) at "
        f"{crystal.volume_per_atom:.3g} A^3 per atom; rescale the volume or raise max_neighbours_per_atom"
    )
