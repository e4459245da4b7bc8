"""The structural network that is used by default: distances and elements to formation energy per atom.

Message passing within the family of the paper's network (doi:10.1038/s41586-023-06735-9), changed where it
paid in short trials (`docs/models.md`, `benchmarks/search.py`). One layer updates

    m' = swish(A h_i + B h_j + C b(d) + D m)                            messages, one per edge
    h' = h + MLP[h, O sum of count f(d) m' / z]                         nodes

and the energy per atom is the mean of MLP(h) over the atoms.

| symbol | variable | what |
| --- | --- | --- |
| h, m | `nodes`, `messages` | features of orbits of atoms, and of edges |
| b, f | `basis`, `envelope` | Gaussian features of the distance; a cosine that falls to zero at the cutoff |
| z | `mean_neighbours` | mean number of neighbours in the training set |

Against the paper's network: residual nodes, messages that fade at the cutoff (the energy is continuous in the
positions), no global vector (the mean over atoms of a node readout takes its place, and the energy is exactly
extensive), and edge networks of one layer: the product with the last layer of the message is taken after the sum,
so an edge costs two small matrix products.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from pydantic import Field
from torch import Tensor, nn

from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.graphs import OrbitBatch, segment_sum
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM
from opengnome.models.constants import Constants
from opengnome.models.energy_network import EnergyNetwork
from opengnome.settings import Settings

_FIRST_CENTRE = 0.8
"""First centre of the basis, A; only hydrogen molecules are shorter."""
_SMALLEST_EXPONENT = -27.0
"""Features below the exponential of this, 2e-12, are zero: denormal numbers make matrix products slower."""


class StructuralSettings(Settings):
    """Size and form of the default structural network."""

    configuration: Literal["default"] = "default"
    """Names this network in a settings file."""
    width: int = Field(default=128, ge=1)
    """Features of a node."""
    edge_width: int = Field(default=128, ge=1)
    """Features of a message."""
    layers: int = Field(default=5, ge=1)
    """Steps of message passing."""
    n_basis: int = Field(default=32, ge=2)
    """Gaussians on the distance."""
    cutoff: float = Field(default=4.0, gt=_FIRST_CENTRE)
    """Atoms closer than this (A) are joined by an edge."""
    max_neighbours_per_atom: float = Field(default=MAX_NEIGHBOURS_PER_ATOM, gt=0)
    """Crystals with more neighbours per atom than this get no prediction."""


class GaussianBasis(nn.Module):
    """``exp(-(d - r)^2 / 2 s^2)`` at evenly spaced r up to the cutoff, s their spacing; (n,) -> (n, n_basis)."""

    centres: Tensor

    def __init__(self, n_basis: int, cutoff: float) -> None:
        super().__init__()
        self.width = (cutoff - _FIRST_CENTRE) / (n_basis - 1)
        self.register_buffer("centres", torch.linspace(_FIRST_CENTRE, cutoff, n_basis), persistent=False)

    def forward(self, distances: Tensor) -> Tensor:
        exponents = -0.5 * ((distances[:, None] - self.centres) / self.width) ** 2
        # an exponential that underflows takes six times as long as one that does not
        features = torch.exp(exponents.clamp(min=_SMALLEST_EXPONENT))
        return torch.where(exponents > _SMALLEST_EXPONENT, features, 0.0)


class Layer(nn.Module):
    """One step of message passing."""

    def __init__(self, settings: StructuralSettings, *, first: bool) -> None:
        super().__init__()
        width, edge_width = settings.width, settings.edge_width
        self.of_nodes = nn.Linear(width, 2 * edge_width)  # A and B
        self.of_distances = nn.Linear(settings.n_basis, edge_width, bias=False)  # C
        self.of_messages = None if first else nn.Linear(edge_width, edge_width, bias=False)  # D
        self.out = nn.Linear(edge_width, width)  # O
        self.update = _perceptron(2 * width, 2 * width, width)

    def forward(
        self, graphs: OrbitBatch, nodes: Tensor, messages: Tensor | None, basis: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New nodes (n_nodes, width) and messages (n_edges, edge_width); `weights` (n_edges, 1) go into the sum."""
        of_senders, of_receivers = self.of_nodes(nodes).chunk(2, dim=1)
        hidden = of_senders.index_select(0, graphs.senders) + of_receivers.index_select(0, graphs.receivers)
        hidden = torch.addmm(hidden, basis, self.of_distances.weight.T)
        if self.of_messages is not None and messages is not None:
            hidden = torch.addmm(hidden, messages, self.of_messages.weight.T)
        messages = F.silu(hidden)
        # sums are taken in full precision
        total = segment_sum(messages.float() * weights, graphs.senders, graphs.n_nodes)
        update = self.update(torch.cat([nodes, self.out(total)], dim=1))
        return nodes + update.float(), messages


class StructuralNetwork(EnergyNetwork):
    """Formation energy per atom of every crystal of a batch of graphs."""

    def __init__(self, settings: StructuralSettings, constants: Constants) -> None:
        super().__init__(constants)
        self.settings = settings
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, settings.width)
        self.basis = GaussianBasis(settings.n_basis, settings.cutoff)
        self.layers = nn.ModuleList(Layer(settings, first=step == 0) for step in range(settings.layers))
        self.readout = _perceptron(settings.width, settings.width, 1)

    def standardised(self, graphs: OrbitBatch) -> Tensor:
        """``(formation energy per atom - shift) / scale``, shape (n_graphs,)."""
        weights = (envelope(graphs.distances, self.settings.cutoff) * graphs.counts / self.mean_neighbours)[:, None]
        basis = self.basis(graphs.distances)
        nodes, messages = self.embedding(graphs.atomic_numbers), None
        for layer in self.layers:
            nodes, messages = layer(graphs, nodes, messages, basis, weights)
        with torch.autocast(nodes.device.type, enabled=False):  # rounding the energies would cost several meV/atom
            energies = self.readout(nodes.float()).squeeze(-1)  # of one atom of each orbit
        return segment_sum(energies * graphs.shares, graphs.graph_of_node, graphs.n_graphs)


def envelope(distances: Tensor, cutoff: float) -> Tensor:
    """Cosine from one at distance zero to zero, with zero slope, at the cutoff and beyond; shape as given."""
    return 0.5 * (torch.cos(math.pi * distances.clamp(max=cutoff) / cutoff) + 1.0)


def _perceptron(n_inputs: int, n_hidden: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_outputs))
