"""Reactions: balanced exactly, with their energies; and how strongly a stable phase is held by its neighbours."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import HullError
from opengnome.hull.chemical_potentials import ON_HULL, phases_inside
from opengnome.hull.decomposition import lowest_mixture
from opengnome.hull.entry import Entry, check_entry
from opengnome.hull.hull import STABILITY_TOLERANCE, Hull


@dataclass(frozen=True)
class Species:
    """One side term of a reaction: so many formula units of a phase."""

    reduced_formula: str
    amount: float
    """Formula units as `reduced_formula` writes them: one O2 is two atoms. Positive."""
    n_atoms: int
    """Atoms per formula unit."""
    id: str = ""
    """Entry whose energy was used; empty for a reservoir or a composition taken at its hull energy."""


@dataclass(frozen=True)
class Reaction:
    """A balanced reaction and its energy; ``str`` writes it out, e.g. ``2 Li + 0.5 O2 -> Li2O``."""

    reactants: tuple[Species, ...]
    products: tuple[Species, ...]
    energy: float
    """Products minus reactants, eV for the amounts as written; negative when energy is released."""

    @property
    def n_atoms(self) -> float:
        """Atoms on either side."""
        return sum(species.amount * species.n_atoms for species in self.products)

    @property
    def energy_per_atom(self) -> float:
        """Energy per atom of the reacting mixture, eV/atom."""
        return self.energy / self.n_atoms

    def scaled(self, factor: float) -> "Reaction":
        """The same reaction with all amounts, and the energy, multiplied by a positive factor."""
        if not 0 < factor < math.inf:
            raise HullError(f"a reaction can be scaled by a positive, finite factor, not by {factor}")
        left, right = (
            tuple(replace(species, amount=species.amount * factor) for species in side)
            for side in (self.reactants, self.products)
        )
        return Reaction(left, right, self.energy * factor)

    def __str__(self) -> str:
        sides = (" + ".join(map(_term_text, side)) or "nothing" for side in (self.reactants, self.products))
        return " -> ".join(sides)


def formula_unit(composition: Composition) -> Composition:
    """The unit that `reduced_formula` writes: O2 for oxygen, Li2O2 for the peroxide, LiFePO4 for Li4Fe4P4O16."""
    return Composition.from_formula(composition.reduced_formula)


def balance(
    reactants: Sequence[Composition], products: Sequence[Composition]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The smallest whole numbers of each reactant and product that conserve every element.

    Exact, in rational arithmetic. Raises `HullError` when nothing balances, when several independent reactions
    do, or when a species would have to be left out or change sides; the message names it.
    """
    species = [*reactants, *products]
    if not reactants or not products:
        raise HullError(f"{len(reactants)} reactants and {len(products)} products; a reaction needs at least one each")
    elements = sorted({z for composition in species for z in composition.atomic_numbers})
    for side, other, name in ((reactants, products, "products"), (products, reactants, "reactants")):
        lost = sorted({z for c in side for z in c.atomic_numbers} - {z for c in other for z in c.atomic_numbers})
        if lost:
            raise HullError(f"{', '.join(SYMBOLS[z] for z in lost)} does not occur among the {name}; add a phase of it")
    signs = [1] * len(reactants) + [-1] * len(products)
    matrix = [
        [Fraction(sign * dict(composition.counts).get(z, 0)) for sign, composition in zip(signs, species, strict=True)]
        for z in elements
    ]
    solutions = _null_space(matrix)
    text = f"{_names(reactants)} -> {_names(products)}"
    if not solutions:
        raise HullError(f"no amounts balance {text}; a phase is missing on one side")
    if len(solutions) > 1:
        raise HullError(f"{text} holds {len(solutions)} independent reactions; name fewer phases: one at a time")
    amounts = _smallest_integers(solutions[0])
    wrong = [composition for composition, amount in zip(species, amounts, strict=True) if amount <= 0]
    if wrong:
        raise HullError(
            f"{text} balances only with {_names(wrong)} left out or on the other side (amounts {amounts}); "
            "rewrite it so"
        )
    return tuple(amounts[: len(reactants)]), tuple(amounts[len(reactants) :])


def reaction_energy(
    hull: Hull, reactants: Sequence[Composition | Entry], products: Sequence[Composition | Entry]
) -> Reaction:
    """The balanced reaction of named reactants to named products, in the smallest whole formula units.

    A composition stands for the lowest entry of its stoichiometry in the hull; an `Entry` for itself, in the hull
    or not. Raises `HullError` when a composition has no entry, an entry is of another level, or the reaction does
    not balance (see `balance`).
    """
    entries = _named_entries(hull, [*reactants, *products])
    units = [formula_unit(entry.composition) for entry in entries]
    n_reactants = len(reactants)
    amounts = [n for side in balance(units[:n_reactants], units[n_reactants:]) for n in side]
    species = tuple(
        Species(entry.reduced_formula, float(amount), unit.n_atoms, entry.id)
        for entry, unit, amount in zip(entries, units, amounts, strict=True)
    )
    energies = [s.amount * s.n_atoms * e.corrected_energy_per_atom for s, e in zip(species, entries, strict=True)]
    energy = math.fsum(energies[n_reactants:]) - math.fsum(energies[:n_reactants])
    return Reaction(species[:n_reactants], species[n_reactants:], energy)


