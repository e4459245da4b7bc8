"""What every structural network must hold: symmetries of the energy, smoothness, batching, reduction."""

import numpy as np
import pytest
import torch

from opengnome.crystals import Crystal, supercell
from opengnome.graphs import OrbitBatch, batch_of, orbit_graph
from opengnome.models import AnyModelSettings, PaperSettings, StructuralModel, StructuralSettings, make_network
from opengnome.models.constants import Constants

CONSTANTS = Constants(mean_neighbours=17.0, shift=-1.2, scale=0.9)
CONFIGURATIONS = {
    "default": StructuralSettings(width=24, edge_width=16, layers=3),
    "paper": PaperSettings(embedding=16, mlp_widths=(24,)),
    "paper-smooth": PaperSettings(embedding=16, mlp_widths=(24, 12), residual=True, smooth_cutoff=True, steps=2),
}
SMOOTH = ("default", "paper-smooth")


def make_model(settings: AnyModelSettings, seed: int = 0) -> StructuralModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_network(settings, CONSTANTS)
        for parameter in model.parameters():  # biases and betas away from their special initial values
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def batch(model: StructuralModel, *crystals: Crystal, reduce: bool = True) -> OrbitBatch:
    return batch_of([orbit_graph(c, cutoff=model.settings.cutoff, reduce=reduce) for c in crystals])


def energies(model: StructuralModel, *crystals: Crystal, reduce: bool = True) -> np.ndarray:
    with torch.inference_mode():
        return model(batch(model, *crystals, reduce=reduce)).double().numpy()


@pytest.fixture(params=CONFIGURATIONS)
def model(request: pytest.FixtureRequest) -> StructuralModel:
    return make_model(CONFIGURATIONS[request.param])


@pytest.fixture
def distorted(perovskite: Crystal) -> Crystal:
    """A perovskite without any symmetry, so that nothing cancels."""
    rng = np.random.default_rng(3)
    return Crystal(
        perovskite.lattice + rng.normal(0, 0.15, (3, 3)),
        perovskite.frac_coords + rng.normal(0, 0.03, (5, 3)),
        perovskite.atomic_numbers,
    )


def test_rotation_translation_permutation(model: StructuralModel, distorted: Crystal):
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(distorted.n_atoms)
    same = [
        Crystal(distorted.lattice @ rotation, distorted.frac_coords, distorted.atomic_numbers),
        Crystal(distorted.lattice, distorted.frac_coords + rng.uniform(-2, 2, 3), distorted.atomic_numbers),
        Crystal(distorted.lattice, distorted.frac_coords[order], distorted.atomic_numbers[order]),
    ]
    np.testing.assert_allclose(energies(model, *same), energies(model, distorted)[0], rtol=1e-5, atol=2e-5)


def test_supercell_and_choice_of_cell(model: StructuralModel, distorted: Crystal):
    unimodular = np.array([[1, 0, 0], [1, 1, 0], [-1, 2, 1]])
    other_cell = Crystal(
        unimodular @ distorted.lattice,
        distorted.frac_coords @ np.linalg.inv(unimodular),
        distorted.atomic_numbers,
    )
    same = [supercell(distorted, (2, 1, 3)), other_cell]
    np.testing.assert_allclose(energies(model, *same), energies(model, distorted)[0], rtol=1e-5, atol=2e-5)


def test_reduction_by_symmetry_changes_nothing(model: StructuralModel, perovskite: Crystal, rock_salt: Crystal):
    crystals = [perovskite, rock_salt, supercell(perovskite, (1, 2, 1)), supercell(rock_salt, (2, 2, 2))]
    reduced, full = batch(model, *crystals), batch(model, *crystals, reduce=False)
    assert reduced.n_edges < 0.5 * full.n_edges
    np.testing.assert_allclose(energies(model, *crystals), energies(model, *crystals, reduce=False), atol=2e-5)


def test_reduction_gives_the_same_gradients(model: StructuralModel, perovskite: Crystal):
    parameters = list(model.parameters())
    of_reduced, of_full = (
        torch.autograd.grad(model(batch(model, perovskite, reduce=reduce)).sum(), parameters, allow_unused=True)
        for reduce in (True, False)
    )
    for a, b in zip(of_reduced, of_full, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_energy_depends_on_elements_and_distances(model: StructuralModel, distorted: Crystal, perovskite: Crystal):
    other_elements = Crystal(distorted.lattice, distorted.frac_coords, [56, 22, 8, 8, 8])
    swapped = Crystal(distorted.lattice, distorted.frac_coords, distorted.atomic_numbers[::-1])
    values = energies(model, distorted, perovskite, other_elements, swapped)
    assert np.abs(np.subtract.outer(values, values)[np.triu_indices(4, 1)]).min() > 2e-5


def test_batch_equals_single(model: StructuralModel, distorted: Crystal, rock_salt: Crystal):
    lonely = Crystal(np.eye(3) * 20.0, np.zeros((1, 3)), np.array([2]))
    copper = Crystal(3.61 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), np.zeros((1, 3)), np.array([29]))
    crystals = [lonely, distorted, copper, rock_salt, lonely]
    singles = [energies(model, crystal)[0] for crystal in crystals]
    assert np.isfinite(singles).all()
    np.testing.assert_allclose(energies(model, *crystals), singles, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_energy_across_the_cutoff(name: str):
    model = make_model(CONFIGURATIONS[name])
    cutoff = model.settings.cutoff

    def pair(distance: float) -> Crystal:
        return Crystal(np.eye(3) * 20.0, np.array([[0, 0, 0], [distance / 20.0, 0, 0]]), np.array([3, 9]))

    below, above = energies(model, pair(cutoff - 1e-4), pair(cutoff + 1e-4))
    step = abs(below - above)
    assert step < 1e-5 if name in SMOOTH else step > 1e-3


@pytest.mark.parametrize("name", SMOOTH)
def test_energy_is_smooth_while_an_atom_moves(name: str, perovskite: Crystal):
    """Second differences stay small, also where symmetry is lost and edges come and go."""
    model = make_model(CONFIGURATIONS[name])
    moved = []
    for x in np.linspace(0.0, 0.2, 81):
        frac = perovskite.frac_coords.copy()
        frac[1] += [x, 0.4 * x, 0.0]
        moved.append(Crystal(perovskite.lattice, frac, perovskite.atomic_numbers))
    values = energies(model, *moved)
    assert np.ptp(values) > 3e-4
    assert np.abs(np.diff(values, 2)).max() < 0.02 * np.ptp(values)


def test_constants_scale_and_shift_the_output(model: StructuralModel, distorted: Crystal):
    graphs = batch(model, distorted)
    with torch.inference_mode():
        torch.testing.assert_close(model(graphs), model.standardised(graphs) * 0.9 - 1.2)
    assert model.constants.scale == pytest.approx(0.9)


def test_bfloat16_stays_close(model: StructuralModel, distorted: Crystal, rock_salt: Crystal):
    graphs = batch(model, distorted, rock_salt)
    with torch.inference_mode():
        exact = model(graphs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(graphs)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.05)
