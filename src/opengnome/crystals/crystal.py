"""The crystal: one immutable record, and the functions that make another crystal from it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import ATOMIC_MASSES, MAX_ATOMIC_NUMBER, SYMBOLS
from opengnome.errors import InvalidCrystalError
from opengnome.units import AMU_PER_A3_IN_G_PER_CM3

_DIGEST_LENGTH = 32
_MIN_VOLUME = 1e-3
"""Smallest accepted cell volume in A^3; anything below is a degenerate lattice."""


@dataclass(frozen=True, eq=False)
class Crystal:
    """A periodic, fully ordered crystal.

    Arrays are copied, checked and made read-only. Cartesian positions are ``frac_coords @ lattice``.
    Raises `InvalidCrystalError` when a shape, a value or the lattice is not that of a crystal.
    """

    lattice: np.ndarray
    """Lattice vectors as rows, shape (3, 3), Angstrom, float64."""
    frac_coords: np.ndarray
    """Fractional coordinates, shape (n_atoms, 3), float64; not wrapped into [0, 1)."""
    atomic_numbers: np.ndarray
    """Atomic numbers, shape (n_atoms,), int64."""

    def __post_init__(self) -> None:
        lattice = _frozen(self.lattice, np.float64)
        frac_coords = _frozen(self.frac_coords, np.float64)
        atomic_numbers = _frozen(self.atomic_numbers, np.int64)
        _check(lattice, frac_coords, atomic_numbers)
        object.__setattr__(self, "lattice", lattice)
        object.__setattr__(self, "frac_coords", frac_coords)
        object.__setattr__(self, "atomic_numbers", atomic_numbers)

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @cached_property
    def volume(self) -> float:
        """Cell volume in A^3."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def volume_per_atom(self) -> float:
        """A^3 per atom."""
        return self.volume / self.n_atoms

    @property
    def density(self) -> float:
        """Mass density in g/cm^3."""
        mass = sum(ATOMIC_MASSES[z] for z in self.atomic_numbers.tolist())
        return mass / self.volume * AMU_PER_A3_IN_G_PER_CM3

    @property
    def positions(self) -> np.ndarray:
        """Cartesian positions, shape (n_atoms, 3), Angstrom."""
        return self.frac_coords @ self.lattice

    @property
    def symbols(self) -> tuple[str, ...]:
        """Element symbol of each atom."""
        return tuple(SYMBOLS[z] for z in self.atomic_numbers.tolist())

    @cached_property
    def composition(self) -> Composition:
        return Composition.from_atomic_numbers(self.atomic_numbers)

    @property
    def reduced_formula(self) -> str:
        return self.composition.reduced_formula

    @property
    def chemical_system(self) -> str:
        return self.composition.chemical_system

    def __eq__(self, other: object) -> bool:
        """Equal arrays; the question whether two crystals are physically the same is `matching`'s."""
        if not isinstance(other, Crystal):
            return NotImplemented
        return (
            np.array_equal(self.lattice, other.lattice)
            and np.array_equal(self.frac_coords, other.frac_coords)
            and np.array_equal(self.atomic_numbers, other.atomic_numbers)
        )

    def __hash__(self) -> int:
        return hash(digest(self))

    def __repr__(self) -> str:
        return f"Crystal({self.reduced_formula}, {self.n_atoms} atoms, {self.volume:.2f} A^3)"


def digest(crystal: Crystal, *, decimals: int = 6) -> str:
    """Content hash (32 hex characters) of the arrays rounded to `decimals` (A and fractions).

    Identity of the *description*: a shifted or rotated copy has another digest. It names units of
    work and candidates, so that the same input is never computed twice.
    """
    return digests(crystal.lattice[None], crystal.frac_coords, crystal.atomic_numbers[None], decimals=decimals)[0]


