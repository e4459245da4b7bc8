"""A tiny learnable world: binary AB crystals whose energy depends on the elements and the distance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from opengnome.crystals import Crystal, CrystalTable
from opengnome.models import Ensemble, StructuralSettings, TrainingSettings, assemble_ensemble, train_member

SMALL = StructuralSettings(width=16, edge_width=16, layers=2, cutoff=4.0)


@dataclass(frozen=True)
class ToyData:
    table: CrystalTable
    targets: np.ndarray
    held_out: np.ndarray


def make_toy_data(n_crystals: int, *, n_held_out: int, seed: int) -> ToyData:
    """CsCl-type cells; energy = sum of two element terms + a spring on the cell edge, eV/atom."""
    rng = np.random.default_rng(seed)
    crystals, targets = [], []
    for _ in range(n_crystals):
        a, metal, anion = rng.uniform(3.0, 4.5), int(rng.integers(3, 7)), int(rng.integers(33, 36))
        crystals.append(Crystal(a * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([metal, anion])))
        targets.append(-0.3 * metal + 0.2 * (anion - 33) + 0.5 * (a - 3.7) ** 2)
    held_out = np.arange(n_crystals) >= n_crystals - n_held_out
    return ToyData(CrystalTable.from_crystals(crystals), np.array(targets), held_out)


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
