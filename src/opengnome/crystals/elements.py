"""The periodic table: symbols, electronegativities and masses, indexed by atomic number.

Pauling electronegativities are those of pymatgen, because the reduced formula is ordered by them and
must read exactly as pymatgen prints it (`tests/crystals/test_composition.py` compares all of them).
"""

import math
from collections.abc import Iterable

from opengnome.errors import InvalidCrystalError

SYMBOLS: tuple[str, ...] = (
    "X",  # atomic number 0 is no element; keeps SYMBOLS[z] direct
    *"""
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se
    Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb
    Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm
    Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
    """.split(),
)
"""Element symbols: `SYMBOLS[z]` for the atomic number z."""

ELECTRONEGATIVITIES: tuple[float, ...] = (
    math.nan,
    *map(
        float,
        """
    2.2 nan 0.98 1.57 2.04 2.55 3.04 3.44 3.98 nan 0.93 1.31 1.61 1.9 2.19 2.58 3.16 nan 0.82 1
    1.36 1.54 1.63 1.66 1.55 1.83 1.88 1.91 1.9 1.65 1.81 2.01 2.18 2.55 2.96 3 0.82 0.95 1.22
    1.33 1.6 2.16 1.9 2.2 2.28 2.2 1.93 1.69 1.78 1.96 2.05 2.1 2.66 2.6 0.79 0.89 1.1 1.12 1.13
    1.14 1.13 1.17 1.2 1.2 1.1 1.22 1.23 1.24 1.25 1.1 1.27 1.3 1.5 2.36 1.9 2.2 2.2 2.28 2.54 2
    1.62 2.33 2.02 2 2.2 2.2 0.7 0.9 1.1 1.3 1.5 1.38 1.36 1.28 1.3 1.3 1.3 1.3 1.3 1.3 1.3 1.3
    1.3 nan nan nan nan nan nan nan nan nan nan nan nan nan nan nan
        """.split(),
    ),
)
"""Pauling electronegativity (dimensionless), NaN where none is tabulated."""

ATOMIC_MASSES: tuple[float, ...] = (
    math.nan,
    *map(
        float,
        """
    1.00794 4.002602 6.941 9.012182 10.811 12.0107 14.0067 15.9994 18.9984032 20.1797
    22.98976928 24.305 26.9815386 28.0855 30.973762 32.065 35.453 39.948 39.0983 40.078
    44.955912 47.867 50.9415 51.9961 54.938045 55.845 58.933195 58.6934 63.546 65.409 69.723
    72.64 74.9216 78.96 79.904 83.798 85.4678 87.62 88.90585 91.224 92.90638 95.94 98 101.07
    102.9055 106.42 107.8682 112.411 114.818 118.71 121.76 127.6 126.90447 131.293 132.9054519
    137.327 138.90547 140.116 140.90765 144.242 145 150.36 151.964 157.25 158.92535 162.5
    164.93032 167.259 168.93421 173.04 174.967 178.49 180.94788 183.84 186.207 190.23 192.217
    195.084 196.966569 200.59 204.3833 207.2 208.9804 210 210 220 223 226 227 232.03806
    231.03588 238.02891 237 244 243 247 247 251 252 257 258 259 262 267 268 269 270 270 278 281
    282 285 286 289 290 293 294 294
        """.split(),
    ),
)
"""Standard atomic mass in unified atomic mass units."""

ATOMIC_NUMBERS: dict[str, int] = {symbol: z for z, symbol in enumerate(SYMBOLS) if z}
"""Atomic number by symbol."""

MAX_ATOMIC_NUMBER = len(SYMBOLS) - 1

RADIOACTIVE: frozenset[int] = frozenset(
    ATOMIC_NUMBERS[s] for s in "Tc Pm Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr".split()
) | frozenset(range(104, 119))
"""Elements without a stable isotope (bismuth counts as stable)."""

SCARCE: frozenset[int] = frozenset(ATOMIC_NUMBERS[s] for s in "Ru Rh Pd Re Os Ir Pt He Ne Ar Kr Xe".split())
"""Elements left out of new materials by default: platinum group, rhenium, and the noble gases."""


def check_symbols(symbols: Iterable[str]) -> None:
    """For validators of settings: raises `ValueError` naming what is not an element symbol."""
    unknown = [symbol for symbol in symbols if symbol not in ATOMIC_NUMBERS]
    if unknown:
        raise ValueError(f"{unknown} are not element symbols; write them like 'Fe'")


def atomic_number(symbol: str) -> int:
    """Atomic number of an element symbol.

    Raises `InvalidCrystalError` when `symbol` is not an element.
    """
    try:
        return ATOMIC_NUMBERS[symbol]
    except KeyError:
        raise InvalidCrystalError(
            f"{symbol!r} is not an element symbol; symbols are written as in 'Na', 'Cl', 'O'"
        ) from None
