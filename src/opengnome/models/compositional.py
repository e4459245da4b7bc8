"""The compositional network: which elements, in which proportion, to formation energy per atom.

Of the lowest-energy crystal of a composition, without its structure; with it, how sure the network is. The
family is that of the paper (doi:10.1038/s41586-023-06735-9): one node per element, its embedding multiplied by
its atomic fraction, messages between all pairs of elements, a global vector. One layer updates

    m  = swish(A h_i + B h_j)                                   messages, one per ordered pair
    a  = x_j exp(g m) / sum over j                              how much i listens to j, per head
    h' = h + MLP[h, sum over j of a m, u]                       nodes
    u' = u + MLP[sum of x h', u]                                globals

and the energy is an MLP of [sum of a h, u], a of the same form. A sum that is weighted with fractions does not
depend on how often the formula is written, and an element of vanishing fraction has a vanishing say (gated
pooling as in Roost, Goodall and Lee, doi:10.1038/s41467-020-19964-7). The errors have long tails: the two outputs
are location and logarithm of the scale of a Laplace distribution (Kendall and Gal, arXiv:1703.04977).

| symbol | variable | what |
| --- | --- | --- |
| x | `fractions` | atomic fractions |
| h, m, u | `nodes`, `messages`, `globals_` | features of elements, of pairs, of compositions |
| a, g | `shares`, `gate` | weights of a sum, and the linear map that gives them |

The released code of the paper has no messages between elements, they meet in the global vector only;
``pair_messages=False`` is that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from pydantic import Field, model_validator
from torch import Tensor, nn

from opengnome.crystals import Composition
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.graphs import segment_sum
from opengnome.models.constants import Constants
from opengnome.models.energy_network import EnergyNetwork
from opengnome.settings import Settings

_LARGEST_GATE = 10.0
"""Gates are kept within +- this, so that their exponentials are finite without a maximum per sum."""
_SMALLEST_LOG_SCALE, _LARGEST_LOG_SCALE = -6.0, 3.0
"""Bounds of the predicted logarithm of the scale: 3 meV/atom for targets that vary by 1 eV/atom."""
N_FRACTION_FEATURES = 16


class CompositionalSettings(Settings):
    """Size and form of the compositional network."""

    configuration: Literal["compositional"] = "compositional"
    """Names this network in a settings file."""
    width: int = Field(default=192, ge=1)
    """Features of an element and of the global vector."""
    edge_width: int = Field(default=96, ge=1)
    """Features of a message."""
    layers: int = Field(default=3, ge=1)
    """Steps of message passing."""
    heads: int = Field(default=4, ge=1)
    """Sums with weights of their own, per layer and in the readout; divides both widths."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the hidden features of node updates and readout that is left out in training."""
    pair_messages: bool = True
    """False: no messages between elements, as in the paper's released code."""

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> "CompositionalSettings":
        if self.width % self.heads or self.edge_width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width} and edge_width={self.edge_width}")
        return self


@dataclass(frozen=True)
class CompositionBatch:
    """Compositions as one graph: an element of a composition is a node, every ordered pair an edge."""

    atomic_numbers: Tensor
    """(n_nodes,) int64."""
    fractions: Tensor
    """Atomic fractions (n_nodes,); those of a composition sum to one."""
    composition_of_node: Tensor
    """(n_nodes,) int64, ascending."""
    receivers: Tensor
    """Node that gets the message, (n_pairs,) int64, ascending; an element is also paired with itself."""
    senders: Tensor
    """Node that the message comes from, (n_pairs,) int64."""
    n_compositions: int

    @property
    def n_nodes(self) -> int:
        return len(self.atomic_numbers)

    def to(self, device: torch.device | str) -> "CompositionBatch":
        """The same batch on a device."""
        return CompositionBatch(
            self.atomic_numbers.to(device),
            self.fractions.to(device),
            self.composition_of_node.to(device),
            self.receivers.to(device),
            self.senders.to(device),
            self.n_compositions,
        )


