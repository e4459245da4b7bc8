"""Acquisition rules: what makes a candidate worth a calculation, and how to keep a round from crowding one system.

A candidate has a predicted energy e with a normal error of standard deviation s; d is its predicted distance to the
hull (the decomposition energy, negative below it). A rule gives a score, the lowest is calculated first:

| rule | takes first | score | source |
| --- | --- | --- | --- |
| decomposition_energy | what is predicted lowest against the hull | d | doi:10.1038/s41586-023-06735-9 |
| probability_stable | what is most probably on or below the hull | d / s | doi:10.1115/1.3653121 |
| expected_improvement | what is expected to lower the hull most | -log E[max(0, -d')] | doi:10.1023/A:1008306431147 |
| lower_bound | what may plausibly be lowest | d - k s | doi:10.1109/TIT.2011.2182033 |
| random | anything, by a seeded draw | | the control |

with d' normal around d, Phi the normal distribution, phi its density and k the setting `exploration`. The probability
is Phi(z), z = -d / s, and z is what is ranked: the probability itself is one, to the last digit, from eight deviations
below the hull on, where in a sparsely known chemistry most candidates lie. The expected improvement has the closed form
s (phi(z) + z Phi(z)). Its logarithm is what is ranked: the value itself underflows some tens of deviations above the
hull, and unlike candidates would be equal (arXiv:2310.20708).

Every rule may be spread over chemical systems (`spread_over_systems`).
"""

import heapq
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import erfcx, ndtr

from opengnome.hull import CompositionArrays, EntryTable, Hull

AcquisitionRule = Literal["probability_stable", "decomposition_energy", "expected_improvement", "lower_bound", "random"]
SMALLEST_STD = 1e-6
"""Standard deviations are at least this, eV/atom: a certain energy is still ranked."""
_LOG_SQRT_2PI = 0.5 * np.log(2.0 * np.pi)


def probability_stable(distances: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """Probability of lying on or below the hull, ``Phi(-d / s)``, shape (n,); both arguments (n,), eV/atom."""
    return ndtr(-distances / np.maximum(stds, SMALLEST_STD))


def log_expected_improvement(distances: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """Logarithm of the expected depth below the hull, E[max(0, -d')] in eV/atom, shape (n,); NaN gives NaN.

    ``log(s) + log(phi(z) + z Phi(z))`` with z = -d / s; for negative z the sum cancels and is written with the scaled
    complementary error function, far out with the first term of its series (Ament et al., arXiv:2310.20708).
    """
    stds = np.maximum(np.asarray(stds, dtype=float), SMALLEST_STD)
    z = -np.asarray(distances, dtype=float) / stds
    above = np.maximum(z, -1.0)  # each branch is computed everywhere; arguments outside it are clipped
    near = np.log(np.exp(-0.5 * above**2 - _LOG_SQRT_2PI) + above * ndtr(above))
    below = np.clip(z, -1e4, -1.0)
    tail = np.log1p(below * np.sqrt(0.5 * np.pi) * erfcx(-below / np.sqrt(2.0)))
    far = -2.0 * np.log(np.maximum(-z, 1.0))
    return np.log(stds) + np.where(z > -1.0, near, np.where(z > -1e4, tail, far) - 0.5 * z**2 - _LOG_SQRT_2PI)


def expected_improvement(distances: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """Expected depth below the hull, E[max(0, -d')], shape (n,), eV/atom."""
    return np.exp(log_expected_improvement(distances, stds))


def scores(rule: AcquisitionRule, distances: np.ndarray, stds: np.ndarray, *, exploration: float = 1.0) -> np.ndarray:
    """Score of each candidate under `rule`, shape (n,); the lowest comes first.

    `distances` to the hull and `stds` are (n,), eV/atom. Raises `ValueError` for ``random``, which has no score.
    """
    if rule == "decomposition_energy":
        return np.asarray(distances, dtype=float)
    if rule == "probability_stable":
        return np.asarray(distances, dtype=float) / np.maximum(stds, SMALLEST_STD)
    if rule == "expected_improvement":
        return -log_expected_improvement(distances, stds)
    if rule == "lower_bound":
        return distances - exploration * stds
    raise ValueError(f"the rule {rule!r} has no score; draw at random instead")


def distances_among_candidates(
    hull: Hull, ids: Sequence[str], compositions: CompositionArrays, formation_energies: np.ndarray
) -> np.ndarray:
    """Predicted distance of each candidate to the hull of what is known and of all other candidates as predicted, (n,).

    Where little is known almost everything lies below the known hull, and what a candidate must beat in the end are the
    other candidates. `formation_energies` (n,) are predicted, eV/atom, relative to the references of `hull`; NaN takes
    no part and gives NaN. The lowest of many predictions is too low, so these distances are too high; their order is
    what they are for. Raises `HullError` for an id that the hull has already.
    """
    distances = np.full(len(ids), np.nan)
    rows = np.flatnonzero(np.isfinite(formation_energies))
    if not len(rows):
        return distances
    asked = compositions.take(rows)
    of_elements = -hull.formation_energies(asked, np.zeros(len(rows)))
    candidates = EntryTable.from_arrays(
        [ids[row] for row in rows.tolist()], asked, formation_energies[rows] + of_elements, level=hull.level
    )
    distances[rows] = hull.with_entries(candidates).decomposition_energies()[-len(rows) :]
    return distances


def spread_over_systems(
    rule: AcquisitionRule,
    distances: np.ndarray,
    stds: np.ndarray,
    systems: Sequence[str],
    ids: Sequence[str],
    *,
    n: int,
    diversity: float,
    exploration: float = 1.0,
) -> list[int]:
    """Positions of `n` candidates chosen one by one, best score first, when systems that have been chosen cost more.

    A candidate whose chemical system has been chosen j times already is scored as if it lay ``j * diversity`` eV/atom
    higher: what is found there first lowers the hull for the others, and the errors of neighbours are alike. So one
    number, in eV/atom, spreads any rule (a local penalty, as Gonzalez et al. 2016, arXiv:1505.08052, in chemical
    instead of Euclidean space). Equal scores go by that raised distance and id. All arrays (m,); NaN
    distances are not for here.
    """
    positions: dict[str, list[int]] = {}
    for position, system in enumerate(systems):
        positions.setdefault(system, []).append(position)
    members = {system: np.array(own) for system, own in positions.items()}
    times_chosen = dict.fromkeys(members, 0)

    def best(system: str) -> tuple[float, float, str, int, str]:
        left = members[system]
        shifted = distances[left] + diversity * times_chosen[system]
        score = scores(rule, shifted, stds[left], exploration=exploration)
        place = min(range(len(left)), key=lambda k: (score[k], shifted[k], ids[int(left[k])]))
        position = int(left[place])
        return float(score[place]), float(shifted[place]), ids[position], position, system

    heap = [best(system) for system in members]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < n:
        _, _, _, position, system = heapq.heappop(heap)
        chosen.append(position)
        members[system] = members[system][members[system] != position]
        times_chosen[system] += 1
        if len(members[system]):
            heapq.heappush(heap, best(system))
    return chosen
