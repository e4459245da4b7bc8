"""Compositions: which elements, how many of each, and what the formula is called."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals.elements import ELECTRONEGATIVITIES, MAX_ATOMIC_NUMBER, SYMBOLS, atomic_number
from opengnome.errors import InvalidCrystalError

# Formulas that chemistry does not reduce further; the list is pymatgen's.
_UNREDUCED = {
    **{f"{metal}O": f"{metal}2O2" for metal in ("Li", "Na", "K", "H", "Cs", "Rb")},
    **{gas: f"{gas}2" for gas in ("O", "N", "F", "Cl", "H")},
}
# Below this difference of electronegativity the last two elements are written as a polyanion: Li3(PO4)2.
_POLYANION_MAX_DIFFERENCE = 1.65


MAX_COUNT = 2**31 - 1
"""Atoms of one element that a composition may have: sums of many stay far from the end of int64."""


@dataclass(frozen=True)
class Composition:
    """Element counts of a crystal or a formula unit.

    Equality and hash follow the counts as given: NaCl and Na2Cl2 differ; compare `reduced` for the
    stoichiometry.
    """

    counts: tuple[tuple[int, int], ...]
    """(atomic number, number of atoms) pairs, sorted by atomic number, every count positive."""

    @classmethod
    def from_atomic_numbers(cls, atomic_numbers: ArrayLike) -> "Composition":
        """Count the atoms of an integer array of atomic numbers, shape (n_atoms,)."""
        numbers, counts = np.unique(np.asarray(atomic_numbers, dtype=int), return_counts=True)
        return cls.from_counts(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))

    @classmethod
    def from_counts(cls, counts: Mapping[int, int]) -> "Composition":
        """Composition from a mapping atomic number -> count.

        Raises `InvalidCrystalError` on an unknown element, a count that is not a positive integer up to
        `MAX_COUNT`, or no atoms at all.
        """
        for z, count in counts.items():
            if not 1 <= z <= MAX_ATOMIC_NUMBER:
                raise InvalidCrystalError(f"atomic number {z} is outside 1..{MAX_ATOMIC_NUMBER}")
            if count != int(count) or not 1 <= count <= MAX_COUNT:
                raise InvalidCrystalError(
                    f"{SYMBOLS[z]} has count {count}; counts are positive integers up to {MAX_COUNT}"
                )
        if not counts:
            raise InvalidCrystalError("a composition needs at least one atom, got none")
        return cls(tuple(sorted((int(z), int(count)) for z, count in counts.items())))

    @classmethod
    def from_formula(cls, formula: str) -> "Composition":
        """Parse a formula with integer amounts and (nested) parentheses, e.g. ``Ca3(PO4)2``.

        Raises `InvalidCrystalError` when the formula cannot be read.
        """
        return cls.from_counts(_parse_formula(formula))

    @cached_property
    def n_atoms(self) -> int:
        return sum(count for _, count in self.counts)

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """The elements present, sorted by atomic number."""
        return tuple(z for z, _ in self.counts)

    @property
    def n_elements(self) -> int:
        return len(self.counts)

    @property
    def fractions(self) -> dict[int, float]:
        """Atomic fraction by atomic number; sums to one."""
        return {z: count / self.n_atoms for z, count in self.counts}

    @cached_property
    def reduced(self) -> "Composition":
        """The same stoichiometry in the smallest integers."""
        factor = math.gcd(*(count for _, count in self.counts))
        return Composition(tuple((z, count // factor) for z, count in self.counts))

    @property
    def reduced_formula(self) -> str:
        """Reduced formula exactly as pymatgen prints it, e.g. ``LiFePO4``, ``Ca3(PO4)2``, ``Na2O2``."""
        return _reduced_formula(self.counts)

    @property
    def chemical_system(self) -> str:
        """Element symbols in alphabetical order joined by hyphens, e.g. ``Fe-Li-O``."""
        return "-".join(sorted(SYMBOLS[z] for z in self.atomic_numbers))

    @property
    def anonymous_formula(self) -> str:
        """Stoichiometry without element names, smallest amount first, e.g. ``ABC3`` for BaTiO3."""
        amounts = sorted(count for _, count in self.reduced.counts)
        letters = (chr(ord("A") + i) for i in range(len(amounts)))
        return "".join(f"{letter}{'' if n == 1 else n}" for letter, n in zip(letters, amounts, strict=True))


def reduced_formula(atomic_numbers: ArrayLike) -> str:
    """Reduced formula of an integer array of atomic numbers, exactly as pymatgen prints it."""
    return Composition.from_atomic_numbers(atomic_numbers).reduced_formula


def reduced_formulas(atomic_numbers: np.ndarray) -> list[str]:
    """Reduced formulas of m crystals of n atoms each; atomic numbers have shape (m, n)."""
    return [_reduced_formula(tuple(sorted(Counter(row).items()))) for row in atomic_numbers.tolist()]


def chemical_system(elements: Iterable[int]) -> str:
    """Alphabetical, hyphenated name of a set of atomic numbers, e.g. ``Cl-Na``."""
    return "-".join(sorted({SYMBOLS[z] for z in elements}))


@lru_cache(maxsize=65536)
def _reduced_formula(counts: tuple[tuple[int, int], ...]) -> str:
    factor = math.gcd(*(count for _, count in counts))
    formula = _write_formula([(z, count // factor) for z, count in counts])
    return _UNREDUCED.get(formula, formula)


def _order_key(z: int) -> tuple[float, str]:
    """Electronegativity, then symbol; elements without a value come last."""
    x = ELECTRONEGATIVITIES[z]
    return (math.inf if math.isnan(x) else float(x), SYMBOLS[z])


_ORDER = {z: rank for rank, z in enumerate(sorted(range(1, MAX_ATOMIC_NUMBER + 1), key=_order_key))}
"""Place of an element in a formula, by atomic number."""


def _write_formula(counts: list[tuple[int, int]]) -> str:
    ordered = sorted(counts, key=lambda pair: _ORDER[pair[0]])
    polyanion = ""
    if len(ordered) >= 3:
        (z_centre, n_centre), (z_ligand, n_ligand) = ordered[-2:]
        difference = ELECTRONEGATIVITIES[z_ligand] - ELECTRONEGATIVITIES[z_centre]
        units = math.gcd(n_centre, n_ligand)
        if difference < _POLYANION_MAX_DIFFERENCE and units > 1:
            inner = _write_formula([(z_centre, n_centre // units), (z_ligand, n_ligand // units)])
            polyanion = f"({inner}){units}"
            ordered = ordered[:-2]
    return "".join(f"{SYMBOLS[z]}{'' if n == 1 else n}" for z, n in ordered) + polyanion


_TOKEN = re.compile(r"([A-Z][a-z]?)(\d*)|(\()|(\))(\d*)")


def _parse_formula(formula: str) -> Counter[int]:
    stack: list[Counter[int]] = [Counter()]
    text, position = formula.replace(" ", ""), 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise InvalidCrystalError(
                f"cannot read the formula {formula!r} at {text[position:]!r}; "
                "write element symbols with whole numbers, e.g. 'LiFePO4' or 'Ca3(PO4)2'"
            )
        symbol, amount, opening, closing, group_amount = match.groups()
        if symbol:
            stack[-1][atomic_number(symbol)] += _amount(amount, formula)
        elif opening:
            stack.append(Counter())
        elif closing:
            if len(stack) == 1:
                raise InvalidCrystalError(f"the formula {formula!r} closes a parenthesis it never opened")
            group = stack.pop()
            for z, count in group.items():
                stack[-1][z] += min(count * _amount(group_amount, formula), MAX_COUNT + 1)  # refused as it is
        position = match.end()
    if len(stack) != 1:
        raise InvalidCrystalError(f"the formula {formula!r} has an open parenthesis")
    return stack[0]


def _amount(digits: str, formula: str) -> int:
    """An amount of a formula; one where none is written."""
    if len(digits) > len(str(MAX_COUNT)):
        raise InvalidCrystalError(
            f"the formula {formula if len(formula) < 50 else formula[:50] + '...'!r} has an amount of {len(digits)} "
            f"digits; amounts are at most {MAX_COUNT}"
        )
    return int(digits or 1)
