"""How large atoms and ions are: covalent radii of the elements, ionic radii of the species."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from opengnome.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS

# fmt: off
_TABULATED = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05,
    1.02, 1.06, 2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20,
    1.19, 1.20, 1.20, 1.16, 2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44,
    1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96,
    1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32,
    1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69,
)
# fmt: on
_HEAVIER_RADIUS = 1.69
"""Elements beyond curium have no tabulated radius; they get curium's."""

COVALENT_RADII = np.array([math.nan, *_TABULATED, *[_HEAVIER_RADIUS] * (MAX_ATOMIC_NUMBER - len(_TABULATED))])
"""Covalent radius by atomic number in A, high-spin values for Mn, Fe, Co (Cordero et al. 2008,
doi:10.1039/b801115j)."""
COVALENT_RADII.setflags(write=False)


@lru_cache(maxsize=1024)
def ionic_radius(z: int, charge: int) -> float:
    """Ionic radius in A of the element with atomic number `z` at an integer charge in e.

    Shannon's effective ionic radius (doi:10.1107/S0567739476001551), six-fold coordinated and high spin
    where tabulated, otherwise the mean of the coordinations there are. A charge that Shannon has not is
    interpolated between the element's charges of the same sign; a cation below the lowest of them (Sn2+, In+) between
    that and the covalent radius at no charge; else the nearest one outside their range is taken. An element without
    any gets its covalent radius. Bare protons have a negative radius, as tabulated.
    """
    known = _shannon_radii(z)
    same_sign = sorted((q, radius) for q, radius in known.items() if q * charge > 0)
    if not same_sign:
        return float(COVALENT_RADII[z])
    if 0 < charge < same_sign[0][0]:
        same_sign.insert(0, (0, float(COVALENT_RADII[z])))
    charges, radii = zip(*same_sign, strict=True)
    return float(np.interp(charge, charges, radii))


def _shannon_radii(z: int) -> dict[int, float]:
    from pymatgen.core import Element

    table = Element(SYMBOLS[z]).data.get("Shannon radii")
    if not isinstance(table, dict):  # the element has no entry
        return {}
    return {int(charge): _typical_radius(by_coordination) for charge, by_coordination in table.items() if charge}


def _typical_radius(by_coordination: dict[str, dict[str, dict[str, Any]]]) -> float:
    def high_spin(by_spin: dict[str, dict[str, Any]]) -> float:
        return float(by_spin.get("High Spin", next(iter(by_spin.values())))["ionic_radius"])

    if "VI" in by_coordination:
        return high_spin(by_coordination["VI"])
    return float(np.mean([high_spin(by_spin) for by_spin in by_coordination.values()]))
