"""The same crystal described in another way."""

import numpy as np

from opengnome.crystals import Crystal, supercell


def redescribed(crystal: Crystal, seed: int, *, noise: float = 0.0, repeats=(1, 1, 1)) -> Crystal:
    """Repeated, sheared, shifted, rotated (perhaps mirrored) and permuted; each atom moved by `noise` A per axis."""
    rng = np.random.default_rng(seed)
    big = supercell(crystal, repeats)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    shear = np.array([[1, 0, 0], [rng.integers(-1, 2), 1, 0], [0, rng.integers(-1, 2), 1]])
    moves = rng.normal(scale=noise, size=(big.n_atoms, 3)) if noise else np.zeros((big.n_atoms, 3))
    frac_coords = (big.frac_coords + moves @ np.linalg.inv(big.lattice) + rng.random(3)) @ np.linalg.inv(shear)
    order = rng.permutation(big.n_atoms)
    return Crystal(shear @ big.lattice @ rotation, frac_coords[order], big.atomic_numbers[order])


def random_crystal(seed: int, numbers=(38, 22, 8, 8, 8), edge: float = 6.0) -> Crystal:
    """A cell without symmetry, atoms at least 1.4 A apart."""
    rng = np.random.default_rng(seed)
    lattice = edge * np.eye(3) + rng.uniform(-1, 1, size=(3, 3))
    while True:
        frac_coords = rng.random((len(numbers), 3))
        steps = frac_coords[:, None] - frac_coords[None]
        distances = np.linalg.norm((steps - np.round(steps)) @ lattice, axis=-1)
        if (distances + 9 * np.eye(len(numbers))).min() > 1.4:
            return Crystal(lattice, frac_coords, np.array(numbers))


def displaced(crystal: Crystal, steps: np.ndarray) -> Crystal:
    """The atoms moved by Cartesian steps, A."""
    moved = crystal.frac_coords + steps @ np.linalg.inv(crystal.lattice)
    return Crystal(crystal.lattice, moved, crystal.atomic_numbers)
