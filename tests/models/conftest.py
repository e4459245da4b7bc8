"""A tiny learnable world: binary AB crystals whose energy depends on the elements and the distance."""

from pathlib import Path

import pytest
from toy_energies import ToyData, make_toy_data

from opengnome.models import Ensemble, StructuralSettings, TrainingSettings, assemble_ensemble, train_member

SMALL = StructuralSettings(width=16, edge_width=16, layers=2, cutoff=4.0)


@pytest.fixture(scope="session")
def toy() -> ToyData:
    return make_toy_data(150, n_held_out=50, seed=1)


@pytest.fixture(scope="session")
def toy_members(toy: ToyData, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three members trained for a moment."""
    folder = tmp_path_factory.mktemp("members")
    paths = [folder / f"seed-{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        train_member(
            toy.table,
            toy.targets,
            held_out=toy.held_out,
            model=SMALL,
            training=TrainingSettings(epochs=8, batch_size=10, learning_rate=5e-3),
            seed=seed,
            path=path,
        )
    return paths


@pytest.fixture(scope="session")
def toy_ensemble(toy: ToyData, toy_members: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return assemble_ensemble(
        toy_members,
        tmp_path_factory.mktemp("ensemble"),
        table=toy.table,
        targets=toy.targets,
        held_out=toy.held_out,
    )
