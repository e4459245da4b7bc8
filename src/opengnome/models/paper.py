"""The structural network of the paper, faithfully: a graph network from a crystal to its formation energy per atom.

The network of Merchant et al., "Scaling deep learning for materials discovery", Nature 624, 80 (2023),
doi:10.1038/s41586-023-06735-9, with the details of the released code. One block updates

    e' = MLP_e[e, v_sender, v_receiver, u]                              edges
    v' = MLP_v[v, sum of sent e' / z, sum of received e' / z, u]        nodes
    u' = MLP_u[mean of v', sum of e' / (z n), u]                        globals

| symbol | variable | what |
| --- | --- | --- |
| e, v, u | `edges`, `nodes`, `globals_` | edge, node and global features |
| z | `mean_neighbours` | mean number of neighbours in the training set |
| n | `node_counts` | atoms of the crystal |

``steps`` blocks; the last MLP_u ends in width 1. Linear layers that meet without a nonlinearity between
them are multiplied first (`LinearImage`): the same function with a fifth of the multiplications per edge.

It sees a crystal reduced by symmetry (`graphs.orbits`): every sum over neighbours and atoms is a sum over
orbits with counts, which gives the same energy. Beyond the paper are only options that are off by default:
``smooth_cutoff`` (e' fades to zero at the cutoff in both sums) and ``residual``.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from pydantic import Field
from torch import Tensor, nn

from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.graphs import OrbitBatch, gaussian_features, segment_sum
from opengnome.graphs.features import N_GAUSSIANS
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM
from opengnome.models.constants import Constants
from opengnome.models.energy_network import EnergyNetwork
from opengnome.models.structural import envelope
from opengnome.settings import Settings

_HIDDEN_GAIN = 2.75**0.5
"""Gain of the orthogonal initialisation of hidden layers (keeps the variance through swish)."""


class PaperSettings(Settings):
    """Size and form of the paper's network."""

    configuration: Literal["paper"] = "paper"
    """Names this network in a settings file."""
    embedding: int = Field(default=256, ge=1)
    """Width of node, edge and global features; 256 in the paper."""
    mlp_widths: tuple[int, ...] = Field(default=(256,), min_length=1)
    """Widths of the hidden layers of every MLP; the paper says only that they are shallow."""
    steps: int = Field(default=3, ge=1)
    """Number of blocks, the readout block included; 3 in the paper."""
    cutoff: float = Field(default=4.0, gt=0)
    """Atoms closer than this (A) are joined by an edge; 4 in the paper."""
    residual: bool = False
    """Add the input of a block to its output; not in the paper."""
    smooth_cutoff: bool = False
    """Let messages fade to zero at the cutoff, so that the energy is continuous in the positions; not in the
    paper."""
    max_neighbours_per_atom: float = Field(default=MAX_NEIGHBOURS_PER_ATOM, gt=0)
    """Crystals with more neighbours per atom than this get no prediction."""


