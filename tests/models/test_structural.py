"""The structural network: symmetries, batching, and equality with the formulas written out plainly."""

import numpy as np
import pytest
import torch
from torch import Tensor

from opengnome.crystals import Crystal, supercell
from opengnome.graphs import GraphBatch, build_batch, distances, gaussian_features
from opengnome.models.structural import Block, Constants, ModelSettings, StructuralModel

CONSTANTS = Constants(mean_neighbours=17.0, shift=-1.2, scale=0.9)
VARIANTS = [
    ModelSettings(embedding=16, mlp_widths=(24,), smooth_cutoff=False),
    ModelSettings(embedding=16, mlp_widths=(24, 12), residual=True, smooth_cutoff=True, steps=2),
]


def make_model(settings: ModelSettings, seed: int = 0) -> StructuralModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StructuralModel(settings, CONSTANTS)
        for parameter in model.parameters():  # biases and betas away from their special initial values
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def energies(model: StructuralModel, *crystals: Crystal) -> np.ndarray:
    with torch.inference_mode():
        return model(build_batch(crystals, cutoff=model.settings.cutoff)).double().numpy()


@pytest.fixture(params=VARIANTS, ids=["paper", "residual"])
def model(request: pytest.FixtureRequest) -> StructuralModel:
    return make_model(request.param)


@pytest.fixture
def distorted(perovskite: Crystal) -> Crystal:
    """A perovskite without any symmetry, so that nothing cancels."""
    rng = np.random.default_rng(3)
    return Crystal(
        perovskite.lattice + rng.normal(0, 0.15, (3, 3)),
        perovskite.frac_coords + rng.normal(0, 0.03, (5, 3)),
        perovskite.atomic_numbers,
    )


def plain_mlp(mlp: torch.nn.Module, x: Tensor) -> Tensor:
    for layer, swish in zip(mlp.hidden, mlp.swish, strict=True):
        x = layer(x)
        x = x * torch.sigmoid(swish.beta * x)
    return mlp.last(x)


def plain_network(model: StructuralModel, graphs: GraphBatch) -> Tensor:
    """The docstring of the module, edge by edge, with full concatenation and no product saved."""
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


def test_equals_the_formulas_written_out(model: StructuralModel, distorted: Crystal, rock_salt: Crystal):
    graphs = build_batch([distorted, rock_salt], cutoff=4.0)
    with torch.no_grad():
        torch.testing.assert_close(model(graphs), plain_network(model, graphs), rtol=1e-5, atol=1e-5)


def test_saved_products_give_the_same_gradients(model: StructuralModel, distorted: Crystal):
    graphs = build_batch([distorted], cutoff=4.0)
    parameters = list(model.parameters())
    fast = torch.autograd.grad(model(graphs).sum(), parameters)
    plain = torch.autograd.grad(plain_network(model, graphs).sum(), parameters)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_rotation_translation_permutation(model: StructuralModel, distorted: Crystal):
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(distorted.n_atoms)
    same = [
        Crystal(distorted.lattice @ rotation, distorted.frac_coords, distorted.atomic_numbers),
        Crystal(distorted.lattice, distorted.frac_coords + rng.uniform(-2, 2, 3), distorted.atomic_numbers),
        Crystal(distorted.lattice, distorted.frac_coords[order], distorted.atomic_numbers[order]),
    ]
    np.testing.assert_allclose(energies(model, *same), energies(model, distorted)[0], atol=2e-5)


def test_supercell_and_choice_of_cell(model: StructuralModel, distorted: Crystal):
    unimodular = np.array([[1, 0, 0], [1, 1, 0], [-1, 2, 1]])
    other_cell = Crystal(
        unimodular @ distorted.lattice,
        distorted.frac_coords @ np.linalg.inv(unimodular),
        distorted.atomic_numbers,
    )
    same = [supercell(distorted, (2, 1, 3)), other_cell]
    np.testing.assert_allclose(energies(model, *same), energies(model, distorted)[0], atol=2e-5)


def test_energy_depends_on_elements_distances_and_angles_of_the_graph(
    model: StructuralModel, distorted: Crystal, perovskite: Crystal
):
    other_elements = Crystal(distorted.lattice, distorted.frac_coords, [56, 22, 8, 8, 8])
    swapped = Crystal(distorted.lattice, distorted.frac_coords, distorted.atomic_numbers[::-1])
    values = energies(model, distorted, perovskite, other_elements, swapped)
    assert np.abs(np.subtract.outer(values, values)[np.triu_indices(4, 1)]).min() > 1e-4


def test_batch_equals_single(model: StructuralModel, distorted: Crystal, rock_salt: Crystal):
    lonely = Crystal(np.eye(3) * 20.0, np.zeros((1, 3)), np.array([2]))
    copper = Crystal(3.61 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), np.zeros((1, 3)), np.array([29]))
    crystals = [lonely, distorted, copper, rock_salt, lonely]
    singles = [energies(model, crystal)[0] for crystal in crystals]
    assert np.isfinite(singles).all()
    np.testing.assert_allclose(energies(model, *crystals), singles, atol=1e-5)


def test_smooth_cutoff_removes_the_step_at_the_cutoff():
    def pair(distance: float) -> Crystal:
        return Crystal(np.eye(3) * 20.0, np.array([[0, 0, 0], [distance / 20.0, 0, 0]]), np.array([3, 9]))

    steps = {}
    for smooth in (False, True):
        model = make_model(ModelSettings(embedding=16, mlp_widths=(24,), smooth_cutoff=smooth))
        below, above = energies(model, pair(3.9999), pair(4.0001))
        steps[smooth] = abs(below - above)
    assert steps[False] > 1e-3
    assert steps[True] < 1e-5


def test_constants_scale_and_shift_the_output(distorted: Crystal):
    settings = VARIANTS[0]
    model = make_model(settings)
    graphs = build_batch([distorted], cutoff=4.0)
    with torch.inference_mode():
        expected = model.standardised(graphs) * 0.9 - 1.2
        torch.testing.assert_close(model(graphs), expected)


def test_initial_weights_are_those_of_the_released_code():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(ModelSettings(embedding=64, mlp_widths=(64,)), n_outputs=64)
    weight = block.edge_mlp.first.weight  # (64, 256): orthonormal rows times the gain
    torch.testing.assert_close(weight @ weight.T, 2.75 * torch.eye(64), atol=1e-4, rtol=0)
    assert block.edge_mlp.last.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert (block.edge_mlp.swish[0].beta == 1).all()
