"""What a crystal is called: a fingerprint of its standardised cell, and the label of its prototype.

Equal fingerprints prove that two crystals are the same. Different ones prove nothing, because atoms that have
moved by a hundredth of an Angstrom change it; whether those are the same is the question of `matching`.
"""

import hashlib
import warnings

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.interop import to_pymatgen
from opengnome.crystals.lattice_mappings import lattice_mappings
from opengnome.crystals.reduction import ReducedCrystal, reduce_crystal
from opengnome.crystals.symmetry import check_symprec, quiet_moyo
from opengnome.errors import InvalidCrystalError

LABEL_SYMPREC = 0.1
"""Tolerance (A) of the symmetry behind a protostructure label; pymatgen's default for it."""

_GRID = 240
"""Coordinates are counted in 240ths of the lattice vectors. Halves, thirds, quarters, fifths, sixths, eighths,
and what they give, fall on the middle of a step, so that rounding noise does not move special positions."""
_PLACES = np.array([_GRID**2, _GRID, 1])
_MAX_COORDINATES = 300_000
"""Atoms of all bases and origins that are listed at once."""
_LENGTH_STEP, _ANGLE_STEP = 0.02, 0.5
"""Lattice vectors are counted in these steps, A and degrees; 60, 90 and 120 degrees are in the middle of one."""
_SAME_LENGTH, _SAME_ANGLE = 1e-3, 0.1
"""Bases whose lengths (relative) and angles (degrees) agree to this are equally good descriptions."""


def fingerprint(crystal: Crystal) -> str:
    """Hash (32 hex characters) of the standardised primitive cell; see `reduced_fingerprint`.

    Raises `InvalidCrystalError` when the lattice is distorted beyond any crystal.
    """
    return reduced_fingerprint(reduce_crystal(crystal))


def reduced_fingerprint(crystal: ReducedCrystal) -> str:
    """Hash (32 hex characters) of the cell, whatever its order of atoms, origin, orientation or handedness.

    Of all equally good bases, and all origins on an atom of the rarest element, the one with the smallest list
    of coordinates is taken. Coordinates count to 1/240 of a lattice vector, lengths to 0.02 A.
    """
    content = hashlib.sha256()
    for values in (crystal.atomic_numbers, _lattice_steps(crystal.lattice)):
        content.update(np.ascontiguousarray(values, dtype=np.int64).tobytes())
    content.update(_smallest_list(crystal))
    return content.hexdigest()[:32]


def protostructure_label(crystal: Crystal, *, symprec: float = LABEL_SYMPREC) -> str:
    """Prototype, Pearson symbol, space group, Wyckoff letters and elements: ``A3BC_cP5_221_c_a_b:O-Sr-Ti``.

    The label of Goodall et al. (doi:10.1126/sciadv.abn4117), from pymatgen with moyo's symmetry. It does not
    see lattice constants and free coordinates, and changes where noise reaches `symprec` (A).
    Raises `InvalidCrystalError` when no space group or no label fits.
    """
    from pymatgen.analysis.prototypes import get_protostructure_label_from_moyopy

    check_symprec(crystal, symprec)
    try:
        with quiet_moyo(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # pymatgen warns of its own use of a function of its own
            label = get_protostructure_label_from_moyopy(to_pymatgen(crystal), raise_errors=True, symprec=symprec)
    except ValueError as error:
        raise InvalidCrystalError(
            f"no protostructure label for {crystal!r} with symprec={symprec} A ({error}); try another symprec"
        ) from error
    return str(label)


def _lattice_steps(lattice: np.ndarray) -> np.ndarray:
    """Lengths and angles of the lattice in whole steps, shape (6,)."""
    lengths = np.linalg.norm(lattice, axis=1)
    directions = lattice / lengths[:, None]
    cosines = [directions[i] @ directions[j] for i, j in ((1, 2), (0, 2), (0, 1))]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return np.round(np.concatenate([lengths / _LENGTH_STEP, angles / _ANGLE_STEP])).astype(np.int64)


def _smallest_list(crystal: ReducedCrystal) -> bytes:
    """The smallest sorted list of (element, coordinates) over the bases and origins, as bytes."""
    bases = lattice_mappings(
        crystal.lattice, crystal.lattice, length_tolerance=_SAME_LENGTH, angle_tolerance=_SAME_ANGLE
    )
    if not len(bases):
        raise InvalidCrystalError(
            f"the cell of {crystal.volume:.3g} A^3 is needle- or sheet-like beyond any crystal: no list of its "
            "lattice vectors can be made"
        )
    inverses = np.rint(np.linalg.inv(bases.astype(np.float64)))
    coordinates = crystal.frac_coords @ inverses  # (n_bases, n_atoms, 3)
    element = np.repeat(np.arange(len(crystal.blocks)), [block.stop - block.start for block in crystal.blocks])
    n_origins = crystal.blocks[0].stop
    chunk = max(1, _MAX_COORDINATES // (len(bases) * crystal.n_atoms))
    smallest = []
    for start in range(0, n_origins, chunk):
        origins = coordinates[:, start : min(start + chunk, n_origins)]
        steps = np.rint((coordinates[:, None] - origins[:, :, None]) * _GRID).astype(np.int64) % _GRID
        keys = steps @ _PLACES + element * _GRID**3
        keys.sort(axis=-1)
        lists = keys.reshape(-1, crystal.n_atoms)
        for atom in range(crystal.n_atoms):  # of the lists with the smallest first entries, those that go on so
            lists = lists[lists[:, atom] == lists[:, atom].min()]
            if len(lists) == 1:
                break
        smallest.append(lists[0].astype(">i8").tobytes())  # big end first: bytes compare as numbers do
    return min(smallest)