class Swish(nn.Module):
    """``x * sigmoid(beta * x)`` with one learned beta per feature, initially 1."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(n_features))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class Perceptron(nn.Module):
    """Linear layers with swish between them; none after the last."""

    def __init__(self, n_inputs: int, hidden_widths: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        widths = (n_inputs, *hidden_widths)
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.hidden = nn.ModuleList(layers)
        self.swish = nn.ModuleList(Swish(width) for width in hidden_widths)
        self.last = nn.Linear(widths[-1], n_outputs)
        for layer in layers:
            nn.init.orthogonal_(layer.weight, gain=_HIDDEN_GAIN)
            nn.init.zeros_(layer.bias)
        _fan_in_normal(self.last)

    @property
    def first(self) -> nn.Linear:
        layer = self.hidden[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def after_first(self, x: Tensor) -> Tensor:
        """Last hidden activations from the output of the first linear layer."""
        x = self.swish[0](x)
        for layer, swish in zip(self.hidden[1:], self.swish[1:], strict=True):
            x = swish(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.after_first(self.first(x)))


@dataclass(frozen=True)
class LinearImage:
    """Edge features ``values @ weight.T + bias`` that are not multiplied out.

    What follows is linear (the next layer, a sum over edges), so the product is taken with the small
    matrices or after the sum, never once per edge.
    """

    values: Tensor  # (n_edges, n_hidden)
    weight: Tensor  # (embedding, n_hidden)
    bias: Tensor  # (embedding,)


class Block(nn.Module):
    """One step of message passing: edges, then nodes, then globals."""

    def __init__(self, settings: PaperSettings, *, n_outputs: int) -> None:
        super().__init__()
        width, hidden = settings.embedding, settings.mlp_widths
        self.residual = settings.residual
        self.edge_mlp = Perceptron(4 * width, hidden, width)
        self.node_mlp = Perceptron(4 * width, hidden, width)
        self.global_mlp = Perceptron(3 * width, hidden, n_outputs)

    def forward(
        self,
        graphs: OrbitBatch,
        edges: tuple[LinearImage, ...],
        nodes: Tensor,
        globals_: Tensor,
        *,
        edge_weights: Tensor,
        mean_neighbours: Tensor,
    ) -> tuple[tuple[LinearImage, ...], Tensor, Tensor]:
        """Updated edges (a sum of linear images), nodes (n_nodes, w) and globals (n_graphs, w or 1)."""
        hidden = self.edge_mlp.after_first(self._first_edge_layer(graphs, edges, nodes, globals_))
        last = self.edge_mlp.last
        messages = LinearImage(hidden, last.weight, last.bias)
        sent, received = (
            _aggregate(messages, ends, graphs.n_nodes, counts * edge_weights) / mean_neighbours
            for ends, counts in ((graphs.senders, graphs.counts), (graphs.receivers, graphs.receiver_counts))
        )
        update = self.node_mlp(torch.cat([nodes, sent, received, globals_[graphs.graph_of_node]], dim=1))
        new_nodes = nodes + update if self.residual else update
        mean_nodes, mean_edges = (
            segment_sum(values.float() * graphs.shares[:, None], graphs.graph_of_node, graphs.n_graphs)
            for values in (new_nodes, sent)
        )
        with torch.autocast(nodes.device.type, enabled=False):  # rounding the energies would cost several meV/atom
            update = self.global_mlp(torch.cat([mean_nodes, mean_edges, globals_.float()], dim=1))
        keep_global = self.residual and update.shape == globals_.shape
        new_globals = globals_ + update if keep_global else update
        return (*edges, messages) if self.residual else (messages,), new_nodes, new_globals

    def _first_edge_layer(
        self, graphs: OrbitBatch, edges: tuple[LinearImage, ...], nodes: Tensor, globals_: Tensor
    ) -> Tensor:
        """``W [e, v_sender, v_receiver, u] + b`` with each product taken where it is cheapest."""
        first = self.edge_mlp.first
        w_edge, w_sender, w_receiver, w_global = first.weight.chunk(4, dim=1)
        bias = first.bias + sum(F.linear(image.bias, w_edge) for image in edges)
        per_graph = F.linear(globals_, w_global, bias)  # (n_graphs, hidden)
        of_sender = F.linear(nodes, w_sender) + per_graph[graphs.graph_of_node]  # (n_nodes, hidden)
        of_receiver = F.linear(nodes, w_receiver)
        out = of_sender[graphs.senders] + of_receiver[graphs.receivers]  # (n_edges, hidden)
        for image in edges:
            out = out + F.linear(image.values, w_edge @ image.weight)
        return out


class PaperNetwork(EnergyNetwork):
    """Formation energy per atom of every crystal of a batch of graphs."""

    def __init__(self, settings: PaperSettings, constants: Constants) -> None:
        super().__init__(constants)
        self.settings = settings
        width = settings.embedding
        self.node_embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, width)
        self.edge_embedding = nn.Linear(N_GAUSSIANS, width)
        self.global_embedding = nn.Parameter(torch.zeros(width))  # a linear layer on the input zero
        self.blocks = nn.ModuleList(
            Block(settings, n_outputs=1 if step == settings.steps - 1 else width) for step in range(settings.steps)
        )
        _fan_in_normal(self.edge_embedding)

    def standardised(self, graphs: OrbitBatch) -> Tensor:
        """``(formation energy per atom - shift) / scale``, shape (n_graphs,)."""
        lengths = graphs.distances
        embedding = self.edge_embedding
        edges = (LinearImage(gaussian_features(lengths), embedding.weight, embedding.bias),)
        nodes = self.node_embedding(graphs.atomic_numbers)
        globals_ = self.global_embedding.expand(graphs.n_graphs, -1)
        smooth = self.settings.smooth_cutoff
        edge_weights = envelope(lengths, self.settings.cutoff) if smooth else torch.ones_like(lengths)
        for block in self.blocks:
            edges, nodes, globals_ = block(
                graphs,
                edges,
                nodes,
                globals_,
                edge_weights=edge_weights,
                mean_neighbours=self.mean_neighbours,
            )
        return globals_.squeeze(-1)


def _aggregate(messages: LinearImage, index: Tensor, n_nodes: int, weights: Tensor) -> Tensor:
    """Weighted sum of the messages of each node, (n_nodes, embedding): summed first, multiplied after."""
    values = messages.values.float() * weights[:, None]  # sums are taken in full precision
    counts = segment_sum(weights, index, n_nodes)
    return F.linear(segment_sum(values, index, n_nodes), messages.weight) + counts[:, None] * messages.bias


def _fan_in_normal(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)
