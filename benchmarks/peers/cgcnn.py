"""CGCNN (Xie and Grossman, doi:10.1103/PhysRevLett.120.145301) in plain torch.

64 features, three convolutions, the 12 nearest atoms within 8 A, 41 Gaussians, hidden layer of 128, the published
element features. The linear layer over (atom, neighbour, distance) is applied to its three parts separately,
the atom's part once per atom: the same function with a third of the arithmetic.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jarvis.core.specie
import numpy as np
import torch
from graph_cache import Crystal, Graph, counts, joined, joined_indices
from peer import Peer, atoms_owner
from pymatgen.optimization.neighbors import find_points_in_spheres
from torch import Tensor, nn
from torch.nn import functional

CUTOFF, NEIGHBOURS, GAUSSIAN_STEP = 8.0, 12, 0.2
FEATURES, CONVOLUTIONS, HIDDEN = 64, 3, 128
PERIODIC = np.ones(3, dtype=np.int64)


def element_features() -> Tensor:
    """(101, 92): the published one-hot features by atomic number; row 0 is empty."""
    rows = json.loads((Path(jarvis.core.specie.__file__).parent / "atom_init.json").read_text())
    table = torch.zeros(101, 92)
    for number, features in rows.items():
        table[int(number)] = torch.tensor(features, dtype=torch.float32)
    return table


def prepare(crystal: Crystal) -> Graph:
    positions = crystal.frac_coords @ crystal.lattice
    source, target, _, distance = find_points_in_spheres(
        positions, positions, r=CUTOFF, pbc=PERIODIC, lattice=np.ascontiguousarray(crystal.lattice), tol=1e-8
    )
    pairs = distance > 1e-8
    source, target, distance = source[pairs], target[pairs], distance[pairs]
    order = np.lexsort((distance, source))
    source, target, distance = source[order], target[order], distance[order]
    rank = np.arange(len(source)) - np.searchsorted(source, source)
    kept = rank < NEIGHBOURS
    n = len(positions)
    neighbours = np.zeros((n, NEIGHBOURS), dtype=np.int16)  # missing ones: atom 0, one beyond the cutoff, as published
    distances = np.full((n, NEIGHBOURS), CUTOFF + 1, dtype=np.float32)
    neighbours[source[kept], rank[kept]] = target[kept]
    distances[source[kept], rank[kept]] = distance[kept]
    return {"numbers": crystal.atomic_numbers.astype(np.int8), "neighbours": neighbours, "distances": distances}


class Batch(NamedTuple):
    numbers: Tensor
    neighbours: Tensor  # (n_atoms, 12)
    distances: Tensor  # (n_atoms, 12)
    n_atoms: Tensor  # (n_crystals,)


def collate(graphs: Sequence[Graph]) -> Batch:
    n_atoms = counts(graphs, "numbers")
    return Batch(
        joined(graphs, "numbers").long(),
        joined_indices(graphs, "neighbours", n_atoms),
        joined(graphs, "distances"),
        n_atoms,
    )


class Convolution(nn.Module):
    def __init__(self, n_gaussians: int) -> None:
        super().__init__()
        self.atom = nn.Linear(FEATURES, 2 * FEATURES)
        self.neighbour = nn.Linear(FEATURES, 2 * FEATURES, bias=False)
        self.bond = nn.Linear(n_gaussians, 2 * FEATURES, bias=False)
        for part in (self.atom, self.neighbour, self.bond):  # the initial range of one layer over all inputs
            bound = (2 * FEATURES + n_gaussians) ** -0.5
            nn.init.uniform_(part.weight, -bound, bound)
        self.norm_gates = nn.BatchNorm1d(2 * FEATURES)
        self.norm_sum = nn.BatchNorm1d(FEATURES)

    def forward(self, atoms: Tensor, neighbours: Tensor, bonds: Tensor) -> Tensor:
        around = self.neighbour(atoms).index_select(0, neighbours.flatten()).view(*neighbours.shape, -1)
        gates = self.atom(atoms)[:, None] + around + self.bond(bonds)
        gates = self.norm_gates(gates.flatten(0, 1)).view_as(gates)
        gate, core = gates.chunk(2, dim=-1)
        messages = (torch.sigmoid(gate) * functional.softplus(core)).sum(1)
        return functional.softplus(atoms + self.norm_sum(messages))


class CGCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("elements", element_features(), persistent=False)
        self.register_buffer("centres", torch.arange(0, CUTOFF + GAUSSIAN_STEP / 2, GAUSSIAN_STEP), persistent=False)
        self.embedding = nn.Linear(self.elements.shape[1], FEATURES)
        self.convolutions = nn.ModuleList(Convolution(len(self.centres)) for _ in range(CONVOLUTIONS))
        self.hidden = nn.Linear(FEATURES, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)

    def forward(self, batch: Batch) -> Tensor:
        bonds = torch.exp(-(((batch.distances[..., None] - self.centres) / GAUSSIAN_STEP) ** 2))
        atoms = self.embedding(self.elements)[batch.numbers]
        for convolution in self.convolutions:
            atoms = convolution(atoms, batch.neighbours, bonds)
        crystals = atoms.new_zeros(len(batch.n_atoms), FEATURES).index_add(0, atoms_owner(batch.n_atoms), atoms)
        crystals = functional.softplus(crystals / batch.n_atoms[:, None])
        return self.output(functional.softplus(self.hidden(crystals))).squeeze(-1)


CGCNN_PEER = Peer(
    prepare=prepare,
    collate=collate,
    build=CGCNN,
    forward=lambda module, batch: module(batch),
    learning_rate=2e-3,
    batch_size=64,
    precision="bfloat16",
    packages=("jarvis-tools", "pymatgen-core"),
)