def digests(
    lattices: np.ndarray, frac_coords: np.ndarray, atomic_numbers: np.ndarray, *, decimals: int = 6
) -> list[str]:
    """`digest` of m crystals whose n sites have the same fractional coordinates.

    Lattices (m, 3, 3) in A, fractional coordinates (n, 3), atomic numbers (m, n).
    """
    # Rounded before and after the wrap: -1e-9 and 0.9999999 are the site at 0, 2.3 is the site at 0.3.
    sites = _rounded(np.round(frac_coords, decimals) % 1.0, decimals).tobytes()
    cells, numbers = _rounded(lattices, decimals), np.ascontiguousarray(atomic_numbers, dtype=np.int64)
    return [
        hashlib.sha256(b"".join((cell.tobytes(), sites, elements.tobytes()))).hexdigest()[:_DIGEST_LENGTH]
        for cell, elements in zip(cells, numbers, strict=True)
    ]


def _rounded(values: np.ndarray, decimals: int) -> np.ndarray:
    return np.ascontiguousarray(np.round(values, decimals) + 0.0)  # + 0.0 turns -0.0 into 0.0


def with_volume(crystal: Crystal, volume: float) -> Crystal:
    """The crystal scaled isotropically to a cell volume in A^3, fractional coordinates kept."""
    if not (np.isfinite(volume) and volume > 0):
        raise InvalidCrystalError(f"{volume=} A^3 is not a positive volume")
    factor = (volume / crystal.volume) ** (1 / 3)
    return Crystal(crystal.lattice * factor, crystal.frac_coords, crystal.atomic_numbers)


def with_atomic_numbers(crystal: Crystal, atomic_numbers: ArrayLike) -> Crystal:
    """The crystal with other elements on its sites; shape (n_atoms,)."""
    return Crystal(crystal.lattice, crystal.frac_coords, np.asarray(atomic_numbers))


def supercell(crystal: Crystal, repeats: tuple[int, int, int]) -> Crystal:
    """Repeat the cell `repeats` times along a, b, c."""
    if any(n < 1 for n in repeats):
        raise InvalidCrystalError(f"{repeats=} must be three positive integers")
    shifts = np.stack(np.meshgrid(*(np.arange(n) for n in repeats), indexing="ij"), -1).reshape(-1, 3)
    frac_coords = (crystal.frac_coords[None, :, :] + shifts[:, None, :]).reshape(-1, 3) / np.array(repeats)
    return Crystal(
        crystal.lattice * np.array(repeats)[:, None],
        frac_coords,
        np.tile(crystal.atomic_numbers, len(shifts)),
    )


def _frozen(values: ArrayLike, dtype: type) -> np.ndarray:
    array: np.ndarray = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def _check(lattice: np.ndarray, frac_coords: np.ndarray, atomic_numbers: np.ndarray) -> None:
    if lattice.shape != (3, 3):
        raise InvalidCrystalError(f"{lattice.shape=}, must be (3, 3): lattice vectors as rows")
    if atomic_numbers.ndim != 1 or len(atomic_numbers) == 0:
        raise InvalidCrystalError(f"{atomic_numbers.shape=}, must be (n_atoms,) with at least one atom")
    if frac_coords.shape != (len(atomic_numbers), 3):
        raise InvalidCrystalError(f"{frac_coords.shape=}, must be ({len(atomic_numbers)}, 3)")
    if not (np.isfinite(lattice).all() and np.isfinite(frac_coords).all()):
        raise InvalidCrystalError("lattice and frac_coords must be finite, found NaN or infinity")
    if atomic_numbers.min() < 1 or atomic_numbers.max() > MAX_ATOMIC_NUMBER:
        wrong = sorted(set(atomic_numbers[(atomic_numbers < 1) | (atomic_numbers > MAX_ATOMIC_NUMBER)].tolist()))
        raise InvalidCrystalError(f"atomic numbers {wrong} are outside 1..{MAX_ATOMIC_NUMBER}")
    volume = abs(np.linalg.det(lattice))
    if volume < _MIN_VOLUME:
        raise InvalidCrystalError(f"cell volume {volume:.3g} A^3: the lattice vectors are not independent")
