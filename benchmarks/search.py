"""The search for the default structural network: one change at a time, same data, same number of epochs.

    python benchmarks/search.py --data DATA --output runs/search [VARIANT ...]

Every variant is trained on the same 22,000 of the 44,787 training crystals of the MEGNet split for 7 epochs and judged
on the 3,679 validation crystals (single seed: differences below 2 % are noise). Variants that are finished are not run
again; results are collected in `search.json`. The networks here have options that the package's network does not:
what did not pay was left out there.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from accuracy import split
from torch import Tensor, nn

from opengnome.graphs import OrbitBatch, cached_store, segment_sum
from opengnome.models import TrainingSettings
from opengnome.models.constants import Constants
from opengnome.models.energy_network import EnergyNetwork
from opengnome.models.fitting import Fit
from opengnome.models.numerics import numerics
from opengnome.models.structural import GaussianBasis, envelope

N_TRAIN, EPOCHS = 22_000, 7


@dataclass(frozen=True)
class Variant:
    """One point of the search."""

    cutoff: float = 4.0
    layers: int = 4
    width: int = 128
    edge_width: int = 128
    n_basis: int = 32
    gate: bool = False
    """Messages are a product of a sigmoid and a swish, as in CGCNN."""
    edge_state: bool = True
    """The last message of an edge goes into the next one."""
    two_layers: bool = False
    """A second layer in the edge network."""
    residual: bool = True
    smooth: bool = True
    pooling: str = "nodes"
    """`nodes`: mean of a node readout; `statistics`: also a readout of mean and scatter of the nodes."""
    loss: str = "l1"
    batch_size: int = 32
    learning_rate: float = 1e-3


BASE = Variant()
VARIANTS = {
    "base": BASE,
    "5 A": replace(BASE, cutoff=5.0, n_basis=40),
    "6 A": replace(BASE, cutoff=6.0, n_basis=48),
    "6 layers": replace(BASE, layers=6),
    "3 layers": replace(BASE, layers=3),
    "width 256": replace(BASE, width=256),
    "edge width 64": replace(BASE, edge_width=64),
    "gate": replace(BASE, gate=True),
    "no edge state": replace(BASE, edge_state=False),
    "two-layer edge network": replace(BASE, two_layers=True),
    "not residual": replace(BASE, residual=False),
    "step at the cutoff": replace(BASE, smooth=False),
    "statistics pooling": replace(BASE, pooling="statistics"),
    "Huber loss": replace(BASE, loss="huber"),
    "batch 16": replace(BASE, batch_size=16),
    "batch 64": replace(BASE, batch_size=64),
    "learning rate 2e-3": replace(BASE, learning_rate=2e-3),
}


def perceptron(n_inputs: int, n_hidden: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_outputs))


class Layer(nn.Module):
    def __init__(self, variant: Variant, *, first: bool) -> None:
        super().__init__()
        self.variant = variant
        width, hidden = variant.width, variant.edge_width
        n_out = 2 * hidden if variant.gate else hidden
        self.of_nodes = nn.Linear(width, 2 * n_out)
        self.of_distances = nn.Linear(variant.n_basis, n_out, bias=False)
        self.of_messages = nn.Linear(hidden, n_out, bias=False) if variant.edge_state and not first else None
        self.second = nn.Linear(hidden, hidden) if variant.two_layers else None
        self.out = nn.Linear(hidden, width)
        self.update = perceptron(2 * width, 2 * width, width)

    def forward(
        self, graphs: OrbitBatch, nodes: Tensor, messages: Tensor | None, basis: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        of_senders, of_receivers = self.of_nodes(nodes).chunk(2, dim=1)
        hidden = of_senders.index_select(0, graphs.senders) + of_receivers.index_select(0, graphs.receivers)
        hidden = hidden + self.of_distances(basis)
        if self.of_messages is not None and messages is not None:
            hidden = hidden + self.of_messages(messages)
        if self.variant.gate:
            gate, hidden = hidden.chunk(2, dim=1)
            messages = torch.sigmoid(gate) * F.silu(hidden)
        else:
            messages = F.silu(hidden)
        if self.second is not None:
            messages = F.silu(self.second(messages))
        total = segment_sum(messages.float() * weights, graphs.senders, graphs.n_nodes)
        update = self.update(torch.cat([nodes, self.out(total)], dim=1)).float()
        return (nodes + update if self.variant.residual else update), messages


class Network(EnergyNetwork):
    def __init__(self, variant: Variant, constants: Constants) -> None:
        super().__init__(constants)
        self.settings = variant
        self.embedding = nn.Embedding(119, variant.width)
        self.basis = GaussianBasis(variant.n_basis, variant.cutoff)
        self.layers = nn.ModuleList(Layer(variant, first=step == 0) for step in range(variant.layers))
        self.readout = perceptron(variant.width, variant.width, 1)
        self.statistics = perceptron(2 * variant.width, variant.width, 1) if variant.pooling == "statistics" else None

    def standardised(self, graphs: OrbitBatch) -> Tensor:
        fade = envelope(graphs.distances, self.settings.cutoff) if self.settings.smooth else 1.0
        weights = (fade * graphs.counts / self.mean_neighbours)[:, None]
        basis, nodes, messages = self.basis(graphs.distances), self.embedding(graphs.atomic_numbers), None
        for layer in self.layers:
            nodes, messages = layer(graphs, nodes, messages, basis, weights)
        with torch.autocast(nodes.device.type, enabled=False):
            of_atoms = self.readout(nodes).squeeze(-1)
            energies = segment_sum(of_atoms * graphs.shares, graphs.graph_of_node, graphs.n_graphs)
            if self.statistics is None:
                return energies
            share = graphs.shares[:, None]
            mean = segment_sum(nodes * share, graphs.graph_of_node, graphs.n_graphs)
            square = segment_sum(
                (nodes - mean[graphs.graph_of_node]) ** 2 * share, graphs.graph_of_node, graphs.n_graphs
            )
            return energies + self.statistics(torch.cat([mean, (square + 1e-4).sqrt()], dim=1)).squeeze(-1)


def run(name: str, variant: Variant, data: Path, output: Path) -> dict[str, float]:
    table, targets, held_out = split("mp2018", data)
    graphs = cached_store(table, output / "graphs", cutoff=variant.cutoff, max_neighbours_per_atom=3000, workers=2)
    rows = np.random.default_rng(1).permutation(np.flatnonzero(~held_out))[:N_TRAIN]
    used = targets[rows]
    constants = Constants(graphs.mean_neighbours(rows), float(used.mean()), float(used.std()))
    training = TrainingSettings(
        epochs=EPOCHS, batch_size=variant.batch_size, learning_rate=variant.learning_rate, loss=variant.loss
    )
    with numerics(threads=1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(variant, constants)
        fit = Fit(
            network,
            graphs,
            targets,
            train=rows,
            held_out=np.flatnonzero(held_out),
            training=training,
            seed=0,
            state_path=output / f"{name.replace(' ', '-')}.state",
            identity=f"{name}:{variant}",
        )
        started = time.process_time()
        fit.run(print)
        seconds = time.process_time() - started
        mae = fit.held_out_mae()
        fit.finish()
    return {
        "mae": math.nan if mae is None else mae,
        "train_mae": fit.train_mae,
        "processor_seconds": seconds,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "search.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in options.variants or VARIANTS:
        if name not in results:
            results[name] = run(name, VARIANTS[name], options.data, options.output)
            path.write_text(json.dumps(results, indent=2) + "\n")
        print(name, results[name], flush=True)


if __name__ == "__main__":
    main()
