"""Wyckoff positions of the 230 space groups, derived from their operations, and ways to fill them with atoms.

A point belongs to a special position when operations of the group leave it in place. What a set of
operations leaves in place is a point, a line or a plane (a flat); two flats are the same position when an
operation carries one onto the other. So the positions are the classes of all flats that are fixed by an
operation, or are the intersection of such flats, under the group, and the general position (International
Tables for Crystallography, Volume A, section 1.4.4, doi:10.1107/97809553602060000114).

Everything is in fractional coordinates of one primitive cell, in which multiplicities are those of the
Tables divided by the number of lattice points of the conventional cell.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import moyopy
import numpy as np

from opengnome.errors import InvalidCrystalError

N_SPACE_GROUPS = 230
_DENOMINATOR = 48
"""Coordinates of special positions are multiples of 1/48 in every primitive cell (checked when derived)."""


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """The operations x -> W x + w of a space group modulo the translations of its primitive cell."""

    number: int
    """1..230."""
    crystal_family: str
    """``triclinic``, ``monoclinic``, ``orthorhombic``, ``tetragonal``, ``hexagonal`` (with trigonal), ``cubic``."""
    rotations: np.ndarray
    """W, integers, shape (n_operations, 3, 3); the first is the identity."""
    translations: np.ndarray
    """w, shape (n_operations, 3)."""
    primitive_vectors: np.ndarray
    """Rows: the primitive lattice vectors in terms of the conventional ones, shape (3, 3)."""
    is_rhombohedral: bool
    """Whether the conventional cell is a hexagonal one of three lattice points."""

    @cached_property
    def positions(self) -> tuple["WyckoffPosition", ...]:
        """All positions, those of most symmetry first, the general one last."""
        return tuple(_derive_positions(self))

    def __len__(self) -> int:
        return len(self.rotations)


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """An orbit of sites: the atoms at W_k (q + B u) + w_k for free parameters u."""

    basis: np.ndarray
    """B, integer columns, shape (3, n_free)."""
    origin: np.ndarray
    """q, shape (3,)."""
    rotations: np.ndarray
    """W_k, one operation per atom of the orbit, the identity first; shape (multiplicity, 3, 3)."""
    translations: np.ndarray
    """w_k, shape (multiplicity, 3)."""

    @property
    def multiplicity(self) -> int:
        """Atoms per primitive cell."""
        return len(self.rotations)

    @property
    def n_free(self) -> int:
        """Number of free parameters, 0..3."""
        return self.basis.shape[1]

    @cached_property
    def padded_basis(self) -> np.ndarray:
        """B with columns of zeros in place of the missing ones, shape (3, 3)."""
        padded = np.zeros((3, 3))
        padded[:, : self.n_free] = self.basis
        return padded

    def orbit(self, parameters: np.ndarray) -> np.ndarray:
        """Fractional coordinates of the atoms, shape (multiplicity, 3), for `parameters` of shape (n_free,)."""
        first = self.origin + self.basis @ parameters
        return self.rotations @ first + self.translations


@lru_cache(maxsize=N_SPACE_GROUPS)
def space_group(number: int) -> SpaceGroup:
    """The group of this number in moyo's default setting (that of the smallest Hall number).

    Raises `InvalidCrystalError` outside 1..230.
    """
    if not 1 <= number <= N_SPACE_GROUPS:
        raise InvalidCrystalError(f"space group {number} is outside 1..{N_SPACE_GROUPS}")
    kind = moyopy.SpaceGroupType(number)
    operations = moyopy.operations_from_number(number, primitive=True)
    rotations = np.array(operations.rotations, dtype=np.int64)
    translations = np.array(operations.translations) % 1.0
    order = np.argsort(~(rotations == np.eye(3, dtype=np.int64)).all(axis=(1, 2)), kind="stable")
    to_conventional = np.array(_first_hall_entries()[number].centering.linear, dtype=float)
    return SpaceGroup(
        number=number,
        crystal_family=kind.crystal_family.lower(),
        rotations=rotations[order],
        translations=translations[order],
        primitive_vectors=np.linalg.inv(to_conventional).T,
        is_rhombohedral=kind.bravais_class == "hR",
    )


@lru_cache(maxsize=1)
def _first_hall_entries() -> dict[int, moyopy.HallSymbolEntry]:
    entries: dict[int, moyopy.HallSymbolEntry] = {}
    for hall_number in range(1, 531):
        entry = moyopy.HallSymbolEntry(hall_number)
        entries.setdefault(entry.number, entry)
    return entries


# --- Deriving the positions -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Flat:
    """The points q + B u."""

    basis: np.ndarray
    """B, integer columns that span all lattice vectors in its directions, shape (3, dimension)."""
    origin: np.ndarray
    """q, shape (3,)."""


def _derive_positions(group: SpaceGroup) -> list[WyckoffPosition]:
    """Classes of flats, found by intersecting one of each known class with the fixed points of every operation."""
    found = [_Flat(np.eye(3, dtype=np.int64), np.zeros(3))]
    known = _image_keys(group, found[0])
    for flat in found:  # grows while it is read
        for basis, origins in _fixed_within(group, flat):
            for key, origin in zip(_flat_keys(basis, origins), origins, strict=True):
                if key not in known:
                    known |= _image_keys(group, _Flat(basis, origin))
                    found.append(_Flat(basis, origin))
    positions = [_position(group, flat) for flat in found]
    return sorted(positions, key=lambda p: (p.multiplicity, p.n_free, p.origin.tolist()))


def _fixed_within(group: SpaceGroup, flat: _Flat) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The parts of `flat` that some operation, with some lattice translation n, leaves in place.

    Yields the basis of parallel flats and their origins, shape (m, 3). (W - I)(q + B u) + w + n = 0 is solved
    for u in the unit cube, which reaches every point of the flat up to lattice vectors along it.
    """
    identity = np.eye(3, dtype=np.int64)
    for rotation, translation in zip(group.rotations[1:], group.translations[1:], strict=True):
        change = (rotation - identity) @ flat.basis
        if not change.any():  # moves all of the flat by one vector, or leaves it all in place
            continue
        at_origin = (rotation - identity) @ flat.origin + translation
        inverse, directions = _solver(change.tobytes(), change.shape[1])
        lowest = np.floor(at_origin + np.minimum(change, 0).sum(axis=1)).astype(int)
        highest = np.ceil(at_origin + np.maximum(change, 0).sum(axis=1)).astype(int)
        ranges = (range(low, high + 1) for low, high in zip(lowest.tolist(), highest.tolist(), strict=True))
        targets = np.array(list(product(*ranges))) - at_origin
        parameters = targets @ inverse.T
        solved = np.abs(parameters @ change.T - targets).max(axis=1) < 1e-8
        if solved.any():
            yield flat.basis @ directions, flat.origin + parameters[solved] @ flat.basis.T


