"""Average oxidation states guessed from a composition, the way pymatgen guesses them.

Energy corrections ask whether an element is an anion. pymatgen answers with the charge-neutral combination of common
oxidation states that is most frequent in the ICSD (`Composition.oxi_state_guesses`); the same rule is here, with its
own copy of the table, because a correction must not change when another library updates a table. Where pymatgen
enumerates every combination of states, sums are built up element by element, which finds the same one in a
fraction of a millisecond.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS, ELECTRONEGATIVITIES, SYMBOLS

MAX_ATOMS = 20
"""Reduced formulas of more atoms are not guessed; the limit of the Materials Project corrections."""

_TABLE = """
H +1:1788 -1:1002 | Li +1:1773 | Be +2:249 | B +3:1722 -3:47 | C +2:372 +3:178 +4:858 -4:248 -3:40 -2:155
N +1:35 +3:173 +5:217 -1:93 -3:2141 -2:75 | O -2:44783 | F -1:7473 | Na +1:3060 | Mg +2:545 | Al +3:1141
Si -4:71 +4:2368 | P +3:69 +4:173 +5:3000 -2:68 -3:379 -1:112 | S -1:276 +2:90 +4:239 -2:5711 +6:459
Cl -1:4371 | K +1:3112 | Ca +2:1332 | Sc +2:20 +3:252 | Ti +2:39 +3:119 +4:665 | V +2:34 +3:151 +4:225 +5:527
Cr +2:102 +3:323 +4:37 +5:46 +6:116 | Mn +2:577 +3:256 +4:127 +7:13 | Fe +2:340 +3:549
Co +1:22 +2:333 +3:93 +4:18 | Ni +1:17 +2:407 +3:62 +4:14 | Cu +1:887 +2:835 +3:33 | Zn +2:1389 | Ga +2:19 +3:642
Ge +2:51 +3:38 +4:735 | As +2:28 +3:225 +5:518 -2:54 -3:404 -1:36 | Se -1:253 +4:352 -2:2441 +6:76
Br +5:22 -1:1625 | Kr +2:0 | Rb +1:1543 | Sr +2:1447 | Y +3:460 | Zr +2:17 +3:26 +4:352
Nb +2:16 +3:50 +4:105 +5:564 | Mo +2:29 +3:78 +4:56 +5:85 +6:590 | Tc +4:0 +7:0
Ru +2:14 +3:22 +4:59 +5:81 +6:11 | Rh +3:71 +4:25 | Pd +2:211 +4:22 | Ag +1:966 +2:32 +3:17 | Cd +2:1089
In +1:62 +2:22 +3:478 | Sn +2:232 +3:19 +4:387 | Sb -2:68 +3:507 +5:418 -1:28 -3:214
Te -2:749 +4:582 -1:137 +6:187 | I +5:210 -1:2357 | Xe +2:0 +4:0 +6:0 | Cs +1:1231 | Ba +2:2373 | La +2:16 +3:838
Ce +3:192 +4:44 | Pr +3:435 +4:32 | Nd +2:15 +3:536 | Pm +3:0 | Sm +2:25 +3:365 | Eu +2:83 +3:109 | Gd +3:235
Tb +3:209 +4:30 | Dy +3:258 | Ho +3:271 | Er +3:302 | Tm +3:154 | Yb +2:37 +3:227 | Lu +3:179 | Hf +4:123
Ta +3:15 +4:51 +5:442 | W +2:20 +3:11 +4:18 +5:31 +6:411 | Re +3:56 +4:40 +5:48 +6:40 +7:77 | Os +4:0
Ir +3:22 +4:56 +5:39 | Pt +2:0 +4:0 | Au +3:0 | Hg +1:100 +2:590 | Tl +1:698 +3:95 | Pb +2:604 +4:58
Bi +1:19 +2:13 +3:793 +5:46 | Po -2:0 +2:0 +4:0 | At -1:0 +1:0 | Fr +1:0 | Ra +2:0 | Ac +3:0 | Th +4:119 | Pa +5:0
U +3:17 +4:122 +5:49 +6:269 | Np +5:0 | Pu +4:0 | Am +3:0 | Cm +3:0 | Bk +3:0 | Cf +3:0 | Es +3:0 | Fm +3:0 | Md +3:0
No +3:0 | Lr +3:0 | Rf +4:0
"""
"""``state:occurrences`` of each element, as in pymatgen-core 2026.10 (MIT licence).