class CompositionDataset:
    """Compositions in flat arrays, from which batches are cut quickly."""

    def __init__(self, compositions: Sequence[Composition]) -> None:
        counts = np.array([len(c.counts) for c in compositions], dtype=np.int64)
        pairs = [pair for c in compositions for pair in c.counts]
        flat = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        self._n_elements = counts
        self._first = np.concatenate([[0], np.cumsum(counts)])[:-1]
        self._atomic_numbers = flat[:, 0]
        n_atoms = np.array([c.n_atoms for c in compositions], dtype=np.int64)
        self._fractions = (flat[:, 1] / np.repeat(n_atoms, counts)).astype(np.float32)

    def __len__(self) -> int:
        return len(self._n_elements)

    @property
    def sizes(self) -> np.ndarray:
        """Work per composition: its ordered pairs of elements, shape (n,)."""
        return self._n_elements**2

    def batch(self, rows: np.ndarray) -> CompositionBatch:
        """The compositions at `rows` (n,), in that order."""
        n_elements = self._n_elements[rows]
        within, composition_of_node = _ranges(n_elements)
        flat = np.repeat(self._first[rows], n_elements) + within
        partners = n_elements[composition_of_node]  # of each node
        first = np.arange(len(flat)) - within  # node 0 of the same composition
        other, receivers = _ranges(partners)
        return CompositionBatch(
            torch.from_numpy(self._atomic_numbers[flat]),
            torch.from_numpy(self._fractions[flat]),
            torch.from_numpy(composition_of_node),
            torch.from_numpy(receivers),
            torch.from_numpy(first[receivers] + other),
            len(rows),
        )


def composition_batch(compositions: Sequence[Composition]) -> CompositionBatch:
    """A batch of all `compositions`; `CompositionDataset` is faster for many batches of the same."""
    return CompositionDataset(compositions).batch(np.arange(len(compositions)))


