"""Batches of similar total size, drawn so that an epoch can be resumed from its number."""

import numpy as np


def balanced_batches(sizes: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows 0..n-1 in random batches of at most `batch_size`; every row once, batches of similar total `sizes`.

    The rows are sorted by size and cut into strata as long as the number of batches; each batch takes one row
    of each stratum. So a batch has small and large crystals in fixed proportion, and no step waits for one
    batch of giants. Rows of equal size are in random order.
    """
    n_batches = -(-len(sizes) // batch_size)
    order = np.lexsort((rng.random(len(sizes)), sizes))
    batches: list[list[int]] = [[] for _ in range(n_batches)]
    for start in range(0, len(order), n_batches):
        stratum = rng.permutation(order[start : start + n_batches])
        # a short last stratum fills batches drawn at random, not always the first ones
        slots = rng.permutation(n_batches)[: len(stratum)]
        for slot, row in zip(slots.tolist(), stratum.tolist(), strict=True):
            batches[slot].append(row)
    return [np.array(batch, dtype=np.int64) for batch in batches]
