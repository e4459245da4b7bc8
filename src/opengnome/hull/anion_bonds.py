"""What kind of oxide or sulfide a crystal is, from the distances between its atoms; pymatgen's rules.

The Materials Project corrections (doi:10.1038/s41598-021-94550-5) differ between oxides, peroxides, superoxides and
ozonides, which a formula does not tell apart: BaO2 is a peroxide, KO2 a superoxide, TiO2 an oxide.
"""

import numpy as np

from opengnome.crystals import Crystal
from opengnome.crystals.elements import ATOMIC_NUMBERS, ELECTRONEGATIVITIES
from opengnome.crystals.geometry import reduced_lattice
from opengnome.errors import HullError

_HYDROGEN, _OXYGEN, _SULFUR = (ATOMIC_NUMBERS[symbol] for symbol in ("H", "O", "S"))

CORRECTION_TOLERANCE = 1.05
"""How far bonds may be stretched where pymatgen corrects an energy by its structure."""
DATABASE_TOLERANCE = 1.1
"""The same for the `oxide_type` that the Materials Project stores with an entry, which counts before the structure."""

# Bond lengths in A. Stretched by more than 1.1, superoxides and peroxides cannot be told apart.
_HYDROXIDE_BOND, _SUPEROXIDE_BOND, _PEROXIDE_BOND = 0.93, 1.35, 1.49

_FIRST_RADIUS = 4.0  # A, within which the neighbours of a sulfur atom are sought, doubled until there is one
_SHELL = 0.4  # A beyond the nearest neighbour that still count as the first shell
_MAX_NEIGHBOURS = 4


def oxide_type(crystal: Crystal, *, tolerance: float = CORRECTION_TOLERANCE) -> str:
    """``hydroxide``, ``ozonide``, ``superoxide``, ``peroxide`` or ``oxide``, by the shortest O-H and O-O distances.

    One bond decides for the whole crystal, and an O-H bond before any O-O bond, as in pymatgen's `OxideType`. Bonds
    are up to `tolerance` times as long as usual. Two atoms bond at most once, and not to their own images.
    Raises `HullError` when there is no oxygen, `InvalidCrystalError` for a lattice distorted beyond any crystal.
    """
    oxygen = np.flatnonzero(crystal.atomic_numbers == _OXYGEN)
    if not len(oxygen):
        raise HullError(f"{crystal!r} has no oxygen; only oxides have an oxide type")
    i, j, distances = _pairs(crystal, tolerance * _PEROXIDE_BOND, np.isin(crystal.atomic_numbers, (_HYDROGEN, _OXYGEN)))
    both_oxygen = (crystal.atomic_numbers[i] == _OXYGEN) & (crystal.atomic_numbers[j] == _OXYGEN) & (i != j)
    mixed = crystal.atomic_numbers[i] != crystal.atomic_numbers[j]
    if (distances[mixed] < tolerance * _HYDROXIDE_BOND).any():
        return "hydroxide"
    bonded = both_oxygen & (distances < tolerance * _SUPEROXIDE_BOND)
    if bonded.any():
        neighbours_of: dict[int, set[int]] = {}
        for first, second in zip(i[bonded].tolist(), j[bonded].tolist(), strict=True):
            neighbours_of.setdefault(first, set()).add(second)
        return "ozonide" if any(len(bonds) > 1 for bonds in neighbours_of.values()) else "superoxide"
    return "peroxide" if (both_oxygen & (distances < tolerance * _PEROXIDE_BOND)).any() else "oxide"


def sulfide_type(crystal: Crystal) -> str:
    """``sulfate``, ``polysulfide`` or ``sulfide``, by what surrounds the sulfur atoms.

    The mean electronegativity of the first shell (at most four atoms) is compared with that of sulfur: above, the
    sulfur is a cation as in a sulfate; equal, with sulfur among them, it is bonded to sulfur. One sulfate decides
    for the whole crystal, then one polysulfide. pymatgen's `sulfide_type`, which says None for a sulfate; the one
    difference is that it looks at one sulfur atom per orbit of the space group within 0.1 A, this at every one, as
    pymatgen does where it finds no group.
    Raises `HullError` when there is no sulfur, `InvalidCrystalError` for a lattice distorted beyond any crystal.
    """
    sulfur = np.flatnonzero(crystal.atomic_numbers == _SULFUR)
    if not len(sulfur):
        raise HullError(f"{crystal!r} has no sulfur; only compounds of sulfur have a sulfide type")
    kinds = {_sulfur_kind(shell) for shell in _first_shells(crystal, sulfur)}
    return next(kind for kind in ("sulfate", "polysulfide", "sulfide") if kind in kinds)


def _sulfur_kind(shell: np.ndarray) -> str:
    """Of one sulfur atom with these neighbours, atomic numbers from the nearest outwards."""
    mean = np.mean([ELECTRONEGATIVITIES[z] for z in shell.tolist()])
    own = ELECTRONEGATIVITIES[_SULFUR]
    if mean > own:
        return "sulfate"
    return "polysulfide" if mean == own and _SULFUR in shell else "sulfide"


def _first_shells(crystal: Crystal, sites: np.ndarray) -> list[np.ndarray]:
    """Atomic numbers around each site, nearest first, at most four."""
    shells: dict[int, np.ndarray] = {}
    radius = _FIRST_RADIUS
    while len(shells) < len(sites):
        i, j, distances = _pairs(crystal, radius)
        for site in sites.tolist():
            rows = np.flatnonzero(i == site)
            if site in shells or not len(rows):
                continue
            rows = rows[np.argsort(distances[rows], kind="stable")]
            rows = rows[distances[rows] < distances[rows[0]] + _SHELL][:_MAX_NEIGHBOURS]
            shells[site] = crystal.atomic_numbers[j[rows]]
        radius *= 2  # every atom has an image of itself somewhere, so this ends
    return [shells[site] for site in sites.tolist()]


def _pairs(
    crystal: Crystal, cutoff: float, chosen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sites i, j and distance in A of every pair below `cutoff`, each in both directions, images included.

    With `chosen` (n_atoms,) only between the sites for which it is true.
    """
    # vesin imports torch when it is there, which costs a second that reading names must not cost.
    from vesin import NeighborList

    sites = np.arange(crystal.n_atoms) if chosen is None else np.flatnonzero(chosen)
    i, j, distances = NeighborList(cutoff=cutoff, full_list=True).compute(
        points=crystal.positions[sites], box=reduced_lattice(crystal), periodic=True, quantities="ijd"
    )
    return sites[i], sites[j], distances
