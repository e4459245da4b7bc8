"""The candidates of all shards reduced to those that a round may choose, one shard at a time.

A shard may hold any number of candidates; what is kept of it are the lowest of each composition within the window, and
as many of all its compositions as the unfiltered random arm draws. To reduce what two shards have left gives the same
as to reduce them together, so memory grows with what is kept, and by eight bytes for each candidate seen.
"""

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa

from opengnome.campaign.selection import Pool, draw_compositions, lowest_per_composition, within_window

COLUMNS = (
    "id",
    "reduced_formula",
    "formation_energy_per_atom",
    "std",
    "hull_energy_per_atom",
    "predicted_decomposition_energy",
)
"""What a reduction reads of a shard."""


class SeenIds:
    """Which ids were there before, by eight bytes of their digest."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # sorted, disjoint, each at least twice as long as the next

    def first_seen(self, ids: list[str]) -> np.ndarray:
        """Mask of the ids that are new, each at its first place; afterwards all of them have been seen."""
        keys = np.frombuffer(b"".join(hashlib.sha256(i.encode()).digest()[:8] for i in ids), dtype=np.uint64)
        unique, first = np.unique(keys, return_index=True)
        new = np.ones(len(unique), dtype=bool)
        for run in self._runs:
            places = np.searchsorted(run, unique)
            new &= run[np.minimum(places, len(run) - 1)] != unique
        self._add(unique[new])
        mask = np.zeros(len(ids), dtype=bool)
        mask[first[new]] = True
        return mask

    def _add(self, keys: np.ndarray) -> None:
        while self._runs and len(self._runs[-1]) < 2 * len(keys):
            keys = np.sort(np.concatenate([self._runs.pop(), keys]))
        if len(keys):
            self._runs.append(keys)


class Reduction:
    """Candidates that can be chosen, of the shards added so far."""

    def __init__(self, *, window: float, n_random: int, seed: int) -> None:
        """`window` in eV/atom above the hull; `n_random` compositions are drawn from all candidates by `seed`."""
        self.window = window
        self.n_random = n_random
        self.seed = seed
        self.counts: Counter[str] = Counter(generated=0, predicted=0, within_window=0, repeated=0)
        """Candidates seen, each once; those with a prediction; those within the window; and those seen again."""
        self._seen = SeenIds()
        self._reduced: pa.Table | None = None
        self._waiting: list[pa.Table] = []

    def add(self, shard: int, candidates: pa.Table) -> None:
        """Take in the rows of a shard (`COLUMNS`); a candidate that an earlier shard had is left out."""
        rows = np.arange(candidates.num_rows, dtype=np.int64)
        places = {"shard": pa.array(np.full(len(rows), shard, dtype=np.int64)), "row": pa.array(rows)}
        for name, column in places.items():
            candidates = candidates.append_column(name, column)
        new = self._seen.first_seen(candidates["id"].to_pylist())
        fresh = candidates.filter(pa.array(new))
        distances = fresh["predicted_decomposition_energy"].to_numpy()
        self.counts.update(
            generated=len(distances),
            predicted=int(np.isfinite(distances).sum()),
            within_window=int((distances <= self.window).sum()),
            repeated=int((~new).sum()),
        )
        self._waiting.append(self._reduce(fresh))
        # merged when as much waits as is there already, a row is looked at a logarithmic number of times
        if sum(table.num_rows for table in self._waiting) > (0 if self._reduced is None else self._reduced.num_rows):
            self._merge()

    def table(self) -> pa.Table:
        """What is left: `COLUMNS`, and the `shard` and `row` where each candidate is. Raises `ValueError` before any
        shard was added.
        """
        self._merge()
        if self._reduced is None:
            raise ValueError("no shard was added to the reduction")
        return self._reduced

    def _merge(self) -> None:
        if self._waiting:
            parts = self._waiting if self._reduced is None else [self._reduced, *self._waiting]
            self._reduced, self._waiting = self._reduce(pa.concat_tables(parts).combine_chunks()), []

    def _reduce(self, table: pa.Table) -> pa.Table:
        pool = pool_of(table)
        kept = lowest_per_composition(pool, within_window(pool, window=self.window))
        drawn = draw_compositions(pool, self.n_random, seed=self.seed)
        return table.take(pa.array(np.union1d(kept, np.array(drawn, dtype=np.int64)).astype(np.int64)))


def pool_of(table: pa.Table) -> Pool:
    """Rows with `COLUMNS` as a pool."""
    return Pool(
        table["id"].to_pylist(),
        table["reduced_formula"].to_pylist(),
        table["predicted_decomposition_energy"].to_numpy(),
        table["std"].to_numpy(),
    )
