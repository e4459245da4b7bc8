"""Symmetry-reduced crystals as tensors: what the networks compute on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from opengnome.errors import InvalidCrystalError
from opengnome.graphs.orbits import OrbitGraph
from opengnome.graphs.segment import segment_sum


@dataclass(frozen=True, eq=False)
class OrbitBatch:
    """Several crystals joined into one graph without edges between them; nodes are orbits of atoms."""

    atomic_numbers: Tensor
    """Shape (n_nodes,), int64."""
    multiplicities: Tensor
    """Atoms for which a node stands, shape (n_nodes,), float32."""
    graph_of_node: Tensor
    """Crystal to which a node belongs, ascending, shape (n_nodes,), int64."""
    senders: Tensor
    """Node whose neighbour it is, ascending, shape (n_edges,), int64."""
    receivers: Tensor
    """Node of the neighbour, shape (n_edges,), int64."""
    distances: Tensor
    """Shape (n_edges,), A, float32."""
    counts: Tensor
    """Neighbours of one atom of the sender that an edge stands for, shape (n_edges,), float32."""
    n_graphs: int
    """Number of crystals."""

    def to(self, device: torch.device) -> "OrbitBatch":
        """The same batch on `device`."""
        if self.distances.device == device:
            return self
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    @property
    def n_nodes(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_edges(self) -> int:
        return len(self.senders)

    @cached_property
    def n_atoms(self) -> Tensor:
        """Atoms per crystal, shape (n_graphs,), float32."""
        return segment_sum(self.multiplicities, self.graph_of_node, self.n_graphs)

    @cached_property
    def shares(self) -> Tensor:
        """Share of each node in the atoms of its crystal, shape (n_nodes,); sums to one over a crystal."""
        return self.multiplicities / self.n_atoms[self.graph_of_node]

    @cached_property
    def receiver_counts(self) -> Tensor:
        """Neighbours of one atom of the *receiver* that an edge stands for, shape (n_edges,).

        The pairs of an edge are counted once from each side: m_s count_s = m_r count_r.
        """
        ends = self.multiplicities
        return self.counts * ends[self.senders] / ends[self.receivers]


def batch_of(graphs: Sequence[OrbitGraph]) -> OrbitBatch:
    """Join crystals into a batch; raises `InvalidCrystalError` when there is none."""
    if not graphs:
        raise InvalidCrystalError("a graph batch needs at least one crystal, got none")
    return as_batch(
        OrbitGraph(*(np.concatenate([getattr(g, name) for g in graphs]) for name in FIELDS)),
        np.array([g.n_nodes for g in graphs]),
        np.array([g.n_edges for g in graphs]),
    )


_TENSORS = (
    *("atomic_numbers", "multiplicities", "graph_of_node"),
    *("senders", "receivers", "distances", "counts"),
)
FIELDS = ("atomic_numbers", "multiplicities", "senders", "receivers", "distances", "counts")
"""Arrays of an `OrbitGraph`, in its order."""


def as_batch(graphs: OrbitGraph, node_counts: np.ndarray, edge_counts: np.ndarray) -> OrbitBatch:
    """Tensors of crystals laid one after another, with `node_counts` and `edge_counts` (n_graphs,) each."""
    first_node = np.repeat(np.cumsum(node_counts) - node_counts, edge_counts)
    return OrbitBatch(
        atomic_numbers=torch.from_numpy(graphs.atomic_numbers.astype(np.int64)),
        multiplicities=torch.from_numpy(graphs.multiplicities.astype(np.float32)),
        graph_of_node=torch.from_numpy(np.repeat(np.arange(len(node_counts)), node_counts)),
        senders=torch.from_numpy(graphs.senders.astype(np.int64) + first_node),
        receivers=torch.from_numpy(graphs.receivers.astype(np.int64) + first_node),
        distances=torch.from_numpy(graphs.distances.astype(np.float32)),
        counts=torch.from_numpy(graphs.counts.astype(np.float32)),
        n_graphs=len(node_counts),
    )


def scaled(graphs: OrbitBatch, volume_scales: Sequence[float], *, cutoff: float) -> OrbitBatch:
    """Every crystal at every relative volume, as one batch; crystal g at scale k is graph ``k * n_graphs + g``.

    The topology is used again: distances are multiplied, edges beyond `cutoff` A are dropped. Exact when
    `graphs` holds the edges within ``cutoff / min(volume_scales) ** (1 / 3)``.
    """
    factors = [float(scale) ** (1.0 / 3.0) for scale in volume_scales]
    kept = [graphs.distances * factor < cutoff for factor in factors]

    def edges(values: Tensor, step: int) -> Tensor:
        return torch.cat([values[mask] + step * k for k, mask in enumerate(kept)])

    n = len(factors)
    copies = torch.arange(n).repeat_interleave(graphs.n_nodes)
    return OrbitBatch(
        atomic_numbers=graphs.atomic_numbers.repeat(n),
        multiplicities=graphs.multiplicities.repeat(n),
        graph_of_node=graphs.graph_of_node.repeat(n) + copies * graphs.n_graphs,
        senders=edges(graphs.senders, graphs.n_nodes),
        receivers=edges(graphs.receivers, graphs.n_nodes),
        distances=torch.cat([graphs.distances[mask] * f for f, mask in zip(factors, kept, strict=True)]),
        counts=torch.cat([graphs.counts[mask] for mask in kept]),
        n_graphs=n * graphs.n_graphs,
    )


def perturbed(graphs: OrbitBatch, *, volume_std: float, distance_std: float, generator: torch.Generator) -> OrbitBatch:
    """The crystals as if they were not relaxed: every volume and every distance off by a random factor.

    The logarithm of a crystal's volume gets normal noise of `volume_std`, that of each distance of `distance_std`.
    Edges are those of the crystals given: some may be longer than the cutoff then, and none is found anew.
    """
    volumes = torch.randn(graphs.n_graphs, generator=generator) * volume_std
    noise = torch.randn(graphs.n_edges, generator=generator) * distance_std
    of_edge = graphs.graph_of_node[graphs.senders]
    return replace(graphs, distances=graphs.distances * torch.exp(volumes[of_edge] / 3.0 + noise))
