"""MEGNet (doi:10.1021/acs.chemmater.9b01294) and M3GNet (doi:10.1038/s43588-022-00349-3) of matgl."""

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from graph_cache import Crystal, Graph, counts, joined, joined_indices
from matgl.ext.pymatgen import Structure2Graph
from matgl.models import M3GNet, MEGNet
from peer import Peer, atoms_owner
from pymatgen.core import Element, Structure
from torch import Tensor, nn

ELEMENTS = tuple(Element.from_Z(z).symbol for z in range(1, 95))


def prepare(crystal: Crystal, *, cutoff: float) -> Graph:
    structure = Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords)
    graph, lattice, _ = Structure2Graph(ELEMENTS, cutoff).get_graph(structure)
    return {
        "node_type": graph.node_type.numpy().astype(np.int8),
        "pos": (graph.frac_coords @ lattice[0]).numpy(),
        "edges": graph.edge_index.numpy().T.astype(np.int16),
        "images": graph.pbc_offset.numpy().astype(np.int8),
        "lattice": lattice.numpy(),
    }


def collate(graphs: Sequence[Graph]) -> SimpleNamespace:
    n_atoms, n_edges = counts(graphs, "pos"), counts(graphs, "edges")
    edge_lattice = torch.repeat_interleave(joined(graphs, "lattice"), n_edges, dim=0)
    return SimpleNamespace(
        node_type=joined(graphs, "node_type").long(),
        pos=joined(graphs, "pos"),
        edge_index=joined_indices(graphs, "edges", n_atoms).T.contiguous(),
        pbc_offshift=torch.einsum("ei,eij->ej", joined(graphs, "images").float(), edge_lattice),
        batch=atoms_owner(n_atoms),
        num_graphs=len(graphs),
    )


def forward_megnet(module: nn.Module, batch: SimpleNamespace) -> Tensor:
    return module(batch, torch.zeros(batch.num_graphs, 2)).reshape(-1)


def forward_m3gnet(module: nn.Module, batch: SimpleNamespace) -> Tensor:
    return module(batch).reshape(-1)


MEGNET = Peer(
    prepare=partial(prepare, cutoff=4.0),
    collate=collate,
    build=lambda: MEGNet(element_types=ELEMENTS, cutoff=4.0),
    forward=forward_megnet,
    learning_rate=2e-3,
    batch_size=64,
    precision="bfloat16",
    packages=("matgl", "torch-geometric"),
)
M3GNET = Peer(
    prepare=partial(prepare, cutoff=5.0),
    collate=collate,
    build=lambda: M3GNet(element_types=ELEMENTS, cutoff=5.0, threebody_cutoff=4.0, nblocks=3, units=64),
    forward=forward_m3gnet,
    learning_rate=1e-3,
    batch_size=64,
    precision="bfloat16",
    packages=("matgl", "torch-geometric"),
)
