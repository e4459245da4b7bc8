"""Who is worth a calculation: filters on the predicted pool, the model's choice, and the random controls."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opengnome.campaign.acquisition import probability_stable, scores, spread_over_systems
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.settings import RoundSettings
from opengnome.crystals import Composition

MODEL, RANDOM_FILTERED, RANDOM_UNFILTERED = "model", "random_filtered", "random_unfiltered"
COMPOSITIONAL, RANDOM_COMPOSITIONS = "compositional", "random_compositions"
CRYSTAL_ARMS = (MODEL, RANDOM_FILTERED, RANDOM_UNFILTERED)
"""Who chooses crystals: the structural model and its controls."""
ARMS = (*CRYSTAL_ARMS, COMPOSITIONAL, RANDOM_COMPOSITIONS)
"""Everyone who chooses a calculation: also the compositional model, and its control, who choose compositions."""


@dataclass(frozen=True)
class Pool:
    """Candidates of a round, all or those that can be chosen, as predicted; arrays of shape (n_candidates,)."""

    ids: Sequence[str]
    reduced_formulas: Sequence[str]
    decomposition_energy: np.ndarray
    """Predicted, against the hull at the start of the round, eV/atom; NaN where nothing could be predicted."""
    std: np.ndarray
    """Calibrated standard deviation of the prediction, eV/atom."""
    among_candidates: np.ndarray | None = None
    """The same against the hull of what is known and of all other candidates as predicted; None where not asked for."""

    @property
    def probability_stable(self) -> np.ndarray:
        """Probability of lying on or below the hull under a normal error."""
        return probability_stable(self.decomposition_energy, self.std)


def within_window(pool: Pool, *, window: float) -> np.ndarray:
    """Mask of candidates predicted at most `window` eV/atom above the hull."""
    with np.errstate(invalid="ignore"):
        return pool.decomposition_energy <= window


def lowest_per_composition(pool: Pool, mask: np.ndarray) -> np.ndarray:
    """Positions of the lowest predicted candidate of each composition among those in `mask`.

    Ties are broken by id, so the order of candidates does not matter.
    """
    best: dict[str, int] = {}
    for i in np.flatnonzero(mask).tolist():
        formula = pool.reduced_formulas[i]
        rank = (pool.decomposition_energy[i], pool.ids[i])
        if formula not in best or rank < (pool.decomposition_energy[best[formula]], pool.ids[best[formula]]):
            best[formula] = i
    return np.array(sorted(best.values()), dtype=int)


def choose(pool: Pool, kept: np.ndarray, settings: RoundSettings, *, seed: int) -> dict[str, list[int]]:
    """Positions chosen by each arm: the model's best of `kept`, and seeded random draws.

    The random arms draw independently, so a candidate may be in several; it is calculated once. The unfiltered
    arm draws from one candidate per composition of the whole pool, whatever is predicted of it. `pool` may be
    what a `Reduction` by the seed `unfiltered_seed(seed)` has left of a larger one.
    """
    return {
        MODEL: _best(pool, kept, settings, seed=seed_for(seed, MODEL)),
        RANDOM_FILTERED: _draw(pool, kept, settings.random_filtered, seed=seed_for(seed, RANDOM_FILTERED)),
        RANDOM_UNFILTERED: draw_compositions(pool, settings.random_unfiltered, seed=unfiltered_seed(seed)),
    }


def unfiltered_seed(seed: int) -> int:
    """Seed of the draw from the whole pool in a choice by `seed`."""
    return seed_for(seed, RANDOM_UNFILTERED)


def draw_compositions(pool: Pool, n: int, *, seed: int) -> list[int]:
    """Positions of one random candidate of each of `n` random compositions.

    Every composition, and every candidate of it, has a seeded rank of its own, so the draw from a large pool can be
    made part by part: what is drawn from all is drawn from the part that it is in.
    """
    if n == 0:
        return []
    members: dict[str, list[int]] = {}
    for position, formula in enumerate(pool.reduced_formulas):
        members.setdefault(formula, []).append(position)
    drawn = heapq.nsmallest(n, members, key=lambda formula: (seed_for(seed, formula), formula))
    return [min(members[formula], key=lambda i: (seed_for(seed, pool.ids[i]), pool.ids[i])) for formula in drawn]


def _best(pool: Pool, kept: np.ndarray, settings: RoundSettings, *, seed: int) -> list[int]:
    """Positions of the first `budget` of `kept` by the acquisition rule, best first."""
    rule, ids = settings.acquisition, pool.ids
    energies = pool.decomposition_energy if pool.among_candidates is None else pool.among_candidates
    if rule == "random":
        return _draw(pool, kept, settings.budget, seed=seed)
    if settings.diversity:
        chosen = spread_over_systems(
            rule,
            energies[kept],
            pool.std[kept],
            [Composition.from_formula(pool.reduced_formulas[i]).chemical_system for i in kept.tolist()],
            [ids[i] for i in kept.tolist()],
            n=settings.budget,
            diversity=settings.diversity,
            exploration=settings.exploration,
        )
        return kept[chosen].tolist()
    score = np.full(len(ids), np.nan)
    score[kept] = scores(rule, energies[kept], pool.std[kept], exploration=settings.exploration)
    return sorted(kept.tolist(), key=lambda i: (score[i], energies[i], ids[i]))[: settings.budget]


def _draw(pool: Pool, positions: np.ndarray, n: int, *, seed: int) -> list[int]:
    if n == 0:
        return []
    return sorted(positions.tolist(), key=lambda i: seed_for(seed, pool.ids[i]))[:n]
