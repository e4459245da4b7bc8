"""How likely a candidate is to be on the hull, given the calibrated error of its predicted energy.

One candidate against what is known has a closed form. Candidates that compete, as polymorphs or as phases of one
chemical system, push each other off the hull; their chances come from joint draws of all their energies.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from opengnome.crystals import Composition
from opengnome.errors import HullError
from opengnome.hull.chemical_potentials import ON_HULL, count_matrix, phases_inside
from opengnome.hull.decomposition import lowest_mixture
from opengnome.hull.hull import STABILITY_TOLERANCE, Hull
from opengnome.hull.simplex import lowest_mixtures

System = tuple[int, ...]

# Numbers of one batch of linear programs, as many as the cache holds.
_BATCH_SIZE = 250_000


def probability_on_hull(
    distances: ArrayLike,
    stds: ArrayLike,
    *,
    tolerance: float = STABILITY_TOLERANCE,
    error_cdf: Callable[[np.ndarray], np.ndarray] = ndtr,
) -> np.ndarray:
    """Probability that each true energy lies at most `tolerance` above the hull, any one broadcast shape.

    `distances` are predicted, signed, to the hull without the candidate (`Hull.distances_from_hull`), `stds` the
    calibrated standard deviations, both eV/atom: ``P = F((tolerance - distance) / std)``. F is the distribution of
    (true - predicted) / std, by default the normal one; a heavier-tailed calibrated one may be given. A std of zero
    means a certain energy: 0 or 1. NaN gives NaN. Each candidate is judged alone; see `joint_probability_on_hull`.
    Raises `HullError` for a negative std.
    """
    margins, spread = np.broadcast_arrays(tolerance - np.asarray(distances, float), np.asarray(stds, float))
    if (spread < 0).any():
        raise HullError(f"a standard deviation is {spread.min()} eV/atom; it cannot be negative")
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = margins / spread
    scaled = np.where((spread == 0) & ~np.isnan(margins), np.where(margins >= 0, np.inf, -np.inf), scaled)
    return np.asarray(error_cdf(scaled), dtype=float)


@dataclass(frozen=True)
class JointProbability:
    """Chances of n competing candidates, estimated from joint draws."""

    probabilities: np.ndarray
    """(n,) share of the draws in which the candidate is on the hull; NaN where a drawn energy is not finite."""
    standard_errors: np.ndarray
    """(n,) of the probabilities, from the finite number of draws; by Agresti and Coull, so never zero."""
    expected_n_stable: float
    """Expected number of candidates on the hull together, those without a probability left out."""


def draw_energies(
    ids: Sequence[str], means: ArrayLike, stds: ArrayLike, *, n_draws: int, seed: int, common_std: float = 0.0
) -> np.ndarray:
    """Joint draws (n_draws, n) of the energies of n candidates with normal errors, eV/atom.

    The draws of a candidate come from its id and the seed alone: neither the order nor the presence of others changes
    them. With `common_std` a part of the error, of this standard deviation, is shared by all (a wrong reference, a
    bias of the model); it is part of each std, so it may not exceed the smallest. Raises `HullError` for lengths that
    differ, an id twice, or a std that is negative or below `common_std`.
    """
    centre, spread = np.asarray(means, float), np.asarray(stds, float)
    if centre.shape != (len(ids),) or spread.shape != centre.shape:
        raise HullError(f"{len(ids)} ids, means {centre.shape}, standard deviations {spread.shape}; give one each")
    if len(set(ids)) != len(ids):
        twice = next(entry_id for i, entry_id in enumerate(ids) if entry_id in ids[:i])
        raise HullError(f"two candidates have the id {twice!r}; their errors would be drawn equal: rename one")
    if n_draws < 1:
        raise HullError(f"{n_draws=} must be at least one")
    if common_std < 0 or (spread < common_std).any():
        raise HullError(f"{common_std=} must be between zero and the smallest std, {spread.min()} eV/atom")
    normal = np.empty((n_draws, len(ids)))
    for column, entry_id in enumerate(ids):
        normal[:, column] = _stream(seed, "candidate", entry_id).standard_normal(n_draws)
    shared = _stream(seed, "common").standard_normal(n_draws) * common_std
    return centre + shared[:, None] + np.sqrt(spread**2 - common_std**2) * normal


def joint_probability_on_hull(
    hull: Hull,
    compositions: Sequence[Composition],
    draws: ArrayLike,
    *,
    formation_energies: bool = False,
    tolerance: float = STABILITY_TOLERANCE,
) -> JointProbability:
    """Probability that each of n candidates is on the hull when all of them are added at once.

    `draws` (m, n) are energies, eV/atom, one joint draw per row: from `draw_energies`, or the members of an
    ensemble; on the corrected scale of the hull or, with `formation_energies`, relative to its elemental references.
    In each draw a candidate counts when it lies at most `tolerance` above the hull of all known phases and all other
    candidates of the draw. A candidate with a NaN draw gets NaN and competes with nobody in that draw. Raises
    `HullError` when the shapes differ, `MissingReferenceError`.
    """
    energies = np.asarray(draws, dtype=float)
    if energies.ndim != 2 or energies.shape[1] != len(compositions) or not len(energies):
        raise HullError(f"draws of shape {energies.shape} for {len(compositions)} candidates; give (draws, candidates)")
    if formation_energies:  # a phase of energy zero has minus the energy of its elements as formation energy
        energies = energies - np.array([hull.formation_energy_per_atom(c, 0.0) for c in compositions])
    # The distance of a composition with energy zero is minus the hull energy there.
    known = -hull.distances_from_hull(compositions, np.zeros(len(compositions)))
    distances = energies - known
    with np.errstate(invalid="ignore"):
        on_hull = distances <= tolerance
    below = np.isfinite(distances) & (distances < 0.0)
    rows_of_system: dict[System, list[int]] = {}
    for row, composition in enumerate(compositions):
        rows_of_system.setdefault(composition.atomic_numbers, []).append(row)
    for system, own in rows_of_system.items():
        parts = (part for size in range(1, len(system)) for part in combinations(system, size))
        rivals = [*own, *(row for part in parts for row in rows_of_system.get(part, ()))]
        entered = np.where(below[:, rivals], energies[:, rivals], np.inf)
        contested = on_hull[:, own] & (below[:, rivals].sum(axis=1, keepdims=True) > below[:, own])
        if contested.any():
            contest = _Contest.of(hull, system, [compositions[row] for row in rivals])
            for place in np.flatnonzero(contested.any(axis=0)).tolist():
                open_draws, row = np.flatnonzero(contested[:, place]), own[place]
                bounds = energies[open_draws, row] - tolerance
                on_hull[open_draws, row] = contest.keeps(place, entered[open_draws], bounds)
    answered = np.isfinite(energies).all(axis=0)
    n_draws = len(energies)
    probabilities = np.where(answered, on_hull.mean(axis=0), np.nan)
    centre = (on_hull.sum(axis=0) + 2.0) / (n_draws + 4.0)
    errors = np.where(answered, np.sqrt(centre * (1.0 - centre) / (n_draws + 4.0)), np.nan)
    return JointProbability(probabilities, errors, float(probabilities[answered].sum()))


@dataclass(frozen=True)
class _Contest:
    """All that can push a candidate of one chemical system off the hull: rivals, and the known phases they join."""

    n_known: int
    points: np.ndarray
    """(n_known + r, k) atomic fractions: the pure elements, the other known phases on the hull, the rivals."""
    known_energies: np.ndarray
    """(n_known,) eV/atom relative to the elements, zero for those."""
    references: np.ndarray
    """(k,) energies of the elements, eV/atom."""

    @classmethod
    def of(cls, hull: Hull, system: System, rivals: Sequence[Composition]) -> "_Contest":
        counts = count_matrix((composition.counts for composition in rivals), len(rivals), system)
        phases = phases_inside(hull, system)
        distances = hull.distances_from_hull([entry.composition for entry in phases.entries], phases.energies)
        pure = (phases.fractions == 1.0).argmax(axis=0)  # one phase per stoichiometry
        others = np.setdiff1d(np.flatnonzero(distances < ON_HULL), pure)
        known = np.concatenate([pure, others])
        formation = phases.energies[known] - phases.fractions[known] @ phases.references
        formation[: len(pure)] = 0.0
        points = np.vstack([phases.fractions[known], counts / counts.sum(axis=1, keepdims=True)])
        return cls(len(known), points, formation, phases.references)

    def keeps(self, place: int, entered: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Whether no mixture at the composition of rival `place` is cheaper than `bounds` (m,).

        `entered` (m, r) are energies of the rivals in m draws, infinite for those that stay above the known hull;
        all in eV/atom on the scale of the hull.
        """
        query = self.points[self.n_known + place]
        costs = np.empty((len(bounds), len(self.points)))
        costs[:, : self.n_known] = self.known_energies
        costs[:, self.n_known :] = entered - self.points[self.n_known :] @ self.references
        size = max(1, _BATCH_SIZE // self.points.size)
        cheapest = [_cheapest(self.points, part, query) for part in np.split(costs, range(size, len(costs), size))]
        return np.concatenate(cheapest) >= bounds - query @ self.references - ON_HULL


def _cheapest(points: np.ndarray, costs: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Lowest cost (m,) of mixing `points` (n, k) to `query` (k,), for each row of `costs` (m, n); infinite: absent."""
    shape = (len(costs), *points.T.shape)
    mixtures = lowest_mixtures(np.broadcast_to(points.T, shape), costs, np.tile(query, (len(costs), 1)))
    cheapest = (mixtures.amounts * np.take_along_axis(costs, mixtures.points, axis=1)).sum(axis=1)
    for row in np.flatnonzero(~mixtures.proven):
        present = np.isfinite(costs[row])
        cheapest[row] = lowest_mixture(points[present], costs[row, present], query).energy_per_atom
    return cheapest


def _stream(seed: int, *names: str) -> np.random.Generator:
    """The random numbers that belong to a seed and a name."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
