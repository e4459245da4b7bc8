"""Compositional ensembles: training through the shared loop, prediction, calibration, files."""

from pathlib import Path

import numpy as np
import pytest

from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import CheckpointError
from opengnome.models import (
    CompositionalEnsemble,
    CompositionalSettings,
    Ensemble,
    TrainingSettings,
    assemble_compositional,
    shipped_ensemble,
    train_compositional_member,
)

SMALL = CompositionalSettings(width=16, edge_width=16, layers=2, heads=2)
TRAINING = TrainingSettings(epochs=60, batch_size=20, learning_rate=5e-3, loss="laplace")


def made_up() -> tuple[list[Composition], np.ndarray, np.ndarray]:
    """Binaries whose energy is a product of two element properties."""
    compositions, targets = [], []
    for metal in range(3, 13):
        for anion in (8, 9, 16, 17, 34, 35):
            for count in (1, 2, 3):
                compositions.append(Composition.from_counts({metal: 1, anion: count} if metal != anion else {8: 2}))
                targets.append(-0.05 * metal * count / (1 + count) - 0.02 * anion / (1 + count))
    held_out = np.arange(len(targets)) % 4 == 0
    return compositions, np.array(targets), held_out


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    compositions, targets, held_out = made_up()
    folder = tmp_path_factory.mktemp("compositional")
    paths = [folder / f"{seed}.safetensors" for seed in range(2)]
    for seed, path in enumerate(paths):
        train_compositional_member(
            compositions, targets, held_out=held_out, model=SMALL, training=TRAINING, seed=seed, path=path
        )
    return paths


def assembled(members: list[Path], folder: Path) -> CompositionalEnsemble:
    compositions, targets, held_out = made_up()
    judged = [c for c, held in zip(compositions, held_out, strict=True) if held]
    return assemble_compositional(members, folder, compositions=judged, targets=targets[held_out], card={"data": "toy"})


def test_it_learns_and_knows_how_well(members: list[Path], tmp_path: Path):
    ensemble = assembled(members, tmp_path)
    compositions, targets, held_out = made_up()
    scatter = np.abs(targets - np.median(targets)).mean()
    assert ensemble.metrics["mae"] < 0.4 * scatter
    prediction = ensemble.predict(compositions)
    low, high = prediction.interval(0.9)
    inside = (low <= targets) & (targets <= high)
    assert inside[held_out].mean() > 0.75
    assert np.isnan(prediction.volume_scale).all()
    assert CompositionalEnsemble.load(tmp_path).digest == ensemble.digest


def test_few_held_out_compositions_are_enough_for_a_calibration_and_too_few_for_coverage(
    members: list[Path], tmp_path: Path
):
    compositions, targets, _ = made_up()
    few = assemble_compositional(members, tmp_path, compositions=compositions[:25], targets=targets[:25], card={})
    assert "coverage" not in few.metrics
    assert "25 held-out compositions are too few" in few.metrics["warnings"][0]


def test_formula_units_do_not_matter(members: list[Path], tmp_path: Path):
    ensemble = assembled(members, tmp_path)
    pair = [Composition.from_formula("LiF3"), Composition.from_formula("Li2F6")]
    energies = ensemble.predict(pair).formation_energy_per_atom
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)
    assert len(ensemble.predict([])) == 0


def test_kinds_are_not_mixed_up(members: list[Path], toy_members: list[Path], tmp_path: Path):
    assembled(members, tmp_path / "compositional")
    with pytest.raises(CheckpointError, match="is a compositional ensemble"):
        Ensemble.load(tmp_path / "compositional")
    compositions, targets, _ = made_up()
    with pytest.raises(CheckpointError, match="not of a compositional network"):
        assemble_compositional(toy_members, tmp_path / "x", compositions=compositions, targets=targets, card={})


def test_dropout_is_repeatable(tmp_path: Path):
    import torch

    compositions, targets, held_out = made_up()
    settings = CompositionalSettings(width=16, edge_width=16, layers=1, heads=2, dropout=0.3)
    training = TrainingSettings(epochs=2, batch_size=20, loss="laplace")
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for path in paths:
        torch.rand(len(path.name))  # the global generator is somewhere else each time
        train_compositional_member(
            compositions, targets, held_out=held_out, model=settings, training=training, seed=0, path=path
        )
        torch.rand(3)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_element_that_no_member_has_seen_has_no_energy(members: list[Path], tmp_path: Path):
    compositions, targets, _ = made_up()
    seen = {z for composition in compositions for z in composition.atomic_numbers}
    ensemble = assemble_compositional(
        members, tmp_path, compositions=compositions, targets=targets, trained_on=seen, card={}
    )
    strange = Composition.from_formula("OgF4")
    prediction = ensemble.predict([compositions[0], strange])
    assert np.isnan(prediction.formation_energy_per_atom).tolist() == [False, True]
    assert prediction.reasons == ("", f"the networks were trained on no composition with {unseen(strange, seen)}")


def unseen(composition: Composition, seen: set[int]) -> str:
    return ", ".join(SYMBOLS[z] for z in composition.atomic_numbers if z not in seen)


def test_the_shipped_networks_know_what_they_were_trained_on():
    assert not shipped().predict([Composition.from_formula("NaCl")]).reasons[0]
    assert shipped().predict([Composition.from_formula("EsF3")]).reasons[0].endswith("no composition with Es")


def shipped() -> CompositionalEnsemble:
    return CompositionalEnsemble.load(shipped_ensemble("compositional"))
