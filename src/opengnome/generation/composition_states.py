"""What the composition rule knows of an element: oxidation states, smallest charge of an anion, kind."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from opengnome.crystals.elements import ATOMIC_NUMBERS, MAX_ATOMIC_NUMBER, SYMBOLS

NONMETALS = "H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Sb Te I Xe At Rn"
"""Nonmetals and metalloids; everything else counts as a metal."""

METALLOIDS = "B Si P Ge As Sb Te"
"""Nonmetals that, with metals of like electronegativity, form phases without ionic charges."""

INTERSTITIALS = "H B C N"
"""Small atoms that d and f metals take up between them (Haegg phases)."""

SMALLEST_CHARGE: dict[str, float] = {
    "B": 1 / 15,  # NaB15; borides have cages
    "C": 1 / 12,  # LiC12; CaC2
    "Si": 1 / 8,  # Na8Si46; BaSi2
    "P": 1 / 15,  # NaP15; FeP2
    "S": 1 / 3,  # K2S6; FeS2
    "Ge": 1 / 8,  # K8Ge46
    "As": 1 / 4,  # K3As11
    "Se": 1 / 3,  # K2Se6
    "Sn": 1 / 5,  # NaSn5
    "Sb": 1 / 4,  # BaSb3
    "Te": 1 / 6,  # RbTe6
    "I": 1 / 3,  # CsI3
    "Pb": 1 / 5,
    "Bi": 1 / 4,
}
"""Smallest mean charge (in magnitude) of an anion, with a compound that comes near it. The atoms share their
electrons in bonds to atoms of their own kind (Zintl and Klemm). Other anions go as far as their states."""

PEROXIDE_CHARGE, SUPEROXIDE_CHARGE, AZIDE_CHARGE = 1.0, 1 / 2, 1 / 3
"""The same for O and N beside electropositive metals; else O has -2 and N has -3."""

OXYGEN, NITROGEN = ATOMIC_NUMBERS["O"], ATOMIC_NUMBERS["N"]
HARD_ANIONS = (NITROGEN, OXYGEN, ATOMIC_NUMBERS["F"])
"""Beside these no metal is subvalent."""

_D_AND_F_BLOCK = (*range(21, 30), *range(39, 48), *range(57, 80), *range(89, 104))
_HEAVIEST = 103  # no chemistry worth the name beyond

ANION, CATION, EITHER = 0, 1, 2
"""Signs, the first axis of the tables of `ElementTable`."""


@dataclass(frozen=True, eq=False)
class ElementTable:
    """States by sign and atomic number; shapes (3, n_elements, ...) with n_elements = MAX_ATOMIC_NUMBER + 1."""

    states: np.ndarray
    """Oxidation states of each sign, ascending, then zeros; shape (3, n_elements, n_states). `EITHER` holds
    both signs and zero."""
    n_states: np.ndarray
    """How many of them; none where the element never has the sign; shape (3, n_elements)."""
    smallest_charge: np.ndarray
    """As `SMALLEST_CHARGE`, or the smallest charge among the negative states; shape (n_elements,)."""
    is_metal: np.ndarray
    is_metallic: np.ndarray
    """Metals and `METALLOIDS`."""
    is_interstitial: np.ndarray
    is_d_or_f: np.ndarray

    def of(self, z: int) -> tuple[int, ...]:
        """The states of an element without zero, ascending; empty where it has none."""
        return tuple(int(q) for q in self.states[EITHER, z, : self.n_states[EITHER, z]] if q)


@lru_cache(maxsize=1)
def element_table() -> ElementTable:
    """Built once per process from pymatgen's tables.

    The states of an element are its common ones and those that the ICSD shows; all known ones where the
    ICSD sample has none (Tc, Pm, Os, Pt, Au, ...); and the octet state, group - 18, of groups 14 to 17.
    """
    by_element = [_states(z) for z in range(MAX_ATOMIC_NUMBER + 1)]
    by_sign = [
        [[q for q in states if q < 0] for states in by_element],
        [[q for q in states if q > 0] for states in by_element],
        [sorted({*states, 0}) if states else [] for states in by_element],
    ]
    width = max(len(states) for sign in by_sign for states in sign)
    table = np.zeros((3, len(by_element), width), dtype=np.int64)
    for sign, of_elements in enumerate(by_sign):
        for z, states in enumerate(of_elements):
            table[sign, z, : len(states)] = states
    smallest = [min((-q for q in states), default=np.nan) for states in by_sign[ANION]]
    for symbol, charge in SMALLEST_CHARGE.items():
        smallest[ATOMIC_NUMBERS[symbol]] = charge
    is_metal = ~_mask(NONMETALS)
    is_metal[[0, *range(_HEAVIEST + 1, MAX_ATOMIC_NUMBER + 1)]] = False
    is_d_or_f = np.zeros_like(is_metal)
    is_d_or_f[list(_D_AND_F_BLOCK)] = True
    arrays = {
        "states": table,
        "n_states": np.array([[len(states) for states in sign] for sign in by_sign]),
        "smallest_charge": np.array(smallest),
        "is_metal": is_metal,
        "is_metallic": is_metal | _mask(METALLOIDS),
        "is_interstitial": _mask(INTERSTITIALS),
        "is_d_or_f": is_d_or_f,
    }
    for array in arrays.values():
        array.setflags(write=False)
    return ElementTable(**arrays)


def _states(z: int) -> list[int]:
    from pymatgen.core import Element

    if not 1 <= z <= _HEAVIEST:
        return []
    element = Element(SYMBOLS[z])
    states = {*element.common_oxidation_states, *element.icsd_oxidation_states}
    if not element.icsd_oxidation_states:
        states.update(element.oxidation_states)
    if 14 <= element.group <= 17:
        states.add(element.group - 18)
    return sorted(int(q) for q in states if q)


def _mask(symbols: str) -> np.ndarray:
    mask = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=bool)
    mask[[ATOMIC_NUMBERS[symbol] for symbol in symbols.split()]] = True
    return mask
