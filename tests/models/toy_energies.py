"""Binary AB crystals whose energy depends on the elements and the distance: quick to learn."""

from dataclasses import dataclass

import numpy as np

from opengnome.crystals import Crystal, CrystalTable


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
