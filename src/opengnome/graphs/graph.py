"""Crystals as one graph: nodes are atoms, edges are pairs within a cutoff, per periodic image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from opengnome.crystals import Crystal
from opengnome.errors import InvalidCrystalError
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM, Neighbours, neighbour_list


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Crystals joined into one graph without edges between them; a single crystal is a batch of one.

    Nodes and edges are stored crystal by crystal, in the order of the crystals.
    """

    senders: Tensor
    """Node at which an edge starts, shape (n_edges,), int64."""
    receivers: Tensor
    """Node at which an edge ends, shape (n_edges,), int64."""
    cell_offsets: Tensor
    """Lattice translation of the receiver, shape (n_edges, 3), int64."""
    graph_of_node: Tensor
    """Crystal to which a node belongs, ascending, shape (n_nodes,), int64."""
    atomic_numbers: Tensor
    """Shape (n_nodes,), int64."""
    positions: Tensor
    """Cartesian positions, shape (n_nodes, 3), Angstrom, float64."""
    lattices: Tensor
    """Lattice vectors as rows, shape (n_graphs, 3, 3), Angstrom, float64."""

    @property
    def n_graphs(self) -> int:
        return len(self.lattices)

    @property
    def n_nodes(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_edges(self) -> int:
        return len(self.senders)

    @cached_property
    def graph_of_edge(self) -> Tensor:
        """Crystal to which an edge belongs, ascending, shape (n_edges,)."""
        return self.graph_of_node[self.senders]

    @cached_property
    def node_counts(self) -> Tensor:
        """Atoms per crystal, shape (n_graphs,)."""
        return torch.bincount(self.graph_of_node, minlength=self.n_graphs)

    @cached_property
    def edge_counts(self) -> Tensor:
        """Edges per crystal, shape (n_graphs,)."""
        return torch.bincount(self.graph_of_edge, minlength=self.n_graphs)


def build_batch(
    crystals: Iterable[Crystal],
    *,
    cutoff: float,
    max_neighbours_per_atom: float = MAX_NEIGHBOURS_PER_ATOM,
) -> GraphBatch:
    """Graph of all `crystals` with edges between atoms closer than `cutoff` A.

    Raises `InvalidCrystalError` when there is no crystal, or one is too dense (`neighbour_list`).
    """
    return join(
        [
            (crystal, neighbour_list(crystal, cutoff, max_neighbours_per_atom=max_neighbours_per_atom))
            for crystal in crystals
        ]
    )


def join(parts: Sequence[tuple[Crystal, Neighbours]]) -> GraphBatch:
    """Graph of crystals whose neighbour lists are known.

    Raises `InvalidCrystalError` when there is no crystal.
    """
    if not parts:
        raise InvalidCrystalError("a graph batch needs at least one crystal, got none")
    n_atoms = np.array([crystal.n_atoms for crystal, _ in parts])
    n_edges = np.array([len(neighbours[0]) for _, neighbours in parts])
    first_node = np.repeat(np.cumsum(n_atoms) - n_atoms, n_edges)
    return GraphBatch(
        senders=torch.from_numpy(np.concatenate([n[0] for _, n in parts]) + first_node),
        receivers=torch.from_numpy(np.concatenate([n[1] for _, n in parts]) + first_node),
        cell_offsets=torch.from_numpy(np.concatenate([n[2] for _, n in parts])),
        graph_of_node=torch.from_numpy(np.repeat(np.arange(len(parts)), n_atoms)),
        atomic_numbers=torch.from_numpy(np.concatenate([c.atomic_numbers for c, _ in parts])),
        positions=torch.from_numpy(np.concatenate([c.positions for c, _ in parts])),
        lattices=torch.from_numpy(np.stack([c.lattice for c, _ in parts])),
    )


def displacements(graphs: GraphBatch) -> Tensor:
    """``positions[receivers] + cell_offsets @ lattices - positions[senders]``, shape (n_edges, 3), A."""
    offsets = graphs.cell_offsets.to(graphs.positions.dtype)
    translations = torch.einsum("ei,eij->ej", offsets, graphs.lattices[graphs.graph_of_edge])
    return graphs.positions[graphs.receivers] + translations - graphs.positions[graphs.senders]


def distances(graphs: GraphBatch) -> Tensor:
    """Length of every edge, shape (n_edges,), A."""
    return torch.linalg.vector_norm(displacements(graphs), dim=-1)
