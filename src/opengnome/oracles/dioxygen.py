"""Oxygen molecules and superoxide ions: oxygen with unpaired electrons, which a crystal of no magnetic element has."""

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.geometry import minimum_distance

DIOXYGEN_MAX = 1.42
"""Oxygen atoms closer than this (Angstrom) are O2 (1.21) or superoxide (1.28 to 1.35), which have unpaired
electrons; in a peroxide they are 1.45 to 1.5 apart."""
_OXYGEN = 8


def has_dioxygen(crystal: Crystal) -> bool:
    """Whether two oxygen atoms are as close as in O2 or a superoxide."""
    oxygen = np.flatnonzero(crystal.atomic_numbers == _OXYGEN)
    if len(oxygen) == 0:
        return False
    sublattice = Crystal(crystal.lattice, crystal.frac_coords[oxygen], crystal.atomic_numbers[oxygen])
    return minimum_distance(sublattice) < DIOXYGEN_MAX
