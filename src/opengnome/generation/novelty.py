"""Is a composition known? Answered for whole arrays of compositions at once.

A reduced composition is hashed to the sum over its elements of count times a random 64-bit number. Two
different compositions share a key with probability 2^-64, so that even 10^9 candidates against 10^5 known
formulas meet a false match with probability 10^-5.
"""

from functools import lru_cache

import numpy as np

from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER

# Any fixed numbers do: keys are compared inside one process and never stored.
_ELEMENT_KEYS = np.random.default_rng(2**31 - 1).integers(0, 2**64, size=MAX_ATOMIC_NUMBER + 1, dtype=np.uint64)


def composition_keys(atomic_numbers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """One integer per composition, equal for equal stoichiometry.

    Row i holds the elements `atomic_numbers[i]` with `counts[i]` atoms; both of shape (m, s). An element may
    stand in several columns, and a count may be zero. Returns uint64, shape (m,).
    """
    merged = counts.astype(np.int64)
    for later in range(1, merged.shape[1]):
        for earlier in range(later):
            moved = np.where(atomic_numbers[:, earlier] == atomic_numbers[:, later], merged[:, later], 0)
            merged[:, earlier] += moved
            merged[:, later] -= moved
    divisor = np.gcd.reduce(merged, axis=1)
    reduced = (merged // np.maximum(divisor, 1)[:, None]).astype(np.uint64)
    return (reduced * _ELEMENT_KEYS[atomic_numbers]).sum(axis=1, dtype=np.uint64)


@lru_cache(maxsize=4)
def known_composition_keys(formulas: frozenset[str]) -> np.ndarray:
    """Sorted keys of reduced formulas; kept, because many shards ask about the same known set.

    Raises `InvalidCrystalError` when a formula cannot be read.
    """
    compositions = [Composition.from_formula(formula).counts for formula in formulas]
    width = max((len(counts) for counts in compositions), default=1)
    table = np.zeros((len(compositions), width, 2), dtype=np.int64)
    for row, counts in zip(table, compositions, strict=True):
        row[: len(counts)] = counts
    return np.sort(composition_keys(table[..., 0], table[..., 1]))


def is_known(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether each key is among the sorted `known` ones; boolean, the shape of `keys`."""
    if not len(known):
        return np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return known[place] == keys
