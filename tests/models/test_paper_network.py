"""The paper's network: equality with its formulas written out plainly, and its initial weights."""

import pytest
import torch
from torch import Tensor

from opengnome.crystals import Crystal
from opengnome.graphs import GraphBatch, batch_of, build_batch, distances, gaussian_features, orbit_graph
from opengnome.models import PaperNetwork, PaperSettings
from opengnome.models.constants import Constants
from opengnome.models.paper import Block

CONSTANTS = Constants(mean_neighbours=17.0, shift=-1.2, scale=0.9)
VARIANTS = {
    "paper": PaperSettings(embedding=16, mlp_widths=(24,)),
    "residual": PaperSettings(embedding=16, mlp_widths=(24, 12), residual=True, smooth_cutoff=True, steps=2),
}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> PaperNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PaperNetwork(VARIANTS[request.param], CONSTANTS)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


def plain_mlp(mlp: torch.nn.Module, x: Tensor) -> Tensor:
    for layer, swish in zip(mlp.hidden, mlp.swish, strict=True):
        x = layer(x)
        x = x * torch.sigmoid(swish.beta * x)
    return mlp.last(x)


def plain_network(model: PaperNetwork, graphs: GraphBatch) -> Tensor:
    """The docstring of the module, atom by atom and edge by edge, with nothing reduced and no product saved."""
    settings, z = model.settings, model.mean_neighbours
    lengths = distances(graphs).float()
    e = model.edge_embedding(gaussian_features(lengths))
    v = model.node_embedding(graphs.atomic_numbers)
    u = model.global_embedding.expand(graphs.n_graphs, -1)
    weights = torch.ones_like(lengths)
    if settings.smooth_cutoff:
        weights = 0.5 * (torch.cos(torch.pi * lengths / settings.cutoff) + 1)
    for block in model.blocks:
        inputs = [e, v[graphs.senders], v[graphs.receivers], u[graphs.graph_of_edge]]
        message = plain_mlp(block.edge_mlp, torch.cat(inputs, dim=1))
        sent, received = torch.zeros_like(v), torch.zeros_like(v)
        for edge, (i, j) in enumerate(zip(graphs.senders, graphs.receivers, strict=True)):
            sent[i] += weights[edge] * message[edge] / z
            received[j] += weights[edge] * message[edge] / z
        update = plain_mlp(block.node_mlp, torch.cat([v, sent, received, u[graphs.graph_of_node]], dim=1))
        v = v + update if settings.residual else update
        means = []
        for graph in range(graphs.n_graphs):
            of_graph = graphs.graph_of_node == graph
            messages = (weights[:, None] * message)[graphs.graph_of_edge == graph].sum(0)
            means.append(torch.cat([v[of_graph].mean(0), messages / z / of_graph.sum(), u[graph]]))
        update = plain_mlp(block.global_mlp, torch.stack(means))
        e = e + message if settings.residual else message
        u = u + update if settings.residual and update.shape == u.shape else update
    return model.scale * u.squeeze(-1) + model.shift


@pytest.fixture
def crystals(perovskite: Crystal, rock_salt: Crystal) -> list[Crystal]:
    stretched = Crystal(perovskite.lattice * [[1.0], [1.0], [1.1]], perovskite.frac_coords, perovskite.atomic_numbers)
    return [stretched, rock_salt]


def test_equals_the_formulas_written_out(model: PaperNetwork, crystals: list[Crystal]):
    reduced = batch_of([orbit_graph(crystal, cutoff=4.0) for crystal in crystals])
    with torch.no_grad():
        expected = plain_network(model, build_batch(crystals, cutoff=4.0))
        torch.testing.assert_close(model(reduced), expected, rtol=1e-5, atol=1e-5)


def test_saved_products_give_the_same_gradients(model: PaperNetwork, crystals: list[Crystal]):
    parameters = list(model.parameters())
    fast = torch.autograd.grad(model(batch_of([orbit_graph(crystals[0], cutoff=4.0)])).sum(), parameters)
    plain = torch.autograd.grad(plain_network(model, build_batch(crystals[:1], cutoff=4.0)).sum(), parameters)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_defaults_are_those_of_the_paper():
    settings = PaperSettings()
    assert (settings.embedding, settings.steps, settings.cutoff) == (256, 3, 4.0)
    assert not settings.residual
    assert not settings.smooth_cutoff


def test_initial_weights_are_those_of_the_released_code():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(PaperSettings(embedding=64, mlp_widths=(64,)), n_outputs=64)
    weight = block.edge_mlp.first.weight  # (64, 256): orthonormal rows times the gain
    torch.testing.assert_close(weight @ weight.T, 2.75 * torch.eye(64), atol=1e-4, rtol=0)
    assert block.edge_mlp.last.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