def _ranges(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``0..l-1`` for every l of `lengths`, one after the other, and which l each belongs to."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths), owner


class WeightedSum(nn.Module):
    """Sum over the members of a group with weights ``fraction * exp(gate)``, normalised, one set per head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.gate = nn.Linear(width, heads, bias=False)  # a constant would cancel in the normalisation
        nn.init.zeros_(self.gate.weight)  # starts as the mean by fractions

    def forward(self, of: Tensor, values: Tensor, fractions: Tensor, group: Tensor, n_groups: int) -> Tensor:
        """Sums (n_groups, width) of `values` (n, width); gates are read from `of` (n, width)."""
        gates = self.gate(of).float().clamp(-_LARGEST_GATE, _LARGEST_GATE)
        shares = fractions[:, None] * torch.exp(gates)
        total = segment_sum(shares, group, n_groups)
        weighted = values.float().view(len(values), self.heads, -1) * shares[:, :, None]
        summed = segment_sum(weighted.view(len(values), -1), group, n_groups)
        return (summed.view(n_groups, self.heads, -1) / total[:, :, None]).view(n_groups, -1)


class Update(nn.Module):
    """An MLP with one hidden layer of several inputs, each of which has its own first matrix.

    What is the same for all elements of a composition is multiplied once per composition.
    """

    def __init__(self, n_inputs: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Linear(n, width, bias=row == 0) for row, n in enumerate(n_inputs))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, width)

    def forward(self, *inputs: Tensor, shared: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """New features (n, width), float32, of `inputs` (n, .); `shared` are rows and which one each uses."""
        hidden = self.inputs[0](inputs[0])
        for layer, values in zip(self.inputs[1:], inputs[1:]):
            hidden = hidden + layer(values)
        if shared is not None:
            rows, index = shared
            hidden = hidden + self.inputs[-1](rows).index_select(0, index)
        return self.last(self.dropout(F.silu(hidden))).float()


class Layer(nn.Module):
    """One step of message passing: messages, then nodes, then globals."""

    def __init__(self, settings: CompositionalSettings) -> None:
        super().__init__()
        width, edge_width = settings.width, settings.edge_width
        self.pair_messages = settings.pair_messages
        self.norm = nn.LayerNorm(width)
        if settings.pair_messages:
            self.of_nodes = nn.Linear(width, 2 * edge_width)  # A and B
            self.listen = WeightedSum(edge_width, settings.heads)
        self.update = Update((width, *([edge_width] if settings.pair_messages else []), width), width, settings.dropout)
        self.global_update = Update((width, width), width, settings.dropout)

    def forward(self, batch: CompositionBatch, nodes: Tensor, globals_: Tensor) -> tuple[Tensor, Tensor]:
        """New nodes (n_nodes, width) and globals (n_compositions, width)."""
        inputs = [self.norm(nodes)]
        if self.pair_messages:
            messages = self._messages(batch, inputs[0])
            sent = batch.fractions.index_select(0, batch.senders)
            inputs.append(self.listen(messages, messages, sent, batch.receivers, batch.n_nodes))
        nodes = nodes + self.update(*inputs, shared=(globals_, batch.composition_of_node))
        mean = segment_sum(nodes * batch.fractions[:, None], batch.composition_of_node, batch.n_compositions)
        return nodes, globals_ + self.global_update(mean, globals_)

    def _messages(self, batch: CompositionBatch, nodes: Tensor) -> Tensor:
        """One per ordered pair, (n_pairs, edge_width)."""
        of_receivers, of_senders = self.of_nodes(nodes).float().chunk(2, dim=1)
        return F.silu(of_receivers.index_select(0, batch.receivers) + of_senders.index_select(0, batch.senders))


class CompositionalModel(EnergyNetwork):
    """Formation energy per atom of the lowest-energy crystal of every composition of a batch."""

    def __init__(self, settings: CompositionalSettings, constants: Constants) -> None:
        super().__init__(constants)
        self.settings = settings
        width = settings.width
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, 2 * width)
        self.of_fractions = nn.Linear(N_FRACTION_FEATURES, width)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width)
        self.pool = WeightedSum(width, settings.heads)
        self.values = nn.Linear(width, width)
        self.hidden = Update((width, width), width, settings.dropout)
        self.readout = nn.Sequential(nn.SiLU(), nn.Linear(width, 2))

    def standardised(self, batch: CompositionBatch) -> Tensor:
        """``(formation energy per atom - shift) / scale`` and the logarithm of its scale, shape (n, 2)."""
        nodes = self._elements(batch)
        globals_ = nodes.new_zeros(batch.n_compositions, self.settings.width)
        for layer in self.layers:
            nodes, globals_ = layer(batch, nodes, globals_)
        nodes = self.norm(nodes)
        pooled = self.pool(nodes, self.values(nodes), batch.fractions, batch.composition_of_node, batch.n_compositions)
        hidden = pooled + self.hidden(pooled, globals_)
        location, log_scale = self.readout(hidden).float().unbind(dim=1)
        return torch.stack([location, log_scale.clamp(_SMALLEST_LOG_SCALE, _LARGEST_LOG_SCALE)], dim=1)

    def _elements(self, batch: CompositionBatch) -> Tensor:
        """First features (n_nodes, width): what the element is, and that times how much of it there is."""
        identity, amount = self.embedding(batch.atomic_numbers).chunk(2, dim=1)
        return (
            identity + amount * batch.fractions[:, None] + self.of_fractions(fraction_features(batch.fractions)).float()
        )

    def forward(self, batch: CompositionBatch) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Formation energies and the scales of their Laplace distributions, both (n,) in eV/atom."""
        location, log_scale = self.standardised(batch).unbind(dim=1)
        return self.scale * location + self.shift, self.scale * torch.exp(log_scale)


def fraction_features(fractions: Tensor) -> Tensor:
    """Gaussians on the fraction and on its logarithm; (n,) -> (n, `N_FRACTION_FEATURES`)."""
    half = N_FRACTION_FEATURES // 2
    centres = torch.linspace(0.0, 1.0, half, device=fractions.device)
    linear = torch.exp(-0.5 * ((fractions[:, None] - centres) * (half - 1)) ** 2)
    logarithms = 1.0 + torch.log(fractions.clamp(min=1e-3))[:, None] / 5.0
    logarithmic = torch.exp(-0.5 * ((logarithms - centres) * (half - 1)) ** 2)
    return torch.cat([linear, logarithmic], dim=1)
