"""Batches: every row once, similar total sizes, the same for the same generator."""

import numpy as np
import pytest

from opengnome.models.sampling import balanced_batches


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (4, 4), (103, 10), (64, 1), (7, 100)])
def test_every_row_once(n: int, batch_size: int):
    sizes = np.random.default_rng(0).integers(1, 100, n)
    batches = balanced_batches(sizes, batch_size, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    assert len(batches) == -(-n // batch_size)
    assert max(map(len, batches)) <= batch_size


def test_batches_are_of_similar_size():
    sizes = np.random.default_rng(0).lognormal(3.0, 1.0, 6400)
    totals = [sizes[batch].sum() for batch in balanced_batches(sizes, 64, np.random.default_rng(1))]
    random = [sizes[batch].sum() for batch in np.random.default_rng(1).permutation(6400).reshape(100, 64)]
    assert np.std(totals) < 0.25 * np.std(random)


def test_order_follows_from_the_generator():
    sizes = np.ones(50)

    def batches(seed: int) -> list[list[int]]:
        return [b.tolist() for b in balanced_batches(sizes, 8, np.random.default_rng(seed))]

    assert batches(1) == batches(1)
    assert batches(1) != batches(2)
    assert not np.array_equal(np.sort(batches(1)[0]), np.arange(8))  # equal sizes are mixed, not in order