The states are those it finds in the ICSD (the common ones where the ICSD has too few), in its order, which decides
between combinations that are equally frequent. Elements that are not listed have no states.
"""


@lru_cache(maxsize=1)
def _states() -> dict[int, tuple[tuple[int, int], ...]]:
    """(state in e, occurrences) pairs by atomic number."""
    table = {}
    for element in _TABLE.replace("\n", " | ").split("|"):
        if element.strip():
            symbol, *states = element.split()
            pairs = (state.split(":") for state in states)
            table[ATOMIC_NUMBERS[symbol]] = tuple((int(state), int(occurrences)) for state, occurrences in pairs)
    return table


def guess_oxidation_states(composition: Composition) -> Mapping[int, float]:
    """Oxidation state in e by atomic number, averaged over the atoms of an element; empty when there is none.

    None exists when no combination of common states is neutral (intermetallics, odd stoichiometries), when an
    element has no states (noble gases), and none is sought beyond `MAX_ATOMS` atoms per reduced formula. A pure
    element has zero. Combinations that are equally frequent are told apart by the order of elements in the reduced
    formula, so the answer does not depend on how the composition was given.
    """
    return dict(_guess(_formula_counts(composition)))


def formula_order(z: int) -> tuple[float, str]:
    """Key that sorts elements as a reduced formula does: electronegativity, then symbol; NaN first.

    The last element is the most electronegative one. An element without an electronegativity (He, Ne, Ar and
    the heaviest) is never that, unless it is alone.
    """
    x = ELECTRONEGATIVITIES[z]
    return (-math.inf if math.isnan(x) else x, SYMBOLS[z])


def _formula_counts(composition: Composition) -> tuple[tuple[int, int], ...]:
    """Atoms of the reduced formula as it is written (Li2O2, not LiO), in the order of the formula."""
    # pymatgen reduces as the formula reads; the average over Li2O2 allows states that LiO does not.
    written = Composition.from_formula(composition.reduced_formula)
    return tuple(sorted(written.counts, key=lambda pair: formula_order(pair[0])))


@lru_cache(maxsize=65536)
def _guess(counts: tuple[tuple[int, int], ...]) -> tuple[tuple[int, float], ...]:
    if len(counts) == 1:
        return ((counts[0][0], 0.0),)
    if sum(count for _, count in counts) > MAX_ATOMS:
        return ()
    # Best way to each total charge: occurrences, then the places of the charges in the elements' lists. Of two ways
    # to one total the more frequent wins, then the earlier, as in a stable sort of all combinations.
    ways: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    charges = [_charges(z, count) for z, count in counts]
    for options in charges:
        longer: dict[int, tuple[int, tuple[int, ...]]] = {}
        for total, (occurrences, places) in ways.items():
            for place, (charge, more) in enumerate(options):
                way = (occurrences + more, (*places, place))
                known = longer.get(total + charge)
                if known is None or (-way[0], way[1]) < (-known[0], known[1]):
                    longer[total + charge] = way
        ways = longer
    if 0 not in ways:
        return ()
    chosen = [options[place][0] for options, place in zip(charges, ways[0][1], strict=True)]
    return tuple((z, charge / count) for (z, count), charge in zip(counts, chosen, strict=True))


@lru_cache(maxsize=4096)
def _charges(z: int, count: int) -> tuple[tuple[int, int], ...]:
    """(charge, occurrences) pairs: every total charge of `count` atoms and its most frequent combination.

    In the order in which the charges first appear when combinations are listed with the first states first.
    """
    return tuple(_combinations(_states().get(z, ()), count).items())


def _combinations(states: tuple[tuple[int, int], ...], count: int) -> dict[int, int]:
    """Occurrences by total charge of `count` atoms in these states; see `_charges`."""
    if not states:
        return {} if count else {0: 0}
    (state, occurrences), *others = states
    best: dict[int, int] = {}
    for n in range(count, -1, -1):  # most atoms in the first state first: the order of the list
        for charge, more in _combinations(tuple(others), count - n).items():
            total = charge + n * state
            # The place in the list is that of the first combination, the occurrences those of the best.
            best[total] = max(best.get(total, 0), more + n * occurrences)
    return best
