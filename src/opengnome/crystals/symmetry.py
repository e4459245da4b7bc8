"""Symmetry of a crystal, found by moyo (https://github.com/spglib/moyo)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import moyopy
import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.geometry import minimum_distance, reduced_lattice
from opengnome.errors import InvalidCrystalError

SYMPREC = 0.01
"""Default tolerance (A) within which atoms are taken to be related by symmetry."""


@dataclass(frozen=True, eq=False)
class SymmetryDataset:
    """Space group, operations and orbits of one crystal, in the cell as given."""

    number: int
    """Space-group number of the International Tables, 1..230."""
    symbol: str
    """Short Hermann-Mauguin symbol without spaces, e.g. ``Fm-3m``, ``P2_1/c``."""
    hall_number: int
    """Number of the Hall symbol (setting), 1..530."""
    orbits: np.ndarray
    """Site i is equivalent to site orbits[i], the first of its orbit; shape (n_atoms,).

    Equivalent under the space group of the crystal; a supercell that is less symmetric than its crystal
    has fewer operations, and what those join is told by `site_permutations`."""
    wyckoffs: tuple[str, ...]
    """Wyckoff letter of each site."""
    rotations: np.ndarray
    """Rotation parts W of the operations x -> W x + w on fractional columns; (n_operations, 3, 3), int."""
    translations: np.ndarray
    """Translation parts w, fractional; shape (n_operations, 3)."""
    symprec: float
    """Tolerance that was used, A; moyo lowers the one asked for when that gives no group."""


def symmetry_dataset(crystal: Crystal, *, symprec: float = SYMPREC) -> SymmetryDataset:
    """Space group, operations, orbits and Wyckoff letters of a crystal.

    A cell larger than the primitive one has its centring translations among the operations.
    Raises `InvalidCrystalError` when no space group fits within `symprec` (A).
    """
    found = _moyo(crystal, symprec)
    return SymmetryDataset(
        number=found.number,
        symbol=space_group_symbol(found.number),
        hall_number=found.hall_number,
        orbits=np.array(found.orbits, dtype=np.int64),
        wyckoffs=tuple(found.wyckoffs),
        rotations=np.array(found.operations.rotations, dtype=np.int64),
        translations=np.array(found.operations.translations, dtype=np.float64),
        symprec=found.symprec,
    )


def orbits(crystal: Crystal, *, symprec: float = SYMPREC) -> np.ndarray:
    """Atom i is equivalent to atom orbits[i], the first of its orbit; shape (n_atoms,).

    As `SymmetryDataset.orbits`, without the cost of the rest. Raises as `symmetry_dataset`.
    """
    return np.array(_moyo(crystal, symprec).orbits, dtype=np.int64)


def space_group_number(crystal: Crystal, *, symprec: float = SYMPREC) -> int:
    """Space-group number, 1..230; raises as `symmetry_dataset`."""
    return _moyo(crystal, symprec).number


def space_group_symbol(number: int) -> str:
    """Short Hermann-Mauguin symbol of a space-group number, without spaces, e.g. ``Fm-3m`` for 225."""
    if not 1 <= number <= 230:
        raise InvalidCrystalError(f"space group {number} is outside 1..230")
    return moyopy.SpaceGroupType(number).hm_short.replace(" ", "")


def primitive_cell(crystal: Crystal, *, symprec: float = SYMPREC) -> Crystal:
    """The standardised primitive cell: symmetrised within `symprec` (A) and rotated to its standard setting.

    Raises as `symmetry_dataset`.
    """
    cell = _moyo(crystal, symprec).prim_std_cell
    return Crystal(np.array(cell.basis), np.array(cell.positions), np.array(cell.numbers))


def site_permutations(crystal: Crystal, dataset: SymmetryDataset) -> np.ndarray:
    """How the operations of `dataset` permute the sites of `crystal`; shape (n_operations, n_atoms), int.

    Operation o maps site i to site ``permutations[o, i]``.
    Raises `InvalidCrystalError` when an operation does not map the sites onto each other one to one, as
    when the dataset is that of another crystal.
    """
    permutations = np.empty((len(dataset.rotations), crystal.n_atoms), dtype=np.int64)
    other_element = crystal.atomic_numbers[:, None] != crystal.atomic_numbers[None, :]
    for operation, (rotation, translation) in enumerate(zip(dataset.rotations, dataset.translations, strict=True)):
        images = crystal.frac_coords @ rotation.T + translation
        steps = images[:, None, :] - crystal.frac_coords[None, :, :]
        steps -= np.round(steps)
        distances = np.linalg.norm(steps @ crystal.lattice, axis=-1)  # (n_atoms, n_atoms)
        permutations[operation] = np.where(other_element, np.inf, distances).argmin(axis=1)
    wrong = np.flatnonzero((np.sort(permutations, axis=1) != np.arange(crystal.n_atoms)).any(axis=1))
    if len(wrong):
        raise InvalidCrystalError(
            f"operation {wrong[0]} of {len(permutations)} does not permute the sites of {crystal!r} one to "
            f"one; the dataset (space group {dataset.number}, symprec {dataset.symprec} A) must be "
            "the crystal's own"
        )
    return permutations


def _moyo(crystal: Crystal, symprec: float) -> moyopy.MoyoDataset:
    check_symprec(crystal, symprec)
    cell = moyopy.Cell(crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist())
    try:
        with quiet_moyo():
            return moyopy.MoyoDataset(cell, symprec=symprec)
    except ValueError as error:
        raise InvalidCrystalError(
            f"no space group found for {crystal!r} with symprec={symprec} A ({error}); try another symprec"
        ) from error


def check_symprec(crystal: Crystal, symprec: float) -> None:
    """Raise `InvalidCrystalError` for a tolerance that would let moyo take different crystals for one.

    moyo then collects symmetry operations of the lattice without end, until the memory is full.
    """
    distance = minimum_distance(crystal)
    if not 0 < symprec < distance / 2:
        raise InvalidCrystalError(
            f"{symprec=} A must be positive and less than half the smallest distance of {crystal!r}, {distance:.3g} A"
        )
    lengths = np.linalg.norm(reduced_lattice(crystal), axis=1)
    # Shearing the longest vector c by the shortest, a, changes its length by a^2/2c; where that is noise,
    # so is any number of such shears. Within a factor of two moyo still copes.
    limit = lengths.min() ** 2 / lengths.max()
    if symprec > limit:
        raise InvalidCrystalError(
            f"{symprec=} A must be less than {limit:.3g} A for {crystal!r}, whose reduced lattice vectors are "
            f"{lengths.min():.3g} to {lengths.max():.3g} A long"
        )


@contextmanager
def quiet_moyo() -> Iterator[None]:
    """Hold back moyo's log for one call.

    It warns of every tolerance that it tries and of every cell that is not primitive, one line per crystal;
    what the caller needs of that (the tolerance used) is in the dataset. The logger is put back because an
    application may want moyo's log elsewhere; its level is left alone, as changing it costs as much as a small
    crystal.
    """
    logger = logging.getLogger("moyo")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
