"""Our own default network on graphs reduced by symmetry, trained by the loop that trains the others.

Graphs, batches, network, learning rate, batch size, weight decay and precision are the package's defaults. What the
package does otherwise is left out, so that the loop is the same for all: AdamW with betas of 0.9 and 0.99 that decays
matrices only, gradients of norm 1 at most, and batches of one crystal of each size stratum. Random batches, as here,
are of unequal total size, which costs a little speed on a processor and makes steps noisier.
"""

from collections.abc import Sequence

import graph_cache
import torch
from graph_cache import Graph
from peer import Peer
from torch import Tensor, nn

from opengnome.crystals import Crystal
from opengnome.graphs import OrbitBatch, OrbitGraph, batch_of, orbit_graph
from opengnome.graphs.orbit_batch import FIELDS
from opengnome.models import StructuralNetwork, StructuralSettings, TrainingSettings
from opengnome.models.constants import Constants
from opengnome.models.device import has_bfloat16

SETTINGS, TRAINING = StructuralSettings(), TrainingSettings()
MEAN_NEIGHBOURS = 17.5
"""Of an atom of the 44,787 training crystals within the default cutoff; sums over messages are divided by it."""


def prepare(crystal: graph_cache.Crystal) -> Graph:
    graph = orbit_graph(
        Crystal(crystal.lattice, crystal.frac_coords, crystal.atomic_numbers),
        cutoff=SETTINGS.cutoff,
        max_neighbours_per_atom=SETTINGS.max_neighbours_per_atom,
    )
    return {name: getattr(graph, name) for name in FIELDS}


def collate(graphs: Sequence[Graph]) -> OrbitBatch:
    return batch_of([OrbitGraph(**graph) for graph in graphs])


def build() -> nn.Module:
    return StructuralNetwork(SETTINGS, Constants(MEAN_NEIGHBOURS, shift=0.0, scale=1.0))  # the loop standardises


def forward(module: nn.Module, batch: OrbitBatch) -> Tensor:
    return module.standardised(batch)


OPENGNOME = Peer(
    prepare=prepare,
    collate=collate,
    build=build,
    forward=forward,
    learning_rate=TRAINING.learning_rate,
    batch_size=TRAINING.batch_size,
    weight_decay=TRAINING.weight_decay,
    precision="bfloat16" if has_bfloat16(torch.device("cpu")) else "highest",
    packages=("opengnome", "moyopy", "vesin"),
)
