"""All plausible formulas of a chemical system up to a number of atoms.

Two ways to the same answer. The filter judges every count vector. The dynamic program works per division of
the elements into cations and anions: for all counts of one half of the elements it builds the set of charges they
can reach with at most 0, 1, 2 elements between their states, a set being the bits of an integer, and then asks
for each pair of halves whether a charge of one cancels a charge of the other. The halves are few (153 for two
elements of at most 18 atoms) where the count vectors are many (38,760 for six elements of at most 20 atoms), so
that this is faster for every number of elements (`benchmarks/composition_rule.py`). The filter remains for rules
without ions.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np

from opengnome.generation.charge_rule import ChargeRanges, accepted, allowed_signs, charge_ranges, is_metallic
from opengnome.generation.composition_settings import CompositionRuleSettings


def enumerate_counts(elements: np.ndarray, *, max_atoms: int, rule: CompositionRuleSettings) -> np.ndarray:
    """Counts of every reduced formula with all of `elements`, shape (s,), that the rule accepts.

    Shape (m, s), int64, in lexicographic order; at most `max_atoms` atoms per formula unit.
    """
    if len(elements) < 2 or not rule.require_ions:
        return enumerate_by_filter(elements, max_atoms=max_atoms, rule=rule)
    return enumerate_by_charges(elements, max_atoms=max_atoms, rule=rule)


def n_count_vectors(n_elements: int, max_atoms: int) -> int:
    """Count vectors with every count positive and a sum of at most `max_atoms`, reduced or not."""
    return comb(max_atoms, n_elements)


def enumerate_by_filter(elements: np.ndarray, *, max_atoms: int, rule: CompositionRuleSettings) -> np.ndarray:
    """As `enumerate_counts`, by judging every count vector."""
    counts = reduced_counts(len(elements), max_atoms)
    return counts[accepted(np.broadcast_to(elements, counts.shape), counts, rule)]


def enumerate_by_charges(elements: np.ndarray, *, max_atoms: int, rule: CompositionRuleSettings) -> np.ndarray:
    """As `enumerate_counts`, by dynamic programming over charges; the rule must `require_ions`."""
    counts = reduced_counts(len(elements), max_atoms)
    if is_metallic(elements[None], rule)[0]:
        return counts
    half = len(elements) // 2
    halves = ((0, half), (half, len(elements)))
    steps = np.arange(1, max_atoms + 1)[:, None] * np.ones_like(elements)
    ranges = charge_ranges(np.broadcast_to(elements, steps.shape), steps, rule)
    possible = ranges.possible[:, 0]
    rows = _half_rows(len(elements), max_atoms)
    found = np.zeros(len(counts), dtype=bool)
    for signs in allowed_signs(elements, rule):
        if not possible[signs, np.arange(len(elements))].all():
            continue
        sums = [_reachable(ranges, signs, start, stop, max_atoms, rule.max_between) for start, stop in halves]
        open_rows = np.flatnonzero(~found)
        found[open_rows] = _cancel(sums[0], sums[1], rows[0][open_rows], rows[1][open_rows])
    return counts[found]


@lru_cache(maxsize=16)
def reduced_counts(n_elements: int, max_atoms: int) -> np.ndarray:
    """Every count vector without a common divisor, at most `max_atoms` atoms; read-only, shape (m, n_elements)."""
    counts = _count_vectors(n_elements, max_atoms)
    counts = counts[np.gcd.reduce(counts, axis=1) == 1] if n_elements else counts
    counts.setflags(write=False)
    return counts


def _count_vectors(n_elements: int, max_atoms: int) -> np.ndarray:
    """All count vectors in lexicographic order: the differences of every choice of n marks out of 1..max_atoms."""
    n_marks = comb(max_atoms, n_elements) * n_elements
    flat = (mark for marks in combinations(range(1, max_atoms + 1), n_elements) for mark in marks)
    marks = np.fromiter(flat, dtype=np.int64, count=n_marks).reshape(-1, n_elements)
    return np.diff(marks, axis=1, prepend=0)


@lru_cache(maxsize=16)
def _half_rows(n_elements: int, max_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `reduced_counts`, the rows of its two halves among those of `_half_counts`."""
    counts, half = reduced_counts(n_elements, max_atoms), n_elements // 2
    found = []
    for part in (counts[:, :half], counts[:, half:]):
        base = (max_atoms + 1) ** np.arange(part.shape[1])[::-1]
        every = _half_counts(part.shape[1], max_atoms - (n_elements - part.shape[1])) @ base
        found.append(np.searchsorted(every, part @ base))
    return found[0], found[1]


