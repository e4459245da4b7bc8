"""Are two crystals the same structure, within tolerances?

The criterion is that of pymatgen's StructureMatcher (Ong et al., doi:10.1016/j.commatsci.2012.10.028) with its
default tolerances: primitive cells of one volume per atom, bases that agree in lengths and angles, and a way to
lay the atoms of one crystal on those of the other, element by element, with no atom further off than a fraction
of the atomic spacing. The way there is another: all bases and origins are tried at once and dropped as soon as
one atom finds no partner, and the answer does not depend on which crystal comes first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import linear_sum_assignment

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.lattice_mappings import lattice_mappings
from opengnome.crystals.reduction import ReducedCrystal, reduce_crystal
from opengnome.errors import SettingsError

_MAX_DISTANCES = 1_000_000
"""Distances computed at once: a few tens of megabytes."""
_FEW_DISTANCES = 30_000
"""Below this number, leaving out what a few atoms could refuse costs more than it saves."""
_FIRST_PLACEMENTS, _MORE_PLACEMENTS = 32, 4096
"""Placements tried at once: in a match one of the first usually fits."""
_MANY_PLACEMENTS = 300
"""Above this number, it pays to find out which ones are equivalent by symmetry."""
_MAX_INDEX = 101
"""Base of a number that holds a matrix; the entries of a basis change between reduced lattices are small."""
_SIGNS = np.array(list(product([1, -1], repeat=3)))
_SAME_METRIC = 0.02
"""Relative difference of the entries of two metrics that counts as nearly equal."""
_FORBIDDEN = 1e6
"""Squared distance that stands for: these two atoms are no pair."""


@dataclass(frozen=True)
class MatchTolerances:
    """How far the same crystal may differ between two descriptions; the defaults are StructureMatcher's.

    Raises `SettingsError` when a tolerance is not positive.
    """

    length: float = 0.2
    """Relative difference of the lengths of corresponding lattice vectors."""
    angle: float = 5.0
    """Difference of the angles between them, degrees."""
    site: float = 0.3
    """Distance between corresponding atoms, in units of the atomic spacing (V / n_atoms)^(1/3)."""

    def __post_init__(self) -> None:
        for name in ("length", "angle", "site"):
            value = getattr(self, name)
            if not value > 0:
                raise SettingsError(f"the match tolerance {name}={value} must be positive")


@dataclass(frozen=True)
class StructureMatch:
    """Two crystals laid on each other, in units of the atomic spacing."""

    rms: float
    """Root mean square distance between corresponding atoms."""
    largest: float
    """Largest distance between corresponding atoms."""


DEFAULT_TOLERANCES = MatchTolerances()


def is_same_structure(first: Crystal, second: Crystal, tolerances: MatchTolerances = DEFAULT_TOLERANCES) -> bool:
    """Whether two crystals match; symmetric. Mirror images match, and volumes are not compared.

    Raises `InvalidCrystalError` when a lattice is distorted beyond any crystal.
    """
    return match_structures(reduce_crystal(first), reduce_crystal(second), tolerances) is not None


def match_structures(
    first: ReducedCrystal, second: ReducedCrystal, tolerances: MatchTolerances = DEFAULT_TOLERANCES
) -> StructureMatch | None:
    """The first way found to lay one crystal on the other within the tolerances, or None; symmetric."""
    if not np.array_equal(first.atomic_numbers, second.atomic_numbers):
        return None
    if second.sort_key < first.sort_key:
        first, second = second, first
    for mappings in (_same_basis_mappings, _close_mappings):
        for match in _matches(first, second, mappings(first, second, tolerances), tolerances):
            return match
    return None


def _same_basis_mappings(mapped: ReducedCrystal, fixed: ReducedCrystal, _: MatchTolerances) -> np.ndarray:
    """The few mappings that keep a basis but for signs, where that leaves the metrics nearly equal.

    Two descriptions of one crystal usually have the same Niggli basis: trying this first saves the search.
    """
    metric, target = mapped.metric, fixed.metric
    scale = np.sqrt(np.outer(target.diagonal(), target.diagonal()))
    strains = np.abs((_SIGNS[:, :, None] * _SIGNS[:, None, :] * metric - target) / scale).max(axis=(1, 2))
    return np.eye(3, dtype=np.int64) * _SIGNS[strains < _SAME_METRIC][:, None, :]


def _close_mappings(mapped: ReducedCrystal, fixed: ReducedCrystal, tolerances: MatchTolerances) -> np.ndarray:
    """All mappings within the tolerances, without those that the symmetry of `fixed` makes equivalent if many.

    Lengths and angles are those of one basis of each lattice: what fits when the basis of `fixed` is kept need not fit
    when that of `mapped` is, so both are asked.
    """
    mappings = _tolerated_mappings(mapped, fixed, tolerances)
    inverses = _inverses(_tolerated_mappings(fixed, mapped, tolerances))
    mappings = np.concatenate([mappings, inverses[~np.isin(_keys(inverses), _keys(mappings))]])
    if len(mappings) * fixed.blocks[0].stop > _MANY_PLACEMENTS:
        return _distinct_mappings(mappings, fixed)
    return mappings


def _tolerated_mappings(mapped: ReducedCrystal, fixed: ReducedCrystal, tolerances: MatchTolerances) -> np.ndarray:
    return lattice_mappings(
        mapped.lattice / mapped.spacing,
        fixed.lattice / fixed.spacing,
        length_tolerance=tolerances.length,
        angle_tolerance=tolerances.angle,
    )


def _inverses(mappings: np.ndarray) -> np.ndarray:
    """Inverses of integer matrices of determinant 1 or -1, which are such matrices."""
    return np.rint(np.linalg.inv(mappings.astype(np.float64))).astype(np.int64)


def _keys(matrices: np.ndarray) -> np.ndarray:
    """One number for each integer matrix."""
    return matrices.reshape(*matrices.shape[:-2], 9) @ (_MAX_INDEX ** np.arange(9))


def _matches(
    mapped: ReducedCrystal, fixed: ReducedCrystal, mappings: np.ndarray, tolerances: MatchTolerances
) -> Iterator[StructureMatch]:
    """Ways to lay `mapped` on `fixed` in the bases ``mappings @ mapped.lattice``."""
    if not len(mappings):
        return
    # Distances are measured in the mean of the two metrics.
    metrics = 0.5 * (fixed.metric + mappings @ mapped.metric @ mappings.transpose(0, 2, 1))
    mapped_coords = mapped.frac_coords @ _inverses(mappings)  # (n_mappings, n_atoms, 3)
    placements = _Placements(mapped_coords, fixed.frac_coords, metrics, fixed.blocks, tolerances.site)
    yield from placements.matches()


def _distinct_mappings(mappings: np.ndarray, fixed: ReducedCrystal) -> np.ndarray:
    """Those that no symmetry operation of the fixed crystal takes into an earlier one.

    They put the atoms on equivalent places.
    """
    rotations = fixed.rotations
    # Coordinates f of the mapped crystal become f M^-1, and after the operation f M^-1 W^T.
    images = _inverses(mappings)[:, None] @ rotations.transpose(0, 2, 1)
    _, first = np.unique(_keys(images).min(axis=1), return_index=True)
    return mappings[np.sort(first)]


class _Placements:
    """Every way to put the first atom of one crystal on an atom of the other, in every basis.

    All lengths are in units of the atomic spacing. The first atom is of the rarest element.
    """

    def __init__(
        self,
        mapped_coords: np.ndarray,
        fixed_coords: np.ndarray,
        metrics: np.ndarray,
        blocks: tuple[slice, ...],
        site_tolerance: float,
    ) -> None:
        self.mapped_coords = mapped_coords
        self.fixed_coords = fixed_coords
        self.bases = np.linalg.cholesky(metrics)
        self.blocks = blocks
        self.site_tolerance = site_tolerance
        # The first atom itself may be off by the tolerance, any other by as much on the other side.
        self.reach = 2 * site_tolerance
        self.images = _images_within(metrics, self.reach)
        element = np.repeat(np.arange(len(blocks)), [block.stop - block.start for block in blocks])
        self.penalties = np.where(element[:, None] == element, 0.0, _FORBIDDEN)
        n_mappings, n_anchors = len(mapped_coords), blocks[0].stop
        self.mapping = np.repeat(np.arange(n_mappings), n_anchors)
        self.shifts = (fixed_coords[None, :n_anchors] - mapped_coords[:, None, 0]).reshape(-1, 3)

    def matches(self) -> Iterator[StructureMatch]:
        """Placements within the tolerance, those in the closest bases first."""
        start, size = 0, _FIRST_PLACEMENTS
        while start < len(self.mapping):
            placements = np.arange(start, min(start + size, len(self.mapping)))
            start, size = start + size, _MORE_PLACEMENTS
            placements = self._pruned(placements)
            chunk = max(1, _MAX_DISTANCES // self._n_distances(1))
            for first in range(0, len(placements), chunk):
                yield from self._judged(placements[first : first + chunk])

    def _n_distances(self, n_placements: int) -> int:
        return n_placements * len(self.images) * sum((block.stop - block.start) ** 2 for block in self.blocks)

    def _pruned(self, placements: np.ndarray) -> np.ndarray:
        """Those in which atom after atom has an atom of its element within reach, until few are left.

        One atom of each element is tried, then another, then two more, four more, and so on.
        """
        start, size = 0, 1
        largest = max(block.stop - block.start for block in self.blocks)
        while start < largest and self._n_distances(len(placements)) > _FEW_DISTANCES:
            for block in self.blocks:
                atoms = slice(min(block.start + start, block.stop), min(block.start + start + size, block.stop))
                placements = placements[self._within_reach(placements, atoms, block)]
            start, size = start + size, max(1, start + size)
        return placements

    def _within_reach(self, placements: np.ndarray, atoms: slice, block: slice) -> np.ndarray:
        """Whether each of `atoms` has an atom of `block` within reach, shape (n_placements,)."""
        per_placement = (atoms.stop - atoms.start) * (block.stop - block.start) * len(self.images)
        near = np.ones(len(placements), dtype=bool)
        if not per_placement:
            return near
        chunk = max(1, _MAX_DISTANCES // per_placement)
        for start in range(0, len(placements), chunk):
            _, squares = self._steps(placements[start : start + chunk], atoms, block)
            near[start : start + chunk] = (squares.min(axis=(-2, -1)) <= self.reach**2).all(axis=-1)
        return near

    def _steps(self, placements: np.ndarray, atoms: slice, block: slice) -> tuple[np.ndarray, np.ndarray]:
        """Vectors from mapped `atoms` to the images of the fixed atoms of `block`, and their squared lengths.

        Shapes (n_placements, n_mapped, n_fixed, n_images, 3) and (n_placements, n_mapped, n_fixed, n_images).
        """
        mapping = self.mapping[placements]
        placed = self.mapped_coords[mapping, atoms] + self.shifts[placements, None]
        steps = self.fixed_coords[block] - placed[:, :, None]
        steps -= np.rint(steps)
        images = steps[..., None, :] + self.images
        # One product per placement, not one per atom.
        vectors = (images.reshape(len(placements), -1, 3) @ self.bases[mapping]).reshape(images.shape)
        return vectors, np.einsum("...i,...i->...", vectors, vectors)

    def _judged(self, placements: np.ndarray) -> Iterator[StructureMatch]:
        """The closest of the placements whose atoms can be paired off one to one within the tolerance, if any."""
        displacements: list[np.ndarray] = []
        n_atoms = len(self.fixed_coords)
        few = len(placements) * n_atoms**2 * len(self.images) <= _FEW_DISTANCES
        # Few atoms are compared all at once, those of different elements being out of reach.
        for block in (slice(0, n_atoms),) if few else self.blocks:
            vectors, of_images = self._steps(placements, block, block)
            squares = of_images.min(axis=-1)
            if few:
                squares += self.penalties
            within = squares <= self.reach**2
            near = np.logical_and(within.any(axis=-1).all(axis=-1), within.any(axis=-2).all(axis=-1))
            partners, paired = self._partners(squares, near)
            if not paired.any():
                return
            if not paired.all():
                placements = placements[paired]
                displacements = [earlier[paired] for earlier in displacements]
            chosen = np.flatnonzero(paired)[:, None], np.arange(partners.shape[1]), partners[paired]
            displacements.append(vectors[(*chosen, of_images[chosen].argmin(axis=-1))])
        # The first atom need not be exact: all are moved so that the mean displacement is zero.
        moved = np.concatenate(displacements, axis=1)
        moved -= moved.mean(axis=1, keepdims=True)
        squares = np.einsum("...i,...i->...", moved, moved)
        largest = np.sqrt(squares.max(axis=1))
        best = int(largest.argmin())
        if largest[best] <= self.site_tolerance:
            yield StructureMatch(float(np.sqrt(squares[best].mean())), float(largest[best]))

    def _partners(self, squares: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The fixed atom of each mapped one, shape (n_placements, n_mapped), and where all have one of their own.

        Where two atoms share their nearest one, the pairs of least total squared distance.
        """
        partners, paired = squares.argmin(axis=-1), near.copy()
        shared = (np.sort(partners, axis=-1) != np.arange(partners.shape[1])).any(axis=-1)
        for row in np.flatnonzero(shared & near):
            costs = np.where(squares[row] <= self.reach**2, squares[row], _FORBIDDEN)
            atoms, partners[row] = linear_sum_assignment(costs)
            paired[row] = costs[atoms, partners[row]].max() < _FORBIDDEN
        return partners, paired


def _images_within(metrics: np.ndarray, reach: float) -> np.ndarray:
    """Cell offsets that may hold an atom's nearest image once coordinates are wrapped; shape (n_images, 3).

    Only the cell itself along axes where opposite faces are further apart than twice the reach.
    """
    heights = 1 / np.sqrt(np.diagonal(np.linalg.inv(metrics), axis1=1, axis2=2))
    axes = [[0, -1, 1] if height < 2 * reach else [0] for height in heights.min(axis=0)]
    return np.array(list(product(*axes)))
