"""Chemical systems by number: any place of the list is computed from its number, so that nothing is kept.

The systems of 2, 3, ... elements out of n are numbered, fewest elements first and lexicographic within; a
shuffled order is a permutation of the numbers, computed by a keyed Feistel network.
"""

import hashlib
from math import comb

from opengnome.errors import SettingsError

_ROUNDS = 6


def n_systems(n_elements: int, smallest: int, largest: int) -> int:
    """Number of sets of `smallest` to `largest` elements out of `n_elements`."""
    return sum(comb(n_elements, size) for size in range(smallest, largest + 1))


def system_at(index: int, elements: tuple[int, ...], smallest: int, largest: int) -> tuple[int, ...]:
    """The system of that number, its elements in the order of `elements`.

    Raises `SettingsError` when there is none.
    """
    rest = index
    for size in range(smallest, largest + 1):
        if 0 <= rest < comb(len(elements), size):
            return tuple(elements[place] for place in _combination(rest, len(elements), size))
        rest -= comb(len(elements), size)
    total = n_systems(len(elements), smallest, largest)
    raise SettingsError(f"chemical system {index} of {total}: the number must be from 0 to {total - 1}")


def _combination(index: int, n: int, size: int) -> list[int]:
    """The `index`-th of the lexicographically ordered `size`-subsets of range(n)."""
    places: list[int] = []
    candidate = 0
    while size:
        starting_here = comb(n - candidate - 1, size - 1)
        if index < starting_here:
            places.append(candidate)
            size -= 1
        else:
            index -= starting_here
        candidate += 1
    return places


def shuffled(position: int, total: int, seed: int) -> int:
    """Where a seeded permutation of range(total) takes `position`; no table, any size.

    A Feistel network permutes the next larger power of four; numbers beyond `total` are permuted again until
    they fall inside, which keeps it a permutation.
    """
    half_bits = max(1, ((total - 1).bit_length() + 1) // 2)
    value = position
    while True:
        value = _feistel(value, half_bits, seed)
        if value < total:
            return value


def _feistel(value: int, half_bits: int, seed: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for number in range(_ROUNDS):
        digest = hashlib.blake2b(f"{seed}|{number}|{right}".encode(), digest_size=8).digest()
        left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
    return (left << half_bits) | right
