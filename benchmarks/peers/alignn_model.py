"""ALIGNN (doi:10.1038/s41524-021-00650-1) of the package alignn, in its version without DGL.

Size as published: four ALIGNN and four GCN layers of 256, 12 neighbours within 8 A. The package's version without
DGL has layer instead of batch normalisation, and its default forms angles only from bonds up to 3.5 A.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig
from alignn.torch_graph_builder import TorchGraph, _line_graph_edges, torch_neighbor_list
from cgcnn import element_features
from graph_cache import Crystal, Graph, counts, joined, joined_indices
from peer import Peer
from torch import Tensor, nn

CUTOFF, NEIGHBOURS, ANGLE_CUTOFF = 8.0, 12, 3.5


def prepare(crystal: Crystal) -> Graph:
    # build_pure_torch_graph reads a JSON file per atom; its neighbour list alone is a hundred times faster
    lattice = torch.from_numpy(crystal.lattice)
    positions = torch.from_numpy(crystal.frac_coords) @ lattice
    src, dst, _, vectors = torch_neighbor_list(positions, lattice, CUTOFF, NEIGHBOURS)
    return {
        "numbers": crystal.atomic_numbers.astype(np.int8),
        "edges": torch.stack([src, dst], 1).numpy().astype(np.int16),
        "vectors": vectors.float().numpy(),
    }


def collate(graphs: Sequence[Graph]) -> tuple[TorchGraph, TorchGraph, None]:
    """The line graph is made here: it is cheap beside the network, and large."""
    n_atoms, n_edges = counts(graphs, "numbers"), counts(graphs, "edges")
    src, dst = joined_indices(graphs, "edges", n_atoms).T.contiguous()
    vectors = joined(graphs, "vectors")
    angles = _line_graph_edges(src, dst, int(n_atoms.sum()), allowed=vectors.norm(dim=1) <= ANGLE_CUTOFF)
    graph = TorchGraph(
        int(n_atoms.sum()),
        src,
        dst,
        ndata={"atom_features": _element_features()[joined(graphs, "numbers").long()]},
        edata={"r": vectors},
        batch_num_nodes=n_atoms,
        batch_num_edges=n_edges,
    )
    return graph, TorchGraph(len(src), *angles), None


@cache
def _element_features() -> Tensor:
    return element_features()


def build() -> nn.Module:
    return ALIGNNAtomWisePure(
        ALIGNNAtomWisePureConfig(
            name="alignn_atomwise_pure",
            alignn_layers=4,
            gcn_layers=4,
            atom_input_features=92,
            edge_input_features=80,
            triplet_input_features=40,
            embedding_features=64,
            hidden_features=256,
            calculate_gradient=False,
            gradwise_weight=0.0,
            energy_mult_natoms=False,
            use_penalty=False,
        )
    )


def forward(module: nn.Module, batch: tuple[TorchGraph, TorchGraph, None]) -> Tensor:
    return module(batch)["out"].reshape(-1)


ALIGNN = Peer(
    prepare=prepare,
    collate=collate,
    build=build,
    forward=forward,
    learning_rate=1e-3,
    batch_size=32,
    weight_decay=1e-5,
    precision="bfloat16",
    packages=("alignn", "jarvis-tools"),
)
