"""A parent crystal seen as ions: which ion stands on which site, and which sites touch."""

from dataclasses import dataclass
from functools import cached_property

import moyopy
import numpy as np

from opengnome.crystals import Crystal
from opengnome.errors import InvalidCrystalError
from opengnome.generation.ions import species_table
from opengnome.generation.oxidation import assign_ions, usual_ions

CONTACT_CUTOFF = 5.0
"""Pairs of sites further apart than this many A are never too close in a candidate."""

_SAME_SHELL = 1.2  # contacts up to this many times the nearest one belong to the first shell


@dataclass(frozen=True, eq=False)
class IonicParent:
    """A crystal with an ion on every site; make one with `ionic_parent`."""

    id: str
    crystal: Crystal
    ions: np.ndarray
    """Positions in the species table of the distinct ions, in order of atomic number, shape (n_ions,)."""
    ion_of_site: np.ndarray
    """Which of `ions` stands on each site, shape (n_atoms,)."""

    @cached_property
    def site_species(self) -> np.ndarray:
        """Position in the species table of each site's ion, shape (n_atoms,)."""
        return self.ions[self.ion_of_site]

    @cached_property
    def charge(self) -> int:
        """Sum of the charges of all sites in e; not zero where no neutral states exist."""
        return int(species_table().charges[self.site_species].sum())

    @cached_property
    def has_anions(self) -> bool:
        """Whether ions of both signs are there; if not, the crystal is a metal and its atoms have covalent radii."""
        charges = species_table().charges[self.ions]
        return bool((charges < 0).any() and (charges > 0).any())

    @cached_property
    def ion_counts(self) -> np.ndarray:
        """Number of sites of each ion, shape (n_ions,)."""
        return np.bincount(self.ion_of_site, minlength=len(self.ions))

    @cached_property
    def closest(self) -> np.ndarray:
        """Shortest distance in A between images of each pair of sites, shape (n_atoms, n_atoms).

        The diagonal holds the distance of a site to its own nearest image; pairs beyond `CONTACT_CUTOFF` are
        infinite or somewhere beyond it.
        """
        return self._image_distances.min(axis=0)

    @cached_property
    def contact_weights(self) -> np.ndarray:
        """Number of first-shell cation-anion contacts of each site, shape (n_atoms,).

        The mean sum of radii over all contacts is `contact_weights @ radii` up to a constant. A crystal
        without such contacts within the cutoff weighs all sites alike.
        """
        is_cation = species_table().charges[self.site_species] > 0
        opposite = is_cation[:, None] != is_cation[None, :]
        distances = np.where(opposite, self._image_distances, np.inf)
        shell = _SAME_SHELL * distances.min(axis=(0, 2))
        reach = np.minimum(np.maximum(shell[:, None], shell[None, :]), CONTACT_CUTOFF)
        weights = (distances <= reach).sum(axis=(0, 2)).astype(float)
        return weights if weights.any() else np.ones_like(weights)

    @cached_property
    def _image_distances(self) -> np.ndarray:
        return _image_distances(self.crystal, CONTACT_CUTOFF)


def ionic_parent(crystal: Crystal, parent_id: str, *, usual: bool = False) -> IonicParent | None:
    """The crystal with the most common neutral oxidation states, or none when it has no such states.

    With `usual` a crystal without such states gets the usual ones of its elements (`oxidation.usual_ions`).
    """
    composition = crystal.composition
    ions = assign_ions(composition) or (usual_ions(composition) if usual else None)
    if ions is None:
        return None
    elements = np.array(composition.atomic_numbers)
    return IonicParent(parent_id, crystal, np.array(ions), np.searchsorted(elements, crystal.atomic_numbers))


def _image_distances(crystal: Crystal, cutoff: float) -> np.ndarray:
    """Distances in A between sites and images, all those within `cutoff` among them.

    Shape (n_images, n_atoms, n_atoms); a site and itself, not an image, are infinitely far apart.
    Raises `InvalidCrystalError` when the lattice is too distorted to be reduced.
    """
    # A skewed cell would need thousands of images; the reduced basis of the same lattice needs 27 to 125.
    try:
        lattice = np.array(moyopy.minkowski_reduce(crystal.lattice.tolist())[0])
    except ValueError as error:
        raise InvalidCrystalError(f"the lattice of {crystal!r} cannot be reduced: {error}") from error
    frac_coords = crystal.positions @ np.linalg.inv(lattice)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    reach = np.floor(cutoff / heights + 0.5).astype(int)
    axes = (np.arange(-r, r + 1) for r in reach)
    images = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    separations = frac_coords[None, :, :] - frac_coords[:, None, :]
    separations = (separations - np.round(separations)) @ lattice
    vectors = separations[None] + (images @ lattice)[:, None, None, :]
    distances = np.sqrt(np.einsum("iabx,iabx->iab", vectors, vectors))
    home = int(np.flatnonzero((images == 0).all(axis=1))[0])
    np.fill_diagonal(distances[home], np.inf)
    return distances
