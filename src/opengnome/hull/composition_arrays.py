"""Many compositions as flat arrays: no Python object per composition where millions are handled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals import Composition
from opengnome.crystals.composition import MAX_COUNT
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.errors import HullError


@dataclass(frozen=True, eq=False)
class CompositionArrays:
    """Compositions of n phases: row i has the elements ``atomic_numbers[starts[i]:starts[i + 1]]``."""

    starts: np.ndarray
    """(n + 1,) int64: where each row begins in the two arrays below; rows are not empty."""
    atomic_numbers: np.ndarray
    """(m,) int64, ascending within a row."""
    counts: np.ndarray
    """(m,) int64 numbers of atoms, positive; only their ratio within a row matters to a hull."""

    @classmethod
    def from_compositions(cls, compositions: Sequence[Composition]) -> "CompositionArrays":
        lengths = np.fromiter((len(c.counts) for c in compositions), dtype=np.int64, count=len(compositions))
        pairs = chain.from_iterable(chain.from_iterable(c.counts for c in compositions))
        flat = np.fromiter(pairs, dtype=np.int64, count=2 * int(lengths.sum())).reshape(-1, 2)
        return cls(starts_of(lengths), np.ascontiguousarray(flat[:, 0]), np.ascontiguousarray(flat[:, 1]))

    @classmethod
    def from_counts(cls, starts: ArrayLike, atomic_numbers: ArrayLike, counts: ArrayLike) -> "CompositionArrays":
        """From arrays as described at the fields; elements of a row may be in any order.

        Raises `HullError` for lengths that do not fit, an empty row, an unknown element, an element twice in a
        row, or a count that is not a positive integer; the message has the first row at fault.
        """
        given_starts, elements, amounts = np.asarray(starts), np.asarray(atomic_numbers), np.asarray(counts)
        _check_shapes(given_starts, elements, amounts)
        lengths = np.diff(given_starts).astype(np.int64)
        row = np.repeat(np.arange(len(lengths)), lengths)
        _refuse(
            row,
            (elements < 1) | (elements > MAX_ATOMIC_NUMBER) | (elements != elements.astype(np.int64)),
            elements,
            f"has the atomic number {{}}, which is outside 1..{MAX_ATOMIC_NUMBER}",
        )
        with np.errstate(invalid="ignore"):
            whole = (amounts > 0) & (amounts <= MAX_COUNT) & (amounts == np.floor(amounts))
        _refuse(row, ~whole, amounts, f"has the count {{}}; counts are positive integers up to {MAX_COUNT}")
        order = np.lexsort((elements, row))
        elements, amounts = elements[order].astype(np.int64), amounts[order].astype(np.int64)
        twice = np.append(False, (row[1:] == row[:-1]) & (elements[1:] == elements[:-1]))
        _refuse(row, twice, elements, "has the element {} twice; add its counts up")
        return cls(starts_of(lengths), elements, amounts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Composition:
        return Composition(self.pairs(row))

    def __iter__(self) -> Iterator[Composition]:
        return (self[row] for row in range(len(self)))

    def pairs(self, row: int) -> tuple[tuple[int, int], ...]:
        """(atomic number, count) pairs of one row, as `Composition.counts`."""
        part = slice(self.starts[row], self.starts[row + 1])
        return tuple(zip(self.atomic_numbers[part].tolist(), self.counts[part].tolist(), strict=True))

    @cached_property
    def n_elements(self) -> np.ndarray:
        """(n,) number of elements of each row."""
        return np.diff(self.starts)

    @cached_property
    def fractions(self) -> np.ndarray:
        """(m,) atomic fractions, in the order of `atomic_numbers`; each row sums to one."""
        return self.counts / np.repeat(self.sums(self.counts), self.n_elements)

    @cached_property
    def reduced(self) -> "CompositionArrays":
        """The same stoichiometries in the smallest integers."""
        if not len(self):
            return self
        divisors = np.gcd.reduceat(self.counts, self.starts[:-1])
        counts = self.counts // np.repeat(divisors, self.n_elements)
        return CompositionArrays(self.starts, self.atomic_numbers, counts)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(n,) sums of `values` (m,) over the elements of each row."""
        return np.add.reduceat(values, self.starts[:-1]) if len(self) else values[:0]

    def means(self, of_element: np.ndarray) -> np.ndarray:
        """(n,) composition-weighted means of a property of the elements, by atomic number (119,)."""
        return self.sums(self.fractions * of_element[self.atomic_numbers])

    def take(self, rows: np.ndarray) -> "CompositionArrays":
        """The compositions of these rows, in this order."""
        lengths = self.n_elements[rows]
        flat = ranges(self.starts[rows], lengths)
        return CompositionArrays(starts_of(lengths), self.atomic_numbers[flat], self.counts[flat])

    def insert(self, positions: np.ndarray, new: "CompositionArrays") -> "CompositionArrays":
        """With the rows of `new` put before the rows `positions` of this table (as `np.insert` does)."""
        lengths = np.insert(self.n_elements, positions, new.n_elements)
        flat = np.repeat(self.starts[positions], new.n_elements)
        return CompositionArrays(
            starts_of(lengths),
            np.insert(self.atomic_numbers, flat, new.atomic_numbers),
            np.insert(self.counts, flat, new.counts),
        )

    def dense(self, elements: Sequence[int]) -> np.ndarray:
        """(n, k) atomic fractions over these elements, which include all that occur."""
        column_of = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=np.int64)
        column_of[list(elements)] = np.arange(len(elements))
        fractions = np.zeros((len(self), len(elements)))
        rows = np.repeat(np.arange(len(self)), self.n_elements)
        fractions[rows, column_of[self.atomic_numbers]] = self.fractions
        return fractions

    def same_rows(self, rows: np.ndarray, other: "CompositionArrays", other_rows: np.ndarray) -> np.ndarray:
        """(r,) bool: whether row ``rows[i]`` here equals row ``other_rows[i]`` there, counts as given."""
        lengths = self.n_elements[rows]
        same = lengths == other.n_elements[other_rows]
        shared = np.flatnonzero(same)
        mine = ranges(self.starts[rows[shared]], lengths[shared])
        theirs = ranges(other.starts[other_rows[shared]], lengths[shared])
        differs = self.atomic_numbers[mine] != other.atomic_numbers[theirs]
        differs |= self.counts[mine] != other.counts[theirs]
        same[np.repeat(shared, lengths[shared])[differs]] = False
        return same


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """(n + 1,) running start of n consecutive pieces of these lengths."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def ranges(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers ``first[i] .. first[i] + lengths[i] - 1`` of every i, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(first - ends + lengths, lengths) + np.arange(total)


def _check_shapes(starts: np.ndarray, elements: np.ndarray, counts: np.ndarray) -> None:
    if starts.ndim != 1 or not len(starts) or elements.ndim != 1 or elements.shape != counts.shape:
        raise HullError(
            f"compositions need starts (n + 1,), atomic numbers (m,) and counts (m,), got the shapes "
            f"{starts.shape}, {elements.shape} and {counts.shape}"
        )
    if starts[0] != 0 or starts[-1] != len(elements) or np.any(np.diff(starts) < 0):
        raise HullError(f"the starts of compositions ascend from 0 to {len(elements)}, the number of elements listed")
    empty = np.flatnonzero(np.diff(starts) == 0)
    if len(empty):
        raise HullError(f"row {empty[0]} is an empty composition; every row needs at least one element")


def _refuse(row: np.ndarray, wrong: np.ndarray, values: np.ndarray, what: str) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise HullError(f"the composition of row {row[first]} " + what.format(values[first]))
