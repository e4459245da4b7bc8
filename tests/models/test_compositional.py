"""Compositional network: what it may depend on, and that it learns."""

import numpy as np
import pytest
import torch
from torch import Tensor

from opengnome.crystals import Composition
from opengnome.models.compositional import (
    CompositionalModel,
    CompositionalSettings,
    CompositionBatch,
    CompositionDataset,
    composition_batch,
)
from opengnome.models.constants import Constants

SMALL = CompositionalSettings(width=16, edge_width=8, layers=2, heads=2, dropout=0.0)
FORMULAS = ("SiO2", "LiFePO4", "Na", "Ca3(PO4)2", "BaTiO3")


def make_model(settings: CompositionalSettings = SMALL, *, seed: int = 0) -> CompositionalModel:
    """Random weights everywhere, also where training starts from zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CompositionalModel(settings, Constants(1.0, -1.4, 1.1)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "gate" in name:
                    parameter.normal_(std=0.5)
    return model


def compositions(*formulas: str) -> list[Composition]:
    return [Composition.from_formula(formula) for formula in formulas]


def energies(model: CompositionalModel, *formulas: str) -> Tensor:
    with torch.inference_mode():
        return model(composition_batch(compositions(*formulas)))[0]


def test_fractions_of_silica() -> None:
    batch = composition_batch(compositions("SiO2"))
    assert batch.atomic_numbers.tolist() == [8, 14]
    torch.testing.assert_close(batch.fractions, torch.tensor([2 / 3, 1 / 3]))
    assert batch.composition_of_node.tolist() == [0, 0]


def test_pairs_are_all_ordered_pairs_within_a_composition() -> None:
    batch = composition_batch(compositions("NaCl", "Na", "CaTiO3"))
    pairs = set(zip(batch.receivers.tolist(), batch.senders.tolist(), strict=True))
    groups = ([0, 1], [2], [3, 4, 5])
    assert pairs == {(i, j) for group in groups for i in group for j in group}
    assert len(batch.receivers) == len(pairs) == 4 + 1 + 9


def test_dataset_gives_any_rows_in_any_order() -> None:
    dataset = CompositionDataset(compositions(*FORMULAS))
    batch = dataset.batch(np.array([3, 0, 3]))
    expected = composition_batch(compositions(FORMULAS[3], FORMULAS[0], FORMULAS[3]))
    for name in ("atomic_numbers", "fractions", "composition_of_node", "receivers", "senders"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    assert batch.n_compositions == 3
    assert len(dataset) == len(FORMULAS)
    assert dataset.sizes.tolist() == [4, 16, 1, 9, 9]


def test_multiples_of_a_formula_have_one_energy() -> None:
    model = make_model()
    doubled = composition_batch([Composition.from_counts({14: 2, 8: 4})])
    torch.testing.assert_close(model(doubled)[0], energies(model, "SiO2"), rtol=0, atol=1e-6)


def test_order_of_elements_does_not_matter() -> None:
    model = make_model()
    batch = composition_batch(compositions("LiFePO4"))
    order = torch.tensor([2, 0, 3, 1])
    place = torch.argsort(order)
    shuffled = CompositionBatch(
        batch.atomic_numbers[order],
        batch.fractions[order],
        batch.composition_of_node,
        place[batch.receivers],
        place[batch.senders],
        1,
    )
    for a, b in zip(model(shuffled), model(batch), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_company_in_the_batch_does_not_matter() -> None:
    model = make_model()
    alone = torch.cat([energies(model, formula) for formula in FORMULAS])
    torch.testing.assert_close(energies(model, *FORMULAS), alone, rtol=0, atol=1e-5)
    assert len(set(alone.tolist())) == len(FORMULAS)


def test_an_element_of_vanishing_fraction_has_a_vanishing_say() -> None:
    """Only the features of its own node see it; all sums are weighted with fractions."""
    model = make_model()
    pure = energies(model, "Cu")
    changes = [abs(float(energies(model, f"Cu{n}Au") - pure)) for n in (9, 999, 99999)]
    assert changes[0] > changes[1] > changes[2]
    assert changes[2] < 1e-3


def influence_of_partner(settings: CompositionalSettings) -> float:
    """How much another partner changes the first node of a salt in the first layer, before the globals meet."""
    model = make_model(settings)
    first = model.layers[0]
    seen = []
    for formula in ("NaCl", "NaBr"):
        batch = composition_batch(compositions(formula))
        nodes = model._elements(batch)
        globals_ = nodes.new_zeros(1, settings.width)
        with torch.inference_mode():
            seen.append(first(batch, nodes, globals_)[0][0])  # of sodium
    return float((seen[0] - seen[1]).abs().max())


def test_without_pair_messages_elements_meet_in_the_global_vector_only() -> None:
    ablation = SMALL.model_copy(update={"pair_messages": False})
    assert influence_of_partner(SMALL) > 1e-3
    assert influence_of_partner(ablation) == 0.0
    assert not any("listen" in name or "of_nodes" in name for name, _ in make_model(ablation).named_parameters())


def test_the_ablation_still_sees_both_elements_through_the_global_vector() -> None:
    model = make_model(SMALL.model_copy(update={"pair_messages": False}))
    a, b, c, d = energies(model, "NaCl", "NaBr", "KCl", "KBr").tolist()
    assert abs(a - b - c + d) > 1e-6  # not a sum of terms of one element each


def test_gradients_reach_every_parameter() -> None:
    model = make_model().train()
    energy, scale = model(composition_batch(compositions(*FORMULAS)))
    (energy.sum() + scale.log().sum()).backward()
    embedding = model.embedding.weight.grad
    assert embedding is not None
    assert embedding[8].abs().max() > 0
    assert embedding[79].abs().max() == 0  # no gold in the batch
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    zero = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() == 0}
    of_globals = {"layers.0.update.inputs.2.weight", "layers.0.global_update.inputs.1.weight"}
    assert zero == of_globals  # the first globals are zero, what multiplies them learns nothing


def test_constants_shift_and_scale_the_energy() -> None:
    model = make_model()
    batch = composition_batch(compositions(*FORMULAS))
    location, log_scale = model.standardised(batch).unbind(dim=1)
    energy, scale = model(batch)
    torch.testing.assert_close(energy, 1.1 * location - 1.4)
    torch.testing.assert_close(scale, 1.1 * log_scale.exp())


def test_bfloat16_is_close() -> None:
    model = make_model()
    batch = composition_batch(compositions(*FORMULAS))
    with torch.autocast("cpu", torch.bfloat16):
        energy, scale = model(batch)
    assert energy.dtype == scale.dtype == torch.float32
    torch.testing.assert_close(energy, model(batch)[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("pair_messages", [True, False])
def test_learns_a_small_function(pair_messages: bool) -> None:
    """Energy of mixing x_A x_B with a sign per pair, and a wider error where boron is in it."""
    rng = np.random.default_rng(0)
    settings = SMALL.model_copy(update={"pair_messages": pair_messages})
    elements = np.array([3, 5, 8, 9])
    made, targets = [], []
    for _ in range(256):
        a, b = rng.choice(elements, 2, replace=False)
        n_a, n_b = rng.integers(1, 6, 2)
        x = n_a / (n_a + n_b)
        noise = 0.3 if 5 in (a, b) else 0.0
        made.append(Composition.from_counts({int(a): int(n_a), int(b): int(n_b)}))
        targets.append(4 * x * (1 - x) * (1 if (a + b) % 2 else -1) + noise * rng.laplace())
    dataset, target = CompositionDataset(made), torch.tensor(targets, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = CompositionalModel(settings, Constants(1.0, float(target.mean()), float(target.std())))
    optimiser = torch.optim.Adam(model.parameters(), lr=7e-3)
    batch = dataset.batch(np.arange(len(dataset)))
    for _ in range(100):
        energy, scale = model(batch)
        loss = ((energy - target).abs() / scale + scale.log()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.inference_mode():
        energy, scale = model(batch)
    noisy = torch.tensor([5 in composition.atomic_numbers for composition in made])
    assert float((energy - target)[~noisy].abs().mean()) < 0.1
    assert float(scale[noisy].median()) > 2 * float(scale[~noisy].median())
