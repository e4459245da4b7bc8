"""The search for the default structural network: one change at a time, same data, same number of epochs.

    python benchmarks/search.py --data DATA --output runs/search [--json FILE] [VARIANT ...]

Every variant is trained on the same 22,000 of the 44,787 training crystals of the MEGNet split for 7 epochs and judged
on the same 3,000 of the other training crystals (single seed: differences below 2 % are noise). The crystals that the
split holds out are not looked at: a network chosen on them would have seen the test. Each variant that is finished has
a JSON file, so a killed run goes on; one that was made otherwise is refused. Results are collected in `search.json`.
The networks here have options that the package's network does not: what did not pay was left out there.
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from accuracy import refuse_differences, split
from torch import Tensor, nn

from opengnome.graphs import OrbitBatch, cached_store, segment_sum
from opengnome.models import TrainingSettings
from opengnome.models.checkpoint import read_json, write_json
from opengnome.models.constants import Constants
from opengnome.models.energy_network import EnergyNetwork
from opengnome.models.fitting import Fit
from opengnome.models.numerics import numerics
from opengnome.models.structural import GaussianBasis, envelope

N_TRAIN, N_JUDGED, EPOCHS = 22_000, 3_000, 7


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
    fade_from: float = 0.0
    """Share of the cutoff up to which messages do not fade; 1: a step at the cutoff."""
    pooling: str = "nodes"
    """`nodes`: mean of a node readout; `statistics`: also a readout of mean and scatter of the nodes."""
    loss: str = "l1"
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    averaging: float = 0.0
    """Decay of an exponential average of the weights, which is what is judged; 0: the last weights."""


BASE = Variant()
VARIANTS = {
    "base": BASE,
    "5 A": replace(BASE, cutoff=5.0, n_basis=40),
    "6 A": replace(BASE, cutoff=6.0, n_basis=48),
    "6 layers": replace(BASE, layers=6),
    "5 layers": replace(BASE, layers=5),
    "3 layers": replace(BASE, layers=3),
    "two layers of 5 A": replace(BASE, layers=2, cutoff=5.0, n_basis=40),
    "width 256": replace(BASE, width=256),
    "edge width 64": replace(BASE, edge_width=64),
    "gate": replace(BASE, gate=True),
    "no edge state": replace(BASE, edge_state=False),
    "two-layer edge network": replace(BASE, two_layers=True),
    "not residual": replace(BASE, residual=False),
    "flat to 0.8 of the cutoff": replace(BASE, fade_from=0.8),
    "step at the cutoff": replace(BASE, fade_from=1.0),
    "statistics pooling": replace(BASE, pooling="statistics"),
    "Huber loss": replace(BASE, loss="huber"),
    "batch 16": replace(BASE, batch_size=16),
    "batch 64": replace(BASE, batch_size=64),
    "learning rate 2e-3": replace(BASE, learning_rate=2e-3),
    "weight decay 0.1": replace(BASE, weight_decay=0.1),
    "averaged weights": replace(BASE, averaging=0.998),
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
        fade = late_envelope(graphs.distances, self.settings.cutoff, self.settings.fade_from)
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


def late_envelope(distances: Tensor, cutoff: float, fade_from: float) -> Tensor:
    """One up to a share of the cutoff, from there a cosine to zero, with zero slope at both ends."""
    start = fade_from * cutoff
    if start == cutoff:
        return torch.ones_like(distances)
    return envelope((distances - start).clamp(min=0.0), cutoff - start)


def training_rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the n training crystals of the split that are trained on, and those that variants are judged by."""
    order = np.random.default_rng(1).permutation(n)
    return order[:N_TRAIN], order[N_TRAIN : N_TRAIN + N_JUDGED]


def description(variant: Variant) -> dict[str, Any]:
    """All that a result depends on."""
    return {
        **asdict(variant),
        "epochs": EPOCHS,
        "trained_on": f"{N_TRAIN} training crystals",
        "judged_on": f"{N_JUDGED} other training crystals",
    }


def run(name: str, variant: Variant, data: Path, output: Path) -> dict[str, Any]:
    """Train and judge a variant."""
    table, targets, held_out = split("mp2018", data)
    table, targets = table.filter(~held_out), targets[~held_out]
    graphs = cached_store(table, output / "graphs", cutoff=variant.cutoff, max_neighbours_per_atom=3000, workers=2)
    rows, judged = training_rows(len(table))
    used = targets[rows]
    constants = Constants(graphs.mean_neighbours(rows), float(used.mean()), float(used.std()))
    recipe = {
        key: getattr(variant, key) for key in ("batch_size", "learning_rate", "weight_decay", "averaging", "loss")
    }
    described = description(variant)
    with numerics(threads=1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(variant, constants)
        fit = Fit(
            network,
            graphs,
            targets,
            train=rows,
            held_out=judged,
            training=TrainingSettings(epochs=EPOCHS, **recipe),
            seed=0,
            state_path=output / f"{file_name(name)}.state",
            identity=json.dumps([name, described]),
        )
        fit.run(print)
        mae = fit.held_out_mae()
    result = {
        "mae": mae,
        "train_mae": fit.train_mae,
        "crystals_per_second": fit.crystals_per_second,
        "parameters": sum(p.numel() for p in network.parameters()),
        "variant": described,
    }
    write_json(output / f"{file_name(name)}.json", result)
    fit.finish()  # not before: a kill between the two must not lose the training
    return result


def file_name(name: str) -> str:
    return name.replace(" ", "-")


def finished(name: str, output: Path) -> dict[str, Any] | None:
    """Result of a variant when there is one; one that was made otherwise than it would be made now is refused."""
    path = output / f"{file_name(name)}.json"
    if not path.exists():
        return None
    result = read_json(path)
    there, now = result.get("variant", {}), description(VARIANTS[name])
    refuse_differences(path, {key: (there.get(key), now.get(key)) for key in now | there})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="another copy of search.json")
    options = parser.parse_args()
    if unknown := set(options.variants) - set(VARIANTS):
        parser.error(f"{', '.join(sorted(unknown))}: no such variant; choose from {', '.join(VARIANTS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    results = {name: found for name in VARIANTS if (found := finished(name, options.output)) is not None}
    for name in options.variants or VARIANTS:
        if name not in results:
            results[name] = run(name, VARIANTS[name], options.data, options.output)
        print(name, {key: value for key, value in results[name].items() if key != "variant"}, flush=True)
        for path in filter(None, (options.output / "search.json", options.json)):
            write_json(path, {name: results[name] for name in VARIANTS if name in results})


if __name__ == "__main__":
    main()
