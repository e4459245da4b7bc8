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


def select(graphs: GraphBatch, indices: Tensor) -> GraphBatch:
    """The crystals at `indices` (int64, any order, repeats allowed) as a batch of their own."""
    nodes = _members(graphs.node_counts, indices)
    edges = _members(graphs.edge_counts, indices)
    node_counts, edge_counts = graphs.node_counts[indices], graphs.edge_counts[indices]
    old_first = (torch.cumsum(graphs.node_counts, 0) - graphs.node_counts)[indices]
    new_first = torch.cumsum(node_counts, 0) - node_counts
    shift = torch.repeat_interleave(new_first - old_first, edge_counts)
    return GraphBatch(
        senders=graphs.senders[edges] + shift,
        receivers=graphs.receivers[edges] + shift,
        cell_offsets=graphs.cell_offsets[edges],
        graph_of_node=torch.repeat_interleave(torch.arange(len(indices)), node_counts),
        atomic_numbers=graphs.atomic_numbers[nodes],
        positions=graphs.positions[nodes],
        lattices=graphs.lattices[indices],
    )


def rescaled(graphs: GraphBatch, *, volume_scale: float, cutoff: float) -> GraphBatch:
    """The same crystals with all volumes times `volume_scale`, keeping the edges still within `cutoff` A.

    Edges are only dropped, never found: exact when `graphs` was built with a cutoff of at least
    ``cutoff / volume_scale ** (1 / 3)``.
    """
    factor = volume_scale ** (1.0 / 3.0)
    kept = distances(graphs) * factor < cutoff
    return GraphBatch(
        senders=graphs.senders[kept],
        receivers=graphs.receivers[kept],
        cell_offsets=graphs.cell_offsets[kept],
        graph_of_node=graphs.graph_of_node,
        atomic_numbers=graphs.atomic_numbers,
        positions=graphs.positions * factor,
        lattices=graphs.lattices * factor,
    )


def _members(counts: Tensor, indices: Tensor) -> Tensor:
    """Positions of the items of the selected groups when groups of `counts` items lie one after another."""
    first = (torch.cumsum(counts, 0) - counts)[indices]
    sizes = counts[indices]
    within = torch.arange(int(sizes.sum())) - torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, sizes)
    return torch.repeat_interleave(first, sizes) + within
