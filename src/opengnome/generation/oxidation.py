"""Oxidation states of a composition: one integer per element, neutral in sum, as common as possible."""

from functools import lru_cache

import numpy as np

from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import ELECTRONEGATIVITIES
from opengnome.generation.ions import SpeciesTable, species_table


def oxidation_states(composition: Composition) -> dict[int, int] | None:
    """Oxidation state by atomic number, or none when no neutral assignment exists.

    Every element gets one integer state that the substitution model knows. Of the neutral assignments the
    one with the largest product of ICSD frequencies wins. Intermetallics, elements, and compounds
    that need mixed valence (Fe3O4) have none.
    """
    ions = assign_ions(composition)
    if ions is None:
        return None
    table = species_table()
    return {int(table.atomic_numbers[i]): int(table.charges[i]) for i in ions}


def assign_ions(composition: Composition) -> tuple[int, ...] | None:
    """As `oxidation_states`, but as positions in the species table, in the order of `composition.counts`."""
    return _assign_ions(composition.reduced.counts)


def usual_ions(composition: Composition) -> tuple[int, ...] | None:
    """An ion for each element whether or not they balance: for intermetallics and mixed valence.

    The most electronegative element takes its most frequent anion, the others their most frequent cation; an element
    that has only the other sign takes that. Positions in the species table, in the order of `composition.counts`;
    none when the model does not know an element.
    """
    table = species_table()
    elements = composition.atomic_numbers
    if any(z not in table.states for z in elements):
        return None
    anion = max(elements, key=lambda z: np.nan_to_num(ELECTRONEGATIVITIES[z])) if len(elements) > 1 else None
    return tuple(_most_frequent(table, z, negative=z == anion) for z in elements)


def _most_frequent(table: SpeciesTable, z: int, *, negative: bool) -> int:
    states = np.array(table.states[z])
    wanted = states[(table.charges[states] < 0) == negative]
    options = wanted if len(wanted) else states
    return int(options[table.frequencies[options].argmax()])


@lru_cache(maxsize=65536)
def _assign_ions(counts: tuple[tuple[int, int], ...]) -> tuple[int, ...] | None:
    table = species_table()
    if any(z not in table.states for z, _ in counts):
        return None
    options = [_options(table, z, count) for z, count in counts]
    lowest = np.append(np.cumsum([min(charge for charge, _, _ in o) for o in options][::-1])[::-1], 0)
    highest = np.append(np.cumsum([max(charge for charge, _, _ in o) for o in options][::-1])[::-1], 0)
    likeliest = np.append(np.cumsum([o[0][1] for o in options][::-1])[::-1], 0.0)
    best_score, best_ions = -np.inf, None

    # Depth first, likeliest state first; a branch ends when the rest cannot balance its charge, or when it
    # cannot beat the best.
    stack: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    while stack:
        charge, score, ions = stack.pop()
        depth = len(ions)
        if score + likeliest[depth] <= best_score or not lowest[depth] <= -charge <= highest[depth]:
            continue
        if depth == len(options):
            best_score, best_ions = score, ions
            continue
        for added, frequency, ion in reversed(options[depth]):
            stack.append((charge + added, score + frequency, (*ions, ion)))
    return best_ions


def _options(table: SpeciesTable, z: int, count: int) -> list[tuple[int, float, int]]:
    """(total charge of all atoms, log frequency, ion) of each state of an element, likeliest first."""
    states = table.states[z]
    options = [(count * int(table.charges[i]), float(np.log(table.frequencies[i])), int(i)) for i in states]
    return sorted(options, key=lambda option: (-option[1], option[2]))
