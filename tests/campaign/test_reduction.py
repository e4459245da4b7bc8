"""Shards reduced one by one give the choice that all candidates at once give."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.campaign.reduction import Reduction, SeenIds, pool_of
from opengnome.campaign.selection import choose, lowest_per_composition, unfiltered_seed, within_window
from opengnome.campaign.settings import RoundSettings

SETTINGS = RoundSettings(budget=7, random_filtered=5, random_unfiltered=9)
WINDOW, SEED = 0.05, 3


def candidates(n: int, seed: int) -> pa.Table:
    """Energies rounded, so that some are equal; some without a prediction; some twice, as two parents make them."""
    rng = np.random.default_rng(seed)
    names = rng.integers(0, max(1, int(0.8 * n)), n)
    of_name = np.random.default_rng(seed + 1)
    distances = of_name.normal(0.1, 0.1, n).round(2)
    distances[of_name.random(n) < 0.1] = np.nan
    formulas = of_name.integers(0, max(1, n // 4), n)
    return pa.table(
        {
            "id": [f"c{name:05d}" for name in names],
            "reduced_formula": [f"F{formulas[name]}" for name in names],
            "formation_energy_per_atom": distances[names] - 1.0,
            "std": 0.02 + 0.1 * of_name.random(n)[names],
            "hull_energy_per_atom": np.full(n, -1.0),
            "predicted_decomposition_energy": distances[names],
        }
    )


def chosen(table: pa.Table) -> dict[str, list[str]]:
    pool = pool_of(table)
    kept = lowest_per_composition(pool, within_window(pool, window=WINDOW))
    return {arm: [pool.ids[i] for i in rows] for arm, rows in choose(pool, kept, SETTINGS, seed=SEED).items()}


@settings(deadline=None)
@given(n=st.integers(0, 400), seed=st.integers(0, 50), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_any_shards_in_any_sizes_give_the_choice_of_all_at_once(n: int, seed: int, cuts: list[int]) -> None:
    table = candidates(n, seed)
    starts = [0, *sorted(min(cut, n) for cut in cuts), n]
    shards = [table.slice(a, b - a) for a, b in pairwise(starts)]
    reduction = Reduction(window=WINDOW, n_random=SETTINGS.random_unfiltered, seed=unfiltered_seed(SEED))
    for number, shard in enumerate(shards):
        reduction.add(number, shard)
    left = reduction.table()
    names = table["id"].to_pylist()
    once = table.take(pa.array([names.index(name) for name in dict.fromkeys(names)], pa.int64()))
    assert chosen(left) == chosen(once)
    for row in left.to_pylist():
        assert shards[row["shard"]]["id"][row["row"]].as_py() == row["id"]
    distances = once["predicted_decomposition_energy"].to_numpy()
    assert reduction.counts == {
        "generated": len(once),
        "predicted": np.isfinite(distances).sum(),
        "within_window": (distances <= WINDOW).sum(),
        "repeated": n - len(once),
    }


def test_what_is_left_does_not_grow_with_what_is_far_from_the_hull() -> None:
    reduction = Reduction(window=WINDOW, n_random=4, seed=1)
    for shard in range(20):
        far = candidates(500, seed=shard)
        ids = pa.array([f"{shard}-{i}" for i in far["id"].to_pylist()])
        far = far.set_column(0, "id", ids).set_column(5, "predicted_decomposition_energy", pa.array(np.full(500, 0.3)))
        reduction.add(shard, far)
    assert reduction.table().num_rows == 4


def test_no_shard_is_no_table() -> None:
    with pytest.raises(ValueError, match="no shard"):
        Reduction(window=WINDOW, n_random=1, seed=0).table()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 300), max_size=60), max_size=12))
def test_ids_are_new_once(parts: list[list[int]]) -> None:
    seen, known = SeenIds(), set()
    for part in parts:
        names = [f"candidate-{i}" for i in part]
        expected = []
        for name in names:
            expected.append(name not in known)
            known.add(name)
        assert seen.first_seen(names).tolist() == expected