@lru_cache(maxsize=16)
def _half_counts(n_elements: int, max_atoms: int) -> np.ndarray:
    return _count_vectors(n_elements, max_atoms)


def _reachable(
    ranges: ChargeRanges, signs: np.ndarray, start: int, stop: int, max_atoms: int, max_between: int
) -> np.ndarray:
    """Charges that the elements `start` to `stop` reach, for each of their count vectors.

    Row i holds, for at most k = 0..max_between elements between their states, the bits of the set: bit
    c + bound stands for the charge c, or for -c in the second half, so that cancelling sets have a bit in common.
    Shape (n_vectors, max_between + 1, n_words), uint64.
    """
    bound = int(max(np.abs(ranges.lowest).max(), np.abs(ranges.highest).max()))
    direction = 1 if start == 0 else -1
    sets: dict[tuple[int, ...], list[int]] = {(): [1 << bound] * (max_between + 1)}
    largest = max_atoms - (len(signs) - (stop - start))
    for column in range(start, stop):
        left = stop - column - 1
        steps = [_Step.of(ranges, int(signs[column]), row, column, direction) for row in range(max_atoms)]
        sets = {
            (*counts, n): steps[n - 1].extend(charges)
            for counts, charges in sets.items()
            for n in range(1, largest - sum(counts) - left + 1)
        }
    n_bytes = 8 * ((2 * bound) // 64 + 1)
    packed = b"".join(charges.to_bytes(n_bytes, "little") for row in sets.values() for charges in row)
    return np.frombuffer(packed, dtype="<u8").reshape(len(sets), max_between + 1, -1)


@dataclass(frozen=True)
class _Step:
    """One more element with its count: what it adds to a set of charges."""

    exact: tuple[int, ...]
    """Total charges of its oxidation states."""
    lowest: int
    length: int
    """Number of whole charges from the lowest to the highest."""

    @classmethod
    def of(cls, ranges: ChargeRanges, sign: int, row: int, column: int, direction: int) -> "_Step":
        place = (sign, row, column)
        exact = direction * ranges.exact[place][ranges.has[place]]
        ends = direction * int(ranges.lowest[place]), direction * int(ranges.highest[place])
        return cls(tuple(exact.tolist()), min(ends), max(ends) - min(ends) + 1)

    def extend(self, charges: list[int]) -> list[int]:
        """Sets with at most k elements between their states, k = 0, 1, ..., with this element added."""
        extended = []
        before = 0  # the set with one free element less
        for reached in charges:
            new = 0
            for charge in self.exact:
                new |= _shifted(reached, charge)
            extended.append(new | self._spread(before))
            before = reached
        return extended

    def _spread(self, charges: int) -> int:
        """The charges plus everything between the lowest and the highest of the element."""
        spread, covered = charges, 1
        while covered < self.length:
            step = min(covered, self.length - covered)
            spread |= spread << step
            covered += step
        return _shifted(spread, self.lowest)


def _shifted(charges: int, by: int) -> int:
    return charges << by if by >= 0 else charges >> -by


def _cancel(first: np.ndarray, second: np.ndarray, rows: np.ndarray, other_rows: np.ndarray) -> np.ndarray:
    """Whether charges of row `rows[i]` of `first` cancel charges of row `other_rows[i]` of `second`, shape (m,)."""
    max_between = first.shape[1] - 1
    met = np.zeros(len(rows), dtype=bool)
    for k in range(max_between + 1):
        common = first[rows, k] & second[other_rows, max_between - k]
        met |= common.any(axis=1)
    return met