@lru_cache(maxsize=4096)
def _solver(change: bytes, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-inverse of an integer matrix of 3 rows, and a basis of the integer vectors it sends to zero."""
    matrix = np.frombuffer(change, dtype=np.int64).reshape(3, n_columns)
    return np.linalg.pinv(matrix.astype(float)), _integer_null_space(matrix)


def _integer_null_space(matrix: np.ndarray) -> np.ndarray:
    """Columns: a basis of the lattice of integer vectors v with matrix @ v = 0; shape (n_columns, k).

    By integer column operations (Euclid's algorithm) on the matrix stacked on the identity.
    """
    n_rows, n_columns = matrix.shape
    stacked = np.vstack([matrix, np.eye(n_columns, dtype=np.int64)])
    done = 0
    for row in range(n_rows):
        while np.count_nonzero(stacked[row, done:]) > 1:
            entries = np.abs(stacked[row, done:])
            pivot = done + int(np.argmin(np.where(entries == 0, np.iinfo(np.int64).max, entries)))
            quotients = stacked[row, done:] // stacked[row, pivot]
            quotients[pivot - done] = 0
            stacked[:, done:] -= stacked[:, [pivot]] * quotients
        nonzero = np.flatnonzero(stacked[row, done:])
        if len(nonzero):
            stacked[:, [done, done + nonzero[0]]] = stacked[:, [done + nonzero[0], done]]
            done += 1
    return stacked[n_rows:, done:]


def _image_keys(group: SpaceGroup, flat: _Flat) -> set[tuple[int, ...]]:
    """Keys of the images of a flat under the group."""
    bases = group.rotations @ flat.basis
    origins = group.rotations @ flat.origin + group.translations
    return {_flat_keys(basis, origin[None])[0] for basis, origin in zip(bases, origins, strict=True)}


def _flat_keys(basis: np.ndarray, origins: np.ndarray) -> list[tuple[int, ...]]:
    """Key of each of several parallel flats, `origins` of shape (m, 3), modulo lattice translations.

    A flat is the set of x with C x = c, C the integer covectors that vanish along it; a lattice translation
    changes c by integers, so C and c modulo 1 name it. C is made unique from the directions.
    """
    covectors = _covectors(np.ascontiguousarray(basis).tobytes(), basis.shape[1])
    offsets = origins @ covectors.T * _DENOMINATOR
    rounded = np.round(offsets)
    if np.abs(offsets - rounded).max(initial=0.0) > 1e-6:
        raise RuntimeError(f"special positions at {origins.tolist()}, not multiples of 1/{_DENOMINATOR}")
    directions = tuple(covectors.ravel().tolist())
    return [(*directions, *offset) for offset in (rounded.astype(np.int64) % _DENOMINATOR).tolist()]


@lru_cache(maxsize=4096)
def _covectors(basis: bytes, dimension: int) -> np.ndarray:
    directions = np.frombuffer(basis, dtype=np.int64).reshape(3, dimension)
    return _hermite(_integer_null_space(directions.T).T)


def _hermite(rows: np.ndarray) -> np.ndarray:
    """Row Hermite normal form of an integer matrix: the one basis that stands for the lattice of its rows."""
    rows = rows.copy()
    done = 0
    for column in range(rows.shape[1]):
        while np.count_nonzero(rows[done:, column]) > 1:
            entries = np.abs(rows[done:, column])
            pivot = done + int(np.argmin(np.where(entries == 0, np.iinfo(np.int64).max, entries)))
            quotients = rows[done:, column] // rows[pivot, column]
            quotients[pivot - done] = 0
            rows[done:] -= quotients[:, None] * rows[pivot]
        nonzero = np.flatnonzero(rows[done:, column])
        if len(nonzero):
            rows[[done, done + nonzero[0]]] = rows[[done + nonzero[0], done]]
            rows[done] *= np.sign(rows[done, column])
            rows[:done] -= (rows[:done, [column]] // rows[done, column]) * rows[done]
            done += 1
    return rows


def _position(group: SpaceGroup, flat: _Flat) -> WyckoffPosition:
    """The orbit of a flat: one operation for each image of a point of it that no other flat contains."""
    point = flat.origin + flat.basis @ _GENERIC[: flat.basis.shape[1]]
    images = group.rotations @ point + group.translations
    wrapped = np.round((images - np.floor(images)) * 1e6).astype(np.int64) % 10**6
    first = np.sort(np.unique(wrapped, axis=0, return_index=True)[1])
    return WyckoffPosition(
        basis=flat.basis,
        origin=flat.origin % 1.0,
        rotations=group.rotations[first],
        translations=group.translations[first],
    )


_GENERIC = np.array([0.5 * (5**0.5 - 1), 2**0.5 - 1, 3**0.5 - 1])
"""Irrational parameters: a point with them has no symmetry but that of its flat."""


# --- Filling positions with atoms -------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """Positions of a group that hold the atoms of a composition."""

    elements: tuple[int, ...]
    """For each orbit the place of its element in the counts asked for."""
    positions: tuple[int, ...]
    """For each orbit its position, as an index in `SpaceGroup.positions`."""


def can_place(number: int, counts: tuple[int, ...]) -> bool:
    """Whether the positions of the group can hold `counts[e]` atoms of each element e in a primitive cell.

    Positions without a free parameter hold one orbit; the others any number.
    """
    classes = _classes(number)
    alone = all(_completable(classes.multiplicities, (count,), classes.capacities) for count in set(counts))
    return alone and _completable(classes.multiplicities, tuple(sorted(counts)), classes.capacities)


def random_placement(number: int, counts: tuple[int, ...], rng: np.random.Generator) -> Placement | None:
    """A random way to place `counts[e]` atoms of each element e, or none when there is no way.

    Elements come in random order; each orbit takes one of the positions that still fit, with probability
    proportional to its multiplicity (crystals have few kinds of sites for each element, and many small orbits
    crowd the special positions), provided that the rest can be completed.
    """
    if not can_place(number, counts):
        return None
    classes = _classes(number)
    left = list(counts)
    capacities = list(classes.capacities)
    unused = [list(members) for members in classes.members]
    elements, positions = [], []
    for element in rng.permutation(len(counts)).tolist():
        while left[element]:
            options = [
                c
                for c, (multiplicity, capacity) in enumerate(zip(classes.multiplicities, capacities, strict=True))
                if multiplicity <= left[element] and capacity != 0
            ]
            weights = [classes.multiplicities[c] * len(unused[c]) for c in options]
            while True:
                pick = _weighted_choice(weights, rng.random())
                chosen = options[pick]
                left[element] -= classes.multiplicities[chosen]
                capacities[chosen] -= capacities[chosen] > 0
                if _completable(classes.multiplicities, tuple(sorted(filter(None, left))), tuple(capacities)):
                    break
                left[element] += classes.multiplicities[chosen]
                capacities[chosen] += capacities[chosen] >= 0
                weights[pick] = 0
            place = int(rng.random() * len(unused[chosen]))
            elements.append(element)
            positions.append(unused[chosen][place])
            if capacities[chosen] != _UNLIMITED:
                del unused[chosen][place]
    return Placement(tuple(elements), tuple(positions))


_UNLIMITED = -1


@dataclass(frozen=True)
class _PositionClasses:
    """Positions grouped by multiplicity and by whether they may be used again."""

    multiplicities: tuple[int, ...]
    capacities: tuple[int, ...]
    """How many orbits a class can hold; `_UNLIMITED` where the positions have free parameters."""
    members: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=N_SPACE_GROUPS)
def _classes(number: int) -> _PositionClasses:
    members: dict[tuple[int, bool], list[int]] = {}
    for i, position in enumerate(space_group(number).positions):
        members.setdefault((position.multiplicity, position.n_free > 0), []).append(i)
    return _PositionClasses(
        multiplicities=tuple(multiplicity for multiplicity, _ in members),
        capacities=tuple(_UNLIMITED if free else len(own) for (_, free), own in members.items()),
        members=tuple(tuple(own) for own in members.values()),
    )


@lru_cache(maxsize=262144)
def _completable(multiplicities: tuple[int, ...], counts: tuple[int, ...], capacities: tuple[int, ...]) -> bool:
    """Whether orbits of these multiplicities, at most `capacities` of each, can be shared out to make the counts."""
    if not counts:
        return True
    count, others = counts[-1], counts[:-1]
    for c, (multiplicity, capacity) in enumerate(zip(multiplicities, capacities, strict=True)):
        if multiplicity > count or capacity == 0:
            continue
        rest = tuple(sorted((*others, count - multiplicity))) if multiplicity < count else others
        used = capacities if capacity < 0 else (*capacities[:c], capacity - 1, *capacities[c + 1 :])
        if _completable(multiplicities, rest, used):
            return True
    return False


def _weighted_choice(weights: list[int], draw: float) -> int:
    """Index drawn with probability proportional to its weight; `draw` is uniform in [0, 1)."""
    threshold = draw * sum(weights)
    for i, weight in enumerate(weights):
        threshold -= weight
        if threshold < 0:
            return i
    raise RuntimeError(f"no index to choose among {weights=}")