def equilibrium_reaction(hull: Hull, entry: Entry, *, tolerance: float = STABILITY_TOLERANCE) -> Reaction:
    """Formation of one formula unit of a stable entry from the stable phases around it.

    `Reaction.energy_per_atom` is pymatgen's ``get_equilibrium_reaction_energy``, at or below zero for a vertex of
    the hull: how far the hull would rise without the entry if only phases that are stable now could take its place
    (`Hull.decomposition_energy` lets phases that are unstable now step in, so it is never lower). The two agree
    unless such a phase exists. An entry that is not in the hull is added to it first. An element forms from itself.
    Raises `HullError` for an entry more than `tolerance` eV/atom above the hull, `MissingReferenceError`.
    """
    with_entry = hull if entry in hull else hull.with_entries([entry])
    distance = with_entry.energy_above_hull(entry)
    if distance > tolerance:
        raise HullError(
            f"entry {entry.id!r} ({entry.reduced_formula}) lies {distance:.3g} eV/atom above the hull; the equilibrium "
            "reaction energy is of stable entries only: ask for decomposition_energy"
        )
    unit = formula_unit(entry.composition)
    formed = Species(entry.reduced_formula, 1.0, unit.n_atoms, entry.id)
    if unit.reduced.n_elements == 1:
        return Reaction((formed,), (formed,), 0.0)
    phases = phases_inside(with_entry, entry.composition.atomic_numbers)
    compositions = [phase.composition for phase in phases.entries]
    distances = with_entry.distances_from_hull(compositions, phases.energies)
    rivals = np.flatnonzero((distances < ON_HULL) & np.array([phase != entry for phase in phases.entries]))
    fractions = entry_fractions(entry, phases.elements)
    mixture = lowest_mixture(phases.fractions[rivals], phases.energies[rivals], fractions)
    neighbours = [phases.entries[rivals[point]] for point in mixture.points]
    reactants = species_of_mixture(neighbours, mixture.amounts * unit.n_atoms)
    return Reaction(reactants, (formed,), unit.n_atoms * (entry.corrected_energy_per_atom - mixture.energy_per_atom))


def species_of_mixture(entries: Sequence[Entry], atoms: np.ndarray) -> tuple[Species, ...]:
    """Species of a mixture that holds `atoms` (n,) of each entry, most atoms first."""
    units = [formula_unit(entry.composition).n_atoms for entry in entries]
    order = sorted(range(len(entries)), key=lambda i: (-float(atoms[i]), entries[i].id))
    return tuple(
        Species(entries[i].reduced_formula, float(atoms[i]) / units[i], units[i], entries[i].id) for i in order
    )


def entry_fractions(entry: Entry, elements: Sequence[int]) -> np.ndarray:
    """Atomic fractions (k,) of an entry over `elements`."""
    fractions = entry.composition.fractions
    return np.array([fractions.get(z, 0.0) for z in elements])


def _named_entries(hull: Hull, named: Sequence[Composition | Entry]) -> list[Entry]:
    elements = {z for c in named if isinstance(c, Composition) for z in c.atomic_numbers}
    lowest = {entry.composition.reduced.counts: entry for entry in phases_inside(hull, elements).entries}
    missing = sorted(
        {c.reduced_formula for c in named if isinstance(c, Composition) and c.reduced.counts not in lowest}
    )
    if missing:
        raise HullError(
            f"no entry of {', '.join(missing)} in the hull of {len(hull)} entries; add one, or give an Entry with its "
            "energy"
        )
    entries = [lowest[c.reduced.counts] if isinstance(c, Composition) else c for c in named]
    for entry in entries:
        check_entry(entry, level=hull.level)
    return entries


def _null_space(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """A basis of the solutions of ``matrix @ x = 0`` by Gauss-Jordan elimination, exact."""
    rows, n_columns = [list(row) for row in matrix], len(matrix[0])
    pivots: list[int] = []
    for column in range(n_columns):
        done = len(pivots)
        pivot = next((r for r in range(done, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[done], rows[pivot] = rows[pivot], rows[done]
        rows[done] = [value / rows[done][column] for value in rows[done]]
        for r, row in enumerate(rows):
            if r != done and row[column]:
                rows[r] = [value - row[column] * lead for value, lead in zip(row, rows[done], strict=True)]
        pivots.append(column)
    free = [column for column in range(n_columns) if column not in pivots]
    basis = []
    for column in free:
        solution = [Fraction(int(other == column)) for other in range(n_columns)]
        for r, pivot_column in enumerate(pivots):
            solution[pivot_column] = -rows[r][column]
        basis.append(solution)
    return basis


def _smallest_integers(solution: Iterable[Fraction]) -> list[int]:
    values = list(solution)
    multiple = math.lcm(*(value.denominator for value in values))
    integers = [int(value * multiple) for value in values]
    divisor = math.gcd(*integers)
    sign = 1 if sum(value > 0 for value in integers) >= sum(value < 0 for value in integers) else -1
    return [sign * value // divisor for value in integers]


def _names(compositions: Iterable[Composition]) -> str:
    return " + ".join(composition.reduced_formula for composition in compositions)


def _term_text(species: Species) -> str:
    amount = "" if math.isclose(species.amount, 1.0, rel_tol=1e-9) else f"{species.amount:.4g} "
    return f"{amount}{species.reduced_formula}"
