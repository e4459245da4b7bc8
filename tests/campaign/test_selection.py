import numpy as np
import pytest

from opengnome.campaign.selection import (
    MODEL,
    RANDOM_FILTERED,
    RANDOM_UNFILTERED,
    Pool,
    choose,
    lowest_per_composition,
    within_window,
)
from opengnome.campaign.settings import RoundSettings


def make_pool(n: int = 200, seed: int = 1) -> Pool:
    rng = np.random.default_rng(seed)
    energies = rng.normal(0.05, 0.1, n)
    energies[::17] = np.nan
    formulas = [f"F{i % (n // 4)}" for i in range(n)]
    return Pool([f"c{i:03d}" for i in range(n)], formulas, energies, rng.uniform(0.01, 0.2, n))


def test_what_could_not_be_predicted_is_outside_the_window() -> None:
    pool = make_pool()
    kept = within_window(pool, window=0.05)
    assert not kept[np.isnan(pool.decomposition_energy)].any()
    finite = ~np.isnan(pool.decomposition_energy)
    assert (kept[finite] == (pool.decomposition_energy[finite] <= 0.05)).all()


def test_lowest_per_composition_against_a_plain_search() -> None:
    pool = make_pool()
    mask = within_window(pool, window=0.05)
    kept = lowest_per_composition(pool, mask)
    for formula in set(pool.reduced_formulas):
        members = [i for i in range(len(pool.ids)) if pool.reduced_formulas[i] == formula and mask[i]]
        chosen = [i for i in kept if pool.reduced_formulas[i] == formula]
        assert chosen == ([min(members, key=lambda i: pool.decomposition_energy[i])] if members else [])


def test_ties_are_broken_by_id_not_by_order() -> None:
    one = Pool(["b", "a"], ["X", "X"], np.zeros(2), np.ones(2))
    other = Pool(["a", "b"], ["X", "X"], np.zeros(2), np.ones(2))
    everything = np.ones(2, dtype=bool)
    assert one.ids[lowest_per_composition(one, everything)[0]] == "a"
    assert other.ids[lowest_per_composition(other, everything)[0]] == "a"


@pytest.mark.parametrize("acquisition", ["probability_stable", "decomposition_energy"])
def test_the_model_takes_the_best(acquisition: str) -> None:
    pool = make_pool()
    kept = lowest_per_composition(pool, within_window(pool, window=0.05))
    settings = RoundSettings.model_validate({"budget": 5, "acquisition": acquisition})
    chosen = choose(pool, kept, settings, seed=0)[MODEL]
    score = -pool.probability_stable if acquisition == "probability_stable" else pool.decomposition_energy
    assert sorted(score[chosen]) == sorted(score[kept])[:5]


def test_random_arms_are_seeded_and_drawn_from_their_pools() -> None:
    pool = make_pool()
    kept = lowest_per_composition(pool, within_window(pool, window=0.05))
    settings = RoundSettings(budget=3, random_filtered=8, random_unfiltered=20)
    chosen = choose(pool, kept, settings, seed=5)
    assert chosen == choose(pool, kept, settings, seed=5)
    assert chosen[RANDOM_UNFILTERED] != choose(pool, kept, settings, seed=6)[RANDOM_UNFILTERED]
    assert set(chosen[RANDOM_FILTERED]) <= set(kept.tolist())
    formulas = [pool.reduced_formulas[i] for i in chosen[RANDOM_UNFILTERED]]
    assert len(set(formulas)) == len(formulas) == 20
    assert any(i not in kept for i in chosen[RANDOM_UNFILTERED])


def test_the_choice_does_not_depend_on_the_order_of_candidates() -> None:
    pool = make_pool()
    order = np.random.default_rng(9).permutation(len(pool.ids))
    shuffled = Pool(
        [pool.ids[i] for i in order],
        [pool.reduced_formulas[i] for i in order],
        pool.decomposition_energy[order],
        pool.std[order],
    )
    settings = RoundSettings(budget=4, random_filtered=4, random_unfiltered=4)

    def names(p: Pool) -> dict[str, list[str]]:
        kept = lowest_per_composition(p, within_window(p, window=0.05))
        return {arm: [p.ids[i] for i in positions] for arm, positions in choose(p, kept, settings, seed=2).items()}

    assert names(pool) == names(shuffled)


def test_probability_stable_of_a_candidate_on_the_hull_is_one_half() -> None:
    pool = Pool(["a", "b", "c"], ["A", "B", "C"], np.array([0.0, -0.1, 0.1]), np.array([0.1, 0.1, 0.1]))
    assert pool.probability_stable == pytest.approx([0.5, 0.841345, 0.158655], abs=1e-6)
