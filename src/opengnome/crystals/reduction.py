"""The smallest cell of a crystal within a tolerance: where a comparison of two crystals starts.

Only translations are looked for, not the rest of the space group: atoms that have moved by a few hundredths of
an Angstrom break a group found at a tight tolerance, but a translation that maps the whole cell onto itself is
still found, because it must be a fraction of the cell.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import moyopy
import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.geometry import reduced_lattice
from opengnome.crystals.symmetry import symmetry_dataset
from opengnome.errors import InvalidCrystalError

TRANSLATION_TOLERANCE = 0.1
"""How far a translation may miss an atom, as a fraction of the atomic spacing; about 0.25 A, the tolerance with
which pymatgen's matcher looks for a primitive cell."""


@dataclass(frozen=True, eq=False)
class ReducedCrystal:
    """A primitive cell on a Niggli basis, atoms sorted so that the rarest element comes first."""

    lattice: np.ndarray
    """Niggli-reduced lattice vectors as rows, right-handed, shape (3, 3), Angstrom."""
    frac_coords: np.ndarray
    """Fractional coordinates in [0, 1), shape (n_atoms, 3)."""
    atomic_numbers: np.ndarray
    """Elements, those with the fewest atoms first, then by atomic number; shape (n_atoms,)."""

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @cached_property
    def volume(self) -> float:
        """Cell volume, A^3."""
        return float(abs(np.linalg.det(self.lattice)))

    @cached_property
    def spacing(self) -> float:
        """Cube root of the volume per atom, A: the unit in which displacements are judged."""
        return float((self.volume / self.n_atoms) ** (1 / 3))

    @cached_property
    def metric(self) -> np.ndarray:
        """Scalar products of the lattice vectors, in units of the atomic spacing, shape (3, 3)."""
        scaled = self.lattice / self.spacing
        return scaled @ scaled.T

    @cached_property
    def sort_key(self) -> tuple[bytes, bytes]:
        """Puts cells in some order, the same whichever comes first."""
        return self.lattice.tobytes(), self.frac_coords.tobytes()

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """The atoms of each element, rarest first."""
        return tuple(_element_blocks(self.atomic_numbers))

    @cached_property
    def rotations(self) -> np.ndarray:
        """The distinct rotations of the space group, shape (n_rotations, 3, 3); the identity where none is found."""
        try:
            dataset = symmetry_dataset(Crystal(self.lattice, self.frac_coords, self.atomic_numbers))
        except InvalidCrystalError:
            return np.eye(3, dtype=np.int64)[None]
        return np.unique(dataset.rotations, axis=0)


def reduce_crystal(crystal: Crystal, *, tolerance: float = TRANSLATION_TOLERANCE) -> ReducedCrystal:
    """The primitive cell on its Niggli basis.

    A fraction of the cell is a translation when it brings every atom to within `tolerance` times the atomic
    spacing of an atom of the same element; the atoms that it joins are averaged.
    Raises `InvalidCrystalError` when the lattice is distorted beyond any crystal.
    """
    lattice = reduced_lattice(crystal)
    frac_coords = crystal.positions @ np.linalg.inv(lattice)
    order = _rarest_first(crystal.atomic_numbers)
    frac_coords, numbers = frac_coords[order], crystal.atomic_numbers[order]
    limit = tolerance * crystal.volume_per_atom ** (1 / 3)
    for prime in _prime_factors(math.gcd(*np.bincount(numbers).tolist())):
        while found := _translation(lattice, frac_coords, numbers, prime, limit):
            lattice, frac_coords, numbers = _divided(lattice, frac_coords, numbers, prime, *found)
    niggli = np.array(moyopy.niggli_reduce(lattice.tolist())[0])
    frac_coords = frac_coords @ (lattice @ np.linalg.inv(niggli))
    return ReducedCrystal(niggli, frac_coords - np.floor(frac_coords), numbers)


def _element_blocks(numbers: np.ndarray) -> list[slice]:
    """Runs of equal numbers."""
    boundaries = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(numbers)]
    return [slice(start, end) for start, end in pairwise(boundaries)]


