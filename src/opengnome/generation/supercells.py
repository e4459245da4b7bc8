"""Supercells of a parent, one per symmetry class: the cells in which an ordered derivative may need more room.

All sublattices of an index are the Hermite normal forms of that determinant; those that the point group of the
parent maps onto each other give the same derivatives (Hart and Forcade 2008, doi:10.1103/PhysRevB.77.224115). Two of
the seven sublattices of index 2 of a face-centred lattice are left: one layers (111) planes, the other (100) planes.
"""

from functools import cache
from itertools import product

import moyopy
import numpy as np

from opengnome.crystals import Crystal
from opengnome.errors import InvalidCrystalError


def unique_supercells(rotations: np.ndarray, index: int) -> list[np.ndarray]:
    """Integer matrices H (3, 3) of determinant `index`, one per class; the rows of ``H @ lattice`` span a supercell.

    `rotations` are the rotation parts W of the parent's operations on fractional columns, shape (n, 3, 3).
    """
    point_group = np.unique(rotations, axis=0)
    chosen, seen = [], set()
    for matrix in _hermite_normal_forms(index):
        if matrix.tobytes() in seen:
            continue
        chosen.append(matrix)
        seen |= {_hermite_normal_form(matrix @ rotation.T).tobytes() for rotation in point_group}
    return chosen


def supercell_of(crystal: Crystal, matrix: np.ndarray) -> tuple[Crystal, np.ndarray]:
    """The crystal in the cell ``matrix @ lattice``, its vectors as short as can be; and the site each atom copies.

    `matrix` is a Hermite normal form (lower triangular). Raises `InvalidCrystalError` when the lattice is too
    distorted to be reduced.
    """
    corners = np.array(list(product(*(range(n) for n in np.diag(matrix)))))
    inverse = np.linalg.inv(matrix)
    frac_coords = (crystal.frac_coords[:, None, :] + corners[None, :, :]).reshape(-1, 3) @ inverse
    lattice = matrix @ crystal.lattice
    try:
        short = np.array(moyopy.minkowski_reduce(lattice.tolist())[0])
    except ValueError as error:
        raise InvalidCrystalError(f"a supercell of {crystal!r} cannot be reduced: {error}") from error
    change = np.round(lattice @ np.linalg.inv(short))  # unimodular
    sites = np.repeat(np.arange(crystal.n_atoms), len(corners))
    return Crystal(short, (frac_coords @ change) % 1.0, crystal.atomic_numbers[sites]), sites


@cache
def _hermite_normal_forms(index: int) -> tuple[np.ndarray, ...]:
    """All lower triangular integer matrices of a determinant, entries left of the diagonal below it in their column."""
    forms = []
    for a, b, c in product(range(1, index + 1), repeat=3):
        if a * b * c == index:
            forms += [
                np.array([[a, 0, 0], [d, b, 0], [e, f, c]], dtype=np.int64)
                for d, e, f in product(range(a), range(a), range(b))
            ]
    return tuple(forms)


def _hermite_normal_form(matrix: np.ndarray) -> np.ndarray:
    """The lower triangular matrix whose rows span the same sublattice as those of `matrix`."""
    rows = [[int(x) for x in row] for row in matrix]
    for column in (2, 1, 0):
        head = column
        while True:  # Euclid's algorithm on the entries of this column in the rows that are left
            nonzero = [r for r in range(head + 1) if rows[r][column]]
            smallest = min(nonzero, key=lambda r: abs(rows[r][column]))
            rows[head], rows[smallest] = rows[smallest], rows[head]
            if len(nonzero) == 1:
                break
            for r in range(head):
                factor = rows[r][column] // rows[head][column]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[head], strict=True)]
        if rows[head][column] < 0:
            rows[head] = [-x for x in rows[head]]
    for head in (1, 2):
        for column in range(head - 1, -1, -1):
            factor = rows[head][column] // rows[column][column]
            rows[head] = [x - factor * y for x, y in zip(rows[head], rows[column], strict=True)]
    return np.array(rows, dtype=np.int64)
