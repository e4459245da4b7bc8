"""Subsets of equivalent sites, one per symmetry class.

A group of permutations of n sites also permutes the subsets of k sites. Two subsets in one class decorate
a crystal into the same crystal, so one representative per class is enough: the lexicographically smallest
image of the sorted subset.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

ENUMERATION_LIMIT = 5_000
"""With more subsets of one size than this, subsets are drawn instead of listed."""

_DRAWS_PER_SUBSET = 4  # subsets drawn per one wanted, because several may fall into one class
_BITS_PER_WORD = 50  # integers up to 2^50 are exact in float64, so that a matrix product can build them


def unique_subsets(permutations: np.ndarray, size: int, *, max_subsets: int, rng: np.random.Generator) -> np.ndarray:
    """Representatives of the classes of `size`-site subsets under a permutation group.

    `permutations` is the whole group, shape (n_operations, n_sites): operation o takes site i to
    permutations[o, i]. Returns sorted subsets, shape (m, size), in lexicographic order. All classes are
    found when there are at most `ENUMERATION_LIMIT` subsets; when more than `max_subsets` classes are found,
    that many are drawn at random, each with equal probability. Beyond the limit unions of whole orbits come first,
    which uniform draws would hardly meet, and the rest is drawn uniformly, which favours classes with many members.
    """
    n_sites = permutations.shape[1]
    if not 1 <= size <= n_sites:
        raise ValueError(f"{size=} must be between 1 and the number of sites, {n_sites}")
    if math.comb(n_sites, size) <= ENUMERATION_LIMIT:
        unions = np.empty((0, size), dtype=np.int64)
        subsets = np.array(list(combinations(range(n_sites), size)))
    else:
        unions = orbit_unions(permutations, size, max_subsets=max_subsets)
        draws = rng.random((_DRAWS_PER_SUBSET * max_subsets, n_sites))
        subsets = np.sort(np.argpartition(draws, size - 1, axis=1)[:, :size], axis=1)
    classes = np.unique(canonical_subsets(permutations, subsets), axis=0)
    n_wanted = max_subsets - len(unions)
    if len(classes) > n_wanted:
        classes = classes[np.sort(rng.choice(len(classes), n_wanted, replace=False))]
    return np.unique(np.concatenate([unions, classes]), axis=0) if len(unions) else classes


def orbit_unions(permutations: np.ndarray, size: int, *, max_subsets: int) -> np.ndarray:
    """Unions of whole orbits of the group with `size` sites, sorted, at most `max_subsets` of them; (m, size).

    The group leaves each in place, so that no two are in one class. Shapes as in `unique_subsets`.
    """
    orbits = [np.unique(permutations[:, site]) for site in _first_sites(permutations)]
    reachable = _reachable_sizes([len(orbit) for orbit in orbits])
    found: list[np.ndarray] = []
    stack: list[tuple[int, tuple[int, ...], int]] = [(0, (), 0)]
    while stack and len(found) < max_subsets:
        position, chosen, n_sites = stack.pop()
        if n_sites == size:
            found.append(np.sort(np.concatenate([orbits[i] for i in chosen])))
        elif reachable[position] >> (size - n_sites) & 1:  # else no union of the orbits that are left fits
            stack.append((position + 1, chosen, n_sites))
            if n_sites + len(orbits[position]) <= size:
                stack.append((position + 1, (*chosen, position), n_sites + len(orbits[position])))
    return np.array(sorted(found, key=lambda union: union.tolist()), dtype=np.int64).reshape(-1, size)


def _reachable_sizes(lengths: Sequence[int]) -> list[int]:
    """Sums of any of `lengths` from each position on, as the bits of a number."""
    sums = [1]
    for length in reversed(lengths):
        sums.append(sums[-1] | sums[-1] << length)
    return sums[::-1]


def n_orbit_unions(permutations: np.ndarray) -> list[int]:
    """Number of unions of whole orbits with 0, 1, ... n_sites sites."""
    numbers = [1] + [0] * permutations.shape[1]
    for site in _first_sites(permutations):
        length = len(np.unique(permutations[:, site]))
        numbers = [n + (numbers[k - length] if k >= length else 0) for k, n in enumerate(numbers)]
    return numbers


def _first_sites(permutations: np.ndarray) -> list[int]:
    """The first site of every orbit."""
    return np.unique(permutations.min(axis=0)).tolist()


def canonical_subsets(permutations: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    """Lexicographically smallest image of each subset under the group; shapes as in `unique_subsets`."""
    n_sites, size = permutations.shape[1], subsets.shape[1]
    members = np.zeros((len(subsets), n_sites))
    np.put_along_axis(members, subsets, 1.0, axis=1)

    # An image is read as a binary number whose leading bit is site 0: the largest number is the smallest
    # sorted tuple.
    alive = np.ones((len(subsets), len(permutations)), dtype=bool)
    smallest = np.zeros((len(subsets), n_sites), dtype=bool)
    for start in range(0, n_sites, _BITS_PER_WORD):
        places = np.arange(start, min(start + _BITS_PER_WORD, n_sites))
        weights = np.zeros(n_sites)
        weights[places] = 2.0 ** np.arange(len(places))[::-1]
        images = np.where(alive, members @ weights[permutations].T, -1.0)
        largest = images.max(axis=1)
        alive &= images == largest[:, None]
        bits = largest.astype(np.int64)[:, None] >> np.arange(len(places))[::-1]
        smallest[:, places] = bits & 1
    return np.nonzero(smallest)[1].reshape(-1, size)


def n_unique_subsets(permutations: np.ndarray) -> list[int]:
    """Number of classes of subsets of 0, 1, ... n_sites sites under a permutation group.

    By Burnside's lemma with Polya's generating function: the mean over the operations of the product of
    (1 + x^length) over the cycles of each, whose coefficient of x^k counts the k-subsets left in place.
    """
    n_operations, n_sites = permutations.shape
    fixed = [0] * (n_sites + 1)
    for lengths, multiplicity in Counter(map(_cycle_lengths, permutations.tolist())).items():
        polynomial = [1] + [0] * n_sites
        for length in lengths:
            polynomial = [value + (polynomial[k - length] if k >= length else 0) for k, value in enumerate(polynomial)]
        fixed = [total + multiplicity * value for total, value in zip(fixed, polynomial, strict=True)]
    return [total // n_operations for total in fixed]


def _cycle_lengths(permutation: list[int]) -> tuple[int, ...]:
    lengths, seen = [], [False] * len(permutation)
    for start in range(len(permutation)):
        site, length = start, 0
        while not seen[site]:
            seen[site] = True
            site = permutation[site]
            length += 1
        if length:
            lengths.append(length)
    return tuple(sorted(lengths))