def _rarest_first(atomic_numbers: np.ndarray) -> np.ndarray:
    """Order of the sites by number of atoms of their element, then by element; stable."""
    counts = np.bincount(atomic_numbers)[atomic_numbers]
    return np.lexsort((atomic_numbers, counts))


def _prime_factors(n: int) -> list[int]:
    """The distinct primes that divide n."""
    primes, divisor = [], 2
    while divisor * divisor <= n:
        if n % divisor == 0:
            primes.append(divisor)
            while n % divisor == 0:
                n //= divisor
        divisor += 1
    return [*primes, n] if n > 1 else primes


def _translation(
    lattice: np.ndarray, frac_coords: np.ndarray, numbers: np.ndarray, prime: int, limit: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """A translation of order `prime`: its numerators, shape (3,), and the site each site goes to, shape (n_atoms,).

    The translation is numerators / prime. None when there is none within `limit` (A).
    """
    blocks = _element_blocks(numbers)
    if any((block.stop - block.start) % prime for block in blocks):
        return None
    steps = frac_coords[blocks[0]][1:] - frac_coords[0]
    numerators = np.rint(steps * prime)
    errors = (steps - numerators / prime) @ lattice
    fitting = (np.einsum("ij,ij->i", errors, errors) <= limit**2) & (numerators % prime != 0).any(axis=1)
    if not fitting.any():
        return None
    for candidate in sorted({tuple(row) for row in (numerators[fitting] % prime).astype(np.int64).tolist()}):
        images = _images(lattice, frac_coords, blocks, np.array(candidate) / prime, limit)
        if images is not None and _is_cyclic(images, prime):
            return np.array(candidate), images
    return None


def _images(
    lattice: np.ndarray, frac_coords: np.ndarray, blocks: list[slice], translation: np.ndarray, limit: float
) -> np.ndarray | None:
    """The site that a translation takes each site to; None when one has no site of its element within `limit` (A)."""
    images = np.empty(len(frac_coords), dtype=np.int64)
    for block in blocks:  # the rarest element refuses most translations for the least work
        sites = frac_coords[block]
        steps = (sites + translation)[:, None, :] - sites[None, :, :]
        steps -= np.rint(steps)
        vectors = steps.reshape(-1, 3) @ lattice
        squares = np.einsum("ij,ij->i", vectors, vectors).reshape(len(sites), len(sites))
        nearest = squares.argmin(axis=1)
        if (squares[np.arange(len(sites)), nearest] > limit**2).any():
            return None
        images[block] = block.start + nearest
    return images


def _is_cyclic(images: np.ndarray, prime: int) -> bool:
    """Whether the images permute the sites in cycles of `prime`, so that one site of each cycle is enough."""
    identity = np.arange(len(images))
    if not np.array_equal(np.sort(images), identity) or (images == identity).any():
        return False
    power = images
    for _ in range(prime - 1):
        power = images[power]
    return np.array_equal(power, identity)


def _divided(
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    numbers: np.ndarray,
    prime: int,
    numerators: np.ndarray,
    images: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cell with a translation of order `prime` among its lattice vectors: lattice, coordinates, elements."""
    identity = np.arange(len(images))
    # A multiple of the translation has numerator one along some axis; it replaces that lattice vector.
    axis = int(np.flatnonzero(numerators)[0])
    multiple = pow(int(numerators[axis]), -1, prime)
    numerators = (numerators * multiple) % prime
    jump = identity
    for _ in range(multiple):
        jump = images[jump]
    translation = numerators / prime
    total, smallest, site = np.zeros_like(frac_coords), identity.copy(), identity
    for step in range(prime):
        shifts = frac_coords[site] - step * translation - frac_coords
        total += shifts - np.round(shifts)
        smallest = np.minimum(smallest, site)
        site = jump[site]
    kept = smallest == identity
    divided = lattice.copy()
    divided[axis] = translation @ lattice
    reduced = np.array(moyopy.minkowski_reduce(divided.tolist())[0])
    positions = (frac_coords + total / prime)[kept] @ lattice
    return reduced, positions @ np.linalg.inv(reduced), numbers[kept]
