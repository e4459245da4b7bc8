"""Stoichiometries and chemical systems of many compositions as sorted arrays, found by 64-bit keys.

A stoichiometry's key is the sum over its elements of count times a fixed random weight of the element, a
system's key the sum of other weights: both are computed for millions of rows in two array operations, and the
keys of all subsystems of a system in one product. Equal keys are never trusted: rows that share a key are
compared, and a collision (about one chance in 1e7 for a million stoichiometries) is met by other weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np

from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.hull.composition_arrays import CompositionArrays, starts_of
from opengnome.hull.entry_table import EntryTable

System = tuple[int, ...]
"""Atomic numbers of a chemical system, ascending."""

# Subsystems are looked up subset by subset up to this many elements (255 subsets), and searched for beyond.
_MAX_ENUMERATED = 8


@dataclass(frozen=True, eq=False)
class EntryIndex:
    """Entries of one level grouped by stoichiometry (s of them) and by chemical system (t of them).

    Stoichiometries are sorted by system key and key, so those of a system are consecutive, and nothing
    depends on the order in which entries were given.
    """

    table: EntryTable
    weights: int
    """Which random weights the keys are made of; 0 unless keys collided."""
    stoichiometries: CompositionArrays
    """(s,) reduced compositions."""
    keys: np.ndarray
    """(s,) uint64, ascending within a system."""
    order: np.ndarray
    """(n,) rows of the table sorted by stoichiometry, corrected energy and id: polymorphs, the lowest first."""
    polymorph_starts: np.ndarray
    """(s + 1,) where the polymorphs of each stoichiometry begin in `order`."""
    system_keys: np.ndarray
    """(t,) uint64, ascending."""
    system_starts: np.ndarray
    """(t + 1,) where the stoichiometries of each system begin; subsystems are not included."""

    @classmethod
    def from_table(cls, table: EntryTable) -> "EntryIndex":
        attempt = 0
        while (index := cls._with_weights(table, attempt)) is None:
            attempt += 1
        return index

    @classmethod
    def _with_weights(cls, table: EntryTable, attempt: int) -> "EntryIndex | None":
        """The index by these weights, None when two stoichiometries or two systems share a key."""
        reduced = table.compositions.reduced
        system_keys, keys = _keys(reduced, attempt)
        order = np.lexsort((table.energies, keys, system_keys))
        system_keys, keys = system_keys[order], keys[order]
        new = _starts_of_runs(system_keys) | _starts_of_runs(keys)
        order = _ties_by_id(order, new, table)
        polymorph_starts = np.append(np.flatnonzero(new), len(order))
        first = np.repeat(order[polymorph_starts[:-1]], np.diff(polymorph_starts))
        if not reduced.same_rows(order, reduced, first).all():
            return None
        stoichiometries = reduced.take(order[polymorph_starts[:-1]])
        system_keys, keys = system_keys[new], keys[new]
        system_starts = np.append(np.flatnonzero(_starts_of_runs(system_keys)), len(keys))
        index = cls(
            table,
            attempt,
            stoichiometries,
            keys,
            order,
            polymorph_starts,
            system_keys[system_starts[:-1]],
            system_starts,
        )
        return index if _are_systems(stoichiometries, system_starts) else None

    @property
    def n_stoichiometries(self) -> int:
        return len(self.keys)

    @property
    def n_systems(self) -> int:
        return len(self.system_keys)

    @cached_property
    def lowest(self) -> np.ndarray:
        """(s,) corrected energy of the lowest polymorph of each stoichiometry, eV/atom."""
        return self.table.energies[self.order[self.polymorph_starts[:-1]]]

    @cached_property
    def stoichiometry_of(self) -> np.ndarray:
        """(n,) stoichiometry of each row of the table."""
        numbers = np.empty(len(self.order), dtype=np.int64)
        numbers[self.order] = np.repeat(np.arange(self.n_stoichiometries), np.diff(self.polymorph_starts))
        return numbers

    @cached_property
    def system_of(self) -> np.ndarray:
        """(s,) system of each stoichiometry."""
        return np.repeat(np.arange(self.n_systems), np.diff(self.system_starts))

    @cached_property
    def systems(self) -> CompositionArrays:
        """(t,) the elements of each system, as compositions of equal amounts."""
        return _systems(self.stoichiometries, self.system_starts)

    @cached_property
    def element_bits(self) -> np.ndarray:
        """(119, ceil(t / 8)) uint8: row z is the packed set of systems that contain element z."""
        contains = np.zeros((MAX_ATOMIC_NUMBER + 1, self.n_systems), dtype=bool)
        contains[self.systems.atomic_numbers, np.repeat(np.arange(self.n_systems), self.systems.n_elements)] = True
        return np.packbits(contains, axis=1)

    def polymorphs(self, stoichiometry: int) -> np.ndarray:
        """Rows of the table with this stoichiometry, lowest energy first, ties by id."""
        return self.order[self.polymorph_starts[stoichiometry] : self.polymorph_starts[stoichiometry + 1]]

    def find(self, compositions: CompositionArrays) -> np.ndarray:
        """(q,) the stoichiometry of each composition, -1 where it is not known."""
        reduced = compositions.reduced
        system_keys, keys = _keys(reduced, self.weights)
        systems = _find_sorted(self.system_keys, system_keys)
        known = np.flatnonzero(systems >= 0)
        low, stop = self.system_starts[systems[known]], self.system_starts[systems[known] + 1]
        found = _lower_bounds(self.keys, low, stop, keys[known])
        inside = found < stop
        known, found = known[inside], found[inside]
        same = self.keys[found] == keys[known]
        known, found = known[same], found[same]
        same = self.stoichiometries.same_rows(found, reduced, known)
        numbers = np.full(len(compositions), -1)
        numbers[known[same]] = found[same]
        return numbers

    def subsystems(self, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (asked, known) of systems: the known one lies inside the asked one or equals it.

        `elements` (u, k) are the atomic numbers of u systems of k elements, ascending. The asked system is given
        as its row, the known one as its number in this index; pairs are sorted by the asked system.
        """
        n_elements = elements.shape[1]
        if n_elements > _MAX_ENUMERATED:
            inside = [self._inside(row) for row in elements]
            return np.repeat(np.arange(len(inside)), [len(part) for part in inside]), np.concatenate(inside)
        subsets = _subsets(n_elements)
        found = _find_sorted(self.system_keys, _weights(self.weights)[0][elements] @ subsets.T)
        known = found >= 0
        # A key found by chance: the system has other elements.
        asked, subset = np.nonzero(known)
        numbers = found[known]
        genuine = self._are_subsets(elements[asked], subsets[subset], numbers)
        return asked[genuine], numbers[genuine]

    def containing(self, systems: Sequence[System]) -> np.ndarray:
        """(t,) bool: whether a system of this index contains any of `systems`, itself included."""
        found = np.zeros(self.element_bits.shape[1], dtype=np.uint8)
        for system in systems:
            found |= np.bitwise_and.reduce(self.element_bits[list(system)], axis=0)
        return np.unpackbits(found, count=self.n_systems).astype(bool)

    def extended(self, new: EntryTable) -> tuple["EntryIndex", np.ndarray, set[System]]:
        """The index with further entries, without sorting again what is here.

        Also gives where the old stoichiometries went (s,), and the systems in which a lowest entry changed.
        Raises `HullError` as `EntryTable.extended` does.
        """
        table = self.table.extended(new)
        addition = EntryIndex._with_weights(new, self.weights) if len(new) else None
        merged = None if addition is None else self._merged(table, addition)
        index = merged or (EntryIndex.from_table(table) if len(new) else self)
        moved = index.find(self.stoichiometries) if merged is None else _moved(self, index)
        return index, moved, index._changed(self, moved, new)

    def _merged(self, table: EntryTable, addition: "EntryIndex") -> "EntryIndex | None":
        """The index and that of the new rows as one; None when their keys collide."""
        at = self.find(addition.stoichiometries)
        unknown = np.flatnonzero(at < 0)
        system_at = np.searchsorted(self.system_keys, addition.system_keys)
        is_known = _find_sorted(self.system_keys, addition.system_keys) >= 0
        same = self.systems.same_rows(system_at[is_known], addition.systems, np.flatnonzero(is_known))
        if not same.all():
            return None
        # Where unknown stoichiometries go: inside their system, or where their system begins.
        start = self.system_starts[system_at]
        stop = np.where(is_known, self.system_starts[np.minimum(system_at + 1, self.n_systems)], start)
        system = addition.system_of[unknown]
        position = _lower_bounds(self.keys, start[system], stop[system], addition.keys[unknown])
        at_position = self.keys[np.minimum(position, len(self.keys) - 1)]
        if np.any((position < stop[system]) & (at_position == addition.keys[unknown])):
            return None
        order, sizes = self._merged_order(table, addition, at, position)
        lengths = np.insert(np.diff(self.system_starts), system_at[~is_known], 0)
        system_keys = np.insert(self.system_keys, system_at[~is_known], addition.system_keys[~is_known])
        grown = np.searchsorted(system_keys, addition.system_keys[system])
        np.add.at(lengths, grown, 1)
        return EntryIndex(
            table,
            self.weights,
            self.stoichiometries.insert(position, addition.stoichiometries.take(unknown)),
            np.insert(self.keys, position, addition.keys[unknown]),
            order,
            starts_of(sizes),
            system_keys,
            starts_of(lengths),
        )

    def _merged_order(
        self, table: EntryTable, addition: "EntryIndex", at: np.ndarray, position: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Polymorphs of both as one `order`, and how many each stoichiometry then has."""
        rows = addition.order + len(self.table)
        stoichiometry = np.repeat(np.arange(len(at)), np.diff(addition.polymorph_starts))
        places = np.empty(len(rows), dtype=np.int64)
        where = np.empty(len(at), dtype=np.int64)
        where[at < 0] = self.polymorph_starts[position]
        for place, (row, number) in enumerate(zip(rows.tolist(), stoichiometry.tolist(), strict=True)):
            if at[number] < 0:
                places[place] = where[number]
            else:
                places[place] = self._place_among(table, row, int(at[number]))
        sizes = np.diff(self.polymorph_starts)
        added = np.diff(addition.polymorph_starts)
        np.add.at(sizes, at[at >= 0], added[at >= 0])
        return np.insert(self.order, places, rows), np.insert(sizes, position, added[at < 0])

    def _place_among(self, table: EntryTable, row: int, stoichiometry: int) -> int:
        """Where a row goes in `order` among the polymorphs of its stoichiometry."""
        start, stop = self.polymorph_starts[stoichiometry : stoichiometry + 2].tolist()
        polymorphs = self.order[start:stop]
        energies = table.energies[polymorphs]
        place = int(np.searchsorted(energies, table.energies[row]))
        while place < len(polymorphs) and energies[place] == table.energies[row]:
            if table.ids[polymorphs[place]] > table.ids[row]:
                break
            place += 1
        return start + place

    def _changed(self, old: "EntryIndex", moved: np.ndarray, new: EntryTable) -> set[System]:
        """The systems in which a stoichiometry is new, or has another lowest entry, since `old`."""
        before = np.full(self.n_stoichiometries, -1)
        before[moved] = old.order[old.polymorph_starts[:-1]]
        numbers = np.unique(self.stoichiometry_of[len(self.table) - len(new) :])
        numbers = numbers[self.order[self.polymorph_starts[numbers]] != before[numbers]]
        return {tuple(z for z, _ in self.systems.pairs(t)) for t in np.unique(self.system_of[numbers]).tolist()}

    def _inside(self, elements: np.ndarray) -> np.ndarray:
        """Numbers of the systems inside one system of any number of elements, ascending."""
        others = np.setdiff1d(np.arange(MAX_ATOMIC_NUMBER + 1), elements)
        outside = np.bitwise_or.reduce(self.element_bits[others], axis=0)
        return np.flatnonzero(np.unpackbits(outside, count=self.n_systems) == 0)

    def _are_subsets(self, elements: np.ndarray, subsets: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(p,) whether system ``numbers[i]`` has exactly the elements that ``subsets[i]`` marks (p, k)."""
        chosen = subsets.astype(bool)
        lengths = chosen.sum(axis=1)
        asked = elements[chosen]
        picked = CompositionArrays(starts_of(lengths), asked, np.ones_like(asked))
        return self.systems.same_rows(numbers, picked, np.arange(len(numbers)))


def contains_any(system: System, parts: set[System]) -> bool:
    """Whether any of `parts` lies inside `system`."""
    if 2 ** len(system) <= len(parts):
        return any(part in parts for size in range(1, len(system) + 1) for part in combinations(system, size))
    elements = set(system)
    return any(elements.issuperset(part) for part in parts)


@lru_cache(maxsize=8)
def _weights(attempt: int) -> tuple[np.ndarray, np.ndarray]:
    """Random uint64 per atomic number (119,): of systems, and of stoichiometries."""
    random = np.random.default_rng(20231129 + attempt)
    numbers = random.integers(0, 2**64, (2, MAX_ATOMIC_NUMBER + 1), dtype=np.uint64)
    return numbers[0], numbers[1]


@lru_cache(maxsize=16)
def _subsets(n_elements: int) -> np.ndarray:
    """(2^k - 1, k) uint64 zeros and ones: which elements each non-empty subset takes."""
    numbers = np.arange(1, 2**n_elements, dtype=np.uint64)
    return (numbers[:, None] >> np.arange(n_elements, dtype=np.uint64)) & np.uint64(1)


def _keys(reduced: CompositionArrays, attempt: int) -> tuple[np.ndarray, np.ndarray]:
    """System keys and stoichiometry keys (n,) of reduced compositions; sums are modulo 2^64."""
    of_system, of_stoichiometry = _weights(attempt)
    elements = reduced.atomic_numbers
    keys = reduced.sums(of_stoichiometry[elements] * reduced.counts.astype(np.uint64))
    return reduced.sums(of_system[elements]), keys


def _find_sorted(ascending: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each key is in an ascending array, -1 where it is not."""
    if not len(ascending):
        return np.full(keys.shape, -1)
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return np.where(ascending[place] == keys, place, -1)


def _lower_bounds(keys: np.ndarray, start: np.ndarray, stop: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """First place in ``keys[start[i]:stop[i]]``, ascending there, that is not below ``wanted[i]``."""
    low, high = start.copy(), stop.copy()
    while np.any(open_ := low < high):
        middle = (low + high) // 2
        below = open_ & (keys[np.minimum(middle, len(keys) - 1)] < wanted)
        low = np.where(below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low


def _starts_of_runs(values: np.ndarray) -> np.ndarray:
    """Whether each value differs from the one before it; the first does."""
    starts = np.ones(len(values), dtype=bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def _ties_by_id(order: np.ndarray, new: np.ndarray, table: EntryTable) -> np.ndarray:
    """`order`, with polymorphs of exactly the same energy sorted by id."""
    energies = table.energies[order]
    tied = ~new & np.append(False, energies[1:] == energies[:-1])
    if not tied.any():
        return order
    order = order.copy()
    edges = np.diff(np.concatenate([[False], tied, [False]]).astype(np.int8))
    for start, stop in zip(np.flatnonzero(edges == 1) - 1, np.flatnonzero(edges == -1), strict=True):
        order[start:stop] = sorted(order[start:stop].tolist(), key=lambda row: table.ids[row])
    return order


def _systems(stoichiometries: CompositionArrays, system_starts: np.ndarray) -> CompositionArrays:
    """The elements of each system, as compositions of one atom each."""
    first = stoichiometries.take(system_starts[:-1])
    return CompositionArrays(first.starts, first.atomic_numbers, np.ones_like(first.counts))


def _are_systems(stoichiometries: CompositionArrays, system_starts: np.ndarray) -> bool:
    """Whether all stoichiometries of a system have its elements: no two systems share a key."""
    ones = CompositionArrays(
        stoichiometries.starts, stoichiometries.atomic_numbers, np.ones_like(stoichiometries.counts)
    )
    first = np.repeat(system_starts[:-1], np.diff(system_starts))
    return bool(ones.same_rows(np.arange(len(ones)), ones, first).all())


def _moved(old: EntryIndex, new: EntryIndex) -> np.ndarray:
    """Where the stoichiometries of `old` are in `new`, which holds them in the same order."""
    is_old = np.zeros(new.n_stoichiometries, dtype=bool)
    is_old[new.stoichiometry_of[: len(old.table)]] = True
    return np.flatnonzero(is_old)
