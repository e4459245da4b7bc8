"""Which oxidation states the composition rule found: a line of text for people and for provenance."""

from functools import lru_cache
from itertools import combinations
from math import log

import numpy as np

from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import ELECTRONEGATIVITIES, SYMBOLS
from opengnome.generation.charge_rule import ChargeRanges, allowed_signs, charge_ranges, is_metallic
from opengnome.generation.composition_settings import CompositionRuleSettings
from opengnome.generation.composition_states import element_table
from opengnome.generation.ions import species_table

METALLIC = "metallic"
"""Stands for states where metals pass without any."""

_UNSEEN_FREQUENCY = 1e-4  # of a state that the substitution model does not know, zero among them

_Assignment = tuple[tuple[int, ...], tuple[int, ...]]  # total charge of each element, which elements are free


def assigned_states(composition: Composition, rule: CompositionRuleSettings) -> str | None:
    """E.g. ``Li1+ Si(-4..0)``, ``Fe(+2..+3) O2-``, ``Na1+ Cl1-``; none when the rule rejects the composition.

    Elements with a mean charge between two states show both. Of all the assignments the rule allows this has the
    fewest such elements, and then the likeliest states (product of their ICSD frequencies). Intermetallics that
    have no ions are called `METALLIC`. Elements stand in the order of the formula. Raises `SettingsError` for a
    rule that does not require ions, as it assigns nothing.
    """
    reduced = composition.reduced
    elements, counts = (np.array(column) for column in zip(*reduced.counts, strict=True))
    best = _best_assignment(elements, counts, rule)
    if best is None:
        return METALLIC if is_metallic(elements[None], rule)[0] else None
    totals, free = best
    order = sorted(range(len(elements)), key=lambda i: (ELECTRONEGATIVITIES[elements[i]], SYMBOLS[elements[i]]))
    return " ".join(_state_text(int(elements[i]), totals[i], int(counts[i]), is_free=i in free) for i in order)


def _best_assignment(elements: np.ndarray, counts: np.ndarray, rule: CompositionRuleSettings) -> _Assignment | None:
    ranges = charge_ranges(elements[None], counts[None], rule)
    patterns = [_Options.of(ranges, signs, elements, counts) for signs in allowed_signs(elements, rule)]
    for n_free in range(min(rule.max_between, len(elements)) + 1):
        found = [
            solution
            for options in patterns
            for free in combinations(range(len(elements)), n_free)
            if (solution := options.solve(free)) is not None
        ]
        if found:
            return max(found)[1:]
    return None


class _Options:
    """Charges of the elements of one composition, divided into cations and anions."""

    def __init__(self, exact: list[list[tuple[int, float]]], intervals: list[tuple[int, int]]) -> None:
        self.exact = exact
        """Of each element, (total charge, log frequency) of its states."""
        self.intervals = intervals

    @classmethod
    def of(cls, ranges: ChargeRanges, signs: np.ndarray, elements: np.ndarray, counts: np.ndarray) -> "_Options":
        exact, intervals = [], []
        for i, (sign, z, count) in enumerate(zip(signs, elements.tolist(), counts.tolist(), strict=True)):
            place = (int(sign), 0, i)
            totals = ranges.exact[place][ranges.has[place]].tolist()
            exact.append([(total, _log_frequency(z, total // count)) for total in totals])
            intervals.append((int(ranges.lowest[place]), int(ranges.highest[place])))
        return cls(exact, intervals)

    def solve(self, free: tuple[int, ...]) -> tuple[float, tuple[int, ...], tuple[int, ...]] | None:
        """(score, total charges, free) of the likeliest neutral assignment with these free elements, if any."""
        if any(not options for options in self.exact):
            return None
        best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
        for i, options in enumerate(self.exact):
            if i in free:
                best = {charge: (score, (*totals, 0)) for charge, (score, totals) in best.items()}
                continue
            extended: dict[int, tuple[float, tuple[int, ...]]] = {}
            for charge, (score, totals) in best.items():
                for total, likelihood in options:
                    new = (score + likelihood, (*totals, total))
                    extended[charge + total] = max(extended.get(charge + total, new), new)
            best = extended
        lowest, highest = (sum(self.intervals[i][end] for i in free) for end in (0, 1))
        balanced = [(score, totals, charge) for charge, (score, totals) in best.items() if lowest <= -charge <= highest]
        if not balanced:
            return None
        score, totals, charge = max(balanced)
        return score, self._with_free(totals, free, -charge), free

    def _with_free(self, totals: tuple[int, ...], free: tuple[int, ...], missing: int) -> tuple[int, ...]:
        """Share the missing charge among the free elements, each as near to its likeliest state as the rest allows."""
        shared = list(totals)
        for place, i in enumerate(free):
            rest = [self.intervals[j] for j in free[place + 1 :]]
            low = max(self.intervals[i][0], missing - sum(high for _, high in rest))
            high = min(self.intervals[i][1], missing - sum(low for low, _ in rest))
            wanted = max(self.exact[i], key=lambda option: option[1])[0]
            shared[i] = min(max(wanted, low), high)
            missing -= shared[i]
        return tuple(shared)


def _state_text(z: int, total: int, count: int, *, is_free: bool) -> str:
    if total % count == 0 and (not is_free or total // count in (0, *element_table().of(z))):
        charge = total // count
        return f"{SYMBOLS[z]}{abs(charge)}{'+' if charge > 0 else '-' if charge < 0 else ''}"
    states = sorted({0, *element_table().of(z)})
    below = max(state for state in states if state * count <= total)
    above = min(state for state in states if state * count >= total)
    return f"{SYMBOLS[z]}({below:+d}..{above:+d})".replace("+0", "0")


@lru_cache(maxsize=1)
def _frequencies() -> dict[tuple[int, int], float]:
    table = species_table()
    rows = zip(table.atomic_numbers.tolist(), table.charges.tolist(), table.frequencies.tolist(), strict=True)
    return {(z, charge): frequency for z, charge, frequency in rows}


def _log_frequency(z: int, charge: int) -> float:
    return log(_frequencies().get((z, charge), _UNSEEN_FREQUENCY))
