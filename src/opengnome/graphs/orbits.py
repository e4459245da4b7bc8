"""A crystal reduced by its symmetry: nodes are orbits of atoms, edges are sets of equal neighbours.

Atoms that symmetry relates have the same neighbours at the same distances, so a network that sees distances
only gives them the same features at every step. It is enough to compute one atom of each orbit and to count:
an orbit stands for `multiplicity` atoms, an edge for `count` equal neighbours. Exactly the same energies with
about a third of the nodes and of the edges (Materials Project, 4 to 6 A), which is what training on a processor
costs. A crystal without symmetry is its own reduction. The reduction by asymmetric units is that of Ruff et al.
(doi:10.1039/D4DD00018H); here equal distances are joined as well.
"""

from dataclasses import dataclass

import numpy as np

from opengnome.crystals import Crystal
from opengnome.crystals.symmetry import orbits
from opengnome.errors import InvalidCrystalError
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM, Neighbours, neighbour_list

SYMPREC = 1e-3
"""Tolerance (A) of the symmetry search: far below what an energy feels, far above rounding in a file."""
_MAX_ATOMS = 2**16 - 1
_EQUAL = 1e-3
"""Distances to atoms of one orbit that follow each other within this (A) are one edge, of the mean distance."""


@dataclass(frozen=True, eq=False)
class OrbitGraph:
    """One crystal, or several laid one after another; edges never join two crystals.

    Edges leave the first atom of each orbit and are sorted by it.
    """

    atomic_numbers: np.ndarray
    """Element of each orbit, shape (n_nodes,), uint8."""
    multiplicities: np.ndarray
    """Atoms of each orbit, shape (n_nodes,), uint16."""
    senders: np.ndarray
    """Orbit of the atom whose neighbour it is, shape (n_edges,), uint16, counted within the crystal."""
    receivers: np.ndarray
    """Orbit of the neighbour, shape (n_edges,), uint16, counted within the crystal."""
    distances: np.ndarray
    """Shape (n_edges,), A, float32."""
    counts: np.ndarray
    """Neighbours of one sender atom that the edge stands for, shape (n_edges,), uint16."""

    @property
    def n_nodes(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_edges(self) -> int:
        return len(self.senders)


def nearest_distances(graph: OrbitGraph) -> np.ndarray:
    """Distance to the nearest neighbour of each node, shape (n_nodes,), A; infinite where it has none."""
    nearest = np.full(graph.n_nodes, np.inf)
    np.minimum.at(nearest, graph.senders, graph.distances)
    return nearest


EMPTY = OrbitGraph(
    *(np.zeros(0, dtype=dtype) for dtype in (np.uint8, np.uint16, np.uint16, np.uint16, np.float32, np.uint16))
)
"""The graph of no atoms."""


def orbit_graph(
    crystal: Crystal,
    *,
    cutoff: float,
    reduce: bool = True,
    max_neighbours_per_atom: float = MAX_NEIGHBOURS_PER_ATOM,
) -> OrbitGraph:
    """Neighbours within `cutoff` A of one atom per orbit; of every atom when `reduce` is false.

    Raises `InvalidCrystalError` for a crystal that is too dense to search (`neighbour_list`).
    """
    neighbours = neighbour_list(crystal, cutoff, max_neighbours_per_atom=max_neighbours_per_atom)
    orbit_of_atom = _orbits(crystal) if reduce else np.arange(crystal.n_atoms)
    return reduced_graph(crystal.atomic_numbers, neighbours, orbit_of_atom)


def reduced_graph(atomic_numbers: np.ndarray, neighbours: Neighbours, orbit_of_atom: np.ndarray) -> OrbitGraph:
    """Reduce a full neighbour list by orbits: `orbit_of_atom` (n_atoms,) names an atom of each atom's orbit.

    Raises `InvalidCrystalError` for a cell of more than 65,535 atoms.
    """
    if len(atomic_numbers) > _MAX_ATOMS:
        raise InvalidCrystalError(f"{len(atomic_numbers)} atoms in one cell; graphs hold at most {_MAX_ATOMS}")
    first, orbit, multiplicities = np.unique(orbit_of_atom, return_inverse=True, return_counts=True)
    senders, receivers, _, distances = neighbours
    leaves_first = np.isin(np.arange(len(atomic_numbers)), first)[senders]
    senders, receivers, distances = (
        orbit[senders[leaves_first]],
        orbit[receivers[leaves_first]],
        distances[leaves_first],
    )
    order = np.lexsort((distances, receivers, senders))
    senders, receivers, distances = senders[order], receivers[order], distances[order]
    starts = _starts_of_equal(senders, receivers, distances)
    counts = np.diff(starts, append=len(senders))
    sums = np.add.reduceat(distances, starts) if len(starts) else distances
    return OrbitGraph(
        atomic_numbers=atomic_numbers[first].astype(np.uint8),
        multiplicities=multiplicities.astype(np.uint16),
        senders=senders[starts].astype(np.uint16),
        receivers=receivers[starts].astype(np.uint16),
        distances=(sums / counts).astype(np.float32),
        counts=counts.astype(np.uint16),
    )


def _starts_of_equal(senders: np.ndarray, receivers: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """First edge of each run with the same ends and the same distance; edges are sorted by all three."""
    if not len(senders):
        return np.zeros(0, dtype=np.int64)
    new = (np.diff(senders) != 0) | (np.diff(receivers) != 0) | (np.diff(distances) > _EQUAL)
    return np.concatenate([[0], np.flatnonzero(new) + 1])


def _orbits(crystal: Crystal) -> np.ndarray:
    try:
        return orbits(crystal, symprec=SYMPREC)
    except InvalidCrystalError:  # no usable tolerance: every atom is an orbit of its own, which is always right
        return np.arange(crystal.n_atoms)
