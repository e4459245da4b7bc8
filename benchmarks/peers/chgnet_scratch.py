"""CHGNet (doi:10.1038/s42256-023-00716-3) from random weights, energies only, without the MPtrj reference energies."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import torch
from chgnet.graph import CrystalGraph, CrystalGraphConverter
from chgnet.model import CHGNet
from chgnet.model.model import BatchedGraph
from graph_cache import Crystal, Graph
from peer import Peer
from pymatgen.core import Structure
from torch import Tensor, nn

ATOM_CUTOFF, BOND_CUTOFF = 6.0, 3.0
CONVERTER = CrystalGraphConverter(
    atom_graph_cutoff=ATOM_CUTOFF, bond_graph_cutoff=BOND_CUTOFF, algorithm="fast", on_isolated_atoms="ignore"
)
FIELDS = {
    "atomic_number": (np.int16, ()),
    "atom_frac_coord": (np.float32, (3,)),
    "atom_graph": (np.int16, (2,)),
    "neighbor_image": (np.int8, (3,)),
    "directed2undirected": (np.int32, ()),
    "undirected2directed": (np.int32, ()),
    "bond_graph": (np.int32, (5,)),
    "lattice": (np.float32, (3,)),
}
INTEGERS = {"atomic_number", "atom_graph", "directed2undirected", "undirected2directed", "bond_graph"}


def prepare(crystal: Crystal) -> Graph:
    graph = CONVERTER(Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords))
    return {
        name: getattr(graph, name).detach().numpy().astype(dtype).reshape(-1, *shape)
        for name, (dtype, shape) in FIELDS.items()
    }


def collate(graphs: Sequence[Graph]) -> list[CrystalGraph]:
    return [
        CrystalGraph(
            **{
                name: torch.from_numpy(array.astype(np.int32 if name in INTEGERS else np.float32))
                for name, array in graph.items()
            },
            atom_graph_cutoff=ATOM_CUTOFF,
            bond_graph_cutoff=BOND_CUTOFF,
        )
        for graph in graphs
    ]


def build() -> nn.Module:
    with redirect_stdout(StringIO()):
        return CHGNet(composition_model=None)


def forward(module: nn.Module, batch: list[CrystalGraph]) -> Tensor:
    """What `module(batch, task="e")["e"]` does, with coordinates and bases always in single precision."""
    with torch.autocast("cpu", enabled=False):
        graph = BatchedGraph.from_graphs(batch, module.bond_basis_expansion, module.angle_basis_expansion)
    return module._compute(graph)["e"]


CHGNET = Peer(
    prepare=prepare,
    collate=collate,
    build=build,
    forward=forward,
    learning_rate=1e-3,
    batch_size=32,
    precision="bfloat16",
    packages=("chgnet", "pymatgen-core"),
)
