"""The space group of a crystal, imposed on a geometry and on the forces that act on it.

A plane-wave code sees a crystal through a grid, and its forces are symmetric to the fineness of that grid only.
Left alone, a relaxation drifts off a special position by the noise, the code finds fewer operations than before,
and pays for it with more k-points. Here operations x -> W x + w act on fractional columns (see
`SymmetryDataset`); on Cartesian rows the rotation is ``Q = inv(L) W^T L`` for a lattice L of rows.
"""

from dataclasses import dataclass

import moyopy
import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.symmetry import SymmetryDataset, quiet_moyo, site_permutations, symmetry_dataset

_REFINEMENTS = 3
"""Passes of averaging; the translations of a noisy crystal carry its noise, which the next pass has not."""


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """Operations of a space group on the sites of one crystal."""

    rotations: np.ndarray
    """Rotation parts W on fractional columns; shape (n_operations, 3, 3), int."""
    permutations: np.ndarray
    """Operation o maps site i to site ``permutations[o, i]``; shape (n_operations, n_atoms), int."""
    origin: np.ndarray
    """Added to fractional coordinates it puts the standard origin of the group at zero, where translation parts are
    simple fractions; shape (3,). An inversion centre at 0.13 needs a grid that maps a shift of 0.26 on itself: GPAW
    then took 25 x 25 x 25 points for silicon at 200 eV, and leaves the operation out where there is no such grid."""

    def symmetrised_forces(self, forces: np.ndarray, lattice: np.ndarray) -> np.ndarray:
        """Mean of the images of `forces` (n_atoms, 3); `lattice` (3, 3) has rows."""
        moved = forces @ self._cartesian(lattice)  # (n_operations, n_atoms, 3)
        mean = np.zeros_like(forces)
        for images, permutation in zip(moved, self.permutations, strict=True):
            mean[permutation] += images
        return mean / len(self.rotations)

    def symmetrised_stress(self, stress: np.ndarray, lattice: np.ndarray) -> np.ndarray:
        """Mean of the images of a Cartesian tensor (3, 3)."""
        turns = self._cartesian(lattice)
        mean: np.ndarray = np.einsum("oki,kl,olj->ij", turns, stress, turns) / len(turns)
        return mean

    def n_kpoints(self, size: tuple[int, int, int], *, gamma: bool) -> int:
        """K-points of a mesh that no operation, nor time reversal, takes into each other.

        The mesh has `size` divisions along the reciprocal vectors, and a point at Gamma or is shifted by half a
        division. At least that many are calculated: an engine that finds fewer operations has more.
        """
        divisions = np.array(size)
        points = np.indices(size).reshape(3, -1).T + (0.0 if gamma else 0.5)  # in divisions
        numbers = np.full(len(points), len(points))
        for turn in (*self.rotations, *-self.rotations):
            images = (points / divisions) @ turn * divisions - (0.0 if gamma else 0.5)
            on_mesh = np.abs(images - np.round(images)).max(axis=1) < 1e-6
            at = np.round(images).astype(int) % divisions
            images_at = np.ravel_multi_index(tuple(at.T), size)
            numbers = np.where(on_mesh, np.minimum(numbers, images_at), numbers)
        return len(np.unique(numbers))

    def _cartesian(self, lattice: np.ndarray) -> np.ndarray:
        """The matrices Q, shape (n_operations, 3, 3): a row vector v becomes v Q."""
        turns: np.ndarray = np.linalg.inv(lattice) @ self.rotations.transpose(0, 2, 1) @ lattice
        return turns


def symmetrised(crystal: Crystal, *, symprec: float) -> tuple[Crystal, SpaceGroup]:
    """The nearest crystal that has the space group found within `symprec` (A) exactly, and that group.

    Sites keep their order and their lattice images, the lattice its orientation. Raises `InvalidCrystalError`
    when no space group fits.
    """
    for _ in range(_REFINEMENTS):
        dataset = symmetry_dataset(crystal, symprec=symprec)
        permutations = site_permutations(crystal, dataset)
        crystal = _averaged(crystal, dataset, permutations)
    return crystal, SpaceGroup(dataset.rotations, permutations, _to_standard_origin(crystal, symprec))


def _to_standard_origin(crystal: Crystal, symprec: float) -> np.ndarray:
    cell = moyopy.Cell(crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist())
    with quiet_moyo():
        dataset = moyopy.MoyoDataset(cell, symprec=symprec)
    # x = P x_std + p: p is where the standard origin lies
    return -np.array(dataset.std_origin_shift)


def _averaged(crystal: Crystal, dataset: SymmetryDataset, permutations: np.ndarray) -> Crystal:
    """Metric and sites averaged over the operations."""
    metric = crystal.lattice @ crystal.lattice.T
    mean_metric = np.mean(dataset.rotations.transpose(0, 2, 1) @ metric @ dataset.rotations, axis=0)
    lattice = np.linalg.cholesky(mean_metric)
    # a metric has no orientation: turn the lattice onto the one before (W. Kabsch, doi:10.1107/S0567739476001873)
    u, _, vt = np.linalg.svd(lattice.T @ crystal.lattice)
    shift = np.zeros_like(crystal.frac_coords)
    for rotation, translation, permutation in zip(dataset.rotations, dataset.translations, permutations, strict=True):
        images = crystal.frac_coords @ rotation.T + translation
        difference = images - crystal.frac_coords[permutation]
        shift[permutation] += difference - np.round(difference)
    return Crystal(lattice @ u @ vt, crystal.frac_coords + shift / len(permutations), crystal.atomic_numbers)
