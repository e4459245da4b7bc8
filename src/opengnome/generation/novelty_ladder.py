"""How new is a crystal? Its place on a ladder from a known crystal to a prototype that nobody has seen.

Most crystals that a generator finds are old prototypes in which one ion has given way to its neighbour in the periodic
table; critics of the method count those as no discovery (Cheetham and Seshadri 2024,
doi:10.1021/acs.chemmater.4c00643).
The ladder tells them apart. Two crystals have one prototype when their protostructure labels agree but for the
elements (`crystals.identity`).
"""

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain, permutations, product

import numpy as np

from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from opengnome.crystals.identity import protostructure_label
from opengnome.errors import InvalidCrystalError

_NOBLE_GASES = frozenset((2, 10, 18, 36, 54, 86))
_STAND_INS = sorted(set(range(1, 90)) - _NOBLE_GASES, key=lambda z: SYMBOLS[z])[:12]
"""Elements in alphabetical order, the order in which a label names them; pymatgen warns of noble gases."""
RARE_EARTHS = frozenset((21, 39, *range(57, 72)))


class Rung(StrEnum):
    """Place of a crystal on the ladder, least new first."""

    KNOWN = "known"
    """A crystal of the same formula and prototype is known."""
    REDECORATION = "redecoration"
    """A known crystal becomes this one when one of its elements is exchanged for a chemically similar one."""
    KNOWN_PROTOTYPE = "known prototype"
    """The prototype is known from other chemistry."""
    NEW_PROTOTYPE = "new prototype"
    """No known crystal has it."""
    UNKNOWN = "no prototype"
    """The crystal has no protostructure label, so that the question has no answer."""


@dataclass(frozen=True)
class Novelty:
    """What is new about a crystal."""

    rung: Rung
    prototype: str
    """Protostructure label without the elements, empty where there is none."""
    new_formula: bool
    """No known crystal has the reduced formula."""
    new_chemical_system: bool
    """No known crystal consists of exactly these elements."""
    new_prototype_in_system: bool
    """No known crystal of these elements has the prototype."""
    nearest: str
    """For a redecoration the formula of the known crystal that it comes from, else empty."""


class NoveltyLadder:
    """Answers for one set of known crystals; labels are made when first needed, of one stoichiometry at a time."""

    def __init__(self, known: CrystalTable) -> None:
        self._known = known
        self._formulas_of: dict[str, dict[str, set[str]]] = {}

    def place(self, crystal: Crystal) -> Novelty:
        """Place of a crystal on the ladder."""
        composition = crystal.composition
        formula, system = composition.reduced_formula, composition.chemical_system
        prototype = _prototype(crystal)
        formulas = self._formulas(composition.anonymous_formula).get(prototype, set()) if prototype else set()
        nearest = next((f for f in similar_formulas(composition) if f in formulas), "")
        systems = {Composition.from_formula(f).chemical_system for f in formulas}
        return Novelty(
            rung=_rung(prototype, formula, formulas, nearest),
            prototype=prototype,
            new_formula=formula not in self._rows,
            new_chemical_system=system not in self._systems,
            new_prototype_in_system=system not in systems,
            nearest=nearest if formula not in formulas else "",
        )

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """Rows of the known table by reduced formula."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, formula in enumerate(self._known.reduced_formulas):
            rows[formula].append(row)
        return dict(rows)

    @cached_property
    def _compositions(self) -> dict[str, Composition]:
        return {formula: Composition.from_formula(formula) for formula in self._rows}

    @cached_property
    def _systems(self) -> frozenset[str]:
        return frozenset(composition.chemical_system for composition in self._compositions.values())

    @cached_property
    def _by_stoichiometry(self) -> dict[str, list[str]]:
        formulas: dict[str, list[str]] = defaultdict(list)
        for formula, composition in self._compositions.items():
            formulas[composition.anonymous_formula].append(formula)
        return dict(formulas)

    def _formulas(self, stoichiometry: str) -> dict[str, set[str]]:
        """Known formulas of a stoichiometry by prototype."""
        if stoichiometry not in self._formulas_of:
            found: dict[str, set[str]] = defaultdict(set)
            for formula in self._by_stoichiometry.get(stoichiometry, ()):
                for row in self._rows[formula]:
                    found[_prototype(self._known[row])].add(formula)
            found.pop("", None)
            self._formulas_of[stoichiometry] = dict(found)
        return self._formulas_of[stoichiometry]


def similar_elements(z: int) -> frozenset[int]:
    """Elements that take the place of `z` without a change of chemistry: its group, or the other rare earths."""
    if z in RARE_EARTHS:
        return RARE_EARTHS - {z}
    return frozenset(other for other in range(1, MAX_ATOMIC_NUMBER + 1) if other != z and _group(other) == _group(z))


def similar_formulas(composition: Composition) -> list[str]:
    """Reduced formulas in which one element is exchanged for a similar one that was not there."""
    counts = dict(composition.reduced.counts)
    formulas = []
    for old, count in counts.items():
        rest = {z: n for z, n in counts.items() if z != old}
        formulas += [
            Composition.from_counts(rest | {new: count}).reduced_formula
            for new in sorted(similar_elements(old) - counts.keys())
        ]
    return formulas


def _rung(prototype: str, formula: str, formulas: set[str], nearest: str) -> Rung:
    if not prototype:
        return Rung.UNKNOWN
    if not formulas:
        return Rung.NEW_PROTOTYPE
    if formula in formulas:
        return Rung.KNOWN
    return Rung.REDECORATION if nearest else Rung.KNOWN_PROTOTYPE


def _prototype(crystal: Crystal) -> str:
    """Protostructure label of the anonymous crystal, without the elements; empty where there is none.

    A label names elements in alphabetical order, so that SrTiO3 and BaTiO3 have different ones. Here the elements
    are named by amount instead; those of equal amount in every order, and the first label of all is taken.
    """
    counts = crystal.composition.counts
    groups = [[z for z, n in counts if n == amount] for amount in sorted({n for _, n in counts})]
    labels = []
    for orders in product(*(permutations(group) for group in groups)):
        names = dict(zip(chain.from_iterable(orders), _STAND_INS, strict=False))
        anonymous = Crystal(
            crystal.lattice, crystal.frac_coords, np.array([names[z] for z in crystal.atomic_numbers.tolist()])
        )
        try:
            labels.append(protostructure_label(anonymous).partition(":")[0])
        except InvalidCrystalError:
            return ""
    return min(labels)


def _group(z: int) -> tuple[str, int]:
    """Group of the periodic table; hydrogen, helium and the f elements stand for themselves, the latter by row."""
    if z in (1, 2):
        return "alone", z
    if 57 <= z <= 71 or 89 <= z <= 103:
        return "f", 57 if z < 72 else 89
    noble = max(n for n in (2, 10, 18, 36, 54, 86) if n < z or n == 2)
    column = z - noble
    if noble in (2, 10):  # eight columns: the last six are groups 13 to 18
        return "group", column if column <= 2 else column + 10
    if noble in (54, 86) and column > 16:  # behind the f elements
        column -= 14
    return "group", column
